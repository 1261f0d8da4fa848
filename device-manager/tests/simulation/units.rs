// SPDX-License-Identifier: MIT OR Apache-2.0
//! Units: their programs, disks and ports, and what really carries data there.

use std::collections::BTreeMap;
use std::time::Duration;

use device_manager::record::{Found, Machine};
use device_manager::unit::core::{Action, Event, Options, Stored, Unit};
use device_manager::wire::Carried;

use crate::world::{Due, TTL, World};

pub struct UnitSide {
    pub name: Machine,
    pub core: Option<Unit>,
    pub life: u64,
    /// What its disk says of its epoch, and said at any time.
    pub disk: u64,
    pub plugged: BTreeMap<usize, Found>,
    pub stored: Vec<Stored>,
    /// What really carries data: by port, the lease.
    pub paths: BTreeMap<String, u64>,
    pub last_no: u64,
}

impl UnitSide {
    pub fn new(at: usize, plugged: BTreeMap<usize, Found>) -> Self {
        Self {
            name: format!("u{at}").parse().expect("it is good"),
            core: None,
            life: 0,
            disk: 0,
            plugged,
            stored: vec![],
            paths: BTreeMap::new(),
            last_no: 0,
        }
    }
}

impl World {
    pub fn start_unit(&mut self, at: usize) {
        let kept: Vec<Stored>;
        let step = self.rng.between(1, 256);
        let life = {
            let side = &mut self.units[at];
            side.life += 1;
            side.disk += step;
            // What was over has its device given back before anything else.
            for over in side.stored.iter().filter(|stored| stored.over) {
                side.paths.retain(|_, no| *no != over.info.no);
            }
            side.stored.retain(|stored| !stored.over);
            // What is stored and not carried any more is not there any more.
            let paths = side.paths.clone();
            side.stored.retain(|stored| {
                !stored.info.in_use || paths.values().any(|no| *no == stored.info.no)
            });
            // A life that was killed while it handed a connection over: that is given back before anything else.
            let stored = side.stored.clone();
            side.paths.retain(|_, no| stored.iter().any(|s| s.info.no == *no && s.info.in_use));
            let options = Options {
                own: side.name.clone(),
                epoch: side.disk,
                secret: std::array::from_fn(|at| (side.life >> (8 * (at % 8))) as u8 ^ step as u8),
                ttl: Duration::from_micros(TTL),
                quarantine: Duration::ZERO,
                addresses: vec![],
            };
            let restored = std::mem::take(&mut side.stored);
            kept = restored.iter().filter(|s| s.info.in_use).cloned().collect();
            let count = restored.len() as u64;
            side.core = Some(Unit::new(options, restored, self.now, 0));
            *self.counts.entry("restored leases").or_default() += count;
            side.life
        };
        let all = self.units[at].plugged.values().cloned().collect();
        let names = self.managers.iter().map(|m| m.name.clone()).collect();
        self.unit(at, Event::Inventory(all));
        for lease in kept.into_iter().filter(|lease| lease.expires > self.now) {
            let side = &self.units[at];
            let there = side.plugged.values().any(|found| *found == lease.found);
            let goes_on =
                side.core.iter().flat_map(Unit::leases).any(|l| l.info.no == lease.info.no);
            if there && !goes_on {
                self.broken =
                    Some(format!("u{at}: lease {} is forgotten, and data flow", lease.info.no));
            }
        }
        self.unit(at, Event::Managers(names));
        self.after(self.now, Due::UnitTick(at, life));
    }

    /// Kills a unit's program; with its machine if `power`.
    pub fn kill_unit(&mut self, at: usize, power: bool) {
        self.note(|| format!("u{at} is killed, power {power}"));
        self.units[at].core = None;
        for (no, link) in self.links.clone() {
            if link.unit == at && link.up {
                if power {
                    self.links.get_mut(&no).expect("it is there").silent = true;
                } else {
                    self.end_link(no);
                }
            }
        }
        if power {
            self.units[at].paths.clear();
            self.units[at].stored.clear();
        }
        self.unit_gone(at);
    }

    pub fn unit(&mut self, at: usize, event: Event) {
        let now = self.now;
        self.note(|| format!("u{at} <- {event:?}"));
        let Some(core) = &mut self.units[at].core else { return };
        let actions = core.handle(now, event);
        let life = self.units[at].life;
        for action in actions {
            self.note(|| format!("    u{at} {action:?}"));
            match action {
                Action::Connect(name) => {
                    let manager =
                        self.managers.iter().position(|m| m.name == name).expect("it is there");
                    let when = self.now + self.delay();
                    self.after(when, Due::Dial { unit: at, life, manager });
                }
                Action::Send(no, message) => {
                    self.over_link(no, 0, |no| Due::FromUnit(no, Box::new(message)));
                }
                Action::Close(no) => self.end_link(no),
                Action::Answer(conn, message) => self.answer_service(at, conn, message),
                Action::Hang(conn) => self.hang(at, conn),
                Action::Carry { no, conn, found, .. } => {
                    if self.seen.strangers.contains(&conn) {
                        self.broken = Some(format!("u{at}: a stranger has lease {no}"));
                    }
                    self.carry(at, no, &found);
                    let when = self.now + self.delay();
                    self.after(when, Due::Carries { unit: at, life, no });
                }
                Action::Cut(no) => {
                    let when = self.now + self.delay();
                    self.after(when, Due::Cut { unit: at, life, no });
                }
                Action::Store(stored) => self.units[at].stored = stored,
                Action::Raise(epoch) => {
                    let when = self.now + self.delay();
                    self.after(when, Due::Raised { unit: at, life, epoch });
                }
                Action::Note(note) => self.unit_noted(at, note),
            }
        }
    }

    /// The real thing: two paths to a device must never be.
    fn carry(&mut self, unit: usize, no: u64, found: &Found) {
        if let Some(old) = self.units[unit].paths.insert(found.path.clone(), no) {
            self.broken = Some(format!(
                "u{unit}: lease {no} is carried on {}, which lease {old} has",
                found.path
            ));
        }
    }

    pub fn carried(&mut self, unit: usize, life: u64, no: u64) {
        if self.units[unit].life == life {
            let carried = Carried::Usbip { devid: 1, speed: 3, sealed: true };
            self.unit(unit, Event::Carries(no, Ok(carried)));
        }
    }
}

/// What is plugged into a port: `version` tells one from the next.
pub fn found(port: usize, version: u64) -> Found {
    Found {
        key: format!("key {port}"),
        bus: "usb".to_owned(),
        path: format!("1-{port}"),
        types: vec![if port == 0 { "disk" } else { "serial" }.to_owned()],
        vendor: "1d6b".to_owned(),
        product: "0104".to_owned(),
        manufacturer: String::new(),
        model: String::new(),
        serial: String::new(),
        descriptors: version,
        parts: vec![],
        unavailable: None,
        busy: vec![],
        needs_setup: false,
    }
}
