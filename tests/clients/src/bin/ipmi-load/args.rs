// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line of `ipmi-load`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::builder::TypedValueParser;

use crate::command::Command;

/// Most handles: what an ipmi-mux serves at once. Each costs a descriptor.
const MAX_HANDLES: u32 = 4096;

/// Opens many handles of IPMI nodes and works all of them at once.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Node to open; with several, handles are spread over them in turn
    #[arg(long = "node", value_name = "PATH", required = true)]
    pub nodes: Vec<PathBuf>,
    /// Handles to open, over all nodes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = handles())]
    pub handles: u32,
    /// Commands each handle completes [default: 20]
    #[arg(long, value_name = "M", conflicts_with = "seconds")]
    pub commands: Option<u64>,
    /// Go on for so long instead
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub seconds: Option<Duration>,
    /// Commands of each handle that are not counted, before those that are
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub warmup: u64,
    /// Pause of so long after each round of commands, one of each handle
    #[arg(long, value_name = "S", value_parser = seconds, conflicts_with = "seconds")]
    pub pause: Option<Duration>,
    /// Longest wait for an answer
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    pub limit: Duration,
    /// Network function to send [default: 06]
    #[arg(long, value_name = "HEX", value_parser = byte, conflicts_with = "echo")]
    pub netfn: Option<u8>,
    /// Command to send [default: 01, Get Device ID]
    #[arg(long, value_name = "HEX", value_parser = byte, conflicts_with = "echo")]
    pub cmd: Option<u8>,
    /// Data to send, with --echo behind what is checked
    #[arg(long, value_name = "HEX", value_parser = bytes, default_value = "")]
    pub data: Bytes,
    /// Use bmc-sim's echo, and check that each handle gets back the data it sent
    #[arg(long)]
    pub echo: bool,
    /// It is no failure when a handle cannot be opened
    #[arg(long)]
    pub allow_refused: bool,
    /// Send nothing: open, print `ready`, wait for the end of standard input
    #[arg(long, conflicts_with_all = ["never_read", "commands", "seconds"])]
    pub hold: bool,
    /// Send until it is refused and never receive; print `ready`, wait for the end of standard input
    #[arg(long, conflicts_with_all = ["commands", "seconds"])]
    pub never_read: bool,
    /// Print one JSON object
    #[arg(long, conflicts_with_all = ["hold", "never_read"])]
    pub json: bool,
}

impl Args {
    /// What each handle sends.
    pub fn command(&self) -> Command {
        let data = self.data.0.clone();
        if self.echo {
            return Command::echo(data);
        }
        Command {
            netfn: self.netfn.unwrap_or(0x06),
            cmd: self.cmd.unwrap_or(0x01),
            data,
            echo: false,
        }
    }
}

/// Bytes written in hexadecimal; a type of its own, since clap takes a `Vec` for a repeated option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

fn handles() -> impl TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(1..=i64::from(MAX_HANDLES))
}

fn byte(text: &str) -> Result<u8, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    // from_str_radix takes a sign too.
    let value = if digits.starts_with('+') { None } else { u8::from_str_radix(digits, 16).ok() };
    value.ok_or("not a byte in hexadecimal, as 0x06 or 06".into())
}

fn bytes(text: &str) -> Result<Bytes, String> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
        return Err("not bytes in hexadecimal, two digits each".into());
    }
    (0..digits.len())
        .step_by(2)
        .map(|at| byte(&digits[at..at + 2]))
        .collect::<Result<_, _>>()
        .map(Bytes)
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse()
        .ok()
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .ok_or("not a number of seconds".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn bytes_are_hexadecimal() {
        assert_eq!(bytes("06 01ff"), Ok(Bytes(vec![6, 1, 255])));
        assert_eq!(bytes(""), Ok(Bytes(vec![])));
        for bad in ["6", "0g", "éé", "+1"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn echo_and_a_command_of_ones_own_exclude_each_other() {
        let given = ["ipmi-load", "--node", "/dev/null", "--echo", "--netfn", "06"];
        assert!(Args::try_parse_from(given).is_err());
    }
}
