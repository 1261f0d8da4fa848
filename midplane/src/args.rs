// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use secure_link::{Name, Store};

/// Sets a machine up as a member of a group.
#[derive(Debug, Parser)]
#[command(name = "midplane", version, after_help = "Manuals: midplane-key(1), midplane-status(1)")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The group as each program on this machine sees it
    #[command(after_help = "Manual: midplane-status(1)")]
    Status(GroupStatusArgs),
    /// The keys by which the machines of a group know one another
    #[command(after_help = "Manual: midplane-key(1)")]
    Key {
        /// Where they are.
        #[command(flatten)]
        root: RootArg,
        /// What to do with them.
        #[command(subcommand)]
        what: KeyCommand,
    },
}

/// Where the keys are.
#[derive(Debug, Args)]
pub struct RootArg {
    /// Use etc/midplane and var/lib/midplane below this folder, such as an image's
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
}

impl RootArg {
    /// The keys there.
    #[must_use]
    pub fn store(&self) -> Store {
        self.root.as_deref().map_or_else(Store::default, Store::below)
    }
}

/// How to show the group.
#[derive(Debug, Args)]
pub struct GroupStatusArgs {
    /// Answer in JSON; with --watch, a line each time
    #[arg(long)]
    pub json: bool,
    /// Show it again each second, until interrupted
    #[arg(long)]
    pub watch: bool,
    /// Where the programs' folders with their control sockets are
    #[arg(long, value_name = "DIR", default_value = "/run/midplane")]
    pub sockets: PathBuf,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Begin a group with this machine as its first member
    Create(CreateArgs),
    /// Take this machine into a group, with the group key from standard input
    Join(JoinArgs),
    /// Change the group key on all members, step by step
    Rotate(RotateArgs),
    /// Show this machine's keys and the members it knows
    Status(StatusArgs),
    /// Shut a member out on this machine; to shut it out everywhere, rotate after it
    Revoke {
        /// The member
        member: Name,
    },
    /// Forget a member's key on this machine, so that another may take its name
    Forget {
        /// The member
        member: Name,
    },
    /// Answer other members (what the systemd unit runs)
    Serve(ServeArgs),
}

/// Who this machine is in its group.
#[derive(Debug, Args)]
pub struct SelfArgs {
    /// This machine's name in the group [default: its host name]
    #[arg(long)]
    pub name: Option<Name>,
    /// Where its `midplane key serve` is reached, if not where its connections come from; may be given again
    #[arg(long = "address", value_name = "IP:PORT")]
    pub addresses: Vec<SocketAddr>,
}

/// What to begin.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The group's name
    pub group: Name,
    /// Who this machine is.
    #[command(flatten)]
    pub own: SelfArgs,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// What to join.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// Members to make themselves known to, by host and perhaps port [default port: 7459]
    #[arg(value_name = "MEMBER", required_unless_present = "offline")]
    pub members: Vec<String>,
    /// Read the group key from this file instead of standard input
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Only store the key: members are met when a program connects
    #[arg(long, conflicts_with = "members")]
    pub offline: bool,
    /// Who this machine is.
    #[command(flatten)]
    pub own: SelfArgs,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// How to change the key.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// Leave this member out: it has to join again; may be given again
    #[arg(long, value_name = "MEMBER")]
    pub without: Vec<Name>,
    /// Give up a change that no member has gone beyond accepting
    #[arg(long, conflicts_with = "without")]
    pub abandon: bool,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// What to show.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Do not ask the members, show what they last said
    #[arg(long)]
    pub offline: bool,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// Where to answer.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Listen here; without it, on the sockets that systemd gives
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Log more; twice for the most
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_member_or_offline_is_needed_to_join() {
        for (words, good) in [
            (&["join"][..], false),
            (&["join", "a"], true),
            (&["join", "--offline"], true),
            (&["join", "--offline", "a"], false),
            (&["create"], false),
            (&["create", "../x"], false),
            (&["rotate", "--abandon", "--without", "a"], false),
        ] {
            let words = ["midplane", "key"].iter().chain(words);
            assert_eq!(Cli::try_parse_from(words.clone()).is_ok(), good, "{words:?}");
        }
    }
}
