// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line of `ipmi-sweep`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::plan::{Pattern, Plan, Way};

/// Longest data: with all that is put around them they fit into a message.
const MAX_LENGTH: u8 = 32;

/// Sends every command through a node and prints, as JSON, what became of them.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Args {
    /// Node to open
    #[arg(long, value_name = "PATH", required = true)]
    pub node: PathBuf,
    /// Handles to open; messages go over them in turn
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub handles: u32,
    /// Messages of a handle that wait for an answer
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub outstanding: u32,
    /// Network functions, in hexadecimal: bytes and ranges of them with commas between
    #[arg(long, value_name = "LIST", default_value = "00-3f", value_parser = hexadecimal)]
    netfns: List,
    /// Commands, likewise
    #[arg(long, value_name = "LIST", default_value = "00-ff", value_parser = hexadecimal)]
    cmds: List,
    /// LUNs
    #[arg(long, value_name = "LIST", default_value = "0-3", value_parser = luns)]
    luns: List,
    /// Bytes of data
    #[arg(long, value_name = "LIST", default_value = "0-4,6,8,16", value_parser = lengths)]
    lengths: List,
    /// What the data are
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values = ["zero", "ones", "last", "dcmi", "clear"])]
    patterns: Vec<Pattern>,
    /// How the command is sent: directly, by the driver's bridging, or in a raw message that carries it
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_values_t = Way::value_variants().to_vec(), value_enum)]
    ways: Vec<Way>,
    /// Longest wait for an answer
    #[arg(long, value_name = "S", default_value = "30", value_parser = seconds)]
    pub limit: Duration,
}

impl Args {
    /// What is sent.
    pub fn plan(&self) -> Plan {
        Plan {
            ways: self.ways.clone(),
            luns: self.luns.0.clone(),
            netfns: self.netfns.0.clone(),
            cmds: self.cmds.0.clone(),
            lengths: self.lengths.0.clone(),
            patterns: self.patterns.clone(),
        }
    }
}

/// A type of its own, since clap takes a `Vec` for a repeated option.
#[derive(Debug, Clone, PartialEq, Eq)]
struct List(Vec<u8>);

fn hexadecimal(text: &str) -> Result<List, String> {
    list(text, 16, u8::MAX)
}

fn luns(text: &str) -> Result<List, String> {
    list(text, 10, 3)
}

fn lengths(text: &str) -> Result<List, String> {
    list(text, 10, MAX_LENGTH)
}

fn list(text: &str, radix: u32, most: u8) -> Result<List, String> {
    let number = |digits: &str| u8::from_str_radix(digits, radix).ok().filter(|n| *n <= most);
    let mut all = vec![];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let ends = number(first).zip(number(last)).filter(|(first, last)| first <= last);
        let (first, last) = ends.ok_or(format!("{part:?} is no number or range up to {most}"))?;
        all.extend(first..=last);
    }
    Ok(List(all))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "not a whole number of seconds")?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Args as clap::CommandFactory>::command().debug_assert();
        let args = Args::try_parse_from(["ipmi-sweep", "--node", "/dev/null"]).unwrap();
        assert_eq!((args.netfns.0.len(), args.cmds.0.len(), args.ways.len()), (64, 256, 5));
        assert_eq!(args.lengths.0, [0, 1, 2, 3, 4, 6, 8, 16]);
    }

    #[test]
    fn lists_are_numbers_and_ranges() {
        assert_eq!(hexadecimal("06,3e-40,ff"), Ok(List(vec![6, 0x3e, 0x3f, 0x40, 0xff])));
        for bad in ["", "6-", "3-1", "100", "x", "1,,2"] {
            assert!(hexadecimal(bad).is_err(), "{bad}");
        }
        assert!(luns("4").is_err() && lengths("33").is_err());
    }
}
