// SPDX-License-Identifier: MIT OR Apache-2.0
//! What takes several steps: each begins when the one before it is done, or on stable storage.

use std::time::Duration;

use super::{Access, BladeName, Claim, Request, ShareName, Ticket};

/// What an operation has to itself: the lease of an exclusive share, or what one blade has of it.
pub(super) type Key = (ShareName, Option<BladeName>);

#[derive(Debug)]
pub(super) struct Op {
    pub task: Task,
    pub stage: Stage,
    /// Requests that are decided again when it is done, at most [`super::MAX_PARKED`].
    pub parked: Vec<(Ticket, Request)>,
    /// What is to be told although it is done.
    pub note: Option<String>,
}

#[derive(Debug)]
pub(super) enum Task {
    /// A new lease or overlay, or a new epoch of it.
    Attach {
        ticket: Ticket,
        blade: BladeName,
        access: Access,
    },
    /// The last writer ended in good order.
    Close,
    /// A hand-over, or an eject, which is one to nobody.
    Move {
        ticket: Option<Ticket>,
        from: Option<BladeName>,
        to: Option<BladeName>,
        force: bool,
    },
    Commit {
        ticket: Option<Ticket>,
        blade: BladeName,
    },
    Discard {
        ticket: Option<Ticket>,
        blade: BladeName,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Ejecting {
        forced: bool,
        until: Duration,
    },
    Cutting,
    Flushing,
    /// This version of the state, with what the task is about.
    Storing(u64),
    Making,
    Inserting {
        until: Duration,
    },
    Committing,
    Removing,
    /// This version of the state; then it is done.
    Finishing(u64),
}

impl Stage {
    pub fn until(self) -> Option<Duration> {
        match self {
            Self::Ejecting { until, .. } | Self::Inserting { until } => Some(until),
            _ => None,
        }
    }

    /// The version of the state that it waits for.
    pub fn stored_by(self) -> Option<u64> {
        match self {
            Self::Storing(version) | Self::Finishing(version) => Some(version),
            _ => None,
        }
    }
}

impl Op {
    pub fn new(task: Task) -> Self {
        Self { task, stage: Stage::Cutting, parked: Vec::new(), note: None }
    }

    /// Who holds the lease may come back while he is asked to eject, to write what is left, and who gets it while
    /// the drive is inserted there.
    pub fn lets_through(&self, claim: Claim) -> bool {
        matches!(self.stage, Stage::Ejecting { .. } | Stage::Inserting { .. })
            && matches!(claim, Claim::Epoch(_))
    }

    pub fn ticket(&self) -> Option<Ticket> {
        match &self.task {
            Task::Attach { ticket, .. } => Some(*ticket),
            Task::Close => None,
            Task::Move { ticket, .. }
            | Task::Commit { ticket, .. }
            | Task::Discard { ticket, .. } => *ticket,
        }
    }

    /// In words, for refusals and the status.
    pub fn show(&self) -> String {
        let step = match self.stage {
            Stage::Ejecting { forced: false, .. } => "ejecting",
            Stage::Ejecting { forced: true, .. } => "ejecting by force",
            Stage::Cutting => "waiting for the last requests",
            Stage::Flushing => "flushing",
            Stage::Storing(_) | Stage::Finishing(_) => "storing the state",
            Stage::Making => "making the overlay",
            Stage::Inserting { .. } => "inserting",
            Stage::Committing => "copying",
            Stage::Removing => "removing the overlay",
        };
        match &self.task {
            Task::Attach { blade, .. } => format!("is being granted to blade {blade} ({step})"),
            Task::Close => format!("is being closed by its last writer ({step})"),
            Task::Move { to: Some(to), .. } => format!("is being handed to blade {to} ({step})"),
            Task::Move { from, .. } => {
                let from = from.as_ref().map_or("its blade", BladeName::as_str);
                format!("is being ejected at blade {from} ({step})")
            }
            Task::Commit { blade, .. } => {
                format!("has the overlay of blade {blade} being committed ({step})")
            }
            Task::Discard { blade, .. } => {
                format!("has the overlay of blade {blade} being discarded ({step})")
            }
        }
    }
}
