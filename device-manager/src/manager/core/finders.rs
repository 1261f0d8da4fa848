// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finders: each service is told of each device that fits, once, and of each change after that.

use std::collections::BTreeMap;

use group::core::Replication;

use super::{Action, Finder, MAX_FINDERS, MAX_FORWARDED, Manager, Report, Scope};
use crate::pattern::Pattern;
use crate::record::{Device, DeviceId, Machine};
use crate::wire::{FinderNo, MAX_HITS, Peer};

impl Manager {
    pub(super) fn find(&mut self, no: FinderNo, pattern: Pattern, scope: Scope) {
        if self.finders.len() >= MAX_FINDERS {
            return;
        }
        self.finders.insert(no, Finder { pattern: pattern.clone(), scope, told: BTreeMap::new() });
        let ids: Vec<DeviceId> = self.devices().into_iter().map(|(device, _)| device.id).collect();
        for id in ids {
            self.refresh(id);
        }
        if self.options.replication == Replication::Own && scope == Scope::Group {
            self.tell_all(&Peer::Find(no, pattern));
        }
    }

    pub(super) fn unfind(&mut self, no: FinderNo) {
        let Some(finder) = self.finders.remove(&no) else { return };
        if self.options.replication == Replication::Own && finder.scope == Scope::Group {
            self.tell_all(&Peer::Unfind(no));
            for peer in self.peers.values_mut() {
                peer.devices.retain(|_, (_, finders)| {
                    finders.remove(&no);
                    !finders.is_empty()
                });
            }
        }
    }

    /// Finders that peers have, too.
    pub(super) fn forwards(&self) -> Vec<FinderNo> {
        let own = self.options.replication == Replication::Own;
        let forwarded = self.finders.iter().filter(|(_, f)| own && f.scope == Scope::Group);
        forwarded.map(|(no, _)| *no).collect()
    }

    /// Of whom no lists are held, they are asked.
    pub(super) fn forward_finders(&mut self, to: &Machine) {
        for no in self.forwards() {
            let find = Peer::Find(no, self.finders[&no].pattern.clone());
            self.out.push(Action::ToPeer(to.clone(), find));
        }
    }

    /// A peer forwards a finder: it is told what this manager has, and what changes of that.
    pub(super) fn forwarded(&mut self, from: &Machine, no: FinderNo, pattern: Pattern) {
        let peer = self.peers.entry(from.clone()).or_default();
        if peer.finders.len() >= MAX_FORWARDED && !peer.finders.contains_key(&no) {
            return;
        }
        peer.finders.insert(no, (pattern, BTreeMap::new()));
        let own = self.units.values().flat_map(|link| link.devices.keys());
        for id in own.copied().collect::<Vec<_>>() {
            self.refresh(id);
        }
    }

    /// A peer may have missed what its finders were told.
    pub(super) fn hit_again(&mut self, to: &Machine) {
        let own: Vec<Device> =
            self.units.values().flat_map(|link| link.devices.values().cloned()).collect();
        let Some(peer) = self.peers.get_mut(to) else { return };
        for (no, (pattern, told)) in &mut peer.finders {
            told.clear();
            let fits = own.iter().filter(|device| pattern.fits(device)).map(|device| device.id);
            let has = Peer::Has(*no, fits.take(MAX_HITS).collect());
            self.out.push(Action::ToPeer(to.clone(), has));
        }
        for device in own {
            self.refresh_forwarded(device.id);
        }
    }

    pub(super) fn has(&mut self, from: &Machine, no: FinderNo, ids: &[DeviceId]) {
        let peer = self.peers.entry(from.clone()).or_default();
        let told =
            peer.devices.iter().filter(|(id, told)| told.1.contains(&no) && !ids.contains(id));
        for id in told.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.miss(from, no, id);
        }
    }

    pub(super) fn hit(&mut self, from: &Machine, no: FinderNo, device: Device) {
        let id = device.id;
        if !self.finders.contains_key(&no) || id != DeviceId::new(&device.unit, &device.found.key) {
            return;
        }
        let peer = self.peers.entry(from.clone()).or_default();
        let known = peer.devices.entry(id).or_insert_with(|| (device.clone(), Default::default()));
        known.1.insert(no);
        if device.stamp.order() >= known.0.stamp.order() {
            known.0 = device;
        }
        self.refresh(id);
    }

    pub(super) fn miss(&mut self, from: &Machine, no: FinderNo, id: DeviceId) {
        let peer = self.peers.entry(from.clone()).or_default();
        if let Some((_, finders)) = peer.devices.get_mut(&id) {
            finders.remove(&no);
            if finders.is_empty() {
                peer.devices.remove(&id);
            }
        }
        self.refresh(id);
    }

    pub(super) fn refresh_unit(&mut self, unit: &Machine) {
        let own = self.units.values().flat_map(|link| link.devices.values());
        let peers = self.peers.values().flat_map(|peer| peer.devices.values().map(|told| &told.0));
        let of: Vec<_> = own.chain(peers).filter(|d| d.unit == *unit).map(|d| d.id).collect();
        // What was told of the unit by one who has it no more is gone.
        let told = self.finders.values().flat_map(|finder| finder.told.keys().copied());
        let unseen: Vec<_> = told.filter(|id| self.device(*id).is_none()).collect();
        for id in of.into_iter().chain(unseen) {
            self.refresh(id);
        }
        self.ask_found();
    }

    /// Compares what is known of a device with what each finder was told of it.
    pub(super) fn refresh(&mut self, id: DeviceId) {
        let found = self.device(id).map(|(device, owner)| (device.clone(), owner.clone()));
        for (no, finder) in &mut self.finders {
            let sees = |(device, owner): &&(Device, Machine)| match finder.scope {
                Scope::Group => true,
                Scope::Managed => *owner == self.options.own,
                Scope::Local => device.unit == self.options.own,
            };
            let fits =
                found.as_ref().filter(sees).filter(|(device, _)| finder.pattern.fits(device));
            let Some((device, owner)) = fits else {
                if finder.told.remove(&id).is_some() {
                    self.out.push(Action::Tell(*no, Report::Gone(id)));
                }
                continue;
            };
            let new = (device.gen_no, device.stamp.order());
            let report = match finder.told.insert(id, new) {
                Some(old) if old == new => continue,
                Some(old) if old.0 == new.0 => {
                    Report::Changed(Box::new(device.clone()), owner.clone())
                }
                // Plugged in again: as it was told of is gone.
                Some(_) => {
                    self.out.push(Action::Tell(*no, Report::Gone(id)));
                    Report::Match(Box::new(device.clone()), owner.clone())
                }
                None => Report::Match(Box::new(device.clone()), owner.clone()),
            };
            self.out.push(Action::Tell(*no, report));
        }
        self.refresh_forwarded(id);
    }

    fn refresh_forwarded(&mut self, id: DeviceId) {
        let own = self.units.values().filter(|link| link.stamp.is_some());
        let own = own.filter_map(|link| link.devices.get(&id)).next();
        for (name, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.here) {
            for (no, (pattern, told)) in &mut peer.finders {
                let message = match own.filter(|device| pattern.fits(device)) {
                    Some(device) => {
                        let new = device.stamp.order();
                        if told.insert(id, new) == Some(new) {
                            continue;
                        }
                        Peer::Hit(*no, Box::new(device.clone()))
                    }
                    None if told.remove(&id).is_some() => Peer::Miss(*no, id),
                    None => continue,
                };
                self.out.push(Action::ToPeer(name.clone(), message));
            }
        }
    }
}
