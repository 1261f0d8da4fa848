// SPDX-License-Identifier: MIT OR Apache-2.0
//! One metric compared with its limits, value by value.

use super::Now;
use super::alerts::Wanted;
use super::rules::{Edge, Effective, Severity, level, limit_of, trend};
use crate::metric::{Limits, Meta, Unit, shown};

/// A trend is made of the samples of this time, milliseconds.
pub const TREND_WINDOW_MS: u64 = 600_000;
/// A trend is looked at no more often, milliseconds: it goes over hundreds of samples.
const TREND_EVERY_MS: u64 = 10_000;

/// What stands of a metric's comparison.
#[derive(Debug, Clone, Default)]
pub(super) struct Watch {
    level: Option<(Edge, Severity)>,
    /// The level that values ask for, and how many in a row did.
    asked: Option<(Edge, Severity)>,
    times: u8,
    trend_at: u64,
    trending: bool,
    /// There is a value that was not looked at.
    pub(super) fresh: bool,
}

/// What is compared.
pub(super) struct Subject<'a> {
    pub meta: &'a Meta,
    pub effective: &'a Effective,
    pub value: Option<f64>,
    pub stale: bool,
    pub samples: &'a dyn Fn() -> Vec<(f64, f64)>,
}

impl Subject<'_> {
    fn name(&self) -> &str {
        if self.meta.label.is_empty() { &self.meta.id } else { &self.meta.label }
    }

    fn wanted(&self, (edge, severity): (Edge, Severity), value: f64) -> Wanted {
        let limit = limit_of(&self.effective.limits, (edge, severity));
        let unit = self.meta.unit;
        let beyond = if edge == Edge::High { "above" } else { "below" };
        let limit_text = limit.map_or_else(String::new, |limit| shown(limit, unit));
        let text = match unit {
            Unit::Alarm => format!("{} is signalled", self.name()),
            _ => format!(
                "{} is {}, {beyond} its {} limit of {limit_text}",
                self.name(),
                shown(value, unit),
                severity.word()
            ),
        };
        Wanted { severity, value: Some(value), limit, unit: Some(unit), text }
    }

    fn coming(&self, (in_s, limit): (f64, f64)) -> Wanted {
        let unit = self.meta.unit;
        let minutes = (in_s / 60.0).ceil();
        let (name, limit_text) = (self.name(), shown(limit, unit));
        let text = format!("{name} will cross {limit_text} within {minutes:.0} min as it goes now");
        Wanted {
            severity: Severity::Warning,
            value: self.value,
            limit: Some(limit),
            unit: Some(unit),
            text,
        }
    }
}

impl Watch {
    pub(super) fn level(&self) -> Option<(Edge, Severity)> {
        self.level
    }

    /// That a metric has no value for too long, though others of its source have.
    pub(super) fn missed(&self, meta: &Meta, entry: &super::Entry) -> Wanted {
        let why = entry.error.as_deref().unwrap_or("it is not read any more");
        let name = if meta.label.is_empty() { &meta.id } else { &meta.label };
        let text = format!("{name} has given no value for too long: {why}");
        let unit = Some(meta.unit);
        Wanted { severity: Severity::Warning, value: entry.value, limit: None, unit, text }
    }

    /// What the alerts of a metric are to be; edges that are as they were may be missing.
    pub(super) fn judge(&mut self, now: Now, of: &Subject<'_>) -> Vec<(Edge, Option<Wanted>)> {
        let mut out = vec![];
        if !of.stale {
            out.push((Edge::Stale, None));
        }
        let Some(value) = of.value.filter(|_| std::mem::take(&mut self.fresh)) else { return out };
        let Effective { limits, samples, trend_ms, .. } = of.effective;
        let asked = level(limits, self.level, value);
        if asked == self.level {
            (self.asked, self.times) = (None, 0);
        } else {
            let same = self.asked == asked && self.times > 0;
            self.times = if same { self.times.saturating_add(1) } else { 1 };
            self.asked = asked;
        }
        // What comes back is over at once if it was far enough; what goes beyond has to stay there.
        let is_back = asked < self.level;
        if asked != self.level && (is_back || self.times >= *samples) {
            self.level = asked;
            (self.asked, self.times) = (None, 0);
        }
        for edge in [Edge::High, Edge::Low] {
            let level = self.level.filter(|level| level.0 == edge);
            out.push((edge, level.map(|level| of.wanted(level, value))));
        }
        if let Some(trend) = self.trend(now, limits, *trend_ms, of) {
            out.push((Edge::Trend, trend));
        }
        out
    }

    /// What the alert on a trend is to be, if it was looked at.
    fn trend(
        &mut self,
        now: Now,
        limits: &Limits,
        within_ms: u64,
        of: &Subject<'_>,
    ) -> Option<Option<Wanted>> {
        if within_ms == 0 || self.level.is_some() {
            self.trending = false;
            return Some(None);
        }
        if now.mono < self.trend_at + TREND_EVERY_MS {
            return None;
        }
        self.trend_at = now.mono;
        // Half as much again until it is over, so that it does not come and go.
        let within = within_ms as f64 / 1000.0 * if self.trending { 1.5 } else { 1.0 };
        let found = trend(limits, &(of.samples)()).filter(|(in_s, _)| *in_s <= within);
        self.trending = found.is_some();
        Some(found.map(|found| of.coming(found)))
    }
}
