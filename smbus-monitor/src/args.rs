// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use daemon_kit::config::HumanDuration;

use crate::core::rules::SAMPLES;
use crate::pattern::Pattern;

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
    /// Show the members of the group
    Members {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show who the active manager is, and where it is asked
    Manager {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Slots: what they are called, and which modules belong there
    Slot {
        /// What to do with them.
        #[command(subcommand)]
        what: SlotCommand,
    },
    /// Switch the power of a slot
    Power {
        /// The slot, its name, or the member there
        place: String,
        /// What is to be
        action: PowerWord,
        /// An order's id, 32 hexadecimal digits; the same again is the same order [default: a random one]
        #[arg(long)]
        id: Option<String>,
        /// Which member is to do it [default: the blade itself, or one that has a way to it]
        #[arg(long, value_name = "MEMBER")]
        by: Option<String>,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Go on with these members alone, where no majority is left
    Override {
        /// Who votes from now on, this machine among them
        #[arg(required = true)]
        members: Vec<String>,
        /// Why; it is written down for good
        #[arg(long)]
        reason: String,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
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
        since: HumanDuration,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// What power is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PowerWord {
    /// On
    On,
    /// Off at once
    Off,
    /// Off, after the system has ended in order
    Shutdown,
    /// Started anew, if it still is in the boot that was seen
    Reset,
    /// Only show what is known of the order named with --id
    Show,
}

/// What to do with slots.
#[derive(Debug, Subcommand)]
pub enum SlotCommand {
    /// List them
    List {
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Say what a slot is called, or which kind of module belongs there; an empty text takes it away
    Set {
        /// The slot
        place: String,
        /// Its name
        #[arg(long)]
        name: Option<String>,
        /// The kind of module
        #[arg(long)]
        module: Option<String>,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// What to do with limits.
#[derive(Debug, Subcommand)]
pub enum ThresholdCommand {
    /// Make a rule for the whole group, or change one
    Set {
        /// Its name
        name: String,
        /// Pattern of the metrics
        metric: Pattern,
        /// Pattern of the places
        #[arg(long, default_value = "*")]
        place: Pattern,
        /// Above it somebody is to act at once
        #[arg(long, allow_negative_numbers = true, value_name = "LIMIT")]
        high_critical: Option<f64>,
        /// Above it somebody is to look
        #[arg(long, allow_negative_numbers = true, value_name = "LIMIT")]
        high_warning: Option<f64>,
        /// Below it somebody is to look
        #[arg(long, allow_negative_numbers = true, value_name = "LIMIT")]
        low_warning: Option<f64>,
        /// Below it somebody is to act at once
        #[arg(long, allow_negative_numbers = true, value_name = "LIMIT")]
        low_critical: Option<f64>,
        /// So far back inside a limit the alert ends
        #[arg(long)]
        hysteresis: Option<f64>,
        /// So many values in a row raise it
        #[arg(long, value_name = "N", default_value_t = SAMPLES)]
        samples: u8,
        /// Also if a limit will be crossed within this time as things go
        #[arg(long, value_name = "TIME")]
        trend: Option<HumanDuration>,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Remove a rule that a user has made
    Remove {
        /// Its name
        name: String,
        /// How to ask.
        #[command(flatten)]
        ask: AskArgs,
    },
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
