// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must be true of an answer, and of what the BMC is told to do.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ipmi_mux::addr::Addr;
use ipmi_mux::mux::{HandleId, Outgoing};

use super::model::{MS, Time};
use super::world::{OWN, Sent};

/// Longer than any pause that the core makes while something waits: its back-off is 10 ms.
const IDLE: Time = 100 * MS;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Store {
    Sdr,
    Sel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    Watchdog,
    Boot,
}

/// What a command does with a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Take,
    Use,
    GiveBack,
}

/// What a client asked for; reservations by their place in [`Oracle::reservations`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Echo,
    Counter,
    Reading,
    /// Changes what the sensors say.
    SetReading,
    DeviceId,
    Info(Store),
    Reserve(usize),
    Sdr(Option<usize>),
    SelEntry(Option<usize>),
    Clear(usize),
    ClearStatus(usize),
    Lease(Part, Wish),
    GetWatchdog,
    GetEnables,
    SetEnables(u8),
    Flags,
    Reset,
}

/// Something a client sent.
#[derive(Debug)]
pub struct Order {
    pub sender: usize,
    pub receiver: usize,
    pub controller: HandleId,
    pub addr: Addr,
    pub msgid: i64,
    pub netfn: u8,
    pub cmd: u8,
    pub data: Vec<u8>,
    pub op: Op,
    pub asked: Time,
    pub deadline: Time,
    /// The answer must be from after this.
    pub since: Time,
    /// The place in the row of its controller's reservations of that store.
    pub ordinal: u64,
}

#[derive(Debug)]
pub struct Reservation {
    pub store: Store,
    pub controller: HandleId,
    pub ordinal: u64,
    pub asked: Time,
    pub answered: Option<Time>,
    /// Versions of the contents that it is good for.
    pub versions: Vec<u64>,
}

/// From when to when a controller may have had a lease.
#[derive(Debug)]
pub struct Claim {
    pub controller: HandleId,
    pub order: usize,
    pub from: Time,
    pub until: Time,
}

#[derive(Debug, Default)]
pub struct Oracle {
    /// By sender and message id.
    pub by_wire: HashMap<(usize, i64), usize>,
    /// By receiver and message id.
    pub expected: HashMap<(usize, i64), usize>,
    /// How many of these each receiver has.
    pub waiting: HashMap<usize, usize>,
    pub reservations: Vec<Reservation>,
    pub ordinals: HashMap<(HandleId, Store), u64>,
    /// When it became uncertain what a clear had done, or certain at last.
    pub uncertain: Vec<Time>,
    pub claims: BTreeMap<Part, Vec<Claim>>,
    /// Who surely has a lease, since when.
    pub firm: BTreeMap<Part, (HandleId, Time)>,
    /// Orders that give something back; the answers of some are known.
    pub give_backs: BTreeMap<(HandleId, Part), Vec<(usize, bool)>>,
    /// What each controller surely has set, and when it asked for that.
    pub enables: BTreeMap<HandleId, (u8, Time)>,
    pub counters: HashMap<Vec<u8>, usize>,
    /// When the last change of a sensor that its sender knows of was carried out.
    pub changed: Time,
    pub executed: HashMap<usize, Time>,
    /// Orders that have cleared the log.
    pub cleared: BTreeSet<usize>,
    /// When the back end last had nothing to do for [`IDLE`], and from when on it has nothing now.
    pub was_idle: Time,
    pub idle_from: Option<Time>,
    pub events: u32,
}

impl Oracle {
    pub fn next_event(&mut self) -> u32 {
        self.events += 1;
        self.events
    }

    /// The order behind a request that goes to the BMC.
    pub fn order_of(&self, out: &Outgoing) -> Option<usize> {
        if out.source == OWN {
            return None;
        }
        let sender = usize::from(u16::from_le_bytes([out.source.0, out.source.1 - 4]));
        self.by_wire.get(&(sender, out.msgid)).copied()
    }

    /// The back end has something to do from now on, or nothing.
    pub fn look_at_line(&mut self, now: Time, has_work: bool) {
        if self.idle_from.is_some_and(|from| now >= from + IDLE) {
            self.was_idle = now;
        }
        self.idle_from = if has_work { None } else { self.idle_from.or(Some(now)) };
    }

    /// When the back end last had nothing to do.
    pub fn was_idle(&self, now: Time) -> Time {
        let idle = self.idle_from.is_some_and(|from| now >= from + IDLE);
        if idle { now } else { self.was_idle }
    }

    pub fn reply_arrived(&mut self, now: Time, sent: Option<&Sent>, (netfn, cmd): (u8, u8)) {
        let by_client = sent.is_none_or(|sent| sent.order.is_some());
        if (netfn, cmd) == (0x0b, 0x47) && by_client {
            self.uncertain.push(now);
        }
    }

    /// A new reservation is asked for.
    pub fn reserve(&mut self, now: Time, controller: HandleId, store: Store) -> usize {
        let ordinal = self.ordinals.entry((controller, store)).or_default();
        *ordinal += 1;
        let (ordinal, place) = (*ordinal, self.reservations.len());
        let (answered, versions) = (None, vec![]);
        let asked = now;
        let new = Reservation { store, controller, ordinal, asked, answered, versions };
        self.reservations.push(new);
        place
    }

    pub fn was_executed(&self, order: usize) -> bool {
        self.executed.contains_key(&order)
    }

    /// Whether it was carried out and its answer read.
    pub fn served(&self, order: usize) -> bool {
        self.was_executed(order) && !self.expected.values().any(|at| *at == order)
    }

    pub fn take_expected(&mut self, receiver: usize, msgid: i64) -> Option<usize> {
        let order = self.expected.remove(&(receiver, msgid))?;
        *self.waiting.entry(receiver).or_default() -= 1;
        Some(order)
    }

    pub fn waits_for(&self, receiver: usize) -> usize {
        self.waiting.get(&receiver).copied().unwrap_or_default()
    }

    pub fn never_answered(&self) -> Option<usize> {
        self.expected.values().min().copied()
    }

    /// A client is gone and waits for nothing any more.
    pub fn client_closed(&mut self, now: Time, client: usize, orders: &[Order]) {
        let waits = |at: &usize| orders[*at].receiver == client;
        let clears = self.expected.values().filter(|at| waits(at));
        if clears.into_iter().any(|at| matches!(orders[*at].op, Op::Clear(_))) {
            self.uncertain.push(now);
        }
        self.expected.retain(|(receiver, _), _| *receiver != client);
        self.waiting.remove(&client);
    }

    /// A controller is gone, and what it held.
    pub fn controller_gone(&mut self, now: Time, controller: HandleId) {
        for claim in self.claims.values_mut().flatten().filter(|c| c.controller == controller) {
            claim.until = claim.until.min(now);
        }
        self.firm.retain(|_, (holder, _)| *holder != controller);
        self.enables.remove(&controller);
    }

    /// Whether a controller may have a lease.
    pub fn may_hold(&self, part: Part) -> bool {
        self.claims.get(&part).is_some_and(|all| all.iter().any(|c| c.until == Time::MAX))
    }

    /// The controller has given back what it took before.
    pub fn end_claims(&mut self, part: Part, controller: HandleId, give_back: usize, now: Time) {
        let Some(given) = self.executed.get(&give_back) else { return };
        let claims = self.claims.entry(part).or_default().iter_mut();
        for claim in claims.filter(|c| c.controller == controller) {
            if self.executed.get(&claim.order).is_some_and(|taken| taken < given) {
                claim.until = claim.until.min(now);
            }
        }
    }

    /// Whether this take was not undone: a refused command is tried again behind later ones.
    pub fn still_has(&self, part: Part, controller: HandleId, take: usize) -> bool {
        let Some(taken) = self.executed.get(&take) else { return false };
        let all = self.give_backs.get(&(controller, part)).into_iter().flatten();
        all.into_iter().all(|(order, answered)| match self.executed.get(order) {
            Some(given) => given < taken,
            None => *answered,
        })
    }
}

impl Oracle {
    /// The sender of this order knows that a sensor may have changed.
    pub fn change_known(&mut self, order: usize) {
        if let Some(at) = self.executed.get(&order) {
            self.changed = self.changed.max(*at);
        }
    }
}
