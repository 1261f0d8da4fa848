// SPDX-License-Identifier: MIT OR Apache-2.0
//! HTTP on TCP that can be read and not changed: for those who reach the port, whoever they are.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::control::ApiError;
use crate::http;

/// Connections at once.
const CONNECTIONS: usize = 32;
/// Time for one connection, so that those which are half open end.
const LIMIT: Duration = Duration::from_secs(30);
/// Pause after a failed accept instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A server for `GET` and `HEAD`.
#[derive(Debug)]
pub struct ReadServer {
    listener: TcpListener,
    router: Router,
}

impl ReadServer {
    /// Listens; `key` is what the operator sets the address with.
    ///
    /// # Errors
    /// The address is taken or not of this machine.
    pub async fn bind(listen: SocketAddr, key: &str, router: Router) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await.map_err(|err| {
            io::Error::new(err.kind(), format!("{key}: cannot listen on {listen}: {err}"))
        })?;
        Ok(Self { listener, router })
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
                    tracing::warn!(%err, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let (router, stopped) = (self.router.clone(), stopped.clone());
            tokio::spawn(async move {
                let handle = |request| answer(router.clone(), request);
                let _ = timeout(LIMIT, http::serve(stream, handle, stopped)).await;
                drop(place);
            });
        }
    }
}

async fn answer(router: Router, request: Request<Incoming>) -> Response {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let refusal = ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
        return http::last(refusal.into_response());
    }
    match TowerToHyperService::new(router).call(request).await {
        Ok(response) => http::with_json_error(response).await,
        Err(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn exchange(to: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_can_be_read_and_not_changed() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let router = Router::new().route("/a", get(|| async { "b" }).post(|| async { "c" }));
        let server = ReadServer::bind(any, "listen", router).await.unwrap();
        let to = server.local_addr().unwrap();
        tokio::spawn(server.run());
        let end = "HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let answer = exchange(to, &format!("GET /a {end}")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with('b'), "{answer}");
        let answer = exchange(to, &format!("POST /a {end}")).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        let answer = exchange(to, &format!("GET /b {end}")).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
}
