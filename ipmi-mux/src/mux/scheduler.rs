// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose turn it is: start-time fair queueing (Goyal, Vin and Cheng, 1996) over the handles, in three classes.
//!
//! What is shared out is the BMC's time, not a number of commands. A flow, which is what one handle has
//! waiting, has a *tag*: the time of the BMC it has had, as far as it counts. The flow with the lowest tag
//! is next. The *virtual time* of a class is the tag of who was served last; a flow that comes back behind it
//! gets it as its tag, so that it saves up nothing.
//!
//! A flow that had no turn for a round (as many turns as there are flows) and owes nothing is *sparse*
//! and goes before those in line. So who asks seldom does not wait for those who flood. Before all goes
//! whoever has waited for two rounds and a second of the BMC's time: one command that took long, perhaps by
//! chance, costs its sender as many rounds as it took turns, which is fair and can be too long.
//!
//! Deficit round robin with a list of new flows (RFC 8290) does the same for packets, whose cost is known when
//! they are sent. Here it is known afterwards, debts are carried over rounds, and whoever still had one when
//! it came back was not new and starved.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::{HandleId, Token};

/// What a command is expected to cost, microseconds, until there is experience.
const FIRST_ESTIMATE_US: u64 = 3_000;
/// The furthest a flow's tag gets ahead of the virtual time, microseconds, so that one command of a minute
/// does not shut a handle out for one.
const MOST_AHEAD_US: u64 = 500_000;
/// The longest a flow waits, microseconds of the BMC's time, unless two rounds take longer.
const LONGEST_WAIT_US: u64 = 300_000;
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

/// Place of a flow among those that are ready: `false` for a sparse one; its tag; the order in which they
/// came.
type Place = (bool, u64, u64);

#[derive(Debug, Default)]
struct Flow {
    queue: VecDeque<Token>,
    class: Class,
    tags: [u64; Class::COUNT],
    /// Where it stands in its class's line, while it is ready.
    place: Option<Place>,
    /// Its first request waits for something else than its turn.
    blocked: bool,
    /// [`Scheduler::turns`] when it had its last one.
    served: Option<u64>,
    /// The same when it lined up, and [`Scheduler::busy_us`].
    lined_up: (u64, u64),
    /// What the requests that were taken off and not charged yet were expected to cost.
    in_service: VecDeque<u64>,
}

#[derive(Debug, Default)]
struct Line {
    ready: BTreeSet<(Place, HandleId)>,
    /// The same flows by the order in which they came.
    arrived: BTreeMap<u64, HandleId>,
    virtual_time: u64,
    in_service: u64,
    passed_over: u32,
}

impl Line {
    /// Turns in a round.
    fn round(&self) -> u64 {
        self.ready.len() as u64 + self.in_service
    }

    fn leave(&mut self, place: Place, id: HandleId) {
        self.ready.remove(&(place, id));
        self.arrived.remove(&place.2);
    }
}

/// Requests that wait for their turn.
#[derive(Debug)]
pub(super) struct Scheduler {
    /// The mux's own requests, before all others. Few: one per job.
    own: VecDeque<Token>,
    flows: HashMap<HandleId, Flow>,
    lines: [Line; Class::COUNT],
    /// Requests of handles taken off so far.
    turns: u64,
    /// What they cost, microseconds.
    busy_us: u64,
    /// What a command costs, microseconds, as a moving average.
    estimate_us: u64,
    arrivals: u64,
}

impl Default for Scheduler {
    fn default() -> Self {
        Self {
            own: VecDeque::new(),
            flows: HashMap::new(),
            lines: Default::default(),
            turns: 0,
            busy_us: 0,
            estimate_us: FIRST_ESTIMATE_US,
            arrivals: 0,
        }
    }
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
        self.flow(id, class).queue.push_back(token);
        self.line_up(id);
    }

    /// Puts a request back that was taken off before: tokens of a handle stay in their order.
    pub fn put_back(&mut self, id: HandleId, class: Class, token: Token) {
        let queue = &mut self.flow(id, class).queue;
        queue.insert(queue.partition_point(|waiting| *waiting < token), token);
        self.line_up(id);
    }

    pub fn put_back_own(&mut self, token: Token) {
        self.own.push_front(token);
    }

    fn flow(&mut self, id: HandleId, class: Class) -> &mut Flow {
        let flow = self.flows.entry(id).or_default();
        if flow.queue.is_empty() && !flow.blocked {
            flow.class = class;
        }
        flow
    }

    /// Puts a flow where it belongs: into the line if it has become ready, out of it if it is not.
    fn line_up(&mut self, id: HandleId) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let line = &mut self.lines[flow.class as usize];
        let is_ready = !flow.blocked && !flow.queue.is_empty();
        match flow.place {
            None if is_ready => {
                let tag = &mut flow.tags[flow.class as usize];
                let owes = *tag > line.virtual_time + self.estimate_us;
                let rests = flow.served.is_none_or(|served| self.turns - served > line.round());
                *tag = (*tag).max(line.virtual_time);
                self.arrivals += 1;
                let place = (owes || !rests, *tag, self.arrivals);
                flow.lined_up = (self.turns, self.busy_us);
                flow.place = Some(place);
                line.ready.insert((place, id));
                line.arrived.insert(self.arrivals, id);
            }
            Some(place) if !is_ready => {
                line.leave(place, id);
                flow.place = None;
            }
            _ => {}
        }
    }

    /// Takes a request out, wherever it waits.
    pub fn remove(&mut self, id: HandleId, token: Token) {
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.queue.retain(|waiting| *waiting != token);
            self.line_up(id);
        }
    }

    pub fn remove_own(&mut self, token: Token) {
        self.own.retain(|waiting| *waiting != token);
    }

    /// The handle is closed.
    pub fn forget(&mut self, id: HandleId) {
        if let Some(Flow { class, place: Some(place), .. }) = self.flows.remove(&id) {
            self.lines[class as usize].leave(place, id);
        }
    }

    /// A blocked flow keeps its requests and is passed over.
    pub fn set_blocked(&mut self, id: HandleId, class: Class, blocked: bool) {
        if blocked || self.flows.contains_key(&id) {
            self.flow(id, class).blocked = blocked;
            self.line_up(id);
        }
    }

    /// The oldest request of the handle that was taken off and not charged kept the BMC busy for so long.
    pub fn charge(&mut self, id: HandleId, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(MOST_AHEAD_US);
        if took > 0 {
            self.estimate_us = (self.estimate_us * 7 + took).div_ceil(8);
        }
        self.busy_us += took;
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let Some(expected) = flow.in_service.pop_front() else { return };
        let line = &mut self.lines[flow.class as usize];
        let tag = &mut flow.tags[flow.class as usize];
        line.in_service = line.in_service.saturating_sub(1);
        *tag = (*tag + took).saturating_sub(expected).min(line.virtual_time + MOST_AHEAD_US);
        if let Some(place) = flow.place {
            line.ready.remove(&(place, id));
            let place = (place.0, *tag, place.2);
            line.ready.insert((place, id));
            flow.place = Some(place);
        }
    }

    /// The request whose turn it is.
    pub fn next(&mut self) -> Option<Token> {
        if let Some(token) = self.own.pop_front() {
            return Some(token);
        }
        let waits = |class: &usize| !self.lines[*class].ready.is_empty();
        let waiting: Vec<usize> = (0..Class::COUNT).filter(waits).collect();
        let overdue = |class: &&usize| self.lines[**class].passed_over >= PASSED_OVER;
        let chosen = *waiting.iter().rev().find(overdue).or(waiting.first())?;
        for class in waiting {
            let passed_over = &mut self.lines[class].passed_over;
            *passed_over = if class == chosen { 0 } else { *passed_over + 1 };
        }
        let line = &mut self.lines[chosen];
        let longest = line.arrived.values().next().and_then(|id| Some((*id, self.flows.get(id)?)));
        let overdue = longest.filter(|(_, flow)| {
            let (turns, busy_us) = flow.lined_up;
            self.turns - turns > 2 * line.round() && self.busy_us - busy_us > LONGEST_WAIT_US
        });
        let overdue = overdue.and_then(|(id, flow)| Some((flow.place?, id)));
        let (place, id) = overdue.or(line.ready.first().copied())?;
        line.leave(place, id);
        let (_, tag, _) = place;
        self.turns += 1;
        line.virtual_time = line.virtual_time.max(tag);
        line.in_service += 1;
        let flow = self.flows.get_mut(&id).expect("who stands in line has a flow");
        flow.place = None;
        flow.served = Some(self.turns);
        flow.tags[chosen] = tag + self.estimate_us;
        flow.in_service.push_back(self.estimate_us);
        let token = flow.queue.pop_front();
        self.line_up(id);
        token
    }

    /// Flows, and requests of the mux's own.
    pub fn len(&self) -> usize {
        self.flows.len() + self.own.len()
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
        let next = turns(&mut scheduler, 5, |_| 3);
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
    /// Two commands are with the BMC at a time, which takes 4.7 ms for each.
    #[test]
    fn one_who_asks_seldom_does_not_wait_for_those_who_flood() {
        for think_ms in [0, 1, 5, 20, 60, 150] {
            let mut scheduler = Scheduler::default();
            let polite = 65;
            let mut sends_at: Vec<u64> = (0..=polite).map(|id| id * 100).collect();
            sends_at[65] = 1_000_000;
            let mut sent_at = vec![0; 66];
            let mut with_bmc = VecDeque::new();
            let mut served = [0u64; 66];
            let mut longest = 0;
            let mut now_us = 0;
            while now_us < 20_000_000 {
                for id in 1..=polite {
                    if sends_at[id as usize] <= now_us {
                        sends_at[id as usize] = u64::MAX;
                        sent_at[id as usize] = now_us;
                        scheduler.push(HandleId(id), Class::Normal, Token(id));
                    }
                }
                while with_bmc.len() < 2 {
                    let Some(token) = scheduler.next() else { break };
                    with_bmc.push_back(token.0);
                }
                now_us += 100;
                if now_us % 4_700 == 0
                    && let Some(id) = with_bmc.pop_front()
                {
                    scheduler.charge(HandleId(id), Duration::from_micros(4_700));
                    served[id as usize] += 1;
                    let pause = if id == polite { 500 } else { think_ms * (1 + id % 3) / 2 };
                    sends_at[id as usize] = now_us + pause * 1000;
                    if id == polite {
                        longest = longest.max(now_us - sent_at[id as usize]);
                    }
                }
            }
            // Two that are with the BMC, its own, and a few that just had less than their share. Where the
            // others pause for half a round themselves, they ask seldom too.
            let bound = if think_ms <= 20 { 6 * 4_700 } else { 150_000 };
            assert!(longest <= bound, "think {think_ms}: the polite one waited {longest} us");
            let (least, most) =
                (served[1..65].iter().min().unwrap(), served[1..65].iter().max().unwrap());
            // With long pauses it is the pauses that differ.
            let even = if think_ms <= 20 { most / 6 } else { most / 2 };
            assert!(most - least <= even, "think {think_ms}: between {least} and {most}");
        }
    }

    /// One of 300 has a command that takes 200 ms by chance: that is not held against it for minutes.
    #[test]
    fn nobody_starves_for_one_slow_command() {
        let mut scheduler = Scheduler::default();
        let mut last = vec![0u64; 301];
        let mut longest = 0;
        for id in 1..=300 {
            scheduler.push(HandleId(id), Class::Normal, Token(id));
        }
        for turn in 1..6000u64 {
            let Token(id) = scheduler.next().unwrap();
            longest = longest.max(turn - last[id as usize]);
            last[id as usize] = turn;
            let took = if turn % 97 == 0 { 200 } else { 4 };
            scheduler.charge(HandleId(id), Duration::from_millis(took));
            scheduler.push(HandleId(id), Class::Normal, Token(id));
        }
        let longest = last[1..].iter().map(|last| 6000 - last).max().unwrap().max(longest);
        assert!(longest <= 3 * 300, "somebody waited {longest} turns");
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
