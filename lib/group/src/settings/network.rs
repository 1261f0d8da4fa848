// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the engine reaches the other members: by messages over links that the shell has.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use openraft::EmptyNode;
use openraft::error::{
    InstallSnapshotError, PayloadTooLarge, RPCError, RaftError, RemoteError, Unreachable as Away,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use secure_link::NodeId;
use serde::Serialize;
use tokio::sync::mpsc;

use super::engine::Command;
use super::state::Policy;
use super::types::{MemberId, Reign, Types};
use super::wire::{Envelope, Kind, MAX_RPC, Refusal, WireError, message};

/// A future on the heap.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The other did not get the request, or its answer did not come.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a member cannot be reached: {0}")]
pub struct Unreachable(pub String);

/// How a request reaches another member. The link is authenticated, and the shell there passes the request to
/// [`super::Settings::answer`] with this member's id.
pub trait Transport: Send + Sync + 'static {
    /// Sends a request of at most [`MAX_RPC`] bytes, and returns the answer. It ends within seconds, one way or the other.
    fn call(
        &self,
        to: NodeId,
        request: Vec<u8>,
    ) -> impl Future<Output = Result<Vec<u8>, Unreachable>> + Send;
}

trait Call: Send + Sync {
    fn call(&self, to: NodeId, request: Vec<u8>) -> Boxed<'_, Result<Vec<u8>, Unreachable>>;
}

impl<T: Transport> Call for T {
    fn call(&self, to: NodeId, request: Vec<u8>) -> Boxed<'_, Result<Vec<u8>, Unreachable>> {
        Box::pin(Transport::call(self, to, request))
    }
}

/// What all parts need to speak with others.
#[derive(Clone)]
pub struct Hub {
    /// This member.
    pub own: MemberId,
    /// Who may do what.
    pub policy: Arc<dyn Policy>,
    transport: Arc<dyn Call>,
    commands: mpsc::WeakSender<Command>,
}

/// Why a request has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallError {
    /// Nothing came back: it may or may not have been heard.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// It was turned down.
    #[error("the other member says: {0}")]
    Refused(#[from] Refusal),
    /// What came back makes no sense.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It was not sent: it has too many bytes.
    #[error("the request has {0} bytes, more than {MAX_RPC}")]
    TooLong(usize),
}

impl Hub {
    /// One for this member.
    pub fn new(
        own: MemberId,
        policy: Arc<dyn Policy>,
        transport: impl Transport,
        commands: mpsc::WeakSender<Command>,
    ) -> Self {
        Self { own, policy, transport: Arc::new(transport), commands }
    }

    /// A member says which reign it is in.
    pub fn heard(&self, from: MemberId, own: Reign, theirs: Reign) {
        if theirs > own
            && self.policy.may_lead(from)
            && let Some(commands) = self.commands.upgrade()
        {
            // If there is no room, somebody has said it already, or will say it again.
            let _ = commands.try_send(Command::Newer { reign: theirs, from });
        }
    }

    /// Sends a request, and returns the answer.
    ///
    /// # Errors
    /// There is none.
    pub async fn call<T: Serialize + Sync>(
        &self,
        to: MemberId,
        reign: Reign,
        kind: Kind,
        payload: &T,
    ) -> Result<Envelope, CallError> {
        let request = message(reign, kind, payload);
        if request.len() > MAX_RPC {
            return Err(CallError::TooLong(request.len()));
        }
        let answer = self.transport.call(to.into(), request).await?;
        let answer = Envelope::decode(&answer)?;
        self.heard(to, reign, answer.reign);
        match answer.kind {
            Kind::Refusal => Err(answer.payload::<Refusal>()?.into()),
            Kind::Answer if answer.reign == reign => Ok(answer),
            _ => Err(WireError::Malformed("it is no answer").into()),
        }
    }
}

/// For the engine: the others, in one reign.
#[derive(Clone)]
pub struct Network {
    /// How.
    pub hub: Hub,
    /// The engine's.
    pub reign: Reign,
}

/// For the engine: one of the others.
pub struct Peer {
    network: Network,
    to: MemberId,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: MemberId, _: &EmptyNode) -> Peer {
        Peer { network: self.clone(), to: target }
    }
}

type Failed<E> = RPCError<MemberId, EmptyNode, RaftError<MemberId, E>>;

impl Peer {
    async fn ask<T: Serialize + Sync>(
        &self,
        kind: Kind,
        payload: &T,
        option: &RPCOption,
    ) -> Result<Envelope, CallError> {
        let Network { hub, reign } = &self.network;
        let asked = hub.call(self.to, *reign, kind, payload);
        tokio::time::timeout(option.hard_ttl(), asked)
            .await
            .unwrap_or_else(|_| Err(Unreachable(format!("{} is silent", self.to)).into()))
    }
}

fn away<E: std::error::Error>(error: &CallError) -> Failed<E> {
    RPCError::Unreachable(Away::new(error))
}

fn answer<T, E>(envelope: &Envelope) -> Result<T, Failed<E>>
where
    T: serde::de::DeserializeOwned,
    E: std::error::Error,
{
    envelope.payload().map_err(|error| away(&error.into()))
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<MemberId>, Failed<openraft::error::Infallible>> {
        match self.ask(Kind::Append, &rpc, &option).await {
            Ok(envelope) => answer(&envelope),
            Err(CallError::TooLong(_)) if rpc.entries.len() > 1 => {
                let half = rpc.entries.len() as u64 / 2;
                Err(RPCError::PayloadTooLarge(PayloadTooLarge::new_entries_hint(half)))
            }
            Err(error) => Err(away(&error)),
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<MemberId>, Failed<InstallSnapshotError>> {
        let envelope =
            self.ask(Kind::Snapshot, &rpc, &option).await.map_err(|error| away(&error))?;
        let answer: Result<_, InstallSnapshotError> = answer(&envelope)?;
        answer.map_err(|error| {
            RPCError::RemoteError(RemoteError::new(self.to, RaftError::APIError(error)))
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<MemberId>,
        option: RPCOption,
    ) -> Result<VoteResponse<MemberId>, Failed<openraft::error::Infallible>> {
        let envelope = self.ask(Kind::Vote, &rpc, &option).await.map_err(|error| away(&error))?;
        answer(&envelope)
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(super::PAUSE))
    }
}
