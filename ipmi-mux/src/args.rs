// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
    /// Show the BMC, the nodes and the counters
    Status {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show who has which node open and what they do
    Clients {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// Which configuration.
#[derive(Debug, Args)]
pub struct ConfigArg {
    /// Configuration file [default: /etc/midplane/ipmi-mux.toml, or built-in defaults without it]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
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
