// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be asked over HTTP, on the control socket and on TCP.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use daemon_kit::control::ApiError;
use serde::Deserialize;

use super::monitor::Monitor;
use super::prometheus::CONTENT_TYPE;
use crate::report::{Alert, Event, HistoryReport, RuleReport, Sensor, SlotReport, Status};
use crate::sources::now;

/// Longest look back, milliseconds: two days are kept.
const MAX_WINDOW_MS: u64 = 48 * 3_600_000;
/// Most events in an answer.
const MAX_EVENTS: usize = 1_000;

/// What may be read: the same on both.
pub fn readable(monitor: Arc<Monitor>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/sensors", get(sensors))
        .route("/v1/alerts", get(alerts))
        .route("/v1/events", get(events))
        .route("/v1/history", get(history))
        .route("/v1/thresholds", get(thresholds))
        .route("/v1/slots", get(slots))
        .route("/metrics", get(metrics))
        .route("/chassis/metrics", get(chassis_metrics))
        .with_state(monitor)
}

async fn status(State(monitor): State<Arc<Monitor>>) -> Json<Status> {
    Json(monitor.status())
}

#[derive(Debug, Deserialize)]
struct Which {
    place: Option<String>,
}

async fn sensors(
    State(monitor): State<Arc<Monitor>>,
    Query(which): Query<Which>,
) -> Result<Json<Vec<Sensor>>, ApiError> {
    let inner = monitor.lock();
    let place = match which.place {
        Some(text) => Some(inner.place_named(&text).ok_or_else(|| no_place(&text))?),
        None => None,
    };
    Ok(Json(inner.sensors(place.as_deref(), now())))
}

pub(super) fn no_place(text: &str) -> ApiError {
    ApiError::not_found(format!("there is no place {text:?}"))
        .with_remedy("see smbus-monitor slot list")
}

async fn alerts(State(monitor): State<Arc<Monitor>>) -> Json<Vec<Alert>> {
    Json(monitor.lock().all_alerts())
}

#[derive(Debug, Deserialize)]
struct Last {
    last: Option<usize>,
}

async fn events(State(monitor): State<Arc<Monitor>>, Query(last): Query<Last>) -> Json<Vec<Event>> {
    let inner = monitor.lock();
    let last = last.last.unwrap_or(50).min(MAX_EVENTS);
    let skipped = inner.events.len().saturating_sub(last);
    Json(inner.events.iter().skip(skipped).cloned().collect())
}

#[derive(Debug, Deserialize)]
struct Past {
    place: Option<String>,
    metric: String,
    seconds: Option<u64>,
}

async fn history(
    State(monitor): State<Arc<Monitor>>,
    Query(past): Query<Past>,
) -> Result<Json<HistoryReport>, ApiError> {
    let inner = monitor.lock();
    let place = match &past.place {
        Some(text) => inner.place_named(text).ok_or_else(|| no_place(text))?,
        None => inner.place.clone(),
    };
    let window = past.seconds.unwrap_or(600).saturating_mul(1000).min(MAX_WINDOW_MS);
    let found = inner.history(&place, &past.metric, window);
    let missing = || {
        let what = format!("there is no metric {:?} of {place}", past.metric);
        ApiError::not_found(what).with_remedy("see smbus-monitor sensors")
    };
    found.map(Json).ok_or_else(missing)
}

async fn thresholds(State(monitor): State<Arc<Monitor>>) -> Json<Vec<RuleReport>> {
    let inner = monitor.lock();
    let rules = inner.core.rules();
    let of = |by: &'static str| {
        move |rule: &crate::core::rules::Rule| RuleReport { by: by.to_owned(), rule: rule.clone() }
    };
    let users = rules.users.iter().map(of("user"));
    Json(users.chain(rules.configured.iter().map(of("configuration"))).collect())
}

async fn slots(State(monitor): State<Arc<Monitor>>) -> Json<Vec<SlotReport>> {
    Json(monitor.lock().slot_reports())
}

async fn metrics(State(monitor): State<Arc<Monitor>>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], monitor.prometheus(false)).into_response()
}

async fn chassis_metrics(State(monitor): State<Arc<Monitor>>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], monitor.prometheus(true)).into_response()
}
