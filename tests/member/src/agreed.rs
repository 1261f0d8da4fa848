// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settings and orders of a member that does nothing else.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use axum::extract::{Path as Part, State};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use daemon_kit::control::{ApiError, Peer};
use group::report::Report;
use group::settings::change::MAX_ORDER_LIFE;
use group::settings::executor::Record;
use group::settings::{
    Change, Expect, Options, Order, OrderId, OrderResult, Origin, Policy, Program, Settings,
    SettingsError, State as Agreed,
};
use group::shell::{Call, Group, settled};
use serde::Deserialize;
use tokio::sync::mpsc;

/// How long an order may wait, in milliseconds.
const PATIENCE: u64 = 60_000;

/// Every member may change settings; each gives orders to all.
struct Open;

impl Policy for Open {
    fn judge(&self, _: &Origin, _: &Change, _: &Agreed) -> Result<(), String> {
        Ok(())
    }
}

/// Carries an order out by a line in a file, of which there is to be one for each order.
struct Lines(PathBuf);

impl Program for Lines {
    fn execute(
        &self,
        record: Record,
        resume: bool,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>> {
        let path = self.0.clone();
        Box::pin(async move {
            let line = record.order.id.to_string();
            let done = std::fs::read_to_string(&path).unwrap_or_default();
            // What is wanted is that the line is there.
            if !done.lines().any(|one| one == line) {
                let file = OpenOptions::new().append(true).create(true).open(&path);
                let written = file.and_then(|mut file| {
                    writeln!(file, "{line}")?;
                    file.sync_all()
                });
                written.map_err(|error| format!("{}: {error}", path.display()))?;
            }
            tracing::info!(order = line, resume, "carried out");
            Ok(record.order.what)
        })
    }
}

/// Opens the settings in a folder below the member's own.
pub async fn open(
    group: &Group,
    calls: mpsc::Receiver<Call>,
    state: &Path,
    orders: Option<PathBuf>,
) -> anyhow::Result<Settings> {
    let folder = state.join("settings");
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let clock = group.clock();
    let mut options = Options::new(Arc::new(Open), Arc::new(move || clock.now_ms()));
    options.program = orders.map(|path| Arc::new(Lines(path)) as Arc<dyn Program>);
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let boot = u128::from_str_radix(&boot.trim().replace('-', ""), 16).context("the boot's id")?;
    options.boot = boot.to_be_bytes();
    Ok(settled::open(group, calls, &folder, options).await?)
}

#[derive(Clone)]
struct Both {
    group: Group,
    settings: Settings,
}

/// What the control socket offers of it.
pub fn routes(group: Group, settings: Settings) -> Router {
    Router::new()
        .route("/v1/group", get(report))
        .route("/v1/settings", put(set).get(all))
        .route("/v1/orders", post(order))
        .route("/v1/orders/{id}", get(order_of))
        .route("/v1/override", post(override_with))
        .with_state(Both { group, settings })
}

fn failed(error: SettingsError) -> ApiError {
    let text = error.to_string();
    match error {
        SettingsError::Refused(_) => ApiError::conflict(text),
        SettingsError::NoMajority | SettingsError::Busy | SettingsError::Uncertain => {
            ApiError::busy(text)
        }
        _ => ApiError::internal(text),
    }
}

fn gone(gone: group::shell::Gone) -> ApiError {
    ApiError::internal(gone.to_string())
}

async fn report(State(both): State<Both>) -> Result<Json<Report>, ApiError> {
    let nodes = both.group.nodes().await.map_err(gone)?;
    let settings = Some(settled::report(&both.settings.status(), &nodes));
    let report = both.group.report().await.map_err(gone)?;
    Ok(Json(Report { settings, ..report }))
}

impl Both {
    async fn origin(&self, peer: &Peer) -> Result<Origin, ApiError> {
        let nodes = self.group.nodes().await.map_err(gone)?;
        let user = peer.uid.to_string();
        Ok(Origin { user, ..Origin::program(nodes.own.1.into()) })
    }
}

async fn all(State(both): State<Both>) -> Json<BTreeMap<String, String>> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    Json(
        both.settings.read(|agreed| {
            agreed.keys().map(|(key, item)| (key.clone(), text(&item.value))).collect()
        }),
    )
}

async fn set(
    State(both): State<Both>,
    peer: Peer,
    Json(values): Json<BTreeMap<String, Option<String>>>,
) -> Result<(), ApiError> {
    let who = both.origin(&peer).await?;
    for (key, value) in values {
        let changed = match value {
            Some(value) => {
                both.settings.set(&key, value.into_bytes(), Expect::Any, who.clone()).await
            }
            None => both.settings.remove(&key, Expect::Any, who.clone()).await,
        };
        changed.map_err(failed)?;
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
struct Wanted {
    to: String,
    subject: String,
    what: String,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    deadline: Option<u64>,
}

fn result(result: Option<OrderResult>) -> serde_json::Value {
    match result {
        None => serde_json::json!({ "state": "under way" }),
        Some(OrderResult::Done(bytes)) => {
            serde_json::json!({ "state": "done", "result": String::from_utf8_lossy(&bytes) })
        }
        Some(OrderResult::Failed(why)) => serde_json::json!({ "state": "failed", "error": why }),
        Some(OrderResult::NotBegun(why)) => {
            serde_json::json!({ "state": "not begun", "error": why.to_string() })
        }
    }
}

fn order_id(text: &str) -> Result<OrderId, ApiError> {
    let id = u128::from_str_radix(text, 16).map_err(|_| ApiError::bad_request("no order's id"))?;
    Ok(OrderId(id.to_be_bytes()))
}

async fn order(
    State(both): State<Both>,
    peer: Peer,
    Json(wanted): Json<Wanted>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let nodes = both.group.nodes().await.map_err(gone)?;
    let mut all = nodes.linked.iter().chain([&nodes.own]);
    let to = all.find(|(name, _)| name.as_str() == wanted.to);
    let to = to.ok_or_else(|| ApiError::not_found("no such member is here"))?.1;
    let id = match wanted.id {
        Some(id) => order_id(&id)?,
        None => OrderId(random().map_err(|error| ApiError::internal(error.to_string()))?),
    };
    let latest = both.group.clock().now_ms() + PATIENCE.min(MAX_ORDER_LIFE);
    let order = Order {
        id,
        to: to.into(),
        subject: wanted.subject,
        what: wanted.what.into_bytes(),
        deadline: wanted.deadline.unwrap_or(latest),
        expect_boot: None,
    };
    let who = both.origin(&peer).await?;
    let came = both.settings.order(order, who).await.map_err(failed)?;
    let mut answer = result(came);
    answer["id"] = id.to_string().into();
    Ok(Json(answer))
}

fn random() -> std::io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes)
}

async fn order_of(
    State(both): State<Both>,
    Part(id): Part<String>,
) -> Result<Json<serde_json::Value>, ApiError> {
    let known = both.settings.order_of(order_id(&id)?);
    let ordered = known.ok_or_else(|| ApiError::not_found("no such order is known here"))?;
    Ok(Json(result(ordered.result)))
}

/// Goes on with the named members without a majority.
async fn override_with(
    State(both): State<Both>,
    peer: Peer,
    Json(names): Json<Vec<String>>,
) -> Result<(), ApiError> {
    let nodes = both.group.nodes().await.map_err(gone)?;
    let all = nodes.linked.iter().chain([&nodes.own]);
    let voters: Vec<_> =
        all.filter(|(name, _)| names.iter().any(|n| n == name.as_str())).map(|n| n.1).collect();
    if voters.len() != names.len() {
        return Err(ApiError::not_found("not all of these members are here"));
    }
    let who = both.origin(&peer).await?;
    let done = both.settings.override_with(voters, "asked for".to_owned(), who).await;
    done.map(drop).map_err(failed)
}
