// SPDX-License-Identifier: MIT OR Apache-2.0
//! What goes into the core and comes out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{BladeName, Refusal, ShareName, State};

/// The time, as the shell reads it before each call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Since any fixed moment; never goes back. Limits are kept by it.
    pub mono: Duration,
    /// Seconds since 1970, to be shown.
    pub unix: u64,
}

/// How a share is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nobody writes.
    ReadOnly,
    /// One writes, or any number read.
    Exclusive,
    /// Each writer has an overlay of its own.
    Private,
}

/// To look or to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// To read.
    Read,
    /// To read and write.
    Write,
}

/// A share as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// How it is used.
    pub mode: Mode,
    /// What each blade may do.
    pub rights: BTreeMap<BladeName, Access>,
    /// What blades that are not named may do.
    pub others: Option<Access>,
    /// What is below can be written, so that overlays can be committed.
    pub is_writable: bool,
    /// Its size, bytes: for the overlays over it.
    pub size: u64,
}

impl Share {
    pub(super) fn right(&self, blade: &BladeName) -> Option<Access> {
        self.rights.get(blade).copied().or(self.others)
    }
}

/// How long the steps of a hand-over may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For the agent to eject: its host may have to write a lot first.
    pub eject: Duration,
    /// For it to eject by force, which asks no host.
    pub forced_eject: Duration,
    /// For the agent to insert.
    pub insert: Duration,
    /// Until the state is written again after that failed.
    pub store_again: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            eject: Duration::from_secs(20),
            forced_eject: Duration::from_secs(5),
            insert: Duration::from_secs(20),
            store_again: Duration::from_secs(1),
        }
    }
}

/// What the shell calls a request, to find its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What one or more connections of a blade to a share have together. Never used twice while the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(super) u64);

/// What the shell is to do, by number. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub(super) u64);

/// What a connection says of those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nothing: it joins what its blade has open, or begins anew. For clients that are not ours.
    Any,
    /// It has nothing left of any before it: these are cut, and what they send late is refused.
    New,
    /// It goes on, and may send again, what was begun in this epoch. For writers. The shell ends first what it still has
    /// open in it, or an old request could come after a new one.
    Epoch(u64),
    /// It goes on reading this generation. For readers.
    Generation(u64),
}

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A connection wants to use a share.
    Attach {
        /// The share.
        share: ShareName,
        /// Who.
        blade: BladeName,
        /// How.
        access: Access,
        /// What of its past still counts.
        claim: Claim,
    },
    /// The operator wants another blade to write to an exclusive share.
    HandOver {
        /// The share.
        share: ShareName,
        /// Who must have it now, if that matters.
        from: Option<BladeName>,
        /// Who is to have it.
        to: BladeName,
        /// To go on without the consent of who has it.
        force: bool,
    },
    /// The operator wants a blade to let go of a share.
    Eject {
        /// The share.
        share: ShareName,
        /// Who.
        blade: BladeName,
        /// To go on without its consent.
        force: bool,
    },
    /// The operator wants what a blade wrote to become the share.
    Commit {
        /// The share.
        share: ShareName,
        /// Whose overlay.
        blade: BladeName,
    },
    /// The operator wants what a blade wrote to be forgotten.
    Discard {
        /// The share.
        share: ShareName,
        /// Whose overlay.
        blade: BladeName,
    },
}

/// What a connection may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// To be named when the connection ends.
    pub session: SessionId,
    /// How it may use the share.
    pub access: Access,
    /// For a [`Fenced`](crate::fence::Fenced), and for the client to claim by; readers of the share itself have none.
    pub epoch: Option<u64>,
    /// Of the share, or of what is below the overlay.
    pub generation: u64,
    /// It is to have the overlay with this id, not the share itself.
    pub overlay: Option<u64>,
}

/// A request that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The connection may use the share.
    Granted(Grant),
    /// It is done; the text says what else is to be known, if anything.
    Done(Option<String>),
}

/// What the shell is to do, in this order. It may do jobs at the same time as later actions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Bring the state to stable storage (`state::store`), then call [`Arbiter::stored`](super::Arbiter::stored).
    Store {
        /// To be told with the result.
        version: u64,
        /// What.
        state: State,
    },
    /// Tell who asked. If a connection that was granted is gone by now, call
    /// [`Arbiter::detached`](super::Arbiter::detached) for it.
    Answer {
        /// Who.
        ticket: Ticket,
        /// What became of it.
        result: Result<Outcome, Refusal>,
    },
    /// Do it, then call [`Arbiter::done`](super::Arbiter::done).
    Do {
        /// To be told with the result.
        job: JobId,
        /// What.
        what: Job,
    },
}

/// Work of the shell. All of it may be ordered again after a crash, when it was done or half done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Have the blade's agent eject the share's drive: it lets go only when its host agrees, and has sent all writes and
    /// a flush before it says done. `forced`: at once. An error if the agent refuses or cannot be reached.
    Eject {
        /// The share.
        share: ShareName,
        /// Where.
        blade: BladeName,
        /// Without asking its host.
        forced: bool,
    },
    /// Let nothing of these sessions reach the disk any more: close their connections and raise the
    /// [`Fence`](crate::fence::Fence) of what they wrote to above `epoch`, which waits for requests on their way.
    /// Cannot fail. The sessions are forgotten: their ends need not be told.
    Cut {
        /// The share.
        share: ShareName,
        /// Whose overlay, if it is one.
        overlay: Option<BladeName>,
        /// All up to this one; `None` for readers, who have no fence.
        epoch: Option<u64>,
        /// Whose connections.
        sessions: Vec<SessionId>,
    },
    /// Flush the share, or the overlay of this blade if it is open.
    Flush {
        /// The share.
        share: ShareName,
        /// Whose overlay, if it is one.
        overlay: Option<BladeName>,
    },
    /// Have the blade's agent insert the share's drive and attach with `Claim::Epoch(epoch)`. Done when configfs says so.
    /// That it is there already under this epoch is fine.
    Insert {
        /// The share.
        share: ShareName,
        /// Where.
        blade: BladeName,
        /// What its sessions are to carry.
        epoch: u64,
    },
    /// Make an empty overlay (`overlay::create`).
    Make(OverlayRef),
    /// Write an overlay to the share (`Overlay::commit`): open both, the share for writing. Nobody else has either.
    Commit(OverlayRef),
    /// Take an overlay's file away (`overlay::remove`).
    Remove(OverlayRef),
}

/// Which overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayRef {
    /// The share below.
    pub share: ShareName,
    /// Whose.
    pub blade: BladeName,
    /// The epoch it was made in.
    pub id: u64,
    /// Of the share below.
    pub generation: u64,
}
