// SPDX-License-Identifier: MIT OR Apache-2.0
//! `join`: takes over the group key, and makes this machine and the members known to each other.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::SocketAddr;

use anyhow::{Context, bail};
use secure_link::keyring::MAX_KEY_FILE;
use secure_link::{Keyring, NodeId, Roster, Store};
use zeroize::Zeroizing;

use super::ask::ask;
use super::message::Request;
use super::verbs::{Became, in_no_group, json, own_name};
use super::{Own, PORT, store_keyring};
use crate::args::JoinArgs;

/// `join`.
///
/// # Errors
/// The key is none, the machine is in a group, or none of the members named lets it in: nothing is stored then.
pub async fn join(store: &Store, args: &JoinArgs) -> anyhow::Result<String> {
    in_no_group(store)?;
    let mut keyring = read_keyring(args)?;
    keyring.name = own_name(&args.own)?;
    keyring.addresses.clone_from(&args.own.addresses);
    let node = {
        let _lock = store.lock()?;
        store.make_node()?
    };
    let own = Own { store: store.clone(), node, keyring };
    let mut met = BTreeSet::new();
    for member in &args.members {
        let addresses = resolve(member).await?;
        let (peer, reply) = ask(&own, &addresses, None, &Request::State)
            .await
            .with_context(|| format!("{member} does not let this machine in"))?;
        met.insert(peer.id());
        own.learn(&Roster::parse(&reply.members).context("its list of members makes no sense")?)?;
        if !reply.keys.0.accepts(own.keyring.send.id()) {
            bail!("{member} does not accept this group key any more; take its present one");
        }
    }
    let away = if args.offline { vec![] } else { introduce(&own, &mut met).await };
    {
        let _lock = store.lock()?;
        in_no_group(store)?;
        store_keyring(store, &own.keyring)?;
    }
    for line in &away {
        eprintln!("midplane: not met yet: {line}");
    }
    let became = Became::new(&own);
    Ok(if args.json { json(&became) } else { became.lines() })
}

/// Makes this machine known to all it has learned of; says whom it could not reach, and why.
async fn introduce(own: &Own, met: &mut BTreeSet<NodeId>) -> Vec<String> {
    let mut away = vec![];
    // Each may know some that the ones before do not.
    while let Ok(roster) = own.store.roster() {
        let next = roster.members().find(|member| !met.contains(&member.key.id()));
        let Some(member) = next else { break };
        let id = member.key.id();
        met.insert(id);
        match ask(own, &member.addresses, Some(id), &Request::State).await {
            Ok((_, reply)) => {
                if let Ok(others) = Roster::parse(&reply.members) {
                    let _ = own.learn(&others);
                }
            }
            Err(error) => away.push(format!("{}: {error:#}", member.name)),
        }
    }
    away
}

fn read_keyring(args: &JoinArgs) -> anyhow::Result<Keyring> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_FILE as usize + 1));
    let (read, from) = match &args.key {
        Some(path) => {
            let file = std::fs::File::open(path);
            let file = file.with_context(|| format!("cannot read {}", path.display()))?;
            (file.take(MAX_KEY_FILE + 1).read_to_string(&mut text), path.display().to_string())
        }
        None => {
            let input = std::io::stdin();
            (input.take(MAX_KEY_FILE + 1).read_to_string(&mut text), "standard input".to_owned())
        }
    };
    read.with_context(|| format!("cannot read {from}"))?;
    anyhow::ensure!(text.len() as u64 <= MAX_KEY_FILE, "{from} is no group key: it is too long");
    Keyring::parse(&text).with_context(|| {
        format!("{from} is no group key; give another member's {}/group.key", Store::ETC)
    })
}

/// The addresses of a host, with a port or without.
async fn resolve(member: &str) -> anyhow::Result<Vec<SocketAddr>> {
    let with_port = match member.parse::<std::net::IpAddr>() {
        Ok(ip) => return Ok(vec![SocketAddr::new(ip, PORT)]),
        Err(_) if member.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
            member.to_owned()
        }
        Err(_) => format!("{member}:{PORT}"),
    };
    let found = tokio::net::lookup_host(&with_port).await;
    Ok(found.with_context(|| format!("{member} is not known"))?.collect())
}
