// SPDX-License-Identifier: MIT OR Apache-2.0
//! When to plug the gadget in again: a host that reset the device and could not configure it gives up for good.
//!
//! A host that is off or starting is not told from one that gave up, so attempts become rare.

use std::time::{Duration, Instant};

/// A host that resets a device is done with it in this time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time between two attempts.
const MAX_PATIENCE: Duration = Duration::from_secs(160);

/// What is known of the connection to the host.
#[derive(Debug)]
pub struct Usb {
    /// The host used the device once; before that it may simply be off.
    was_configured: bool,
    lost: Option<Instant>,
    patience: Duration,
}

impl Default for Usb {
    fn default() -> Self {
        Self { was_configured: false, lost: None, patience: PATIENCE }
    }
}

impl Usb {
    /// Told the controller's state from time to time, says whether to rebind now. `in_use` is true when the device is
    /// configured, or suspended.
    #[must_use]
    pub fn handle_state(&mut self, now: Instant, in_use: bool) -> bool {
        if in_use {
            *self = Self { was_configured: true, ..Self::default() };
            return false;
        }
        let since = *self.lost.get_or_insert(now);
        if !self.was_configured || now.saturating_duration_since(since) < self.patience {
            return false;
        }
        self.lost = Some(now);
        self.patience = (self.patience * 2).min(MAX_PATIENCE);
        true
    }

    /// The host has lost the device since then.
    #[must_use]
    pub fn lost_since(&self) -> Option<Instant> {
        self.lost.filter(|_| self.was_configured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_gave_up_is_asked_ever_less_often() {
        let start = Instant::now();
        let mut usb = Usb::default();
        let mut rebinds = vec![];
        for second in 0..1000 {
            let now = start + Duration::from_secs(second);
            // Not there for 100 s, then used for 100 s, then lost, with a reset that succeeded in between.
            let in_use = (100..200).contains(&second) || second == 205;
            if usb.handle_state(now, in_use) {
                rebinds.push(second);
            }
        }
        assert_eq!(rebinds, [216, 236, 276, 356, 516, 676, 836, 996]);
    }
}
