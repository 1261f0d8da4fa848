// SPDX-License-Identifier: MIT OR Apache-2.0
//! The members that this machine knows, each pinned to its node key: who may take part, and under which
//! name. [`Roster::parse`] and its `Display` are the file's format; [`crate::store`] has the file.
//!
//! A line for each member: `member` or `revoked`, the key, the name, the addresses with commas or `-`,
//! and with a colon between the ids of the group keys it was last seen with, or `-`.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use crate::hello::{Hello, KeyState};
use crate::keys::{KeyId, NodeId, PublicKey};
use crate::name::Name;
use crate::refusal::Refusal;

/// Most members of a group, oneself counted in.
pub const MAX_MEMBERS: usize = 64;
/// Most revoked keys that are remembered: each member replaced many times over.
pub const MAX_REVOKED: usize = 1024;
/// Most bytes of the file: all members and revoked ones with all their addresses.
pub const MAX_ROSTER_FILE: u64 = (MAX_MEMBERS + MAX_REVOKED) as u64 * 700;

/// Whether unknown keys are pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Newcomers {
    /// If they have the group key and claim nobody's name.
    #[default]
    Admit,
    /// Never: the group is as it is.
    Refuse,
}

/// What became of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It takes part.
    Member,
    /// It is shut out for good; only [`Roster::forget`] ends that.
    Revoked,
}

/// A pinned member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its node key.
    pub key: PublicKey,
    /// Its name, nobody else's while it is a member.
    pub name: Name,
    /// Whether it takes part.
    pub standing: Standing,
    /// Where it listens, as it last said.
    pub addresses: Vec<SocketAddr>,
    /// The group keys it has, as it last said; none if it was never met.
    pub keys: Option<KeyState>,
}

/// The members but oneself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roster {
    members: BTreeMap<NodeId, Member>,
}

/// Why the roster stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RosterError {
    /// See [`Refusal`].
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A line of the file says nothing that makes sense.
    #[error("line {line}: {what}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
}

impl Roster {
    /// All, revoked ones too, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Those who take part.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.iter().filter(|member| member.standing == Standing::Member)
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// The member of this name, not a revoked one.
    #[must_use]
    pub fn by_name(&self, name: &Name) -> Option<&Member> {
        self.members().find(|member| member.name == *name)
    }

    /// Judges a key alone: all that is known after the handshake's second message.
    ///
    /// # Errors
    /// [`Refusal::SameKey`], [`Refusal::Revoked`], and [`Refusal::Closed`] for an unknown one if
    /// newcomers are refused.
    pub fn judge_key(
        &self,
        own: &PublicKey,
        key: &PublicKey,
        newcomers: Newcomers,
    ) -> Result<(), Refusal> {
        match self.get(key.id()) {
            _ if key == own => Err(Refusal::SameKey),
            Some(member) if member.standing == Standing::Revoked => Err(Refusal::Revoked),
            None if newcomers == Newcomers::Refuse => Err(Refusal::Closed),
            _ => Ok(()),
        }
    }

    /// Judges somebody who has proved `key` and says `hello`: whether it is new. `own` and `own_name` are
    /// this machine's.
    ///
    /// # Errors
    /// As [`Self::judge_key`]; [`Refusal::NameTaken`] and [`Refusal::Full`].
    pub fn judge(
        &self,
        own: (&PublicKey, &Name),
        key: &PublicKey,
        hello: &Hello,
        newcomers: Newcomers,
    ) -> Result<bool, Refusal> {
        self.judge_key(own.0, key, newcomers)?;
        let pinned = self.get(key.id());
        let other = self.by_name(&hello.name).is_some_and(|holder| holder.key != *key);
        if hello.name == *own.1 || other || pinned.is_some_and(|member| member.name != hello.name) {
            return Err(Refusal::NameTaken);
        }
        if pinned.is_none() && self.members().count() + 1 >= MAX_MEMBERS {
            return Err(Refusal::Full);
        }
        Ok(pinned.is_none())
    }

    /// Pins a key to a name, or takes over what a pinned one says of its addresses and keys. Returns
    /// whether anything is different now, and worth storing.
    ///
    /// # Errors
    /// Those of [`Self::judge`] for a newcomer: the world may have changed since the handshake.
    pub fn pin(
        &mut self,
        own: (&PublicKey, &Name),
        key: &PublicKey,
        hello: &Hello,
    ) -> Result<bool, Refusal> {
        self.judge(own, key, hello, Newcomers::Admit)?;
        let member = Member {
            key: *key,
            name: hello.name.clone(),
            standing: Standing::Member,
            addresses: hello.addresses.clone(),
            keys: Some(hello.keys),
        };
        let before = self.members.insert(key.id(), member.clone());
        Ok(before.as_ref() != Some(&member))
    }

    /// Adds a member that another member vouches for, unless that contradicts what is known. Returns
    /// whether anything is different now.
    pub fn learn(&mut self, own: (&PublicKey, &Name), member: &Member) -> bool {
        if self.members.contains_key(&member.key.id()) || member.standing == Standing::Revoked {
            return false;
        }
        // Only the name is judged; the rest of it is replaced when the two meet.
        let keys = KeyState { sends: KeyId([0; 8]), also: None };
        let hello = Hello { name: member.name.clone(), addresses: vec![], keys, note: vec![] };
        if self.judge(own, &member.key, &hello, Newcomers::Admit).is_err() {
            return false;
        }
        let mut learned = Member { keys: None, ..member.clone() };
        learned.addresses.truncate(Hello::MAX_ADDRESSES);
        self.members.insert(member.key.id(), learned);
        true
    }

    /// Notes the group keys that a member now has.
    pub fn set_keys(&mut self, id: NodeId, keys: KeyState) {
        if let Some(member) = self.members.get_mut(&id) {
            member.keys = Some(keys);
        }
    }

    /// Shuts a member out. Its sessions are for the caller to end. Returns whether it was one.
    pub fn revoke(&mut self, id: NodeId) -> bool {
        let revoked = self.iter().filter(|m| m.standing == Standing::Revoked).count();
        match self.members.get_mut(&id) {
            Some(member) if member.standing == Standing::Member && revoked < MAX_REVOKED => {
                member.standing = Standing::Revoked;
                true
            }
            _ => false,
        }
    }

    /// Forgets a key, as if it had never been met: its name is free.
    pub fn forget(&mut self, id: NodeId) -> Option<Member> {
        self.members.remove(&id)
    }

    /// Reads the file. Empty lines and those that begin with `#` say nothing.
    ///
    /// # Errors
    /// The first line that is wrong. Nothing of the file is to be used then: a revoked key might be missing.
    pub fn parse(text: &str) -> Result<Self, RosterError> {
        let mut roster = Self::default();
        for (at, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what| RosterError::Line { line: at + 1, what };
            let member = parse_member(line).map_err(wrong)?;
            let taken =
                member.standing == Standing::Member && roster.by_name(&member.name).is_some();
            if taken || roster.members.insert(member.key.id(), member).is_some() {
                return Err(wrong("the key or the name is there twice"));
            }
            let members = roster.members().count();
            if members >= MAX_MEMBERS || roster.members.len() - members > MAX_REVOKED {
                return Err(wrong("there are too many"));
            }
        }
        Ok(roster)
    }
}

fn parse_member(line: &str) -> Result<Member, &'static str> {
    let mut words = line.split(' ');
    let mut word = || words.next().filter(|word| !word.is_empty()).ok_or("a word is missing");
    let standing = match word()? {
        "member" => Standing::Member,
        "revoked" => Standing::Revoked,
        _ => return Err("it begins with neither `member` nor `revoked`"),
    };
    let key = word()?.parse().map_err(|_| "the key is wrong")?;
    let name = word()?.parse().map_err(|_| "the name is wrong")?;
    let addresses = match word()? {
        "-" => vec![],
        some => some
            .split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| "an address is wrong")?,
    };
    let keys = match word()? {
        "-" => None,
        some => Some(parse_keys(some).ok_or("the ids of group keys are wrong")?),
    };
    if words.next().is_some() || addresses.len() > Hello::MAX_ADDRESSES {
        return Err("there is too much");
    }
    Ok(Member { key, name, standing, addresses, keys })
}

fn parse_keys(text: &str) -> Option<KeyState> {
    let (sends, also) = match text.split_once(':') {
        Some((sends, also)) => (sends, Some(also.parse().ok()?)),
        None => (text, None),
    };
    Some(KeyState { sends: sends.parse().ok()?, also })
}

impl fmt::Display for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Member { key, name, standing, addresses, keys } in self.iter() {
            let standing = match standing {
                Standing::Member => "member",
                Standing::Revoked => "revoked",
            };
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let addresses = if addresses.is_empty() { "-".to_owned() } else { addresses.join(",") };
            write!(f, "{standing} {key} {name} {addresses} ")?;
            match keys {
                None => writeln!(f, "-")?,
                Some(KeyState { sends, also: None }) => writeln!(f, "{sends}")?,
                Some(KeyState { sends, also: Some(also) }) => writeln!(f, "{sends}:{also}")?,
            }
        }
        Ok(())
    }
}
