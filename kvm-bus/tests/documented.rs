// SPDX-License-Identifier: MIT OR Apache-2.0
//! The manual pages, the shipped configurations and the program say the same.

use std::path::Path;

use clap::CommandFactory;
use kvm_bus::args::Cli;
use kvm_bus::config::{lmc, rmm};
use manuals::Words;

const PROGRAM: &str = include_str!("../../man/kvm-bus.8");
const RMM: &str = include_str!("../../man/kvm-bus-rmm.toml.5");
const LMC: &str = include_str!("../../man/kvm-bus-lmc.toml.5");

#[test]
fn every_option_and_command_is_described() {
    manuals::describes_all(PROGRAM, Cli::command());
}

#[test]
fn every_exit_code_is_described() {
    manuals::describes_exit_codes(PROGRAM);
}

#[test]
fn no_page_names_an_option_or_command_that_does_not_exist() {
    for page in [PROGRAM, RMM, LMC] {
        manuals::names_only_what_is(page, Cli::command());
    }
}

#[test]
fn every_key_is_described_and_no_other() {
    fn keys<T: serde::de::DeserializeOwned + std::fmt::Debug>(table: &str) -> Words {
        let unknown = toml::from_str::<T>(&format!("{table}\nno_such_key = 1"));
        manuals::expected_keys(unknown.unwrap_err().message())
    }
    let sections = |page: &str, tables: &[&str], keys: fn(&str) -> Words| {
        let mut top = keys("");
        for table in tables {
            assert!(top.remove(*table), "{table}");
            let heading = format!(".Ss [{table}] keys");
            manuals::describes_keys(page, &heading, &keys(&format!("[{table}]")));
        }
        manuals::describes_keys(page, ".Ss Top-level keys", &top);
    };
    sections(RMM, &["bus", "control", "choose", "console", "ssh"], keys::<rmm::Raw>);
    sections(LMC, &["bus", "control", "blade"], keys::<lmc::Raw>);
    for default in [
        rmm::DEFAULT_RUNTIME_DIR,
        rmm::DEFAULT_STATE_DIR,
        rmm::DEFAULT_LOG_DIR,
        rmm::DEFAULT_KEYS_FILE,
    ] {
        assert!(RMM.contains(default), "{default}");
    }
    assert!(LMC.contains(lmc::DEFAULT_RUNTIME_DIR));
}

/// As shipped, and with each line that is commented out put in.
#[test]
fn the_shipped_configurations_are_good() {
    let all = |text: &str| -> String {
        let line = |line: &str| {
            let inner = line.strip_prefix("# ").unwrap_or(line);
            let key = inner.starts_with('[')
                || inner.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
            format!("{}\n", if key { inner } else { line })
        };
        text.lines().map(line).collect()
    };
    let shipped = include_str!("../kvm-bus-rmm.toml");
    for text in [shipped.to_owned(), all(shipped)] {
        rmm::Config::parse(&text, Path::new("rmm.toml")).map_err(|e| e.to_string()).unwrap();
    }
    assert!(all(shipped).contains("\nfar = ") && all(shipped).contains("\n[choose]"));
    let shipped = include_str!("../kvm-bus-lmc.toml");
    for text in [shipped.to_owned(), all(shipped)] {
        lmc::Config::parse(&text, Path::new("lmc.toml")).map_err(|e| e.to_string()).unwrap();
    }
}
