// SPDX-License-Identifier: MIT OR Apache-2.0
//! The clock that the group shares, for what is shown, for staleness and for audits. Order is never decided
//! by it: that is done by epochs and versions.
//!
//! The member with the lowest address that is seen is the reference; when that is another one, the clock goes on
//! from where it is. Offsets come from the four times of a beat and its echo, as in NTP (RFC 5905, section 8);
//! the sample with the shortest round trip of the last [`SAMPLES`] counts. A difference is worked
//! off slowly: the clock never steps once it was set, and never goes back.

use std::collections::VecDeque;

use crate::wire::{GroupTime, Micros};

/// Samples that are kept of each peer.
pub const SAMPLES: usize = 8;
/// By how much two machines' clocks may drift apart, in millionths.
const DRIFT_PPM: u64 = 50;
/// What is worked off of a difference, in thousandths of the time that passes: a second in 20 s.
const SLEW: i64 = 50;

/// The difference to one peer's clock.
#[derive(Debug, Clone, Default)]
pub struct Offset {
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Micros,
    /// The peer's clock minus ours.
    offset: i64,
    round_trip: u64,
}

impl Offset {
    /// Takes the four times: sent here, arrived there, sent there, arrived here. Times that cannot be are left out.
    pub fn take(&mut self, [sent, arrived, answered, now]: [Micros; 4]) {
        let waited = answered.checked_sub(arrived);
        let took = now.checked_sub(sent);
        let Some(round_trip) = took.zip(waited).and_then(|(took, waited)| took.checked_sub(waited))
        else {
            return;
        };
        let forth = (arrived as i64).wrapping_sub(sent as i64);
        let back = (answered as i64).wrapping_sub(now as i64);
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        let offset = forth / 2 + back / 2;
        self.samples.push_back(Sample { at: now, offset, round_trip });
    }

    /// The peer's clock minus ours, and how far that may be off.
    #[must_use]
    pub fn best(&self, now: Micros) -> Option<(i64, u64)> {
        let error =
            |s: &Sample| s.round_trip / 2 + now.saturating_sub(s.at) * DRIFT_PPM / 1_000_000 + 1;
        let best = self.samples.iter().min_by_key(|sample| error(sample))?;
        Some((best.offset, error(best)))
    }
}

/// The group's time on this machine.
#[derive(Debug, Clone)]
pub struct Clock {
    /// The group's time minus this machine's.
    offset: i64,
    /// What is to be added to `offset`.
    rest: i64,
    /// When `rest` was last worked off.
    at: Micros,
    /// Of the reference's time; none before there was one.
    error: Option<u64>,
    /// The last stamp given.
    last: GroupTime,
}

impl Clock {
    /// Begins with this machine's own idea of the time.
    #[must_use]
    pub fn new(now: Micros, wall: GroupTime) -> Self {
        let offset = wall.wrapping_sub(now as i64);
        Self { offset, rest: 0, at: now, error: None, last: GroupTime::MIN }
    }

    /// Works off what is due.
    fn pass(&mut self, now: Micros) {
        let passed = i64::try_from(now.saturating_sub(self.at)).unwrap_or(i64::MAX / SLEW);
        let most = passed.saturating_mul(SLEW) / 1000;
        let step = self.rest.clamp(-most, most);
        // What is too little to be worked off yet keeps its time.
        if most > 0 || self.rest == 0 {
            self.offset = self.offset.wrapping_add(step);
            self.rest -= step;
            self.at = now;
        }
    }

    /// The time, and how far it may be off, in microseconds; none if no reference was ever heard.
    #[must_use]
    pub fn read(&self, now: Micros) -> (GroupTime, Option<u64>) {
        let mut then = self.clone();
        then.pass(now);
        let error = self.error.map(|error| error.saturating_add(then.rest.unsigned_abs()));
        (then.offset.wrapping_add(now as i64), error)
    }

    /// A time for a record: later than all before.
    pub fn stamp(&mut self, now: Micros) -> GroupTime {
        self.last = self.read(now).0.max(self.last.saturating_add(1));
        self.last
    }

    /// This machine is the reference: its time is right as it is.
    pub fn lead(&mut self, now: Micros) {
        self.pass(now);
        (self.rest, self.error) = (0, Some(0));
    }

    /// Another one is: its clock is `offset` before this machine's by at most `error`, its group time is `theirs`
    /// before its own clock, and off by at most `their_error`.
    pub fn follow(&mut self, now: Micros, offset: (i64, u64), theirs: (i64, u64)) {
        self.pass(now);
        let right = theirs.0.wrapping_add(offset.0);
        let error = offset.1.saturating_add(theirs.1);
        if self.error.is_none() {
            // Nothing was stamped by a group's time yet.
            (self.offset, self.rest) = (right, 0);
        } else {
            self.rest = right.wrapping_sub(self.offset);
        }
        self.error = Some(error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_that_of_the_quickest_round_trip() {
        let mut offset = Offset::default();
        // The peer is 1,000 ahead; 10 there, 10 back.
        offset.take([100, 1110, 1120, 130]);
        assert_eq!(offset.best(130), Some((1000, 11)));
        // A slow way back is not believed.
        offset.take([200, 1210, 1220, 5000]);
        assert_eq!(offset.best(5000).map(|best| best.0), Some(1000));
        // Nonsense is left out: answered before it arrived, or faster than it takes.
        offset.take([200, 1210, 1200, 5000]);
        offset.take([200, 1210, 9220, 5000]);
        assert_eq!(offset.samples.len(), 2);
    }

    #[test]
    fn after_the_first_setting_the_clock_is_never_stepped_and_never_goes_back() {
        let mut clock = Clock::new(0, 1_000_000);
        clock.follow(0, (0, 0), (5_000_000, 0));
        assert_eq!(clock.read(0), (5_000_000, Some(0)));
        let stamp = clock.stamp(0);
        // The reference is now two seconds behind.
        clock.follow(10, (0, 5), (3_000_000, 0));
        let (time, error) = clock.read(10);
        assert!(time >= 5_000_000 && error >= Some(1_990_000), "{time} {error:?}");
        let mut last = stamp;
        for now in (0..60).map(|s| s * 1_000_000 + 10) {
            let next = clock.stamp(now);
            assert!(next > last);
            last = next;
        }
        assert_eq!(clock.read(60_000_010), (63_000_010, Some(5)));
    }
}
