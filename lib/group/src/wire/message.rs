// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said over a link.

use secure_link::Name;
use serde::{Deserialize, Serialize};

use super::record::{Key, MAX_VALUE, Record};
use super::{Life, WireError, decode, encode, name, split};

/// A push is closed when its records weigh this many bytes: on a link of 100 Mbit/s heartbeats of other
/// programs wait 5 ms for it. One record may be heavier.
pub const MAX_PUSH: usize = 64 * 1024;
/// Most bytes that a program sends in one message: what `secure-link` carries, without our envelope.
pub const MAX_PROGRAM: usize = secure_link::stream::MAX_MESSAGE - 64;

/// The first thing that each end says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The sender's life.
    pub life: Life,
    /// The newest life of the receiver's that the sender knows of. A receiver whose own is older has had
    /// its disk set back.
    pub yours: Option<Life>,
    /// What the sender has of the receiver's records, if it is whole: of which life, up to which version.
    pub have: Option<(Life, u64)>,
    /// Whether the sender wants the receiver's records at all.
    pub wants: bool,
    /// Whom the sender takes for the manager.
    #[serde(with = "name")]
    pub manager: Option<Name>,
    /// How many members the sender has seen for a while, itself counted and the receiver not.
    pub part: u8,
}

/// Changes of the sender's records, in the order of their versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// The life they are of.
    pub life: Life,
    /// The receiver has all up to this version. 0: the list begins anew, and what is not in it is gone.
    pub from: u64,
    /// It has all up to this one afterwards.
    pub to: u64,
    /// Whether the list is whole now, as of `to`.
    pub last: bool,
    /// What was set.
    pub set: Vec<Record>,
    /// What was removed.
    pub gone: Vec<Key>,
}

/// What is said over a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// First of all.
    Welcome(Welcome),
    /// Records.
    Push(Push),
    /// What the sender has of the receiver's records is not what the receiver has: all of it is
    /// wanted again.
    Again,
    /// The sender stops, or leaves the group: it need not be waited for.
    Leaving,
    /// A word of the program's own.
    Program(Vec<u8>),
    /// A question, to be answered under the same number.
    Call(u64, Channel, Vec<u8>),
    /// The answer.
    Answer(u64, Vec<u8>),
}

/// Whom a question is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Channel {
    /// The settings' log.
    Settings,
    /// The program.
    Program,
}

impl Message {
    const WELCOME: u8 = 1;
    const PUSH: u8 = 2;
    const AGAIN: u8 = 3;
    const LEAVING: u8 = 4;
    const PROGRAM: u8 = 5;
    const CALL: u8 = 6;
    const ANSWER: u8 = 7;

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Welcome(welcome) => encode(Self::WELCOME, welcome),
            Self::Push(push) => encode(Self::PUSH, push),
            Self::Again => encode(Self::AGAIN, &()),
            Self::Leaving => encode(Self::LEAVING, &()),
            Self::Program(bytes) => encode(Self::PROGRAM, bytes),
            Self::Call(id, channel, bytes) => encode(Self::CALL, &(id, channel, bytes)),
            Self::Answer(id, bytes) => encode(Self::ANSWER, &(id, bytes)),
        }
    }

    /// From bytes.
    ///
    /// # Errors
    /// See [`WireError`]. [`WireError::Kind`] is no fault of the sender's.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (kind, body) = split(bytes)?;
        Ok(match kind {
            Self::WELCOME => Self::Welcome(decode(body)?),
            Self::PUSH => Self::Push(checked(decode(body)?)?),
            Self::AGAIN => decode(body).map(|()| Self::Again)?,
            Self::LEAVING => decode(body).map(|()| Self::Leaving)?,
            Self::PROGRAM => Self::Program(decode(body)?),
            Self::CALL => {
                let (id, to, bytes) = decode(body)?;
                Self::Call(id, channel(to).ok_or(WireError::Kind(kind))?, bytes)
            }
            Self::ANSWER => decode(body).map(|(id, bytes)| Self::Answer(id, bytes))?,
            _ => return Err(WireError::Kind(kind)),
        })
    }
}

/// By its number, as postcard writes it. Those of a later release are none of ours, and no fault of its.
fn channel(number: u32) -> Option<Channel> {
    [Channel::Settings, Channel::Program].into_iter().find(|channel| *channel as u32 == number)
}

fn checked(push: Push) -> Result<Push, WireError> {
    let mut last = push.from;
    for record in &push.set {
        if record.value.len() > MAX_VALUE {
            return Err(WireError::Long);
        }
        if record.version <= last || record.version > push.to {
            return Err(WireError::Malformed);
        }
        last = record.version;
    }
    if push.to < push.from { Err(WireError::Malformed) } else { Ok(push) }
}
