// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state that the log makes, in memory; and the copy of it on disk from which entries are counted on.

use std::fmt;
use std::io::Cursor;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, ErrorSubject, ErrorVerb, OptionalSend, RaftSnapshotBuilder};
use redb::WriteTransaction;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::super::change::{ChangeError, Outcome, Refused, pack, unpack};
use super::super::state::{Policy, State};
use super::super::types::{
    Entry, LogId, Membership, Position, Reign, Snapshot, SnapshotMeta, StorageError, Types,
};
use super::log::failed;
use super::{Db, StoreError, get_meta, set_meta};

/// The form of a stored or sent state; the first byte of it.
const FORM: u8 = 1;

/// The state, and how far into the log it reaches.
#[derive(Clone, Default, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// It.
    pub state: State,
    /// The last entry in it.
    pub applied: Option<LogId>,
    /// The engine's members by then.
    pub membership: Membership,
}

impl Contents {
    fn pack(&self) -> Vec<u8> {
        let mut bytes = vec![FORM];
        bytes.extend(pack(self));
        bytes
    }

    fn unpack(bytes: &[u8]) -> Option<Self> {
        let (form, rest) = bytes.split_first()?;
        if *form == FORM { unpack(rest) } else { None }
    }

    pub(super) fn store(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        store(transaction, self.applied, &self.pack())
    }

    fn meta(&self) -> SnapshotMeta {
        let snapshot_id = self.applied.map_or_else(String::new, |id| id.to_string());
        SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id,
        }
    }

    /// Makes the change of an entry.
    ///
    /// # Errors
    /// It is of a later version of this program.
    pub fn apply(
        &mut self,
        reign: Reign,
        entry: &Entry,
        policy: &dyn Policy,
    ) -> Result<Result<Outcome, Refused>, ChangeError> {
        let LogId { leader_id, index } = entry.log_id;
        let result = match &entry.payload {
            EntryPayload::Blank => Ok(Outcome::Nothing),
            EntryPayload::Normal(proposal) => {
                let at = Position { reign, term: leader_id.term, index };
                self.state.apply(proposal, at, policy)?
            }
            EntryPayload::Membership(membership) => {
                self.membership = Membership::new(Some(entry.log_id), membership.clone());
                self.state.set_voters(membership.voter_ids().collect());
                Ok(Outcome::Nothing)
            }
        };
        self.applied = Some(entry.log_id);
        Ok(result)
    }

    /// As it was last stored, or empty.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn load(db: &Db) -> Result<Self, StoreError> {
        match db.meta::<Vec<u8>>("state")? {
            None => Ok(Self::default()),
            Some(bytes) => Self::unpack(&bytes).ok_or_else(|| db.corrupt("the state")),
        }
    }
}

/// Unless a later one is stored: one may be sent while another is made.
fn store(
    transaction: &WriteTransaction,
    at: Option<LogId>,
    bytes: &[u8],
) -> Result<(), redb::Error> {
    let before: Option<Option<LogId>> = get_meta(transaction, "state at")?;
    if before.flatten() > at {
        return Ok(());
    }
    set_meta(transaction, "state at", &at)?;
    set_meta(transaction, "state", &bytes)
}

/// A change of a later version of this program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TooNew {
    /// The entry.
    pub index: u64,
    /// What it is.
    pub error: ChangeError,
}

/// What readers see of the state.
pub struct View {
    contents: RwLock<Contents>,
    changed: watch::Sender<u64>,
    too_new: watch::Sender<Option<TooNew>>,
    closing: watch::Sender<bool>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("applied", &self.contents().applied).finish_non_exhaustive()
    }
}

impl View {
    /// It, held still.
    pub fn contents(&self) -> RwLockReadGuard<'_, Contents> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says when it changes.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The change that this version does not know, if there was one.
    pub fn too_new(&self) -> Option<TooNew> {
        self.too_new.borrow().clone()
    }

    /// Whoever waits for a newer version of this program waits no more.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    fn replace(&self, contents: Contents) {
        *self.contents.write().unwrap_or_else(PoisonError::into_inner) = contents;
        self.changed.send_modify(|count| *count += 1);
    }
}

/// What applies entries for the engine.
#[derive(Clone)]
pub struct Machine {
    db: Arc<Db>,
    reign: Reign,
    policy: Arc<dyn Policy>,
    view: Arc<View>,
    halt: Option<TooNew>,
}

impl Machine {
    /// One that goes on from the stored state. With `halt`, it waits for ever at a change which it does not know, while
    /// entries are still stored and votes given; else it ends the engine.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn open(
        db: Arc<Db>,
        reign: Reign,
        policy: Arc<dyn Policy>,
        halt: Option<TooNew>,
    ) -> Result<Self, StoreError> {
        let contents = RwLock::new(Contents::load(&db)?);
        let view = View {
            contents,
            changed: watch::Sender::new(0),
            too_new: watch::Sender::new(halt.clone()),
            closing: watch::Sender::new(false),
        };
        Ok(Self { db, reign, policy, view: Arc::new(view), halt })
    }

    /// What readers see.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.clone()
    }

    async fn apply_all(
        &self,
        entries: Vec<Entry>,
    ) -> Result<Vec<Result<Outcome, Refused>>, StorageError> {
        let mut results = Vec::with_capacity(entries.len());
        for entry in entries {
            let applied = {
                let contents = self.view.contents.write();
                let mut contents = contents.unwrap_or_else(PoisonError::into_inner);
                contents.apply(self.reign, &entry, &*self.policy)
            };
            match applied {
                Ok(result) => results.push(result),
                Err(error) => {
                    let index = entry.log_id.index;
                    self.view.too_new.send_replace(Some(TooNew { index, error: error.clone() }));
                    self.view.changed.send_modify(|count| *count += 1);
                    if self.halt.is_some() {
                        let mut closing = self.view.closing.subscribe();
                        let _ = closing.wait_for(|&closing| closing).await;
                    }
                    let why = std::io::Error::other(error);
                    let subject = ErrorSubject::Apply(entry.log_id);
                    return Err(StorageError::from_io_error(subject, ErrorVerb::Read, why));
                }
            }
        }
        self.view.changed.send_modify(|count| *count += 1);
        Ok(results)
    }
}

fn snapshot(contents: &Contents, bytes: Vec<u8>) -> Snapshot {
    Snapshot { meta: contents.meta(), snapshot: Box::new(Cursor::new(bytes)) }
}

fn writing(error: StoreError) -> StorageError {
    failed(ErrorSubject::Snapshot(None), ErrorVerb::Write, error)
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let contents = self.view.contents().clone();
        let bytes = contents.pack();
        let stored = bytes.clone();
        let at = contents.applied;
        let written = self.db.write(true, move |t| store(t, at, &stored));
        written.await.map_err(writing)?;
        Ok(snapshot(&contents, bytes))
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let contents = self.view.contents();
        Ok((contents.applied, contents.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Result<Outcome, Refused>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.apply_all(entries.into_iter().collect()).await
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let bytes = snapshot.into_inner();
        let contents = Contents::unpack(&bytes).filter(|contents| contents.meta() == *meta);
        let contents = contents.ok_or_else(|| writing(self.db.corrupt("a state that was sent")))?;
        let at = contents.applied;
        let written = self.db.write(true, move |t| store(t, at, &bytes));
        written.await.map_err(writing)?;
        self.view.replace(contents);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let contents = Contents::load(&self.db);
        let contents = contents
            .map_err(|error| failed(ErrorSubject::Snapshot(None), ErrorVerb::Read, error))?;
        Ok(contents.applied.is_some().then(|| snapshot(&contents, contents.pack())))
    }
}
