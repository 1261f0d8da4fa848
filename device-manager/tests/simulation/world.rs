// SPDX-License-Identifier: MIT OR Apache-2.0
//! The world: what is on the way, who lives, and what is plugged in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use device_manager::manager::core as manager;
use device_manager::manager::order::{Incoming, Numbered, Outgoing, Taken};
use device_manager::policy::Policy;
use device_manager::record::{Found, Machine};
use device_manager::unit::core as unit;
use device_manager::wire::{Carried, FromUnit, Peer, ToUnit};
use group::core::Replication;
use manager::Manager;
use seeds::{Failure, Figures, Rng};
use unit::{Micros, Stored, Unit};

use crate::check::Seen;
use crate::services::Service;

pub const SECOND: Micros = 1_000_000;
pub const TTL: Micros = 30 * SECOND;
/// Faults end then, and all has to come right within [`CALM`].
const STORM: Micros = 90 * SECOND;
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
    Service(usize),
    Fault,
}

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

pub struct ManagerSide {
    pub name: Machine,
    pub core: Option<Manager>,
    pub life: u64,
    pub own: bool,
    /// What it published, and to whom it is linked, by which session.
    pub list: BTreeMap<device_manager::record::DeviceId, device_manager::record::Device>,
    pub met: BTreeMap<usize, u64>,
    outgoing: BTreeMap<usize, Outgoing>,
    incoming: BTreeMap<usize, Incoming>,
}

#[derive(Debug, Clone)]
pub struct LinkSide {
    pub unit: usize,
    pub unit_life: u64,
    pub manager: usize,
    pub manager_life: u64,
    pub up: bool,
    /// Nothing arrives, and nobody is told.
    pub silent: bool,
    last: [Micros; 2],
}

pub struct World {
    pub now: Micros,
    pub rng: Rng,
    pub due: BTreeMap<(Micros, u64), Due>,
    next: u64,
    pub units: Vec<UnitSide>,
    pub managers: Vec<ManagerSide>,
    pub links: BTreeMap<u64, LinkSide>,
    pub parted: BTreeSet<(usize, usize)>,
    last: BTreeMap<(usize, usize, bool), Micros>,
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
            let name: Machine = format!("m{at}").parse().expect("it is good");
            let side = ManagerSide {
                name,
                core: None,
                life: 0,
                own,
                list: BTreeMap::new(),
                met: BTreeMap::new(),
                outgoing: BTreeMap::new(),
                incoming: BTreeMap::new(),
            };
            world.managers.push(side);
            world.start_manager(at);
        }
        for at in 0..units {
            let name: Machine = format!("u{at}").parse().expect("it is good");
            let plugged =
                (0..world.rng.between(1, 3) as usize).map(|port| (port, found(port, 0))).collect();
            let side = UnitSide {
                name,
                core: None,
                life: 0,
                disk: 0,
                plugged,
                stored: vec![],
                paths: BTreeMap::new(),
                last_no: 0,
            };
            world.units.push(side);
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
            "refusals",
            "queued and granted",
            "renewals",
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

    /// In order for each pair and kind.
    fn in_order(&mut self, pair: (usize, usize, bool)) -> Micros {
        let at = (self.now + self.delay()).max(self.last.get(&pair).copied().unwrap_or(0) + 1);
        self.last.insert(pair, at);
        at
    }

    pub fn start_manager(&mut self, at: usize) {
        let side = &mut self.managers[at];
        side.life += 1;
        let replication = if side.own { Replication::Own } else { Replication::All };
        let options = manager::Options { own: side.name.clone(), replication };
        side.core = Some(Manager::new(options, Policy::default()));
        let life = side.life;
        self.after(self.now, Due::ManagerTick(at, life));
        for other in 0..self.managers.len() {
            if other != at && self.managers[other].core.is_some() {
                let when = self.now + self.rng.between(1_000, 300_000);
                self.after(when, Due::Meet(at, other));
            }
        }
    }

    pub fn kill_manager(&mut self, at: usize) {
        self.note(|| format!("m{at} is killed"));
        self.managers[at].core = None;
        self.managers[at].list.clear();
        for other in 0..self.managers.len() {
            if self.managers[at].met.contains_key(&other) {
                let when = self.now + self.rng.between(10_000, 400_000);
                self.after(when, Due::Part(at, other));
            }
        }
        for (no, link) in self.links.clone() {
            if link.manager == at && link.up {
                self.end_link(no);
            }
        }
        for service in 0..self.services.len() {
            self.manager_gone(service, at);
        }
    }

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
            let options = unit::Options {
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
        self.unit(at, unit::Event::Inventory(all));
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
        self.unit(at, unit::Event::Managers(names));
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

    pub fn end_link(&mut self, no: u64) {
        let link = self.links.get_mut(&no).expect("it is there");
        link.up = false;
        let silent = link.silent;
        if !silent {
            for due in [Due::LinkEndAtUnit(no), Due::LinkEndAtManager(no)] {
                let at = self.now + self.delay();
                self.after(at, due);
            }
        }
    }

    pub fn reaches(&self, one: usize, two: usize) -> bool {
        !self.parted.contains(&(one.min(two), one.max(two)))
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
                if side.life == life {
                    self.path_gone(unit, no);
                    self.unit(unit, unit::Event::Cut(no));
                }
            }
            Due::Raised { unit, life, epoch } => {
                if self.units[unit].life == life {
                    self.units[unit].disk = self.units[unit].disk.max(epoch);
                    self.count("epochs raised");
                    self.unit(unit, unit::Event::Raised(epoch));
                }
            }
            Due::Service(at) => self.service(at),
            Due::Fault => {
                if self.now < STORM {
                    self.fault();
                    let next = self.now + self.rng.between(100_000, 6 * SECOND);
                    self.after(next, Due::Fault);
                }
            }
        }
    }

    fn dial(&mut self, unit: usize, life: u64, manager: usize) {
        if self.units[unit].life != life || self.units[unit].core.is_none() {
            return;
        }
        let name = self.managers[manager].name.clone();
        if self.managers[manager].core.is_none() {
            return self.unit(unit, unit::Event::NotConnected(name));
        }
        self.next += 1;
        let no = self.next;
        let link = LinkSide {
            unit,
            unit_life: life,
            manager,
            manager_life: self.managers[manager].life,
            up: true,
            silent: false,
            last: [0; 2],
        };
        self.links.insert(no, link);
        let machine = self.units[unit].name.clone();
        self.unit(unit, unit::Event::Connected(name, no));
        self.manager(manager, manager::Event::UnitCame(no, machine));
    }

    pub fn meet(&mut self, one: usize, two: usize) {
        let alive = self.managers[one].core.is_some() && self.managers[two].core.is_some();
        if !alive || !self.reaches(one, two) || self.managers[one].met.contains_key(&two) {
            return;
        }
        self.next += 1;
        let session = self.next;
        for (here, there) in [(one, two), (two, one)] {
            let side = &mut self.managers[here];
            side.met.insert(there, session);
            side.outgoing.insert(there, Outgoing::default());
            side.incoming.insert(there, Incoming::default());
        }
        for (here, there) in [(one, two), (two, one)] {
            let name = self.managers[there].name.clone();
            self.manager(here, manager::Event::PeerHere(name));
            self.after(self.now + SECOND, Due::Mark(here, there, session));
            for device in self.managers[there].list.values().cloned().collect::<Vec<_>>() {
                self.list(there, here, manager::Listed::Set(Box::new(device)));
            }
        }
    }

    fn part(&mut self, one: usize, two: usize) {
        for (here, there) in [(one, two), (two, one)] {
            if self.managers[here].met.remove(&there).is_some()
                && self.managers[here].core.is_some()
            {
                let name = self.managers[there].name.clone();
                self.manager(here, manager::Event::PeerAway(name));
            }
        }
        // If they live and reach one another they meet again.
        let when = self.now + self.rng.between(10_000, SECOND);
        self.after(when, Due::Meet(one, two));
    }

    fn send(&mut self, from: usize, to: usize, message: Numbered) {
        let Some(session) = self.managers[from].met.get(&to).copied() else { return };
        // A link that ended, and was made again.
        let lossy = self.lossy.is_some_and(|(one, two, until)| {
            self.now < until && (one.min(two), one.max(two)) == (from.min(to), from.max(to))
        });
        if lossy || (self.now < STORM && self.rng.permille(4)) {
            return self.count("messages between managers lost");
        }
        let when = self.in_order((from, to, false));
        self.after(when, Due::ToPeer { from, to, session, message: Box::new(message) });
    }

    fn received(&mut self, from: usize, to: usize, message: Numbered) {
        let peer = self.managers[from].name.clone();
        match self.managers[to].incoming.entry(from).or_default().take(message) {
            Taken::Message(message) => self.manager(to, manager::Event::Peer(peer, *message)),
            Taken::Nothing => {}
            Taken::Gap => self.send(to, from, Numbered::Again),
            Taken::Again => {
                self.managers[to].outgoing.insert(from, Outgoing::default());
                self.manager(to, manager::Event::PeerHere(peer));
            }
        }
    }

    fn list(&mut self, from: usize, to: usize, change: manager::Listed) {
        let Some(session) = self.managers[from].met.get(&to).copied() else { return };
        if !self.managers[to].own {
            let at = self.in_order((from, to, true));
            self.after(at, Due::List { from, to, session, change });
        }
    }

    pub fn unit(&mut self, at: usize, event: unit::Event) {
        let now = self.now;
        self.note(|| format!("u{at} <- {event:?}"));
        let Some(core) = &mut self.units[at].core else { return };
        let actions = core.handle(now, event);
        let life = self.units[at].life;
        for action in actions {
            self.note(|| format!("    u{at} {action:?}"));
            match action {
                unit::Action::Connect(name) => {
                    let manager =
                        self.managers.iter().position(|m| m.name == name).expect("it is there");
                    let when = self.now + self.delay();
                    self.after(when, Due::Dial { unit: at, life, manager });
                }
                unit::Action::Send(no, message) => {
                    self.over_link(no, 0, |no| Due::FromUnit(no, Box::new(message)));
                }
                unit::Action::Close(no) => self.end_link(no),
                unit::Action::Answer(conn, message) => self.answer_service(at, conn, message),
                unit::Action::Hang(conn) => self.hang(at, conn),
                unit::Action::Carry { no, conn, found, .. } => {
                    if self.seen.strangers.contains(&conn) {
                        self.broken = Some(format!("u{at}: a stranger has lease {no}"));
                    }
                    self.carry(at, no, &found);
                    let when = self.now + self.delay();
                    self.after(when, Due::Carries { unit: at, life, no });
                }
                unit::Action::Cut(no) => {
                    let when = self.now + self.delay();
                    self.after(when, Due::Cut { unit: at, life, no });
                }
                unit::Action::Store(stored) => self.units[at].stored = stored,
                unit::Action::Raise(epoch) => {
                    let when = self.now + self.delay();
                    self.after(when, Due::Raised { unit: at, life, epoch });
                }
                unit::Action::Note(note) => self.unit_noted(at, note),
            }
        }
    }

    fn over_link(&mut self, no: u64, direction: usize, due: impl FnOnce(u64) -> Due) {
        let delay = self.delay();
        let now = self.now;
        let Some(link) = self.links.get_mut(&no).filter(|link| link.up) else { return };
        link.last[direction] = (now + delay).max(link.last[direction] + 1);
        let at = link.last[direction];
        self.after(at, due(no));
    }

    pub fn manager(&mut self, at: usize, event: manager::Event) {
        let now = self.now;
        self.note(|| format!("m{at} <- {event:?}"));
        let Some(core) = &mut self.managers[at].core else { return };
        for action in core.handle(now, event) {
            self.note(|| format!("    m{at} {action:?}"));
            match action {
                manager::Action::ToUnit(no, message) => {
                    self.over_link(no, 1, |no| Due::ToUnit(no, Box::new(message)));
                }
                manager::Action::Close(no) => self.end_link(no),
                manager::Action::ToPeer(name, message) => {
                    let to =
                        self.managers.iter().position(|m| m.name == name).expect("it is there");
                    if matches!(message, Peer::Find(..)) {
                        self.count("finders forwarded");
                    }
                    let numbered =
                        self.managers[at].outgoing.entry(to).or_default().number(message);
                    self.send(at, to, numbered);
                }
                manager::Action::Publish(device) => {
                    self.managers[at].list.insert(device.id, (*device).clone());
                    for to in self.managers[at].met.keys().copied().collect::<Vec<_>>() {
                        self.list(at, to, manager::Listed::Set(device.clone()));
                    }
                }
                manager::Action::Unpublish(id) => {
                    self.managers[at].list.remove(&id);
                    for to in self.managers[at].met.keys().copied().collect::<Vec<_>>() {
                        self.list(at, to, manager::Listed::Gone(id));
                    }
                }
                manager::Action::Tell(no, report) => self.told(at, no, &report),
                manager::Action::Answer(no, answer) => self.answered(at, no, answer),
                manager::Action::Waits(no, _) => self.waits(at, no),
                manager::Action::Note(manager::Note::GaveUp(..)) => {
                    self.count("given up to a newer claim");
                }
                manager::Action::Note(manager::Note::Wrong(what)) => {
                    if what.starts_with("unit ") {
                        self.broken = Some(format!("m{at}: {what}"));
                    }
                }
                manager::Action::Note(_) => {}
            }
        }
    }

    fn carried(&mut self, unit: usize, life: u64, no: u64) {
        if self.units[unit].life == life {
            let carried = Carried::Usbip { devid: 1, speed: 3, sealed: true };
            self.unit(unit, unit::Event::Carries(no, Ok(carried)));
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
