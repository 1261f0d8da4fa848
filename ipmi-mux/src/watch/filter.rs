// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which records a watcher wants.

use std::str::FromStr;

use clap::Args;
use ipmi::names;

use super::{Kind, Record};

/// What is shown: all conditions must hold.
#[derive(Debug, Clone, Default, Args)]
pub struct Filter {
    /// Only this node, such as ipmi/1
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Only this handle, as `clients` numbers them
    #[arg(long, value_name = "N")]
    pub handle: Option<u64>,
    /// Only handles opened by this process
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Only handles opened by this user, by number
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,
    /// Only this command: NN/CC in hexadecimal, NN for a network function, or a part of the name;
    /// more than one may be given
    #[arg(long = "command", value_name = "COMMAND")]
    pub commands: Vec<Pattern>,
    /// Only what failed: another completion code than 00, refused, or never answered
    #[arg(long)]
    pub errors: bool,
    /// Only what took this many milliseconds or more
    #[arg(long, value_name = "MS")]
    pub slow: Option<u64>,
    /// Also requests at the time they are accepted, beside their answers
    #[arg(long)]
    pub requests: bool,
}

impl Filter {
    /// Whether a record is shown. That records were missed always is.
    #[must_use]
    pub fn admits(&self, record: &Record) -> bool {
        let who = record.who.as_ref();
        let is = |wanted: Option<u64>, found: Option<u64>| wanted.is_none() || wanted == found;
        let node = self.node.as_deref().map(short_node);
        record.kind == Kind::Missed
            || (record.kind != Kind::Request || self.requests)
                && (node.is_none() || node == who.map(|who| short_node(&who.node)))
                && is(self.handle, who.map(|who| who.handle))
                && is(self.pid.map(u64::from), who.map(|who| u64::from(who.pid)))
                && is(self.uid.map(u64::from), who.map(|who| u64::from(who.uid)))
                && (self.commands.is_empty() || self.commands.iter().any(|c| c.matches(record)))
                && (!self.errors || failed(record))
                && self.slow.is_none_or(|ms| record.took_us.is_some_and(|us| us / 1000 >= ms))
    }
}

/// A node as configured, without `/dev/`.
#[must_use]
pub fn short_node(path: &str) -> &str {
    path.strip_prefix("/dev/").unwrap_or(path)
}

fn failed(record: &Record) -> bool {
    matches!(record.kind, Kind::Refused | Kind::Unanswered)
        || record.kind == Kind::Answer && record.code() != Some(0)
}

/// Commands as `--command` names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// Network function and command; any command where there is none.
    commands: Vec<(u8, Option<u8>)>,
}

impl Pattern {
    fn matches(&self, record: &Record) -> bool {
        let Some(message) = &record.message else { return false };
        let found = (message.netfn & 0x3e, message.cmd);
        self.commands
            .iter()
            .any(|(netfn, cmd)| *netfn == found.0 && cmd.is_none_or(|c| c == found.1))
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hex = |digits: &str| {
            let digits = digits.strip_prefix("0x").unwrap_or(digits);
            let short = (1..=2).contains(&digits.len());
            u8::from_str_radix(digits, 16).ok().filter(|_| short)
        };
        let (netfn, cmd) = text.split_once('/').map_or((text, None), |(n, c)| (n, Some(c)));
        let numbers = match (hex(netfn), cmd.map(hex)) {
            (Some(netfn), None) => Some((netfn, None)),
            (Some(netfn), Some(Some(cmd))) => Some((netfn, Some(cmd))),
            _ => None,
        };
        if let Some((netfn, cmd)) = numbers {
            if netfn > 0x3f {
                return Err(format!("network functions end at 3f, {netfn:02x} is none"));
            }
            return Ok(Self { commands: vec![(netfn & 0x3e, cmd)] });
        }
        let part = text.to_lowercase();
        let named = names::all().filter(|(_, _, name)| name.to_lowercase().contains(&part));
        let commands: Vec<_> = named.map(|(netfn, cmd, _)| (netfn, Some(cmd))).collect();
        if part.is_empty() || commands.is_empty() {
            return Err(
                "no standard command has that in its name; NN/CC names any command by number, \
                        such as 06/01 for Get Device ID"
                    .to_owned(),
            );
        }
        Ok(Self { commands })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::tests::answer;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn conditions_all_hold_and_of_commands_any_does() {
        let all = Filter::default();
        let record = answer(0x06, 0x01, &[], &[0xc5]);
        assert!(all.admits(&record));
        let good: [fn(&mut Filter); 8] = [
            |f| f.node = Some("ipmi/1".to_owned()),
            |f| f.node = Some("/dev/ipmi/1".to_owned()),
            |f| f.handle = Some(7),
            |f| f.pid = Some(4711),
            |f| f.uid = Some(1000),
            |f| f.commands = vec![pattern("chassis"), pattern("06/01")],
            |f| f.errors = true,
            |f| f.slow = Some(3),
        ];
        let bad: [fn(&mut Filter); 6] = [
            |f| f.node = Some("ipmi/2".to_owned()),
            |f| f.handle = Some(8),
            |f| f.pid = Some(1),
            |f| f.uid = Some(0),
            |f| f.commands = vec![pattern("chassis")],
            |f| f.slow = Some(4),
        ];
        let mut filter = all.clone();
        for set in good {
            set(&mut filter);
            assert!(filter.admits(&record), "{filter:?}");
        }
        for set in bad {
            let mut filter = filter.clone();
            set(&mut filter);
            assert!(!filter.admits(&record), "{filter:?}");
        }
        filter.errors = true;
        assert!(!filter.admits(&answer(0x06, 0x01, &[], &[0])));
        let missed = Record::new(0, Kind::Missed);
        assert!(filter.admits(&missed), "that something is missing is always told");
    }

    #[test]
    fn requests_are_shown_when_asked_for() {
        let request = Record { kind: Kind::Request, ..answer(6, 1, &[], &[]) };
        let mut filter = Filter::default();
        assert!(!filter.admits(&request));
        filter.requests = true;
        assert!(filter.admits(&request));
    }

    #[test]
    fn commands_are_named_by_number_or_by_a_part_of_the_name() {
        assert_eq!(pattern("06/01").commands, [(6, Some(1))]);
        assert_eq!(pattern("0x0a/0x23").commands, [(0x0a, Some(0x23))]);
        assert_eq!(pattern("0b/23").commands, [(0x0a, Some(0x23))]);
        assert_eq!(pattern("30").commands, [(0x30, None)]);
        assert_eq!(pattern("get device id").commands, [(6, Some(1))]);
        assert!(pattern("SDR").commands.len() > 5);
        for bad in ["", "06/", "06/100", "40/01", "no such thing"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }
}
