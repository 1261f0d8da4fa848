// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use device_manager::record::{DeviceId, Machine, WHOLE};
use device_manager::unit::core::{Micros, Note, Unit, With};

use crate::services::State;
use crate::world::{QUIET, SECOND, TTL, World};

/// What was seen so far.
#[derive(Default)]
pub struct Seen {
    pub numbers: u64,
    /// The newest stamp of a device that each life of a manager has shown.
    shown: BTreeMap<(usize, u64, DeviceId), (u64, u64)>,
    pub versions: u64,
    /// Connections of those who have no lease.
    pub strangers: BTreeSet<u64>,
    /// When each lease was granted.
    granted: BTreeMap<(Machine, u64), Micros>,
}

impl World {
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
