// SPDX-License-Identifier: MIT OR Apache-2.0
//! Units that are connected here, those that peers have, and which of two is right.

use std::collections::BTreeMap;

use super::{Action, Listed, MAX_UNITS, Manager, Note, PeerState};
use crate::record::{Device, DeviceId, LeaseInfo, MAX_DEVICES, Machine, Stamp};
use crate::unit::core::{BEAT, CONNECT, ConnId, Micros, SILENCE};
use crate::wire::{Beat, FromUnit, MAX_SEEN, Peer, ToUnit};

/// A unit that is connected.
#[derive(Debug, Clone)]
pub(super) struct UnitLink {
    pub machine: Machine,
    /// Of its hello; none before that.
    pub stamp: Option<Stamp>,
    /// The newest of its stamps.
    newest: (u64, u64),
    pub devices: BTreeMap<DeviceId, Device>,
    came: Micros,
    heard: Micros,
    beat_at: Micros,
    echo: Option<(u64, u64)>,
}

impl UnitLink {
    pub fn due(&self) -> Micros {
        let limit = if self.stamp.is_some() { self.heard + SILENCE } else { self.came + CONNECT };
        limit.min(self.beat_at)
    }
}

/// A unit, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownUnit<'a> {
    /// Its name.
    pub machine: &'a Machine,
    /// The manager that has it.
    pub manager: &'a Machine,
    /// When it connected there, by its own word.
    pub stamp: Stamp,
    /// How many devices of it are known here.
    pub devices: usize,
}

/// Whether what is told of a device is of the time since its unit connected.
fn is_since(device: &Device, connected: Stamp) -> bool {
    device.stamp.order() > connected.order()
}

impl Manager {
    pub(super) fn unit_came(&mut self, now: Micros, conn: ConnId, machine: Machine) {
        if self.units.len() >= MAX_UNITS {
            self.out.push(Action::Close(conn));
            return;
        }
        let units = u32::try_from(self.units.len()).unwrap_or(u32::MAX);
        let newest = self.newest.get(&machine).copied();
        self.out.push(Action::ToUnit(conn, ToUnit::Welcome { newest, units }));
        let link = UnitLink {
            machine,
            stamp: None,
            newest: (0, 0),
            devices: BTreeMap::new(),
            came: now,
            heard: now,
            beat_at: now + BEAT,
            echo: None,
        };
        self.units.insert(conn, link);
    }

    fn claimed(&mut self, unit: &Machine, stamp: Stamp) {
        self.newer(unit, stamp);
        let claim = self.claims.entry(unit.clone()).or_default();
        *claim = (*claim).max(stamp.order());
    }

    fn newer(&mut self, unit: &Machine, stamp: Stamp) {
        self.seen(unit, stamp.order());
    }

    fn seen(&mut self, unit: &Machine, order: (u64, u64)) {
        let newest = self.newest.entry(unit.clone()).or_default();
        *newest = (*newest).max(order);
    }

    /// A peer knows of newer stamps of a unit than it ever gave over its connection here: either it has gone on, and that is a
    /// leftover, or its disk was set back and nobody believes it. It is to come again, and is told what it has to exceed.
    fn outdated(&mut self, unit: &Machine) {
        let Some(newest) = self.newest.get(unit) else { return };
        let Some((conn, link)) = self.link_of(unit) else { return };
        if link.newest < *newest {
            self.out.push(Action::ToUnit(conn, ToUnit::Elsewhere));
            self.drop_unit(conn, "others know something newer of it");
        }
    }

    pub(super) fn unit_said(&mut self, now: Micros, conn: ConnId, message: FromUnit) {
        let Some(link) = self.units.get_mut(&conn) else { return };
        link.heard = now;
        let machine = link.machine.clone();
        match (message, link.stamp) {
            (FromUnit::Hello { stamp, .. }, None) => self.hello(conn, &machine, stamp),
            (FromUnit::Beat(beat), _) => link.echo = Some((beat.sent, now)),
            (FromUnit::Device(device), Some(hello)) => {
                let good = device.unit == machine
                    && device.id == DeviceId::new(&machine, &device.found.key)
                    && device.stamp.order() > hello.order()
                    && (link.devices.len() < MAX_DEVICES || link.devices.contains_key(&device.id));
                if !good {
                    return self.wrong(conn, &machine, "a device that is not its own");
                }
                self.newer(&machine, device.stamp);
                let id = device.id;
                if let Some(link) = self.units.get_mut(&conn) {
                    link.newest = link.newest.max(device.stamp.order());
                    link.devices.insert(id, (*device).clone());
                }
                self.out.push(Action::Publish(device));
                self.refresh(id);
                self.serve_queue(id);
            }
            (FromUnit::Gone(id, stamp), Some(_)) => {
                self.newer(&machine, stamp);
                if let Some(link) = self.units.get_mut(&conn) {
                    link.newest = link.newest.max(stamp.order());
                }
                if self.units.get_mut(&conn).and_then(|link| link.devices.remove(&id)).is_some() {
                    self.out.push(Action::Unpublish(id));
                    self.refresh(id);
                    self.forget_wants(id);
                }
            }
            (FromUnit::Answer(request, answer), Some(_)) => {
                self.unit_answered(conn, request, answer);
            }
            (FromUnit::Complete, Some(_)) => {}
            _ => self.wrong(conn, &machine, "something before its name, or its name twice"),
        }
    }

    fn wrong(&mut self, conn: ConnId, machine: &Machine, what: &str) {
        self.out.push(Action::Note(Note::Wrong(format!("unit {machine} told {what}"))));
        self.drop_unit(conn, "it breaks the protocol");
    }

    fn hello(&mut self, conn: ConnId, machine: &Machine, stamp: Stamp) {
        if self.claims.get(machine).is_some_and(|claim| *claim >= stamp.order()) {
            // It has gone on to another manager since, and this connection is a leftover.
            self.out.push(Action::ToUnit(conn, ToUnit::Elsewhere));
            self.drop_unit(conn, "it is elsewhere");
            return;
        }
        let old = self.units.iter().filter(|(at, link)| **at != conn && link.machine == *machine);
        for at in old.map(|(at, _)| *at).collect::<Vec<_>>() {
            self.drop_unit(at, "it connected again");
        }
        self.claimed(machine, stamp);
        if let Some(link) = self.units.get_mut(&conn) {
            (link.stamp, link.newest) = (Some(stamp), stamp.order());
        }
        self.tell_all(&Peer::Owner(machine.clone(), stamp));
        self.out.push(Action::Note(Note::Unit(machine.clone())));
        self.refresh_unit(machine);
    }

    pub(super) fn tell_all(&mut self, message: &Peer) {
        for (peer, _) in self.peers.iter().filter(|(_, peer)| peer.here) {
            self.out.push(Action::ToPeer(peer.clone(), message.clone()));
        }
    }

    pub(super) fn drop_unit(&mut self, conn: ConnId, why: &'static str) {
        let Some(link) = self.units.remove(&conn) else { return };
        self.out.push(Action::Close(conn));
        let Some(stamp) = link.stamp else { return };
        self.out.push(Action::Note(Note::UnitGone(link.machine.clone(), why)));
        self.tell_all(&Peer::Lost(link.machine.clone(), stamp));
        for id in link.devices.keys() {
            self.out.push(Action::Unpublish(*id));
        }
        for id in link.devices.keys() {
            self.refresh(*id);
            self.forget_wants(*id);
        }
        self.refresh_unit(&link.machine);
    }

    pub(super) fn keep_units(&mut self, now: Micros) {
        let due: Vec<ConnId> =
            self.units.iter().filter(|(_, link)| link.due() <= now).map(|(c, _)| *c).collect();
        for conn in due {
            let Some(link) = self.units.get_mut(&conn) else { continue };
            let limit =
                if link.stamp.is_some() { link.heard + SILENCE } else { link.came + CONNECT };
            if limit <= now {
                self.drop_unit(conn, "it is silent");
                continue;
            }
            link.beat_at = now + BEAT;
            let beat = Beat { sent: now, echo: link.echo, group: Some(self.clock) };
            self.out.push(Action::ToUnit(conn, ToUnit::Beat(beat)));
        }
    }

    pub(super) fn peer_here(&mut self, name: &Machine) {
        self.peers.entry(name.clone()).or_default().here = true;
        let own = self.units.values().filter_map(|link| Some((link.machine.clone(), link.stamp?)));
        let begin = Peer::Begin {
            units: own.take(MAX_SEEN).collect(),
            finders: self.forwards(),
            requests: self.asks(name),
        };
        self.out.push(Action::ToPeer(name.clone(), begin));
        // Whoever gets a unit next must know if its disk was set back.
        let seen = self
            .newest
            .iter()
            .take(MAX_SEEN)
            .map(|(unit, newest)| (unit.clone(), *newest))
            .collect();
        self.out.push(Action::ToPeer(name.clone(), Peer::Seen(seen)));
        self.forward_finders(name);
        self.hit_again(name);
        self.ask_again(name);
    }

    pub(super) fn peer_away(&mut self, now: Micros, name: &Machine) {
        let Some(peer) = self.peers.insert(name.clone(), PeerState::default()) else { return };
        for id in peer.devices.keys() {
            self.refresh(*id);
        }
        for unit in peer.units.keys() {
            self.refresh_unit(unit);
        }
        self.asker_away(name);
        self.target_away(now, name);
    }

    pub(super) fn peer_said(&mut self, now: Micros, from: Machine, message: Peer) {
        // Somebody who is heard is here, whatever the order in which that was noticed.
        self.peers.entry(from.clone()).or_default().here = true;
        match message {
            Peer::Owner(unit, stamp) => self.owned(&from, unit, stamp),
            Peer::Lost(unit, stamp) => {
                let peer = self.peers.entry(from).or_default();
                if peer.units.get(&unit).is_some_and(|known| known.order() <= stamp.order()) {
                    peer.units.remove(&unit);
                    self.refresh_unit(&unit);
                }
            }
            Peer::Seen(seen) => {
                for (unit, order) in seen {
                    self.seen(&unit, order);
                    self.outdated(&unit);
                }
            }
            Peer::Begin { units, finders, requests } => {
                self.asks_no_others(&from, &requests);
                let peer = self.peers.entry(from.clone()).or_default();
                peer.finders.retain(|no, _| finders.contains(no));
                let gone =
                    peer.units.keys().filter(|old| !units.iter().any(|(unit, _)| unit == *old));
                for unit in gone.cloned().collect::<Vec<_>>() {
                    self.peers.entry(from.clone()).or_default().units.remove(&unit);
                    self.refresh_unit(&unit);
                }
                for (unit, stamp) in units {
                    self.owned(&from, unit, stamp);
                }
                self.ask_again(&from);
            }
            Peer::Has(no, ids) => self.has(&from, no, &ids),
            Peer::Find(no, pattern) => self.forwarded(&from, no, pattern),
            Peer::Unfind(no) => {
                self.peers.entry(from).or_default().finders.remove(&no);
            }
            Peer::Hit(no, device) => self.hit(&from, no, *device),
            Peer::Miss(no, id) => self.miss(&from, no, id),
            Peer::Want(no, wanted) => {
                if wanted.holder.machine == from {
                    self.want((Some(from), no), wanted);
                } else {
                    let text = format!("{from} asks for somebody on {}", wanted.holder.machine);
                    self.out.push(Action::Note(Note::Wrong(text)));
                }
            }
            Peer::Cancel(no) => self.unwant(&(Some(from), no)),
            Peer::Queued(no, place) => self.is_queued(&from, no, place),
            Peer::Answer(no, answer) => self.answered(now, &from, no, answer),
            Peer::End { unit, no, by, force } => {
                if by.machine == from {
                    self.end_lease(Some(&from), &unit, no, &by, force);
                }
            }
        }
    }

    fn owned(&mut self, from: &Machine, unit: Machine, stamp: Stamp) {
        let ours = self.units.iter().find(|(_, link)| link.machine == unit && link.stamp.is_some());
        if let Some((conn, own)) = ours.and_then(|(conn, link)| Some((*conn, link.stamp?))) {
            if own.order() > stamp.order() {
                self.out.push(Action::ToPeer(from.clone(), Peer::Owner(unit, own)));
                return;
            }
            self.out.push(Action::Note(Note::GaveUp(unit.clone(), from.clone())));
            self.out.push(Action::ToUnit(conn, ToUnit::Elsewhere));
            self.drop_unit(conn, "another manager has it");
        }
        if let Some(claim) = self.claims.get(&unit).filter(|claim| **claim > stamp.order()) {
            // It cannot know of the other, or the unit's disk was set back.
            let seen = Peer::Seen(vec![(unit.clone(), *claim)]);
            self.out.push(Action::ToPeer(from.clone(), seen));
        }
        self.claimed(&unit, stamp);
        let peer = self.peers.entry(from.clone()).or_default();
        if peer.units.len() < MAX_UNITS || peer.units.contains_key(&unit) {
            let known = peer.units.entry(unit.clone()).or_insert(stamp);
            if known.order() < stamp.order() {
                *known = stamp;
            }
        }
        self.refresh_unit(&unit);
    }

    pub(super) fn listed(&mut self, from: &Machine, changes: Vec<Listed>) {
        for change in changes {
            let peer = self.peers.entry(from.clone()).or_default();
            let id = match change {
                Listed::Set(device) => {
                    let id = device.id;
                    if device.id != DeviceId::new(&device.unit, &device.found.key) {
                        continue;
                    }
                    let known = peer
                        .devices
                        .entry(id)
                        .or_insert_with(|| ((*device).clone(), Default::default()));
                    if device.stamp.order() >= known.0.stamp.order() {
                        known.0 = *device.clone();
                    }
                    self.newer(&device.unit, device.stamp);
                    id
                }
                Listed::Gone(id) => {
                    peer.devices.remove(&id);
                    id
                }
            };
            self.refresh(id);
        }
    }

    /// The manager that has a unit: the one that it connected to last.
    #[must_use]
    pub fn owner(&self, unit: &Machine) -> Option<(&Machine, Stamp)> {
        let own = self.units.values().filter(|link| link.machine == *unit);
        let own = own.filter_map(|link| Some((&self.options.own, link.stamp?)));
        let peers =
            self.peers.iter().filter_map(|(name, peer)| Some((name, *peer.units.get(unit)?)));
        let newest = self.claims.get(unit)?;
        own.chain(peers).find(|(_, stamp)| stamp.order() == *newest)
    }

    /// A device, and the manager that has it: only as that one tells, and only what the unit has told it since it connected there
    /// (lists and claims travel apart: what is listed still may be of an earlier time with the same manager).
    #[must_use]
    pub fn device(&self, id: DeviceId) -> Option<(&Device, &Machine)> {
        let own = self.units.values().filter_map(|link| {
            link.stamp?;
            Some((link.devices.get(&id)?, &self.options.own))
        });
        let peers =
            self.peers.iter().filter_map(|(name, peer)| Some((&peer.devices.get(&id)?.0, name)));
        let mut told = own.chain(peers);
        told.find(|(device, teller)| {
            self.owner(&device.unit)
                .is_some_and(|(owner, since)| owner == *teller && is_since(device, since))
        })
    }

    /// All devices that are known here, each with the manager that has it: those that [`Self::device`] knows, by their ids.
    #[must_use]
    pub fn devices(&self) -> Vec<(&Device, &Machine)> {
        let mut owners = BTreeMap::new();
        let mut all = BTreeMap::new();
        for (device, teller) in self.told() {
            let owner = owners.entry(&device.unit).or_insert_with(|| self.owner(&device.unit));
            if owner.is_some_and(|owner| owner.0 == teller && is_since(device, owner.1)) {
                all.insert(device.id, (device, teller));
            }
        }
        all.into_values().collect()
    }

    /// The device that is leased by this number, as it is known here.
    #[must_use]
    pub fn leased(&self, no: u64) -> Option<(&Device, &LeaseInfo)> {
        let mut told = self.told().filter(|(device, _)| device.lease(no).is_some());
        told.find_map(|(device, _)| {
            let (device, _) = self.device(device.id)?;
            Some((device, device.lease(no)?))
        })
    }

    /// Devices as each manager tells of them, true or not.
    fn told(&self) -> impl Iterator<Item = (&Device, &Machine)> {
        let own = self.units.values().filter(|link| link.stamp.is_some());
        let own = own.flat_map(|link| link.devices.values().map(|d| (d, &self.options.own)));
        let peers = self.peers.iter();
        own.chain(peers.flat_map(|(name, peer)| peer.devices.values().map(move |d| (&d.0, name))))
    }

    /// All units that are known here.
    #[must_use]
    pub fn known_units(&self) -> Vec<KnownUnit<'_>> {
        let own = self.units.values().filter(|link| link.stamp.is_some()).map(|link| &link.machine);
        let peers = self.peers.values().flat_map(|peer| peer.units.keys());
        let names: std::collections::BTreeSet<_> = own.chain(peers).collect();
        let known = |machine| {
            let (manager, stamp) = self.owner(machine)?;
            let of = |devices: &mut dyn Iterator<Item = &Device>| {
                devices.filter(|d| d.unit == *machine && is_since(d, stamp)).count()
            };
            let devices = match self.peers.get(manager) {
                Some(peer) => of(&mut peer.devices.values().map(|told| &told.0)),
                None => of(&mut self.units.values().flat_map(|link| link.devices.values())),
            };
            Some(KnownUnit { machine, manager, stamp, devices })
        };
        names.into_iter().filter_map(known).collect()
    }

    /// The unit that is connected here, and its connection.
    pub(super) fn link_of(&self, unit: &Machine) -> Option<(ConnId, &UnitLink)> {
        let found =
            self.units.iter().find(|(_, link)| link.machine == *unit && link.stamp.is_some());
        found.map(|(conn, link)| (*conn, link))
    }
}
