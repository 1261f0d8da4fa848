// SPDX-License-Identifier: MIT OR Apache-2.0
//! How it stands with the log, for people and programs.

use std::collections::BTreeMap;

use super::Settings;
use super::engine::Slot;
use super::types::{MemberId, Reign};

/// Whether the log is usable here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Health {
    /// It is.
    Good,
    /// It is not, and why; it mends itself when the cause is gone.
    Down(String),
    /// The others have a newer version: entries are stored, and not understood.
    TooOld(String),
}

/// How it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Whether the log is usable here.
    pub health: Health,
    /// Whose log it is.
    pub reign: Reign,
    /// Who leads, as far as is known here.
    pub leader: Option<MemberId>,
    /// The leader's term, or that of the last candidate.
    pub term: u64,
    /// Who votes.
    pub voters: Vec<MemberId>,
    /// Who learns.
    pub learners: Vec<MemberId>,
    /// Who is to vote, by the agreed roster.
    pub roster: Vec<MemberId>,
    /// The last entry in this member's log.
    pub last: Option<u64>,
    /// The last entry in this member's state.
    pub applied: Option<u64>,
    /// At the leader: entries that each other member does not have; none if it never answered.
    pub lag: BTreeMap<MemberId, Option<u64>>,
    /// At the leader: milliseconds since a majority last answered.
    pub unconfirmed_ms: Option<u64>,
}

impl Settings {
    /// How it stands with the log.
    #[must_use]
    pub fn status(&self) -> Status {
        let engine = match &*self.inner.slot.borrow() {
            Slot::Running(engine) => engine.clone(),
            Slot::Down(why) => {
                return Status {
                    health: Health::Down(why.clone()),
                    reign: Reign::default(),
                    leader: None,
                    term: 0,
                    voters: vec![],
                    learners: vec![],
                    roster: vec![],
                    last: None,
                    applied: None,
                    lag: BTreeMap::new(),
                    unconfirmed_ms: None,
                };
            }
        };
        let metrics = engine.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let last = metrics.last_log_index;
        let others = metrics.replication.iter().flatten().filter(|(id, _)| **id != metrics.id);
        let lag = others.map(|(id, matched)| {
            let behind = matched.map(|matched| last.unwrap_or(0).saturating_sub(matched.index));
            (*id, behind)
        });
        let too_old =
            engine.view.too_new().map(|too_new| Health::TooOld(too_new.error.to_string()));
        let contents = engine.view.contents();
        Status {
            health: too_old.unwrap_or(Health::Good),
            reign: engine.reign,
            leader: metrics.current_leader,
            term: metrics.current_term,
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
            roster: contents.state.roster().iter().copied().collect(),
            last,
            applied: contents.applied.map(|id| id.index),
            lag: lag.collect(),
            unconfirmed_ms: metrics.millis_since_quorum_ack,
        }
    }
}
