// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which devices somebody wants: terms with spaces between, of which all must fit.
//!
//! `type=disk vendor=0781 serial=AB*` — `KEY=VALUE`, where `*` and `?` stand for any characters, case does not
//! matter, and a comma separates alternatives; `KEY!=VALUE` for the opposite; a word without `=` must be part of id, model,
//! manufacturer, serial number or one of the types. Values with spaces are quoted: `model="Cruzer Blade"`. Nothing
//! at all fits every device.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::record::Device;

/// Longest pattern, bytes.
pub const MAX_PATTERN: usize = 1024;
/// Most terms of one: each costs a look at every device.
pub const MAX_TERMS: usize = 16;

/// What a term looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Unit,
    Bus,
    Path,
    Type,
    Vendor,
    Product,
    Manufacturer,
    Model,
    Serial,
    State,
    Any,
}

const FIELDS: [(&str, Field); 11] = [
    ("id", Field::Id),
    ("unit", Field::Unit),
    ("bus", Field::Bus),
    ("path", Field::Path),
    ("type", Field::Type),
    ("vendor", Field::Vendor),
    ("product", Field::Product),
    ("manufacturer", Field::Manufacturer),
    ("model", Field::Model),
    ("serial", Field::Serial),
    ("state", Field::State),
];

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: Field,
    not: bool,
    /// In lower case.
    globs: Vec<String>,
}

/// A pattern, and its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    terms: Vec<Term>,
}

/// A text is no [`Pattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is too long.
    #[error("a pattern has at most {MAX_PATTERN} bytes and {MAX_TERMS} terms")]
    Long,
    /// It looks at what there is not.
    #[error("`{0}` is no key; use {keys}", keys = FIELDS.map(|field| field.0).join(", "))]
    Key(String),
    /// A quotation mark is alone.
    #[error("a quotation mark is missing")]
    Quote,
}

impl Pattern {
    /// Whether a device fits.
    #[must_use]
    pub fn fits(&self, device: &Device) -> bool {
        self.terms.iter().all(|term| term.fits(device))
    }

    /// Whether it says what a device is, not only where or nothing: what a sensitive device must be named by.
    #[must_use]
    pub fn names(&self) -> bool {
        let says = |term: &Term| {
            !term.not && !matches!(term.field, Field::Unit | Field::Bus | Field::State)
        };
        self.terms.iter().any(|term| says(term) && term.globs.iter().all(|glob| glob != "*"))
    }
}

impl Term {
    fn fits(&self, device: &Device) -> bool {
        let found = &device.found;
        let is = |text: &str| {
            let text = text.to_lowercase();
            self.globs.iter().any(|wanted| daemon_kit::glob::fits(wanted, &text))
        };
        let has = |text: &str| {
            let text = text.to_lowercase();
            self.globs.iter().any(|wanted| text.contains(wanted.as_str()))
        };
        let fits = match self.field {
            Field::Id => is(&device.id.to_string()),
            Field::Unit => is(device.unit.0.as_str()),
            Field::Bus => is(&found.bus),
            Field::Path => is(&found.path),
            Field::Type => found.types.iter().any(|kind| is(kind)),
            Field::Vendor => is(&found.vendor),
            Field::Product => is(&found.product),
            Field::Manufacturer => is(&found.manufacturer),
            Field::Model => is(&found.model),
            Field::Serial => is(&found.serial),
            Field::State => is(device.state()),
            Field::Any => {
                let id = device.id.to_string();
                [&id, &found.model, &found.manufacturer, &found.serial].into_iter().any(|t| has(t))
                    || found.types.iter().any(|kind| is(kind))
            }
        };
        fits != self.not
    }
}

/// Cuts at spaces outside of quotation marks, and takes the marks away.
fn words(text: &str) -> Result<Vec<String>, PatternError> {
    let (mut all, mut word, mut quote, mut begun) = (vec![], String::new(), None, false);
    for c in text.chars() {
        match quote {
            Some(mark) if mark == c => quote = None,
            Some(_) => word.push(c),
            None if c == '"' || c == '\'' => (quote, begun) = (Some(c), true),
            None if c.is_whitespace() => {
                if begun {
                    all.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            None => {
                word.push(c);
                begun = true;
            }
        }
    }
    if quote.is_some() {
        return Err(PatternError::Quote);
    }
    if begun {
        all.push(word);
    }
    Ok(all)
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.len() > MAX_PATTERN {
            return Err(PatternError::Long);
        }
        let mut terms = vec![];
        for word in words(text)? {
            let lower = word.to_lowercase();
            let Some((key, value)) = lower.split_once('=') else {
                terms.push(Term { field: Field::Any, not: false, globs: vec![lower] });
                continue;
            };
            let (key, not) = key.strip_suffix('!').map_or((key, false), |key| (key, true));
            let field = FIELDS.iter().find(|(name, _)| *name == key);
            let field = field.ok_or_else(|| PatternError::Key(key.to_owned()))?.1;
            terms.push(Term { field, not, globs: value.split(',').map(str::to_owned).collect() });
        }
        if terms.len() > MAX_TERMS {
            return Err(PatternError::Long);
        }
        Ok(Self { text: text.to_owned(), terms })
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
        pattern.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::tests::device;

    #[test]
    fn terms_fit_as_the_manual_says() {
        let device = device("blade1", "AB12");
        for (pattern, fits) in [
            ("", true),
            ("type=disk vendor=0781 serial=AB*", true),
            ("type=disk,printer", true),
            ("type=printer", false),
            ("type!=printer", true),
            ("type!=disk", false),
            ("model=\"cruzer blade\" unit=blade?", true),
            ("model='cruzer'", false),
            ("cruzer", true),
            ("ab1 state=free", true),
            ("disk", true),
            ("is", false),
            ("serial=*b*2 product=5567", true),
        ] {
            assert_eq!(pattern.parse::<Pattern>().unwrap().fits(&device), fits, "{pattern}");
        }
        assert_eq!("tpye=x".parse::<Pattern>(), Err(PatternError::Key("tpye".into())));
        assert_eq!("model='x".parse::<Pattern>(), Err(PatternError::Quote));
        assert_eq!("x ".repeat(17).parse::<Pattern>(), Err(PatternError::Long));
    }

    #[test]
    fn only_what_says_what_it_is_names_a_device() {
        for (pattern, names) in [
            ("", false),
            ("unit=a", false),
            ("type=*", false),
            ("type!=disk", false),
            ("type=keyboard", true),
        ] {
            assert_eq!(pattern.parse::<Pattern>().unwrap().names(), names, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_pattern_or_refused(text in ".{0,60}") {
            if let Ok(pattern) = text.parse::<Pattern>() {
                let _ = pattern.fits(&device("a", "b"));
            }
        }
    }
}
