// SPDX-License-Identifier: MIT OR Apache-2.0
//! What became of the messages.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use nix::errno::Errno;
use serde::Serialize;

use crate::plan::Way;

/// "Insufficient privilege" (IPMI 2.0 table 5-2).
const DENIED: u8 = 0xd4;

#[derive(Debug)]
pub struct Tally {
    begun: Instant,
    sent: u64,
    answered: u64,
    unexpected: u64,
    errnos: BTreeMap<String, u64>,
    codes: BTreeMap<u8, u64>,
    passed: BTreeMap<Way, BTreeSet<(u8, u8)>>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            sent: 0,
            answered: 0,
            unexpected: 0,
            errnos: BTreeMap::new(),
            codes: BTreeMap::new(),
            passed: BTreeMap::new(),
        }
    }
}

impl Tally {
    pub fn sent(&mut self) {
        self.sent += 1;
    }

    pub fn refused(&mut self, errno: Errno) {
        *self.errnos.entry(format!("{errno:?}")).or_default() += 1;
    }

    pub fn answered(&mut self, way: Way, tried: (u8, u8), code: u8) {
        self.answered += 1;
        *self.codes.entry(code).or_default() += 1;
        if code != DENIED {
            self.passed.entry(way).or_default().insert(tried);
        }
    }

    /// An answer that nobody waits for.
    pub fn unexpected(&mut self) {
        self.unexpected += 1;
    }

    pub fn report(&self) -> Report {
        let pair = |(netfn, cmd): &(u8, u8)| format!("{netfn:02x}/{cmd:02x}");
        let passed = |(way, tried): (&Way, &BTreeSet<_>)| {
            (format!("{way:?}").to_lowercase(), tried.iter().map(pair).collect())
        };
        Report {
            sent: self.sent,
            answered: self.answered,
            unexpected: self.unexpected,
            denied: self.codes.get(&DENIED).copied().unwrap_or(0),
            elapsed_s: self.begun.elapsed().as_secs_f64(),
            errnos: self.errnos.clone(),
            codes: self.codes.iter().map(|(code, n)| (format!("{code:02x}"), *n)).collect(),
            passed: self.passed.iter().map(passed).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Report {
    /// Messages that were taken.
    sent: u64,
    answered: u64,
    unexpected: u64,
    /// Answers with completion code D4.
    denied: u64,
    elapsed_s: f64,
    /// Messages that were not taken.
    errnos: BTreeMap<String, u64>,
    codes: BTreeMap<String, u64>,
    /// Commands that had another answer than D4 at least once, by how they were sent.
    passed: BTreeMap<String, Vec<String>>,
}

impl Report {
    pub fn all_answered(&self) -> bool {
        self.sent > 0 && self.sent == self.answered && self.unexpected == 0
    }
}
