// SPDX-License-Identifier: MIT OR Apache-2.0
//! The member that is to do something, once: what it does with an order from the log, and what it says of it.
//!
//! An order is *begun* when its record is on disk, and only then done; it is *ended* when its result is on disk, and only
//! then told. Who finds an order begun and not ended after a crash cannot know how far it came, so the program
//! compares what was wanted with what is, and finishes.
//!
//! No clock, no file: the shell feeds [`Event`]s and carries out [`Action`]s in their order.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::change::{MAX_ORDER_LIFE, MAX_ORDERS, NotBegun, Order, OrderId, OrderResult, Origin};
use super::state::Ordered;
use super::types::Position;

/// Most records of the journal: all orders that the state may remember, and those that it has just forgotten.
pub const MAX_RECORDS: usize = 2 * MAX_ORDERS;
/// After so many milliseconds a result that is not in the log is told again.
pub const TELL_AGAIN: u64 = 2_000;
/// A record is kept so many milliseconds past its deadline: until every older order for its subject has expired too.
pub const KEEP: u64 = MAX_ORDER_LIFE;
/// A result that nobody would take is kept so many milliseconds past the deadline.
pub const KEEP_UNTOLD: u64 = 24 * MAX_ORDER_LIFE;

/// What is on disk of an order.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Record {
    /// It.
    pub order: Order,
    /// By whom.
    pub who: Origin,
    /// Where it stands in the log.
    pub position: Position,
    /// The boot in which it was begun.
    pub boot: [u8; 16],
    /// What came of it, if it has ended.
    pub result: Option<OrderResult>,
}

/// What happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// An order for this member is in the log, without a result. May be said any number of times.
    Committed(Ordered),
    /// The last [`Action::Journal`] for this order is on disk.
    Journaled(OrderId),
    /// The program has ended what [`Action::Execute`] or [`Action::Resume`] asked for.
    Done(OrderId, OrderResult),
    /// The log has the result of this order.
    Recorded(OrderId),
    /// It is so late, in milliseconds of the group's time. To be said every second or so.
    Now(u64),
}

/// What is to be done.
#[must_use]
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Put this record in place of the one with its id, and on the disk; then say [`Event::Journaled`].
    Journal(Record),
    /// Do it; then say [`Event::Done`].
    Execute(Record),
    /// It was begun, and may be done in part or whole: finish it; then say [`Event::Done`].
    Resume(Record),
    /// Put the result into the log; when it is there, say [`Event::Recorded`].
    Report(OrderId, OrderResult),
    /// Remove this record.
    Forget(OrderId),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Phase {
    Beginning,
    Running,
    Ending,
    /// When it was told last; whether the log has it.
    Ended(Option<u64>, bool),
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Executor {
    boot: [u8; 16],
    program: bool,
    now: u64,
    journal: BTreeMap<OrderId, (Record, Phase)>,
    waiting: BTreeMap<Position, Ordered>,
}

impl Executor {
    /// One in this boot, with or without a program that does things, and with what a journal had when it was opened.
    pub fn new(boot: [u8; 16], program: bool, journal: Vec<Record>) -> (Self, Vec<Action>) {
        let mut actions = vec![];
        let phase = |record: Record| {
            let phase = match (&record.result, program) {
                (Some(_), _) => Phase::Ended(None, false),
                (None, true) => {
                    actions.push(Action::Resume(record.clone()));
                    Phase::Running
                }
                // It waits in the journal for a configuration that has a program.
                (None, false) => Phase::Running,
            };
            (record.order.id, (record, phase))
        };
        let journal = journal.into_iter().map(phase).collect();
        (Self { boot, program, now: 0, journal, waiting: BTreeMap::new() }, actions)
    }

    /// What follows from an event.
    pub fn handle(&mut self, event: Event) -> Vec<Action> {
        let mut actions = vec![];
        match event {
            Event::Committed(ordered) => self.committed(ordered, &mut actions),
            Event::Journaled(id) => self.journaled(id, &mut actions),
            Event::Done(id, result) => {
                if let Some((record, phase)) = self.journal.get_mut(&id)
                    && *phase == Phase::Running
                {
                    record.result = Some(result);
                    *phase = Phase::Ending;
                    actions.push(Action::Journal(record.clone()));
                }
            }
            Event::Recorded(id) => {
                if let Some((_, Phase::Ended(_, recorded))) = self.journal.get_mut(&id) {
                    *recorded = true;
                }
            }
            Event::Now(now) => {
                self.now = self.now.max(now);
                self.forget(&mut actions);
                self.tell(&mut actions);
            }
        }
        self.begin(&mut actions);
        actions
    }

    /// The ids whose result is on disk and, as far as is known here, not in the log.
    pub fn untold(&self) -> impl Iterator<Item = OrderId> {
        let untold = |(id, (_, phase)): (&OrderId, &(Record, Phase))| {
            matches!(phase, Phase::Ended(_, false)).then_some(*id)
        };
        self.journal.iter().filter_map(untold)
    }

    fn committed(&mut self, ordered: Ordered, actions: &mut Vec<Action>) {
        match self.journal.get_mut(&ordered.order.id) {
            None if self.waiting.len() < MAX_ORDERS => {
                self.waiting.insert(ordered.position, ordered);
            }
            // Another reign has the order too, and not the result.
            Some((_, Phase::Ended(_, recorded))) if *recorded => {
                *recorded = false;
                self.tell(actions);
            }
            _ => {}
        }
    }

    fn journaled(&mut self, id: OrderId, actions: &mut Vec<Action>) {
        match self.journal.get_mut(&id) {
            Some((record, phase)) if *phase == Phase::Beginning => {
                *phase = Phase::Running;
                actions.push(Action::Execute(record.clone()));
            }
            Some((_, phase)) if *phase == Phase::Ending => {
                *phase = Phase::Ended(None, false);
                self.tell(actions);
            }
            _ => {}
        }
    }

    /// Begins what waits for nothing else, oldest first.
    fn begin(&mut self, actions: &mut Vec<Action>) {
        let waiting: Vec<Position> = self.waiting.keys().copied().collect();
        for position in waiting {
            let subject = &self.waiting[&position].order.subject;
            let busy = |(record, phase): &(Record, Phase)| {
                record.order.subject == *subject && !matches!(phase, Phase::Ended(..))
            };
            if self.journal.values().any(busy) || self.journal.len() >= MAX_RECORDS {
                continue;
            }
            let Ordered { order, who, position, .. } =
                self.waiting.remove(&position).expect("it was there");
            let result = self.judge(&order, position).err().map(OrderResult::NotBegun);
            let phase = if result.is_some() { Phase::Ending } else { Phase::Beginning };
            let record = Record { order, who, position, boot: self.boot, result };
            actions.push(Action::Journal(record.clone()));
            self.journal.insert(record.order.id, (record, phase));
        }
    }

    fn judge(&self, order: &Order, position: Position) -> Result<(), NotBegun> {
        let newer = |(record, _): &(Record, Phase)| {
            record.order.subject == order.subject && record.position > position
        };
        match () {
            () if order.deadline <= self.now => Err(NotBegun::Expired),
            () if self.journal.values().any(newer) => Err(NotBegun::Stale),
            () if order.expect_boot.is_some_and(|boot| boot != self.boot) => {
                Err(NotBegun::OtherBoot)
            }
            () if !self.program => Err(NotBegun::NoProgram),
            () => Ok(()),
        }
    }

    /// Tells what is not in the log, now and again until it is.
    fn tell(&mut self, actions: &mut Vec<Action>) {
        let now = self.now;
        for (record, phase) in self.journal.values_mut() {
            if let Phase::Ended(told, false) = phase
                && told.is_none_or(|told| told + TELL_AGAIN <= now)
                && let Some(result) = &record.result
            {
                *told = Some(now);
                actions.push(Action::Report(record.order.id, result.clone()));
            }
        }
    }

    /// Removes records whose ids can never come again.
    fn forget(&mut self, actions: &mut Vec<Action>) {
        let now = self.now;
        let forget = |(record, phase): &mut (Record, Phase)| {
            let keep = match phase {
                Phase::Ended(_, true) => KEEP,
                Phase::Ended(_, false) => KEEP_UNTOLD,
                _ => return false,
            };
            record.order.deadline.saturating_add(keep) <= now
        };
        actions.extend(take_if(&mut self.journal, forget).into_iter().map(Action::Forget));
        take_if(&mut self.waiting, |ordered| ordered.order.deadline.saturating_add(KEEP) <= now);
    }
}

/// Takes some out; `BTreeMap::extract_if` is newer than the compiler we promise.
fn take_if<K: Ord + Clone, V>(
    map: &mut BTreeMap<K, V>,
    mut some: impl FnMut(&mut V) -> bool,
) -> Vec<K> {
    let taken = map.iter_mut().filter_map(|(k, v)| some(v).then(|| k.clone()));
    let taken: Vec<K> = taken.collect();
    for key in &taken {
        map.remove(key);
    }
    taken
}
