// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which limits hold for a metric, and on which side of them a value is.

use serde::{Deserialize, Serialize};

use crate::metric::{Limits, Meta};
use crate::pattern::Pattern;

/// Most rules, of the configuration and of the group's settings each.
pub const MAX_RULES: usize = 256;
/// Most bytes of a rule's name.
pub const MAX_NAME: usize = 64;
/// So many values in a row must be beyond a limit before there is an alert, unless a rule says otherwise: chips give
/// single wrong values when they are read in the middle of a conversion.
pub const SAMPLES: u8 = 2;
/// Longest time ahead that a trend is followed, milliseconds: the samples are of the last ten minutes.
pub const MAX_TREND_MS: u64 = 24 * 3_600_000;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody is to look.
    Warning,
    /// Somebody is to act.
    Critical,
}

impl Severity {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Which limit it is about. There is at most one alert for a metric and an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edge {
    /// Above a high limit.
    High,
    /// Below a low limit.
    Low,
    /// On the way to a limit.
    Trend,
    /// No value came for too long, or only errors.
    Stale,
    /// A member is not there.
    Lost,
    /// A module is not where it belongs, or two sources disagree about where it is.
    Misplaced,
}

impl Edge {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Low => "low",
            Self::Trend => "trend",
            Self::Stale => "stale",
            Self::Lost => "lost",
            Self::Misplaced => "misplaced",
        }
    }
}

/// A rule, as the configuration or a user gives it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// For which metrics.
    pub metric: Pattern,
    /// For which places: slots, members, `midplane`, `group`.
    pub place: Pattern,
    /// The limits; with none at all, there are to be no alerts.
    pub limits: Limits,
    /// So many values in a row count, 1 to 100.
    pub samples: u8,
    /// Also if it will be beyond a limit within this time, in milliseconds, as things go; 0: not.
    pub trend_ms: u64,
}

impl Rule {
    /// Whether it can be.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.limits.check()?;
        let name = &self.name;
        if name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
            return Err(format!("a rule's name has 1 to {MAX_NAME} bytes"));
        }
        if !(1..=100).contains(&self.samples) {
            return Err("1 to 100 values in a row".to_owned());
        }
        if self.trend_ms > MAX_TREND_MS {
            return Err("a trend is followed for at most 24 hours".to_owned());
        }
        Ok(())
    }
}

/// What holds for a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// The limits.
    pub limits: Limits,
    /// Values in a row.
    pub samples: u8,
    /// See [`Rule::trend_ms`].
    pub trend_ms: u64,
    /// The rule's name; none if the limits are the hardware's.
    pub rule: Option<String>,
}

/// All rules: of the group's settings, which users make, and of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// By users, for the whole group.
    pub users: Vec<Rule>,
    /// By this machine's configuration.
    pub configured: Vec<Rule>,
}

impl Rules {
    /// What holds for a metric: the rule that is meant most closely for it, a user's before the configuration's; else
    /// what the hardware says.
    #[must_use]
    pub fn effective(&self, place: &str, meta: &Meta) -> Effective {
        let closest = |rules: &[Rule]| {
            let fit = rules.iter().filter(|r| r.metric.matches(&meta.id) && r.place.matches(place));
            fit.max_by_key(|r| (r.place.weight() + r.metric.weight(), std::cmp::Reverse(&r.name)))
                .cloned()
        };
        match closest(&self.users).or_else(|| closest(&self.configured)) {
            Some(Rule { limits, samples, trend_ms, name, .. }) => {
                Effective { limits, samples, trend_ms, rule: Some(name) }
            }
            None => Effective { limits: meta.limits, samples: SAMPLES, trend_ms: 0, rule: None },
        }
    }
}

/// Where a value is. Where it was decides how far it must come back.
#[must_use]
pub fn level(
    limits: &Limits,
    was: Option<(Edge, Severity)>,
    value: f64,
) -> Option<(Edge, Severity)> {
    let back = limits.hysteresis.unwrap_or(0.0);
    let above = |limit: Option<f64>, severity| {
        let held = matches!(was, Some((Edge::High, had)) if had >= severity);
        limit.is_some_and(|limit| if held { value > limit - back } else { value > limit })
    };
    let below = |limit: Option<f64>, severity| {
        let held = matches!(was, Some((Edge::Low, had)) if had >= severity);
        limit.is_some_and(|limit| if held { value < limit + back } else { value < limit })
    };
    let (warning, critical) = (Severity::Warning, Severity::Critical);
    match () {
        () if above(limits.high_critical, critical) => Some((Edge::High, critical)),
        () if below(limits.low_critical, critical) => Some((Edge::Low, critical)),
        () if above(limits.high_warning, warning) => Some((Edge::High, warning)),
        () if below(limits.low_warning, warning) => Some((Edge::Low, warning)),
        () => None,
    }
}

/// The limit that a level is about.
#[must_use]
pub fn limit_of(limits: &Limits, (edge, severity): (Edge, Severity)) -> Option<f64> {
    match (edge, severity) {
        (Edge::High, Severity::Critical) => limits.high_critical,
        (Edge::High, Severity::Warning) => limits.high_warning,
        (Edge::Low, Severity::Critical) => limits.low_critical,
        (Edge::Low, Severity::Warning) => limits.low_warning,
        _ => None,
    }
}

/// Fewest samples, and seconds from the first to the last, of which a trend is made.
const TREND_SAMPLES: usize = 10;
const TREND_SECONDS: f64 = 30.0;

/// When a metric will be beyond its first limit, as a straight line through its samples says: seconds from the last one,
/// and that limit. None if it goes nowhere, or the line explains less than half of what the samples do.
#[must_use]
pub fn trend(limits: &Limits, samples: &[(f64, f64)]) -> Option<(f64, f64)> {
    let (first, last) = (samples.first()?, samples.last()?);
    if samples.len() < TREND_SAMPLES || last.0 - first.0 < TREND_SECONDS {
        return None;
    }
    let n = samples.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>() / n;
    let (t, v) = (mean(|s| s.0), mean(|s| s.1));
    let sum = |of: &dyn Fn(&(f64, f64)) -> f64| samples.iter().map(of).sum::<f64>();
    let tt = sum(&|s| (s.0 - t) * (s.0 - t));
    let tv = sum(&|s| (s.0 - t) * (s.1 - v));
    let vv = sum(&|s| (s.1 - v) * (s.1 - v));
    if tt == 0.0 || vv == 0.0 || tv * tv / (tt * vv) < 0.5 {
        return None;
    }
    let slope = tv / tt;
    let now = v + slope * (last.0 - t);
    let limit = if slope > 0.0 {
        limits.high_warning.or(limits.high_critical).filter(|limit| *limit >= now)
    } else {
        limits.low_warning.or(limits.low_critical).filter(|limit| *limit <= now)
    }?;
    Some(((limit - now) / slope, limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Unit;

    const LIMITS: Limits = Limits {
        high_critical: Some(80.0),
        high_warning: Some(70.0),
        low_warning: Some(5.0),
        low_critical: Some(0.0),
        hysteresis: Some(3.0),
    };
    const WARNING: Option<(Edge, Severity)> = Some((Edge::High, Severity::Warning));
    const CRITICAL: Option<(Edge, Severity)> = Some((Edge::High, Severity::Critical));

    #[test]
    fn an_alert_ends_only_beyond_the_hysteresis() {
        for (was, value, is) in [
            (None, 70.0, None),
            (None, 70.1, WARNING),
            (WARNING, 67.1, WARNING),
            (WARNING, 67.0, None),
            (WARNING, 80.1, CRITICAL),
            (CRITICAL, 77.1, CRITICAL),
            (CRITICAL, 77.0, WARNING),
            (CRITICAL, 60.0, None),
            (None, 4.9, Some((Edge::Low, Severity::Warning))),
            (Some((Edge::Low, Severity::Warning)), 7.9, Some((Edge::Low, Severity::Warning))),
            (Some((Edge::Low, Severity::Warning)), 8.0, None),
            (None, -1.0, Some((Edge::Low, Severity::Critical))),
            (WARNING, -1.0, Some((Edge::Low, Severity::Critical))),
        ] {
            assert_eq!(level(&LIMITS, was, value), is, "{was:?} {value}");
        }
        assert_eq!(level(&Limits::default(), CRITICAL, 1e9), None);
    }

    #[test]
    fn the_rule_that_is_meant_most_closely_holds() {
        let rule = |name: &str, metric: &str, limit| Rule {
            name: name.to_owned(),
            metric: metric.parse().unwrap(),
            place: Pattern::any(),
            limits: Limits { high_critical: Some(limit), ..Limits::default() },
            samples: 1,
            trend_ms: 0,
        };
        let hardware = Limits { high_critical: Some(100.0), ..Limits::default() };
        let meta = Meta::new("hwmon/1-0048/temp1", "", Unit::Celsius, 1000).limits(hardware);
        let mut rules = Rules::default();
        let at = |rules: &Rules| rules.effective("1", &meta).limits.high_critical;
        assert_eq!(at(&rules), Some(100.0));
        rules.configured = vec![rule("all", "*", 90.0), rule("chip", "hwmon/1-0048/*", 80.0)];
        assert_eq!(at(&rules), Some(80.0));
        rules.users = vec![rule("by hand", "hwmon/*", 70.0)];
        assert_eq!(at(&rules), Some(70.0));
        rules.users[0].place = "2".parse().unwrap();
        assert_eq!(at(&rules), Some(80.0));
    }

    #[test]
    fn a_trend_is_a_line_and_nothing_else() {
        let line = |slope: f64| {
            (0..60).map(|t| (f64::from(t), 50.0 + slope * f64::from(t))).collect::<Vec<_>>()
        };
        let (in_s, limit) = trend(&LIMITS, &line(0.1)).unwrap();
        assert!(limit == 70.0 && (in_s - 141.0).abs() < 1.0, "{in_s}");
        let (in_s, limit) = trend(&LIMITS, &line(-0.1)).unwrap();
        assert!(limit == 5.0 && (in_s - 391.0).abs() < 1.0, "{in_s}");
        assert_eq!(trend(&LIMITS, &line(0.0)), None);
        assert_eq!(trend(&LIMITS, &line(0.1)[..9]), None);
        let noise: Vec<_> = (0..60).map(|t| (f64::from(t), f64::from(t * 7919 % 31))).collect();
        assert_eq!(trend(&LIMITS, &noise), None);
    }
}
