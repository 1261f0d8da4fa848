// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is measured: names, units, limits, and one value of one metric.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Most bytes of a metric's id.
pub const MAX_ID: usize = 96;
/// Most bytes of a label, which comes from a driver, a BMC or an EEPROM.
pub const MAX_LABEL: usize = 64;

/// In what a metric is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Degrees Celsius.
    Celsius,
    /// Volts.
    Volts,
    /// Amperes.
    Amperes,
    /// Watts.
    Watts,
    /// Joules.
    Joules,
    /// Turns of a fan in a minute.
    Rpm,
    /// Of a whole that is 100.
    Percent,
    /// Bytes.
    Bytes,
    /// Bytes in a second.
    BytesPerSecond,
    /// Events in a second.
    PerSecond,
    /// Seconds.
    Seconds,
    /// A plain number.
    Number,
    /// 0 is well, anything else is not.
    Alarm,
}

impl Unit {
    /// As it stands behind a number.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Celsius => "°C",
            Self::Volts => "V",
            Self::Amperes => "A",
            Self::Watts => "W",
            Self::Joules => "J",
            Self::Rpm => "RPM",
            Self::Percent => "%",
            Self::Bytes => "B",
            Self::BytesPerSecond => "B/s",
            Self::PerSecond => "/s",
            Self::Seconds => "s",
            Self::Number | Self::Alarm => "",
        }
    }

    /// What a sensor can mean; all else is a broken wire, a chip that is not there (0xff in all registers), or a
    /// register in the middle of a change.
    #[must_use]
    pub fn is_plausible(self, value: f64) -> bool {
        let (low, high) = match self {
            Self::Celsius => (-100.0, 300.0),
            Self::Volts => (-1_000.0, 1_000.0),
            Self::Amperes => (-10_000.0, 10_000.0),
            Self::Watts => (-1e6, 1e6),
            Self::Rpm => (0.0, 100_000.0),
            // Several processors of an overcommitted host may have a little more than is.
            Self::Percent => (-1.0, 10_000.0),
            Self::Joules | Self::Bytes | Self::Seconds | Self::Number | Self::Alarm => {
                (-1e18, 1e18)
            }
            Self::BytesPerSecond | Self::PerSecond => (0.0, 1e15),
        };
        value.is_finite() && (low..=high).contains(&value)
    }
}

/// A value with its unit, for people.
#[must_use]
pub fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes | Unit::BytesPerSecond => {
            const STEPS: [&str; 6] = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
            let (mut value, mut step) = (value, 0);
            while value.abs() >= 1024.0 && step + 1 < STEPS.len() {
                value /= 1024.0;
                step += 1;
            }
            let digits = usize::from(step > 0);
            format!("{value:.digits$} {}{}", STEPS[step], unit.symbol())
        }
        Unit::Alarm => if value == 0.0 { "ok" } else { "ALARM" }.to_owned(),
        Unit::Rpm | Unit::Seconds => format!("{value:.0} {}", unit.symbol()),
        Unit::Volts => format!("{value:.3} V"),
        Unit::Number => format!("{value:.2}"),
        _ => format!("{value:.1} {}", unit.symbol()),
    }
}

/// Limits of a metric. None of them need be there.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Above it somebody is to act at once.
    #[serde(default)]
    pub high_critical: Option<f64>,
    /// Above it somebody is to look.
    #[serde(default)]
    pub high_warning: Option<f64>,
    /// Below it somebody is to look.
    #[serde(default)]
    pub low_warning: Option<f64>,
    /// Below it somebody is to act at once.
    #[serde(default)]
    pub low_critical: Option<f64>,
    /// So far back inside a limit an alert ends, in the metric's unit; 0 or more.
    #[serde(default)]
    pub hysteresis: Option<f64>,
}

impl Limits {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { high_critical, high_warning, low_warning, low_critical, hysteresis: _ } = self;
        [high_critical, high_warning, low_warning, low_critical].iter().all(|l| l.is_none())
    }

    /// Whether the limits are in their order, and numbers.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        let Self { high_critical, high_warning, low_warning, low_critical, hysteresis } = *self;
        let order = [low_critical, low_warning, high_warning, high_critical];
        let there: Vec<f64> = order.into_iter().flatten().collect();
        if there.iter().chain(&hysteresis).any(|limit| !limit.is_finite()) {
            return Err("a limit is a number".to_owned());
        }
        if hysteresis.is_some_and(|h| h < 0.0) {
            return Err("the hysteresis is 0 or more".to_owned());
        }
        if there.is_sorted() {
            Ok(())
        } else {
            Err("low critical, low warning, high warning, high critical must rise".to_owned())
        }
    }
}

/// What is known of a metric before it is read. It is told once, and its values by number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// `SOURCE/DEVICE/WHAT`, the same after every start as long as the device is at its place.
    pub id: String,
    /// A name that a driver, a BMC or the configuration gives, or nothing.
    pub label: String,
    /// Its unit.
    pub unit: Unit,
    /// For how long a value is good, in milliseconds: two intervals and the source's deadline.
    pub good_for_ms: u32,
    /// What the hardware says is normal.
    pub limits: Limits,
    /// How Prometheus knows it.
    pub exported: Exported,
}

/// Name and labels for Prometheus: those which node_exporter and ipmi_exporter use, so that dashboards go on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Exported {
    /// The name; empty for none.
    pub name: String,
    /// Labels besides those of the blade.
    pub labels: Vec<(String, String)>,
    /// Whether the total behind a rate is exported, not the rate.
    pub total: bool,
    /// The value is multiplied by this first.
    pub scale: f64,
}

impl Exported {
    /// A gauge.
    #[must_use]
    pub fn gauge(name: &str, labels: &[(&str, &str)]) -> Self {
        let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        Self { name: name.to_owned(), labels, total: false, scale: 1.0 }
    }

    /// A counter, of which the metric is the rate.
    #[must_use]
    pub fn counter(name: &str, labels: &[(&str, &str)]) -> Self {
        Self { total: true, ..Self::gauge(name, labels) }
    }

    /// The same, of another unit.
    #[must_use]
    pub fn scaled(self, scale: f64) -> Self {
        Self { scale, ..self }
    }
}

impl Meta {
    /// One of a source that is read every `interval_ms`. Texts are cut to their bounds and made harmless.
    #[must_use]
    pub fn new(id: &str, label: &str, unit: Unit, interval_ms: u32) -> Self {
        Self {
            id: cut(id, MAX_ID),
            label: cut(label, MAX_LABEL),
            unit,
            good_for_ms: good_for(interval_ms),
            limits: Limits::default(),
            exported: Exported::default(),
        }
    }

    /// The same, as Prometheus knows it.
    #[must_use]
    pub fn exported(self, exported: Exported) -> Self {
        Self { exported, ..self }
    }

    /// The same with limits; such as contradict one another are none.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        let limits = if limits.check().is_ok() { limits } else { Limits::default() };
        Self { limits, ..self }
    }
}

/// A value is missed once, and a second time late, before it is stale.
fn good_for(interval_ms: u32) -> u32 {
    interval_ms.saturating_mul(2).saturating_add(1_500)
}

/// At most so many bytes, without control characters and blanks at the ends.
#[must_use]
pub fn cut(text: &str, most: usize) -> String {
    let mut out = String::new();
    for c in text.trim().chars() {
        let c = if c.is_control() { '?' } else { c };
        if out.len() + c.len_utf8() > most {
            break;
        }
        out.push(c);
    }
    out
}

/// One value.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Of what.
    pub meta: Arc<Meta>,
    /// It, or why there is none.
    pub value: Result<f64, String>,
    /// The counter behind a rate.
    pub total: Option<f64>,
}

impl Reading {
    /// A value; one that cannot be is an error.
    #[must_use]
    pub fn new(meta: &Arc<Meta>, value: f64) -> Self {
        let value = if meta.unit.is_plausible(value) {
            Ok(value)
        } else {
            Err(format!("{value} {} cannot be", meta.unit.symbol()))
        };
        Self { meta: meta.clone(), value, total: None }
    }

    /// None, and why.
    #[must_use]
    pub fn failed(meta: &Arc<Meta>, why: impl fmt::Display) -> Self {
        Self { meta: meta.clone(), value: Err(cut(&why.to_string(), 200)), total: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_rise() {
        let limits =
            Limits { high_warning: Some(70.0), high_critical: Some(80.0), ..Limits::default() };
        assert_eq!(limits.check(), Ok(()));
        let turned = Limits { high_warning: Some(90.0), ..limits };
        assert!(turned.check().is_err());
        assert!(Limits { hysteresis: Some(-1.0), ..limits }.check().is_err());
        assert!(Limits { high_critical: Some(f64::NAN), ..limits }.check().is_err());
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let meta = Arc::new(Meta::new("t", "a\u{1b}[31m", Unit::Celsius, 1000));
        assert_eq!(meta.label, "a?[31m");
        assert!(Reading::new(&meta, 25.0).value.is_ok());
        assert!(Reading::new(&meta, f64::NAN).value.is_err());
        assert!(Reading::new(&meta, 6553.5).value.is_err());
    }

    #[test]
    fn values_for_people() {
        assert_eq!(shown(1536.0, Unit::Bytes), "1.5 KiB");
        assert_eq!(shown(25.04, Unit::Celsius), "25.0 °C");
        assert_eq!(shown(0.0, Unit::Rpm), "0 RPM");
        assert_eq!(shown(1.0, Unit::Alarm), "ALARM");
    }
}
