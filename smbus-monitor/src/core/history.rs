// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a metric was: samples of the last minutes, and their least, mean and most in spans of five minutes before.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Milliseconds of a span.
pub const SPAN_MS: u64 = 300_000;
/// Most spans: two days.
pub const MAX_SPANS: usize = 576;
/// Most samples: ten minutes at one a second.
pub const MAX_SAMPLES: usize = 600;
/// Bytes for all histories of a member together; a member with 60 metrics uses a tenth of it.
pub const BUDGET: usize = 6 << 20;
/// Fewest samples and spans that each has, with however many metrics.
const LEAST: usize = 16;

/// How much each metric keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Samples.
    pub samples: usize,
    /// Spans.
    pub spans: usize,
}

impl Depth {
    /// So that all of so many metrics stay within [`BUDGET`].
    #[must_use]
    pub fn of(metrics: usize) -> Self {
        let each = BUDGET / metrics.max(1);
        Self {
            samples: (each / 2 / size_of::<Sample>()).clamp(LEAST, MAX_SAMPLES),
            spans: (each / 2 / size_of::<Span>()).clamp(LEAST, MAX_SPANS),
        }
    }
}

/// One value. Times are milliseconds of the machine's clock that never goes back, cut to tenths of a second.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    at: u32,
    value: f32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Span {
    at: u32,
    least: f32,
    mean: f32,
    most: f32,
}

/// The span that is being made.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Open {
    begun: u64,
    least: f64,
    sum: f64,
    most: f64,
    count: u32,
}

/// A point of a history, as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Seconds before now.
    pub ago_s: f64,
    /// Least of the span; of a sample the value.
    pub min: f64,
    /// Mean of the span.
    pub mean: f64,
    /// Most of the span.
    pub max: f64,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    spans: VecDeque<Span>,
    open: Option<Open>,
}

/// Tenths of a second, which last 13 years.
fn tenths(now: u64) -> u32 {
    u32::try_from(now / 100).unwrap_or(u32::MAX)
}

impl History {
    /// A value came.
    pub fn push(&mut self, now: u64, value: f64, depth: Depth) {
        while self.samples.len() >= depth.samples {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at: tenths(now), value: value as f32 });
        if let Some(open) = self.open.filter(|open| now >= open.begun + SPAN_MS) {
            while self.spans.len() >= depth.spans {
                self.spans.pop_front();
            }
            self.spans.push_back(Span {
                at: tenths(open.begun),
                least: open.least as f32,
                mean: (open.sum / f64::from(open.count.max(1))) as f32,
                most: open.most as f32,
            });
            self.open = None;
        }
        let begun = now - now % SPAN_MS;
        let new = Open { begun, least: value, sum: 0.0, most: value, count: 0 };
        let open = self.open.get_or_insert(new);
        open.least = open.least.min(value);
        open.most = open.most.max(value);
        open.sum += value;
        open.count += 1;
    }

    /// The samples since then: time in seconds and value.
    pub fn since(&self, then: u64) -> impl Iterator<Item = (f64, f64)> {
        let then = tenths(then);
        let late = self.samples.iter().skip_while(move |sample| sample.at < then);
        late.map(|sample| (f64::from(sample.at) / 10.0, f64::from(sample.value)))
    }

    /// What it was in the time before now, oldest first: spans, and samples from where they begin.
    #[must_use]
    pub fn points(&self, now: u64, window_ms: u64) -> Vec<Point> {
        let then = tenths(now.saturating_sub(window_ms));
        let ago = |at: u32| (now as f64 / 1000.0 - f64::from(at) / 10.0).max(0.0);
        let fine = self.samples.front().map_or(u32::MAX, |sample| sample.at);
        let spans = self.spans.iter().filter(|span| span.at >= then && span.at < fine);
        let spans = spans.map(|span| Point {
            ago_s: ago(span.at),
            min: span.least.into(),
            mean: span.mean.into(),
            max: span.most.into(),
        });
        let samples = self.samples.iter().filter(|sample| sample.at >= then);
        let samples = samples.map(|sample| {
            let value = sample.value.into();
            Point { ago_s: ago(sample.at), min: value, mean: value, max: value }
        });
        spans.chain(samples).collect()
    }

    /// Bytes that it has on the heap.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.samples.capacity() * size_of::<Sample>() + self.spans.capacity() * size_of::<Span>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_takes_no_more_than_its_depth() {
        let depth = Depth::of(60);
        let mut history = History::default();
        for second in 0..7 * 86_400_u64 {
            history.push(second * 1000, (second % 100) as f64, depth);
        }
        assert!(history.bytes() <= 2 * BUDGET / 60, "{}", history.bytes());
        let now = 7 * 86_400_000;
        let points = history.points(now, now);
        assert_eq!(
            points.len(),
            MAX_SAMPLES + MAX_SPANS - 1,
            "the last full span is in the samples"
        );
        let first = points[0];
        assert_eq!((first.min, first.mean, first.max), (0.0, 49.5, 99.0));
        assert!(points.windows(2).all(|pair| pair[0].ago_s > pair[1].ago_s));
        assert_eq!(history.points(now, 60_000).len(), 60);
    }

    #[test]
    fn ten_thousand_metrics_stay_within_their_budget() {
        let depth = Depth::of(10_000);
        assert!(depth.samples >= LEAST && depth.spans >= LEAST);
        assert!(10_000 * (depth.samples * 8 + depth.spans * 16) <= BUDGET + 10_000 * LEAST * 24);
    }
}
