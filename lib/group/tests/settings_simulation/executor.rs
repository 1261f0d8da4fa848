// SPDX-License-Identifier: MIT OR Apache-2.0
//! One executor: its log is fed in any order and any number of times, its journal is as a disk is, and it is killed at any step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use group::settings::executor::{Action, Event, Executor, Record};
use group::settings::{
    MemberId, NotBegun, Order, OrderId, OrderResult, Ordered, Origin, Position, Reign,
};
use seeds::{Failure, Figures, Rng};

const OWN: MemberId = MemberId([1; 16]);

#[derive(Default)]
struct Life {
    journal: BTreeMap<OrderId, Record>,
    pending: VecDeque<Action>,
    running: Vec<OrderId>,
    executed: BTreeSet<OrderId>,
    /// The newest order that was begun, by subject.
    newest: BTreeMap<String, Position>,
    results: BTreeMap<OrderId, OrderResult>,
    log: Vec<String>,
}

fn orders(rng: &mut Rng) -> Vec<Ordered> {
    let order = |n: u8, rng: &mut Rng| Ordered {
        order: Order {
            id: OrderId([n; 16]),
            to: OWN,
            subject: format!("slot {}", rng.below(2)),
            what: vec![n],
            deadline: rng.between(1000, 9000),
            expect_boot: rng.permille(200).then(|| [u8::from(rng.permille(500)); 16]),
        },
        who: Origin::program(OWN),
        position: Position {
            reign: Reign { number: rng.below(2), by: OWN },
            term: rng.between(1, 3),
            index: u64::from(n),
        },
        result: None,
    };
    (0..6).map(|n| order(n, rng)).collect()
}

impl Life {
    fn fail(&self, what: &str, id: OrderId) -> Failure {
        Failure { what: format!("{what}: {id}"), log: self.log.clone() }
    }

    fn begin(&mut self, record: &Record, resume: bool) -> Result<(), Failure> {
        let id = record.order.id;
        let on_disk = self.journal.get(&id);
        if on_disk != Some(record) || record.result.is_some() {
            return Err(self.fail("done before it is on disk, or after it has ended", id));
        }
        if !resume && !self.executed.insert(id) {
            return Err(self.fail("done twice", id));
        }
        if !resume {
            let subject = record.order.subject.clone();
            let newest = self.newest.entry(subject).or_default();
            if *newest > record.position {
                return Err(self.fail("an older order after a newer one", id));
            }
            *newest = record.position;
        }
        let same = |other: &OrderId| {
            self.journal.get(other).is_some_and(|o| o.order.subject == record.order.subject)
        };
        if self.running.iter().any(same) {
            return Err(self.fail("two at once for a subject", id));
        }
        self.running.push(id);
        Ok(())
    }

    fn act(
        &mut self,
        executor: &mut Executor,
        rng: &mut Rng,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let Some(action) = self.pending.pop_front() else { return Ok(()) };
        self.log.push(format!("{action:?}"));
        match action {
            Action::Journal(record) => {
                let id = record.order.id;
                if let Some(OrderResult::NotBegun(NotBegun::Stale)) = record.result {
                    *figures.entry("stale orders refused").or_default() += 1;
                }
                self.journal.insert(id, record);
                // Killed when it is on disk, before it is known to be.
                if rng.permille(950) {
                    self.pending.extend(executor.handle(Event::Journaled(id)));
                }
            }
            Action::Execute(record) => self.begin(&record, false)?,
            Action::Resume(record) => {
                *figures.entry("orders resumed").or_default() += 1;
                self.begin(&record, true)?;
            }
            Action::Report(id, result) => {
                let on_disk = self.journal.get(&id).and_then(|record| record.result.clone());
                if on_disk.as_ref() != Some(&result) {
                    return Err(self.fail("told before it is on disk", id));
                }
                if *self.results.entry(id).or_insert_with(|| result.clone()) != result {
                    return Err(self.fail("two results", id));
                }
                let begun = !matches!(result, OrderResult::NotBegun(_));
                if !begun && self.executed.contains(&id) {
                    return Err(self.fail("done, and said not to be", id));
                }
            }
            Action::Forget(id) => {
                self.journal.remove(&id);
            }
        }
        Ok(())
    }
}

pub fn live(seed: u64, figures: &mut Figures) -> Result<(), Failure> {
    let mut rng = Rng::new(seed ^ 0x5eed);
    let orders = orders(&mut rng);
    let mut life = Life::default();
    let (mut executor, _) = Executor::new([0; 16], true, vec![]);
    let mut now = 0;
    for _ in 0..300 {
        let step = rng.below(100);
        match step {
            0..30 => {
                let mut ordered = rng.pick(&orders).clone();
                ordered.result = None;
                life.log.push(format!("committed {}", ordered.order.id));
                life.pending.extend(executor.handle(Event::Committed(ordered)));
            }
            30..75 => life.act(&mut executor, &mut rng, figures)?,
            75..85 if !life.running.is_empty() => {
                let at = rng.index(life.running.len());
                let id = life.running.swap_remove(at);
                let result = OrderResult::Done(vec![rng.byte()]);
                life.log.push(format!("done {id}"));
                life.pending.extend(executor.handle(Event::Done(id, result)));
            }
            85..92 => {
                now += rng.below(600);
                life.pending.extend(executor.handle(Event::Now(now)));
            }
            92..96 => {
                if let Some(id) = life.results.keys().next() {
                    life.pending.extend(executor.handle(Event::Recorded(*id)));
                }
            }
            96..98 => {
                *figures.entry("executors killed").or_default() += 1;
                life.log.push("killed".to_owned());
                life.running.clear();
                life.pending.clear();
                let boot = [u8::from(rng.permille(300)); 16];
                let records = life.journal.values().cloned().collect();
                let (again, actions) = Executor::new(boot, true, records);
                executor = again;
                life.pending.extend(actions);
                life.pending.extend(executor.handle(Event::Now(now)));
            }
            _ => {}
        }
    }
    Ok(())
}
