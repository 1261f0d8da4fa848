// SPDX-License-Identifier: MIT OR Apache-2.0
//! The frames of a handshake as bytes, and the first message's clear part.
//!
//! On a stream each frame stands behind its length in two bytes ([`LENGTH`]). In a handshake a frame's
//! first byte is its [`Kind`]. An opening, whose layout is the same in all versions of the protocol:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | [`MAGIC`] |
//! | 1 | the version this handshake is in |
//! | 1, 1 | the oldest and the newest that the initiator speaks |
//! | 1 | 1 if the addresses of the connection are bound, else 0 |
//! | 8 | id of the group key |
//! | 1 + n, four times | names: group, program, initiator's role, responder's role |
//! | 16 | tag by the group key over all before it, the addresses, and all behind it |
//! | rest | the handshake's first message |
//!
//! What stands before the tag, and the addresses, are the handshake's prologue: a bit changed on the way,
//! such as the newest version, and no handshake comes about.

use std::net::SocketAddr;

use crate::keys::KeyId;
use crate::name::Name;
use crate::wire::{ADDRESS_LEN, DecodeError, Reader, encode_address};

/// Bytes of the length before each frame of a stream.
pub const LENGTH: usize = 2;
/// Most bytes of a frame before both ends are known, without its length: a message of Noise with
/// [`crate::hello::Hello::MAX_LEN`]. This much memory, and no more, an unknown sender can take.
pub const MAX_HANDSHAKE_FRAME: usize = 1536;

/// Begins an opening.
pub const MAGIC: [u8; 4] = *b"MPSL";

/// Frames of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The first message: initiator to responder.
    Opening = 1,
    /// The second: back.
    Answer = 2,
    /// The third: initiator to responder.
    Proof = 3,
    /// The responder's consent, or why not; sealed.
    Confirm = 4,
    /// There will be no session. In clear, so anybody may have sent it.
    Refused = 5,
}

impl Kind {
    /// Tells a frame's kind and the rest.
    pub(crate) fn split(frame: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let (kind, body) = frame.split_first().ok_or(DecodeError::Short)?;
        if frame.len() > MAX_HANDSHAKE_FRAME {
            return Err(DecodeError::Long);
        }
        let kinds = [Self::Opening, Self::Answer, Self::Proof, Self::Confirm, Self::Refused];
        let found = kinds.into_iter().find(|known| *known as u8 == *kind);
        Ok((found.ok_or(DecodeError::Field("kind"))?, body))
    }

    /// A frame of this kind with its length before it.
    pub(crate) fn frame(self, body: &[&[u8]]) -> Vec<u8> {
        let len = 1 + body.iter().map(|part| part.len()).sum::<usize>();
        debug_assert!(len <= MAX_HANDSHAKE_FRAME);
        let len = u16::try_from(len).expect("handshake frames are below 2 KiB");
        [&len.to_be_bytes()[..], &[self as u8]]
            .into_iter()
            .chain(body.iter().copied())
            .flatten()
            .copied()
            .collect()
    }
}

/// The versions that somebody speaks, from the oldest to the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub oldest: u8,
    /// The newest, not below `oldest`.
    pub newest: u8,
}

impl Versions {
    /// What this release speaks. Adjacent releases have one in common, so that a group is upgraded
    /// member by member.
    pub const SPOKEN: Self = Self { oldest: 1, newest: 1 };

    /// The newest that both speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u8> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }

    pub(crate) fn decode([oldest, newest]: [u8; 2]) -> Result<Self, DecodeError> {
        if oldest == 0 || oldest > newest {
            return Err(DecodeError::Field("range of versions"));
        }
        Ok(Self { oldest, newest })
    }
}

/// The two addresses of a connection, as both ends see them. Where something between them writes
/// addresses anew (NAT) they cannot be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    /// Who connected.
    pub initiator: SocketAddr,
    /// Who listened.
    pub responder: SocketAddr,
}

/// The clear part of the first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The version of all that follows.
    pub version: u8,
    /// What the initiator speaks.
    pub versions: Versions,
    /// Whether the connection's addresses are in the prologue.
    pub addresses: bool,
    /// The group key by which both are to admit each other.
    pub key: KeyId,
    /// The group's name.
    pub group: Name,
    /// The program whose protocol is to be spoken.
    pub program: Name,
    /// As what the initiator comes.
    pub from: Name,
    /// What it wants to reach.
    pub to: Name,
}

/// An opening that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened<'a> {
    /// What it says.
    pub opening: Opening,
    /// The bytes that say it.
    pub clear: &'a [u8],
    /// Of the group key.
    pub tag: [u8; 16],
    /// The handshake's first message.
    pub message: &'a [u8],
}

impl Opening {
    /// The part before the tag.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend([self.version, self.versions.oldest, self.versions.newest]);
        out.push(self.addresses.into());
        out.extend(self.key.0);
        for name in [&self.group, &self.program, &self.from, &self.to] {
            out.push(u8::try_from(name.as_str().len()).expect("names have at most 63 bytes"));
            out.extend(name.as_str().as_bytes());
        }
        out
    }

    /// Reads an opening's frame behind its kind.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(body: &[u8]) -> Result<Opened<'_>, DecodeError> {
        let mut reader = Reader(body);
        if reader.array()? != MAGIC {
            return Err(DecodeError::Field("beginning"));
        }
        let version = reader.u8()?;
        let versions = Versions::decode(reader.array()?)?;
        if !(versions.oldest..=versions.newest).contains(&version) {
            return Err(DecodeError::Field("version"));
        }
        let addresses = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::Field("flag of addresses")),
        };
        let key = KeyId(reader.array()?);
        let mut name = || {
            let len = reader.u8()?;
            let text = std::str::from_utf8(reader.bytes(len.into())?).ok();
            text.and_then(|text| text.parse().ok()).ok_or(DecodeError::Field("name"))
        };
        let (group, program, from, to) = (name()?, name()?, name()?, name()?);
        let clear = &body[..body.len() - reader.0.len()];
        let tag = reader.array()?;
        let opening = Self { version, versions, addresses, key, group, program, from, to };
        Ok(Opened { opening, clear, tag, message: reader.0 })
    }
}

/// What the handshake is bound to: an opening's clear bytes and the addresses, zeros if not bound.
pub(crate) fn prologue(clear: &[u8], endpoints: Option<Endpoints>) -> Vec<u8> {
    let mut prologue = b"midplane secure-link\0".to_vec();
    prologue.extend(clear);
    match endpoints {
        Some(ends) => {
            prologue.extend(encode_address(ends.initiator));
            prologue.extend(encode_address(ends.responder));
        }
        None => prologue.extend([0; 2 * ADDRESS_LEN]),
    }
    prologue
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening() -> Opening {
        Opening {
            version: 2,
            versions: Versions { oldest: 1, newest: 3 },
            addresses: true,
            key: KeyId([1, 2, 3, 4, 5, 6, 7, 8]),
            group: "rack-1".parse().unwrap(),
            program: "ipmi-mux".parse().unwrap(),
            from: "member".parse().unwrap(),
            to: "member".parse().unwrap(),
        }
    }

    /// Other releases read these bytes: they are never changed.
    #[test]
    fn golden_bytes() {
        let bytes = b"MPSL\x02\x01\x03\x01\x01\x02\x03\x04\x05\x06\x07\x08\x06rack-1\x08ipmi-mux\x06member\x06member";
        assert_eq!(opening().encode(), bytes);
        let whole = [&bytes[..], &[9; 16], b"noise"].concat();
        let opened = Opened { opening: opening(), clear: bytes, tag: [9; 16], message: b"noise" };
        assert_eq!(Opening::decode(&whole), Ok(opened));
        for len in 0..bytes.len() + 16 {
            assert_eq!(Opening::decode(&whole[..len]), Err(DecodeError::Short), "{len}");
        }
    }

    #[test]
    fn impossible_fields_are_refused() {
        let good = [opening().encode(), vec![0; 16]].concat();
        for (at, value) in [(0, b'm'), (4, 0), (4, 4), (5, 0), (5, 4), (7, 2), (16, 0), (17, b'/')]
        {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(Opening::decode(&bad).is_err(), "byte {at} is {value}");
        }
    }

    #[test]
    fn the_newest_common_version_is_spoken() {
        let versions = |oldest, newest| Versions { oldest, newest };
        assert_eq!(versions(1, 2).common(versions(2, 3)), Some(2));
        assert_eq!(versions(1, 3).common(versions(1, 2)), Some(2));
        assert_eq!(versions(1, 1).common(versions(2, 2)), None);
    }
}
