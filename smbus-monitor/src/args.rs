// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Blades that watch themselves and their chassis.
#[derive(Debug, Parser)]
#[command(name = "smbus-monitor", version, after_help = "Manual: smbus-monitor(8)")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch this machine, and the chassis as a member of its group (what the systemd unit runs)
    Serve(ServeArgs),
    /// Check the configuration and say what it means
    Check {
        /// Which.
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Show how the chassis is
    Status {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show values
    Sensors {
        /// Of this slot or member; `all` for all [default: this machine]
        place: Option<String>,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show events as they happen, or the last ones
    Watch {
        /// The last so many, and no more
        #[arg(long, value_name = "N")]
        last: Option<usize>,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show what is wrong
    Alerts {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Take note of an alert
    Ack {
        /// The alert's id
        id: String,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Limits
    Threshold {
        /// What to do with them.
        #[command(subcommand)]
        what: ThresholdCommand,
    },
    /// Show what a metric was
    History {
        /// The metric
        metric: String,
        /// Of this slot or member [default: this machine]
        #[arg(long)]
        place: Option<String>,
        /// Back to then, such as 10m or 24h; at most 48h
        #[arg(long, value_name = "TIME", default_value = "10m")]
        since: daemon_kit::config::HumanDuration,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// What to do with limits.
#[derive(Debug, Subcommand)]
pub enum ThresholdCommand {
    /// List them
    List {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// Which configuration.
#[derive(Debug, Clone, Args)]
pub struct ConfigArg {
    /// Configuration file [default: /etc/midplane/smbus-monitor.toml]
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// How to ask the daemon.
#[derive(Debug, Clone, Args)]
pub struct AskArgs {
    /// Control socket of the daemon
    #[arg(long, value_name = "PATH", default_value = "/run/midplane/smbus-monitor/control.sock")]
    pub socket: PathBuf,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
}

/// How to serve.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Log more; twice for the most
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Which configuration.
    #[command(flatten)]
    pub config: ConfigArg,
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
