// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the members have agreed on: settings, who votes, and orders that are carried out once.
//!
//! * Formats: [`wire`] (the envelope of messages), [`change`] (what stands in the log).
//! * Core, without clock or file: [`state`] (what the log makes), [`executor`] (what a member does with its orders).
//! * Shell: `store` (the log on [`disk`]), `network`, `engine` (the consensus, which is `openraft`'s, and its life),
//!   `roster`, `journal` and `orders`, and the handle, [`Settings`].
//!
//! A change is acknowledged when a majority of the voters has it on disk. Reading needs nobody, and may be behind.
//! Members are taken to fail, not to lie, once they lead; [`Policy::may_lead`] says who may. Everybody else speaks
//! for itself alone: what claims to be another's is refused.
#![expect(
    clippy::result_large_err,
    reason = "the engine's and the database's errors are as they are"
)]

mod answer;
pub mod change;
mod conflicts;
pub mod disk;
mod engine;
pub mod executor;
mod journal;
mod network;
mod orders;
mod propose;
mod roster;
pub mod state;
mod status;
mod store;
#[cfg(test)]
mod tests;
pub mod types;
pub mod wire;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::EmptyNode;
use openraft::error::{InitializeError, RaftError};
use secure_link::NodeId;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use change::{Change, Expect, NotBegun, Order, OrderId, OrderResult, Origin, Outcome, Refused};
pub use conflicts::Conflict;
pub use executor::Record;
pub use network::{Boxed, Transport, Unreachable};
pub use orders::Program;
pub use state::{Audit, Item, Ordered, Policy, State};
pub use status::{Health, Status};
pub use store::StoreError;
pub use types::{MemberId, Position, Reign, Version};

use disk::{Disk, Folder};
use engine::{Command, Engine, Keeper, Slot};
use journal::Journal;
use network::Hub;
use orders::Orders;
use store::View;

/// Most changes that wait for a majority at a time, of this member's users and, at the leader, of all.
pub const MAX_PROPOSALS: usize = 64;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// Most commands to the engine's keeper that wait.
const MAX_COMMANDS: usize = 8;

/// How a member takes part.
#[derive(Clone)]
pub struct Options {
    /// Who may do what.
    pub policy: Arc<dyn Policy>,
    /// What does the orders for this member; without it they are answered with [`NotBegun::NoProgram`].
    pub program: Option<Arc<dyn Program>>,
    /// The group's time, in milliseconds.
    pub now: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// This boot, `/proc/sys/kernel/random/boot_id`.
    pub boot: [u8; 16],
    /// Between two signs of life of the leader.
    pub heartbeat: Duration,
    /// After one to two of these without a sign of life another is elected. Several heartbeats, and several fsyncs.
    pub election: Duration,
    /// For so long a change waits for a leader and a majority.
    pub patience: Duration,
    /// Entries of the log after which they are compacted into the state.
    pub keep: u64,
    /// Waits for the disk in the caller's thread. For tests whose time is virtual.
    pub inline_io: bool,
}

impl Options {
    /// The usual ones.
    pub fn new(policy: Arc<dyn Policy>, now: Arc<dyn Fn() -> u64 + Send + Sync>) -> Self {
        Self {
            policy,
            program: None,
            now,
            boot: [0; 16],
            heartbeat: Duration::from_millis(250),
            election: Duration::from_millis(1000),
            patience: Duration::from_secs(10),
            keep: 2000,
            inline_io: false,
        }
    }
}

/// Why something is not done.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// All members decide that it may not be.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There is no majority of voters, or it does not agree on a leader. Nothing was changed.
    #[error("no majority of the voters can be reached; nothing was changed")]
    NoMajority,
    /// A majority may or may not have it. To ask again is harmless.
    #[error("it is not known whether a majority has the change; look, or ask again")]
    Uncertain,
    /// Too much is under way.
    #[error("more than {MAX_PROPOSALS} changes are under way; try again")]
    Busy,
    /// The log cannot be used.
    #[error("{0}")]
    Unavailable(String),
    /// Something is not stored or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The majority cannot be overridden so.
    #[error("not overridden: {0}")]
    Override(&'static str),
}

/// A member's part in the settings. All clones are one; when the last is gone, it ends.
#[derive(Clone)]
pub struct Settings {
    inner: Arc<Inner>,
    commands: mpsc::Sender<Command>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("own", &self.inner.hub.own).finish_non_exhaustive()
    }
}

/// What all parts share.
pub(crate) struct Inner {
    hub: Hub,
    options: Arc<Options>,
    disk: Arc<dyn Disk>,
    slot: watch::Sender<Slot>,
    seen: Mutex<Option<Arc<View>>>,
    proposals: Semaphore,
    led: Semaphore,
}

impl Settings {
    /// Opens a member's log in a folder of its own, and takes part.
    ///
    /// # Errors
    /// The log or the journal cannot be read.
    pub async fn open(
        folder: &Path,
        own: NodeId,
        transport: impl Transport,
        options: Options,
    ) -> Result<Self, SettingsError> {
        let failed = |why: std::io::Error| {
            let file = folder.display().to_string();
            SettingsError::Store(StoreError::Io { file, why: why.to_string() })
        };
        let disk = Folder::open(folder).map_err(failed)?;
        Self::open_on(Arc::new(disk), own, transport, options).await
    }

    /// [`Self::open`], on another kind of disk.
    ///
    /// # Errors
    /// The log or the journal cannot be read.
    pub async fn open_on(
        disk: Arc<dyn Disk>,
        own: NodeId,
        transport: impl Transport,
        options: Options,
    ) -> Result<Self, SettingsError> {
        let options = Arc::new(options);
        let (journal, records) = Journal::open(disk.clone(), options.inline_io)?;
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        let hub = Hub::new(own.into(), options.policy.clone(), transport, commands.downgrade());
        let slot = watch::Sender::new(Slot::Down("the log is being opened".to_owned()));
        let inner = Arc::new(Inner {
            hub: hub.clone(),
            options: options.clone(),
            disk: disk.clone(),
            slot: slot.clone(),
            seen: Mutex::new(None),
            proposals: Semaphore::new(MAX_PROPOSALS),
            led: Semaphore::new(MAX_PROPOSALS),
        });
        let mut keeper = Keeper::new(hub, disk, options, slot, receiver);
        keeper.first().await?;
        let orders = tokio::spawn(Orders::new(inner.clone(), journal, records).run());
        tokio::spawn(async move {
            keeper.run().await;
            orders.abort();
        });
        Ok(Self { inner, commands })
    }

    /// Ends this member's part; its files are closed then.
    pub async fn close(self) {
        let (reply, done) = oneshot::channel();
        if self.commands.send(Command::Stop(reply)).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Answers a request that came over the link with `from`. At most [`wire::MAX_RPC`] bytes; malformed ones get an
    /// answer too.
    pub async fn answer(&self, from: NodeId, request: &[u8]) -> Vec<u8> {
        self.inner.answer(from.into(), request).await
    }

    /// Begins the first log of a group. To say the same on several of its members, at once or again, is harmless.
    ///
    /// # Errors
    /// This member is not among the voters, or cannot store it.
    pub async fn begin(
        &self,
        voters: impl IntoIterator<Item = NodeId>,
    ) -> Result<(), SettingsError> {
        let engine = self.inner.engine()?;
        let members: std::collections::BTreeMap<MemberId, EmptyNode> =
            voters.into_iter().map(|id| (id.into(), EmptyNode {})).collect();
        match engine.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(SettingsError::Unavailable(error.to_string())),
        }
    }

    /// A member is to vote, once it has caught up.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub async fn admit(&self, node: NodeId, who: Origin) -> Result<(), SettingsError> {
        self.inner.propose(&Change::Admit(node.into()), who).await.map(drop)
    }

    /// A member is to vote no more: its slot is off, or it was removed.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub async fn dismiss(&self, node: NodeId, who: Origin) -> Result<(), SettingsError> {
        self.inner.propose(&Change::Dismiss(node.into()), who).await.map(drop)
    }

    /// Goes on without a majority, with what this member has: a new reign with these voters, of which this member must be
    /// one. Everybody else puts its log aside when it hears of it. The operator knows that the others are not there, or
    /// that they are wrong; it is written down for good.
    ///
    /// # Errors
    /// It cannot be stored; all is as before.
    pub async fn override_with(
        &self,
        voters: impl IntoIterator<Item = NodeId>,
        why: String,
        who: Origin,
    ) -> Result<Audit, SettingsError> {
        let voters: BTreeSet<MemberId> = voters.into_iter().map(MemberId::from).collect();
        let (reply, done) = oneshot::channel();
        let at = (self.inner.options.now)();
        let ended = || SettingsError::Unavailable("this member's part has ended".to_owned());
        let command = Command::Override { voters, why, who, at, reply };
        self.commands.send(command).await.map_err(|_| ended())?;
        done.await.map_err(|_| ended())?
    }

    /// Gives a key a value.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub async fn set(
        &self,
        key: &str,
        value: Vec<u8>,
        expect: Expect,
        who: Origin,
    ) -> Result<Version, SettingsError> {
        let set = change::Set { key: key.to_owned(), value, expect };
        self.inner.change(&Change::Set(set), who).await
    }

    /// Takes a key's value away.
    ///
    /// # Errors
    /// See [`SettingsError`].
    pub async fn remove(
        &self,
        key: &str,
        expect: Expect,
        who: Origin,
    ) -> Result<Version, SettingsError> {
        let remove = change::Remove { key: key.to_owned(), expect };
        self.inner.change(&Change::Remove(remove), who).await
    }

    /// Gives an order. When this returns, it stands in the log and will be carried out once, or refused where it is
    /// to be done; what came of it is known if that was so quick, else from [`Self::order_of`].
    ///
    /// # Errors
    /// See [`SettingsError`]. After [`SettingsError::Uncertain`] the same order can be given again.
    pub async fn order(
        &self,
        order: Order,
        who: Origin,
    ) -> Result<Option<OrderResult>, SettingsError> {
        match self.inner.propose(&Change::Order(order), who).await? {
            Outcome::Ordered(_, result) => Ok(result),
            _ => Ok(None),
        }
    }

    /// What is known here of an order.
    #[must_use]
    pub fn order_of(&self, id: OrderId) -> Option<Ordered> {
        self.read(|state| state.order(id).cloned())
    }

    /// A key's value, as this member knows it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Item> {
        self.read(|state| state.get(key).cloned())
    }

    /// Looks at all that is agreed on, as this member knows it, held still.
    pub fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        match self.inner.view() {
            Some(view) => look(&view.contents().state),
            None => look(&State::default()),
        }
    }

    /// Says whenever something may be different; again from [`Self::read`] is how to see what. It ends with the engine,
    /// and is to be asked for again then.
    #[must_use]
    pub fn watch(&self) -> Option<watch::Receiver<u64>> {
        self.inner.view().map(|view| view.changed())
    }
}

impl Inner {
    fn engine(&self) -> Result<Engine, SettingsError> {
        match &*self.slot.borrow() {
            Slot::Running(engine) => Ok(engine.clone()),
            Slot::Down(why) => Err(SettingsError::Unavailable(why.clone())),
        }
    }

    /// What was last made of the log, even if the engine is down.
    fn view(&self) -> Option<Arc<View>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Slot::Running(engine) = &*self.slot.borrow() {
            *seen = Some(engine.view.clone());
        }
        seen.clone()
    }
}
