// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be seen from one member.

use std::net::IpAddr;

use secure_link::Name;

use super::peer::{Link, Presence};
use super::records::Mirror;
use super::{Core, Counters, Standing, Unfit, Why};
use crate::wire::{GroupTime, Life, Micros, Record};

/// The key of the record in which each member tells whom it sees: their names, with spaces between. Keys that begin
/// so are the group's own.
pub const SEES: &str = "group.sees";

/// One other member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its name.
    pub name: Name,
    /// Its address in the list.
    pub address: IpAddr,
    /// Why it is not here; none if it is.
    pub away: Option<Why>,
    /// Since when it is here, or is not, by this machine's clock.
    pub since: Micros,
    /// Whether there is a link to it.
    pub linked: bool,
    /// Whether it is eligible.
    pub eligible: bool,
    /// Whether it says to be the active manager.
    pub active: bool,
    /// Whom it takes for the manager.
    pub manager: Option<Name>,
    /// Whom it sees, as it has told with [`SEES`].
    pub sees_whom: Vec<Name>,
    /// Which networks its beats have come over lately.
    pub networks: Vec<usize>,
    /// Round trip to it and back, in microseconds.
    pub round_trip: Option<u64>,
    /// How many records of it are held, and whether they are what it has now.
    pub records: usize,
    /// They are as it says them; else they are what was last known.
    pub current: bool,
}

/// All that one member sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub own: Name,
    /// Its life.
    pub life: Life,
    /// Whether it is in the list.
    pub listed: bool,
    /// Why it cannot be the manager, and where it stands otherwise.
    pub standing: (Option<Unfit>, Standing),
    /// The active manager, as far as can be seen from here.
    pub manager: Option<Name>,
    /// Members in the list, this one counted.
    pub of: usize,
    /// Members that are here, this one counted.
    pub sees: usize,
    /// The group's time.
    pub time: GroupTime,
    /// How far it may be off, in microseconds.
    pub time_error: Option<u64>,
    /// The others, in the order of their addresses.
    pub members: Vec<MemberStatus>,
    /// What happened.
    pub counters: Counters,
}

impl Core {
    /// What can be seen from here.
    #[must_use]
    pub fn status(&self, now: Micros) -> Status {
        let mut peers: Vec<_> = self.peers.values().collect();
        peers.sort_by_key(|peer| &peer.rank);
        let members = peers.into_iter().map(|peer| {
            let (away, since) = match peer.presence {
                Presence::Away { since, why } => (Some(why), since),
                Presence::Here(here) => (None, here.since),
            };
            MemberStatus {
                name: peer.name.clone(),
                address: peer.rank.0,
                away,
                since,
                linked: matches!(peer.link, Link::Up { .. }),
                eligible: peer.flags.eligible,
                active: peer.flags.active,
                manager: peer.manager.clone(),
                sees_whom: peer.mirror.as_ref().map(sees_whom).unwrap_or_default(),
                networks: peer.networks(now).collect(),
                round_trip: peer.offset.best(now).map(|best| best.1 * 2),
                records: peer.mirror.as_ref().map_or(0, |mirror| mirror.iter().count()),
                current: away.is_none() && peer.mirror.as_ref().is_some_and(|m| m.have().is_some()),
            }
        });
        let (time, time_error) = self.clock.read(now);
        Status {
            own: self.options.own.clone(),
            life: self.life,
            listed: self.rank.is_some(),
            standing: self.eligibility.standing(),
            manager: self.manager.clone(),
            of: self.peers.len() + usize::from(self.rank.is_some()),
            sees: usize::from(self.sees()),
            time,
            time_error,
            members: members.collect(),
            counters: self.counters,
        }
    }

    /// The active manager, as far as can be seen from here.
    #[must_use]
    pub fn manager(&self) -> Option<&Name> {
        self.manager.as_ref()
    }

    /// Where to send who asks for the manager: nowhere if that is this member. Only a member that says to be the
    /// manager is told of, so that nobody is sent in a circle.
    #[must_use]
    pub fn redirect(&self) -> Redirect<'_> {
        if self.manager.as_ref() == Some(&self.options.own) {
            return Redirect::Here;
        }
        let active = self.peers.values().filter(|peer| peer.candidate() && peer.flags.active);
        active
            .min_by_key(|peer| &peer.rank)
            .map_or(Redirect::Nobody, |peer| Redirect::To(&peer.name))
    }

    /// A member's records; what was last known of one that is not here. None of who was never met.
    pub fn records(&self, name: &Name) -> Option<Records<'_>> {
        if *name == self.options.own {
            return Some(Records { current: true, of: Of::Own(&self.records) });
        }
        let peer = self.peers.get(name)?;
        let mirror = peer.mirror.as_ref()?;
        let current = peer.here().is_some() && mirror.have().is_some();
        Some(Records { current, of: Of::Mirror(mirror) })
    }

    /// This member's life.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life
    }

    /// The life of a member's that its records are of.
    #[must_use]
    pub fn life_of(&self, name: &Name) -> Option<Life> {
        let mirror = self.peers.get(name)?.mirror.as_ref();
        mirror.map(Mirror::life)
    }

    /// The group's time, and how far it may be off.
    #[must_use]
    pub fn time(&self, now: Micros) -> (GroupTime, Option<u64>) {
        self.clock.read(now)
    }
}

fn sees_whom(mirror: &Mirror) -> Vec<Name> {
    let record = SEES.parse().ok().and_then(|key| mirror.get(&key));
    let text = record.and_then(|record| std::str::from_utf8(&record.value).ok()).unwrap_or("");
    text.split(' ').filter_map(|name| name.parse().ok()).collect()
}

/// Where the manager is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redirect<'a> {
    /// This member is it.
    Here,
    /// That member says it is.
    To(&'a Name),
    /// Nobody says so yet.
    Nobody,
}

/// A member's records.
#[derive(Debug, Clone, Copy)]
pub struct Records<'a> {
    /// Whether they are what it says now.
    pub current: bool,
    of: Of<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Of<'a> {
    Own(&'a super::Own),
    Mirror(&'a Mirror),
}

impl<'a> Records<'a> {
    /// All of them, by key.
    pub fn iter(self) -> impl Iterator<Item = &'a Record> {
        let (own, mirror) = match self.of {
            Of::Own(own) => (Some(own.iter()), None),
            Of::Mirror(mirror) => (None, Some(mirror.iter())),
        };
        own.into_iter().flatten().chain(mirror.into_iter().flatten())
    }

    /// The version of the list, and its hash.
    #[must_use]
    pub fn version(self) -> (u64, u64) {
        match self.of {
            Of::Own(own) => (own.version(), own.hash()),
            Of::Mirror(mirror) => (mirror.version(), mirror.hash()),
        }
    }
}
