// SPDX-License-Identifier: MIT OR Apache-2.0
//! The core: who may use which share, and how. No clock, no descriptor, no thread.
//!
//! The shell tells it what happened ([`request`](Arbiter::request), [`detached`](Arbiter::detached),
//! [`done`](Arbiter::done), …) and then carries out what [`next_action`](Arbiter::next_action) yields until it yields
//! nothing. Each [`Action`] and [`Job`] says how. Every request is answered exactly once.
//!
//! What it promises:
//! * an *exclusive* share has one writer. He has a lease with an *epoch*, which his sessions carry. Who writes next has
//!   a higher one, and what comes late from before is refused for ever. Nobody reads while somebody writes: what a
//!   reader would see is no file system. When the writer closes, a new *generation* begins, which any number may read
//!   until there is a writer again;
//! * a *private* share has an overlay for each blade that writes, over a generation that stays as it is. The epochs
//!   of overlays are from the same count;
//! * a *read-only* share is read by anybody with the right to;
//! * nobody is told of an epoch, a lease, or an overlay, that is not on stable storage. After a crash at any step
//!   there is still at most one writer, and what was begun is either undone or goes on.
//!
//! A hand-over goes: eject at A (asked, and with `force` and after a limit, made to) → cut A's connections, which
//! waits for requests on their way → flush → raise the epoch, on stable storage → insert at B. The cut is before the
//! flush, so that nothing that A is told to be written comes after it. If it stops before the epoch is raised, A still
//! has the lease, and gets a new epoch when it comes back; after that B has it.
//!
//! A commit writes the overlay into the share itself, in place, and is refused while anybody else depends on what is
//! below: a session, or another overlay. A new file for each generation would let others go on with the old one, but
//! needs room for a second image, cannot be done on a block device, and leaves the operator with a share that is not
//! the file he named. In place the overlay is its own log: it stays whole until all of it is in the share and flushed,
//! so after a crash the same is done again from its beginning. Until that has succeeded nobody gets the share, as
//! it is part old and part new.
//!
//! At the start: `state::load`, [`Arbiter::new`], carry out its actions, then listen.

mod attach;
mod interface;
mod names;
mod ops;
mod orders;
mod refusal;
mod state;
mod steps;
#[cfg(test)]
mod tests;

pub use interface::{
    Access, Action, Claim, Grant, Job, JobId, Limits, Mode, Now, Outcome, OverlayRef, Request,
    SessionId, Share, Ticket,
};
pub use names::{BadName, BladeName, MAX_NAME_LEN, ShareName};
pub use refusal::Refusal;
pub use state::{Lease, OverlayState, Phase, ShareState, State};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ops::{Key, Op, Stage, Task};

/// Shares that can be configured. Each costs some 300 bytes.
pub const MAX_SHARES: usize = 256;
/// Overlays of one share: one for each blade of the largest group.
pub const MAX_OVERLAYS: usize = 64;
/// Sessions at once, over all shares: 64 blades with 32 drives each.
pub const MAX_SESSIONS: usize = 2048;
/// Connections of one session: what NBD clients with several of them use.
pub const MAX_CONNECTIONS: usize = 16;
/// Requests that wait for one step to be done: the other connections of a client that opens several at once.
pub const MAX_PARKED: usize = 64;

/// The core.
#[derive(Debug)]
pub struct Arbiter {
    limits: Limits,
    shares: BTreeMap<ShareName, Share>,
    state: State,
    storing: Storing,
    sessions: BTreeMap<SessionId, Session>,
    /// What is going on, at most one thing for each key.
    ops: BTreeMap<Key, Op>,
    jobs: BTreeMap<JobId, Key>,
    /// Whose epoch was cut and not raised yet, as a hand-over stopped.
    cut: BTreeSet<Key>,
    /// Exclusive shares whose last writer ended in good order, and is still to be closed.
    left: BTreeSet<ShareName>,
    actions: VecDeque<Action>,
    last_id: u64,
}

/// Sessions as they are, for the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// What it uses.
    pub share: ShareName,
    /// Who.
    pub blade: BladeName,
    /// How.
    pub access: Access,
    /// A writer's, or that of an overlay.
    pub epoch: Option<u64>,
    /// What was granted.
    pub generation: u64,
    /// 1 to [`MAX_CONNECTIONS`].
    pub connections: usize,
}

#[derive(Debug, Default)]
struct Storing {
    /// Counts changes of the state.
    version: u64,
    /// The last one on stable storage.
    stored: u64,
    /// The one that is being written.
    under_way: Option<u64>,
    /// Why the last could not be, and when to try again.
    failed: Option<(String, Duration)>,
}

impl Arbiter {
    /// Begins with what was remembered. Of the shares the first [`MAX_SHARES`] count; the configuration checks that
    /// there are no more.
    #[must_use]
    pub fn new(now: Now, limits: Limits, shares: BTreeMap<ShareName, Share>, state: State) -> Self {
        let mut arbiter = Self {
            limits,
            shares: shares.into_iter().take(MAX_SHARES).collect(),
            state,
            storing: Storing::default(),
            sessions: BTreeMap::new(),
            ops: BTreeMap::new(),
            jobs: BTreeMap::new(),
            cut: BTreeSet::new(),
            left: BTreeSet::new(),
            actions: VecDeque::new(),
            last_id: 0,
        };
        arbiter.resume(now);
        arbiter
    }

    /// What the shell has to do next.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Arbiter::handle_timeout`] is to be called, if nothing happens before.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        let ops = self.ops.values().filter_map(|op| op.stage.until());
        ops.chain(self.storing.failed.iter().map(|(_, again)| *again)).min()
    }

    /// Somebody wants something; its answer comes as an action.
    pub fn request(&mut self, now: Now, ticket: Ticket, request: Request) {
        if let Err(refusal) = self.decide(now, ticket, request) {
            self.answer(ticket, Err(refusal));
        }
    }

    fn decide(&mut self, now: Now, ticket: Ticket, request: Request) -> Result<(), Refusal> {
        match request {
            Request::Attach { .. } => self.attach(now, ticket, request),
            Request::HandOver { share, from, to, force } => {
                self.hand_over(now, ticket, share, from, to, force)
            }
            Request::Eject { share, blade, force } => self.eject(now, ticket, share, blade, force),
            Request::Commit { share, blade } => self.commit(now, ticket, share, blade),
            Request::Discard { share, blade } => self.discard(now, ticket, share, blade),
        }
    }

    /// A connection ended in good order: the client said so, or had said nothing since it was granted.
    pub fn detached(&mut self, now: Now, session: SessionId) {
        let Some(ended) = self.end_connection(session) else { return };
        if self.is_held_by(&ended) {
            self.left.insert(ended.share.clone());
            self.settle(now, &ended.share);
        }
    }

    /// A connection was lost. A writer keeps his lease: he may come back with what was not acknowledged.
    pub fn lost(&mut self, session: SessionId) {
        let _ = self.end_connection(session);
    }

    /// The session, if that was its last connection.
    fn end_connection(&mut self, id: SessionId) -> Option<Session> {
        let session = self.sessions.get_mut(&id)?;
        session.connections -= 1;
        if session.connections == 0 { self.sessions.remove(&id) } else { None }
    }

    /// Whether this is a session of the lease of an exclusive share, and none other is.
    fn is_held_by(&self, session: &Session) -> bool {
        let lease = self.state.shares.get(&session.share).and_then(|s| s.lease.as_ref());
        lease.is_some_and(|l| l.blade == session.blade && Some(l.epoch) == session.epoch)
            && !self.sessions_of(&session.share, &session.blade).any(|s| s.1.epoch.is_some())
    }

    /// A version of the state was written, or not. If not, it is to be written again after
    /// [`Limits::store_again`]; what waits for it goes on waiting.
    pub fn stored(&mut self, now: Now, version: u64, result: Result<(), String>) {
        if self.storing.under_way != Some(version) {
            return;
        }
        self.storing.under_way = None;
        if let Err(reason) = result {
            self.storing.failed = Some((reason, now.mono + self.limits.store_again));
            return;
        }
        self.storing.failed = None;
        self.storing.stored = version;
        self.write_state();
        let is_stored = |op: &Op| op.stage.stored_by().is_some_and(|wanted| wanted <= version);
        let keys: Vec<Key> =
            self.ops.iter().filter(|(_, op)| is_stored(op)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some(op) = self.ops.remove(&key) {
                self.stepped(now, key, op, Ok(()));
            }
        }
    }

    /// A job is done, or failed for this reason.
    pub fn done(&mut self, now: Now, job: JobId, result: Result<(), String>) {
        // One whose limit has passed is not known any more.
        let Some(key) = self.jobs.remove(&job) else { return };
        if let Some(op) = self.ops.remove(&key) {
            self.stepped(now, key, op, result);
        }
    }

    /// A blade's agent is there, again perhaps: what is still to be inserted there is.
    pub fn arrived(&mut self, now: Now, blade: &BladeName) {
        let waits = |state: &ShareState| {
            state.lease.as_ref().is_some_and(|lease| lease.blade == *blade && !lease.is_known)
        };
        let shares: Vec<ShareName> =
            self.state.shares.iter().filter(|s| waits(s.1)).map(|s| s.0.clone()).collect();
        for share in shares {
            let key = (share, None);
            if self.shares.contains_key(&key.0) && !self.ops.contains_key(&key) {
                self.insert_again(now, key, blade.clone());
            }
        }
    }

    /// To be called when [`Arbiter::next_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.storing.failed.as_ref().is_some_and(|(_, again)| *again <= now.mono) {
            self.write_state();
        }
        let is_late = |op: &Op| op.stage.until().is_some_and(|until| until <= now.mono);
        let late: Vec<Key> =
            self.ops.iter().filter(|(_, op)| is_late(op)).map(|(key, _)| key.clone()).collect();
        for key in late {
            let Some(op) = self.ops.remove(&key) else { continue };
            self.jobs.retain(|_, of| *of != key);
            self.stepped(now, key, op, Err("its agent gave no answer in time".to_owned()));
        }
    }

    /// What is remembered.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Who is connected.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// What is going on: share, whose overlay if it is about one, and in words what.
    pub fn work(&self) -> impl Iterator<Item = (&ShareName, Option<&BladeName>, String)> {
        self.ops.iter().map(|((share, blade), op)| (share, blade.as_ref(), op.show()))
    }

    /// Why the state cannot be stored, if it cannot.
    #[must_use]
    pub fn storage_error(&self) -> Option<&str> {
        self.storing.failed.as_ref().map(|(reason, _)| reason.as_str())
    }

    fn answer(&mut self, ticket: Ticket, result: Result<Outcome, Refusal>) {
        self.actions.push_back(Action::Answer { ticket, result });
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn share_state(&mut self, share: &ShareName) -> &mut ShareState {
        self.state.shares.entry(share.clone()).or_default()
    }

    fn sessions_of<'a>(
        &'a self,
        share: &'a ShareName,
        blade: &'a BladeName,
    ) -> impl Iterator<Item = (SessionId, &'a Session)> {
        self.sessions().filter(move |(_, s)| s.share == *share && s.blade == *blade)
    }

    /// The state has changed and is to be stored; the version to wait for.
    fn store(&mut self) -> u64 {
        self.storing.version += 1;
        if self.storing.failed.is_none() {
            self.write_state();
        }
        self.storing.version
    }

    fn write_state(&mut self) {
        let Storing { version, stored, under_way, .. } = self.storing;
        if version > stored && under_way.is_none() {
            self.storing.under_way = Some(version);
            self.actions.push_back(Action::Store { version, state: self.state.clone() });
        }
    }

    /// Nothing is begun that could not be remembered.
    fn check_storage(&self) -> Result<(), Refusal> {
        match &self.storing.failed {
            Some((reason, _)) => Err(Refusal::Storage { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// Takes up what was going on when the server ended.
    fn resume(&mut self, now: Now) {
        for (share, state) in self.state.shares.clone() {
            let Some(configured) = self.shares.get(&share) else { continue };
            if let Some(lease) = state.lease {
                if configured.mode != Mode::Exclusive {
                    let state = self.share_state(&share);
                    state.lease = None;
                    state.generation += 1;
                    self.store();
                } else if !lease.is_known {
                    self.insert_again(now, (share.clone(), None), lease.blade);
                }
            }
            for (blade, overlay) in state.overlays {
                let key = (share.clone(), Some(blade.clone()));
                match overlay.phase {
                    Phase::Ready => {}
                    Phase::Committing => {
                        let op = Op::new(Task::Commit { ticket: None, blade });
                        self.enter(now, key, op, Stage::Committing);
                    }
                    Phase::Making | Phase::Removing => {
                        let op = Op::new(Task::Discard { ticket: None, blade });
                        self.enter(now, key, op, Stage::Removing);
                    }
                }
            }
        }
    }

    fn insert_again(&mut self, now: Now, key: Key, to: BladeName) {
        let task = Task::Move { ticket: None, from: None, to: Some(to), force: false };
        let until = now.mono + self.limits.insert;
        self.enter(now, key, Op::new(task), Stage::Inserting { until });
    }
}
