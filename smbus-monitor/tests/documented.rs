// SPDX-License-Identifier: MIT OR Apache-2.0
//! The manual pages, the shipped configuration and the program say the same.

use std::path::Path;

use clap::CommandFactory;
use manuals::Words;
use smbus_monitor::args::Cli;
use smbus_monitor::config::{Config, DEFAULT_PORT, DEFAULT_RUNTIME_DIR, DEFAULT_STATE_DIR, Raw};

const PROGRAM: &str = include_str!("../../man/smbus-monitor.8");
const FILE: &str = include_str!("../../man/smbus-monitor.toml.5");
const SHIPPED: &str = include_str!("../smbus-monitor.toml");

#[test]
fn every_option_and_command_is_described() {
    manuals::describes_all(PROGRAM, Cli::command());
    manuals::describes_exit_codes(PROGRAM);
}

#[test]
fn no_page_names_an_option_or_command_that_does_not_exist() {
    for page in [PROGRAM, FILE] {
        manuals::names_only_what_is(page, Cli::command());
    }
}

const TABLES: [&str; 8] =
    ["", "sources", "identity", "group", "[smbus]", "[smbus.registers]", "[threshold]", "[action]"];

fn keys(table: &str) -> Words {
    let head = match table {
        "" => String::new(),
        "[smbus.registers]" => {
            "[[smbus]]\nname = 'a'\nbus = 1\naddress = 9\nchip = 'lm75'\n[[smbus.registers]]"
                .to_owned()
        }
        table => format!("[{table}]"),
    };
    let unknown = toml::from_str::<Raw>(&format!("{head}\nno_such_key = 1"));
    manuals::expected_keys(unknown.expect_err("an unknown key is refused").message())
}

#[test]
fn every_key_is_described_with_its_default_and_no_other() {
    for table in TABLES.iter().chain(&["[power]"]) {
        let mut keys = keys(table);
        let heading = if table.is_empty() { "Top-level".to_owned() } else { format!("[{table}]") };
        if table.is_empty() {
            for below in ["sources", "smbus", "threshold", "action", "identity", "group", "power"] {
                assert!(keys.remove(below), "{below}");
            }
        }
        manuals::describes_keys(FILE, &format!(".Ss {heading} keys"), &keys);
    }
    for default in [DEFAULT_STATE_DIR, DEFAULT_RUNTIME_DIR, &DEFAULT_PORT.to_string()] {
        assert!(FILE.contains(default), "{default}");
    }
}

#[test]
fn what_is_shipped_is_valid_with_and_without_its_examples() {
    let parse = |text: &str| Config::parse(text, Path::new("shipped")).map_err(|e| e.to_string());
    let config = parse(SHIPPED).unwrap();
    assert!(config.devices.is_empty() && config.actions.is_empty() && config.listen.is_empty());
    let all = manuals::uncommented(SHIPPED);
    assert!(all.lines().count() == SHIPPED.lines().count() && all != SHIPPED);
    let config = parse(&all).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.devices.len(), config.actions.len(), config.power.len()), (2, 3, 2));
    for table in TABLES.iter().chain(&["[power]"]) {
        let heading = if table.is_empty() { "Top-level".to_owned() } else { format!("[{table}]") };
        for key in manuals::keys(FILE, &format!(".Ss {heading} keys")).into_keys() {
            let told = all.contains(&format!("\n{key} = ")) || key == "registers";
            assert!(told, "{key} is not in the shipped file");
        }
    }
}
