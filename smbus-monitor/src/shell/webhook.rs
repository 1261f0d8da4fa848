// SPDX-License-Identifier: MIT OR Apache-2.0
//! JSON is posted to where somebody waits for it.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::Url;

/// Time for all of it.
const LIMIT: Duration = Duration::from_secs(10);

/// Posts, and waits for the answer's status.
///
/// # Errors
/// What went wrong, with the address.
pub async fn post(url: &Url, body: Vec<u8>) -> Result<(), String> {
    let failed = |what: String| format!("http://{}{}: {what}", url.host, url.path);
    match timeout(LIMIT, exchange(url, body)).await {
        Ok(Ok(status)) if status.is_success() => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("it answers {status}"))),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(failed(format!("no answer within {} s", LIMIT.as_secs()))),
    }
}

async fn exchange(url: &Url, body: Vec<u8>) -> Result<axum::http::StatusCode, String> {
    let stream = TcpStream::connect(url.host.as_str()).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let request = Request::post(url.path.as_str())
        .header(header::HOST, url.host.as_str())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("smbus-monitor/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string());
    driver.abort();
    Ok(answer?.status())
}
