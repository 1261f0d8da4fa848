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
    /// When the BMC answered last.
    heard: Option<Instant>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed { failures: 0 }, heard: None }
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

    /// A command that was sent at `sent` had no answer. If the BMC answered another one meanwhile, it was
    /// lost, and the BMC is there. Returns whether this opened the breaker.
    pub fn failed(&mut self, now: Instant, sent: Instant) -> bool {
        if self.heard.is_some_and(|heard| heard > sent) {
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

    /// The BMC answered something. Returns whether this closed the breaker.
    pub fn heard(&mut self, now: Instant) -> bool {
        self.heard = Some(now);
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
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        breaker.heard(at(3));
        assert!(!breaker.failed(at(6), at(1)) && !breaker.failed(at(6), at(2)));
        assert!(!breaker.failed(at(6), at(4)));
        assert!(breaker.failed(at(6), at(4)), "two after it was heard of last");
        assert!(breaker.is_open() && breaker.probe_at() == Some(at(6) + PROBE_EVERY));
        assert!(breaker.heard(at(7)) && !breaker.is_open());
    }
}
