// SPDX-License-Identifier: MIT OR Apache-2.0
//! Units: their programs, disks and ports, and what really carries data there.

use std::collections::BTreeMap;
use std::time::Duration;

use device_manager::record::{Found, Machine, WHOLE};
use device_manager::unit::core::{Action, Event, Kept, Options, Stored, Unit};
use device_manager::wire::Carried;

use crate::devices::{Plugged, SetUp};
use crate::world::{Due, TTL, World};

pub struct UnitSide {
    pub name: Machine,
    pub core: Option<Unit>,
    pub life: u64,
    /// What its disk says of its epoch, and said at any time.
    pub disk: u64,
    pub plugged: BTreeMap<usize, Plugged>,
    pub stored: Kept,
    /// What really carries data: by port, the lease.
    pub paths: BTreeMap<String, u64>,
    pub last_no: u64,
}

impl UnitSide {
    pub fn new(at: usize, plugged: BTreeMap<usize, Plugged>) -> Self {
        Self {
            name: format!("u{at}").parse().expect("it is good"),
            core: None,
            life: 0,
            disk: 0,
            plugged,
            stored: Kept::default(),
            paths: BTreeMap::new(),
            last_no: 0,
        }
    }

    /// What the life before left, as the program takes it up: what that carried itself went with it. On disk it is as it was until
    /// something else is written.
    fn take_up(&mut self) -> Kept {
        let mut kept = self.stored.clone();
        for lease in &mut kept.leases {
            lease.over |= lease.info.in_use && lease.function != WHOLE;
            let flows = self.paths.values().any(|no| *no == lease.info.no);
            lease.info.in_use &= !lease.over && flows;
        }
        // What was on its way to somebody, or on its way back, is given back before anything else.
        let flows = |no: u64| kept.leases.iter().any(|s| s.info.no == no && s.info.in_use);
        self.paths.retain(|_, no| flows(*no));
        kept
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
            let restored = side.take_up();
            let options = Options {
                own: side.name.clone(),
                epoch: side.disk,
                secret: std::array::from_fn(|at| (side.life >> (8 * (at % 8))) as u8 ^ step as u8),
                ttl: Duration::from_micros(TTL),
                quarantine: Duration::ZERO,
                addresses: vec![],
            };
            let leases = restored.leases.iter().filter(|s| !s.over);
            kept = leases.clone().filter(|s| s.info.in_use).cloned().collect();
            let count = leases.count() as u64;
            side.core = Some(Unit::new(options, restored, self.now, 0));
            *self.counts.entry("restored leases").or_default() += count;
            side.life
        };
        let names = self.managers.iter().map(|m| m.name.clone()).collect();
        self.look(at);
        for lease in kept.into_iter().filter(|lease| lease.expires > self.now) {
            let side = &self.units[at];
            let goes_on =
                side.core.iter().flat_map(Unit::leases).any(|l| l.info.no == lease.info.no);
            if !goes_on {
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
        let side = &mut self.units[at];
        if power {
            side.paths.clear();
            side.stored = Kept::default();
            // It was without power, or may have been.
            side.plugged.values_mut().for_each(|plugged| plugged.set_up = SetUp::No);
        }
        // The kernel carries all of a device; a part of it the program does.
        side.paths.retain(|path, _| !path.contains('/'));
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
                Action::Carry { no, conn, found, function, .. } => {
                    if self.seen.strangers.contains(&conn) {
                        self.broken = Some(format!("u{at}: a stranger has lease {no}"));
                    }
                    self.carry(at, no, &found, function);
                    let when = self.now + self.delay();
                    self.after(when, Due::Carries { unit: at, life, no });
                }
                Action::Cut(no) => {
                    // Drivers take their time.
                    let slow = self.rng.permille(300);
                    let more = if slow { self.rng.below(400_000) } else { 0 };
                    let when = self.now + self.delay() + more;
                    self.after(when, Due::Cut { unit: at, life, no });
                }
                Action::Store(stored) => {
                    let leases = stored.leases.into_iter().map(on_disk).collect();
                    self.units[at].stored = Kept { leases, ..stored };
                }
                Action::Raise(epoch) => {
                    let when = self.now + self.delay();
                    self.after(when, Due::Raised { unit: at, life, epoch });
                }
                Action::Note(note) => self.unit_noted(at, note),
            }
        }
    }

    pub fn carried(&mut self, unit: usize, life: u64, no: u64) {
        if self.units[unit].life == life {
            let path = self.units[unit].paths.iter().find(|(_, of)| **of == no);
            let is_part = path.is_some_and(|(path, _)| path.contains('/'));
            let usbip = Carried::Usbip { devid: 1, speed: 3, sealed: true };
            let carried = if is_part { Carried::Serial } else { usbip };
            self.unit(unit, Event::Carries(no, Ok(carried)));
            self.look_soon(unit);
        }
    }
}

/// A lease as the next life reads it.
fn on_disk(stored: Stored) -> Stored {
    let found = Found { busy: vec![], needs_setup: false, instance: 0, ..stored.found };
    Stored { found, ..stored }
}
