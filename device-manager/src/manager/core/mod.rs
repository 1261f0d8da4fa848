// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a manager decides. [`Manager::handle`] is told what happens and when, and answers with what to do.
//!
//! * A manager tells only of units that are connected to it, and each list goes as a whole with its teller.
//! * Of two managers that claim a unit the one is right that it connected to later, by the unit's own stamp. So no clock decides
//!   it, and no order of messages.
//! * What a manager holds of leases are copies. The unit has the last word.

mod finders;
mod requests;
mod units;

use std::collections::{BTreeMap, BTreeSet};

use group::core::Replication;

use crate::pattern::Pattern;
use crate::policy::Policy;
use crate::record::{Device, DeviceId, Holder, Machine, Stamp};
use crate::unit::core::{ConnId, Micros};
use crate::wire::{FinderNo, FromUnit, Grant, MAX_MINE, Peer, Refusal, RequestNo, ToUnit};
use requests::{Request, Want};
pub use units::KnownUnit;
use units::UnitLink;

/// Most units of one manager: a group has at most 64 machines, and each may come twice for a moment.
pub const MAX_UNITS: usize = 128;
/// Most finders of a manager's own services.
pub const MAX_FINDERS: usize = MAX_MINE;
/// Most finders that one peer forwards.
pub const MAX_FORWARDED: usize = MAX_FINDERS;
/// Most requests that wait at a manager, for all devices together.
pub const MAX_WANTS: usize = MAX_MINE;
/// A request whose device's manager is gone waits so long for another one to have it.
pub const PATIENCE: Micros = 10_000_000;

/// What does not change while it runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// This machine.
    pub own: Machine,
    /// Whose lists it holds.
    pub replication: Replication,
}

/// Which of the devices a finder looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// All of the group's.
    #[default]
    Group,
    /// Those whose units are with this manager.
    Managed,
    /// This machine's own.
    Local,
}

/// A standing query of a service.
#[derive(Debug, Clone)]
pub struct Finder {
    /// What it looks for.
    pub pattern: Pattern,
    /// Where.
    pub scope: Scope,
    /// What it was told, and how new that was.
    told: BTreeMap<DeviceId, (u64, (u64, u64))>,
}

/// What a service wants leased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The device.
    pub device: DeviceId,
    /// Which part.
    pub function: u8,
    /// For whom.
    pub holder: Holder,
    /// Whether to wait for it.
    pub queue: bool,
    /// For how long, seconds.
    pub limit_s: Option<u32>,
    /// The group's time, milliseconds.
    pub since_ms: u64,
}

/// A change of a peer's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// It tells of this device.
    Set(Box<Device>),
    /// It does so no more.
    Gone(DeviceId),
}

/// What happens.
#[derive(Debug, Clone)]
pub enum Event {
    /// It is the time that [`Manager::next`] gave.
    Tick,
    /// A unit connected, and proved to be this machine.
    UnitCame(ConnId, Machine),
    /// It says something.
    Unit(ConnId, FromUnit),
    /// Its link is over.
    UnitLeft(ConnId),
    /// A manager is here, or may have missed what was said to it.
    PeerHere(Machine),
    /// It is not here any more.
    PeerAway(Machine),
    /// It says something.
    Peer(Machine, Peer),
    /// Its list is different.
    List(Machine, Vec<Listed>),
    /// A service looks for devices.
    Find(FinderNo, Pattern, Scope),
    /// It does so no more.
    Unfind(FinderNo),
    /// A service wants a device.
    Ask(RequestNo, Ask),
    /// It wants it no more, or is gone.
    Cancel(RequestNo),
    /// Somebody here wants a lease to end.
    End {
        /// The lease.
        no: u64,
        /// The unit.
        unit: Machine,
        /// Who.
        by: Holder,
        /// Whether that is somebody who may end others' leases on this machine.
        force: bool,
    },
    /// The policy is another one.
    Policy(Policy),
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Say something to a unit.
    ToUnit(ConnId, ToUnit),
    /// End a unit's link.
    Close(ConnId),
    /// Say something to a manager.
    ToPeer(Machine, Peer),
    /// Set a record of this manager's own list.
    Publish(Box<Device>),
    /// Remove one.
    Unpublish(DeviceId),
    /// Tell a service what its finder found.
    Tell(FinderNo, Report),
    /// Answer a service's request.
    Answer(RequestNo, Result<Box<Grant>, Refusal>),
    /// A service's request waits, at this place from 1.
    Waits(RequestNo, u32),
    /// For the log.
    Note(Note),
}

/// What a finder is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A device fits; the manager that has its unit.
    Match(Box<Device>, Machine),
    /// One that fitted before is different.
    Changed(Box<Device>, Machine),
    /// One that fitted before is gone, or fits no more.
    Gone(DeviceId),
}

/// What happened, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A unit is with this manager.
    Unit(Machine),
    /// It is not any more.
    UnitGone(Machine, &'static str),
    /// Two managers had a unit; this one gave it up.
    GaveUp(Machine, Machine),
    /// A request was denied.
    Denied(Holder, DeviceId, String),
    /// Somebody did what they may not.
    Wrong(String),
}

/// A peer's finder, and how new what it was told of each device was.
type Forwarded = (Pattern, BTreeMap<DeviceId, (u64, u64)>);

/// What is known of a peer.
#[derive(Debug, Clone, Default)]
struct PeerState {
    /// It is here.
    here: bool,
    /// The units that it says it has.
    units: BTreeMap<Machine, Stamp>,
    /// What it tells of, and for which of our finders if it was asked.
    devices: BTreeMap<DeviceId, (Device, BTreeSet<FinderNo>)>,
    /// Finders that it forwards, and what it was told of each.
    finders: BTreeMap<FinderNo, Forwarded>,
}

/// A manager.
#[derive(Debug, Clone)]
pub struct Manager {
    options: Options,
    policy: Policy,
    units: BTreeMap<ConnId, UnitLink>,
    /// The newest stamp that each unit ever gave, as far as is known here.
    newest: BTreeMap<Machine, (u64, u64)>,
    /// The newest connection of each unit to any manager: whoever claims it by an older one is wrong.
    claims: BTreeMap<Machine, (u64, u64)>,
    peers: BTreeMap<Machine, PeerState>,
    finders: BTreeMap<FinderNo, Finder>,
    /// Of this machine's services.
    requests: BTreeMap<RequestNo, Request>,
    /// For devices of this manager's units: by who forwarded it, none for its own services.
    wants: BTreeMap<(Option<Machine>, RequestNo), Want>,
    asked: u64,
    clock: (i64, u64),
    /// When something happened last.
    lately: Micros,
    out: Vec<Action>,
}

impl Manager {
    /// A manager at its start.
    #[must_use]
    pub fn new(options: Options, policy: Policy) -> Self {
        Self {
            options,
            policy,
            units: BTreeMap::new(),
            newest: BTreeMap::new(),
            claims: BTreeMap::new(),
            peers: BTreeMap::new(),
            finders: BTreeMap::new(),
            requests: BTreeMap::new(),
            wants: BTreeMap::new(),
            asked: 0,
            clock: (0, 0),
            lately: 0,
            out: vec![],
        }
    }

    /// The group's clock minus this machine's, and how far that may be off, microseconds: told to units.
    pub fn set_clock(&mut self, offset: i64, error: u64) {
        self.clock = (offset, error);
    }

    /// The group's time, microseconds since 1970.
    #[must_use]
    pub fn group_time(&self, now: Micros) -> i64 {
        self.clock.0.saturating_add_unsigned(now)
    }

    /// When to be called at the latest.
    #[must_use]
    pub fn next(&self) -> Micros {
        let units = self.units.values().map(UnitLink::due).min();
        let requests = self.requests.values().filter_map(Request::due).min();
        units.into_iter().chain(requests).min().unwrap_or(Micros::MAX)
    }

    /// Takes in what happens.
    #[must_use = "they are to be carried out"]
    pub fn handle(&mut self, now: Micros, event: Event) -> Vec<Action> {
        self.lately = now;
        match event {
            Event::Tick => {}
            Event::UnitCame(conn, machine) => self.unit_came(now, conn, machine),
            Event::Unit(conn, message) => self.unit_said(now, conn, message),
            Event::UnitLeft(conn) => self.drop_unit(conn, "its link ended"),
            Event::PeerHere(peer) => self.peer_here(&peer),
            Event::PeerAway(peer) => self.peer_away(now, &peer),
            Event::Peer(peer, message) => self.peer_said(now, peer, message),
            Event::List(peer, changes) => self.listed(&peer, changes),
            Event::Find(no, pattern, scope) => self.find(no, pattern, scope),
            Event::Unfind(no) => self.unfind(no),
            Event::Ask(no, ask) => self.ask(now, no, ask),
            Event::Cancel(no) => self.cancel(no),
            Event::End { no, unit, by, force } => self.end_lease(None, &unit, no, &by, force),
            Event::Policy(policy) => self.policy = policy,
        }
        self.keep_units(now);
        self.keep_requests(now);
        std::mem::take(&mut self.out)
    }

    /// This machine.
    #[must_use]
    pub fn own(&self) -> &Machine {
        &self.options.own
    }

    /// Whose lists it holds.
    #[must_use]
    pub fn replication(&self) -> Replication {
        self.options.replication
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Finders of its own services, and those that peers forward.
    #[must_use]
    pub fn finder_counts(&self) -> (usize, usize) {
        (self.finders.len(), self.peers.values().map(|peer| peer.finders.len()).sum())
    }

    /// Managers that are here, this one not counted, with the units each has.
    pub fn peers(&self) -> impl Iterator<Item = (&Machine, Vec<&Machine>)> {
        let here = self.peers.iter().filter(|(_, peer)| peer.here);
        here.map(|(name, peer)| (name, peer.units.keys().collect()))
    }

    /// Who wants a device of this manager's units and has to wait, the first first: holder, device, since when, and place.
    #[must_use]
    pub fn queue(&self) -> Vec<(&Holder, DeviceId, u64)> {
        let mut all: Vec<_> = self.wants.iter().filter(|(_, want)| want.waits()).collect();
        all.sort_by_key(|(key, want)| (want.wanted.device, want.wanted.since_ms, (*key).clone()));
        all.into_iter()
            .map(|(_, w)| (&w.wanted.holder, w.wanted.device, w.wanted.since_ms))
            .collect()
    }
}

#[cfg(test)]
mod tests;
