// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configuration of ipmi-mux as any text.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use ipmi_mux::config::{BmcAddress, Config, MAX_NODES};

use crate::Reached;

/// The name by which errors know the text.
pub const FILE: &str = "fuzz.toml";

/// Parses any text.
///
/// # Panics
/// Where an error does not name file and line or would play tricks on a terminal, where something
/// was accepted that the manual excludes, and where an unknown key below it would be accepted.
pub fn config(data: &[u8]) -> Reached {
    // A file that is not UTF-8 is refused before it is parsed.
    let Ok(text) = std::str::from_utf8(data) else { return Reached::from(["not text"]) };
    Reached::from([match parse(text) {
        Ok(config) => {
            check(&config);
            refuses_more(text);
            match config.bmc {
                BmcAddress::Device(_) => "device",
                BmcAddress::Tcp(_) => "tcp",
                BmcAddress::Unix(_) => "unix",
            }
        }
        Err(error) => kind(check_error(text, &error).1),
    }])
}

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new(FILE)).map_err(|error| error.to_string())
}

/// What the rest of the program relies on.
fn check(config: &Config) {
    assert!((1..=MAX_NODES).contains(&config.nodes.len()));
    let names: BTreeSet<_> = config.nodes.iter().map(|node| &node.name).collect();
    assert_eq!(names.len(), config.nodes.len(), "a name is served once");
    for name in names {
        // `DEVNAME=` and the name must fit the kernel's buffer; devtmpfs takes any path.
        assert!((1..=64).contains(&name.len()), "{name:?} has {} bytes", name.len());
        for part in name.split('/') {
            assert!(!part.is_empty() && !part.starts_with('.'), "{name:?} leaves /dev");
            assert!(part.bytes().all(|b| b.is_ascii_graphic()), "{name:?}");
        }
    }
    let bounds = Duration::from_millis(100)..=Duration::from_secs(600);
    assert!(bounds.contains(&config.deadline) && bounds.contains(&config.long_deadline));
    assert!(config.deadline <= config.long_deadline);
    assert!(config.nodes.iter().all(|node| node.mode.bits() <= 0o777));
    match &config.bmc {
        BmcAddress::Device(_) => {}
        BmcAddress::Unix(path) => assert!(path.is_absolute()),
        BmcAddress::Tcp(address) => {
            let (host, port) = address.rsplit_once(':').expect("a host and a port");
            assert!(!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
        }
    }
}

/// Whatever table a valid file ends in, one key more that nobody knows is refused in its line.
fn refuses_more(text: &str) {
    let more = format!("{text}\nunheard_of = 1");
    let error = parse(&more).map(|_| ()).expect_err("an unknown key is refused");
    let (line, message) = check_error(&more, &error);
    assert_eq!(line, more.matches('\n').count() + 1, "{error}");
    assert!(message.starts_with("unknown key `unheard_of`; "), "{error}");
}

/// `FILE:LINE:COLUMN: message`, then perhaps the line; returns line (0 for none) and message.
pub fn check_error<'a>(text: &str, error: &'a str) -> (usize, &'a str) {
    let (first, quoted) = match error.split_once('\n') {
        Some((first, quoted)) => (first, Some(quoted)),
        None => (error, None),
    };
    let place = first.strip_prefix(FILE).and_then(|rest| rest.strip_prefix(':'));
    let place = place.unwrap_or_else(|| panic!("{error:?} does not name the file"));
    if place == " recursion limit" {
        // The TOML parser does not say where the key is that has 80 parts or more.
        return (0, place);
    }
    let mut parts = place.splitn(3, ':');
    let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok());
    let (Some(line), Some(column)) = (number(), number()) else {
        panic!("{error:?} names no line");
    };
    let message = parts.next().and_then(|rest| rest.strip_prefix(' ')).unwrap_or_default();
    assert!(!message.is_empty(), "{error:?} says nothing");
    let lines = text.matches('\n').count() + 1;
    assert!((1..=lines).contains(&line) && column >= 1, "{error:?} in a text of {lines} lines");
    if let Some(quoted) = quoted {
        assert!(quoted.starts_with(&format!("  {line} | ")), "{error:?} quotes another line");
    }
    let shown = first.chars().chain(quoted.unwrap_or_default().chars());
    assert!(!shown.into_iter().any(char::is_control), "{error:?} steers the terminal");
    (line, message)
}

/// The mistakes by name, as far as the corpus must hold one of each.
fn kind(message: &str) -> &'static str {
    [
        ("unknown key", "unknown key"),
        ("is no node name", "bad node name"),
        ("is named twice", "name twice"),
        ("there is no node", "no node"),
        ("is no address", "bad address"),
        ("by `device` or by `vm`", "two addresses"),
        ("is no useful deadline", "bad deadline"),
        ("shorter than `deadline`", "deadlines in disorder"),
        ("more than", "too many nodes"),
        ("is missing", "missing key"),
        ("is not a file mode", "bad mode"),
        ("is not a duration", "bad duration"),
        ("expected", "wrong type or syntax"),
        ("recurs", "too deep"),
    ]
    .into_iter()
    .find(|(part, _)| message.contains(part))
    .map_or("another error", |(_, name)| name)
}
