// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whoever asks another member than the active manager over TCP is sent to the manager: by 307, which a client follows; a
//! request with credentials by 503 and the address in words, so that they are not handed on without being meant to.
//! Below `/local` each member answers for itself, and so it does where Prometheus looks.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use daemon_kit::control::ApiError;

use super::control;
use super::monitor::Monitor;

/// What is answered on TCP.
pub fn router(monitor: &Arc<Monitor>) -> Router {
    let sent = from_fn_with_state(monitor.clone(), send_on);
    let local = control::readable(monitor.clone());
    control::readable(monitor.clone()).layer(sent).nest("/local", local)
}

/// Where the manager is reached; none if this machine is it.
fn elsewhere(monitor: &Monitor) -> Option<Option<String>> {
    if monitor.manages() {
        return None;
    }
    let inner = monitor.lock();
    let other = inner.redirect.as_ref().and_then(|name| inner.others.get(name));
    Some(other.map(|other| other.identity.http.clone()).filter(|http| !http.is_empty()))
}

async fn send_on(State(monitor): State<Arc<Monitor>>, request: Request, next: Next) -> Response {
    if request.uri().path() == "/metrics" {
        return next.run(request).await;
    }
    let Some(to) = elsewhere(&monitor) else { return next.run(request).await };
    let Some(to) = to else {
        let refusal = ApiError::busy("no manager is known that can be asked");
        return refusal.with_remedy("ask this member below /local, or try again").into_response();
    };
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let target = format!("http://{to}{path}");
    let headers = request.headers();
    if headers.contains_key(header::AUTHORIZATION) || headers.contains_key(header::COOKIE) {
        let refusal = ApiError::busy(format!("the manager is at {to}"));
        return refusal
            .with_remedy(format!("send credentials to {target} yourself"))
            .into_response();
    }
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, target)]).into_response()
}
