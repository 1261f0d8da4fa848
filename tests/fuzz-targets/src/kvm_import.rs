// SPDX-License-Identifier: MIT OR Apache-2.0
//! Configurations of conserver and ser2net as any text.

use std::collections::BTreeSet;

use kvm_bus::import::{Kind, MAX_CONSOLES, Remark, World, detect, parse, place, write};

use crate::Reached;

/// Reads any text as the configuration that its first byte says, and writes ours of it. Whatever it includes is itself.
///
/// # Panics
/// Where what is told has no line or would play tricks on a terminal, and where what is written is not valid, or has a slot
/// or a name twice.
pub fn kvm_import(data: &[u8]) -> Reached {
    let Some((kind, rest)) = data.split_first() else { return Reached::new() };
    let Ok(text) = std::str::from_utf8(rest) else { return Reached::from(["not text"]) };
    let (kind, name) = match kind % 3 {
        0 => (Kind::Conserver, "conserver"),
        1 => (Kind::Ser2netYaml, "yaml"),
        _ => (Kind::Ser2netConf, "conf"),
    };
    let mut reached = Reached::new();
    if detect(text) == Some(kind) {
        reached.insert("detected");
    }
    let mut read = |_: &str| Ok(text.to_owned());
    let hosts = ["here".to_owned()];
    let read = parse(kind, text, "f", &mut World { hosts: &hosts, read: &mut read });
    let mut found = match read {
        Ok(found) => found,
        Err(error) => {
            check(text, &error);
            reached.insert("error");
            return reached;
        }
    };
    assert!(found.consoles.len() <= MAX_CONSOLES);
    let (placed, base) = place(&mut found);
    for warning in &found.warnings {
        check(text, warning);
        reached.insert("warning");
    }
    let (mut slots, mut names) = (BTreeSet::new(), BTreeSet::new());
    for one in &placed {
        assert!(slots.insert(one.slot) && names.insert(&one.name), "{one:?} is twice");
        assert!(!one.name.starts_with(['.', '-']), "{one:?}");
        if one.console.name != one.name {
            reached.insert("renamed");
        }
    }
    if base.is_some() {
        reached.insert("port");
    }
    // Without a console it is not written.
    if !placed.is_empty() {
        reached.insert(name);
        let files = write(kind, "f", &placed, base, &found).expect("what is written is valid");
        assert_eq!(files.len(), placed.len() + 1);
        assert!(files.iter().all(|file| !file.name.contains('/')));
    }
    reached
}

fn check(text: &str, remark: &Remark) {
    let lines = text.matches(['\n', '\r']).count() + 1;
    assert!((1..=lines).contains(&remark.at.line), "{remark} in a text of {lines} lines");
    let shown = remark.to_string();
    assert!(!shown.chars().any(char::is_control), "{shown:?} steers the terminal");
    assert!(!remark.text.is_empty());
}
