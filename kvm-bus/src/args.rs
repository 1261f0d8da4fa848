// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::shell::rmm::control::PowerAction;

/// Screen, keyboard and console of every blade over one daisy-chained serial bus.
#[derive(Debug, Parser)]
#[command(name = "kvm-bus", version, after_help = "Manual: kvm-bus(8)")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Be an end of the bus (what the systemd units run)
    Serve {
        /// Which.
        #[command(subcommand)]
        end: End,
    },
    /// Check a configuration and say what it means
    Check {
        /// Of which end.
        #[arg(value_enum)]
        end: EndName,
        /// Configuration file [default: /etc/midplane/kvm-bus-rmm.toml, or kvm-bus-lmc.toml]
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Write configurations for the consoles that conserver or ser2net has on this machine
    Import(ImportArgs),
    /// Show the bus, its blades, and who is at their consoles
    Status {
        /// That of the LMC on this machine
        #[arg(long)]
        lmc: bool,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Couple a blade: its screen and keyboard are the operator's
    Select {
        /// The blade, by name or slot
        #[arg(required_unless_present = "none")]
        blade: Option<String>,
        /// Couple no blade
        #[arg(long, conflicts_with = "blade")]
        none: bool,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Sit at a blade's serial console; ^Ec. ends it, ^Ec? tells the other commands
    Console {
        /// The blade, by name or slot
        blade: String,
        /// How to attach.
        #[command(flatten)]
        attach: AttachArgs,
    },
    /// Sit at the text screen of the coupled blade, or couple one; ^Ec; BLADE Enter couples another
    Screen {
        /// The blade, by name or slot [default: the one that is coupled]
        blade: Option<String>,
        /// How to attach.
        #[command(flatten)]
        attach: AttachArgs,
    },
    /// Show who is at which console or screen
    Sessions {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show the end of a blade's console log
    Replay {
        /// The blade, by name or slot
        blade: String,
        /// How many lines
        #[arg(short = 'n', long, default_value_t = 100)]
        lines: usize,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Have a blade's BMC switch it, or tell whether it is on
    Power {
        /// The blade, by name or slot
        blade: String,
        /// What
        #[arg(value_enum)]
        action: PowerAction,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// An end of the bus, or what belongs to one.
#[derive(Debug, Subcommand)]
pub enum End {
    /// The operator's end
    Rmm(ServeArgs),
    /// A blade's end
    Lmc(ServeArgs),
    #[cfg(feature = "ssh")]
    /// Consoles and screens by SSH, for the client at standard input
    Ssh(SshArgs),
}

/// An end's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EndName {
    /// The operator's end
    Rmm,
    /// A blade's end
    Lmc,
}

/// How to serve.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Log more; twice for the most
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Configuration file [default: /etc/midplane/kvm-bus-rmm.toml, or kvm-bus-lmc.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How to serve by SSH.
#[derive(Debug, Args)]
pub struct SshArgs {
    /// Log more; twice for the most
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Configuration file of the RMM [default: /etc/midplane/kvm-bus-rmm.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// This machine's key; it is made if there is none
    #[arg(long, value_name = "FILE", default_value = "/var/lib/midplane/kvm-bus-ssh/host_key")]
    pub host_key: PathBuf,
}

/// What to import.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// conserver.cf, ser2net.yaml or ser2net.conf
    pub file: PathBuf,
    /// Whose configuration it is [default: what its text looks like]
    #[arg(long, value_enum)]
    pub format: Option<ImportFormat>,
    /// Folder for the configurations
    #[arg(short, long, value_name = "DIR", default_value = "/etc/midplane")]
    pub output: PathBuf,
    /// Replace configurations that are there
    #[arg(short, long)]
    pub force: bool,
}

/// Whose configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ImportFormat {
    /// conserver.cf(5)
    Conserver,
    /// ser2net.yaml(5), or ser2net.conf(5) of older ones
    Ser2net,
}

/// How to ask the daemon.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// Control socket of the daemon [default: /run/midplane/kvm-bus/control.sock, or that of kvm-bus-lmc]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// How to attach.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Only look
    #[arg(long, conflicts_with = "force")]
    pub spy: bool,
    /// Take the keyboard from whoever has it
    #[arg(short, long)]
    pub force: bool,
    /// Console socket of the daemon
    #[arg(long, value_name = "PATH", default_value = "/run/midplane/kvm-bus/console.sock")]
    pub socket: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }
}
