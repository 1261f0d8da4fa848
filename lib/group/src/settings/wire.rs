// SPDX-License-Identifier: MIT OR Apache-2.0
//! The envelope of what members send one another about the log.
//!
//! | bytes | what |
//! |---|---|
//! | 0 | version, [`VERSION`] |
//! | 1 | kind |
//! | 2 to 9 | the sender's reign: its number, little-endian |
//! | 10 to 25 | the sender's reign: who began it |
//! | 26 … | the payload, postcard, by kind |
//!
//! The first byte says whether the rest can be read; whatever the version is, an answer of version 1 and kind
//! [`Kind::Refusal`] can be read by all.

#[cfg(test)]
mod tests;

use openraft::LogId;
use openraft::raft::{AppendEntriesRequest, InstallSnapshotRequest, VoteRequest};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::change::{
    MAX_BODY, MAX_BYTES, MAX_KEYS, MAX_NAME, MAX_ORDER, MAX_ORDERS, MAX_RESULT, MAX_SUBJECT,
    MAX_VOTERS, Origin, Outcome, ProposalId, Refused, pack, unpack,
};
use super::state::{MAX_AUDIT, MAX_RECENT};
use super::types::{MemberId, Reign, Types};

/// The version that is spoken.
pub const VERSION: u8 = 1;
/// Bytes before the payload.
pub const HEADER: usize = 26;
/// Most bytes of a message: what a link carries, less what the shell puts around it.
pub const MAX_RPC: usize = (1 << 20) - 64;
/// Most entries of a message.
pub const MAX_ENTRIES: usize = 64;
/// Most bytes of a state as it is sent: the largest by [`super::change`]'s bounds, with what is around each part.
pub const MAX_SNAPSHOT: u64 = 32 << 20;
const _: () = {
    let keys = MAX_BYTES + MAX_KEYS * (2 * MAX_NAME + 128);
    let order = MAX_ORDER + MAX_RESULT + MAX_SUBJECT + 2 * MAX_NAME + 256;
    let audits = MAX_AUDIT * (3 * MAX_NAME + 2 * 16 * MAX_VOTERS + 256);
    let state = keys + MAX_ORDERS * order + audits + MAX_RECENT * 96 + 64 * MAX_VOTERS;
    assert!((state as u64) < MAX_SNAPSHOT, "any state can be sent");
};
/// Most bytes of a reason.
const MAX_REASON: usize = 512;

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A candidate asks for a vote.
    Vote = 1,
    /// A leader sends entries.
    Append = 2,
    /// A leader sends a piece of the state.
    Snapshot = 3,
    /// A member asks the leader for a change: [`Propose`].
    Propose = 4,
    /// The answer to each of them, in its own form.
    Answer = 128,
    /// The request was turned down: [`Refusal`].
    Refusal = 129,
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// The sender's.
    pub reign: Reign,
    /// What it is.
    pub kind: Kind,
    /// By kind.
    pub payload: Vec<u8>,
}

/// Why a message cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// It is of another version.
    #[error("version {0} is not spoken, only {VERSION}")]
    Version(u8),
    /// It is none.
    #[error("a message is malformed: {0}")]
    Malformed(&'static str),
}

impl Envelope {
    /// In its form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.payload.len());
        bytes.push(VERSION);
        bytes.push(self.kind as u8);
        bytes.extend(self.reign.number.to_le_bytes());
        bytes.extend(self.reign.by.0);
        bytes.extend(&self.payload);
        bytes
    }

    /// Reads it.
    ///
    /// # Errors
    /// It is of another version, or no message.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let version = *bytes.first().ok_or(WireError::Malformed("it is empty"))?;
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        if bytes.len() > MAX_RPC {
            return Err(WireError::Malformed("it is too long"));
        }
        let (header, payload) =
            bytes.split_at_checked(HEADER).ok_or(WireError::Malformed("it is too short"))?;
        let kind = match header[1] {
            1 => Kind::Vote,
            2 => Kind::Append,
            3 => Kind::Snapshot,
            4 => Kind::Propose,
            128 => Kind::Answer,
            129 => Kind::Refusal,
            _ => return Err(WireError::Malformed("its kind is unknown")),
        };
        let number = u64::from_le_bytes(std::array::from_fn(|at| header[2 + at]));
        let by = MemberId(std::array::from_fn(|at| header[10 + at]));
        Ok(Self { reign: Reign { number, by }, kind, payload: payload.to_vec() })
    }

    /// What a member is asked.
    ///
    /// # Errors
    /// It is an answer, or not of its kind.
    pub fn request(&self) -> Result<Request, WireError> {
        Ok(match self.kind {
            Kind::Vote => Request::Vote(self.payload()?),
            Kind::Append => Request::Append(self.payload()?),
            Kind::Snapshot => Request::Snapshot(self.payload()?),
            Kind::Propose => Request::Propose(self.payload()?),
            Kind::Answer | Kind::Refusal => return Err(WireError::Malformed("it is an answer")),
        })
    }

    /// The payload of a kind.
    ///
    /// # Errors
    /// It is not of this form.
    pub fn payload<T: DeserializeOwned>(&self) -> Result<T, WireError> {
        unpack(&self.payload).ok_or(WireError::Malformed("its payload is not of its kind"))
    }
}

/// What a member is asked.
#[derive(Clone, Debug)]
pub enum Request {
    /// See [`Kind::Vote`].
    Vote(VoteRequest<MemberId>),
    /// See [`Kind::Append`].
    Append(AppendEntriesRequest<Types>),
    /// See [`Kind::Snapshot`].
    Snapshot(InstallSnapshotRequest<Types>),
    /// See [`Kind::Propose`].
    Propose(Propose),
}

impl Request {
    /// Who says that it leads, or wants to.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        let vote = match self {
            Self::Vote(rpc) => rpc.vote,
            Self::Append(rpc) => rpc.vote,
            Self::Snapshot(rpc) => rpc.vote,
            Self::Propose(_) => return None,
        };
        Some(vote.leader_id.node_id)
    }

    /// Whether it makes sense, and keeps its bounds: the engine takes that for granted.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Vote(rpc) if rpc.vote.committed => {
                Err(WireError::Malformed("a candidate leads already"))
            }
            Self::Append(rpc) => check_append(rpc),
            Self::Snapshot(rpc) => check_piece(rpc),
            Self::Vote(_) | Self::Propose(_) => Ok(()),
        }
    }
}

/// A message with a payload.
pub(super) fn message<T: Serialize>(reign: Reign, kind: Kind, payload: &T) -> Vec<u8> {
    Envelope { reign, kind, payload: pack(payload) }.encode()
}

/// A change that the leader is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Propose {
    /// See [`super::change::Proposal`].
    pub id: ProposalId,
    /// Who wants it; the member is the one that sends this.
    pub who: Origin,
    /// See [`super::change::Proposal`].
    pub kind: u16,
    /// See [`super::change::Proposal`].
    pub body: Vec<u8>,
}

/// The answer to [`Propose`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Proposed {
    /// A majority has it on disk, and this came of it.
    Applied(Result<Outcome, Refused>),
    /// Nothing was proposed: the leader, or this member, is another.
    NotLeader(Option<MemberId>),
    /// Nothing was proposed: too much is under way.
    Busy,
    /// It may or may not be done.
    Uncertain,
}

/// Why a request was turned down. The answer's header has the reign of the one who answers.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// The version is unknown; those from the first to the second are spoken.
    #[error("versions {0} to {1} are spoken there")]
    Version(u8, u8),
    /// It makes no sense.
    #[error("the request is malformed")]
    Malformed,
    /// The reigns differ: the header has the other's.
    #[error("there is another reign")]
    Reign,
    /// It claims to be of another member than the link's.
    #[error("the request is in another member's name")]
    NotYou,
    /// This member may not lead.
    #[error("a member that may not lead tried to")]
    MayNotLead,
    /// The log cannot be used now.
    #[error("{0}")]
    Unavailable(String),
}

impl Refusal {
    /// [`Self::Unavailable`], cut to a bound.
    #[must_use]
    pub fn unavailable(why: &str) -> Self {
        Self::Unavailable(why.chars().take(MAX_REASON / 4).collect())
    }
}

/// Whether the entries follow one another and upon what they say they follow, and are the leader's to send.
fn check_append(rpc: &AppendEntriesRequest<Types>) -> Result<(), WireError> {
    let leader = rpc.vote.leader_id;
    let known = |id: &LogId<MemberId>| id.leader_id.term <= leader.term && id.index < u64::MAX / 2;
    if !rpc.vote.committed || rpc.entries.len() > MAX_ENTRIES {
        return Err(WireError::Malformed("it is not of a leader, or has too many entries"));
    }
    if !rpc.prev_log_id.iter().chain(&rpc.leader_commit).all(known) {
        return Err(WireError::Malformed("it is of a later term than its leader"));
    }
    let mut before = rpc.prev_log_id;
    for entry in &rpc.entries {
        let next = before.map_or(0, |id| id.index + 1);
        if entry.log_id.index != next || !known(&entry.log_id) || before >= Some(entry.log_id) {
            return Err(WireError::Malformed("its entries do not follow one another"));
        }
        if let openraft::EntryPayload::Normal(proposal) = &entry.payload
            && proposal.body.len() > MAX_BODY
        {
            return Err(WireError::Malformed("an entry is too long"));
        }
        before = Some(entry.log_id);
    }
    Ok(())
}

/// Whether a piece of a state lies within the bounds: the engine makes room for wherever it is said to lie.
fn check_piece(rpc: &InstallSnapshotRequest<Types>) -> Result<(), WireError> {
    let end = rpc.offset.checked_add(rpc.data.len() as u64);
    let id = rpc.meta.last_log_id;
    let known = id
        .is_some_and(|id| id.leader_id.term <= rpc.vote.leader_id.term && id.index < u64::MAX / 2);
    match end {
        Some(end) if end <= MAX_SNAPSHOT && rpc.vote.committed && known => Ok(()),
        _ => Err(WireError::Malformed("a piece of the state is out of bounds")),
    }
}
