// SPDX-License-Identifier: MIT OR Apache-2.0
//! A change on its way to the leader and to a majority. It has a name, so that asking again is harmless.

use openraft::error::{ClientWriteError, RaftError};
use tokio::time::Instant;

use super::change::{Change, MAX_BODY, Origin, Outcome, Proposal, ProposalId, Refused};
use super::engine::Engine;
use super::network::CallError;
use super::types::Version;
use super::wire::{Kind, Propose, Proposed};
use super::{Inner, PAUSE, SettingsError};

enum Attempt {
    Applied(Result<Outcome, Refused>),
    NotProposed,
    Busy,
    Uncertain,
}

impl Inner {
    pub(super) async fn change(
        &self,
        change: &Change,
        who: Origin,
    ) -> Result<Version, SettingsError> {
        match self.propose(change, who).await? {
            Outcome::Changed(version) => Ok(version),
            _ => Err(SettingsError::Uncertain),
        }
    }

    /// Has a change made, through whoever leads.
    pub(super) async fn propose(
        &self,
        change: &Change,
        who: Origin,
    ) -> Result<Outcome, SettingsError> {
        let _permit = self.proposals.try_acquire().map_err(|_| SettingsError::Busy)?;
        let mut id: ProposalId = [0; 16];
        getrandom::fill(&mut id)
            .map_err(|why| SettingsError::Unavailable(format!("no random numbers: {why}")))?;
        let (kind, body) = change.encode();
        let who = Origin { node: self.hub.own, ..who };
        let propose = Propose { id, who, kind, body };
        let until = Instant::now() + self.options.patience;
        let mut uncertain = false;
        let mut busy = false;
        loop {
            match self.attempt(&propose, until).await? {
                Attempt::Applied(result) => return Ok(result?),
                Attempt::NotProposed => busy = false,
                Attempt::Busy => busy = true,
                Attempt::Uncertain => uncertain = true,
            }
            if Instant::now() + PAUSE >= until {
                return Err(match () {
                    () if uncertain => SettingsError::Uncertain,
                    () if busy => SettingsError::Busy,
                    () => SettingsError::NoMajority,
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn attempt(&self, propose: &Propose, until: Instant) -> Result<Attempt, SettingsError> {
        let engine = match self.engine() {
            Ok(engine) => engine,
            Err(_) if Instant::now() + 2 * PAUSE < until => return Ok(Attempt::NotProposed),
            Err(down) => return Err(down),
        };
        let leader = engine.raft.metrics().borrow().current_leader;
        let Some(leader) = leader else { return Ok(Attempt::NotProposed) };
        let asked = async {
            if leader == self.hub.own {
                return self.lead(&engine, propose.clone()).await;
            }
            match self.hub.call(leader, engine.reign, Kind::Propose, propose).await {
                Ok(answer) => answer.payload().unwrap_or(Proposed::Uncertain),
                Err(CallError::Refused(_) | CallError::TooLong(_)) => Proposed::NotLeader(None),
                Err(_) => Proposed::Uncertain,
            }
        };
        // Who is asked may be cut off from a majority, and another lead: that is worth a second question.
        let until = until.min(Instant::now() + self.options.patience / 3);
        let proposed = tokio::time::timeout_at(until, asked).await;
        Ok(match proposed.unwrap_or(Proposed::Uncertain) {
            Proposed::Applied(result) => Attempt::Applied(result),
            Proposed::NotLeader(_) => Attempt::NotProposed,
            Proposed::Busy => Attempt::Busy,
            Proposed::Uncertain => Attempt::Uncertain,
        })
    }

    /// Proposes as the leader.
    pub(super) async fn lead(&self, engine: &Engine, propose: Propose) -> Proposed {
        let Propose { id, who, kind, body } = propose;
        let metrics = engine.raft.metrics();
        let leader = metrics.borrow().current_leader;
        if leader != Some(self.hub.own) {
            return Proposed::NotLeader(leader);
        }
        let change = match Change::decode(kind, &body) {
            Ok(change) if body.len() <= MAX_BODY => change,
            _ => return Proposed::Applied(Err(Refused::Malformed)),
        };
        let at = (self.options.now)();
        let judged =
            engine.view.contents().state.judge_new(id, &who, at, &change, &*self.hub.policy);
        if let Err(refused) = judged {
            return Proposed::Applied(Err(refused));
        }
        let proposal = Proposal { id, who, at, kind, body };
        match engine.raft.client_write(proposal).await {
            Ok(written) => Proposed::Applied(written.data),
            // It may have been proposed before the leader fell.
            Err(
                RaftError::APIError(ClientWriteError::ForwardToLeader(_)) | RaftError::Fatal(_),
            ) => Proposed::Uncertain,
            Err(RaftError::APIError(_)) => Proposed::NotLeader(None),
        }
    }
}
