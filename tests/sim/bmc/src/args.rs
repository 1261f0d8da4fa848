// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

use std::fmt;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args as ClapArgs, Parser, Subcommand};

use crate::control::HELP;

/// A simulated BMC for tests and demonstrations.
///
/// `serve` listens for a virtual machine's IPMI interface and plays its BMC; `ctl` tells a running
/// simulator what to do: faults, events, changes, counts.
#[derive(Debug, Parser)]
#[command(name = "bmc-sim", version, after_help = EXAMPLES)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  bmc-sim serve --vm unix:/tmp/bmc.sock --control unix:/tmp/ctl.sock
  qemu-system-x86_64 ... -chardev socket,id=bmc,path=/tmp/bmc.sock,reconnect=1 \\
      -device ipmi-bmc-extern,id=bmc0,chardev=bmc -device isa-ipmi-kcs,bmc=bmc0
  bmc-sim ctl --to /tmp/ctl.sock fault lost 2 06/01";

/// The two commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Play a BMC.
    Serve(Serve),
    /// Tell a running simulator what to do; prints its answer, a line of JSON.
    Ctl(Ctl),
}

/// Options of `serve`.
#[derive(Debug, ClapArgs)]
pub struct Serve {
    /// Where the virtual machine connects: `unix:PATH` or `tcp:HOST:PORT`; may be given again.
    #[arg(long, required = true, value_name = "ADDRESS")]
    pub vm: Vec<Address>,
    /// Where `bmc-sim ctl` connects: `unix:PATH`; may be given again.
    #[arg(long, value_name = "ADDRESS")]
    pub control: Vec<Address>,
    /// Sensors of the BMC.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..=250))]
    pub sensors: u8,
    /// Sensors of the second controller, at 0x82 on the IPMB.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..=20))]
    pub satellite_sensors: u8,
    /// Time that each command takes, milliseconds.
    #[arg(long, default_value_t = 3, value_name = "MS")]
    pub service_time: u32,
    /// Time that a reset keeps the BMC silent, milliseconds.
    #[arg(long, default_value_t = 2000, value_name = "MS")]
    pub reset_time: u32,
    /// Another number makes the readings move in another way.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Let chassis control and the watchdog switch the virtual machine; otherwise they are only
    /// logged.
    #[arg(long)]
    pub honour_power: bool,
    /// Append each change to this file, a line of JSON each.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
}

/// Options of `ctl`.
#[derive(Debug, ClapArgs)]
#[command(after_help = ctl_help())]
pub struct Ctl {
    /// Socket or serial port of the simulator. Without it: the virtio port
    /// org.midplane.bmc if this machine has one, else /run/bmc-sim.sock.
    #[arg(long, value_name = "PATH")]
    pub to: Option<PathBuf>,
    /// How long to wait for the answer, seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub timeout: u32,
    /// Command and its words, see below.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

/// The commands, two columns.
fn ctl_help() -> String {
    let mut text = String::from("Commands:\n");
    for (usage, help) in HELP {
        text.push_str(&format!("  {usage}\n"));
        let mut line = String::new();
        for word in help.split(' ') {
            if line.len() + word.len() > 80 {
                text.push_str(&format!("         {line}\n"));
                line.clear();
            }
            line.push(' ');
            line.push_str(word);
        }
        text.push_str(&format!("         {line}\n"));
    }
    text.push_str(
        "\nExit status: 0 done, 1 refused or no answer, 2 wrong usage of bmc-sim itself.",
    );
    text
}

/// A place to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port, `HOST:PORT`.
    Tcp(String),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("no path after `unix:`".to_owned()),
                path => Ok(Self::Unix(path.into())),
            };
        }
        if let Some(address) = text.strip_prefix("tcp:") {
            return match address.to_socket_addrs() {
                Ok(_) => Ok(Self::Tcp(address.to_owned())),
                Err(error) => Err(format!("no address HOST:PORT after `tcp:`: {error}")),
            };
        }
        Err("neither `unix:PATH` nor `tcp:HOST:PORT`".to_owned())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
        let help = ctl_help();
        assert!(HELP.iter().all(|(usage, _)| help.contains(usage)));
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!("unix:/a/b".parse(), Ok(Address::Unix("/a/b".into())));
        assert_eq!("tcp:127.0.0.1:9".parse(), Ok(Address::Tcp("127.0.0.1:9".into())));
        for bad in ["/a/b", "unix:", "tcp:127.0.0.1", "tcp:"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn control_words_keep_their_hyphens() {
        let args = Args::parse_from(["bmc-sim", "ctl", "stats", "--clear"]);
        let Command::Ctl(ctl) = args.command else { panic!() };
        assert_eq!(ctl.words, ["stats", "--clear"]);
    }
}
