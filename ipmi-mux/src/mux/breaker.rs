// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeps requests from piling up before a BMC that does not answer. After some commands in a row
//! without an answer the breaker is open: what needs the BMC is answered at once with a time-out, and
//! the mux asks by itself from time to time whether the BMC is back.

use std::time::{Duration, Instant};

/// Commands in a row without an answer, until we stop asking: as many as are with the driver at a time.
/// One alone may be a command that this BMC cannot digest.
const FAILURES: u32 = 2;
/// Between questions to a BMC that does not answer.
pub(super) const PROBE_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { probe_at: Instant },
}

#[derive(Debug)]
pub(super) struct Breaker(State);

impl Default for Breaker {
    fn default() -> Self {
        Self(State::Closed { failures: 0 })
    }
}

impl Breaker {
    pub fn is_open(&self) -> bool {
        matches!(self.0, State::Open { .. })
    }

    /// When the next question is due.
    pub fn probe_at(&self) -> Option<Instant> {
        match self.0 {
            State::Open { probe_at } => Some(probe_at),
            State::Closed { .. } => None,
        }
    }

    /// A command had no answer. Returns whether this opened the breaker.
    pub fn failed(&mut self, now: Instant) -> bool {
        match &mut self.0 {
            State::Closed { failures } => {
                *failures += 1;
                let opens = *failures >= FAILURES;
                if opens {
                    self.0 = State::Open { probe_at: now + PROBE_EVERY };
                }
                opens
            }
            State::Open { .. } => false,
        }
    }

    /// A question is on its way, or cannot go now.
    pub fn asked(&mut self, now: Instant) {
        if let State::Open { probe_at } = &mut self.0 {
            *probe_at = now + PROBE_EVERY;
        }
    }

    /// The BMC answered something. Returns whether this closed the breaker.
    pub fn heard(&mut self) -> bool {
        let was_open = self.is_open();
        self.0 = State::Closed { failures: 0 };
        was_open
    }
}
