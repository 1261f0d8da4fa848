// SPDX-License-Identifier: MIT OR Apache-2.0
//! The manual pages and the program say the same.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use clap::{Command, CommandFactory};
use midplane::args::Cli;

const PAGE: &str = include_str!("../../man/midplane-key.1");
const STATUS_PAGE: &str = include_str!("../../man/midplane-status.1");

fn verb(name: &str) -> Command {
    let mut cli = Cli::command();
    cli.build();
    cli.find_subcommand(name).expect("there is such a verb").clone()
}

/// Long options and verbs of the program.
fn real() -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut options, mut verbs) = (BTreeSet::from(["version".to_owned()]), BTreeSet::new());
    for verb in verb("key").get_subcommands().filter(|verb| verb.get_name() != "help") {
        verbs.insert(verb.get_name().to_owned());
        options.extend(verb.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned));
    }
    (options, verbs)
}

/// First words after this macro at the beginning of a page's entries.
fn entries(page: &str, of: &str) -> BTreeSet<String> {
    let lines = page.lines().filter_map(|line| line.strip_prefix(".It "));
    let words = lines.filter_map(|line| line.split(of).nth(1));
    words.filter_map(|rest| rest.split_whitespace().next()).map(str::to_owned).collect()
}

#[test]
fn the_page_describes_each_verb_and_option_and_no_other() {
    let (options, verbs) = real();
    assert_eq!(entries(PAGE, "Cm "), verbs);
    assert_eq!(entries(PAGE, "Fl -"), options);
    for verb in &verbs {
        let synopsis = PAGE.split(".Sh DESCRIPTION").next().expect("there is a beginning");
        assert!(synopsis.contains(&format!("\n.Cm {verb}\n")), "{verb} is not in the synopsis");
    }
    assert!(PAGE.contains(&midplane::key::PORT.to_string()));
}

#[test]
fn the_page_of_status_describes_each_option_and_no_other() {
    let status = verb("status");
    let options = status.get_arguments().filter_map(|arg| arg.get_long());
    let options: BTreeSet<String> =
        options.filter(|o| *o != "help" && *o != "version").map(str::to_owned).collect();
    assert_eq!(entries(STATUS_PAGE, "Fl -"), options);
    // The example of the list is one.
    let list = STATUS_PAGE.split("[[member]]").nth(1).and_then(|rest| rest.split(".Ed").next());
    let list = format!("[[member]]{}", list.expect("there is an example"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("group.toml");
    std::fs::write(&path, list).expect("a file");
    let list = group::list::List::load(&path).expect("a list");
    assert_eq!(list.member.len(), 1);
}
