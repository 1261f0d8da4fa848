// SPDX-License-Identifier: MIT OR Apache-2.0
//! The threads of one connection that do what has to wait, so that its other requests need not.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::job::{Job, Served};
use super::output::Output;
use crate::nbd::MAX_SERVED;

/// Threads of one connection besides its own. Disks and networks gain little beyond it.
pub const MAX_WORKERS: usize = 8;
/// Requests of one connection that wait for a device at a time. The Linux client sends 128.
pub const MAX_JOBS: usize = 256;
/// Their data, bytes; one of the largest requests always fits.
pub const MAX_JOB_BYTES: usize = MAX_SERVED as usize;
/// Of a thread; the largest thing on it are 64 KiB of zeroes.
const STACK: usize = 512 << 10;

/// The workers of one connection. Dropping them waits until all is done.
pub struct Workers {
    pool: Arc<Pool>,
    threads: Vec<JoinHandle<()>>,
}

struct Pool {
    served: Arc<Served>,
    state: Mutex<State>,
    /// There is a job, or none will come.
    work: Condvar,
    /// A job is done.
    room: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// Jobs waiting and being done, and their bytes.
    jobs: usize,
    bytes: usize,
    idle: usize,
    ending: bool,
}

impl Workers {
    /// For the jobs of `served`. Threads begin with the jobs.
    #[must_use]
    pub fn new(served: Arc<Served>) -> Self {
        let pool =
            Pool { served, state: Mutex::default(), work: Condvar::new(), room: Condvar::new() };
        Self { pool: Arc::new(pool), threads: vec![] }
    }

    /// Whether `submit` has to wait before it takes a job with so many bytes.
    #[must_use]
    pub fn is_full(&self, bytes: usize) -> bool {
        self.pool.lock().is_full(bytes)
    }

    /// Has a job done, at some time and by whatever thread; waits for room.
    ///
    /// # Errors
    /// There is no thread, nor can one be had.
    pub fn submit(&mut self, job: Job) -> io::Result<()> {
        let bytes = job.bytes();
        let mut state = self.pool.lock();
        while state.is_full(bytes) {
            state = self.pool.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.jobs += 1;
        state.bytes += bytes;
        state.waiting.push_back(job);
        let wanted = state.waiting.len() > state.idle && self.threads.len() < MAX_WORKERS;
        drop(state);
        self.pool.work.notify_one();
        if wanted {
            let pool = Arc::clone(&self.pool);
            let thread = thread::Builder::new().name("nbd-worker".to_owned()).stack_size(STACK);
            match thread.spawn(move || pool.run()) {
                Ok(thread) => self.threads.push(thread),
                Err(error) if self.threads.is_empty() => return Err(error),
                // Those that there are will do.
                Err(_) => {}
            }
        }
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.pool.lock().ending = true;
        self.pool.work.notify_all();
        for thread in self.threads.drain(..) {
            // A panic of it has been reported.
            let _ = thread.join();
        }
    }
}

impl Pool {
    fn run(&self) {
        let mut out = Output::default();
        while let Some(job) = self.next() {
            let bytes = job.bytes();
            if job.run(&self.served, &mut out).and_then(|()| out.send(&self.served.link)).is_err() {
                // A reply is lost: the client must not go on as if none were.
                self.served.link.socket().cut();
                out.discard();
            }
            let mut state = self.lock();
            state.jobs -= 1;
            state.bytes -= bytes;
            drop(state);
            self.room.notify_all();
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.waiting.pop_front() {
                return Some(job);
            }
            if state.ending {
                return None;
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_full(&self, bytes: usize) -> bool {
        self.jobs >= MAX_JOBS || self.jobs > 0 && self.bytes + bytes > MAX_JOB_BYTES
    }
}
