// SPDX-License-Identifier: MIT OR Apache-2.0
//! One HTTP/1.1 connection, bounded in time and size, for [`crate::control`] and
//! [`crate::metrics`].
//!
//! hyper notices that a peer is gone also while a handler works or a stream is open, and drops
//! the handler's future and the stream then.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::control::ApiError;

/// Largest request body, bytes. Requests are commands; bulk goes other ways.
pub(crate) const BODY_LIMIT: usize = 64 * 1024;
/// Largest request head, bytes; hyper asks for 8 KiB at least.
const HEAD_LIMIT: usize = 16 * 1024;
/// Time for a peer to send a request head, and again for its body. It also ends a connection
/// that idles between requests.
pub(crate) const READ_LIMIT: Duration = Duration::from_secs(5);
/// Most of an error text kept, bytes.
const ERROR_TEXT_LIMIT: usize = 4096;

/// Serves one connection until either side ends it; after `stop` changes or its sender is gone,
/// until the answer under way is sent.
pub(crate) async fn serve<S, H, F>(stream: S, handle: H, mut stop: watch::Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response>,
{
    let service = service_fn(|request| {
        let response = handle(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_LIMIT)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        _ = stop.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(err) = outcome {
        tracing::debug!(%err, "connection ended early");
    }
}

/// The request with its whole body in memory, read within [`BODY_LIMIT`] and [`READ_LIMIT`].
pub(crate) async fn read_body(request: Request<Incoming>) -> Result<Request<Body>, ApiError> {
    let (parts, body) = request.into_parts();
    let Ok(collected) = timeout(READ_LIMIT, Limited::new(body, BODY_LIMIT).collect()).await else {
        return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "the request body did not arrive"));
    };
    match collected {
        Ok(body) => Ok(Request::from_parts(parts, Body::from(body.to_bytes()))),
        Err(err) if err.is::<LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request body is larger than {} KiB", BODY_LIMIT / 1024),
        )),
        Err(err) => Err(ApiError::new(StatusCode::BAD_REQUEST, err.to_string())),
    }
}

/// Gives errors that axum itself answers in plain text, such as 404 and malformed bodies, the
/// JSON form of all others.
pub(crate) async fn with_json_error(response: Response) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || is_json(response.headers()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = to_bytes(body, ERROR_TEXT_LIMIT).await.unwrap_or_default();
    let text = match String::from_utf8_lossy(&text).trim() {
        "" => status.canonical_reason().unwrap_or("error").to_lowercase(),
        text => text.to_owned(),
    };
    let mut response = ApiError::new(status, text).into_response();
    if let Some(allow) = parts.headers.get(header::ALLOW) {
        response.headers_mut().insert(header::ALLOW, allow.clone());
    }
    response
}

/// Asks the peer to end the connection after this answer.
pub(crate) fn last(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json")
}
