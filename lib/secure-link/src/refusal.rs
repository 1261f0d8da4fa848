// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why one end will have nothing to do with the other, as it is told.

use crate::opening::Versions;
use crate::wire::{DecodeError, Reader};

/// Why there is no session. The other end is told, in clear before the handshake's end and sealed in it;
/// what comes in clear may be anybody's and is a hint for people, or for the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no common version, or the handshake is not in the newest that is common.
    #[error("it speaks versions {} to {} of the protocol", .0.oldest, .0.newest)]
    Version(Versions),
    /// The group key is not known there.
    #[error("it has another group key; give it this group's with `midplane key join`")]
    UnknownKey,
    /// The group key is known, but the opening was changed on the way, or sent from another address.
    #[error(
        "what arrived there is not what was sent: something on the way rewrites addresses or content"
    )]
    Changed,
    /// It is of another group.
    #[error("it is of another group")]
    OtherGroup,
    /// It is another program.
    #[error("it is another program")]
    OtherProgram,
    /// It does not take that role, or not from that role.
    #[error("it does not talk with this role")]
    Role,
    /// Too many handshakes are under way there.
    #[error("it has too many unfinished handshakes")]
    Busy,
    /// The key was taken out of the group.
    #[error("the member was revoked")]
    Revoked,
    /// The name is pinned to another key, or the key to another name.
    #[error(
        "the name belongs to another member; a replaced machine takes it after `midplane key forget`"
    )]
    NameTaken,
    /// Members that are not pinned are not let in.
    #[error("the group is closed to new members")]
    Closed,
    /// The roster is full.
    #[error("the group is full")]
    Full,
    /// The key is one's own: a copied machine, or a connection led back to where it came from.
    #[error(
        "it has the same node key: a copied machine, or the connection leads back to its beginning"
    )]
    SameKey,
    /// Of a later release.
    #[error("for reason {0}, which this release does not know")]
    Other(u8),
}

impl Refusal {
    fn code(self) -> u8 {
        match self {
            Self::Version(_) => 1,
            Self::UnknownKey => 2,
            Self::Changed => 3,
            Self::OtherGroup => 4,
            Self::OtherProgram => 5,
            Self::Role => 6,
            Self::Busy => 7,
            Self::Revoked => 8,
            Self::NameTaken => 9,
            Self::Closed => 10,
            Self::Full => 11,
            Self::SameKey => 12,
            Self::Other(code) => code,
        }
    }

    /// The reason's number, then for all of them two bytes: the versions spoken, or zeros.
    #[must_use]
    pub fn encode(self) -> [u8; 3] {
        match self {
            Self::Version(versions) => [1, versions.oldest, versions.newest],
            other => [other.code(), 0, 0],
        }
    }

    /// Reads what [`Self::encode`] wrote; what a later release puts behind it is not looked at.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        let code = reader.u8()?;
        let versions = reader.array()?;
        Ok(match code {
            0 => return Err(DecodeError::Field("reason")),
            1 => Self::Version(Versions::decode(versions)?),
            2 => Self::UnknownKey,
            3 => Self::Changed,
            4 => Self::OtherGroup,
            5 => Self::OtherProgram,
            6 => Self::Role,
            7 => Self::Busy,
            8 => Self::Revoked,
            9 => Self::NameTaken,
            10 => Self::Closed,
            11 => Self::Full,
            12 => Self::SameKey,
            other => Self::Other(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_there_and_back() {
        for code in 2..=u8::MAX {
            let refusal = Refusal::decode(&[code, 0, 0]).unwrap();
            assert_eq!(refusal.encode(), [code, 0, 0]);
            assert_eq!(matches!(refusal, Refusal::Other(_)), code > 12);
        }
        let versions = Refusal::Version(Versions { oldest: 2, newest: 3 });
        assert_eq!(versions.encode(), [1, 2, 3]);
        assert_eq!(Refusal::decode(&[1, 2, 3]), Ok(versions));
        for bad in [&[][..], &[2], &[0, 0, 0], &[1, 3, 2], &[1, 0, 0]] {
            assert!(Refusal::decode(bad).is_err(), "{bad:?}");
        }
    }
}
