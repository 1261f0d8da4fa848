// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::reserve::CommandCode;
use crate::watch::filter::Filter;

/// One BMC as many independent, ipmitool-compatible controllers.
#[derive(Debug, Parser)]
#[command(name = "ipmi-mux", version, after_help = "Manual: ipmi-mux(8), ipmi-mux.toml(5)")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the nodes (what the systemd unit runs)
    Serve {
        /// Log more; twice for the most
        #[arg(short, long, action = clap::ArgAction::Count)]
        verbose: u8,
        /// Which configuration.
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Check the configuration and say what it means
    Check {
        /// Which configuration.
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Move the kernel's node away for `take_over` (what the systemd unit runs before `serve`)
    #[command(hide = true)]
    TakeOver {
        /// Which configuration.
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Move the kernel's nodes back (what the systemd unit runs after `serve`)
    #[command(hide = true)]
    PutBack,
    /// Show the BMC, the nodes and the counters
    Status {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Run a program that has commands of the BMC for itself, on a node of its own
    Reserve {
        /// What and for whom.
        #[command(flatten)]
        reserve: ReserveArgs,
    },
    /// Show who has which node open and what they do
    Clients {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show what passes between clients and the BMC, as it happens
    Watch(WatchArgs),
}

/// What to reserve and for whom.
#[derive(Debug, Args)]
pub struct ReserveArgs {
    /// Commands with commas between them: NN/CC in hexadecimal, or their standard names
    #[arg(value_name = "COMMAND", required = true, num_args = 1, value_delimiter = ',')]
    pub commands: Vec<CommandCode>,
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = "/run/midplane/ipmi-mux/control.sock")]
    pub socket: PathBuf,
    /// Program to run with its arguments; in these each {} becomes the number of the node
    #[arg(value_name = "PROGRAM", required = true, last = true)]
    pub program: Vec<OsString>,
}

/// Which configuration.
#[derive(Debug, Args)]
pub struct ConfigArg {
    /// Configuration file [default: /etc/midplane/ipmi-mux.toml, or built-in defaults without it]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What to watch and how to show it.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// What to show.
    #[command(flatten)]
    pub filter: Filter,
    /// End after so many lines
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Write a capture for Wireshark instead; `-` is standard output
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub pcap: Option<PathBuf>,
    /// How to ask.
    #[command(flatten)]
    pub ask: AskArgs,
}

/// How to ask the daemon.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// Print JSON for programs instead of a table
    #[arg(long)]
    pub json: bool,
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = "/run/midplane/ipmi-mux/control.sock")]
    pub socket: PathBuf,
}
