// SPDX-License-Identifier: MIT OR Apache-2.0
//! `rotate`: conducts a change of the group key. Each step is confirmed by all members before the next begins; broken off
//! anywhere, the same command goes on, from any member that has both keys.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use secure_link::{
    Age, GroupKey, KeyState, Keyring, Member, Name, Next, NodeId, Order, Roster, Rotation, Store,
};
use serde::Serialize;

use super::ask::ask;
use super::message::Request;
use super::verbs::json;
use super::{Incomplete, Own, store_keyring};
use crate::args::RotateArgs;

/// What came of it.
#[derive(Debug, Serialize)]
struct Rotated {
    group: String,
    key: String,
    members: Vec<String>,
    left_out: Vec<String>,
}

/// `rotate`.
///
/// # Errors
/// [`Incomplete`] if a member did not confirm a step: all is as safe as before, and the command is to be given again.
pub async fn rotate(store: &Store, args: &RotateArgs) -> anyhow::Result<String> {
    let mut conductor = Conductor::new(store, &args.without)?;
    conductor.gather().await?;
    let rotated = if args.abandon { conductor.abandon().await? } else { conductor.run().await? };
    if args.json {
        return Ok(json(&rotated));
    }
    let mut text = format!("group {} has key {} alone\n", rotated.group, rotated.key);
    for member in &rotated.left_out {
        text.push_str(&format!("left out, and to join again: {member}\n"));
    }
    Ok(text)
}

struct Conductor {
    own: Own,
    without: BTreeSet<Name>,
    /// What each has said of its keys, in this run.
    said: BTreeMap<NodeId, KeyState>,
}

impl Conductor {
    fn new(store: &Store, without: &[Name]) -> anyhow::Result<Self> {
        let own = Own::load(store)?;
        let roster = own.store.roster()?;
        for name in without {
            anyhow::ensure!(roster.by_name(name).is_some(), "no member is called {name}");
        }
        Ok(Self { own, without: without.iter().cloned().collect(), said: BTreeMap::new() })
    }

    /// Those who take part, but this machine.
    fn members(&self, roster: &Roster) -> Vec<Member> {
        roster.members().filter(|member| !self.without.contains(&member.name)).cloned().collect()
    }

    /// Asks all, and those that they know, for their keys.
    async fn gather(&mut self) -> anyhow::Result<()> {
        let mut asked = BTreeSet::new();
        let mut missing = vec![];
        loop {
            let members = self.members(&self.own.store.roster()?);
            let next = members.iter().find(|member| !asked.contains(&member.key.id()));
            let Some(member) = next else { break };
            let id = member.key.id();
            asked.insert(id);
            match ask(&self.own, &member.addresses, Some(id), &Request::State).await {
                Ok((_, reply)) => {
                    self.said.insert(id, reply.keys.0);
                    if let Ok(others) = Roster::parse(&reply.members) {
                        self.own.learn(&others)?;
                    }
                }
                Err(error) => missing.push(format!("{}: {error:#}", member.name)),
            }
        }
        Ok(not_all(&missing, "nothing was changed")?)
    }

    async fn run(&mut self) -> anyhow::Result<Rotated> {
        self.finish_what_others_have()?;
        let new = match &self.own.keyring.also {
            Some(also) if also.age == Age::Next => also.key.clone(),
            Some(_) => self.own.keyring.send.clone(),
            None => {
                if self.said.values().any(|state| state.also.is_some()) {
                    eprintln!(
                        "midplane: a change that another member began and left is ended first"
                    );
                    self.lead_to(self.own.keyring.send.clone()).await?;
                }
                GroupKey::generate()?
            }
        };
        self.lead_to(new).await
    }

    /// Gives orders until all have this key alone.
    async fn lead_to(&mut self, new: GroupKey) -> anyhow::Result<Rotated> {
        // Kept before any other has it: whoever breaks off here can go on.
        self.apply(&Order::Accept(new.clone()))?;
        let (own, others) = (self.own.node.id(), self.members(&self.own.store.roster()?));
        let everyone = others.iter().map(|member| member.key.id()).chain([own]);
        let mut rotation = Rotation::new(new, everyone);
        rotation.confirmed(own, self.own.keyring.state());
        self.said.iter().for_each(|(id, state)| rotation.confirmed(*id, *state));
        loop {
            let Next::Give(order, who) = rotation.next() else { break };
            let (doing, done) = match order {
                Order::Accept(_) => ("accept the new key", "the new key is accepted"),
                Order::Send(_) => ("send the new key", "the new key is sent"),
                Order::Settle(_) | Order::Abandon(_) => {
                    ("drop the old key", "the old key is dropped")
                }
            };
            let mut missing = vec![];
            for id in who {
                if id == own {
                    self.apply(&order)?;
                    rotation.confirmed(own, self.own.keyring.state());
                    continue;
                }
                let member = others.iter().find(|member| member.key.id() == id);
                let member = member.context("only members are asked")?;
                match ask(&self.own, &member.addresses, Some(id), &Request::order(&order)).await {
                    Ok((_, reply)) => {
                        self.said.insert(id, reply.keys.0);
                        rotation.confirmed(id, reply.keys.0);
                    }
                    Err(error) => missing.push(format!("{}: {error:#}", member.name)),
                }
            }
            not_all(&missing, &format!("not all {doing}; the group goes on with both keys"))?;
            eprintln!("midplane: {done} by all {} members", others.len() + 1);
        }
        Ok(self.rotated(&others))
    }

    /// A change that another machine conducts can be ended from here only if nobody sends a key that is not known here.
    fn finish_what_others_have(&self) -> anyhow::Result<()> {
        for (id, state) in &self.said {
            if self.own.keyring.find(state.sends).is_none() {
                let roster = self.own.store.roster()?;
                let name = roster.get(*id).map_or_else(|| id.to_string(), |m| m.name.to_string());
                bail!(
                    "{name} has a newer group key than this machine; let this machine join again"
                );
            }
        }
        Ok(())
    }

    /// Has nobody accept the next key any more, oneself last.
    async fn abandon(&mut self) -> anyhow::Result<Rotated> {
        let next = self.own.keyring.also.as_ref().filter(|also| also.age == Age::Next);
        let next =
            next.context("no change of the group key is under way that could be given up")?;
        let order = Order::Abandon(next.key.id());
        let others = self.members(&self.own.store.roster()?);
        // Before any drops it: who sends it could talk to none of them.
        if self.said.values().any(|state| state.sends == next.key.id()) {
            bail!("a member sends the new key already; go on with `midplane key rotate`");
        }
        let mut missing = vec![];
        for member in &others {
            let (id, request) = (member.key.id(), Request::order(&order));
            let asked = ask(&self.own, &member.addresses, Some(id), &request).await;
            if let Err(error) = asked {
                missing.push(format!("{}: {error:#}", member.name));
            }
        }
        not_all(&missing, "not all gave up the new key")?;
        self.apply(&order)?;
        Ok(self.rotated(&others))
    }

    /// Follows an order on this machine, and has it on the disk.
    fn apply(&mut self, order: &Order) -> anyhow::Result<()> {
        let _lock = self.own.store.lock()?;
        let mut keyring: Keyring = Own::load(&self.own.store)?.keyring;
        if keyring.follow(order)? {
            store_keyring(&self.own.store, &keyring)?;
        }
        self.own.keyring = keyring;
        Ok(())
    }

    fn rotated(&self, others: &[Member]) -> Rotated {
        Rotated {
            group: self.own.keyring.group.to_string(),
            key: self.own.keyring.send.id().to_string(),
            members: others.iter().map(|member| member.name.to_string()).collect(),
            left_out: self.without.iter().map(ToString::to_string).collect(),
        }
    }
}

fn not_all(missing: &[String], what: &str) -> Result<(), Incomplete> {
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join("\n  ");
    let remedy = "give the command again when they answer, or leave them out with --without";
    Err(Incomplete(format!("{what}:\n  {list}\n{remedy}")))
}
