// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose turn it is: deficit round robin with a list for new flows, after RFC 8290 section 4.2, in three
//! classes.
//!
//! A flow is what one handle has waiting. What is shared out is the BMC's time, not a number of commands:
//! a flow is charged with how long its commands kept the BMC busy, and one that owes is passed over
//! while others wait. A flow that had nothing waiting begins on the list of new flows, which is served
//! first; once served it stays on the old list for a round even when it is empty, so that it cannot be
//! new again by sending one command at a time.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::{HandleId, Token};

/// Time of the BMC a flow gets per round: less than a usual command takes, so that a flow of quick
/// ones leaves none of its share to others.
const QUANTUM_US: i64 = 2_000;
/// The most a flow can owe, so that one command of a minute does not shut a handle out for one.
const DEBT_US: i64 = -500_000;
/// Turns a waiting class is passed over by the classes before it, until it gets one.
const PASSED_OVER: u32 = 8;

/// How soon a request is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Class {
    /// Resets the watchdog, switches the power.
    Urgent,
    /// Everything else.
    #[default]
    Normal,
    /// What comes from nodes that the configuration calls so.
    Background,
}

impl Class {
    const COUNT: usize = 3;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listed {
    No,
    New,
    Old,
}

#[derive(Debug)]
struct Flow {
    queue: VecDeque<Token>,
    class: Class,
    deficit_us: i64,
    listed: Listed,
    /// Its first request waits for something else than its turn.
    blocked: bool,
    /// Requests taken off and not charged yet.
    in_service: usize,
    /// [`Scheduler::turns`] when it had its last one.
    served: u64,
}

#[derive(Debug, Default)]
struct Lists {
    new: VecDeque<HandleId>,
    old: VecDeque<HandleId>,
    passed_over: u32,
}

/// Requests that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Scheduler {
    /// The mux's own requests, before all others. Few: one per job.
    own: VecDeque<Token>,
    flows: HashMap<HandleId, Flow>,
    /// Requests of handles taken off so far.
    turns: u64,
    classes: [Lists; Class::COUNT],
}

impl Scheduler {
    /// Whether a handle has requests that wait, or one that is blocked: a further one must queue up.
    pub fn is_waiting(&self, id: HandleId) -> bool {
        self.flows.get(&id).is_some_and(|f| f.blocked || !f.queue.is_empty())
    }

    pub fn push_own(&mut self, token: Token) {
        self.own.push_back(token);
    }

    /// Queues a request behind the handle's others; `class` counts where there are none.
    pub fn push(&mut self, id: HandleId, class: Class, token: Token) {
        self.enlist(id, class).queue.push_back(token);
    }

    /// Puts a request back that was taken off before: tokens of a handle stay in their order.
    pub fn put_back(&mut self, id: HandleId, class: Class, token: Token) {
        let queue = &mut self.enlist(id, class).queue;
        queue.insert(queue.partition_point(|waiting| *waiting < token), token);
    }

    pub fn put_back_own(&mut self, token: Token) {
        self.own.push_front(token);
    }

    fn enlist(&mut self, id: HandleId, class: Class) -> &mut Flow {
        let flow = self.flows.entry(id).or_insert_with(|| Flow {
            queue: VecDeque::new(),
            class,
            deficit_us: QUANTUM_US,
            listed: Listed::No,
            blocked: false,
            in_service: 0,
            served: 0,
        });
        let changes_class = flow.class != class && flow.queue.is_empty() && !flow.blocked;
        if changes_class && flow.listed != Listed::No {
            let lists = &mut self.classes[flow.class as usize];
            lists.new.retain(|listed| *listed != id);
            lists.old.retain(|listed| *listed != id);
            flow.listed = Listed::No;
        }
        if changes_class {
            flow.class = class;
        }
        if flow.listed == Listed::No {
            flow.listed = Listed::New;
            self.classes[flow.class as usize].new.push_back(id);
        }
        flow
    }

    /// Takes a request out, wherever it waits.
    pub fn remove(&mut self, id: HandleId, token: Token) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.queue.retain(|waiting| *waiting != token);
        }
    }

    pub fn remove_own(&mut self, token: Token) {
        self.own.retain(|waiting| *waiting != token);
    }

    /// The handle is closed.
    pub fn forget(&mut self, id: HandleId) {
        if let Some(flow) = self.flows.remove(&id) {
            let lists = &mut self.classes[flow.class as usize];
            lists.new.retain(|listed| *listed != id);
            lists.old.retain(|listed| *listed != id);
        }
    }

    /// A blocked flow keeps its place and is passed over.
    pub fn set_blocked(&mut self, id: HandleId, class: Class, blocked: bool) {
        match self.flows.get_mut(&id) {
            Some(flow) => flow.blocked = blocked,
            None if blocked => self.enlist(id, class).blocked = true,
            None => {}
        }
    }

    /// A request of the handle that was taken off kept the BMC busy for so long.
    pub fn charge(&mut self, id: HandleId, took: Duration) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.in_service = flow.in_service.saturating_sub(1);
            let took = i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
            flow.deficit_us = flow.deficit_us.saturating_sub(took).max(DEBT_US);
        }
    }

    /// The request whose turn it is.
    pub fn next(&mut self) -> Option<Token> {
        if let Some(token) = self.own.pop_front() {
            return Some(token);
        }
        let ready: Vec<usize> = (0..Class::COUNT).filter(|class| self.has_ready(*class)).collect();
        let overdue = |class: &&usize| self.classes[**class].passed_over >= PASSED_OVER;
        let chosen = *ready.iter().rev().find(overdue).or(ready.first())?;
        for class in ready {
            let passed_over = &mut self.classes[class].passed_over;
            *passed_over = if class == chosen { 0 } else { *passed_over + 1 };
        }
        self.next_of(chosen)
    }

    fn has_ready(&self, class: usize) -> bool {
        let Lists { new, old, .. } = &self.classes[class];
        new.iter().chain(old).any(|id| self.is_ready(*id))
    }

    fn is_ready(&self, id: HandleId) -> bool {
        self.flows.get(&id).is_some_and(|f| !f.blocked && !f.queue.is_empty())
    }

    /// Goes round until a flow that owes nothing has a request. There is one in this class.
    fn next_of(&mut self, class: usize) -> Option<Token> {
        let lists = &mut self.classes[class];
        loop {
            let from_new = !lists.new.is_empty();
            let id = if from_new { lists.new.pop_front() } else { lists.old.pop_front() }?;
            let flow = self.flows.get_mut(&id).expect("a listed flow exists");
            let ready = !flow.blocked && !flow.queue.is_empty();
            let idle = !ready && !flow.blocked && flow.in_service == 0 && flow.deficit_us > 0;
            // Flows in debt are passed over without a turn: going round the list is no round.
            let round_is_over = self.turns - flow.served > lists.old.len() as u64;
            if idle && !from_new && round_is_over {
                // Nothing waited for a whole round, and nothing is owed: the next request finds it new.
                self.flows.remove(&id);
                continue;
            }
            flow.listed = Listed::Old;
            lists.old.push_back(id);
            flow.deficit_us = (flow.deficit_us + QUANTUM_US).min(QUANTUM_US);
            if ready && flow.deficit_us > 0 {
                flow.in_service += 1;
                self.turns += 1;
                flow.served = self.turns;
                return flow.queue.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: HandleId = HandleId(1);
    const B: HandleId = HandleId(2);
    const C: HandleId = HandleId(3);

    fn flood(scheduler: &mut Scheduler, id: HandleId, class: Class, count: u64) {
        for at in 0..count {
            scheduler.push(id, class, Token(id.0 * 1000 + at));
        }
    }

    /// The handles of the next turns; each command takes `took`.
    fn turns(scheduler: &mut Scheduler, count: usize, took: impl Fn(HandleId) -> u64) -> Vec<u64> {
        let mut served = vec![];
        for _ in 0..count {
            let Some(token) = scheduler.next() else { break };
            let id = HandleId(token.0 / 1000);
            scheduler.charge(id, Duration::from_millis(took(id)));
            served.push(id.0);
        }
        served
    }

    #[test]
    fn who_comes_new_goes_before_those_who_flood() {
        let mut scheduler = Scheduler::default();
        flood(&mut scheduler, A, Class::Normal, 50);
        flood(&mut scheduler, B, Class::Normal, 50);
        turns(&mut scheduler, 7, |_| 3);
        flood(&mut scheduler, C, Class::Normal, 1);
        assert_eq!(turns(&mut scheduler, 1, |_| 3), [3]);
        // Sending one at a time does not make it new each time.
        flood(&mut scheduler, C, Class::Normal, 1);
        let next = turns(&mut scheduler, 3, |_| 3);
        assert_eq!(next.iter().filter(|id| **id == 3).count(), 1, "{next:?}");
        assert_ne!(next[0], 3, "{next:?}");
    }

    #[test]
    fn the_bmcs_time_is_shared_and_not_the_number_of_commands() {
        let mut scheduler = Scheduler::default();
        flood(&mut scheduler, A, Class::Normal, 500);
        flood(&mut scheduler, B, Class::Normal, 500);
        let served = turns(&mut scheduler, 220, |id| if id == A { 30 } else { 3 });
        let slow = served.iter().filter(|id| **id == 1).count();
        assert!((17..=24).contains(&slow), "{slow} slow commands among 220");
    }

    /// One slow command at a time, each sent when the one before is answered, is no way around.
    #[test]
    fn a_debt_outlives_an_empty_queue() {
        let mut scheduler = Scheduler::default();
        flood(&mut scheduler, B, Class::Normal, 500);
        let mut slow = 0;
        for turn in 0..110 {
            if !scheduler.is_waiting(A) {
                scheduler.push(A, Class::Normal, Token(1000 + turn));
            }
            slow += turns(&mut scheduler, 1, |id| if id == A { 60 } else { 3 })[0] % 2;
        }
        assert!((4..=8).contains(&slow), "{slow} slow commands of 60 ms among 110");
    }

    /// 64 handles that send the next command some time after each answer, and one that sends now and then.
    #[test]
    fn senders_of_one_command_at_a_time_take_turns_too() {
        let mut scheduler = Scheduler::default();
        let polite = HandleId(100);
        let mut sends_at: Vec<u64> = (0..=64).collect();
        let mut served = [0; 65];
        let mut polite_sent = None;
        for turn in 0..6500u64 {
            for id in 1..=64 {
                if sends_at[id] == turn {
                    scheduler.push(HandleId(id as u64), Class::Normal, Token(id as u64 * 1000));
                }
            }
            if turn % 150 == 149 {
                scheduler.push(polite, Class::Normal, Token(100_000));
                polite_sent = Some(turn);
            }
            let Some(Token(token)) = scheduler.next() else { continue };
            let id = HandleId(token / 1000);
            scheduler.charge(id, Duration::from_micros(4_700));
            if id == polite {
                let waited = turn - polite_sent.take().unwrap();
                assert!(waited <= 2, "the polite one waited {waited} turns");
            } else {
                served[id.0 as usize] += 1;
                sends_at[id.0 as usize] = turn + 1 + id.0 % 20;
            }
        }
        let (least, most) = (served[1..].iter().min().unwrap(), served.iter().max().unwrap());
        assert!(most - least <= 3, "between {least} and {most} turns");
    }

    #[test]
    fn classes_go_in_order_and_none_starves() {
        let mut scheduler = Scheduler::default();
        flood(&mut scheduler, A, Class::Background, 50);
        flood(&mut scheduler, B, Class::Urgent, 50);
        flood(&mut scheduler, C, Class::Normal, 50);
        let served = turns(&mut scheduler, 40, |_| 3);
        assert_eq!(served[..8], [2; 8]);
        for id in [1, 3] {
            let count = served.iter().filter(|served| **served == id).count();
            assert!((3..=6).contains(&count), "{id} had {count} of 40 turns");
        }
    }

    #[test]
    fn a_blocked_flow_keeps_its_requests_and_holds_nobody() {
        let mut scheduler = Scheduler::default();
        flood(&mut scheduler, A, Class::Normal, 2);
        flood(&mut scheduler, B, Class::Normal, 2);
        scheduler.set_blocked(A, Class::Normal, true);
        assert_eq!(turns(&mut scheduler, 4, |_| 3), [2, 2]);
        scheduler.set_blocked(A, Class::Normal, false);
        assert_eq!(turns(&mut scheduler, 4, |_| 3), [1, 1]);
        assert!(scheduler.next().is_none());
    }

    #[test]
    fn requests_of_a_handle_keep_their_order_when_one_is_put_back() {
        let mut scheduler = Scheduler::default();
        for token in 1..=3 {
            scheduler.push(A, Class::Normal, Token(token));
        }
        let first = scheduler.next().unwrap();
        let second = scheduler.next().unwrap();
        scheduler.put_back(A, Class::Normal, second);
        scheduler.put_back(A, Class::Normal, first);
        let order: Vec<u64> =
            std::iter::from_fn(|| scheduler.next()).map(|token| token.0).collect();
        assert_eq!(order, [1, 2, 3]);
    }
}
