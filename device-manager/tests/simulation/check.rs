// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults, and what must hold whatever they are.

use std::collections::{BTreeMap, BTreeSet};

use device_manager::record::{DeviceId, Machine, WHOLE};
use device_manager::unit::core::{Event, Micros, Note, Unit, With};

use crate::services::State;
use crate::world::{Due, QUIET, SECOND, TTL, World, found};

/// What was seen so far.
#[derive(Default)]
pub struct Seen {
    pub numbers: u64,
    /// The newest stamp of a device that each life of a manager has shown.
    shown: BTreeMap<(usize, u64, DeviceId), (u64, u64)>,
    versions: u64,
    /// Connections of those who have no lease.
    pub strangers: BTreeSet<u64>,
    /// When each lease was granted.
    granted: BTreeMap<(Machine, u64), Micros>,
}

impl World {
    pub fn fault(&mut self) {
        let unit = self.rng.index(self.units.len());
        let manager = self.rng.index(self.managers.len());
        match self.rng.below(13) {
            0 if self.managers[manager].core.is_none() => self.start_manager(manager),
            0 if !self.set_back => {
                self.count("manager killed");
                self.kill_manager(manager);
                if self.rng.permille(600) {
                    self.start_manager(manager);
                }
            }
            1 if self.units[unit].core.is_none() => self.start_unit(unit),
            1 => {
                self.count("unit killed");
                self.kill_unit(unit, false);
                self.start_unit(unit);
            }
            2 if self.units[unit].core.is_some() => {
                self.count("machine restarted");
                self.kill_unit(unit, true);
                if self.set_back && self.rng.permille(500) {
                    self.count("disk set back");
                    let back = self.rng.between(1, 600);
                    self.units[unit].disk = self.units[unit].disk.saturating_sub(back);
                }
                if self.rng.permille(700) {
                    self.start_unit(unit);
                }
            }
            3 | 4 => {
                let up: Vec<u64> = self
                    .links
                    .iter()
                    .filter(|(_, l)| l.up && !l.silent)
                    .map(|(no, _)| *no)
                    .collect();
                if up.is_empty() {
                    return;
                }
                let no = *self.rng.pick(&up);
                if self.rng.permille(500) {
                    self.count("links cut");
                    self.end_link(no);
                } else {
                    self.count("links silent");
                    self.note(|| format!("link {no} is silent"));
                    self.links.get_mut(&no).expect("it is there").silent = true;
                }
            }
            5 => {
                let other = self.rng.index(self.managers.len());
                if other == manager {
                    return;
                }
                let pair = (manager.min(other), manager.max(other));
                if self.parted.remove(&pair) {
                    self.after(self.now, Due::Meet(pair.0, pair.1));
                } else {
                    self.count("managers parted");
                    self.parted.insert(pair);
                    self.after(self.now + 400_000, Due::Part(pair.0, pair.1));
                }
            }
            6 | 7 => {
                let port = self.rng.index(3);
                self.seen.versions += 1;
                let version = self.seen.versions;
                let side = &mut self.units[unit];
                if side.plugged.remove(&port).is_some() {
                    side.paths.remove(&format!("1-{port}"));
                    self.count("unplugged");
                }
                if self.rng.permille(600) {
                    self.count("swapped");
                    self.units[unit].plugged.insert(port, found(port, version));
                }
                let all = self.units[unit].plugged.values().cloned().collect();
                self.unit(unit, Event::Inventory(all));
            }
            8 => {
                let paths: Vec<_> = self.units[unit].paths.clone().into_iter().collect();
                if paths.is_empty() || self.units[unit].core.is_none() {
                    return;
                }
                let (path, no) = self.rng.pick(&paths).clone();
                self.count("paths lost");
                self.units[unit].paths.remove(&path);
                self.unit(unit, Event::Cut(no));
            }
            11 => {
                let other = self.rng.index(self.managers.len());
                let until = self.now + self.rng.between(SECOND, 5 * SECOND);
                self.count("links between managers lost");
                self.lossy = Some((manager, other, until));
            }
            9 => {
                let at = self.rng.index(self.services.len());
                if let State::Has(_) = self.services[at].state {
                    self.count("services vanished");
                    self.services[at].state = State::Idle;
                }
            }
            10 => {
                let number = self.seen.numbers + 1;
                self.seen.numbers = number;
                let held = self.services.iter_mut().find_map(|service| match &mut service.state {
                    State::Has(held) if held.linked => Some(held),
                    _ => None,
                });
                let Some(held) = held else { return };
                let (unit, old) = (held.unit, std::mem::replace(&mut held.conn, number));
                held.linked = false;
                self.count("links of holders cut");
                self.unit(unit, Event::ConnEnded(old));
            }
            _ => {}
        }
    }

    /// No more faults: everybody is there, and reaches everybody.
    pub fn heal(&mut self) {
        self.note(|| "the storm is over".to_owned());
        for pair in std::mem::take(&mut self.parted) {
            self.after(self.now, Due::Meet(pair.0, pair.1));
        }
        for at in 0..self.managers.len() {
            if self.managers[at].core.is_none() {
                self.start_manager(at);
            }
        }
        for at in 0..self.units.len() {
            if self.units[at].core.is_none() {
                self.start_unit(at);
            }
        }
    }

    pub fn unit_noted(&mut self, at: usize, note: Note) {
        match note {
            Note::Granted(no, ..) => {
                if no <= self.units[at].last_no {
                    self.broken =
                        Some(format!("u{at}: lease {no} after {}", self.units[at].last_no));
                }
                self.units[at].last_no = no;
                let unit = self.units[at].name.clone();
                self.seen.granted.insert((unit, no), self.now);
            }
            Note::Ended(no, _, _, why) if why == "it was not renewed" => {
                let (now, broken) = (self.now, &mut self.broken);
                for service in &self.services {
                    if let State::Has(held) = &service.state
                        && (held.unit, held.grant.no) == (at, no)
                        && held.opened
                        && now < held.renewed + TTL
                    {
                        *broken = Some(format!("u{at}: lease {no} expired before its time"));
                    }
                }
            }
            Note::With(_) => self.count("units changed over"),
            _ => {}
        }
    }

    /// After each event.
    pub fn check(&mut self) {
        let mut broken = None;
        for (at, side) in self.units.iter().enumerate() {
            let Some(core) = &side.core else { continue };
            for device in core.devices() {
                let leased = |f: &device_manager::record::Function| f.lease.is_some();
                let parts = device.functions.iter().skip(1).filter(|f| leased(f)).count();
                if leased(&device.functions[usize::from(WHOLE)]) && parts > 0 {
                    broken =
                        Some(format!("u{at}: all of {} and a part of it are leased", device.id));
                }
                for info in device.functions.iter().filter_map(|f| f.lease.as_ref()) {
                    if !core.leases().any(|lease| lease.info.no == info.no) {
                        broken = Some(format!(
                            "u{at}: {} tells of lease {}, which is none",
                            device.id, info.no
                        ));
                    }
                }
            }
            for lease in core.leases().filter(|lease| lease.is_carried()) {
                if !side.paths.values().any(|no| *no == lease.info.no) {
                    broken = Some(format!("u{at}: nothing carries lease {}", lease.info.no));
                }
            }
            for lease in core.leases() {
                let same = |other: &&device_manager::unit::core::Lease| {
                    other.device == lease.device
                        && other.function == lease.function
                        && !other.is_ending()
                };
                if !lease.is_ending() && core.leases().filter(same).count() > 1 {
                    broken = Some(format!("u{at}: two leases of {}", lease.device));
                }
            }
        }
        for (at, side) in self.managers.iter().enumerate() {
            let Some(core) = &side.core else { continue };
            for (device, _) in core.devices() {
                let shown = self.seen.shown.entry((at, side.life, device.id)).or_default();
                if *shown > device.stamp.order() {
                    broken = Some(format!(
                        "m{at}: {} goes back from {shown:?} to {:?}",
                        device.id, device.stamp
                    ));
                }
                *shown = device.stamp.order();
            }
        }
        if broken.is_some() {
            self.broken = broken;
        }
    }

    /// Some time after the last fault.
    pub fn check_calm(&mut self) {
        let mut wrong = vec![];
        for side in &self.units {
            let Some(core) = &side.core else { continue };
            let With::Manager(real) = core.with() else {
                wrong.push(format!("{} has no manager", side.name));
                continue;
            };
            for manager in &self.managers {
                let Some(known) = &manager.core else { continue };
                match known.owner(&side.name) {
                    Some((owner, _)) if owner == real => {}
                    other => wrong.push(format!(
                        "{} takes {:?} for the manager of {}, which is {real}",
                        manager.name,
                        other.map(|o| o.0),
                        side.name
                    )),
                }
                if manager.own {
                    continue;
                }
                for device in core.devices() {
                    if known.device(device.id).map(|d| d.0) != Some(device) {
                        wrong
                            .push(format!("{} does not know {} as it is", manager.name, device.id));
                    }
                }
                let count = known.devices().iter().filter(|(d, _)| d.unit == side.name).count();
                if count != core.devices().count() {
                    wrong.push(format!(
                        "{} knows {count} devices of {}, which has {}",
                        manager.name,
                        side.name,
                        core.devices().count()
                    ));
                }
            }
            for lease in core.leases() {
                let has = |state: &State| matches!(state, State::Has(held) if held.grant.no == lease.info.no);
                let old = self.seen.granted.get(&(side.name.clone(), lease.info.no));
                let young = old.is_some_and(|at| self.now < at + 2 * TTL);
                if !young && !self.services.iter().any(|service| has(&service.state)) {
                    wrong.push(format!("{}: nobody has lease {}", side.name, lease.info.no));
                }
            }
            let stuck = core.leases().find(|lease| lease.is_ending());
            if let Some(lease) = stuck {
                wrong.push(format!("{}: lease {} does not end", side.name, lease.info.no));
            }
            for (path, no) in &side.paths {
                if !core.leases().any(|lease| lease.info.no == *no) {
                    wrong.push(format!(
                        "{}: {path} is carried for lease {no}, which is none",
                        side.name
                    ));
                }
            }
        }
        for manager in self.managers.iter().filter_map(|side| side.core.as_ref()) {
            for (holder, device, _) in manager.queue() {
                if manager.device(device).is_some_and(|(device, _)| device.taken(WHOLE).is_none()) {
                    wrong.push(format!("{holder} waits for {device}, which is free"));
                }
            }
        }
        for (at, service) in self.services.iter().enumerate() {
            if let State::Asked { no, .. } = service.state
                && service.next_at + 2 * SECOND < QUIET
            {
                wrong.push(format!("service {at} has no answer to request {no}"));
            }
            let manager = &self.managers[service.manager];
            if service.life != manager.life {
                continue;
            }
            // Every finder knows all that fits, also where finders are forwarded.
            for (id, device) in &service.told {
                let real =
                    self.units.iter().find(|u| u.name == device.unit).and_then(|u| u.core.as_ref());
                if !real.is_some_and(|core| {
                    core.devices().any(|d| d.id == *id && d.gen_no == device.gen_no)
                }) {
                    wrong.push(format!("service {at} is told of {id}, which is gone"));
                }
            }
            let all = self.units.iter().filter_map(|u| u.core.as_ref()).flat_map(Unit::devices);
            let disks = all.filter(|device| device.found.types == ["disk"]);
            for device in disks {
                if !service.told.contains_key(&device.id) {
                    wrong.push(format!("service {at} is not told of {}", device.id));
                }
            }
        }
        if let Some(first) = wrong.first() {
            self.broken = Some(first.clone());
        }
    }
}
