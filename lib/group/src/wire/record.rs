// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records: what a member observes, by key.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::GroupTime;

/// Most bytes of a key.
pub const MAX_KEY: usize = 128;
/// Most bytes of a value: a FRU's data, a device with all its descriptors.
pub const MAX_VALUE: usize = 64 * 1024;

/// A record's key: 1 to [`MAX_KEY`] bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(Arc<str>);

impl Key {
    /// The key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A text is no [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a key has 1 to {MAX_KEY} bytes and no control characters")]
pub struct KeyError;

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let fits = (1..=MAX_KEY).contains(&text.len()) && !text.contains(char::is_control);
        if fits { Ok(Self(text.into())) } else { Err(KeyError) }
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.as_str().to_owned()
    }
}

/// A record's value, in the program's own encoding; at most [`MAX_VALUE`] bytes.
pub type Value = Arc<[u8]>;

/// How a record changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Class {
    /// When parts are changed: what somebody is, and what it has.
    Static,
    /// By itself: what is measured. Worth little when its owner is lost.
    Dynamic,
}

/// What one member says about one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What it is about.
    pub key: Key,
    /// The version of the owner's list in which it was set: the order of all that it says.
    pub version: u64,
    /// How it changes.
    pub class: Class,
    /// When its owner set it.
    pub at: GroupTime,
    /// What it says.
    pub value: Value,
}

impl Record {
    /// Its share of a list's hash, which is the exclusive or of all of them: lists that differ by accident
    /// have different ones. Against its owner it protects nobody, and need not.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let head = [&self.version.to_le_bytes()[..], &[self.class as u8]].concat();
        let parts = [&head[..], &self.at.to_le_bytes(), self.key.as_str().as_bytes(), &[0]];
        let mut digest = Sha256::new();
        for part in parts {
            digest.update(part);
        }
        digest.update(&self.value);
        let digest = digest.finalize();
        u64::from_le_bytes(std::array::from_fn(|i| digest[i]))
    }

    /// Bytes that it takes in a message, at most.
    #[must_use]
    pub fn weight(&self) -> usize {
        // Two lengths and two numbers as varints, and the class.
        self.key.as_str().len() + self.value.len() + 2 * 5 + 2 * 10 + 1
    }
}
