// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line of `usb-gadget-drive agent`.

use std::path::PathBuf;

use super::spec::Spec;

/// Presents drives to the host that is connected to a USB device controller.
#[derive(Debug, clap::Args)]
pub struct AgentArgs {
    /// The device controller, a name in /sys/class/udc
    #[arg(long, value_name = "NAME")]
    pub udc: String,
    /// Configuration file [default: /etc/midplane/usb-gadget-drive-agent.toml; none with --drive]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A drive: unix:/PATH:EXPORT, tcp:HOST:PORT:EXPORT or file:/PATH, with :ro (write protected) or :cd (CD-ROM)
    /// behind it; may be given again. Drives fill the LUNs of their kind in this order
    #[arg(long = "drive", value_name = "DRIVE")]
    pub drives: Vec<Spec>,
    /// Mass-storage functions of the gadget, 1 or 2; each takes two endpoints of the controller
    #[arg(long, default_value_t = 2)]
    pub functions: u8,
    /// LUNs of each function that are disks
    #[arg(long, default_value_t = 6)]
    pub disks: u8,
    /// LUNs of each function that are CD-ROMs; with the disks at most 8
    #[arg(long, default_value_t = 2)]
    pub cds: u8,
    /// Without keyboard and mouse, of which the kernel has two for all gadgets of a machine
    #[arg(long)]
    pub no_input: bool,
    /// Remove the gadget at the end; otherwise the host keeps keyboard, mouse and the drives that are files here
    #[arg(long)]
    pub remove: bool,
    /// More messages: once debug, twice trace
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}
