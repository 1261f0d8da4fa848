// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carries out what the [`Executor`] says: journal, program, and the results into the log.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::change::{Change, MAX_RESULT, OrderDone, OrderId, OrderResult, Origin};
use super::executor::{Action, Event, Executor, Record};
use super::journal::Journal;
use super::network::Boxed;
use super::{Inner, PAUSE};

/// Most results that are on their way into the log at a time.
const MAX_REPORTS: usize = 16;

/// What does things. One order for a subject is under way at a time.
pub trait Program: Send + Sync + 'static {
    /// Does what the order says. With `resume` it was begun before, in the boot that the record names, and may be
    /// done in part or whole: what is wanted is to be compared with what is.
    ///
    /// The result is at most [`MAX_RESULT`] bytes; more is cut off.
    fn execute(&self, record: Record, resume: bool) -> Boxed<'static, Result<Vec<u8>, String>>;
}

enum Ended {
    Executed(OrderId, OrderResult),
    Reported,
}

/// See the module.
pub struct Orders {
    inner: Arc<Inner>,
    executor: Executor,
    journal: Journal,
    actions: VecDeque<Action>,
    tasks: JoinSet<Ended>,
    reports: usize,
}

impl Orders {
    /// With what the journal had.
    pub fn new(inner: Arc<Inner>, journal: Journal, records: Vec<Record>) -> Self {
        let program = inner.options.program.is_some();
        let (executor, actions) = Executor::new(inner.options.boot, program, records);
        let actions = actions.into();
        Self { inner, executor, journal, actions, tasks: JoinSet::new(), reports: 0 }
    }

    /// Until the caller ends it.
    pub async fn run(mut self) {
        loop {
            self.feed();
            self.obey().await;
            let mut slot = self.inner.slot.subscribe();
            slot.mark_unchanged();
            let mut changed = self.inner.view().map(|view| view.changed());
            let changed = async {
                match &mut changed {
                    Some(changed) => drop(changed.changed().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(ended) = self.tasks.join_next() => {
                    // A program that panics has not ended its order: it is resumed with the next start.
                    if let Ok(ended) = ended {
                        self.ended(ended);
                    }
                }
                () = changed => {}
                _ = slot.changed() => {}
                () = tokio::time::sleep(10 * PAUSE) => {}
            }
        }
    }

    fn say(&mut self, event: Event) {
        self.actions.extend(self.executor.handle(event));
    }

    fn ended(&mut self, ended: Ended) {
        match ended {
            Ended::Executed(id, result) => self.say(Event::Done(id, result)),
            Ended::Reported => self.reports -= 1,
        }
    }

    /// Tells the executor what the log has for it.
    fn feed(&mut self) {
        let now = (self.inner.options.now)();
        let mut events = vec![Event::Now(now)];
        if let Some(view) = self.inner.view() {
            let own = self.inner.hub.own;
            let contents = view.contents();
            let open = contents.state.orders().filter(|o| o.order.to == own && o.result.is_none());
            events.extend(open.cloned().map(Event::Committed));
            let recorded = |id: &OrderId| {
                contents.state.order(*id).is_some_and(|ordered| ordered.result.is_some())
            };
            events.extend(self.executor.untold().filter(recorded).map(Event::Recorded));
        }
        for event in events {
            self.say(event);
        }
    }

    async fn obey(&mut self) {
        let mut forget = vec![];
        while let Some(action) = self.actions.pop_front() {
            match action {
                Action::Journal(record) => {
                    self.put(&record).await;
                    self.say(Event::Journaled(record.order.id));
                }
                Action::Execute(record) => self.execute(record, false),
                Action::Resume(record) => self.execute(record, true),
                Action::Report(id, result) => self.report(id, result),
                Action::Forget(id) => forget.push(id),
            }
        }
        if !forget.is_empty()
            && let Err(error) = self.journal.forget(forget).await
        {
            // They come again with the next start, and are forgotten then.
            tracing::warn!(%error, "old orders are not forgotten");
        }
    }

    /// Until it is there: nothing may be done or told before.
    async fn put(&mut self, record: &Record) {
        while let Err(error) = self.journal.put(record).await {
            tracing::error!(%error, order = %record.order.id, "an order waits for the journal");
            tokio::time::sleep(10 * PAUSE).await;
        }
    }

    fn execute(&mut self, record: Record, resume: bool) {
        let Some(program) = self.inner.options.program.clone() else { return };
        let id = record.order.id;
        self.tasks.spawn(async move {
            let result = match program.execute(record, resume).await {
                Ok(mut bytes) => {
                    bytes.truncate(MAX_RESULT);
                    OrderResult::Done(bytes)
                }
                Err(why) => OrderResult::Failed(why.chars().take(MAX_RESULT / 4).collect()),
            };
            Ended::Executed(id, result)
        });
    }

    fn report(&mut self, id: OrderId, result: OrderResult) {
        // The executor says it again.
        if self.reports == MAX_REPORTS {
            return;
        }
        self.reports += 1;
        let inner = self.inner.clone();
        self.tasks.spawn(async move {
            let who = Origin::program(inner.hub.own);
            let done = Change::OrderDone(OrderDone { id, result });
            if let Err(error) = inner.propose(&done, who).await {
                tracing::debug!(%error, order = %id, "a result is not in the log yet");
            }
            Ended::Reported
        });
    }
}
