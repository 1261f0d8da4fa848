// SPDX-License-Identifier: MIT OR Apache-2.0
//! The manual page and the program say the same.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use clap::{Command, CommandFactory};
use midplane::args::Cli;

const PAGE: &str = include_str!("../../man/midplane-key.1");

fn key() -> Command {
    let mut cli = Cli::command();
    cli.build();
    cli.find_subcommand("key").expect("there is `midplane key`").clone()
}

/// Long options and verbs of the program.
fn real() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut options, mut verbs) = (BTreeSet::from(["version".to_owned()]), BTreeSet::new());
    for verb in key().get_subcommands().filter(|verb| verb.get_name() != "help") {
        verbs.insert(verb.get_name().to_owned());
        options.extend(verb.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned));
    }
    (options, verbs)
}

/// First words after this macro at the beginning of entries.
fn entries(of: &str) -> BTreeSet<String> {
    let lines = PAGE.lines().filter_map(|line| line.strip_prefix(".It "));
    let words = lines.filter_map(|line| line.split(of).nth(1));
    words.filter_map(|rest| rest.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn the_page_describes_each_verb_and_option_and_no_other() {
    let (options, verbs) = real();
    assert_eq!(entries("Cm "), verbs);
    assert_eq!(entries("Fl -"), options);
    for verb in &verbs {
        let synopsis = PAGE.split(".Sh DESCRIPTION").next().expect("there is a beginning");
        assert!(synopsis.contains(&format!("\n.Cm {verb}\n")), "{verb} is not in the synopsis");
    }
    assert!(PAGE.contains(&midplane::key::PORT.to_string()));
}
