// SPDX-License-Identifier: MIT OR Apache-2.0
//! What members tell one another: [`Message`]s over a link, [`Beat`]s as datagrams. Both are sealed by
//! the session of the two, so the sender is known and needs no field.
//!
//! A byte for the version, a byte for the kind, and the fields in postcard's encoding, whose order is
//! never changed: a later version appends kinds. Kinds that are not known are skipped, as adjacent
//! releases live together.

mod beat;
mod message;
mod record;
#[cfg(test)]
mod tests;

pub use beat::{Beat, Echo, Flags};
pub use message::{Channel, MAX_PROGRAM, MAX_PUSH, Message, Push, Welcome};
pub use record::{Class, Key, KeyError, MAX_KEY, MAX_VALUE, Record, Value};

use secure_link::Name;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Spoken by this release.
pub const VERSION: u8 = 1;

/// Microseconds of a machine's clock since its boot (`CLOCK_BOOTTIME`), only ever compared with others of
/// the same machine and boot.
pub type Micros = u64;

/// Microseconds since 1970 by the clock that the group shares; see [`crate::core::clock`].
pub type GroupTime = i64;

/// A life of a member's program. Lives are ordered by their epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Life {
    /// Raised at each start, on disk before it is told; so what was said in an earlier life is older, even
    /// if clocks went back.
    pub epoch: u64,
    /// By chance. Two lives of one epoch are those of a disk that was set back.
    pub nonce: u64,
}

/// Bytes that mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Of another version than [`VERSION`].
    #[error("version {0} is not spoken here")]
    Version(u8),
    /// A kind that a later release may know.
    #[error("kind {0} is not known here")]
    Kind(u8),
    /// The fields do not fit the kind.
    #[error("malformed")]
    Malformed,
    /// More than there may be of it.
    #[error("too long")]
    Long,
}

fn encode(kind: u8, body: &impl Serialize) -> Vec<u8> {
    let out = vec![VERSION, kind];
    postcard::to_extend(body, out).expect("a vector takes whatever is written to it")
}

fn split(bytes: &[u8]) -> Result<(u8, &[u8]), WireError> {
    match bytes {
        [VERSION, kind, body @ ..] => Ok((*kind, body)),
        [version, _, ..] => Err(WireError::Version(*version)),
        _ => Err(WireError::Malformed),
    }
}

/// Nothing may stand behind the fields.
fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, WireError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(WireError::Malformed),
    }
}

/// Names as texts.
mod name {
    use super::{Deserialize, Deserializer, Name, Serialize, Serializer};

    pub fn serialize<S: Serializer>(name: &Option<Name>, to: S) -> Result<S::Ok, S::Error> {
        name.as_ref().map(Name::as_str).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Name>, D::Error> {
        let text = Option::<&str>::deserialize(from)?;
        text.map(str::parse).transpose().map_err(serde::de::Error::custom)
    }
}
