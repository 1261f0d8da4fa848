// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices as they come, change and go, their parts, and which of them are set up.

use std::collections::BTreeMap;

use super::links::Link;
use super::{Action, Micros, Note, Stored, Unit};
use crate::record::{
    Device, DeviceId, Found, Function, Holder, MAX_DEVICES, MAX_FUNCTIONS, Stamp, WHOLE,
};
use crate::wire::FromUnit;

/// Why a part of a device is not to be had that needs to be set up.
const NO_SETUP: &str = "it is to be set up first: attach all of it, set it up, and give it back";

/// Why one is not to be had that was there before.
const GONE: &str = "it is gone";
/// Most parts of one device.
const MAX_PARTS: usize = MAX_FUNCTIONS - 1;

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub device: Device,
    /// As the last inventory had it.
    pub seen: Found,
    /// Whose it stays for a while.
    pub reserved: Option<(Holder, Micros)>,
    /// Somebody had all of it since it was plugged in, and gave it back.
    pub is_set_up: bool,
    /// Its parts since it was plugged in, in the order in which they came: who asks for one names it by its place,
    /// perhaps before another one goes.
    pub places: Vec<(String, String)>,
}

impl Unit {
    pub(super) fn inventory(&mut self, now: Micros, all: Vec<Found>) {
        let mut seen = BTreeMap::new();
        for found in all.into_iter().take(MAX_DEVICES) {
            seen.insert(DeviceId::new(&self.options.own, &found.key), found);
        }
        // Another one under the same name is another device.
        let same = |entry: &Entry, found: &Found| {
            let old = &entry.device.found;
            (old.descriptors, &old.path, old.instance)
                == (found.descriptors, &found.path, found.instance)
        };
        let gone = self
            .devices
            .iter()
            .filter(|(id, entry)| !seen.get(id).is_some_and(|found| same(entry, found)));
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.unplugged(now, id);
        }
        for (id, found) in seen {
            if self.devices.contains_key(&id) {
                self.changed(now, id, found);
            } else {
                self.plugged(now, id, found);
            }
        }
        for lost in std::mem::take(&mut self.restored).leases {
            // Its device is not there any more: what carried it is to go.
            self.out.push(Action::Cut(lost.info.no));
        }
    }

    /// Something of a device is different, or nothing.
    fn changed(&mut self, now: Micros, id: DeviceId, found: Found) {
        let Some(entry) = self.devices.get(&id) else { return };
        let count = entry.places.len();
        let is_new = |part: &&(String, String)| !entry.places.contains(part);
        let new = found.parts.iter().take(MAX_PARTS).filter(is_new).count();
        let is_free = entry.device.functions.iter().all(|f| f.lease.is_none());
        // As when drivers have it again after all of it was leased: they may give other nodes.
        let are_others =
            count > 0 && new > 0 && !entry.places.iter().any(|part| found.parts.contains(part));
        // Nobody is to get what has the place now of what he asked for.
        let anew = (is_free && (are_others || count + new > MAX_PARTS)).then(|| self.number());
        let Some(entry) = self.devices.get_mut(&id) else { return };
        if let Some(gen_no) = anew {
            entry.device.gen_no = gen_no;
            entry.places.clear();
        }
        entry.seen = found;
        let before = entry.device.found.clone();
        entry.refresh();
        if entry.device.found == before {
            return;
        }
        if entry.places.len() > count {
            self.store();
        }
        self.tell(now, id);
    }

    fn plugged(&mut self, now: Micros, id: DeviceId, found: Found) {
        // Of a life before. It may have been plugged in again while nobody looked.
        let matches = |stored: &Stored| {
            let old = (&stored.found.key, stored.found.descriptors, stored.instance);
            old == (&found.key, found.descriptors, found.instance)
                && (stored.function == WHOLE || stored.part().is_some())
        };
        let restored = &mut self.restored;
        let is_set_up = restored.set_up.get(&id) == Some(&found.instance);
        let (ours, others) = std::mem::take(&mut restored.leases).into_iter().partition(matches);
        restored.leases = others;
        let ours: Vec<Stored> = ours;
        let gen_no = ours.first().map_or_else(|| self.number(), |stored| stored.gen_no);
        let stamp = Stamp { epoch: self.epoch, seq: self.seq, at: 0 };
        let unit = self.options.own.clone();
        let mut functions = vec![Function::new("whole", None)];
        for stored in &ours {
            let lease = Some(stored.info.clone());
            match stored.part() {
                None => functions[usize::from(WHOLE)].lease = lease,
                Some((kind, node)) => {
                    functions.push(Function { lease, ..Function::new(kind, Some(node.clone())) });
                }
            }
        }
        let places = ours.iter().map(|stored| &stored.places).max_by_key(|places| places.len());
        let places = places.cloned().unwrap_or_default();
        let device = Device { id, unit, gen_no, functions, found: found.clone(), stamp };
        let mut entry = Entry { device, seen: found, reserved: None, is_set_up, places };
        entry.refresh();
        self.devices.insert(id, entry);
        for stored in ours {
            self.restore(now, id, stored);
        }
        self.out.push(Action::Note(Note::Plugged(id)));
        self.tell(now, id);
    }

    /// Its parts may be used by themselves from here on, unless it was plugged in again meanwhile.
    pub(super) fn set_up(&mut self, id: DeviceId, gen_no: u64) {
        let of = |entry: &&mut Entry| entry.device.gen_no == gen_no;
        let Some(entry) = self.devices.get_mut(&id).filter(of) else { return };
        entry.is_set_up = true;
        self.store();
    }

    fn unplugged(&mut self, now: Micros, id: DeviceId) {
        self.devices.remove(&id);
        let stamp = self.stamp(now);
        let held = self.leases.iter().filter(|(_, lease)| lease.device == id);
        for no in held.map(|(no, _)| *no).collect::<Vec<_>>() {
            self.end(now, no, "the device was unplugged");
        }
        if let Link::Serving { conn, .. } = self.link {
            self.out.push(Action::Send(conn, FromUnit::Gone(id, stamp)));
        }
        self.out.push(Action::Note(Note::Unplugged(id)));
    }
}

impl Stored {
    /// The part that is leased, by type and node; none for all of it.
    fn part(&self) -> Option<&(String, String)> {
        self.places.get(usize::from(self.function).checked_sub(1)?)
    }
}

impl Entry {
    /// Has the device say what it is, as it was seen last and is leased now.
    pub fn refresh(&mut self) {
        let found = self.place(self.seen.clone());
        self.device.update(found, self.is_set_up);
    }

    /// Puts parts where they were before. One that is gone keeps its place before others, and while it is leased; none is said to be
    /// gone while all of the device is leased, and has no drivers: who wants it can wait.
    fn place(&mut self, mut found: Found) -> Found {
        for part in &found.parts {
            if !self.places.contains(part) && self.places.len() < MAX_PARTS {
                self.places.push(part.clone());
            }
        }
        let leased: Vec<_> = self.device.functions.iter().filter(|f| f.lease.is_some()).collect();
        let is_leased = |node: &String| leased.iter().any(|f| f.node.as_ref() == Some(node));
        let is_there = |part: &(String, String)| found.parts.contains(part);
        let last = self.places.iter().rposition(|part| is_there(part) || is_leased(&part.1));
        let all = self.device.is_leased_whole();
        let count = if all { self.places.len() } else { last.map_or(0, |last| last + 1) };
        let parts = self.places[..count].to_vec();
        let gone = parts.iter().filter(|part| !all && !is_there(part));
        let gone: Vec<_> = gone.map(|(_, node)| (node.clone(), GONE.to_owned())).collect();
        found.busy.extend(gone);
        Found { parts, ..found }
    }
}

impl Device {
    /// Takes over what is found of it, and leaves leases as they are.
    fn update(&mut self, found: Found, is_set_up: bool) {
        let is_leased_whole = self.is_leased_whole();
        let whole = self.functions.swap_remove(0);
        let mut functions = vec![Function { unavailable: found.unavailable.clone(), ..whole }];
        for (kind, node) in &found.parts {
            let of = |f: &&Function| f.node.as_ref() == Some(node);
            let lease = self.functions.iter().find(of).and_then(|f| f.lease.clone());
            let busy = found.busy.iter().find(|(of, _)| of == node);
            // Who has all of it now may be about to set it up.
            let is_ready = is_set_up || is_leased_whole;
            let setup = (found.needs_setup && !is_ready).then(|| NO_SETUP.to_owned());
            let unavailable = busy.map(|(_, why)| why.clone()).or(setup);
            let function = Function::new(kind, Some(node.clone()));
            functions.push(Function { lease, unavailable, ..function });
        }
        (self.functions, self.found) = (functions, found);
    }
}
