// SPDX-License-Identifier: MIT OR Apache-2.0
//! The world: what is on the way, who lives, and what is plugged in.

use std::collections::{BTreeMap, BTreeSet};

use device_manager::manager::core::{self as manager, Manager};
use device_manager::manager::order::Numbered;
use device_manager::unit::core::{self as unit, Micros, Unit};
use device_manager::wire::{FromUnit, ToUnit};
use seeds::{Failure, Figures, Rng};

use crate::check::Seen;
use crate::devices::{Plugged, SetUp};
use crate::holders::Step;
use crate::links::LinkSide;
use crate::managers::ManagerSide;
use crate::services::Service;
use crate::units::UnitSide;

pub const SECOND: Micros = 1_000_000;
pub const TTL: Micros = 30 * SECOND;
/// Faults end then, and all has to come right within [`CALM`].
pub const STORM: Micros = 90 * SECOND;
const CALM: Micros = 60 * SECOND;
/// More than ever happens in a world: ten thousand are usual.
const MANY: u64 = 200_000;
/// Services do nothing any more.
pub const QUIET: Micros = STORM + CALM - 5 * SECOND;

/// What is on its way or due.
#[derive(Debug, Clone)]
pub enum Due {
    UnitTick(usize, u64),
    ManagerTick(usize, u64),
    /// A unit's connection attempt arrives, of that life of the unit's.
    Dial {
        unit: usize,
        life: u64,
        manager: usize,
    },
    ToUnit(u64, Box<ToUnit>),
    FromUnit(u64, Box<FromUnit>),
    /// An end learns that a link is over.
    LinkEndAtUnit(u64),
    LinkEndAtManager(u64),
    ToPeer {
        from: usize,
        to: usize,
        session: u64,
        message: Box<Numbered>,
    },
    /// Nothing new is told, and that is.
    Mark(usize, usize, u64),
    List {
        from: usize,
        to: usize,
        session: u64,
        change: manager::Listed,
    },
    /// Two managers notice one another, or that they do not reach one another.
    Meet(usize, usize),
    Part(usize, usize),
    Carries {
        unit: usize,
        life: u64,
        no: u64,
    },
    Cut {
        unit: usize,
        life: u64,
        no: u64,
    },
    Raised {
        unit: usize,
        life: u64,
        epoch: u64,
    },
    /// A unit takes its inventory.
    Look(usize),
    Service(usize),
    /// Of a service's lease, by its number.
    Holder(usize, u64, Step),
    Fault,
}

pub struct World {
    pub now: Micros,
    pub rng: Rng,
    pub due: BTreeMap<(Micros, u64), Due>,
    pub next: u64,
    pub units: Vec<UnitSide>,
    pub managers: Vec<ManagerSide>,
    pub links: BTreeMap<u64, LinkSide>,
    pub parted: BTreeSet<(usize, usize)>,
    pub last: BTreeMap<(usize, usize, bool), Micros>,
    pub services: Vec<Service>,
    pub seen: Seen,
    pub counts: Figures,
    pub log: Option<Vec<String>>,
    pub set_back: bool,
    /// Nobody wants anything: what is not told again once is not told at all.
    pub lazy: bool,
    /// A pair of managers between which nothing arrives until then, without a word.
    pub lossy: Option<(usize, usize, Micros)>,
    pub broken: Option<String>,
}

impl World {
    pub fn run(seed: u64, logging: bool) -> Result<Figures, Failure> {
        let mut world = Self::new(seed, logging);
        let (mut checked, mut happened) = (false, 0);
        while world.now < STORM + CALM && world.broken.is_none() {
            let Some(((at, _), due)) = world.due.pop_first() else { break };
            if at > STORM && !checked {
                checked = true;
                world.heal();
            }
            world.now = at;
            happened += 1;
            if happened > MANY {
                world.broken = Some("they do not come to rest".to_owned());
            }
            world.happen(due);
            world.check();
        }
        if world.broken.is_none() {
            world.check_calm();
        }
        match world.broken.take() {
            None => Ok(world.counts),
            Some(what) => Err(Failure { what, log: world.log.unwrap_or_default() }),
        }
    }

    fn new(seed: u64, logging: bool) -> Self {
        let mut rng = Rng::new(seed);
        let managers = rng.between(2, 4) as usize;
        let units = rng.between(1, 3) as usize;
        let mut world = Self {
            now: 1,
            due: BTreeMap::new(),
            next: 0,
            units: vec![],
            managers: vec![],
            links: BTreeMap::new(),
            parted: BTreeSet::new(),
            last: BTreeMap::new(),
            services: vec![],
            seen: Seen::default(),
            counts: Figures::new(),
            log: logging.then(Vec::new),
            // Then no manager forgets what it knows.
            set_back: rng.permille(300),
            lazy: rng.permille(250),
            lossy: None,
            broken: None,
            rng,
        };
        for at in 0..managers {
            let own = world.rng.permille(300);
            world.managers.push(ManagerSide::new(at, own));
            world.start_manager(at);
        }
        for at in 0..units {
            let ports = world.rng.between(1, 3) as usize;
            let plugged = (0..ports).map(|port| (port, Plugged::new(port, 0, &mut world.rng)));
            let plugged = plugged.collect();
            world.units.push(UnitSide::new(at, plugged));
            world.start_unit(at);
        }
        for at in 0..world.rng.between(2, 6) as usize {
            let service = Service::new(at, world.rng.index(managers), &mut world.rng);
            world.services.push(service);
            world.after(world.now + 1, Due::Service(at));
        }
        let first = world.rng.between(SECOND, 5 * SECOND);
        world.after(first, Due::Fault);
        for what in [
            "grants",
            "grants of parts",
            "parts of a device at once",
            "refusals",
            "refused for a part",
            "refused for the whole",
            "refused before set-up",
            "set-ups",
            "queued and granted",
            "queued for a part and granted",
            "renewals",
            "come again",
            "given back",
            "expired at services",
            "links of holders silent",
            "networks of holders away",
            "manager killed",
            "unit killed",
            "machine restarted",
            "disk set back",
            "epochs raised",
            "links cut",
            "links silent",
            "managers parted",
            "unplugged",
            "swapped",
            "plugged in again",
            "parts came or went",
            "paths lost",
            "services vanished",
            "strangers",
            "links of holders cut",
            "links between managers lost",
            "messages between managers lost",
            "units changed over",
            "finders forwarded",
            "restored leases",
            "given up to a newer claim",
        ] {
            world.counts.insert(what, 0);
        }
        world
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(log) = &mut self.log {
            log.push(format!("{:>10.4} {}", now as f64 / 1e6, text()));
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn after(&mut self, at: Micros, due: Due) {
        self.next += 1;
        self.due.insert((at.max(self.now), self.next), due);
    }

    pub fn delay(&mut self) -> Micros {
        let long = self.rng.permille(30);
        self.rng.between(100, if long { 400_000 } else { 5_000 })
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::UnitTick(at, life) => {
                if self.units[at].life == life && self.units[at].core.is_some() {
                    self.unit(at, unit::Event::Tick);
                    let next = self.units[at].core.as_ref().map_or(0, Unit::next);
                    let next = next.clamp(self.now + 1_000, self.now + SECOND);
                    self.after(next, Due::UnitTick(at, life));
                }
            }
            Due::ManagerTick(at, life) => {
                if self.managers[at].life == life && self.managers[at].core.is_some() {
                    self.manager(at, manager::Event::Tick);
                    let next = self.managers[at].core.as_ref().map_or(0, Manager::next);
                    let next = next.clamp(self.now + 1_000, self.now + SECOND);
                    self.after(next, Due::ManagerTick(at, life));
                }
            }
            Due::Dial { unit, life, manager } => self.dial(unit, life, manager),
            Due::ToUnit(no, message) => {
                let link = self.links[&no].clone();
                if !link.silent && self.units[link.unit].life == link.unit_life {
                    self.unit(link.unit, unit::Event::Said(no, *message));
                }
            }
            Due::FromUnit(no, message) => {
                let link = self.links[&no].clone();
                if !link.silent && self.managers[link.manager].life == link.manager_life {
                    self.manager(link.manager, manager::Event::Unit(no, *message));
                }
            }
            Due::LinkEndAtUnit(no) => {
                let link = self.links[&no].clone();
                if self.units[link.unit].life == link.unit_life {
                    self.unit(link.unit, unit::Event::LinkEnded(no));
                }
            }
            Due::LinkEndAtManager(no) => {
                let link = self.links[&no].clone();
                if self.managers[link.manager].life == link.manager_life {
                    self.manager(link.manager, manager::Event::UnitLeft(no));
                }
            }
            Due::ToPeer { from, to, session, message } => {
                if self.managers[to].met.get(&from) == Some(&session) {
                    self.received(from, to, *message);
                }
            }
            Due::Mark(from, to, session) => {
                if self.managers[from].met.get(&to) == Some(&session) {
                    let mark = self.managers[from].outgoing.entry(to).or_default().mark();
                    if let Some(mark) = mark {
                        self.send(from, to, mark);
                    }
                    self.after(self.now + SECOND, Due::Mark(from, to, session));
                }
            }
            Due::List { from, to, session, change } => {
                if self.managers[to].met.get(&from) == Some(&session) {
                    let from = self.managers[from].name.clone();
                    self.manager(to, manager::Event::List(from, vec![change]));
                }
            }
            Due::Meet(one, two) => self.meet(one, two),
            Due::Part(one, two) => self.part(one, two),
            Due::Carries { unit, life, no } => self.carried(unit, life, no),
            Due::Cut { unit, life, no } => {
                let side = &mut self.units[unit];
                side.paths.retain(|_, lease| *lease != no);
                let is_now = side.life == life && side.core.is_some();
                self.path_gone(unit, no);
                if is_now {
                    for plugged in self.units[unit].plugged.values_mut() {
                        if plugged.set_up == SetUp::Given(life, no) {
                            plugged.set_up = SetUp::Done;
                        }
                    }
                    self.unit(unit, unit::Event::Cut(no));
                }
                self.look_soon(unit);
            }
            Due::Raised { unit, life, epoch } => {
                if self.units[unit].life == life {
                    self.units[unit].disk = self.units[unit].disk.max(epoch);
                    self.count("epochs raised");
                    self.unit(unit, unit::Event::Raised(epoch));
                }
            }
            Due::Look(unit) => self.look(unit),
            Due::Service(at) => self.service(at),
            Due::Holder(at, no, step) => self.step(at, no, step),
            Due::Fault => {
                if self.now < STORM {
                    self.fault();
                    let next = self.now + self.rng.between(100_000, 6 * SECOND);
                    self.after(next, Due::Fault);
                }
            }
        }
    }
}
