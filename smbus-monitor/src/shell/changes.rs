// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be changed over HTTP, and followed: on the control socket alone.

use std::sync::{Arc, PoisonError};

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use daemon_kit::control::{ApiError, Lines, Peer};
use group::report::Report;
use group::settings::{OrderId, SettingsError};

use super::control::no_place;
use super::kept::{self, SLOT, THRESHOLD};
use super::member;
use super::monitor::{Monitor, SlotSetting};
use super::orders::{self, PowerError};
use crate::core::rules::Rule;
use crate::report::{AckRequest, OverrideRequest, PowerReport, PowerRequest, SlotRequest};
use crate::sources::now;

/// Lines that wait for a watcher which does not read.
const MAX_LINES: usize = 256;

/// What is on the control socket alone.
pub fn changeable(monitor: Arc<Monitor>) -> Router {
    Router::new()
        .route("/v1/watch", get(watch))
        .route("/v1/group", get(group))
        .route("/v1/ack", post(acknowledge))
        .route("/v1/thresholds/{name}", post(set_threshold))
        .route("/v1/thresholds/{name}/remove", post(remove_threshold))
        .route("/v1/slot", post(set_slot))
        .route("/v1/power", post(order_power))
        .route("/v1/power/{id}", get(power_of))
        .route("/v1/override", post(override_majority))
        .with_state(monitor)
}

async fn watch(State(monitor): State<Arc<Monitor>>) -> Lines {
    let mut events = monitor.watch();
    let (sender, chunks) = tokio::sync::mpsc::channel(MAX_LINES);
    tokio::spawn(async move {
        // Who is too far behind has lost some: its stream ends, and it can ask again.
        while let Ok(line) = events.recv().await {
            if sender.send(line).await.is_err() {
                return;
            }
        }
    });
    Lines::from(chunks)
}

fn no_group() -> ApiError {
    ApiError::not_found("this machine is in no group").with_remedy("see midplane-key(1)")
}

async fn group(State(monitor): State<Arc<Monitor>>) -> Result<Json<Report>, ApiError> {
    let links = monitor.links.get().ok_or_else(no_group)?;
    links.report().await.map(Json).map_err(|gone| ApiError::internal(gone.to_string()))
}

fn user(peer: &Peer) -> String {
    format!("uid {}", peer.uid)
}

async fn acknowledge(
    State(monitor): State<Arc<Monitor>>,
    peer: Peer,
    Json(request): Json<AckRequest>,
) -> Result<Json<()>, ApiError> {
    let none = || ApiError::not_found(format!("there is no alert {:?}", request.id));
    let owner = {
        let mut inner = monitor.lock();
        let happened = inner.core.acknowledge(now(), &request.id, &user(&peer));
        if !happened.is_empty() {
            monitor.happened(&mut inner, happened);
            return Ok(Json(()));
        }
        let has =
            |alerts: &[crate::report::Alert]| alerts.iter().any(|alert| alert.id == request.id);
        let owner = inner.others.iter().find(|(_, other)| other.here && has(&other.alerts));
        owner.map(|(name, _)| name.clone()).ok_or_else(none)?
    };
    let links = monitor.links.get().ok_or_else(none)?;
    match links.acknowledge(&owner, &request.id, &user(&peer)).await {
        Ok(true) => Ok(Json(())),
        Ok(false) => Err(none()),
        Err(why) => Err(ApiError::busy(why)),
    }
}

fn settings_error(error: &SettingsError) -> ApiError {
    let text = error.to_string();
    match error {
        SettingsError::Refused(_) => ApiError::conflict(text),
        SettingsError::NoMajority | SettingsError::Busy | SettingsError::Uncertain => {
            ApiError::busy(text)
        }
        _ => ApiError::internal(text),
    }
}

/// In the group's log, or in this machine's file.
async fn set(
    monitor: &Monitor,
    peer: &Peer,
    key: &str,
    value: Option<Vec<u8>>,
) -> Result<(), ApiError> {
    if let Some(value) = &value {
        kept::check(key, value).map_err(ApiError::bad_request)?;
    }
    if let Some(links) = monitor.links.get() {
        return links.set(key, value, &user(peer)).await.map_err(|error| settings_error(&error));
    }
    let kept = {
        let mut alone = monitor.alone.lock().unwrap_or_else(PoisonError::into_inner);
        let alone = alone.as_mut().ok_or_else(|| ApiError::internal("no place to keep it"))?;
        let done = alone.set(key, value.as_deref());
        done.map_err(|error| ApiError::internal(format!("it is not kept: {error}")))?;
        alone.kept()
    };
    member::set(monitor, kept);
    Ok(())
}

async fn set_threshold(
    State(monitor): State<Arc<Monitor>>,
    peer: Peer,
    Path(name): Path<String>,
    Json(rule): Json<Rule>,
) -> Result<Json<()>, ApiError> {
    let value = serde_json::to_vec(&Rule { name: name.clone(), ..rule });
    let value = value.map_err(|error| ApiError::bad_request(error.to_string()))?;
    set(&monitor, &peer, &format!("{THRESHOLD}{name}"), Some(value)).await.map(Json)
}

async fn remove_threshold(
    State(monitor): State<Arc<Monitor>>,
    peer: Peer,
    Path(name): Path<String>,
) -> Result<Json<()>, ApiError> {
    if !monitor.lock().core.rules().users.iter().any(|rule| rule.name == name) {
        return Err(ApiError::not_found(format!("no user has made a threshold {name:?}")));
    }
    set(&monitor, &peer, &format!("{THRESHOLD}{name}"), None).await.map(Json)
}

async fn set_slot(
    State(monitor): State<Arc<Monitor>>,
    peer: Peer,
    Json(request): Json<SlotRequest>,
) -> Result<Json<()>, ApiError> {
    let (place, old) = {
        let inner = monitor.lock();
        let place = inner.place_named(&request.place).unwrap_or_else(|| request.place.clone());
        if place.is_empty() || place.contains('/') {
            return Err(no_place(&request.place));
        }
        let old = inner.slots.get(&place).cloned().unwrap_or_default();
        (place, old)
    };
    let SlotSetting { name, module } = old;
    let new = SlotSetting {
        name: request.name.unwrap_or(name),
        module: request.module.unwrap_or(module),
    };
    let value =
        serde_json::to_vec(&new).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let value = (new != SlotSetting::default()).then_some(value);
    set(&monitor, &peer, &format!("{SLOT}{place}"), value).await.map(Json)
}

async fn order_power(
    State(monitor): State<Arc<Monitor>>,
    peer: Peer,
    Json(request): Json<PowerRequest>,
) -> Result<Json<PowerReport>, ApiError> {
    let links = monitor.links.get().ok_or_else(no_group)?;
    let done = orders::order(links, &monitor, &request, &user(&peer)).await;
    done.map(Json).map_err(|error| match error {
        PowerError::Cannot(why) => ApiError::conflict(why),
        PowerError::Settings(error) => settings_error(&error),
    })
}

async fn power_of(
    State(monitor): State<Arc<Monitor>>,
    Path(id): Path<String>,
) -> Result<Json<PowerReport>, ApiError> {
    let links = monitor.links.get().ok_or_else(no_group)?;
    let number =
        u128::from_str_radix(&id, 16).map_err(|_| ApiError::bad_request("no order's id"))?;
    let found = orders::report(links, &monitor, OrderId(number.to_be_bytes()));
    found.map(Json).ok_or_else(|| ApiError::not_found("no such order is known here"))
}

async fn override_majority(
    State(monitor): State<Arc<Monitor>>,
    peer: Peer,
    Json(request): Json<OverrideRequest>,
) -> Result<Json<()>, ApiError> {
    let links = monitor.links.get().ok_or_else(no_group)?;
    let mut voters = vec![];
    for member in &request.members {
        let missing = || ApiError::not_found(format!("{member} is not here"));
        voters.push(links.node(member).await.ok_or_else(missing)?);
    }
    let who = links.origin(&user(&peer));
    let done = links.settings.override_with(voters, request.reason, who).await;
    done.map(|_| Json(())).map_err(|error| settings_error(&error))
}
