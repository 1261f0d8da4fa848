// SPDX-License-Identifier: MIT OR Apache-2.0
//! The management module: who has which drive. Carries out what the [`Arbiter`] decides, and tells the agents.
//!
//! One lock holds all that is known; it is never held while anything is waited for. What takes time (storing, files,
//! agents) are tasks and threads that come back with their result.

mod agents;
pub mod control;
mod exports;
mod jobs;
mod presented;
mod verbs;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep_until;

use crate::arbiter::{
    Action, Arbiter, BladeName, Limits, Now, Outcome, Refusal, Request, SessionId, Share,
    ShareName, Ticket,
};
use crate::disk::RealDir;
use crate::fence::Fence;
use crate::link::message::Kind;
use crate::serve::export::Export;
use crate::serve::health::Health;
use crate::source::Source;
use crate::source::cache::Cache;
use crate::source::file::FileSource;
use crate::source::place::Place;
use crate::state;
use agents::Agent;
pub use agents::{Connection, OrderError};
pub use exports::Managed;
use presented::Table;

/// A share as it is configured, for those who open it.
#[derive(Debug, Clone)]
pub struct Configured {
    /// Who may use it, and how.
    pub share: Share,
    /// Where its blocks are.
    pub place: Place,
    /// For people; may be empty.
    pub description: String,
    /// As what hosts see it unless the operator says otherwise.
    pub kind: Kind,
}

/// Why there is no manager.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What it must remember cannot be read.
    #[error(transparent)]
    State(#[from] state::StateError),
    /// The folder of that, or the table in it, cannot be used.
    #[error("cannot use {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// All of it.
#[derive(Debug)]
pub struct Manager {
    shares: BTreeMap<ShareName, Configured>,
    dir: RealDir,
    cache: Arc<Cache>,
    inner: Mutex<Inner>,
    /// The arbiter's next time may have changed.
    changed: Notify,
    /// Copying is left to the next start.
    is_ending: AtomicBool,
    runtime: Handle,
    started: Instant,
}

#[derive(Debug)]
struct Inner {
    arbiter: Arbiter,
    last_ticket: u64,
    waiting: HashMap<Ticket, oneshot::Sender<Result<Outcome, Refusal>>>,
    agents: BTreeMap<BladeName, Agent>,
    last_connection: u64,
    presented: Table,
    exports: HashMap<SessionId, Weak<Export>>,
    open: BTreeMap<Below, Open>,
    /// How far commits are, by the overlay.
    copied: BTreeMap<OverlayKey, Copied>,
}

type OverlayKey = (ShareName, BladeName);

/// How much of something is copied, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// So much.
    pub done: u64,
    /// Of so much.
    pub total: u64,
}

/// Of what blocks are read and written: a share, or a blade's overlay over it.
type Below = (ShareName, Option<BladeName>);

/// A source that is or was open.
struct Open {
    source: Weak<dyn Source>,
    fence: Arc<Fence>,
    health: Arc<Health>,
    /// Held while it is opened: two of one overlay's file would each have a map of their own. A device that does not
    /// answer keeps nobody else.
    opening: Arc<Mutex<()>>,
}

impl Open {
    /// None is open yet.
    fn new((share, blade): &Below) -> Self {
        let name = match blade {
            None => format!("share {share}"),
            Some(blade) => format!("overlay of blade {blade} over share {share}"),
        };
        Self {
            source: Weak::<FileSource>::new(),
            fence: Fence::new(0),
            health: Arc::new(Health::new(name)),
            opening: Arc::default(),
        }
    }
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").field("fence", &self.fence).finish_non_exhaustive()
    }
}

impl Manager {
    /// Reads what was remembered and takes it up. Must be called in the runtime that is to do the work.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(
        shares: BTreeMap<ShareName, Configured>,
        state_dir: PathBuf,
        cache: Arc<Cache>,
    ) -> Result<Arc<Self>, StartError> {
        let failed = |source| StartError::Folder { path: state_dir.clone(), source };
        let dir = RealDir::new(&state_dir).map_err(failed)?;
        let state = state::load(&dir)?;
        let presented = Table::load(&dir).map_err(failed)?;
        let started = Instant::now();
        let rules = shares.iter().map(|(name, c)| (name.clone(), c.share.clone())).collect();
        let arbiter = Arbiter::new(now(started), Limits::default(), rules, state);
        let inner = Inner {
            arbiter,
            last_ticket: 0,
            waiting: HashMap::new(),
            agents: BTreeMap::new(),
            last_connection: 0,
            presented,
            exports: HashMap::new(),
            open: BTreeMap::new(),
            copied: BTreeMap::new(),
        };
        let manager = Arc::new(Self {
            shares,
            dir,
            cache,
            inner: Mutex::new(inner),
            changed: Notify::new(),
            is_ending: AtomicBool::new(false),
            runtime: Handle::current(),
            started,
        });
        manager.with(|_, _| ());
        tokio::spawn(keep_time(Arc::clone(&manager)));
        Ok(manager)
    }

    /// The process is about to end. Commits stop where they are and go on at the next start; nobody is answered.
    pub fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    /// Changes what is known, and sees to what follows from it.
    fn with<R>(self: &Arc<Self>, change: impl FnOnce(&mut Inner, Now) -> R) -> R {
        let now = now(self.started);
        let mut inner = self.lock();
        let result = change(&mut inner, now);
        self.carry_out(&mut inner, now);
        drop(inner);
        self.changed.notify_one();
        result
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a source; the entry is made where there is none.
    fn below<R>(&self, key: &Below, look: impl FnOnce(&mut Open) -> R) -> R {
        look(self.lock().open.entry(key.clone()).or_insert_with(|| Open::new(key)))
    }

    fn carry_out(self: &Arc<Self>, inner: &mut Inner, now: Now) {
        while let Some(action) = inner.arbiter.next_action() {
            match action {
                Action::Store { version, state } => {
                    let manager = Arc::clone(self);
                    self.runtime.spawn_blocking(move || {
                        let stored = state::store(&manager.dir, &state);
                        let stored = stored.map_err(|error| in_full(&error));
                        if let Err(error) = &stored {
                            tracing::error!(error, "what must be remembered cannot be stored");
                        }
                        manager.with(|inner, now| inner.arbiter.stored(now, version, stored));
                    });
                }
                Action::Answer { ticket, result } => {
                    let asker = inner.waiting.remove(&ticket);
                    let granted = match &result {
                        Ok(Outcome::Granted(grant)) => Some(grant.session),
                        _ => None,
                    };
                    let told = asker.is_some_and(|asker| asker.send(result).is_ok());
                    if let Some(session) = granted.filter(|_| !told) {
                        inner.arbiter.detached(now, session);
                    }
                }
                Action::Do { job, what } => {
                    let manager = Arc::clone(self);
                    self.runtime.spawn(async move {
                        let result = manager.perform(what).await;
                        manager.with(|inner, now| inner.arbiter.done(now, job, result));
                    });
                }
            }
        }
    }

    /// Asks the arbiter, and waits for its answer.
    async fn request(self: &Arc<Self>, request: Request) -> Result<Outcome, Refusal> {
        let (sender, answer) = oneshot::channel();
        self.with(|inner, now| {
            inner.last_ticket += 1;
            let ticket = Ticket(inner.last_ticket);
            inner.waiting.insert(ticket, sender);
            inner.arbiter.request(now, ticket, request);
        });
        answer.await.expect("the arbiter answers every request once")
    }
}

async fn keep_time(manager: Arc<Manager>) {
    loop {
        let next = manager.lock().arbiter.next_timeout();
        let Some(next) = next else {
            manager.changed.notified().await;
            continue;
        };
        tokio::select! {
            () = sleep_until((manager.started + next).into()) => {
                manager.with(|inner, now| inner.arbiter.handle_timeout(now));
            }
            () = manager.changed.notified() => {}
        }
    }
}

fn now(started: Instant) -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Now { mono: started.elapsed(), unix }
}

/// An error with its causes.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
