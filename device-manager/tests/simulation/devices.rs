// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices: what is plugged into a unit's ports, the parts of it, what was set up, and what really carries data.

use std::collections::BTreeSet;

use device_manager::record::{DISK, DeviceId, Found, SERIAL, WHOLE};
use device_manager::unit::core::{Event, Lease};
use seeds::Rng;

use crate::holders::Step;
use crate::services::State;
use crate::units::UnitSide;
use crate::world::{Due, World};

/// Of each unit.
const PORTS: usize = 3;
/// Most parts of one device.
const PARTS: u64 = 4;

/// What is in a port.
pub struct Plugged {
    /// As it is found while nobody has all of it.
    pub found: Found,
    /// The nodes of parts that are away, as a medium that was taken out.
    pub away: BTreeSet<String>,
    pub set_up: SetUp,
}

/// Whether somebody had all of it since it was plugged in, and gave it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetUp {
    No,
    /// In this life of the unit, by this lease, which is being cut: a unit that is killed now may ask for it anew.
    Given(u64, u64),
    Done,
}

impl Plugged {
    /// Another one each time: `version` tells one from the next.
    pub fn new(port: usize, version: u64, rng: &mut Rng) -> Self {
        let kind = if port == 0 { DISK } else { SERIAL };
        let count = if rng.permille(300) { 0 } else { rng.between(1, PARTS) };
        let parts = (0..count).map(|at| (kind.to_owned(), format!("/dev/{port}.{at}")));
        let found = Found {
            key: format!("key {port}"),
            bus: "usb".to_owned(),
            path: format!("1-{port}"),
            types: vec![kind.to_owned()],
            vendor: "1d6b".to_owned(),
            product: "0104".to_owned(),
            manufacturer: String::new(),
            model: String::new(),
            serial: String::new(),
            descriptors: version,
            parts: parts.collect(),
            unavailable: None,
            busy: vec![],
            needs_setup: count > 0 && rng.permille(350),
            instance: version,
        };
        Self { found, away: BTreeSet::new(), set_up: SetUp::No }
    }
}

impl UnitSide {
    /// What an inventory finds: drivers make no parts of what is given away as a whole.
    fn shows(&self) -> Vec<Found> {
        let shown = self.plugged.values().map(|plugged| {
            let mut found = plugged.found.clone();
            let is_away = self.paths.contains_key(&found.path);
            found.parts.retain(|(_, node)| !is_away && !plugged.away.contains(node));
            found
        });
        shown.collect()
    }

    pub fn plugged_as(&self, id: DeviceId) -> Option<&Plugged> {
        self.plugged.values().find(|plugged| DeviceId::new(&self.name, &plugged.found.key) == id)
    }
}

impl World {
    pub fn look(&mut self, unit: usize) {
        let all = self.units[unit].shows();
        self.unit(unit, Event::Inventory(all));
    }

    /// The kernel's drivers come back to a device, or leave it, and the unit hears of it.
    pub fn look_soon(&mut self, unit: usize) {
        let when = self.now + self.rng.between(1_000, 300_000);
        self.after(when, Due::Look(unit));
    }

    /// Something is done to a port.
    pub fn replug(&mut self, unit: usize) {
        let port = self.rng.index(PORTS);
        let old = self.units[unit].plugged.remove(&port);
        if let Some(old) = &old {
            self.count("unplugged");
            let of = |path: &str| path.split('/').next() == Some(&old.found.path);
            self.units[unit].paths.retain(|path, _| !of(path));
        }
        match old {
            // The same one, and perhaps the unit did not look meanwhile.
            Some(old) if self.rng.permille(300) => {
                if self.rng.permille(500) {
                    self.look(unit);
                }
                self.count("plugged in again");
                let other = self.rng.index(PORTS);
                let taken = self.units[unit].plugged.contains_key(&other);
                let port = if taken { port } else { other };
                self.seen.versions += 1;
                let instance = self.seen.versions;
                let found = Found { path: format!("1-{port}"), instance, ..old.found };
                let again = Plugged { found, away: BTreeSet::new(), set_up: SetUp::No };
                self.units[unit].plugged.insert(port, again);
            }
            _ if self.rng.permille(600) => {
                self.count("swapped");
                self.seen.versions += 1;
                let mut new = Plugged::new(port, self.seen.versions, &mut self.rng);
                // The one that was here before may be in another port now.
                while self.units[unit].plugged.values().any(|p| p.found.key == new.found.key) {
                    new.found.key.push_str(" too");
                }
                self.units[unit].plugged.insert(port, new);
            }
            _ => {}
        }
        self.look(unit);
    }

    /// A part comes or goes.
    pub fn change_parts(&mut self, unit: usize) {
        let mut all: Vec<_> = self.units[unit].plugged.values_mut().collect();
        all.retain(|plugged| !plugged.found.parts.is_empty());
        if all.is_empty() {
            return;
        }
        let at = self.rng.index(all.len());
        let plugged = &mut all[at];
        let node = self.rng.pick(&plugged.found.parts).1.clone();
        if !plugged.away.remove(&node) {
            plugged.away.insert(node);
        }
        self.count("parts came or went");
        self.look(unit);
    }

    /// Whoever has all of a device gives it back.
    pub fn given_back(&mut self, unit: usize, conn: u64) {
        let held = self.services.iter().find_map(|service| match &service.state {
            State::Has(held) if (held.unit, held.conn, held.linked) == (unit, conn, true) => {
                Some(held)
            }
            _ => None,
        });
        let Some(grant) = held.map(|held| &held.grant).filter(|g| g.function == WHOLE) else {
            return;
        };
        let (no, id) = (grant.no, grant.device.id);
        let side = &mut self.units[unit];
        let flows = |l: &Lease| l.info.no == no && l.info.in_use && !l.is_ending();
        let flows = side.core.iter().any(|core| core.leases().any(flows));
        let life = side.life;
        let of = |p: &&mut Plugged| DeviceId::new(&side.name, &p.found.key) == id;
        let Some(plugged) = side.plugged.values_mut().find(of).filter(|_| flows) else { return };
        plugged.set_up = SetUp::Given(life, no);
        if plugged.found.needs_setup {
            self.count("set-ups");
        }
    }

    /// The real thing: what is given to two must never be.
    pub fn carry(&mut self, unit: usize, no: u64, found: &Found, function: u8) {
        let node = (function != WHOLE).then(|| found.parts[usize::from(function) - 1].1.as_str());
        let path = format!("{}{}", found.path, node.unwrap_or(""));
        let side = &self.units[unit];
        let excludes = |other: &str| {
            let is_part = other.len() > found.path.len();
            other == path || (other.starts_with(&found.path) && (node.is_none() || !is_part))
        };
        let other = side.paths.iter().find(|(other, _)| excludes(other));
        if let Some((other, old)) = other {
            self.broken = Some(format!(
                "u{unit}: lease {no} is carried on {path}, and lease {old} on {other}"
            ));
        }
        self.units[unit].paths.insert(path, no);
        self.of_lease(unit, no, Step::Carried);
    }
}
