// SPDX-License-Identifier: MIT OR Apache-2.0
//! The language of the control socket: one line of words, answered by one line of JSON.
//!
//! A line may start with `@TAG`; the answer then has a member `tag` with it, by which a client that
//! takes over a line (a serial port, say) knows the answer to its own command.

use std::time::Duration;

use ipmi::{NetFn, Request};
use thiserror::Error;

use crate::fault::{Fault, Filter, Kind};

/// The longest line, bytes: the longest is `incoming` with its data.
pub const MAX_LINE: usize = 4096;
/// The most data bytes of an incoming request.
const MAX_INCOMING: usize = 240;
/// The most events made by one command: the bound of the queue that they go to, twice.
const MAX_MADE: u32 = 20_000;
/// How late a late reply is when nothing is said.
const LATE: Duration = Duration::from_millis(500);
/// How long after the wrong reply the right one comes when nothing is said.
const RIGHT_SEQ: Duration = Duration::from_millis(1000);

/// What each command does, for `bmc-sim ctl --help`: usage and text.
pub const HELP: &[(&str, &str)] = &[
    ("stats [--clear]", "how often each command was served, and what was lost"),
    ("log [--last N] [--clear]", "commands that changed state, newest last"),
    ("service-time MS", "how long the BMC takes for each command from now on"),
    (
        "fault KIND [COUNT|forever] [NETFN/CMD] [MSms]",
        "spoil replies: the next one, or the next COUNT, of all commands or of one (hexadecimal, \
         `06/*` for a whole network function). KIND is one of busy (C0), code:XX (that completion \
         code), lost, late (by MS, 500 if not given), duplicate (the second MS later), damaged, \
         wrong-seq (the right one MS later, 1000 if not given; with 0ms never, which QEMU's KCS does \
         not survive), wrong-command, truncated, hang (not carried out, no reply; for ever if no \
         COUNT is given)",
    ),
    ("fault clear", "no more faults"),
    ("faults", "the faults that wait"),
    ("reset [MS]", "the BMC resets and is silent for that long"),
    ("event [SENSOR]", "make up one event; data bytes 2 and 3 carry its number"),
    ("events COUNT [SENSOR]", "make up many, of all sensors in turn or of one"),
    ("sensor NUMBER VALUE|auto", "force a raw reading (or the states of a discrete sensor)"),
    (
        "change-sdr [--after N]",
        "the SDR repository changes now, or N Get SDR commands later: in the middle of a walk",
    ),
    (
        "incoming NETFN CMD [DATAHEX]",
        "the second controller (0x82) sends this request to system software (hexadecimal)",
    ),
    ("responses", "what system software answered to those"),
    ("watchdog", "state of the watchdog timer"),
    ("sensors", "all sensors with their readings"),
    ("power", "power state, and power commands that were not honoured"),
    ("messages", "what waits for system software"),
    ("version", "version of the simulator"),
    ("quit", "end the simulator"),
];

/// A control command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Counts by command.
    Stats {
        /// Start again at zero.
        clear: bool,
    },
    /// Changes.
    Log {
        /// Only so many.
        last: usize,
        /// Start again empty.
        clear: bool,
    },
    /// Time for each command.
    ServiceTime(Duration),
    /// One more fault.
    Fault(Fault),
    /// No more faults.
    FaultClear,
    /// Which faults wait.
    Faults,
    /// Reset, silent for the given time.
    Reset(Option<Duration>),
    /// Make up events.
    Events {
        /// How many.
        count: u32,
        /// Of which sensor; all in turn if none.
        sensor: Option<u8>,
    },
    /// Force a sensor.
    Sensor {
        /// Which.
        number: u8,
        /// Raw reading or states; `None` lets it move again.
        value: Option<u16>,
    },
    /// The repository changes after so many Get SDR.
    ChangeSdr(u32),
    /// A request from the bus.
    Incoming(Request),
    /// What came back.
    Responses,
    /// State of the watchdog.
    Watchdog,
    /// All sensors.
    Sensors,
    /// Power state.
    Power,
    /// Queues.
    Messages,
    /// Version.
    Version,
    /// End.
    Quit,
}

/// A line that is no command.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ControlError {
    /// No words.
    #[error("no command; `bmc-sim ctl --help` lists them")]
    Empty,
    /// Another first word.
    #[error("unknown command {0:?}; `bmc-sim ctl --help` lists them")]
    Unknown(String),
    /// Words that do not fit.
    #[error("usage: {0}")]
    Usage(&'static str),
    /// A word that is no number, or out of range.
    #[error("{what} {word:?} is not {expected}")]
    Number {
        /// What was to be read.
        what: &'static str,
        /// The word.
        word: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// No such sensor.
    #[error("there is no sensor {0}")]
    NoSensor(u8),
    /// Too many faults.
    #[error("{0} faults wait already; `fault clear` removes them")]
    TooManyFaults(usize),
}

/// Splits `@TAG` off the front of a line.
pub fn split_tag(line: &str) -> (Option<&str>, &str) {
    let line = line.trim();
    match line.strip_prefix('@') {
        None => (None, line),
        Some(rest) => {
            let (tag, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            (Some(tag), command.trim())
        }
    }
}

/// Reads a command.
///
/// # Errors
/// Says what is wrong with it and what would be right.
pub fn parse(line: &str) -> Result<Command, ControlError> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (first, rest) = words.split_first().ok_or(ControlError::Empty)?;
    let usage = usage(first).ok_or_else(|| ControlError::Unknown((*first).to_owned()))?;
    let wrong = ControlError::Usage(usage);
    Ok(match (*first, rest) {
        ("stats", []) => Command::Stats { clear: false },
        ("stats", ["--clear"]) => Command::Stats { clear: true },
        ("log", options) => log(options, wrong)?,
        ("service-time", [ms]) => Command::ServiceTime(milliseconds(ms)?),
        ("fault", ["clear"]) => Command::FaultClear,
        ("fault", [kind, options @ ..]) => Command::Fault(fault(kind, options, wrong)?),
        ("faults", []) => Command::Faults,
        ("reset", []) => Command::Reset(None),
        ("reset", [ms]) => Command::Reset(Some(milliseconds(ms)?)),
        ("event", []) => Command::Events { count: 1, sensor: None },
        ("event", [sensor]) => Command::Events { count: 1, sensor: Some(sensor_number(sensor)?) },
        ("events", [count]) => Command::Events { count: event_count(count)?, sensor: None },
        ("events", [count, sensor]) => {
            Command::Events { count: event_count(count)?, sensor: Some(sensor_number(sensor)?) }
        }
        ("sensor", [number, "auto"]) => {
            Command::Sensor { number: sensor_number(number)?, value: None }
        }
        ("sensor", [number, value]) => Command::Sensor {
            number: sensor_number(number)?,
            value: Some(parse_number(value).ok_or_else(|| ControlError::Number {
                what: "value",
                word: (*value).to_owned(),
                expected: "a number of 16 bits (0x for hexadecimal)",
            })?),
        },
        ("change-sdr", []) => Command::ChangeSdr(0),
        ("change-sdr", ["--after", count]) => Command::ChangeSdr(count.parse().map_err(|_| wrong)?),
        ("incoming", [netfn, cmd]) => Command::Incoming(incoming(netfn, cmd, "")?),
        ("incoming", [netfn, cmd, data]) => Command::Incoming(incoming(netfn, cmd, data)?),
        ("responses", []) => Command::Responses,
        ("watchdog", []) => Command::Watchdog,
        ("sensors", []) => Command::Sensors,
        ("power", []) => Command::Power,
        ("messages", []) => Command::Messages,
        ("version", []) => Command::Version,
        ("quit", []) => Command::Quit,
        _ => return Err(wrong),
    })
}

/// How a command is written.
fn usage(word: &str) -> Option<&'static str> {
    let mut usages = HELP.iter().map(|(usage, _)| *usage);
    usages.find(|usage| usage.split(' ').next() == Some(word))
}

fn log(options: &[&str], wrong: ControlError) -> Result<Command, ControlError> {
    let (mut last, mut clear) = (usize::MAX, false);
    let mut words = options.iter();
    while let Some(word) = words.next() {
        match *word {
            "--clear" => clear = true,
            "--last" => {
                let count = words.next().and_then(|count| count.parse().ok());
                last = count.ok_or_else(|| wrong.clone())?;
            }
            _ => return Err(wrong),
        }
    }
    Ok(Command::Log { last, clear })
}

fn fault(kind: &str, options: &[&str], wrong: ControlError) -> Result<Fault, ControlError> {
    let kind = Kind::from_name(kind).ok_or_else(|| wrong.clone())?;
    let mut fault = Fault {
        kind,
        left: if kind == Kind::Hang { None } else { Some(1) },
        filter: None,
        by: match kind {
            Kind::Late => LATE,
            Kind::WrongSeq => RIGHT_SEQ,
            _ => Duration::ZERO,
        },
    };
    for word in options {
        if *word == "forever" {
            fault.left = None;
        } else if let Some((netfn, cmd)) = word.split_once('/') {
            let cmd = if cmd == "*" { None } else { Some(hex_byte("command", cmd)?) };
            fault.filter = Some(Filter { netfn: net_function(netfn)?, cmd });
        } else if let Some(ms) = word.strip_suffix("ms") {
            fault.by = milliseconds(ms)?;
        } else {
            fault.left = Some(word.parse().map_err(|_| wrong.clone())?);
        }
    }
    Ok(fault)
}

fn incoming(netfn: &str, cmd: &str, data: &str) -> Result<Request, ControlError> {
    let bad = || ControlError::Number {
        what: "data",
        word: data.to_owned(),
        expected: "an even number of hexadecimal digits, at most 480",
    };
    if !data.is_ascii() || !data.len().is_multiple_of(2) || data.len() > 2 * MAX_INCOMING {
        return Err(bad());
    }
    let bytes = (0..data.len()).step_by(2).map(|at| u8::from_str_radix(&data[at..at + 2], 16));
    let bytes = bytes.collect::<Result<Vec<_>, _>>().map_err(|_| bad())?;
    Ok(Request::new(net_function(netfn)?, hex_byte("command", cmd)?, bytes))
}

fn milliseconds(word: &str) -> Result<Duration, ControlError> {
    word.parse::<u32>().map(|ms| Duration::from_millis(u64::from(ms))).map_err(|_| {
        ControlError::Number {
            what: "time",
            word: word.to_owned(),
            expected: "a whole number of milliseconds",
        }
    })
}

/// Decimal, or hexadecimal after `0x`.
fn parse_number(word: &str) -> Option<u16> {
    match word.strip_prefix("0x") {
        Some(digits) => u16::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

fn sensor_number(word: &str) -> Result<u8, ControlError> {
    parse_number(word).and_then(|number| u8::try_from(number).ok()).ok_or_else(|| {
        ControlError::Number {
            what: "sensor",
            word: word.to_owned(),
            expected: "a number from 0 to 255 (0x for hexadecimal)",
        }
    })
}

fn event_count(word: &str) -> Result<u32, ControlError> {
    word.parse().ok().filter(|count| *count <= MAX_MADE).ok_or_else(|| ControlError::Number {
        what: "count",
        word: word.to_owned(),
        expected: "a number up to 20000",
    })
}

fn hex_byte(what: &'static str, word: &str) -> Result<u8, ControlError> {
    u8::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).map_err(|_| {
        ControlError::Number { what, word: word.to_owned(), expected: "a hexadecimal byte" }
    })
}

/// Of a request: even.
fn net_function(word: &str) -> Result<NetFn, ControlError> {
    let number = hex_byte("network function", word)?;
    NetFn::new(number).filter(|netfn| !netfn.is_response()).ok_or_else(|| ControlError::Number {
        what: "network function",
        word: word.to_owned(),
        expected: "an even hexadecimal number up to 3e",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_in_the_help_is_known() {
        for (usage, _) in HELP {
            let word = usage.split(' ').next().unwrap();
            assert!(!matches!(parse(word), Err(ControlError::Unknown(_))), "{word}");
        }
        assert_eq!(parse("dance"), Err(ControlError::Unknown("dance".into())));
        assert_eq!(parse("  "), Err(ControlError::Empty));
        assert_eq!(parse("quit now"), Err(ControlError::Usage("quit")));
    }

    #[test]
    fn faults_take_their_words_in_any_order() {
        let expected = Fault {
            kind: Kind::Late,
            left: Some(3),
            filter: Some(Filter { netfn: NetFn::STORAGE, cmd: Some(0x23) }),
            by: Duration::from_millis(1500),
        };
        for line in ["fault late 3 0a/23 1500ms", "fault late 1500ms 0x0a/0x23 3"] {
            assert_eq!(parse(line), Ok(Command::Fault(expected.clone())));
        }
        let Ok(Command::Fault(hang)) = parse("fault hang 06/*") else { panic!() };
        assert_eq!(hang.left, None);
        assert_eq!(hang.filter.unwrap().to_string(), "06/*");
        let Ok(Command::Fault(busy)) = parse("fault busy forever") else { panic!() };
        assert_eq!((busy.left, busy.filter), (None, None));
        for line in
            ["fault", "fault flood", "fault lost many", "fault lost 07/01", "fault lost 1/x"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn numbers_are_checked() {
        let request = Request::new(NetFn::OEM, 0x05, [0xde, 0xad]);
        assert_eq!(parse("incoming 30 05 DEad"), Ok(Command::Incoming(request)));
        assert_eq!(parse("log --last 5"), Ok(Command::Log { last: 5, clear: false }));
        assert_eq!(parse("sensor 0x10 255"), Ok(Command::Sensor { number: 16, value: Some(255) }));
        for line in [
            "incoming 31 05",
            "incoming 30 05 abc",
            "incoming 30 05 \u{e9}\u{e9}",
            "events 20001",
            "event 256",
            "reset soon",
            "sensor 1 65536",
            "log --last",
            "change-sdr --after -1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn tags_come_off() {
        assert_eq!(split_tag("@12 stats --clear\n"), (Some("12"), "stats --clear"));
        assert_eq!(split_tag("stats"), (None, "stats"));
        assert_eq!(split_tag("@12"), (Some("12"), ""));
    }
}
