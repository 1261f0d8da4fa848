// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two configurations of usb-gadget-drive as any text: that of the management module and that of a blade.

use std::path::Path;

use usb_gadget_drive::agent::config::Config as BladeConfig;
use usb_gadget_drive::arbiter::{Access, MAX_SHARES, Mode};
use usb_gadget_drive::config::Config;
use usb_gadget_drive::link::message::{Kind, MAX_DRIVES};

use crate::Reached;
use crate::config::{FILE, check_error};

/// Reads any text as either.
///
/// # Panics
/// Where an error does not name file and line or would play tricks on a terminal, where something was accepted that
/// the manual excludes, and where an unknown key below it would be accepted.
pub fn drive_config(data: &[u8]) -> Reached {
    // A file that is not UTF-8 is refused before it is parsed.
    let Ok(text) = std::str::from_utf8(data) else { return Reached::from(["not text"]) };
    let of_manager = |text: &str| {
        Config::parse(text, Path::new(FILE)).map(|config| check(&config)).map_err(|e| e.to_string())
    };
    let of_blade = |text: &str| {
        let config = BladeConfig::parse(text, Path::new(FILE));
        config.map(|config| check_blade(&config)).map_err(|error| error.to_string())
    };
    Reached::from([read(text, of_manager), read(text, of_blade)])
}

fn read(text: &str, parse: impl Fn(&str) -> Result<&'static str, String>) -> &'static str {
    match parse(text) {
        Ok(reached) => {
            // Whatever table a valid file ends in, one key more that nobody knows is refused in its line.
            let more = format!("{text}\nunheard_of = 1");
            let error = parse(&more).expect_err("an unknown key is refused");
            let (line, _) = check_error(&more, &error);
            assert_eq!(line, more.matches('\n').count() + 1, "{error}");
            reached
        }
        Err(error) => kind(check_error(text, &error).1),
    }
}

fn check(config: &Config) -> &'static str {
    assert!(config.shares.len() <= MAX_SHARES);
    assert!(config.agents.is_none() || config.tls.is_some(), "agents are known by certificates");
    for configured in config.shares.values() {
        let share = &configured.share;
        let rights = share.rights.values().copied().chain(share.others);
        assert!(share.mode != Mode::ReadOnly || rights.max() < Some(Access::Write));
        assert_eq!(share.is_writable, share.mode != Mode::ReadOnly);
    }
    match config.shares.values().map(|configured| configured.share.mode).next() {
        None => "no share",
        Some(Mode::ReadOnly) => "read-only share",
        Some(Mode::Exclusive) => "exclusive share",
        Some(Mode::Private) => "private share",
    }
}

fn check_blade(config: &BladeConfig) -> &'static str {
    assert!(config.drives.len() <= MAX_DRIVES);
    for (at, drive) in config.drives.iter().enumerate() {
        assert!(drive.kind != Kind::Cd || !drive.writable);
        assert!(config.drives[..at].iter().all(|other| other.name != drive.name));
    }
    let Some(manager) = &config.manager else {
        return if config.drives.is_empty() { "a blade alone" } else { "drives of its own" };
    };
    for address in [&manager.address, &manager.nbd] {
        let (host, port) = address.rsplit_once(':').expect("a host and a port");
        assert!(!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0), "{address}");
    }
    "a blade with a manager"
}

/// The mistakes by name, as far as the corpus must hold one of each.
fn kind(message: &str) -> &'static str {
    [
        ("unknown key", "unknown key"),
        ("is no name", "bad name"),
        ("more than", "too many shares"),
        ("known by certificates", "no certificates"),
        ("must say who may write", "nobody may write"),
        ("nobody may write to", "writer of a read-only share"),
        ("is no address", "bad address"),
        ("is no host's name", "bad host"),
        ("cannot be written", "writable CD"),
        ("two drives", "name twice"),
        ("drives", "too many drives"),
        ("is missing", "missing key"),
        ("recurs", "too deep"),
        ("expected", "wrong type or syntax"),
        ("invalid", "wrong type or syntax"),
    ]
    .into_iter()
    .find(|(part, _)| message.contains(part))
    .map_or("another error", |(_, name)| name)
}
