// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual time, the back end, and what happens in it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipmi_mux::addr::Addr;
use ipmi_mux::mux::{Action, Channels, HandleId, Incoming, Mux, NodeRules, Outgoing, Token};
use ipmi_mux::policy::Policy;

use seeds::{Failure, Rng};

use super::clients::{self, Client};
use super::model::{Model, SECOND, Time};
use super::oracle::{Oracle, Order};
use super::plan::Plan;

/// Address and LUN that no client has: what comes from there the mux asks for itself.
pub const OWN: (u8, u8) = (0x20, 2);
/// Events without any time passing, until we say that it goes round in circles.
const CIRCLES: u32 = 20_000;

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// A client's turn to do something.
    Act(usize),
    /// The BMC is done with the first in its line.
    Served,
    /// An answer arrives.
    Reply(Token, Addr, (u8, u8), Vec<u8>),
    /// Something happens by itself.
    Ambient,
}

/// A request with the back end.
pub struct Sent {
    pub at: Time,
    pub out: Outgoing,
    /// The client's order; none for the mux's own.
    pub order: Option<usize>,
}

pub struct World {
    pub rng: Rng,
    pub plan: Plan,
    /// Whether there are faults at all, or were.
    pub faulty: bool,
    pub now: Time,
    start: Instant,
    pub mux: Mux,
    pub model: Model,
    pub clients: Vec<Client>,
    pub orders: Vec<Order>,
    pub oracle: Oracle,
    pub steps_left: u64,
    /// No faults any more, and nobody begins anything new.
    pub calm: bool,
    pub events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    pub next_event: u64,
    /// What the BMC has to do, in order.
    pub line: VecDeque<Token>,
    pub serving: bool,
    pub hung_until: Time,
    /// What counts against the window.
    pub with_back_end: BTreeMap<Token, Sent>,
    /// What was sent, until it is executed.
    pub on_the_wire: HashMap<Token, (Outgoing, Option<usize>, Time)>,
    pub listens: bool,
    /// What was executed while the mux waited for it: the BMC also does what was given up.
    pub executed: u64,
    pub requests_to_bmc: u64,
    /// Records whose header is of another version than the rest.
    pub mixed_records: u64,
    circles: u32,
    log: Option<Vec<String>>,
    wrong: Option<String>,
}

impl World {
    pub fn new(seed: u64, logging: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        let mut mux = Mux::new(plan.limits, Channels::NONE, [OWN; 16]);
        if rng.permille(500) {
            // Other rules are none of the simulation's business.
            #[allow(clippy::needless_update)]
            mux.set_rules(2, NodeRules { policy: Arc::new(Policy::full()), background: true });
        }
        let mut world = Self {
            model: Model::new(plan.habits, plan.records, plan.entries),
            steps_left: plan.steps,
            oracle: Oracle::default(),
            rng,
            faulty: plan.faults.any(),
            plan,
            now: SECOND,
            start: Instant::now(),
            mux,
            clients: vec![],
            orders: vec![],
            calm: false,
            events: BinaryHeap::new(),
            next_event: 0,
            line: VecDeque::new(),
            serving: false,
            hung_until: 0,
            with_back_end: BTreeMap::new(),
            on_the_wire: HashMap::new(),
            listens: false,
            executed: 0,
            requests_to_bmc: 0,
            mixed_records: 0,
            circles: 0,
            log: logging.then(Vec::new),
            wrong: None,
        };
        world.note(|w| format!("{:?}", w.plan));
        world
    }

    /// Lives the whole life of a seed.
    pub fn run(seed: u64, logging: bool) -> Result<Self, Failure> {
        let mut world = Self::new(seed, logging);
        world.live();
        match world.wrong.take() {
            None => Ok(world),
            Some(what) => Err(Failure { what, log: world.log.unwrap_or_default() }),
        }
    }

    fn live(&mut self) {
        for _ in 0..self.plan.clients {
            clients::open(self);
        }
        let ambient = self.rng.below(self.plan.ambient);
        self.after(ambient, Event::Ambient);
        while self.steps_left > 0 && self.is_right() {
            self.step();
        }
        self.recover();
        if self.is_right() && self.rng.permille(250) {
            self.check_fairness();
        }
        if self.is_right() {
            self.check_settled();
        }
        if self.is_right() {
            self.end();
        }
    }

    pub fn is_right(&self) -> bool {
        self.wrong.is_none()
    }

    pub fn fail(&mut self, what: String) {
        self.note(|_| format!("WRONG: {what}"));
        self.wrong.get_or_insert(what);
    }

    pub fn demand(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(what());
        }
    }

    /// For the log, which is written only when a seed is looked at.
    pub fn note(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.log.is_some() {
            let line = format!("{:>12.6} {}", self.now as f64 / SECOND as f64, what(self));
            self.log.get_or_insert_default().push(line);
        }
    }

    pub fn instant(&self) -> Instant {
        self.start + Duration::from_micros(self.now)
    }

    fn time_of(&self, at: Instant) -> Time {
        Time::try_from(at.saturating_duration_since(self.start).as_micros()).expect("short")
    }

    pub fn after(&mut self, pause: Time, event: Event) {
        self.next_event += 1;
        self.events.push(Reverse((self.now + pause, self.next_event, event)));
    }

    /// Goes on to the next thing that happens. Returns whether there was one.
    pub fn step(&mut self) -> bool {
        let timeout = self.mux.next_timeout().map(|at| self.time_of(at));
        let event = self.events.peek().map(|Reverse((at, ..))| *at);
        let Some(next) = timeout.into_iter().chain(event).min() else { return false };
        let next = next.max(self.now);
        self.circles = if next == self.now { self.circles + 1 } else { 0 };
        self.demand(self.circles < CIRCLES, || "time stands still".to_owned());
        self.now = next;
        let event_is_due = event.is_some_and(|at| at <= next);
        if timeout.is_some_and(|at| at <= next) && (!event_is_due || self.rng.permille(500)) {
            self.mux.handle_timeout(self.instant());
        } else if let Some(Reverse((_, _, event))) = self.events.pop() {
            self.handle(event);
        }
        self.carry_out();
        true
    }

    /// Goes on until then, or until something is wrong.
    pub fn run_until(&mut self, until: Time) {
        while self.is_right() {
            let timeout = self.mux.next_timeout().map(|at| self.time_of(at));
            let event = self.events.peek().map(|Reverse((at, ..))| *at);
            if timeout.into_iter().chain(event).min().is_none_or(|next| next > until) {
                self.now = self.now.max(until);
                return;
            }
            self.step();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Act(client) => clients::act(self, client),
            Event::Served => self.serve(),
            Event::Reply(token, addr, (netfn, cmd), data) => {
                self.note(|_| format!("reply {token:?} {netfn:02x}/{cmd:02x} {data:02x?}"));
                let sent = self.with_back_end.remove(&token);
                self.oracle.reply_arrived(self.now, sent.as_ref(), (netfn, cmd));
                self.mux.handle_reply(self.instant(), token, Incoming { addr, netfn, cmd, data });
            }
            Event::Ambient => self.happen(),
        }
    }

    /// Does what the core says, and lets clients that wait for it read, until all is quiet.
    pub fn carry_out(&mut self) {
        loop {
            let mut woken = BTreeSet::new();
            while let Some(action) = self.mux.next_action() {
                self.carry_out_one(action, &mut woken);
                if !self.is_right() {
                    return;
                }
            }
            if woken.is_empty() {
                break;
            }
            for id in woken {
                clients::wake(self, id);
            }
        }
        self.oracle.look_at_line(self.now, !self.with_back_end.is_empty());
        let told = self.clients.iter().any(|c| c.is_open && c.listens);
        let listens = self.listens;
        self.demand(listens == told, || format!("the back end listens: {listens}"));
    }

    fn carry_out_one(&mut self, action: Action, woken: &mut BTreeSet<HandleId>) {
        match action {
            Action::Send(out) => self.hand_over(out),
            Action::Wake(id) => {
                let at = (self.now, self.oracle.was_idle(self.now));
                let client = self.clients.iter_mut().find(|c| c.id == id && c.is_open);
                match client {
                    Some(client) => client.arrivals.push_back(at),
                    None => self.fail(format!("{id:?} is woken and not there")),
                }
                woken.insert(id);
            }
            Action::SetGetsEvents(on) => self.listens = on,
            Action::Forget(token) => {
                self.note(|_| format!("forget {token:?}"));
                self.with_back_end.remove(&token);
            }
            Action::Breaker { open } => self.note(|_| format!("breaker open: {open}")),
            Action::Audit(_)
            | Action::Denied(..)
            | Action::Unregister(_)
            | Action::SetMaintenanceMode(_) => {}
        }
    }
}
