// SPDX-License-Identifier: MIT OR Apache-2.0
//! Patterns for the ids of metrics and for places.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A pattern for ids and places: `*` stands for any characters, `?` for one, all else for itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

/// Most bytes of a pattern.
pub const MAX_PATTERN: usize = 128;

/// A text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has 1 to {MAX_PATTERN} bytes and no control characters")]
pub struct PatternError;

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let fits = (1..=MAX_PATTERN).contains(&text.len()) && !text.contains(char::is_control);
        if fits { Ok(Self(text.to_owned())) } else { Err(PatternError) }
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Pattern {
    /// That of everything.
    #[must_use]
    pub fn any() -> Self {
        Self("*".to_owned())
    }

    /// How much of it stands for itself: the more, the closer it is meant.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.0.bytes().filter(|byte| !matches!(byte, b'*' | b'?')).count()
    }

    /// Whether it stands for this text. Takes at most the product of both lengths.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        daemon_kit::glob::fits(&self.0, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let matches = |pattern: &str, text| pattern.parse::<Pattern>().unwrap().matches(text);
        for (pattern, text) in [
            ("*", ""),
            ("*", "hwmon/x"),
            ("hwmon/*/temp?", "hwmon/1-0048/temp1"),
            ("*temp*", "hwmon/1-0048/temp1"),
            ("a*b*c", "aXbYbZc"),
            ("a", "a"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a*b", "aXbc"), ("?", ""), ("a", "ab"), ("hwmon/*", "ipmi/x")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        assert!(!matches(&"*a".repeat(60), &"a".repeat(59)));
        assert_eq!(" a\nb ".parse::<Pattern>(), Err(PatternError));
    }
}
