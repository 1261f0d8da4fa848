// SPDX-License-Identifier: MIT OR Apache-2.0
//! `status`: this machine's keys, and the members as they are, or were.

use std::fmt::Write;

use daemon_kit::table::Table;
use secure_link::{Age, KeyState, Member, Standing, Store};
use serde::Serialize;

use super::Own;
use super::ask::ask;
use super::message::{Keys, Request};
use super::verbs::json;
use crate::args::StatusArgs;

#[derive(Debug, Serialize)]
struct Status {
    group: String,
    name: String,
    node: String,
    keys: Keys,
    /// What is to be done with the second key, if there is one.
    change: Option<&'static str>,
    members: Vec<MemberStatus>,
}

#[derive(Debug, Serialize)]
struct MemberStatus {
    name: String,
    node: String,
    /// `member` or `revoked`.
    standing: &'static str,
    addresses: Vec<String>,
    /// As it says now, or has last said.
    keys: Option<Keys>,
    /// Whether each can open a connection to the other, by the keys.
    keys_fit: Option<bool>,
    /// Whether it answers; none if it was not asked.
    answers: Option<bool>,
    /// Why it does not.
    error: Option<String>,
    version: Option<String>,
}

/// `status`.
///
/// # Errors
/// The machine is in no group, or its files cannot be read.
pub async fn status(store: &Store, args: &StatusArgs) -> anyhow::Result<String> {
    let own = Own::load(store)?;
    let roster = own.store.roster()?;
    let mut asked = vec![];
    for member in roster.iter().cloned() {
        let own = own.clone();
        let ask_it = !args.offline && member.standing == Standing::Member;
        // All at once: those that are away take the time limit.
        asked.push(tokio::spawn(async move { of(&own, member, ask_it).await }));
    }
    let mut members = vec![];
    for one in asked {
        members.push(one.await?);
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let status = Status {
        group: own.keyring.group.to_string(),
        name: own.keyring.name.to_string(),
        node: own.node.id().to_string(),
        keys: Keys(own.keyring.state()),
        change: own.keyring.also.as_ref().map(|also| match also.age {
            Age::Next => "the second key is to be sent next",
            Age::Last => "the second key was sent before, and is to be dropped",
        }),
        members,
    };
    Ok(if args.json { json(&status) } else { text(&status) })
}

async fn of(own: &Own, member: Member, ask_it: bool) -> MemberStatus {
    let id = member.key.id();
    let mut keys = member.keys;
    let (mut answers, mut error, mut version) = (None, None, None);
    if ask_it {
        match ask(own, &member.addresses, Some(id), &Request::State).await {
            Ok((_, reply)) => {
                (answers, keys, version) = (Some(true), Some(reply.keys.0), Some(reply.version));
            }
            Err(why) => (answers, error) = (Some(false), Some(format!("{why:#}"))),
        }
    }
    MemberStatus {
        name: member.name.to_string(),
        node: id.to_string(),
        standing: match member.standing {
            Standing::Member => "member",
            Standing::Revoked => "revoked",
        },
        addresses: member.addresses.iter().map(ToString::to_string).collect(),
        keys: keys.map(Keys),
        keys_fit: keys.map(|keys| {
            let ours = own.keyring.state();
            keys.accepts(ours.sends) && ours.accepts(keys.sends)
        }),
        answers,
        error,
        version,
    }
}

fn shown(KeyState { sends, also }: KeyState) -> String {
    also.map_or_else(|| sends.to_string(), |also| format!("{sends}, accepts {also}"))
}

fn text(status: &Status) -> String {
    let Status { group, name, node, keys, change, members } = status;
    let mut out = format!("group {group}, key {}\n", shown(keys.0));
    if let Some(change) = change {
        let _ = writeln!(
            out,
            "THE GROUP KEY IS BEING CHANGED: {change}; go on with `midplane key rotate`"
        );
    }
    let _ = writeln!(out, "this machine is {name}, node {node}\n");
    if members.is_empty() {
        out.push_str("no other member is known here\n");
        return out;
    }
    let mut table = Table::new(["MEMBER", "NODE", "ADDRESS", "KEY", "STATE"]);
    for member in members {
        let keys = member.keys.map_or_else(String::new, |Keys(state)| shown(state));
        let state = match (member.standing, member.answers, member.keys_fit) {
            ("revoked", ..) => "revoked",
            (_, Some(false), _) => "does not answer",
            (_, _, Some(false)) => "has another group key",
            (_, Some(true), _) => "answers",
            _ => "not asked",
        };
        let state = match &member.error {
            Some(error) => format!("{state}: {error}"),
            None => state.to_owned(),
        };
        table.row([&member.name, &member.node, &member.addresses.join(","), &keys, &state]);
    }
    let _ = write!(out, "{table}");
    out
}
