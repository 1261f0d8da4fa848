// SPDX-License-Identifier: MIT OR Apache-2.0
//! Verbs that ask nobody.

use std::fmt::Write;

use anyhow::{Context, bail};
use secure_link::{GroupKey, Keyring, Name, Store};
use serde::Serialize;

use super::{Own, store_keyring};
use crate::args::{CreateArgs, SelfArgs};

/// What this machine is from now on.
#[derive(Debug, Serialize)]
pub(super) struct Became {
    group: String,
    name: String,
    node: String,
    key: String,
}

impl Became {
    pub(super) fn new(own: &Own) -> Self {
        Self {
            group: own.keyring.group.to_string(),
            name: own.keyring.name.to_string(),
            node: own.node.id().to_string(),
            key: own.keyring.send.id().to_string(),
        }
    }

    pub(super) fn lines(&self) -> String {
        let Self { group, name, node, key } = self;
        format!("group {group}, key {key}\nthis machine is {name}, node {node}\n")
    }
}

/// Pretty, with an end of line.
pub(super) fn json<T: Serialize>(what: &T) -> String {
    let mut text = serde_json::to_string_pretty(what).expect("texts can be written as JSON");
    text.push('\n');
    text
}

pub(super) fn own_name(args: &SelfArgs) -> anyhow::Result<Name> {
    if let Some(name) = &args.name {
        return Ok(name.clone());
    }
    let host = nix::unistd::gethostname().context("this machine has no host name; use --name")?;
    host.to_string_lossy().parse().context("the host name does not do; use --name")
}

pub(super) fn in_no_group(store: &Store) -> anyhow::Result<()> {
    if let Some(keyring) = store.keyring()? {
        bail!(
            "this machine is in group {} already; to have it leave, stop its programs and remove {}/group.key",
            keyring.group,
            Store::ETC
        );
    }
    Ok(())
}

/// `create`.
///
/// # Errors
/// The machine is in a group, or its files cannot be written.
pub fn create(store: &Store, args: &CreateArgs) -> anyhow::Result<String> {
    let _lock = store.lock()?;
    in_no_group(store)?;
    let node = store.make_node()?;
    let mut keyring = Keyring::new(args.group.clone(), own_name(&args.own)?, GroupKey::generate()?);
    keyring.addresses.clone_from(&args.own.addresses);
    store_keyring(store, &keyring)?;
    let became = Became::new(&Own { store: store.clone(), node, keyring });
    if args.json {
        return Ok(json(&became));
    }
    let mut text = became.lines();
    let _ = writeln!(
        text,
        "others join with:  ssh MEMBER midplane key join {} < {}/group.key",
        became.name,
        Store::ETC
    );
    Ok(text)
}

/// `revoke`.
///
/// # Errors
/// There is no such member, or the roster cannot be written.
pub fn revoke(store: &Store, member: &Name) -> anyhow::Result<String> {
    change(store, member, secure_link::Roster::revoke)?;
    Ok(format!(
        "{member} is shut out here; it keeps the group key until `midplane key rotate`, which leaves it out\n"
    ))
}

/// `forget`.
///
/// # Errors
/// As [`revoke`].
pub fn forget(store: &Store, member: &Name) -> anyhow::Result<String> {
    change(store, member, |roster, id| roster.forget(id).is_some())?;
    for met in store.met()? {
        let mut roster = met.load()?;
        let ids: Vec<_> = roster.iter().filter(|m| m.name == *member).map(|m| m.key.id()).collect();
        if !ids.is_empty() {
            ids.into_iter().for_each(|id| drop(roster.forget(id)));
            met.store(&roster)?;
        }
    }
    Ok(format!("{member} is forgotten here; whoever comes next by this name is pinned\n"))
}

fn change(
    store: &Store,
    member: &Name,
    change: impl FnOnce(&mut secure_link::Roster, secure_link::NodeId) -> bool,
) -> anyhow::Result<()> {
    let _lock = store.lock()?;
    let mut roster = store.roster()?;
    if roster.by_name(member).is_none() {
        // A program may have met it first.
        let own = Own::load(store)?;
        let identity = (own.node.public(), &own.keyring.name);
        for met in store.met()? {
            if let Some(met) = met.load()?.by_name(member) {
                roster.learn(identity, met);
            }
        }
    }
    let found = roster.by_name(member).or_else(|| roster.iter().find(|m| m.name == *member));
    let id = found.with_context(|| format!("no member is called {member}"))?.key.id();
    anyhow::ensure!(change(&mut roster, id), "{member} is revoked already");
    Ok(store.set_roster(&roster)?)
}
