// SPDX-License-Identifier: MIT OR Apache-2.0
//! One metric: its last value, and what belongs to it.

use std::sync::Arc;

use super::Now;
use super::alerts::Wanted;
use super::history::{Depth, History, Point};
use super::rules::{Edge, Effective, Severity};
use super::watch::{self, Watch};
use crate::metric::{Meta, Reading};

/// What is known of a metric.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it is.
    pub meta: Arc<Meta>,
    /// Its last value.
    pub value: Option<f64>,
    /// The counter behind it.
    pub total: Option<f64>,
    /// When that was read.
    pub at: Now,
    /// Why there is no newer one.
    pub error: Option<String>,
    /// No value came for longer than one is good.
    pub stale: bool,
    /// The value is of before this program's start, and its time is that of the wall alone.
    pub(super) recalled: bool,
    /// Which source reads it.
    pub(super) source: Arc<str>,
    /// What holds for it.
    pub effective: Effective,
    pub(super) watch: Watch,
    pub(super) history: History,
}

impl Entry {
    /// What it was in the time before now.
    #[must_use]
    pub fn points(&self, now: Now, window_ms: u64) -> Vec<Point> {
        self.history.points(now.mono, window_ms)
    }

    /// How old its value is, in milliseconds.
    #[must_use]
    pub fn age_ms(&self, now: Now) -> u64 {
        match self.recalled {
            true => now.wall.saturating_sub(self.at.wall),
            false => now.mono.saturating_sub(self.at.mono),
        }
    }

    /// The level of its alert.
    #[must_use]
    pub fn level(&self) -> Option<Severity> {
        self.watch.level().map(|level| level.1)
    }

    pub(super) fn new(meta: Arc<Meta>, source: &Arc<str>, now: Now, effective: Effective) -> Self {
        Self {
            source: source.clone(),
            meta,
            value: None,
            total: None,
            at: now,
            error: None,
            stale: false,
            recalled: false,
            effective,
            watch: Watch::default(),
            history: History::default(),
        }
    }

    pub(super) fn take(&mut self, now: Now, reading: &Reading, depth: Depth) {
        match &reading.value {
            Ok(value) => {
                self.value = Some(*value);
                self.total = reading.total;
                (self.at, self.stale, self.error) = (now, false, None);
                self.recalled = false;
                self.history.push(now.mono, *value, depth);
                self.watch.fresh = true;
            }
            Err(error) => self.error = Some(error.clone()),
        }
    }

    pub(super) fn judge(&mut self, now: Now) -> Vec<(Edge, Option<Wanted>)> {
        let from = now.mono.saturating_sub(watch::TREND_WINDOW_MS);
        let history = &self.history;
        let subject = watch::Subject {
            meta: &self.meta,
            effective: &self.effective,
            value: self.value,
            stale: self.stale,
            samples: &|| history.since(from).collect(),
        };
        self.watch.judge(now, &subject)
    }
}
