// SPDX-License-Identifier: MIT OR Apache-2.0
//! Services: each has a finder at its manager, wants devices now and then, holds them, gives them back, or vanishes.

use std::collections::BTreeMap;

use device_manager::manager::core::{Ask, Event, Report, Scope};
use device_manager::record::{Device, DeviceId, Holder, WHOLE};
use device_manager::service::core as service;
use device_manager::unit::core::{self as unit, Micros, Unit};
use device_manager::wire::{FromHolder, Grant, Refusal, RequestNo, Token};
use seeds::Rng;

use crate::holders::Held;
use crate::world::{Due, QUIET, SECOND, World};

pub struct Service {
    pub manager: usize,
    /// Of the manager's life that it is with.
    pub life: u64,
    pub finder: u64,
    pub told: BTreeMap<DeviceId, Device>,
    pub state: State,
    pub next_at: Micros,
    queues: bool,
}

#[derive(Debug, Clone)]
pub enum State {
    Idle,
    Asked { no: RequestNo, waited: bool, gen_no: u64, part: Part },
    Has(Box<Held>),
}

/// What is asked for: all of a device, or a part of it by its node.
#[derive(Debug, Clone)]
pub struct Part {
    pub device: DeviceId,
    pub function: u8,
    pub node: Option<String>,
}

impl Service {
    pub fn new(_: usize, manager: usize, rng: &mut Rng) -> Self {
        let queues = rng.permille(600);
        Self {
            manager,
            life: 0,
            finder: 0,
            told: BTreeMap::new(),
            state: State::Idle,
            next_at: 0,
            queues,
        }
    }
}

impl World {
    /// A service's turn.
    pub fn service(&mut self, at: usize) {
        // At the very end nothing changes, so that all can be compared.
        if self.now > QUIET {
            return;
        }
        // Whatever becomes of its manager.
        self.hold(at);
        let next = self.now + self.rng.between(50_000, 800_000);
        let due = match &self.services[at].state {
            State::Has(held) => held.core.next(),
            _ => Micros::MAX,
        };
        self.after(next.min(due), Due::Service(at));
        let (manager, life) = (self.services[at].manager, self.services[at].life);
        if self.managers[manager].core.is_none() {
            return;
        }
        if self.managers[manager].life != life {
            let life = self.managers[manager].life;
            let number = self.number();
            let service = &mut self.services[at];
            (service.life, service.finder) = (life, number);
            service.told.clear();
            let pattern = if self.rng.permille(500) { "type=disk" } else { "" };
            self.manager(
                manager,
                Event::Find(number, pattern.parse().expect("it is good"), Scope::Group),
            );
        }
        match self.services[at].state.clone() {
            State::Idle => self.want(at),
            State::Asked { no, .. } => {
                if self.now > self.services[at].next_at {
                    self.manager(manager, Event::Cancel(no));
                    self.services[at].state = State::Idle;
                }
            }
            State::Has(_) => {}
        }
    }

    pub fn number(&mut self) -> u64 {
        self.seen.numbers += 1;
        self.seen.numbers
    }

    fn want(&mut self, at: usize) {
        let told: Vec<DeviceId> = self.services[at].told.keys().copied().collect();
        if told.is_empty() || self.lazy || !self.rng.permille(500) {
            return;
        }
        // One of them is wanted more than the others.
        let favourite = self.rng.permille(600);
        let device = if favourite { told[0] } else { *self.rng.pick(&told) };
        let (no, now) = (self.number(), self.now);
        let known = &self.services[at].told[&device];
        let (gen_no, count) = (known.gen_no, known.functions.len());
        let whole = count == 1 || self.rng.permille(350);
        let place = if whole { 0 } else { 1 + self.rng.index(count - 1) };
        let node = known.functions[place].node.clone();
        let function = u8::try_from(place).expect("they are few");
        let service = &mut self.services[at];
        let manager = service.manager;
        let part = Part { device, function, node };
        service.state = State::Asked { no, waited: false, gen_no, part };
        // Some wait for as long as it takes.
        let patience = if service.queues && no % 3 == 0 { QUIET } else { 40 * SECOND };
        service.next_at = now + patience;
        let holder =
            Holder { machine: self.managers[manager].name.clone(), uid: at as u32, groups: vec![] };
        let queue = service.queues;
        let ask = Ask { device, function, holder, queue, limit_s: None, since_ms: now / 1000 };
        self.manager(manager, Event::Ask(no, ask));
    }

    pub fn came(
        &mut self,
        unit: usize,
        conn: u64,
        name: &device_manager::record::Machine,
        said: FromHolder,
    ) {
        if said == FromHolder::Release {
            self.given_back(unit, conn);
        }
        self.unit(unit, unit::Event::Came(conn, name.clone(), said));
    }

    pub fn told(&mut self, manager: usize, finder: u64, report: &Report) {
        let service = self.services.iter_mut().find(|s| s.manager == manager && s.finder == finder);
        let Some(service) = service else { return };
        let wrong = match report {
            Report::Match(device, _) => {
                service.told.insert(device.id, (**device).clone()).map(|_| "a match twice")
            }
            Report::Changed(device, _) => {
                match service.told.insert(device.id, (**device).clone()) {
                    None => Some("a change of what did not match"),
                    Some(old) if old.stamp.order() >= device.stamp.order() => {
                        Some("an older record after a newer")
                    }
                    Some(old) if old.gen_no != device.gen_no => Some("another device as a change"),
                    Some(_) => None,
                }
            }
            Report::Gone(id) => {
                service.told.remove(id).is_none().then_some("the end of what did not match")
            }
        };
        if let Some(wrong) = wrong {
            self.broken = Some(format!("a finder of m{manager} is told {wrong}: {report:?}"));
        }
    }

    pub fn waits(&mut self, manager: usize, no: RequestNo) {
        for service in self.services.iter_mut().filter(|s| s.manager == manager) {
            if let State::Asked { no: asked, waited, .. } = &mut service.state
                && *asked == no
            {
                *waited = true;
            }
        }
    }

    pub fn answered(&mut self, manager: usize, no: RequestNo, answer: Result<Box<Grant>, Refusal>) {
        let is = |s: &Service| {
            s.manager == manager && matches!(s.state, State::Asked { no: asked, .. } if asked == no)
        };
        let Some(at) = self.services.iter().position(is) else { return };
        let State::Asked { waited, gen_no, part, .. } = self.services[at].state.clone() else {
            return;
        };
        match answer {
            Ok(grant) => {
                self.count("grants");
                let granted = &grant.device.functions[usize::from(grant.function)];
                if (grant.device.id, &granted.node) != (part.device, &part.node) {
                    self.broken = Some(format!("service {at} has {granted:?}, not {part:?}"));
                }
                if part.function != WHOLE {
                    self.count("grants of parts");
                    let others = grant.device.functions.iter().filter(|f| f.lease.is_some());
                    if others.count() > 1 {
                        self.count("parts of a device at once");
                    }
                    if waited {
                        self.count("queued for a part and granted");
                    }
                }
                if grant.device.gen_no != gen_no {
                    self.broken =
                        Some(format!("service {at} has another device than it asked for"));
                }
                if waited {
                    self.count("queued and granted");
                }
                let unit = self
                    .units
                    .iter()
                    .position(|u| u.name == grant.device.unit)
                    .expect("it is there");
                let held = self.held(unit, *grant);
                self.services[at].state = State::Has(Box::new(held.clone()));
                let grant = Box::new(held.grant.clone());
                self.handle(at, service::Event::Tick);
                self.handle(at, service::Event::Granted(grant));
                if self.rng.permille(60) {
                    self.stranger(manager, &held);
                }
            }
            Err(refusal) => {
                self.count("refusals");
                self.refused(&part, &refusal);
                self.services[at].state = State::Idle;
            }
        }
    }

    fn refused(&mut self, part: &Part, refusal: &Refusal) {
        let cores = self.units.iter().filter_map(|unit| unit.core.as_ref());
        let device = cores.flat_map(Unit::devices).find(|device| device.id == part.device);
        let whole = device.is_some_and(|device| device.functions[0].lease.is_some());
        let what = match refusal {
            Refusal::Leased(_) if part.function != WHOLE && whole => "refused for the whole",
            Refusal::Leased(_) if part.function == WHOLE && !whole => "refused for a part",
            Refusal::Unavailable(why) if why.contains("set up first") => "refused before set-up",
            _ => return,
        };
        self.count(what);
    }

    /// Somebody with another's lease number and a token of his own, or with the right one from another machine.
    fn stranger(&mut self, manager: usize, held: &Held) {
        self.count("strangers");
        let conn = self.number();
        self.seen.strangers.insert(conn);
        let own = self.rng.permille(500);
        let of = self.managers[manager].name.clone();
        let name = if own { of } else { "x".parse().expect("a name") };
        let token = if own { Token([1; 16]) } else { held.grant.token.clone() };
        let said = FromHolder::Data { no: held.grant.no, token };
        self.came(held.unit, conn, &name, said);
    }

    pub fn manager_gone(&mut self, at: usize, manager: usize) {
        if self.services[at].manager == manager
            && matches!(self.services[at].state, State::Asked { .. })
        {
            self.services[at].state = State::Idle;
        }
    }
}
