// SPDX-License-Identifier: MIT OR Apache-2.0
//! Time as the cores are told it.

use std::time::Duration;

use tokio::time::Instant;

use crate::core::Micros;

/// Since the start of the program.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// Begins now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.0.elapsed().as_micros() as Micros
    }

    /// Whether that time has passed long enough ago that it is not only just being noticed.
    #[must_use]
    pub fn is_overdue(&self, time: Micros) -> bool {
        self.now() > time.saturating_add(50_000)
    }

    /// When it will be that time; no later than in a second, so that a clock of a core is never far off.
    #[must_use]
    pub fn at(&self, time: Micros) -> Instant {
        self.0 + Duration::from_micros(time.min(self.now() + 1_000_000))
    }
}

/// Seconds since 1970.
#[must_use]
pub fn unix_time() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// A random number.
///
/// # Errors
/// The kernel has none.
pub fn random() -> std::io::Result<u32> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(std::io::Error::from)?;
    Ok(u32::from_le_bytes(bytes))
}
