// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is counted, and how it is printed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// Commands whose latency is kept, 4 bytes each; more are counted but not timed.
const MAX_SAMPLES: usize = 10_000_000;

/// Counts over all handles.
#[derive(Debug, Default)]
pub struct Tally {
    pub opened: u32,
    /// Handles that could not be opened, by errno.
    pub refused: BTreeMap<String, u32>,
    pub completed: u64,
    /// Answers to other commands, by what was wrong with them.
    pub wrong: BTreeMap<&'static str, u64>,
    /// Answers with completion code C3.
    pub timeouts: u64,
    /// Failed calls by errno, completion codes, answers that never came.
    pub errors: BTreeMap<String, u64>,
    latencies_us: Vec<u32>,
}

impl Tally {
    /// A command was answered rightly.
    pub fn complete(&mut self, latency: Duration) {
        self.completed += 1;
        if self.latencies_us.len() < MAX_SAMPLES {
            self.latencies_us.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
        }
    }

    /// Takes over what went wrong in another run.
    pub fn adopt_failures(&mut self, other: Self) {
        self.wrong.extend(other.wrong);
        self.errors.extend(other.errors);
        self.timeouts += other.timeouts;
    }

    pub fn error(&mut self, what: impl ToString) {
        *self.errors.entry(what.to_string()).or_default() += 1;
    }

    pub fn refuse(&mut self, why: impl ToString) {
        *self.refused.entry(why.to_string()).or_default() += 1;
    }

    /// Whether all that was sent came back rightly.
    pub fn all_right(&self) -> bool {
        self.wrong.is_empty() && self.timeouts == 0 && self.errors.is_empty()
    }

    /// How the opening went.
    pub fn opening(&self) -> String {
        let refused = self.refused.values().sum::<u32>();
        format!("opened      {}\nrefused     {}", self.opened, with_reasons(refused, &self.refused))
    }

    /// How many messages each handle accepted before it refused one.
    pub fn filling(&self, accepted: &[u64]) -> String {
        let Spread { min, max } = Spread::of(accepted);
        let ends = with_reasons(self.errors.values().sum::<u64>(), &self.errors);
        format!("full        {ends}\naccepted    min {min}, max {max}")
    }

    /// What is printed. `per_handle` are the commands each handle completed.
    pub fn report(mut self, elapsed: Duration, per_handle: &[u64]) -> Report {
        self.latencies_us.sort_unstable();
        let seconds = elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { self.completed as f64 / seconds } else { 0.0 };
        Report {
            opened: self.opened,
            refused: self.refused.values().sum(),
            completed: self.completed,
            wrong: self.wrong.values().sum(),
            timeouts: self.timeouts,
            errors: self.errors.values().sum(),
            elapsed_s: (seconds * 1000.0).round() / 1000.0,
            rate_per_s: (rate * 10.0).round() / 10.0,
            latency_us: Latency {
                p50: percentile(&self.latencies_us, 50),
                p99: percentile(&self.latencies_us, 99),
                max: percentile(&self.latencies_us, 100),
            },
            per_handle: Spread::of(per_handle),
            refused_by: self.refused,
            wrong_by: self.wrong,
            errors_by: self.errors,
        }
    }
}

/// The value that `percent` of the sorted values do not exceed (nearest rank); 0 where there is none.
fn percentile(sorted: &[u32], percent: usize) -> u32 {
    let rank = (sorted.len() * percent).div_ceil(100);
    rank.checked_sub(1).map_or(0, |at| sorted[at])
}

#[derive(Debug, Serialize)]
pub struct Latency {
    p50: u32,
    p99: u32,
    max: u32,
}

#[derive(Debug, Serialize)]
pub struct Spread {
    min: u64,
    max: u64,
}

impl Spread {
    fn of(counts: &[u64]) -> Self {
        let (min, max) = (counts.iter().min(), counts.iter().max());
        Self { min: min.copied().unwrap_or(0), max: max.copied().unwrap_or(0) }
    }
}

/// The outcome, as text or JSON. Latencies are in microseconds, from before the send to after the receive.
#[derive(Debug, Serialize)]
pub struct Report {
    opened: u32,
    refused: u32,
    refused_by: BTreeMap<String, u32>,
    completed: u64,
    wrong: u64,
    wrong_by: BTreeMap<&'static str, u64>,
    timeouts: u64,
    errors: u64,
    errors_by: BTreeMap<String, u64>,
    elapsed_s: f64,
    rate_per_s: f64,
    latency_us: Latency,
    per_handle: Spread,
}

/// `3 (EBUSY 2, EIO 1)`.
fn with_reasons<K: fmt::Display, V: fmt::Display>(
    total: impl fmt::Display,
    by: &BTreeMap<K, V>,
) -> String {
    let reasons: Vec<String> = by.iter().map(|(why, count)| format!("{why} {count}")).collect();
    if reasons.is_empty() { total.to_string() } else { format!("{total} ({})", reasons.join(", ")) }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { p50, p99, max } = self.latency_us;
        let Spread { min, max: most } = self.per_handle;
        writeln!(f, "opened      {}", self.opened)?;
        writeln!(f, "refused     {}", with_reasons(self.refused, &self.refused_by))?;
        writeln!(f, "completed   {}", self.completed)?;
        writeln!(f, "wrong       {}", with_reasons(self.wrong, &self.wrong_by))?;
        writeln!(f, "timeouts    {}", self.timeouts)?;
        writeln!(f, "errors      {}", with_reasons(self.errors, &self.errors_by))?;
        writeln!(f, "elapsed     {} s", self.elapsed_s)?;
        writeln!(f, "rate        {} per s", self.rate_per_s)?;
        writeln!(f, "latency     p50 {p50} us, p99 {p99} us, max {max} us")?;
        write!(f, "per handle  min {min}, max {most}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_nearest_rank() {
        let hundred: Vec<u32> = (1..=100).collect();
        assert_eq!([50, 99, 100].map(|p| percentile(&hundred, p)), [50, 99, 100]);
        assert_eq!([50, 99, 100].map(|p| percentile(&[7], p)), [7, 7, 7]);
        assert_eq!(percentile(&[], 99), 0);
    }

    #[test]
    fn the_report_names_what_went_wrong() {
        let mut tally = Tally { opened: 1, ..Tally::default() };
        tally.refuse("EBUSY");
        tally.refuse("EBUSY");
        assert!(tally.all_right());
        tally.complete(Duration::from_micros(1500));
        tally.error("no answer");
        assert!(!tally.all_right());
        let text = tally.report(Duration::from_secs(2), &[1, 0]).to_string();
        for line in [
            "refused     2 (EBUSY 2)",
            "errors      1 (no answer 1)",
            "rate        0.5 per s",
            "latency     p50 1500 us, p99 1500 us, max 1500 us",
            "per handle  min 0, max 1",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
