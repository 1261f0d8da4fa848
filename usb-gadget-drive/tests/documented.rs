// SPDX-License-Identifier: MIT OR Apache-2.0
//! The manual pages, the shipped configuration and the program say the same.

use std::path::Path;

use clap::CommandFactory;
use manuals::{Words, arguments, entries, members, names, section};
use usb_gadget_drive::agent::config as agent;
use usb_gadget_drive::arbiter::{MAX_CONNECTIONS, MAX_OVERLAYS, MAX_SESSIONS, MAX_SHARES};
use usb_gadget_drive::args::Cli;
use usb_gadget_drive::link::message::{Kind, MAX_DRIVES};
use usb_gadget_drive::manager::Copied;
use usb_gadget_drive::manager::control::{
    BladeStatus, Done, DriveStatus, Eject, HandOver, Insert, OverlayOf, OverlayStatus,
    SessionStatus, ShareStatus, Status, Swap, Work, WriterStatus,
};
use usb_gadget_drive::source::cache::Usage;
use usb_gadget_drive::{cert, config, serve};

const PROGRAM: &str = include_str!("../../man/usb-gadget-drive.8");
const FILE: &str = include_str!("../../man/usb-gadget-drive.toml.5");
const AGENT_FILE: &str = include_str!("../../man/usb-gadget-drive-agent.toml.5");
const SHIPPED: &str = include_str!("../usb-gadget-drive.toml");
const AGENT_SHIPPED: &str = include_str!("../examples/usb-gadget-drive-agent.toml");

#[test]
fn every_option_and_command_is_described() {
    manuals::describes_all(PROGRAM, Cli::command());
}

#[test]
fn no_page_names_an_option_or_command_that_does_not_exist() {
    for page in [PROGRAM, FILE, AGENT_FILE] {
        manuals::names_only_what_is(page, Cli::command());
    }
}

/// What a file of this text is refused with; nothing if it is good.
fn refusal(text: &str, load: impl Fn(&Path) -> Result<(), String>) -> Option<String> {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("a temporary file");
    load(file.path()).err()
}

fn server(path: &Path) -> Result<(), String> {
    config::Config::load(Some(path)).map(drop).map_err(|error| error.to_string())
}

fn blade(path: &Path) -> Result<(), String> {
    agent::Config::load(Some(path)).map(drop).map_err(|error| error.to_string())
}

#[test]
fn every_key_is_described_with_its_default_and_no_other() {
    fn keys<T: serde::de::DeserializeOwned + std::fmt::Debug>(table: &str) -> Words {
        let unknown = toml::from_str::<T>(&format!("{table}\nno_such_key = 1"));
        manuals::expected_keys(unknown.unwrap_err().message())
    }
    let mut top = keys::<config::Raw>("");
    // These have sections of their own.
    assert!(top.remove("serve") && top.remove("shares"));
    manuals::describes_keys(FILE, ".Ss Top-level keys", &top);
    manuals::describes_keys(FILE, ".Ss [serve] keys", &keys::<config::Raw>("[serve]"));
    manuals::describes_keys(FILE, ".Ss [shares.NAME] keys", &keys::<config::Raw>("[shares.a]"));
    let mut top = keys::<agent::Raw>("");
    assert!(top.remove("drives"));
    manuals::describes_keys(AGENT_FILE, ".Ss Top-level keys", &top);
    manuals::describes_keys(AGENT_FILE, ".Ss [[drives]] keys", &keys::<agent::Raw>("[[drives]]"));
    let defaults = [
        (FILE, config::DEFAULT_STATE_DIR.to_owned()),
        (FILE, config::DEFAULT_RUNTIME_DIR.to_owned()),
        (FILE, config::DEFAULT_LISTEN.to_string()),
        (AGENT_FILE, agent::DEFAULT_TLS.to_owned()),
        (AGENT_FILE, config::DEFAULT_LISTEN.port().to_string()),
    ];
    for (page, default) in defaults {
        assert!(page.contains(&default), "{default}");
    }
}

#[test]
fn what_is_shipped_is_valid_with_and_without_its_examples() {
    for (text, load) in
        [(SHIPPED, server as fn(&Path) -> Result<(), String>), (AGENT_SHIPPED, blade)]
    {
        assert_eq!(refusal(text, load), None);
        let all = manuals::uncommented(text);
        assert!(all.lines().count() == text.lines().count() && all != text);
        assert_eq!(refusal(&all, load), None, "{all}");
    }
    // Nothing is served, and no agent runs, before somebody has written something.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), SHIPPED).unwrap();
    let config = config::Config::load(Some(file.path())).unwrap();
    assert!(config.shares.is_empty() && config.agents.is_none());
}

#[test]
fn every_key_is_in_the_shipped_files() {
    for (shipped, page, headings) in [
        (
            SHIPPED,
            FILE,
            &[".Ss Top-level keys", ".Ss [serve] keys", ".Ss [shares.NAME] keys"] as &[&str],
        ),
        (AGENT_SHIPPED, AGENT_FILE, &[".Ss Top-level keys", ".Ss [[drives]] keys"]),
    ] {
        let all = manuals::uncommented(shipped);
        for key in headings.iter().flat_map(|heading| manuals::keys(page, heading).into_keys()) {
            assert!(all.contains(&format!("\n{key} = ")), "{key} is not in the shipped file");
        }
    }
}

fn told(under: &str) -> Words {
    let interface = section(PROGRAM, ".Sh CONTROL INTERFACE");
    let entry = entries(interface, "Ic").into_iter().find(|(words, _)| words.join(" ") == under);
    let (_, text) = entry.unwrap_or_else(|| panic!("{under} is not described"));
    names(text, "Cm")
        .into_iter()
        .chain(arguments(text, "Cm").into_iter().map(str::to_owned))
        .collect()
}

#[test]
fn every_member_of_the_answers_is_described() {
    let name = || "b1".parse().unwrap();
    let share = || "s".parse().unwrap();
    let writer = WriterStatus { blade: name(), epoch: 1, since: 0 };
    let session = SessionStatus { blade: name(), writes: true, connections: 1 };
    let overlay = OverlayStatus { blade: name(), generation: 0, since: 0, phase: String::new() };
    let copied = Copied { done: 0, total: 0 };
    let work = Work { what: String::new(), copied: Some(copied) };
    let of_share = ShareStatus {
        name: String::new(),
        description: String::new(),
        path: String::new(),
        mode: String::new(),
        kind: Kind::Disk,
        size: None,
        error: None,
        failures: vec![],
        generation: 0,
        writer: Some(writer.clone()),
        sessions: vec![],
        overlays: vec![],
        work: vec![],
    };
    let drive = DriveStatus {
        name: String::new(),
        local: false,
        kind: Kind::Disk,
        writable: false,
        lun: None,
        state: String::new(),
        reason: None,
    };
    let blade = BladeStatus {
        name: name(),
        connected_since: None,
        version: None,
        udc: None,
        drives: vec![],
    };
    let status = Status {
        version: String::new(),
        uptime_s: 0,
        shares: vec![],
        blades: vec![],
        cache: Usage { capacity: 0, bytes: 0, fetched: 0 },
        storage_error: None,
    };
    let all = |parts: &[Words]| parts.iter().flatten().cloned().collect::<Words>();
    assert_eq!(told("cache"), members(status.cache));
    assert_eq!(told("GET /v1/status"), members(status));
    let parts = [
        members(of_share),
        members(writer),
        members(session),
        members(overlay),
        members(work),
        members(copied),
    ];
    assert_eq!(told("share"), all(&parts));
    assert_eq!(told("blade"), all(&[members(blade), members(drive)]));
    let insert = Insert { share: share(), blade: name(), kind: None, read_only: false };
    let insert = all(&[members(insert), members(Done::default())]);
    assert_eq!(told("POST /v1/insert"), insert);
    let eject = Eject { share: share(), blade: name(), force: false };
    assert_eq!(told("POST /v1/eject"), members(eject));
    let swap = Swap { old: share(), new: share(), blade: name(), force: false };
    assert_eq!(told("POST /v1/swap"), members(swap));
    let hand_over = HandOver { share: share(), from: None, to: name(), force: false };
    assert_eq!(told("POST /v1/handover"), members(hand_over));
    let overlay = members(OverlayOf { share: share(), blade: name() });
    assert_eq!(told("POST /v1/overlay/commit"), overlay);
    assert_eq!(told("POST /v1/overlay/discard"), overlay);
}

#[test]
fn limits_and_surroundings_are_those_of_the_code() {
    let limits = section(PROGRAM, ".Sh LIMITS");
    for (number, what) in [
        (MAX_SHARES as u64, "shares"),
        (MAX_OVERLAYS as u64, "overlays"),
        (MAX_SESSIONS as u64, "sessions"),
        (MAX_CONNECTIONS as u64, "connections"),
        (serve::MAX_CONNECTIONS as u64, "connections"),
        (serve::MAX_NEGOTIATING as u64, "connections"),
        (MAX_DRIVES as u64, "drives"),
        (gadget::MAX_CD, "bytes"),
    ] {
        assert!(limits.contains(&format!("\n.It {number} {what}\n")), "{number} {what}");
    }
    let variables = arguments(section(PROGRAM, ".Sh ENVIRONMENT"), "Ev");
    assert!(variables.contains(&daemon_kit::logging::FILTER_VARIABLE));
    manuals::describes_exit_codes(PROGRAM);
    assert!(PROGRAM.contains("\n.It 130\n"));
    for path in [config::DEFAULT_PATH, agent::DEFAULT_PATH, agent::DEFAULT_TLS] {
        assert!(section(PROGRAM, ".Sh FILES").contains(&format!("\n.It Pa {path}\n")), "{path}");
    }
    for file in [serve::tls::CA_CERT, serve::tls::SERVER_CERT, serve::tls::SERVER_KEY] {
        assert!(section(PROGRAM, ".Sh OPTIONS").contains(file), "{file}");
    }
    for file in [serve::tls::CA_CERT, cert::CLIENT_CERT, cert::CLIENT_KEY] {
        assert!(AGENT_FILE.contains(file), "{file}");
    }
}

#[test]
fn every_state_of_a_drive_is_described() {
    let states = section(PROGRAM, ".Sh STATES");
    // The last is told of drives that an agent does not tell of.
    for state in ["inserted", "held", "away", "missing"] {
        assert!(states.contains(&format!("\n.It {state}\n")), "{state}");
    }
}
