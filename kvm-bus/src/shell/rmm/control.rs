// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control interface: what the verbs ask the RMM.

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use daemon_kit::control::ApiError;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{Request, Status};
use crate::config::rmm::Logs;
use crate::shell::log;
use crate::wire::Power;

/// Most lines of a replay: what an operator reads.
const MOST_LINES: usize = 10_000;

/// `POST /v1/select`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// By name or slot; nobody where there is none.
    pub blade: Option<String>,
}

/// `POST /v1/power`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerOrder {
    /// By name or slot.
    pub blade: String,
    /// What.
    pub action: PowerAction,
}

/// What a BMC is told, or asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PowerAction {
    /// Whether the blade is on
    Status,
    /// On
    On,
    /// Off, at once
    Off,
    /// Off and on again
    Cycle,
    /// Reset
    Reset,
}

impl From<PowerAction> for Power {
    fn from(action: PowerAction) -> Self {
        match action {
            PowerAction::Status => Self::Status,
            PowerAction::On => Self::On,
            PowerAction::Off => Self::Off,
            PowerAction::Cycle => Self::Cycle,
            PowerAction::Reset => Self::Reset,
        }
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// In words.
    pub text: String,
}

#[derive(Clone)]
struct Shared {
    door: mpsc::Sender<Request>,
    logs: Logs,
}

/// The routes.
pub(super) fn router(door: mpsc::Sender<Request>, logs: Logs) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/select", post(select))
        .route("/v1/power", post(power))
        .route("/v1/replay/{blade}/{lines}", get(replay))
        .with_state(Shared { door, logs })
}

async fn ask<T>(
    door: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, ApiError> {
    let (answer, answered) = oneshot::channel();
    let ends = || ApiError::busy("the daemon ends");
    door.send(request(answer)).await.map_err(|_| ends())?;
    answered.await.map_err(|_| ApiError::busy("there was no answer in time"))
}

async fn status(State(Shared { door, .. }): State<Shared>) -> Result<Json<Status>, ApiError> {
    Ok(Json(ask(&door, Request::Status).await?))
}

async fn select(
    State(Shared { door, .. }): State<Shared>,
    Json(Select { blade }): Json<Select>,
) -> Result<Json<Done>, ApiError> {
    let done = ask(&door, |answer| Request::Select(blade, answer)).await?;
    done.map(|text| Json(Done { text })).map_err(ApiError::conflict)
}

async fn power(
    State(Shared { door, .. }): State<Shared>,
    Json(PowerOrder { blade, action }): Json<PowerOrder>,
) -> Result<Json<Done>, ApiError> {
    let done = ask(&door, |answer| Request::Power(blade, action.into(), answer)).await?;
    let text = |on| if on { "on" } else { "off" }.to_owned();
    done.map(|on| Json(Done { text: text(on) })).map_err(ApiError::conflict)
}

/// Names of blades have no slashes; that no other file is read is sure all the same.
async fn replay(
    State(Shared { door, logs }): State<Shared>,
    Path((blade, lines)): Path<(String, usize)>,
) -> Result<String, ApiError> {
    let status = ask(&door, Request::Status).await?;
    let named = status
        .blades
        .into_iter()
        .find(|known| known.name == blade || known.slot.to_string() == blade);
    let Some(name) = named.map(|known| known.name).filter(|name| !name.contains('/')) else {
        return Err(ApiError::not_found(format!("there is no blade {blade}")));
    };
    let read = move || log::tail(&logs, &name, lines.min(MOST_LINES));
    let read = tokio::task::spawn_blocking(read).await;
    let text = read.map_err(|error| ApiError::internal(error.to_string()))?;
    let text = text.map_err(|error| ApiError::not_found(format!("no log of {blade}: {error}")))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
