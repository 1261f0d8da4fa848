// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages that strangers can cause as often as they like must not fill the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The same message comes again after so long.
const SAME: Duration = Duration::from_secs(60);
/// Any message comes after so long.
const OTHER: Duration = Duration::from_secs(1);

/// What was said last, and when.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Option<(String, Instant)>>);

impl Seldom {
    /// Whether this may be said now. It counts as said then.
    #[must_use]
    pub fn may(&self, text: &str, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = |(before, at): &(String, Instant)| {
            now.saturating_duration_since(*at) < if before == text { SAME } else { OTHER }
        };
        if last.as_ref().is_some_and(pause) {
            return false;
        }
        *last = Some((text.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_trickle() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!(seldom.may("a", at(0)));
        assert!(!seldom.may("b", at(999)));
        assert!(seldom.may("b", at(1000)));
        assert!(!seldom.may("b", at(60_999)));
        assert!(seldom.may("b", at(61_000)));
    }
}
