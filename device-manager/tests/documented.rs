// SPDX-License-Identifier: MIT OR Apache-2.0
//! The manual pages, the shipped configuration and the program say the same.

use clap::CommandFactory;
use device_manager::args::Cli;
use device_manager::config::{Config, Raw, RawManager, RawRule, RawUnit};
use manuals::Words;

const PROGRAM: &str = include_str!("../../man/device-manager.8");
const FILE: &str = include_str!("../../man/device-manager.toml.5");
const SHIPPED: &str = include_str!("../device-manager.toml");

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

#[test]
fn every_key_is_described_with_its_default_and_no_other() {
    fn keys<T: serde::de::DeserializeOwned + std::fmt::Debug>() -> Words {
        let unknown = toml::from_str::<T>("no_such_key = 1");
        manuals::expected_keys(unknown.expect_err("there is no such key").message())
    }
    let top = keys::<Raw>();
    assert_eq!(top, ["manager", "unit", "rule"].map(str::to_owned).into());
    manuals::describes_keys(FILE, ".Ss [manager] keys", &keys::<RawManager>());
    manuals::describes_keys(FILE, ".Ss [unit] keys", &keys::<RawUnit>());
    manuals::describes_keys(FILE, ".Ss [[rule]] keys", &keys::<RawRule>());
}

#[test]
fn what_the_shipped_configuration_shows_is_good() {
    let text = manuals::uncommented(SHIPPED);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("a temporary file");
    Config::load(Some(file.path())).expect("all its examples are good");
}
