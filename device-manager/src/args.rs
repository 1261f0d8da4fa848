// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::manager::core::Scope;
use crate::pattern::Pattern;
use crate::record::DeviceId;

/// Any device of any machine of the group, leased to one user at a time.
#[derive(Debug, Parser)]
#[command(name = "device-manager", version, after_help = "Manual: device-manager(8)")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Broker devices (what the systemd unit runs)
    Serve(ServeArgs),
    /// Own this machine's devices (what the systemd unit runs)
    Unit(UnitArgs),
    /// Write to sysfs for the others, as root (what the systemd unit runs)
    Helper(HelperArgs),
    /// Check the configuration and say what it means
    Check {
        /// Which.
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Show who has what, since when, until when, and through which manager
    Status {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show devices
    Devices {
        /// Only those that fit
        #[arg(value_name = "PATTERN", default_value = "", hide_default_value = true)]
        pattern: Pattern,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show units, and the manager of each
    Units {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show managers, and the units of each
    Managers {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Look for devices, also at managers whose lists are not held here
    Find {
        /// What they are like
        #[arg(value_name = "PATTERN", default_value = "", hide_default_value = true)]
        pattern: Pattern,
        /// Go on, and show what changes
        #[arg(long)]
        watch: bool,
        /// Which of them
        #[arg(long, value_enum, default_value = "group")]
        scope: ScopeArg,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show what a device is, who has it, and whether you may
    Explain {
        /// The device
        device: DeviceId,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show who waits for devices of units that are with this manager
    Queue {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Lease a device and hold it, until a signal
    Lease(HoldArgs),
    /// Lease a device and have it appear here, until a signal
    Attach {
        /// What, and how.
        #[command(flatten)]
        hold: HoldArgs,
        /// Come back to it whenever it is lost, and wait for it if it is not there
        #[arg(long)]
        keep: bool,
        /// Where a serial line's terminal, the socket of a disk or a BMC, or a HID device's first node is to be found
        #[arg(long, value_name = "PATH")]
        link: Option<PathBuf>,
        /// Let the group of this process connect to such a socket as well
        #[arg(long)]
        group: bool,
    },
    /// End a lease, whoever on this machine holds it
    Release {
        /// The lease
        lease: u64,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// End the leases of a device that this machine holds
    Detach {
        /// The device
        device: DeviceId,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// See [`Scope`].
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum ScopeArg {
    /// All of the group's
    Group,
    /// Those whose units are with this machine's manager
    Managed,
    /// This machine's own
    Local,
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Self {
        match scope {
            ScopeArg::Group => Self::Group,
            ScopeArg::Managed => Self::Managed,
            ScopeArg::Local => Self::Local,
        }
    }
}

/// Which configuration.
#[derive(Debug, Clone, Args)]
pub struct ConfigArg {
    /// Configuration file [default: /etc/midplane/device-manager.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How to ask the manager.
#[derive(Debug, Clone, Args)]
pub struct AskArgs {
    /// Control socket of the manager
    #[arg(long, value_name = "PATH", default_value = "/run/midplane/device-manager/control.sock")]
    pub socket: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// Where keys and folders are.
#[derive(Debug, Clone, Args)]
pub struct RootArgs {
    /// Use etc, var and run below this folder instead
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Log more; twice for the most
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Where keys, folders and the group are.
#[derive(Debug, Clone, Args)]
pub struct PlaceArgs {
    /// Keys and folders.
    #[command(flatten)]
    pub root: RootArgs,
    /// The group's list
    #[arg(long, value_name = "FILE", default_value = group::list::PATH)]
    pub list: PathBuf,
}

/// Of the manager.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArgs,
}

/// Of the unit.
#[derive(Debug, Clone, Args)]
pub struct UnitArgs {
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArgs,
    /// The helper's socket
    #[arg(long, value_name = "PATH", default_value = crate::helper::SOCKET)]
    pub helper: PathBuf,
}

/// Of the helper.
#[derive(Debug, Clone, Args)]
pub struct HelperArgs {
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArg,
    /// Where to listen, if systemd gives no socket
    #[arg(long, value_name = "PATH", default_value = crate::helper::SOCKET)]
    pub helper: PathBuf,
    /// Log more; twice for the most
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Of those who hold a device.
#[derive(Debug, Clone, Args)]
pub struct HoldArgs {
    /// The device: its id, or what it is like
    #[arg(value_name = "PATTERN")]
    pub pattern: Pattern,
    /// If several fit, any of them, a free one first
    #[arg(long)]
    pub any: bool,
    /// A part of it of this type, or with this node at its unit, instead of all of it
    #[arg(long, value_name = "TYPE")]
    pub function: Option<String>,
    /// Wait if somebody else has it
    #[arg(long)]
    pub queue: bool,
    /// Give it back after so many seconds at the latest
    #[arg(long, value_name = "SECONDS")]
    pub limit: Option<u32>,
    /// Control socket of this machine's manager
    #[arg(long, value_name = "PATH", default_value = "/run/midplane/device-manager/control.sock")]
    pub socket: PathBuf,
    /// Where things are.
    #[command(flatten)]
    pub places: RootArgs,
    /// The helper's socket
    #[arg(long, value_name = "PATH", default_value = crate::helper::SOCKET)]
    pub helper: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        super::Cli::command().debug_assert();
    }
}
