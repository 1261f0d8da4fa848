// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys that are down. Each message carries all of them, so that one that is lost or comes twice leaves none stuck.

use std::collections::BTreeSet;

use crate::wire::MAX_PRESSED;

/// Key codes that are passed on: up to what HID keyboards have. Above are buttons and touch.
pub const MOST_CODE: u16 = 0xff;

/// A set of them, in bounds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pressed(BTreeSet<u16>);

impl Pressed {
    /// Those of a message.
    #[must_use]
    pub fn from_codes(codes: &[u16]) -> Self {
        let known = codes.iter().copied().filter(|code| (1..=MOST_CODE).contains(code));
        Self(known.take(MAX_PRESSED).collect())
    }

    /// A key goes down or up; whether that changes anything.
    pub fn set(&mut self, code: u16, down: bool) -> bool {
        if !down {
            return self.0.remove(&code);
        }
        (1..=MOST_CODE).contains(&code) && self.0.len() < MAX_PRESSED && self.0.insert(code)
    }

    /// For a message.
    #[must_use]
    pub fn codes(&self) -> Vec<u16> {
        self.0.iter().copied().collect()
    }

    /// Whether none is down.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What turns these into `others`: ups before downs, so that no key is ever down twice.
    #[must_use]
    pub fn changes_to(&self, others: &Self) -> Vec<(u16, bool)> {
        let ups = self.0.difference(&others.0).map(|code| (*code, false));
        ups.chain(others.0.difference(&self.0).map(|code| (*code, true))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_changes() {
        let mut pressed = Pressed::from_codes(&[30, 0, 600, 30, 42]);
        assert_eq!(pressed.codes(), [30, 42]);
        assert!(!pressed.set(30, true) && pressed.set(30, false) && !pressed.set(30, false));
        assert!(!pressed.set(0x120, true), "a button");
        assert_eq!(pressed.changes_to(&Pressed::from_codes(&[31])), [(42, false), (31, true)]);
        for code in 1..=200 {
            pressed.set(code, true);
        }
        assert_eq!(pressed.codes().len(), MAX_PRESSED);
    }
}
