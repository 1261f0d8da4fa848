// SPDX-License-Identifier: MIT OR Apache-2.0
//! A flag that all threads of the agent look at.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Set once, for good.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    /// Tells all.
    pub fn set(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is set, at most for a time.
    pub fn wait(&self, limit: Duration) {
        let set = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever is woken too early only looks once more.
        drop(self.0.1.wait_timeout_while(set, limit, |set| !*set));
    }
}
