// SPDX-License-Identifier: MIT OR Apache-2.0
//! The counters of a program, and a place on TCP where Prometheus finds them.
//!
//! Names begin with the program's, as in `ipmi_mux_build_info`. The text is that of OpenMetrics
//! 1.0.0, which Prometheus reads.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::control::ApiError;
use crate::http;

/// Scrapes at once; one is normal.
const CONNECTIONS: usize = 8;
/// Time for one scrape, so that a half-open connection ends.
const SCRAPE_LIMIT: Duration = Duration::from_secs(10);
/// Pause after a failed accept instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of one program. Register them at the start, then share by [`Arc`].
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// An empty registry with the metric `build`, which carries `version`.
    pub fn new(program: &str, version: &str) -> Self {
        let mut registry = Registry::with_prefix(program.replace('-', "_"));
        let build = Info::new([("version".to_owned(), version.to_owned())].to_vec());
        registry.register("build", "The program that runs", build);
        Self { registry }
    }

    /// Where to register.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// All metrics as OpenMetrics text.
    ///
    /// # Errors
    /// A collector of the program failed.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// `GET /metrics`, to merge into the routes of the control socket.
    pub fn routes(self: Arc<Self>) -> Router {
        Router::new()
            .route(
                "/metrics",
                get(|State(metrics): State<Arc<Self>>| async move { metrics.answer() }),
            )
            .with_state(self)
    }

    fn answer(&self) -> Response {
        match self.encode() {
            Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
            Err(err) => {
                ApiError::internal(format!("cannot collect metrics: {err}")).into_response()
            }
        }
    }
}

/// An HTTP server on TCP that knows `/metrics` and nothing else.
#[derive(Debug)]
pub struct MetricsServer {
    listener: TcpListener,
    metrics: Arc<Metrics>,
}

impl MetricsServer {
    /// Listens on `listen`, which the operator sets as `metrics_listen`.
    ///
    /// # Errors
    /// The address is taken or not of this machine.
    pub async fn bind(listen: SocketAddr, metrics: Arc<Metrics>) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await.map_err(|err| {
            io::Error::new(err.kind(), format!("metrics_listen: cannot listen on {listen}: {err}"))
        })?;
        Ok(Self { listener, metrics })
    }

    /// The address in use, with the port that the system chose for port 0.
    ///
    /// # Errors
    /// The system cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves for ever; drop the future to stop.
    pub async fn run(self) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let (_running, stopped) = watch::channel(());
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(err) => {
                    tracing::warn!(%err, "cannot accept a metrics connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let metrics = self.metrics.clone();
            let stopped = stopped.clone();
            tokio::spawn(async move {
                let handle = |request| {
                    let response = http::last(scrape(&metrics, &request));
                    async { response }
                };
                let _ = timeout(SCRAPE_LIMIT, http::serve(stream, handle, stopped)).await;
                drop(place);
            });
        }
    }
}

fn scrape<B>(metrics: &Metrics, request: &axum::http::Request<B>) -> Response {
    match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET) => metrics.answer(),
        ("/metrics", _) => {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered").into_response()
        }
        _ => ApiError::not_found("only /metrics is served here").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    fn metrics() -> Arc<Metrics> {
        let mut metrics = Metrics::new("ipmi-mux", "1.2.3");
        let requests: Counter = Counter::default();
        metrics.registry().register("requests", "Requests of clients", requests.clone());
        requests.inc_by(7);
        Arc::new(metrics)
    }

    async fn exchange(to: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[test]
    fn the_text_has_prefix_version_and_end() {
        let text = metrics().encode().unwrap();
        assert!(text.contains("ipmi_mux_build_info{version=\"1.2.3\"} 1\n"), "{text}");
        assert!(text.contains("ipmi_mux_requests_total 7\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[tokio::test]
    async fn tcp_serves_metrics_alone_even_beside_stalled_peers() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = MetricsServer::bind(any, metrics()).await.unwrap();
        let to = server.local_addr().unwrap();
        let taken = MetricsServer::bind(to, metrics()).await.unwrap_err().to_string();
        assert!(taken.starts_with(&format!("metrics_listen: cannot listen on {to}")), "{taken}");
        tokio::spawn(server.run());

        let mut stalled = Vec::new();
        for _ in 0..CONNECTIONS - 1 {
            stalled.push(TcpStream::connect(to).await.unwrap());
        }
        let answer = exchange(to, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains(CONTENT_TYPE) && answer.ends_with("# EOF\n"), "{answer}");
        let answer = exchange(to, "GET /v1/status HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        let answer = exchange(to, "DELETE /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");

        stalled.push(TcpStream::connect(to).await.unwrap());
        assert_eq!(exchange(to, "").await, "", "one too many is turned away");
    }
}
