// SPDX-License-Identifier: MIT OR Apache-2.0
//! The names of things: members, reigns, and places in the log; and the engine's parameters made of them.

use std::fmt;
use std::io::Cursor;

use secure_link::NodeId;
use serde::{Deserialize, Serialize};

use super::change::{Outcome, Proposal, Refused};

/// A [`NodeId`] in what is stored and sent.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct MemberId(pub [u8; 16]);

impl From<NodeId> for MemberId {
    fn from(id: NodeId) -> Self {
        Self(id.0)
    }
}

impl From<MemberId> for NodeId {
    fn from(id: MemberId) -> Self {
        Self(id.0)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        NodeId(self.0).fmt(f)
    }
}

/// Whose log it is: one that all members go on with, until somebody overrides the majority and begins another.
/// The greater one wins.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Reign {
    /// 0 for a group's first log; one more with each override.
    pub number: u64,
    /// Who overrode; it decides between two who did so at the same time. Zeros for the first log.
    pub by: MemberId,
}

impl fmt::Display for Reign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.number == 0 {
            f.write_str("0")
        } else {
            write!(f, "{} of {}", self.number, self.by)
        }
    }
}

/// A place in the log; what is later in the order was agreed on later, or by a newer reign.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct Position {
    /// The log.
    pub reign: Reign,
    /// The leader's term.
    pub term: u64,
    /// The entry, from 0.
    pub index: u64,
}

/// When a key got its value.
pub type Version = Position;

openraft::declare_raft_types!(
    /// The engine's parameters.
    pub Types:
        D = Proposal,
        R = Result<Outcome, Refused>,
        NodeId = MemberId,
        Node = openraft::EmptyNode,
);

pub(super) type Entry = openraft::Entry<Types>;
pub(super) type LogId = openraft::LogId<MemberId>;
pub(super) type Vote = openraft::Vote<MemberId>;
pub(super) type Membership = openraft::StoredMembership<MemberId, openraft::EmptyNode>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<MemberId, openraft::EmptyNode>;
pub(super) type Snapshot = openraft::Snapshot<Types>;
pub(super) type StorageError = openraft::StorageError<MemberId>;
pub(super) type Raft = openraft::Raft<Types>;
