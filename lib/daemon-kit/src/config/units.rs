// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values with a unit or a notation of their own, written as strings: `"250ms"`, `"0660"`.
//!
//! A bare number is refused, because a reader could not tell seconds from milliseconds or octal
//! from decimal.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Permission bits of a file or device node, `0o000` to `0o777`, written as `"0660"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(u32);

impl Mode {
    /// A mode for a default in code.
    ///
    /// # Panics
    /// When `bits` has more than permission bits. Input is parsed instead.
    pub const fn new(bits: u32) -> Self {
        assert!(bits <= 0o777, "a mode is permission bits only");
        Self(bits)
    }

    /// The permission bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl FromStr for Mode {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let bits = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
        // Three digits are always permission bits, four need not be.
        let bits = bits.filter(|bits| *bits <= 0o777);
        bits.map(Self).ok_or_else(|| UnitError::Mode(text.to_owned()))
    }
}

/// A time span of at most [`HumanDuration::MAX`], written as a whole number and `ms`, `s`, `m` or
/// `h`: `"250ms"`, `"5s"`, `"2m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(Duration);

/// Units from the largest to the smallest, with their length in milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// One year, milliseconds.
const MAX_MS: u64 = 365 * 24 * 3_600_000;

impl HumanDuration {
    /// The longest accepted, one year, so that adding it to a point in time cannot overflow.
    pub const MAX: Self = Self(Duration::from_millis(MAX_MS));

    /// A span of this many milliseconds, for a default in code.
    ///
    /// # Panics
    /// When it is longer than [`HumanDuration::MAX`]. Input is parsed instead.
    pub const fn from_millis(ms: u64) -> Self {
        assert!(ms <= MAX_MS, "a duration is a year at most");
        Self(Duration::from_millis(ms))
    }

    /// The span.
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis() as u64;
        if ms == 0 {
            return f.write_str("0s");
        }
        let (unit, length) =
            UNITS.into_iter().find(|(_, length)| ms.is_multiple_of(*length)).unwrap_or(("ms", 1));
        write!(f, "{}{unit}", ms / length)
    }
}

impl FromStr for HumanDuration {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let length = UNITS.into_iter().find(|(name, _)| *name == unit).map(|(_, length)| length);
        let (Some(length), false) = (length, number.is_empty()) else {
            return Err(UnitError::Duration(text.to_owned()));
        };
        // Only digits are left, so a number that does not parse is one that does not fit.
        let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(length));
        let ms = ms.filter(|ms| *ms <= MAX_MS);
        ms.map(Self::from_millis).ok_or_else(|| UnitError::TooLong(text.to_owned()))
    }
}

/// A string that is not in the notation of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not three or four octal digits up to 0777.
    #[error("{0:?} is not a file mode; write it in octal, such as \"0660\"")]
    Mode(String),
    /// Not a whole number and a unit.
    #[error(
        "{0:?} is not a duration; write a whole number and ms, s, m or h, such as \"250ms\" or \"5s\""
    )]
    Duration(String),
    /// Longer than [`HumanDuration::MAX`].
    #[error("the duration {0:?} is longer than a year")]
    TooLong(String),
}

struct Text<T> {
    expected: &'static str,
    _parsed: std::marker::PhantomData<T>,
}

impl<T: FromStr<Err = UnitError>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! serde_as_text {
    ($type:ty, $expected:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_str(Text {
                    expected: $expected,
                    _parsed: std::marker::PhantomData,
                })
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    };
}

serde_as_text!(Mode, "a file mode in quotes, such as \"0660\"");
serde_as_text!(HumanDuration, "a duration in quotes, such as \"250ms\", \"5s\" or \"2m\"");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (text, bits) in [("0660", 0o660), ("600", 0o600), ("0000", 0), ("0777", 0o777)] {
            assert_eq!(text.parse::<Mode>().unwrap().bits(), bits);
        }
        for text in ["", "6", "66", "0680", "1777", "00660", "+660", "0o66", " 660", "rw-"] {
            assert_eq!(text.parse::<Mode>(), Err(UnitError::Mode(text.to_owned())));
        }
        assert_eq!(Mode::new(0o60).to_string(), "0060");
    }

    #[test]
    fn durations() {
        for (text, ms) in
            [("250ms", 250), ("5s", 5000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)]
        {
            let parsed: HumanDuration = text.parse().unwrap();
            assert_eq!(parsed.get(), Duration::from_millis(ms));
            assert_eq!(parsed.to_string(), text);
        }
        for text in ["", "5", "s", "5 s", "-5s", "+5s", "1.5s", "1m30s", "5S", "5sec", "٥s"] {
            assert_eq!(text.parse::<HumanDuration>(), Err(UnitError::Duration(text.to_owned())));
        }
        for text in ["8761h", "18446744073709551616ms", "18446744073709551615h"] {
            assert_eq!(text.parse::<HumanDuration>(), Err(UnitError::TooLong(text.to_owned())));
        }
        assert_eq!("8760h".parse(), Ok(HumanDuration::MAX));
    }
}
