// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is answered to other members: to each only what it asks in its own name.

use openraft::error::RaftError;
use openraft::raft::{AppendEntriesRequest, InstallSnapshotRequest, VoteRequest};
use serde::Serialize;

use super::engine::{Engine, Slot};
use super::types::{MemberId, Reign, Types};
use super::wire::{
    Envelope, Kind, Propose, Proposed, Refusal, VERSION, WireError, check_append, check_piece,
    message,
};
use super::{Inner, MAX_PROPOSALS};

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Version(_) => Self::Version(VERSION, VERSION),
            WireError::Malformed(_) => Self::Malformed,
        }
    }
}

fn refused<T, E: std::error::Error>(error: RaftError<T, E>) -> Refusal
where
    T: openraft::NodeId,
{
    Refusal::unavailable(&error.to_string())
}

impl Inner {
    pub(super) async fn answer(&self, from: MemberId, request: &[u8]) -> Vec<u8> {
        let slot = self.slot.borrow().clone();
        let (reign, answer) = match slot {
            Slot::Running(engine) => (engine.reign, self.answer_in(&engine, from, request).await),
            Slot::Down(why) => (Reign::default(), Err(Refusal::unavailable(&why))),
        };
        answer.unwrap_or_else(|refusal| {
            tracing::debug!(%from, %refusal, "a request is refused");
            message(reign, Kind::Refusal, &refusal)
        })
    }

    async fn answer_in(
        &self,
        engine: &Engine,
        from: MemberId,
        request: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        let envelope = Envelope::decode(request)?;
        if envelope.reign != engine.reign {
            self.hub.heard(from, engine.reign, envelope.reign);
            return Err(Refusal::Reign);
        }
        let answered = match envelope.kind {
            Kind::Vote => self.vote(engine, from, &envelope).await?,
            Kind::Append => self.append(engine, from, &envelope).await?,
            Kind::Snapshot => self.snapshot(engine, from, &envelope).await?,
            Kind::Propose => self.proposed(engine, from, &envelope).await?,
            Kind::Answer | Kind::Refusal => return Err(Refusal::Malformed),
        };
        Ok(answered)
    }

    /// What only a member that leads or wants to may say, and only for itself.
    fn check_leader(&self, from: MemberId, claimed: MemberId) -> Result<(), Refusal> {
        match () {
            () if claimed != from => Err(Refusal::NotYou),
            () if !self.hub.policy.may_lead(from) => Err(Refusal::MayNotLead),
            () => Ok(()),
        }
    }

    async fn vote(&self, engine: &Engine, from: MemberId, envelope: &Envelope) -> Answered {
        let rpc: VoteRequest<MemberId> = envelope.payload()?;
        self.check_leader(from, rpc.vote.leader_id.node_id)?;
        if rpc.vote.committed {
            return Err(Refusal::Malformed);
        }
        reply(engine, &engine.raft.vote(rpc).await.map_err(refused)?)
    }

    async fn append(&self, engine: &Engine, from: MemberId, envelope: &Envelope) -> Answered {
        let rpc: AppendEntriesRequest<Types> = envelope.payload()?;
        self.check_leader(from, rpc.vote.leader_id.node_id)?;
        check_append(&rpc)?;
        reply(engine, &engine.raft.append_entries(rpc).await.map_err(refused)?)
    }

    async fn snapshot(&self, engine: &Engine, from: MemberId, envelope: &Envelope) -> Answered {
        let rpc: InstallSnapshotRequest<Types> = envelope.payload()?;
        self.check_leader(from, rpc.vote.leader_id.node_id)?;
        check_piece(&rpc)?;
        let answer = match engine.raft.install_snapshot(rpc).await {
            Ok(answer) => Ok(answer),
            Err(RaftError::APIError(mismatch)) => Err(mismatch),
            Err(fatal) => return Err(refused(fatal)),
        };
        reply(engine, &answer)
    }

    async fn proposed(&self, engine: &Engine, from: MemberId, envelope: &Envelope) -> Answered {
        let propose: Propose = envelope.payload()?;
        if propose.who.node != from {
            return Err(Refusal::NotYou);
        }
        let Ok(_permit) = self.led.try_acquire() else {
            tracing::debug!(most = MAX_PROPOSALS, "too many changes are under way");
            return reply(engine, &Proposed::Busy);
        };
        let led = self.lead(engine, propose);
        let led = tokio::time::timeout(self.options.patience, led).await;
        reply(engine, &led.unwrap_or(Proposed::Uncertain))
    }
}

type Answered = Result<Vec<u8>, Refusal>;

fn reply<T: Serialize>(engine: &Engine, payload: &T) -> Answered {
    Ok(message(engine.reign, Kind::Answer, payload))
}
