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
pub(super) struct Breaker {
    state: State,
    /// The highest number of a command that the BMC answered.
    heard: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed { failures: 0 }, heard: 0 }
    }
}

impl Breaker {
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// When the next question is due.
    pub fn probe_at(&self) -> Option<Instant> {
        match self.state {
            State::Open { probe_at } => Some(probe_at),
            State::Closed { .. } => None,
        }
    }

    /// The command of this number had no answer. If the BMC answered a later one, this one was lost, and
    /// the BMC is there. Returns whether this opened the breaker.
    pub fn failed(&mut self, now: Instant, number: u64) -> bool {
        if self.heard > number {
            return false;
        }
        match &mut self.state {
            State::Closed { failures } => {
                *failures += 1;
                let opens = *failures >= FAILURES;
                if opens {
                    self.state = State::Open { probe_at: now + PROBE_EVERY };
                }
                opens
            }
            State::Open { .. } => false,
        }
    }

    /// A question is on its way, or cannot go now.
    pub fn asked(&mut self, now: Instant) {
        if let State::Open { probe_at } = &mut self.state {
            *probe_at = now + PROBE_EVERY;
        }
    }

    /// The BMC answered the command of this number; 0 where that is not known. Returns whether this closed the breaker.
    pub fn heard(&mut self, number: u64) -> bool {
        self.heard = self.heard.max(number);
        let was_open = self.is_open();
        self.state = State::Closed { failures: 0 };
        was_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_commands_are_no_hung_bmc() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        breaker.heard(3);
        assert!(!breaker.failed(now, 1) && !breaker.failed(now, 2));
        assert!(!breaker.failed(now, 4));
        assert!(breaker.failed(now, 5), "two after the last that was answered");
        assert!(breaker.is_open() && breaker.probe_at() == Some(now + PROBE_EVERY));
        assert!(breaker.heard(0) && !breaker.is_open());
    }
}
