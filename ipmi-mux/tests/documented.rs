// SPDX-License-Identifier: MIT OR Apache-2.0
//! The manual pages and the program say the same: each option, key, counter and field is in the pages,
//! and the pages name none that does not exist.

use std::collections::{BTreeMap, BTreeSet};

use clap::CommandFactory;
use daemon_kit::metrics::Metrics;
use ipmi_mux::args::Cli;
use ipmi_mux::config::{self, Raw};
use ipmi_mux::control::{BmcStatus, Client, HeldStatus, NodeStatus, SharedStats, Status};
use ipmi_mux::mux::{EVENT_BACKLOG, MAX_HANDLES, MAX_MESSAGES, MAX_RECEIVERS, MAX_RESERVED, Stats};
use ipmi_mux::reserve::verb::NODE_VARIABLE;
use ipmi_mux::reserve::{Granted, ReserveRequest};
use ipmi_mux::watch::publish::BACKLOG;
use ipmi_mux::watch::{self, Message, Origin, Record, Who};
use manuals::{Words, arguments, entries, keys, members, names, section};

const PROGRAM: &str = include_str!("../../man/ipmi-mux.8");
const FILE: &str = include_str!("../../man/ipmi-mux.toml.5");
const SHIPPED: &str = include_str!("../ipmi-mux.toml");

#[test]
fn every_option_and_command_is_described() {
    manuals::describes_all(PROGRAM, Cli::command());
}

#[test]
fn no_page_names_an_option_or_command_that_does_not_exist() {
    for page in [PROGRAM, FILE] {
        manuals::names_only_what_is(page, Cli::command());
    }
}

/// The keys that the program knows in a table, as serde lists them when it refuses another.
fn real_keys(table: &str) -> Words {
    let unknown = toml::from_str::<Raw>(&format!("{table}\nno_such_key = 1"));
    manuals::expected_keys(unknown.expect_err("unknown keys are refused").message())
}

const TABLES: [(&str, &str); 4] = [
    ("", ".Ss Top-level keys"),
    ("[bmc]", ".Ss [bmc] keys"),
    ("[policies.archive]", ".Ss [policies.*] keys"),
    ("[[nodes]]", ".Ss [[nodes]] keys"),
];

#[test]
fn every_key_is_described_with_its_default_and_no_other() {
    for (table, heading) in TABLES {
        let mut real = real_keys(table);
        // A table has a section of its own.
        let name = |table: &'static str| table.trim_matches(['[', ']']).split('.').next();
        real.retain(|key| !TABLES.iter().any(|(t, _)| name(t) == Some(key)));
        manuals::describes_keys(FILE, heading, &real);
    }
    let runtime_dir = keys(FILE, ".Ss Top-level keys")["runtime_dir"];
    assert!(runtime_dir.contains(config::DEFAULT_RUNTIME_DIR));
    assert!(FILE.contains(config::DEFAULT_PATH) && PROGRAM.contains(config::DEFAULT_PATH));
}

#[test]
fn the_defaults_told_are_those_of_the_shipped_file() {
    let mut table = "";
    let mut seen = 0;
    for line in SHIPPED.lines() {
        let commented = line.strip_prefix('#');
        let header = commented.unwrap_or(line);
        if let Some((name, _)) = TABLES.iter().find(|(t, _)| !t.is_empty() && header == *t) {
            table = name;
        }
        let Some((key, value)) = commented.unwrap_or(line).split_once(" = ") else { continue };
        if key.contains(' ') {
            continue;
        }
        seen += 1;
        let heading = TABLES.iter().find(|(t, _)| *t == table).expect("one of the tables").1;
        let entries = keys(FILE, heading);
        let text = entries.get(key).unwrap_or_else(|| panic!("{key} is not under {heading}"));
        let (_, default) = text.rsplit_once("\nDefault").expect("checked by another test");
        let told = default.contains(&format!("Qq {}", value.trim_matches('"')));
        // What is commented out is an example.
        assert!(told || commented.is_some(), "{key}: the default is {value}");
    }
    assert_eq!(seen, 24, "keys in the shipped file");
}

#[test]
fn every_counter_is_described_under_both_its_names() {
    // Values that differ tell which metric shows which counter.
    let stats = Stats {
        handles: 101,
        queued: 102,
        in_flight: 103,
        abandoned: 104,
        event_listeners: 105,
        opens: 106,
        opens_refused: 107,
        to_bmc: 108,
        timeouts: 109,
        late_replies: 110,
        never_answered: 111,
        refused_by_back_end: 112,
        events: 113,
        events_dropped: 114,
        commands: 115,
        commands_unclaimed: 116,
        cached: 117,
        reservations: 118,
        breaker_open: 119,
        cache_hits: 120,
        shared: 121,
        replays: 122,
        reservations_void: 123,
        lease_refusals: 124,
        breaker_refusals: 125,
        breaker_openings: 126,
        denied: 127,
        reserved_refusals: 128,
    };
    let shared = SharedStats::default();
    shared.set(stats);
    let mut metrics = Metrics::new("ipmi-mux", "1.2.3");
    metrics.registry().register_collector(Box::new(shared));
    let text = metrics.encode().unwrap();
    let by_value: BTreeMap<&str, &str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, value)| (value, name.split('{').next().unwrap_or(name)))
        .collect();
    assert!(arguments(PROGRAM, "Ic").contains(&by_value["1"]), "the metric with the version");
    let json = serde_json::to_value(stats).unwrap();
    let real: BTreeSet<Vec<String>> = json
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| vec![name.clone(), by_value[value.to_string().as_str()].to_owned()])
        .collect();
    assert_eq!(by_value.len(), real.len() + 1, "metrics that are no counter of the core");
    let described: BTreeSet<Vec<String>> = entries(section(PROGRAM, ".Ss Counters"), "Ic")
        .into_iter()
        .map(|(words, _)| words.into_iter().map(str::to_owned).collect())
        .collect();
    assert_eq!(described, real);
}

#[test]
fn every_member_of_the_answers_is_described() {
    let bmc = BmcStatus {
        address: String::new(),
        hardware_node: None,
        reachable: true,
        firmware: None,
        ipmi_version: None,
        manufacturer: None,
        kernel_users: vec![],
    };
    let node = NodeStatus {
        path: String::new(),
        device: String::new(),
        group: String::new(),
        mode: String::new(),
        handles: 0,
    };
    let status = Status {
        version: String::new(),
        uptime_s: 0,
        bmc: bmc.clone(),
        nodes: vec![],
        held: vec![],
        watchers: 0,
        counters: serde_json::Map::new(),
    };
    let held = HeldStatus {
        what: String::new(),
        node: String::new(),
        handle: None,
        uid: None,
        pid: None,
        command: None,
    };
    let client = Client {
        handle: 0,
        controller: 0,
        node: String::new(),
        uid: 0,
        pid: 0,
        command: None,
        age_s: 0,
        sent: 0,
        answered: 0,
        timeouts: 0,
        refused: 0,
        dropped: 0,
        queued: 0,
        in_flight: 0,
        unread: 0,
        events: false,
    };
    let of_status =
        [members(status), members(bmc), members(node), members(held)].into_iter().flatten();
    let interface = section(PROGRAM, ".Sh CONTROL INTERFACE");
    let (status, rest) = interface.split_once(".It Ic GET /v1/watch").unwrap();
    let (watch, clients) = rest.split_once(".It Ic GET /v1/clients").unwrap();
    let (clients, reserve) = clients.split_once(".It Ic POST /v1/reserve").unwrap();
    let request = ReserveRequest { commands: vec![] };
    let granted = Granted { node: String::new(), number: 0 };
    for name in members(request).into_iter().chain(members(granted)) {
        let described = arguments(reserve, "Cm");
        assert!(described.contains(&name.as_str()), "{name} of a reservation is not described");
    }
    let described = arguments(status, "Cm");
    for name in of_status {
        assert!(described.contains(&name.as_str()), "{name} of the status is not described");
    }
    assert_eq!(names(clients, "Cm"), members(client), "members of a client");
    assert_eq!(names(watch, "Cm"), members(whole_record()), "members of a record");
    let texts = |heading| section(PROGRAM, heading).to_owned();
    for origin in [Origin::Bmc, Origin::Shared, Origin::Cache, Origin::Mux] {
        let name = serde_json::to_value(origin).unwrap();
        let shown = format!(".Ql {}", name.as_str().unwrap());
        assert!(texts(".Sh WATCHING").contains(&shown), "{origin:?} is not described");
    }
}

/// A record with all its members.
fn whole_record() -> Record {
    Record {
        time_us: 0,
        kind: watch::Kind::Answer,
        who: Some(Who { handle: 0, node: String::new(), uid: 0, pid: 0, process: None }),
        message: Some(Message {
            msgid: 0,
            channel: 0,
            target: Some(0),
            lun: 0,
            netfn: 0,
            cmd: 0,
            request: Some(vec![]),
            answer: Some(vec![]),
            blanked: true,
        }),
        took_us: Some(0),
        origin: Some(Origin::Bmc),
        errno: Some(String::new()),
        sent: Some(true),
        missed: Some(0),
    }
}

#[test]
fn limits_and_surroundings_are_those_of_the_code() {
    let limits = section(PROGRAM, ".Sh LIMITS");
    for (number, what) in [
        (MAX_HANDLES, "handles"),
        (MAX_MESSAGES, "messages"),
        (EVENT_BACKLOG, "events"),
        (MAX_RECEIVERS, "bookings"),
        (config::MAX_NODES, "nodes"),
        (MAX_RESERVED, "commands"),
        (BACKLOG, "records"),
    ] {
        assert!(limits.contains(&format!("\n.It {number} {what}\n")), "{number} {what}");
    }
    assert!(FILE.contains(&format!("{} nodes at most", config::MAX_NODES)));
    let variables = arguments(section(PROGRAM, ".Sh ENVIRONMENT"), "Ev");
    assert!(variables.contains(&daemon_kit::logging::FILTER_VARIABLE));
    assert!(variables.contains(&NODE_VARIABLE));
    manuals::describes_exit_codes(PROGRAM);
}
