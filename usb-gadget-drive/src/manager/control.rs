// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control interface: what the verbs ask the manager.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use daemon_kit::control::ApiError;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::exports::{SIZE_LIMIT, SLOW};
use super::verbs::VerbError;
use super::{Copied, Manager};
use crate::arbiter::{Access, BladeName, Mode, Refusal, ShareName};
use crate::link::message::{Drive, DriveState, Kind};
use crate::source::cache::Usage;

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// All shares, by name.
    pub shares: Vec<ShareStatus>,
    /// All blades that are connected or are to have a drive.
    pub blades: Vec<BladeStatus>,
    /// What is kept of the drives of other servers.
    pub cache: Usage,
    /// Why the state cannot be stored, if it cannot: nothing is granted then.
    pub storage_error: Option<String>,
}

/// A share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareStatus {
    /// Its name.
    pub name: String,
    /// For people; may be empty.
    pub description: String,
    /// Where its blocks are: a path, or an NBD URI.
    pub path: String,
    /// `read-only`, `exclusive` or `private`.
    pub mode: String,
    /// As what hosts see it unless told otherwise.
    pub kind: Kind,
    /// Bytes; none where it cannot be opened.
    pub size: Option<u64>,
    /// Why it cannot be opened, or does not answer at present.
    pub error: Option<String>,
    /// What last went wrong with its device, and with those of its overlays, and when.
    pub failures: Vec<String>,
    /// Counts its contents as readers may have seen them.
    pub generation: u64,
    /// Who writes to it, if it is exclusive.
    pub writer: Option<WriterStatus>,
    /// Who has it open now.
    pub sessions: Vec<SessionStatus>,
    /// What blades wrote, if it is private.
    pub overlays: Vec<OverlayStatus>,
    /// What is being done with it.
    pub work: Vec<Work>,
}

/// Something that takes time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// In words.
    pub what: String,
    /// How far it is, while something is copied.
    pub copied: Option<Copied>,
}

/// Who writes to an exclusive share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterStatus {
    /// Who.
    pub blade: BladeName,
    /// The number of this right; each has a higher one than all before.
    pub epoch: u64,
    /// Since when, seconds since 1970.
    pub since: u64,
}

/// Connections of one blade to a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Who.
    pub blade: BladeName,
    /// Whether it may write.
    pub writes: bool,
    /// Connections.
    pub connections: usize,
}

/// What a blade wrote to a private share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayStatus {
    /// Who.
    pub blade: BladeName,
    /// Of the share below.
    pub generation: u64,
    /// Since when, seconds since 1970.
    pub since: u64,
    /// `ready`, or what is happening to it.
    pub phase: String,
}

/// A blade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BladeStatus {
    /// Its name, from its agent's certificate.
    pub name: BladeName,
    /// Since when its agent is connected, seconds since 1970; none if it is not.
    pub connected_since: Option<u64>,
    /// Its agent's version.
    pub version: Option<String>,
    /// Its USB device controller.
    pub udc: Option<String>,
    /// Its drives as it tells; of one that is not connected, those that it is to have.
    pub drives: Vec<DriveStatus>,
}

/// A drive of a blade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveStatus {
    /// The share; of the blade's own drives their name.
    pub name: String,
    /// It is the blade's own.
    pub local: bool,
    /// As what the host sees it.
    pub kind: Kind,
    /// Whether the host may write.
    pub writable: bool,
    /// Its number on the gadget.
    pub lun: Option<u8>,
    /// `inserted`, `held`, `away`, `ejected` (by the host), or `missing` where the blade does not have it.
    pub state: String,
    /// The real cause, where there is one.
    pub reason: Option<String>,
}

/// `POST /v1/insert`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Insert {
    /// What.
    pub share: ShareName,
    /// Where.
    pub blade: BladeName,
    /// As what; as configured where it does not say.
    pub kind: Option<Kind>,
    /// Whether the host may not write.
    #[serde(default)]
    pub read_only: bool,
}

/// `POST /v1/eject`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eject {
    /// What.
    pub share: ShareName,
    /// Where.
    pub blade: BladeName,
    /// Whatever the host says.
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/swap`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Swap {
    /// What goes.
    pub old: ShareName,
    /// What comes in its place.
    pub new: ShareName,
    /// Where.
    pub blade: BladeName,
    /// Whatever the host says.
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/handover`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandOver {
    /// What.
    pub share: ShareName,
    /// Who must have it now, if that matters.
    pub from: Option<BladeName>,
    /// Who is to have it.
    pub to: BladeName,
    /// Whatever who has it says.
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/overlay/commit` and `/v1/overlay/discard`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlayOf {
    /// The share.
    pub share: ShareName,
    /// Whose.
    pub blade: BladeName,
}

/// The answer when something was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What else is to be known.
    pub note: Option<String>,
}

/// The routes.
pub fn router(manager: Arc<Manager>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/shares/{share}/work", get(work))
        .route("/v1/insert", post(insert))
        .route("/v1/eject", post(eject))
        .route("/v1/swap", post(swap))
        .route("/v1/handover", post(hand_over))
        .route("/v1/overlay/commit", post(commit))
        .route("/v1/overlay/discard", post(discard))
        .with_state(manager)
}

type Of = State<Arc<Manager>>;
type Answer = Result<Json<Done>, ApiError>;

/// Does all of it, also when who asked goes away meanwhile.
async fn done(
    work: impl Future<Output = Result<Option<String>, VerbError>> + Send + 'static,
) -> Answer {
    let result = tokio::spawn(work).await.expect("it neither panics nor is aborted");
    result.map(|note| Json(Done { note })).map_err(|error| {
        let text = error.to_string();
        match &error {
            VerbError::Refused(Refusal::Unknown { .. } | Refusal::NoOverlay { .. })
            | VerbError::NotThere { .. } => ApiError::not_found(text),
            _ if error.is_temporary() => ApiError::busy(text),
            _ => ApiError::conflict(text),
        }
    })
}

async fn insert(State(manager): Of, Json(ask): Json<Insert>) -> Answer {
    let Insert { share, blade, kind, read_only } = ask;
    done(async move { manager.insert(&share, &blade, kind, read_only, None).await.map(|()| None) })
        .await
}

async fn eject(State(manager): Of, Json(ask): Json<Eject>) -> Answer {
    done(async move { manager.eject(&ask.share, &ask.blade, ask.force).await }).await
}

async fn swap(State(manager): Of, Json(ask): Json<Swap>) -> Answer {
    let Swap { old, new, blade, force } = ask;
    done(async move { manager.swap(&old, &new, &blade, force).await.map(|()| None) }).await
}

async fn hand_over(State(manager): Of, Json(ask): Json<HandOver>) -> Answer {
    done(async move { manager.hand_over(&ask.share, ask.from, &ask.to, ask.force).await }).await
}

async fn commit(State(manager): Of, Json(ask): Json<OverlayOf>) -> Answer {
    done(async move { manager.end_overlay(&ask.share, &ask.blade, true).await }).await
}

async fn discard(State(manager): Of, Json(ask): Json<OverlayOf>) -> Answer {
    done(async move { manager.end_overlay(&ask.share, &ask.blade, false).await }).await
}

async fn work(State(manager): Of, Path(share): Path<ShareName>) -> Json<Vec<Work>> {
    Json(manager.lock().work(&share))
}

async fn status(State(manager): Of) -> Json<Status> {
    let sizes = manager.sizes().await;
    Json(manager.status(sizes))
}

/// Bytes, and what is wrong.
type Sizes = BTreeMap<ShareName, (Option<u64>, Option<String>)>;

impl Manager {
    /// Opening what is not open may wait for a device, which keeps neither the answer nor the other shares.
    async fn sizes(self: &Arc<Self>) -> Sizes {
        let ask = |name: &ShareName| {
            let (manager, name) = (Arc::clone(self), name.clone());
            tokio::spawn(async move {
                let share = name.clone();
                let looked = manager.in_thread(move |manager| manager.look_at(&share));
                let found = match timeout(SIZE_LIMIT, looked).await {
                    Ok(Ok((size, trouble))) => (Some(size), trouble),
                    Ok(Err(error)) => (None, Some(error)),
                    Err(_) => (None, Some(SLOW.to_owned())),
                };
                (name, found)
            })
        };
        let asked: Vec<_> = self.shares.keys().map(ask).collect();
        let mut sizes = Sizes::new();
        for size in asked {
            sizes.extend(size.await);
        }
        sizes
    }

    fn status(&self, sizes: Sizes) -> Status {
        let inner = self.lock();
        let share = |(name, (size, error)): (ShareName, (Option<u64>, Option<String>))| {
            let configured = &self.shares[&name];
            let state = inner.arbiter.state().shares.get(&name).cloned().unwrap_or_default();
            let sessions = inner.arbiter.sessions().filter(|(_, s)| s.share == name);
            let work = inner.work(&name);
            ShareStatus {
                name: name.to_string(),
                description: configured.description.clone(),
                path: configured.place.to_string(),
                mode: mode_name(configured.share.mode).to_owned(),
                kind: configured.kind,
                generation: state.generation,
                writer: state.lease.map(|lease| WriterStatus {
                    blade: lease.blade,
                    epoch: lease.epoch,
                    since: lease.since,
                }),
                sessions: sessions
                    .map(|(_, s)| SessionStatus {
                        blade: s.blade.clone(),
                        writes: s.access == Access::Write,
                        connections: s.connections,
                    })
                    .collect(),
                overlays: (state.overlays.into_iter())
                    .map(|(blade, overlay)| OverlayStatus {
                        blade,
                        generation: overlay.generation,
                        since: overlay.since,
                        phase: format!("{:?}", overlay.phase).to_lowercase(),
                    })
                    .collect(),
                work,
                failures: (inner.open.iter())
                    .filter(|((share, _), _)| *share == name)
                    .filter_map(|(_, open)| open.health.show())
                    .collect(),
                error,
                size,
            }
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            shares: sizes.into_iter().map(share).collect(),
            blades: inner.blades(),
            cache: self.cache.usage(),
            storage_error: inner.arbiter.storage_error().map(str::to_owned),
        }
    }
}

impl super::Inner {
    fn work(&self, share: &ShareName) -> Vec<Work> {
        let work = self.arbiter.work().filter(|(of, ..)| *of == share);
        work.map(|(share, blade, what)| {
            let copied = blade.and_then(|blade| self.copied.get(&(share.clone(), blade.clone())));
            Work { what, copied: copied.copied() }
        })
        .collect()
    }

    fn blades(&self) -> Vec<BladeStatus> {
        let mut names: Vec<&BladeName> =
            self.agents.keys().chain(self.presented.blades()).collect();
        names.sort_unstable();
        names.dedup();
        let blade = |name: &BladeName| {
            let agent = self.agents.get(name);
            let told: &[Drive] = agent.map_or(&[], |agent| &agent.drives);
            let has = |share: &ShareName| told.iter().any(|d| !d.local && d.name == share.as_str());
            let missing = self.presented.of(name).filter(|(share, _)| !has(share));
            let missing = missing.map(|(share, how)| DriveStatus {
                name: share.to_string(),
                local: false,
                kind: how.kind,
                writable: how.writable,
                lun: None,
                state: "missing".to_owned(),
                reason: match agent {
                    None => Some("its agent is not connected".to_owned()),
                    Some(agent) => agent.refused.get(share).cloned(),
                },
            });
            BladeStatus {
                name: name.clone(),
                connected_since: agent.map(|agent| agent.since),
                version: agent.map(|agent| agent.version.clone()),
                udc: agent.map(|agent| agent.udc.clone()),
                drives: told.iter().map(drive_status).chain(missing).collect(),
            }
        };
        names.into_iter().map(blade).collect()
    }
}

fn drive_status(drive: &Drive) -> DriveStatus {
    let Drive { name, local, kind, writable, lun, state, reason } = drive.clone();
    let state = match state {
        DriveState::Inserted => "inserted",
        DriveState::Held => "held",
        DriveState::Away => "away",
        DriveState::Ejected => "ejected",
    };
    DriveStatus { name, local, kind, writable, lun: Some(lun), state: state.to_owned(), reason }
}

/// As the configuration has it.
#[must_use]
pub fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::ReadOnly => "read-only",
        Mode::Exclusive => "exclusive",
        Mode::Private => "private",
    }
}
