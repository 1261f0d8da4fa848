// SPDX-License-Identifier: MIT OR Apache-2.0
//! All that can happen to two orders, for one subject or two, with crashes at any step.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::*;
use crate::settings::types::{MemberId, Reign};

const OWN: MemberId = MemberId([1; 16]);
/// Crashes on a path: one amid what another left behind.
const CRASHES: u8 = 2;
const DEADLINE: u64 = 10;

fn order(n: u8) -> Ordered {
    let order = Order {
        id: OrderId([n; 16]),
        to: OWN,
        subject: format!("{}", n / 2),
        what: vec![n],
        deadline: DEADLINE,
        expect_boot: (n == 2).then_some([0; 16]),
    };
    let position = Position { reign: Reign::default(), term: 1, index: u64::from(n) };
    Ordered { order, who: Origin::program(OWN), position, result: None }
}

/// The executor, what is on disk and in the log, and what was done.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    orders: [u8; 2],
    executor: Executor,
    actions: VecDeque<Action>,
    journal: BTreeMap<OrderId, Record>,
    running: Vec<OrderId>,
    /// How often it was begun, and whether what it does is done.
    begun: BTreeMap<OrderId, u8>,
    effects: BTreeMap<OrderId, bool>,
    log: BTreeMap<OrderId, OrderResult>,
    crashes: u8,
    late: bool,
    boot: u8,
}

impl World {
    fn new(orders: [u8; 2]) -> Self {
        let (executor, actions) = Executor::new([0; 16], true, vec![]);
        Self {
            orders,
            executor,
            actions: actions.into(),
            journal: BTreeMap::new(),
            running: vec![],
            begun: BTreeMap::new(),
            effects: BTreeMap::new(),
            log: BTreeMap::new(),
            crashes: 0,
            late: false,
            boot: 0,
        }
    }

    fn say(&mut self, event: Event) {
        self.actions.extend(self.executor.handle(event));
    }

    fn begin(&mut self, record: &Record, resume: bool) {
        let id = record.order.id;
        assert_eq!(self.journal.get(&id), Some(record), "it is not on disk");
        assert_eq!(record.result, None, "it has ended");
        if !resume {
            let count = self.begun.entry(id).or_default();
            *count += 1;
            assert_eq!(*count, 1, "{id} is begun twice");
            let newer = self.begun.keys().any(|other| other.0[0] / 2 == id.0[0] / 2 && other > &id);
            assert!(!newer, "{id} comes after a newer one");
        }
        self.running.push(id);
    }

    /// The next action, carried out whole.
    fn act(&mut self) {
        match self.actions.pop_front() {
            Some(Action::Journal(record)) => {
                let id = record.order.id;
                self.journal.insert(id, record);
                self.say(Event::Journaled(id));
            }
            Some(Action::Execute(record)) => self.begin(&record, false),
            Some(Action::Resume(record)) => self.begin(&record, true),
            Some(Action::Report(id, result)) => {
                let on_disk = self.journal[&id].result.clone();
                assert_eq!(on_disk.as_ref(), Some(&result), "told before it is on disk");
                let told = self.log.entry(id).or_insert_with(|| result.clone());
                assert_eq!(*told, result, "two results");
                if matches!(result, OrderResult::NotBegun(_)) {
                    assert!(!self.begun.contains_key(&id), "done, and said not to be");
                } else {
                    assert_eq!(self.effects.get(&id), Some(&true), "said to be done");
                }
                self.say(Event::Recorded(id));
            }
            Some(Action::Forget(id)) => {
                self.journal.remove(&id);
            }
            None => {}
        }
    }

    fn crash(&mut self, boot: u8) {
        self.crashes += 1;
        self.boot = boot;
        self.running.clear();
        let records = self.journal.values().cloned().collect();
        let (executor, actions) = Executor::new([boot; 16], true, records);
        self.executor = executor;
        self.actions = actions.into();
        if self.late {
            self.say(Event::Now(DEADLINE));
        }
    }

    /// All worlds that may come next.
    fn next(&self) -> Vec<Self> {
        let mut next = vec![];
        let mut step = |change: &dyn Fn(&mut Self)| {
            let mut world = self.clone();
            change(&mut world);
            next.push(world);
        };
        for n in self.orders {
            let ordered = order(n);
            if !self.log.contains_key(&ordered.order.id) {
                step(&|world| world.say(Event::Committed(ordered.clone())));
            }
        }
        if !self.actions.is_empty() {
            step(&Self::act);
        }
        for (at, id) in self.running.iter().enumerate() {
            // What it does is done, and then it is known to be: a crash may come between.
            if self.effects.get(id) == Some(&true) {
                step(&|world| {
                    world.running.remove(at);
                    world.say(Event::Done(*id, OrderResult::Done(vec![])));
                });
            } else {
                step(&|world| {
                    world.effects.insert(*id, true);
                });
            }
        }
        if !self.late {
            step(&|world| {
                world.late = true;
                world.say(Event::Now(DEADLINE));
            });
        }
        if self.crashes < CRASHES {
            step(&|world| world.crash(world.boot));
            step(&|world| world.crash(world.boot + 1));
            // The write may be on disk though nobody has heard of it.
            if let Some(Action::Journal(record)) = self.actions.front() {
                step(&|world| {
                    world.journal.insert(record.order.id, record.clone());
                    world.crash(world.boot);
                });
            }
        }
        next
    }

    /// Left alone, with the log fed as the shell does: all orders come to their end.
    fn settle(mut self) {
        for _ in 0..20 {
            self.say(Event::Now(DEADLINE));
            for n in self.orders {
                if !self.log.contains_key(&OrderId([n; 16])) {
                    self.say(Event::Committed(order(n)));
                }
            }
            while !self.actions.is_empty() {
                self.act();
            }
            for id in std::mem::take(&mut self.running) {
                self.effects.insert(id, true);
                self.say(Event::Done(id, OrderResult::Done(vec![])));
            }
        }
        assert_eq!(self.log.len(), 2, "an order has no end: {:?}", self.executor);
    }
}

/// Returns how many worlds there are.
fn explore(orders: [u8; 2]) -> usize {
    let mut seen = HashSet::new();
    let mut open = VecDeque::from([World::new(orders)]);
    while let Some(world) = open.pop_front() {
        if world.crashes == CRASHES && world.late {
            world.clone().settle();
        }
        for next in world.next() {
            let mut hasher = DefaultHasher::new();
            next.hash(&mut hasher);
            if seen.insert(hasher.finish()) {
                open.push_back(next);
            }
        }
    }
    seen.len()
}

#[test]
fn whatever_happens_each_order_is_begun_once_and_has_one_end() {
    for orders in [[0, 1], [1, 2]] {
        let worlds = explore(orders);
        println!("{worlds} worlds");
        assert!(worlds > 1000, "{worlds} worlds only");
    }
}

#[test]
fn what_was_begun_before_a_newer_one_was_seen_and_is_older_is_refused() {
    let (mut executor, _) = Executor::new([0; 16], true, vec![]);
    let journal = |actions: Vec<Action>| match actions.into_iter().next() {
        Some(Action::Journal(record)) => record.result,
        other => panic!("{other:?}"),
    };
    assert_eq!(journal(executor.handle(Event::Committed(order(1)))), None);
    let _ = executor.handle(Event::Journaled(OrderId([1; 16])));
    let ended = Event::Done(OrderId([1; 16]), OrderResult::Done(vec![]));
    let _ = executor.handle(ended);
    let _ = executor.handle(Event::Journaled(OrderId([1; 16])));
    let stale = journal(executor.handle(Event::Committed(order(0))));
    assert_eq!(stale, Some(OrderResult::NotBegun(NotBegun::Stale)));
}

#[test]
fn the_journal_is_bounded_and_forgets_only_what_cannot_come_again() {
    let record = |n: usize| {
        let mut ended = order(0);
        ended.order.id = OrderId((n as u128 + 100).to_le_bytes());
        let Ordered { order, who, position, .. } = ended;
        let result = Some(OrderResult::Done(vec![]));
        Record { order, who, position, boot: [0; 16], result }
    };
    let journal = (0..MAX_RECORDS).map(record).collect();
    let (mut executor, actions) = Executor::new([0; 16], true, journal);
    assert_eq!(actions, []);
    let mut next = order(1);
    next.order.deadline = DEADLINE + KEEP + KEEP_UNTOLD;
    let known = executor.untold().next().expect("none was told");
    let told = executor.handle(Event::Now(DEADLINE)).len();
    assert_eq!(told, MAX_RECORDS);
    assert_eq!(executor.handle(Event::Recorded(known)), []);
    // It waits: there is no room for it.
    assert_eq!(executor.handle(Event::Committed(next.clone())), []);
    let forget =
        |actions: &[Action]| actions.iter().filter(|a| matches!(a, Action::Forget(_))).count();
    assert_eq!(forget(&executor.handle(Event::Now(DEADLINE + KEEP - 1))), 0);
    let actions = executor.handle(Event::Now(DEADLINE + KEEP));
    assert_eq!((forget(&actions), &actions[0]), (1, &Action::Forget(known)));
    assert!(matches!(actions.last(), Some(Action::Journal(record)) if record.order == next.order));
    let actions = executor.handle(Event::Now(DEADLINE + KEEP_UNTOLD));
    assert_eq!(forget(&actions), MAX_RECORDS - 1);
}
