// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where values come from. Each source is read in a thread, since what it reads may hang: a bus held low, a file server
//! that is gone. All chips on one I2C bus share a thread, and so do sources that never hang.

pub mod filesystems;
pub mod hwmon;
pub mod ipmi;
pub mod kept;
pub mod smbus;
pub mod system;
pub mod worker;

use std::time::Duration;

use crate::core::{Batch, Now};

/// Whose a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// This machine's.
    Own,
    /// The chassis', which the active manager alone reads.
    Midplane,
}

/// Something that can be read again and again.
pub trait Source: Send {
    /// Its name, to add and to remove it by.
    fn name(&self) -> &str;

    /// Whose its values are.
    fn whose(&self) -> Whose {
        Whose::Own
    }

    /// How often it is to be read.
    fn interval(&self) -> Duration;

    /// Reads it. It may take its time; its thread has others that wait for it.
    fn read(&mut self, now: Now) -> Batch;
}

/// Both clocks, now.
#[must_use]
pub fn now() -> Now {
    use rustix::time::{ClockId, clock_gettime};
    let ms = |id| {
        let time = clock_gettime(id);
        let ms = time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000);
        u64::try_from(ms).unwrap_or(0)
    };
    Now { mono: ms(ClockId::Boottime), wall: ms(ClockId::Realtime) }
}

/// Milliseconds of an interval, for metas.
fn ms(interval: Duration) -> u32 {
    u32::try_from(interval.as_millis()).unwrap_or(u32::MAX)
}

/// How much a counter grew in a second. None at the first look, and when it went back: it was reset, or has another
/// width than 64 bits.
#[derive(Debug, Clone, Copy, Default)]
struct Rate(Option<(u64, u64)>);

impl Rate {
    fn of(&mut self, now: u64, total: u64) -> Option<f64> {
        let before = self.0.replace((now, total));
        let (then, was) = before?;
        let seconds = now.checked_sub(then).filter(|ms| *ms > 0)? as f64 / 1000.0;
        Some(total.checked_sub(was)? as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let mut rate = Rate::default();
        assert_eq!(rate.of(1000, 10), None);
        assert_eq!(rate.of(3000, 20), Some(5.0));
        assert_eq!(rate.of(4000, 5), None);
        assert_eq!(rate.of(4000, 9), None);
        assert_eq!(rate.of(5000, 9), Some(0.0));
    }
}
