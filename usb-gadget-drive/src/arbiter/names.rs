// SPDX-License-Identifier: MIT OR Apache-2.0
//! What shares and blades are called.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Bytes of a name: it becomes part of a file's name, with another and some more.
pub const MAX_NAME_LEN: usize = 64;

/// Not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name: use 1 to {MAX_NAME_LEN} letters, digits, '-', '_', and '.', and none of these three first"
)]
pub struct BadName(String);

fn check(name: &str) -> Result<Arc<str>, BadName> {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && name.len() <= MAX_NAME_LEN && name.chars().all(is_inner) {
        return Ok(name.into());
    }
    // What is shown of it has a bound as well.
    Err(BadName(name.chars().take(MAX_NAME_LEN).collect()))
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;

            fn from_str(name: &str) -> Result<Self, BadName> {
                check(name).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;

            fn try_from(name: String) -> Result<Self, BadName> {
                name.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

name! {
    /// A share, as configured.
    ShareName
}
name! {
    /// A blade, or another client, as its certificate or key says.
    BladeName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_safe_in_a_path() {
        for good in ["a", "rescue-12", "Debian_12.iso", &"x".repeat(64)] {
            assert_eq!(good.parse::<ShareName>().map(String::from).as_deref(), Ok(good));
        }
        for bad in ["", ".", "..", "-x", "_x", "a/b", "a@b", "a b", "ä", "a\0", &"x".repeat(65)] {
            assert!(bad.parse::<ShareName>().is_err(), "{bad:?}");
        }
    }
}
