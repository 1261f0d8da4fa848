// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control socket of a manager. What a client waits for ends with its connection; a lease that was granted does not: it is
//! between holder and unit.

use axum::extract::{RawQuery, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use daemon_kit::control::{ApiError, Connection, Lines, Peer, lines};
use nix::unistd::{Gid, Group, Uid, User};
use tokio::sync::{mpsc, oneshot};

use super::api::{
    Explained, Known, Lease, Leased, Line, ManagerStatus, Release, Status, UnitStatus, Waiting,
};
use super::core::{Ask, Manager, Scope};
use crate::pattern::Pattern;
use crate::record::{DeviceId, Holder, Machine, Taken, WHOLE};
use crate::wire::{FinderNo, Grant, Refusal, RequestNo};

/// Lines that wait for a client to read: all devices of a large group.
const MAX_LINES: usize = 65_536;
/// Those of a request.
const MAX_ANSWERS: usize = 256;

type Look = Box<dyn FnOnce(&Manager) + Send>;

/// What handlers ask the loop.
pub(super) enum Asked {
    /// Looks at the core.
    Look(Look),
    /// Begins a finder.
    Find {
        pattern: Pattern,
        scope: Scope,
        lines: mpsc::Sender<Line>,
        number: oneshot::Sender<FinderNo>,
    },
    /// Ends it.
    Unfind(FinderNo),
    /// Wants a lease.
    Lease { ask: Ask, out: mpsc::Sender<Leased>, number: oneshot::Sender<RequestNo> },
    /// Wants it no more.
    Cancel(RequestNo),
    /// Ends a lease.
    End { no: u64, unit: Machine, by: Holder, force: bool },
}

#[derive(Clone)]
struct Loop(mpsc::Sender<Asked>);

impl Loop {
    async fn ask(&self, asked: Asked) -> Result<(), ApiError> {
        self.0.send(asked).await.map_err(|_| ApiError::internal("the manager stops"))
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Manager) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let (answer, answered) = oneshot::channel();
        self.ask(Asked::Look(Box::new(move |core| drop(answer.send(look(core)))))).await?;
        answered.await.map_err(|_| ApiError::internal("the manager stops"))
    }
}

/// All that it offers.
pub(super) fn routes(ask: mpsc::Sender<Asked>, group: group::shell::Group) -> Router {
    let report = || async move {
        let report = group.report().await;
        report.map(Json).map_err(|gone| ApiError::internal(gone.to_string()))
    };
    Router::new()
        .route("/v1/group", get(report))
        .route("/v1/status", get(status))
        .route("/v1/devices", get(devices))
        .route("/v1/find", get(find))
        .route("/v1/queue", get(queue))
        .route("/v1/explain", get(explain))
        .route("/v1/lease", post(lease))
        .route("/v1/release", post(release))
        .with_state(Loop(ask))
}

/// What is behind the question mark, by name.
fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()?;
    let text = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
    Some(text.into_owned())
}

fn pattern(query: Option<&str>) -> Result<Pattern, ApiError> {
    let text = parameter(query, "pattern").unwrap_or_default();
    text.parse()
        .map_err(|error: crate::pattern::PatternError| ApiError::bad_request(error.to_string()))
}

fn known((device, manager): (&crate::record::Device, &Machine)) -> Known {
    Known { device: device.clone(), manager: manager.clone() }
}

async fn status(State(ask): State<Loop>) -> Result<Json<Status>, ApiError> {
    ask.look(|core| {
        let unit = |unit: super::core::KnownUnit<'_>| UnitStatus {
            unit: unit.machine.clone(),
            manager: unit.manager.clone(),
            since: unit.stamp.at,
            epoch: unit.stamp.epoch,
            devices: unit.devices,
        };
        let units: Vec<UnitStatus> = core.known_units().into_iter().map(unit).collect();
        let of = |manager: &Machine| {
            units.iter().filter(|u| u.manager == *manager).map(|u| u.unit.clone()).collect()
        };
        let own = core.own().clone();
        let mut managers = vec![ManagerStatus { units: of(&own), manager: own, own: true }];
        managers.extend(core.peers().map(|(name, _)| ManagerStatus {
            manager: name.clone(),
            own: false,
            units: of(name),
        }));
        let replication = match core.replication() {
            group::core::Replication::All => "all",
            group::core::Replication::Own => "own",
        };
        Json(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: core.own().clone(),
            replication: replication.to_owned(),
            now: core.group_time(crate::unit::run::boot_clock()),
            managers,
            devices: core.devices().into_iter().map(known).collect(),
            finders: core.finder_counts(),
            units,
        })
    })
    .await
}

async fn devices(
    State(ask): State<Loop>,
    RawQuery(query): RawQuery,
) -> Result<Json<Vec<Known>>, ApiError> {
    let pattern = pattern(query.as_deref())?;
    let all = ask.look(move |core| {
        let fits = core.devices().into_iter().filter(|(device, _)| pattern.fits(device));
        fits.map(known).collect()
    });
    Ok(Json(all.await?))
}

async fn find(State(ask): State<Loop>, RawQuery(query): RawQuery) -> Result<Lines, ApiError> {
    let pattern = pattern(query.as_deref())?;
    let scope = match parameter(query.as_deref(), "scope").as_deref() {
        None | Some("group") => Scope::Group,
        Some("managed") => Scope::Managed,
        Some("local") => Scope::Local,
        Some(_) => return Err(ApiError::bad_request("a scope is group, managed or local")),
    };
    let (out, answer) = lines(MAX_LINES);
    let (found, mut came) = mpsc::channel(MAX_LINES);
    let (number, numbered) = oneshot::channel();
    ask.ask(Asked::Find { pattern, scope, lines: found, number }).await?;
    let no = numbered.await.map_err(|_| ApiError::internal("the manager stops"))?;
    tokio::spawn(async move {
        // The peer's end is seen when a line is sent; to be seen without one, empty lines go out now and then.
        let mut beat = tokio::time::interval(std::time::Duration::from_secs(5));
        beat.tick().await;
        loop {
            let sent = tokio::select! {
                line = came.recv() => match line {
                    Some(line) => out.send(&line),
                    None => break,
                },
                _ = beat.tick() => out.send(&serde_json::json!({})),
            };
            if sent.is_err() {
                break;
            }
        }
        let _ = ask.ask(Asked::Unfind(no)).await;
    });
    Ok(answer)
}

async fn queue(State(ask): State<Loop>) -> Result<Json<Vec<Waiting>>, ApiError> {
    let all = ask.look(|core| {
        let waiting = core.queue().into_iter();
        waiting
            .map(|(holder, device, since_ms)| Waiting { device, holder: holder.clone(), since_ms })
            .collect()
    });
    Ok(Json(all.await?))
}

/// The user at the other end of the socket, on this machine.
fn holder(machine: Machine, peer: &Peer) -> Holder {
    let user = User::from_uid(Uid::from_raw(peer.uid)).ok().flatten();
    let listed = user.and_then(|user| {
        let name = std::ffi::CString::new(user.name).ok()?;
        nix::unistd::getgrouplist(&name, Gid::from_raw(peer.gid)).ok()
    });
    let gids = listed.unwrap_or_else(|| vec![Gid::from_raw(peer.gid)]);
    let names = gids.into_iter().filter_map(|gid| Some(Group::from_gid(gid).ok()??.name));
    let groups = names.filter(|name| name.len() <= 64).take(Holder::MAX_GROUPS).collect();
    Holder { machine, uid: peer.uid, groups }
}

async fn explain(
    State(ask): State<Loop>,
    RawQuery(query): RawQuery,
    peer: Peer,
) -> Result<Json<Explained>, ApiError> {
    let id = parameter(query.as_deref(), "device").and_then(|text| text.parse::<DeviceId>().ok());
    let id = id.ok_or_else(|| ApiError::bad_request("which device? give its id"))?;
    let found = ask.look(move |core| {
        let (device, manager) = core.device(id)?;
        let taken = device.taken(WHOLE).map(|taken| match taken {
            Taken::Leased(lease) => format!("leased to {}, lease {}", lease.holder, lease.no),
            Taken::Unavailable(why) => why.to_owned(),
        });
        let policy = if manager == core.own() {
            let holder = holder(core.own().clone(), &peer);
            match core.policy().judge(device, &holder, None) {
                Ok(allowed) => match allowed.rule {
                    Some(rule) => format!("rule {rule} allows it"),
                    None => "there are no rules: it is allowed".to_owned(),
                },
                Err(why) => format!("denied: {why}"),
            }
        } else {
            format!("is judged by manager {manager}")
        };
        Some(Explained { known: known((device, manager)), taken, policy })
    });
    found.await?.map(Json).ok_or_else(|| ApiError::not_found("no such device is known here"))
}

/// As the control socket says it.
pub(super) fn leased(answer: Result<Box<Grant>, Refusal>) -> Leased {
    match answer {
        Ok(grant) => Leased::Granted(grant),
        Err(why) => {
            let later = !matches!(why, Refusal::Denied(_));
            Leased::Refused { reason: why.to_string(), later }
        }
    }
}

async fn lease(
    State(ask): State<Loop>,
    peer: Peer,
    connection: Connection,
    Json(wanted): Json<Lease>,
) -> Result<Lines, ApiError> {
    let own = ask.look(|core| core.own().clone()).await?;
    let holder = holder(own, &peer);
    let Lease { device, function, queue, limit_s } = wanted;
    let (out, answer) = lines(MAX_ANSWERS);
    let (told, mut came) = mpsc::channel(MAX_ANSWERS);
    let (number, numbered) = oneshot::channel();
    let wanted = Ask { device, function, holder, queue, limit_s, since_ms: 0 };
    ask.ask(Asked::Lease { ask: wanted, out: told, number }).await?;
    let no = numbered.await.map_err(|_| ApiError::internal("the manager stops"))?;
    tokio::spawn(async move {
        let closed = connection.closed();
        tokio::pin!(closed);
        loop {
            tokio::select! {
                () = &mut closed => break,
                line = came.recv() => match line {
                    Some(line) => if out.send(&line).is_err() { break },
                    None => return,
                },
            }
        }
        let _ = ask.ask(Asked::Cancel(no)).await;
    });
    Ok(answer)
}

async fn release(
    State(ask): State<Loop>,
    peer: Peer,
    Json(Release { lease }): Json<Release>,
) -> Result<Json<()>, ApiError> {
    let own = ask.look(|core| core.own().clone()).await?;
    let of = ask.look(move |core| {
        core.leased(lease).map(|(device, lease)| (device.unit.clone(), lease.holder.clone()))
    });
    let (unit, holder_of) =
        of.await?.ok_or_else(|| ApiError::not_found("no such lease is known here"))?;
    // Whoever may change things here may end what this machine holds, and what is taken from this machine's unit or manager.
    let by = holder(own, &peer);
    tracing::info!(lease, %by, holder = %holder_of, "to be ended");
    ask.ask(Asked::End { no: lease, unit, by, force: true }).await?;
    Ok(Json(()))
}
