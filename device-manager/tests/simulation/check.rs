// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use device_manager::record::{Device, DeviceId, Function, Holder, Machine};
use device_manager::unit::core::{Lease, Micros, Note, Unit, With};

use crate::devices::SetUp;
use crate::services::State;
use crate::units::UnitSide;
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
    granted: BTreeMap<(Machine, u64), Granted>,
}

/// A lease, as it was granted.
struct Granted {
    at: Micros,
    /// Which time that the device was plugged in.
    gen_no: u64,
    /// Of which part; none for all of it.
    node: Option<String>,
}

/// All of a device is nobody's while a part of it is somebody's.
fn excludes_itself(device: &Device) -> Result<(), String> {
    let leased: Vec<_> = device.functions.iter().filter(|f| f.lease.is_some()).collect();
    match leased.len() > 1 && leased.iter().any(|f| f.node.is_none()) {
        true => Err(format!("all of {} and a part of it are leased", device.id)),
        false => Ok(()),
    }
}

impl World {
    pub fn unit_noted(&mut self, at: usize, note: Note) {
        match note {
            Note::Granted(no, id, _) => {
                if no <= self.units[at].last_no {
                    self.broken =
                        Some(format!("u{at}: lease {no} after {}", self.units[at].last_no));
                }
                self.units[at].last_no = no;
                let side = &self.units[at];
                let mut devices = side.core.iter().flat_map(Unit::devices);
                let device = devices.find(|device| device.id == id).expect("it is leased");
                let of = |f: &&Function| f.lease.as_ref().is_some_and(|info| info.no == no);
                let node = device.functions.iter().find(of).and_then(|f| f.node.clone());
                let granted = Granted { at: self.now, gen_no: device.gen_no, node };
                self.seen.granted.insert((side.name.clone(), no), granted);
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
                    // Its clock runs from when it asked, the unit's from when that came.
                    if let State::Has(held) = &service.state
                        && (held.unit, held.grant.no) == (at, no)
                        && held.is_used()
                    {
                        *broken = Some(format!("u{at}: lease {no} expired, and is used still"));
                    }
                }
            }
            Note::With(_) => self.count("units changed over"),
            _ => {}
        }
    }

    /// After each event.
    pub fn check(&mut self) {
        let wrong = (0..self.units.len()).find_map(|at| {
            let wrong = self.check_unit(at).err()?;
            Some(format!("u{at}: {wrong}"))
        });
        let wrong = wrong.or_else(|| {
            let managers = 0..self.managers.len();
            managers.into_iter().find_map(|at| Some(format!("m{at}: {}", self.check_manager(at)?)))
        });
        if wrong.is_some() {
            self.broken = wrong;
        }
    }

    fn check_unit(&self, at: usize) -> Result<(), String> {
        let side = &self.units[at];
        let Some(core) = &side.core else { return Ok(()) };
        for device in core.devices() {
            excludes_itself(device)?;
            for function in &device.functions {
                let Some(info) = &function.lease else { continue };
                let (no, id) = (info.no, device.id);
                if !core.leases().any(|lease| lease.info.no == no) {
                    return Err(format!("{id} tells of lease {no}, which is none"));
                }
                let granted = &self.seen.granted[&(side.name.clone(), no)].node;
                if *granted != function.node {
                    return Err(format!("lease {no} of {granted:?} is shown at {function:?}"));
                }
            }
        }
        let all: Vec<_> = core.leases().map(|lease| (lease, self.granted(side, lease))).collect();
        for (lease, granted) in &all {
            let no = lease.info.no;
            if lease.is_carried() && !side.paths.values().any(|of| *of == no) {
                return Err(format!("nothing carries lease {no}"));
            }
            // All leases of a device go with it: what follows is another one.
            let of = |d: &&Device| (d.id, d.gen_no) == (lease.device, granted.gen_no);
            let Some(device) = core.devices().find(of) else {
                if lease.is_ending() {
                    continue;
                }
                return Err(format!("lease {no} outlives its device"));
            };
            let shown = device.functions.iter().filter_map(|f| f.lease.as_ref());
            if shown.filter(|info| info.no == no).count() != 1 {
                return Err(format!("{} does not show lease {no}", device.id));
            }
            let plugged = side.plugged_as(device.id);
            if granted.node.is_some()
                && !lease.is_ending()
                && plugged.is_some_and(|p| p.found.needs_setup && p.set_up == SetUp::No)
            {
                return Err(format!("lease {no} of a part of what is not set up"));
            }
            // Until it is cut, too.
            let excludes = |(other, of): &&(&Lease, &Granted)| {
                let same = (other.device, of.gen_no) == (lease.device, granted.gen_no);
                let both = of.node.is_some() && granted.node.is_some() && of.node != granted.node;
                same && other.info.no != no && !both
            };
            if let Some((other, _)) = all.iter().find(excludes) {
                let (node, other) = (&granted.node, other.info.no);
                return Err(format!("{node:?} of lease {no} is lease {other}'s too"));
            }
        }
        Ok(())
    }

    fn granted(&self, side: &UnitSide, lease: &Lease) -> &Granted {
        &self.seen.granted[&(side.name.clone(), lease.info.no)]
    }

    fn check_manager(&mut self, at: usize) -> Option<String> {
        let side = &self.managers[at];
        for (device, _) in side.core.as_ref()?.devices() {
            if let Err(wrong) = excludes_itself(device) {
                return Some(wrong);
            }
            let shown = self.seen.shown.entry((at, side.life, device.id)).or_default();
            if *shown > device.stamp.order() {
                return Some(format!(
                    "{} goes back from {shown:?} to {:?}",
                    device.id, device.stamp
                ));
            }
            *shown = device.stamp.order();
        }
        None
    }

    /// Some time after the last fault.
    pub fn check_calm(&mut self) {
        let mut wrong = vec![];
        self.check_units_at_rest(&mut wrong);
        self.check_queues_at_rest(&mut wrong);
        self.check_services_at_rest(&mut wrong);
        self.broken = wrong.into_iter().next();
    }

    fn check_units_at_rest(&self, wrong: &mut Vec<String>) {
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
                let young = old.is_some_and(|old| self.now < old.at + 2 * TTL);
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
    }

    /// Who waits for all of a device or for a part of it has it when it is free.
    fn check_queues_at_rest(&self, wrong: &mut Vec<String>) {
        for manager in self.managers.iter().filter_map(|side| side.core.as_ref()) {
            for (holder, id, _) in manager.queue() {
                let waits = self.services.get(holder.uid as usize).map(|service| &service.state);
                let function = match waits {
                    Some(State::Asked { part, .. }) if part.device == id => part.function,
                    _ => {
                        wrong.push(format!("{holder} is in the queue of {id}, and waits no more"));
                        continue;
                    }
                };
                if manager.device(id).is_some_and(|(device, _)| device.taken(function).is_none()) {
                    wrong.push(format!("{holder} waits for {function} of {id}, which is free"));
                }
            }
        }
        for side in &self.units {
            for device in side.core.iter().flat_map(Unit::devices) {
                let plugged = side.plugged_as(device.id);
                let is_set_up = plugged.is_some_and(|p| match p.set_up {
                    SetUp::No => false,
                    SetUp::Given(life, _) => life == side.life,
                    SetUp::Done => true,
                });
                let refused = |f: &Function| {
                    f.unavailable.as_ref().is_some_and(|why| why.contains("set up first"))
                };
                if is_set_up && device.functions.iter().any(refused) {
                    wrong.push(format!("{}: {} is set up, and refused", side.name, device.id));
                }
            }
        }
    }

    fn check_services_at_rest(&self, wrong: &mut Vec<String>) {
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
            if let State::Asked { no, part, .. } = &service.state {
                let mut queues = self.managers.iter().filter_map(|side| side.core.as_ref());
                let waits = |(of, id, _): &(&Holder, DeviceId, u64)| {
                    (of.uid as usize, *id) == (at, part.device)
                };
                if !queues.any(|manager| manager.queue().iter().any(waits)) {
                    wrong.push(format!("service {at} waits by request {no} in no queue"));
                }
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
    }
}
