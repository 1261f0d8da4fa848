// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads that read sources, each at its time. A thread that hangs holds its own sources and nothing else: what it does
//! not tell becomes stale.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Source, Whose, now};
use crate::core::Batch;

/// Batches that wait for the main loop; more are left out, and the values missed.
pub const MAX_BATCHES: usize = 256;

/// What a thread is told.
enum Command {
    Add(Box<dyn Source>),
    Remove(String),
}

/// All threads, by name.
#[derive(Debug)]
pub struct Workers {
    threads: BTreeMap<String, Sender<Command>>,
    out: mpsc::Sender<(Whose, Batch)>,
    manager: Arc<AtomicBool>,
}

impl Workers {
    /// None yet. `manager` says whether this machine is the active manager, who alone reads the midplane.
    #[must_use]
    pub fn new(out: mpsc::Sender<(Whose, Batch)>, manager: Arc<AtomicBool>) -> Self {
        Self { threads: BTreeMap::new(), out, manager }
    }

    /// A thread is to read a source from now on; it is made if there is none of that name.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn add(&mut self, thread: &str, source: Box<dyn Source>) -> io::Result<()> {
        if !self.threads.contains_key(thread) {
            let (sender, receiver) = channel();
            let (out, manager) = (self.out.clone(), self.manager.clone());
            let name: String = thread.chars().take(15).collect();
            let worker = Worker { sources: vec![], out, manager };
            std::thread::Builder::new().name(name).spawn(move || worker.run(&receiver))?;
            self.threads.insert(thread.to_owned(), sender);
        }
        let Some(sender) = self.threads.get(thread) else { return Ok(()) };
        let _ = sender.send(Command::Add(source));
        Ok(())
    }

    /// A source is no more.
    pub fn remove(&mut self, thread: &str, source: &str) {
        if let Some(sender) = self.threads.get(thread) {
            let _ = sender.send(Command::Remove(source.to_owned()));
        }
    }
}

struct Worker {
    sources: Vec<(u64, Box<dyn Source>)>,
    out: mpsc::Sender<(Whose, Batch)>,
    manager: Arc<AtomicBool>,
}

/// The next multiple of an interval: sources of all threads are read in the same moment, and the machine sleeps between.
fn next(now: u64, interval: Duration) -> u64 {
    let every = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(10);
    (now / every + 1).saturating_mul(every)
}

impl Worker {
    fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let time = now().mono;
            let due = self.sources.iter().map(|(at, _)| *at).min();
            let wait = due.map_or(3_600_000, |due| due.saturating_sub(time));
            match commands.recv_timeout(Duration::from_millis(wait)) {
                Ok(Command::Add(source)) => {
                    self.sources.retain(|(_, old)| old.name() != source.name());
                    self.sources.push((0, source));
                }
                Ok(Command::Remove(name)) => self.sources.retain(|(_, old)| old.name() != name),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.read_due();
        }
    }

    fn read_due(&mut self) {
        for (at, source) in &mut self.sources {
            let time = now();
            if *at > time.mono {
                continue;
            }
            let is_manager = self.manager.load(Ordering::Acquire);
            if source.whose() == Whose::Own || is_manager {
                let batch = source.read(time);
                // A full channel: the main loop is stuck, and the watchdog will end it.
                let _ = self.out.try_send((source.whose(), batch));
            }
            *at = next(now().mono, source.interval());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Now;

    struct Counting(Whose, u32);

    impl Source for Counting {
        fn name(&self) -> &str {
            "counting"
        }

        fn whose(&self) -> Whose {
            self.0
        }

        fn interval(&self) -> Duration {
            Duration::from_millis(10)
        }

        fn read(&mut self, _: Now) -> Batch {
            self.1 += 1;
            Batch { source: self.1.to_string(), readings: vec![], complete: false }
        }
    }

    #[test]
    fn the_midplane_is_read_by_the_manager_alone() {
        let (out, mut batches) = mpsc::channel(MAX_BATCHES);
        let manager = Arc::new(AtomicBool::new(false));
        let mut workers = Workers::new(out, manager.clone());
        workers.add("m", Box::new(Counting(Whose::Midplane, 0))).unwrap();
        workers.add("o", Box::new(Counting(Whose::Own, 0))).unwrap();
        for number in ["1", "2", "3"] {
            let (whose, batch) = batches.blocking_recv().unwrap();
            assert_eq!((whose, batch.source.as_str()), (Whose::Own, number));
        }
        manager.store(true, Ordering::Release);
        while batches.blocking_recv().unwrap().0 != Whose::Midplane {}
        workers.remove("o", "counting");
        // What was read before that is still told; then there is the midplane's alone.
        let mut alone = 0;
        while alone < 3 {
            let midplane = batches.blocking_recv().unwrap().0 == Whose::Midplane;
            alone = if midplane { alone + 1 } else { 0 };
        }
    }

    #[test]
    fn all_are_read_in_the_same_moment() {
        assert_eq!(next(1_234, Duration::from_secs(1)), 2_000);
        assert_eq!(next(2_000, Duration::from_secs(1)), 3_000);
        assert_eq!(next(2_000, Duration::from_secs(10)), 10_000);
    }
}
