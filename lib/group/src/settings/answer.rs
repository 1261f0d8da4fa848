// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is answered to other members: to each only what it asks in its own name.

use openraft::error::RaftError;
use openraft::raft::InstallSnapshotRequest;
use serde::Serialize;

use super::engine::{Engine, Slot};
use super::types::{MemberId, Reign, Types};
use super::wire::{
    Envelope, Kind, Propose, Proposed, Refusal, Request, VERSION, WireError, message,
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
        let request = envelope.request()?;
        if let Some(leader) = request.leader() {
            self.check_leader(from, leader)?;
        }
        request.check()?;
        match request {
            Request::Vote(rpc) => reply(engine, &engine.raft.vote(rpc).await.map_err(refused)?),
            Request::Append(rpc) => {
                reply(engine, &engine.raft.append_entries(rpc).await.map_err(refused)?)
            }
            Request::Snapshot(rpc) => self.snapshot(engine, rpc).await,
            Request::Propose(propose) => self.proposed(engine, from, propose).await,
        }
    }

    /// What only a member that leads or wants to may say, and only for itself.
    fn check_leader(&self, from: MemberId, claimed: MemberId) -> Result<(), Refusal> {
        match () {
            () if claimed != from => Err(Refusal::NotYou),
            () if !self.hub.policy.may_lead(from) => Err(Refusal::MayNotLead),
            () => Ok(()),
        }
    }

    async fn snapshot(&self, engine: &Engine, rpc: InstallSnapshotRequest<Types>) -> Answered {
        let answer = match engine.raft.install_snapshot(rpc).await {
            Ok(answer) => Ok(answer),
            Err(RaftError::APIError(mismatch)) => Err(mismatch),
            Err(fatal) => return Err(refused(fatal)),
        };
        reply(engine, &answer)
    }

    async fn proposed(&self, engine: &Engine, from: MemberId, propose: Propose) -> Answered {
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
