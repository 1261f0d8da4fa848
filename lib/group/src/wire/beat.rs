// SPDX-License-Identifier: MIT OR Apache-2.0
//! Heartbeats: small, sent often, and each says all that has to be known at once.

use secure_link::Name;
use serde::{Deserialize, Serialize};

use super::{GroupTime, Micros, WireError, decode, encode, name, split};

/// What a member is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Flags {
    /// It could be the active manager.
    pub eligible: bool,
    /// It is the active manager, by its own word. Only such a one is a target of redirects.
    pub active: bool,
}

/// The newest beat from the receiver that the sender has seen: with it, the receiver knows that it is heard,
/// and how far apart the two clocks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// When it was sent, by the receiver's clock.
    pub sent: Micros,
    /// When it arrived, by the sender's.
    pub arrived: Micros,
}

/// A heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// When it is sent, by the sender's clock; no two of a link are alike, so that one which is repeated on
    /// the way is no sign of life.
    pub sent: Micros,
    /// The epoch of the sender's life.
    pub epoch: u64,
    /// What it has heard of the receiver.
    pub echo: Option<Echo>,
    /// Whether the receiver is to answer at once.
    pub probe: bool,
    /// Milliseconds until the next one.
    pub interval: u16,
    /// What it is.
    pub flags: Flags,
    /// Whom it takes for the active manager.
    #[serde(with = "name")]
    pub manager: Option<Name>,
    /// How many members it has seen for a while, itself counted.
    pub part: u8,
    /// The version of its records.
    pub version: u64,
    /// Their hash.
    pub hash: u64,
    /// The version that it has of the receiver's records.
    pub have: u64,
    /// The group's time when it was sent.
    pub time: GroupTime,
    /// How far that may be off, in microseconds; none if it has not found the group's time yet.
    pub time_error: Option<u32>,
}

impl Beat {
    const BEAT: u8 = 1;

    /// As bytes: about 100, at most 200, so that it fits the smallest packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(Self::BEAT, self)
    }

    /// From bytes.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        match split(bytes)? {
            (Self::BEAT, body) => decode(body),
            (kind, _) => Err(WireError::Kind(kind)),
        }
    }
}
