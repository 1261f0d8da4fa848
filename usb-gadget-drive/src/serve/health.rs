// SPDX-License-Identifier: MIT OR Apache-2.0
//! What last went wrong with the device behind a source: once into the log, and kept for the operator.

use daemon_kit::utc::date_time;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::seldom::Seldom;

/// Of one source.
#[derive(Debug)]
pub struct Health {
    name: String,
    /// In words, and when: seconds since 1970.
    last: Mutex<Option<(String, u64)>>,
    /// A full disk fails each write.
    said: Seldom,
}

impl Health {
    /// Nothing has failed yet. `name` is what people call the source.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), last: Mutex::default(), said: Seldom::default() }
    }

    /// A read, write or the like failed.
    pub fn failed(&self, what: &str, error: &io::Error) {
        let failure = format!("{what}: {error}");
        if self.said.may(&failure, Instant::now()) {
            tracing::error!(source = self.name, failure, "a device failed");
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((failure, at));
    }

    /// The last failure in words, and when it was.
    #[must_use]
    pub fn show(&self) -> Option<String> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref()
            .map(|(failure, at)| format!("{}: {failure} at {} UTC", self.name, date_time(*at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_failure_is_told() {
        let health = Health::new("base");
        assert_eq!(health.show(), None);
        health.failed("read", &io::Error::other("first"));
        health.failed("write", &io::Error::other("second"));
        let shown = health.show().unwrap();
        assert!(shown.starts_with("base: write: second at 2"), "{shown}");
    }
}
