// SPDX-License-Identifier: MIT OR Apache-2.0
//! The engine's life: it is started on the newest log, started again when the disk failed it, and left for another log
//! when there is a newer reign.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::change::{MAX_NAME, MAX_VOTERS, Origin};
use super::disk::Disk;
use super::network::{Hub, Network};
use super::state::Audit;
use super::store::{self, Contents, Db, Log, Machine, TooNew, View};
use super::types::{LogId, MemberId, Membership, Position, Raft, Reign};
use super::wire::MAX_ENTRIES;
use super::{Options, PAUSE, SettingsError, roster};

/// After a failure the log is opened again after this, then after twice that, and so on.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Up to this: room may be made at any time.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Bytes of a piece of the state.
const PIECE: u64 = 512 << 10;
/// For so long the parts of an ended engine may hold its file.
const CLOSING: Duration = Duration::from_secs(10);

/// What others want of the engine's life.
#[derive(Debug)]
pub enum Command {
    /// A member is in a newer reign.
    Newer {
        /// Which.
        reign: Reign,
        /// Who says so.
        from: MemberId,
    },
    /// A new reign is to begin here.
    Override {
        /// Who votes in it.
        voters: BTreeSet<MemberId>,
        /// Why.
        why: String,
        /// Who orders it.
        who: Origin,
        /// When, in milliseconds of the group's time.
        at: u64,
        /// What was done.
        reply: oneshot::Sender<Result<Audit, SettingsError>>,
    },
    /// The end.
    Stop(oneshot::Sender<()>),
}

/// A running engine.
#[derive(Clone)]
pub struct Engine {
    /// Its log's.
    pub reign: Reign,
    /// It.
    pub raft: Raft,
    /// What it has made of the log.
    pub view: Arc<View>,
}

/// Whether it runs.
#[derive(Clone)]
pub enum Slot {
    /// It does.
    Running(Engine),
    /// It does not, and why.
    Down(String),
}

/// Starts engines, one after the other.
pub struct Keeper {
    hub: Hub,
    disk: Arc<dyn Disk>,
    options: Arc<Options>,
    slot: watch::Sender<Slot>,
    commands: mpsc::Receiver<Command>,
    /// Set when the log has a change which this version does not know.
    halt: Option<TooNew>,
    first: Option<Started>,
}

enum End {
    Failed(String),
    Ordered(Command),
    Gone,
}

struct Started {
    engine: Engine,
    db: Weak<Db>,
}

impl Keeper {
    /// One that shows the engine in `slot`.
    pub fn new(
        hub: Hub,
        disk: Arc<dyn Disk>,
        options: Arc<Options>,
        slot: watch::Sender<Slot>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        Self { hub, disk, options, slot, commands, halt: None, first: None }
    }

    async fn start(&mut self) -> Result<Started, String> {
        let inline = self.options.inline_io;
        let (reign, db) =
            store::open_newest(&*self.disk, inline).map_err(|error| error.to_string())?;
        let db = Arc::new(db);
        let weak = Arc::downgrade(&db);
        let policy = self.hub.policy.clone();
        let machine = Machine::open(db.clone(), reign, policy, self.halt.clone());
        let machine = machine.map_err(|error| error.to_string())?;
        let view = machine.view();
        let config = Arc::new(self.config()?);
        let log = Log { db, halt: self.halt.as_ref().map(|halt| halt.index) };
        let network = Network { hub: self.hub.clone(), reign };
        let started = Raft::new(self.hub.own, config, network, log, machine);
        let raft = match started.await {
            Ok(raft) => raft,
            Err(error) => {
                self.look_for_newer(&view);
                return Err(error.to_string());
            }
        };
        Ok(Started { engine: Engine { reign, raft, view }, db: weak })
    }

    fn config(&self) -> Result<Config, String> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let Options { heartbeat, election, keep, .. } = *self.options;
        let config = Config {
            cluster_name: "settings".to_owned(),
            heartbeat_interval: millis(heartbeat),
            election_timeout_min: millis(election),
            election_timeout_max: 2 * millis(election),
            install_snapshot_timeout: millis(4 * election),
            max_payload_entries: MAX_ENTRIES as u64,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(keep),
            snapshot_max_chunk_size: PIECE,
            max_in_snapshot_log_to_keep: keep / 4,
            replication_lag_threshold: keep / 2,
            // One that is too old would lead on to where it cannot follow.
            enable_elect: self.halt.is_none() && self.hub.policy.may_lead(self.hub.own),
            ..Config::default()
        };
        config.validate().map_err(|error| error.to_string())
    }

    /// Starts the engine for the first time.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn first(&mut self) -> Result<(), SettingsError> {
        let mut started = self.start().await;
        if started.is_err() && self.halt.is_some() {
            started = self.start().await;
        }
        let started = started.map_err(SettingsError::Unavailable)?;
        self.publish(&started);
        self.first = Some(started);
        Ok(())
    }

    fn look_for_newer(&mut self, view: &View) {
        if let Some(too_new) = view.too_new()
            && self.halt.is_none()
        {
            tracing::error!(error = %too_new.error, "this member is too old for its group");
            self.halt = Some(too_new);
        }
    }

    fn publish(&self, started: &Started) {
        self.slot.send_replace(Slot::Running(started.engine.clone()));
    }

    /// Keeps an engine running until it is told to stop, or all handles are gone.
    pub async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        loop {
            let since = Instant::now();
            let started = match self.first.take() {
                Some(started) => Ok(started),
                None => self.start().await,
            };
            let end = match started {
                Ok(started) => {
                    self.publish(&started);
                    let roster = tokio::spawn(roster::follow(started.engine.clone()));
                    let end = self.watch(&started.engine).await;
                    roster.abort();
                    let _ = roster.await;
                    self.look_for_newer(&started.engine.view);
                    let why = match &end {
                        End::Failed(why) => why.clone(),
                        _ => "another log is being opened".to_owned(),
                    };
                    self.slot.send_replace(Slot::Down(why));
                    self.close(started).await;
                    end
                }
                Err(why) => End::Failed(why),
            };
            let command = match end {
                End::Gone => return,
                End::Ordered(command) => Some(command),
                End::Failed(why) => {
                    if since.elapsed() > 2 * LONGEST_WAIT {
                        wait = FIRST_WAIT;
                    }
                    tracing::error!(%why, again_in = ?wait, "the log of the settings is not usable");
                    self.slot.send_replace(Slot::Down(why));
                    let command = tokio::time::timeout(wait, self.commands.recv()).await;
                    wait = LONGEST_WAIT.min(2 * wait);
                    match command {
                        Ok(None) => return,
                        Ok(command) => command,
                        Err(_) => None,
                    }
                }
            };
            match command {
                Some(Command::Stop(done)) => {
                    let _ = done.send(());
                    return;
                }
                Some(command) => {
                    self.halt = None;
                    self.obey(command);
                }
                None => {}
            }
        }
    }

    async fn watch(&mut self, engine: &Engine) -> End {
        let mut metrics = engine.raft.metrics();
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    None => return End::Gone,
                    Some(Command::Newer { reign, .. }) if reign <= engine.reign => {}
                    Some(command) => return End::Ordered(command),
                },
                changed = metrics.changed() => {
                    let failed = metrics.borrow().running_state.clone().err();
                    if let Some(why) = failed {
                        return End::Failed(why.to_string());
                    }
                    if changed.is_err() {
                        return End::Failed("the engine ended".to_owned());
                    }
                }
            }
        }
    }

    /// Ends an engine, and waits until nothing has its file.
    async fn close(&self, started: Started) {
        let Started { engine, db } = started;
        engine.view.close();
        let _ = engine.raft.shutdown().await;
        drop(engine);
        let until = Instant::now() + CLOSING;
        while db.strong_count() > 0 && Instant::now() < until {
            tokio::time::sleep(PAUSE / 10).await;
        }
    }

    fn obey(&self, command: Command) {
        match command {
            Command::Newer { reign, from } => {
                tracing::warn!(
                    %reign, %from,
                    "a newer reign was begun elsewhere; the log of this member is put aside"
                );
                let made = match store::newest(&*self.disk) {
                    Ok(newest) if newest < Some(reign) => store::make(&*self.disk, reign, None),
                    other => other.map(drop),
                };
                if let Err(why) = made {
                    tracing::error!(%why, "the newer reign is not joined");
                }
            }
            Command::Override { voters, why, who, at, reply } => {
                let _ = reply.send(self.begin_reign(&voters, why, who, at));
            }
            Command::Stop(_) => {}
        }
    }

    /// Begins a reign with the state of this member and its given voters.
    fn begin_reign(
        &self,
        voters: &BTreeSet<MemberId>,
        why: String,
        who: Origin,
        at: u64,
    ) -> Result<Audit, SettingsError> {
        let own = self.hub.own;
        if !voters.contains(&own) || voters.len() > MAX_VOTERS || why.len() > MAX_NAME {
            return Err(SettingsError::Override(
                "this member must be among the voters, and the reason be short",
            ));
        }
        let (old, db) = store::open_newest(&*self.disk, true)?;
        let db = Arc::new(db);
        let (mut contents, unconfirmed) = whole(&db, old, &self.hub)?;
        drop(db);
        let last = contents.applied.unwrap_or_default();
        let number =
            old.number.checked_add(1).ok_or(SettingsError::Override("no number is left"))?;
        let reign = Reign { number, by: own };
        let before: BTreeSet<MemberId> = contents.membership.voter_ids().collect();
        let audit = Audit {
            reign,
            who,
            at,
            why,
            base: Position { reign: old, term: last.leader_id.term, index: last.index },
            unconfirmed,
            voters: voters.iter().copied().collect(),
            left_out: before.difference(voters).copied().collect(),
        };
        // The state is as if one more entry had made it, which only this member can have written.
        let leader = openraft::CommittedLeaderId::new(last.leader_id.term + 1, own);
        let applied = LogId::new(leader, last.index + 1);
        let nodes = voters.iter().map(|id| (*id, openraft::EmptyNode {}));
        let membership = openraft::Membership::new(
            vec![voters.clone()],
            nodes.collect::<std::collections::BTreeMap<_, _>>(),
        );
        contents.applied = Some(applied);
        contents.membership = Membership::new(Some(applied), membership);
        contents.state.begin_reign(audit.clone());
        store::make(&*self.disk, reign, Some(&contents))?;
        tracing::warn!(
            %reign, who = %audit.who, why = %audit.why, left_out = ?audit.left_out, unconfirmed,
            "the majority was overridden"
        );
        Ok(audit)
    }
}

/// The state with all that is in a log, and how many entries of it may never have been confirmed. Some of these may have been
/// acknowledged, and are not to be lost; the others were never denied.
pub(super) fn whole(
    db: &Arc<Db>,
    reign: Reign,
    hub: &Hub,
) -> Result<(Contents, u64), SettingsError> {
    let mut contents = Contents::load(db)?;
    let log = Log { db: db.clone(), halt: None };
    let committed = log.committed()?;
    let mut unconfirmed = 0;
    for entry in log.after(contents.applied)? {
        if Some(entry.log_id) > committed {
            unconfirmed += 1;
        }
        let applied = contents.apply(reign, &entry, &*hub.policy);
        let _ = applied.map_err(|error| SettingsError::Unavailable(error.to_string()))?;
    }
    Ok((contents, unconfirmed))
}
