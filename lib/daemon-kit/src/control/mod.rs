// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control socket: HTTP/JSON on a Unix socket, for the verbs of a program and for others.
//!
//! Anyone may connect; [`Policy`] decides by the credentials of the peer who may read and who may
//! change. A peer that stalls, floods or vanishes costs one place out of a fixed number, and
//! those who may do less cannot take the places of those who may do more.
//!
//! A handler is dropped when its peer goes away. What has to be finished once it is begun belongs
//! in the daemon's main loop, with the handler waiting for the outcome.

mod error;
mod peer;
mod stream;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use error::ApiError;
pub(crate) use error::ErrorBody;
pub use peer::{CHANGE_GROUP, Connection, Peer, Policy, READ_GROUP, Role};
pub use stream::{LineSender, Lines, NotSent, lines};

use crate::http;

/// Connections at once, 64 in all, shared out so that readers cannot keep out those who change.
const CHANGER_CONNECTIONS: usize = 40;
const READER_CONNECTIONS: usize = 16;
/// Connections that only hear why they are refused; each lives for one answer.
const REFUSED_CONNECTIONS: usize = 8;
/// Time for answers under way when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Pause after a failed accept, as when file descriptors run out, instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why the control socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A server answers on the socket.
    #[error("already running: another process answers on {}; stop it first", path.display())]
    AlreadyRunning {
        /// The socket.
        path: PathBuf,
    },
    /// Something else lies at the path.
    #[error("{} exists and is not a socket; remove it or choose another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error(
        "cannot make the socket {}: {source}; its directory must exist and be writable for this user",
        path.display()
    )]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A server on a Unix socket, mode 0666, which it removes when it ends.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    socket: SocketFile,
    router: Router,
    policy: Policy,
    places: Places,
}

impl ControlServer {
    /// Makes the socket at `path`, replacing one left by a dead server. Requests that `policy`
    /// admits go to `router`; its handlers can take [`Peer`] and [`Connection`].
    ///
    /// systemd runs a unit once, so two servers that start in the same moment are not kept apart.
    ///
    /// # Errors
    /// See [`BindError`].
    pub async fn bind(path: &Path, router: Router, policy: Policy) -> Result<Self, BindError> {
        remove_stale(path).await?;
        let io_error = |source| BindError::Io { path: path.to_owned(), source };
        let listener = UnixListener::bind(path).map_err(io_error)?;
        let socket = SocketFile::at(path).map_err(io_error)?;
        fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(io_error)?;
        Ok(Self { listener, socket, router, policy, places: Places::new() })
    }

    /// Serves until `stop`, then removes the socket and gives answers under way two seconds.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Self { listener, socket, router, policy, places } = self;
        let (running, stopped) = watch::channel(());
        let mut connections = JoinSet::new();
        let mut next_id = 0;
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let admitted = accepted.and_then(|(stream, _)| Ok((policy.admit(&stream)?, stream)));
            let (admission, stream) = match admitted {
                Ok(admitted) => admitted,
                Err(err) => {
                    tracing::warn!(%err, "cannot accept a control connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Without a place even to say no, the connection is dropped.
            if let Some((place, peer)) = places.take(admission) {
                next_id += 1;
                let router = router.clone();
                let stopped = stopped.clone();
                connections.spawn(serve(stream, next_id, peer, router, place, stopped));
            }
        }
        drop((listener, socket, running));
        let finish = async { while connections.join_next().await.is_some() {} };
        if timeout(STOP_GRACE, finish).await.is_err() {
            tracing::debug!("control connections were cut at the stop");
        }
    }
}

/// Serves one connection; `_place` is held until it ends.
async fn serve(
    stream: UnixStream,
    id: u64,
    peer: Result<Peer, ApiError>,
    router: Router,
    _place: OwnedSemaphorePermit,
    stopped: watch::Receiver<()>,
) {
    // Dropped with this function, which is what ends `Connection::closed`.
    let (_open, open) = watch::channel(());
    let connection = Connection { id, open };
    let handle = |request| answer(router.clone(), peer.clone(), connection.clone(), request);
    http::serve(stream, handle, stopped).await;
}

async fn answer(
    router: Router,
    peer: Result<Peer, ApiError>,
    connection: Connection,
    request: Request<Incoming>,
) -> Response {
    let peer = match peer {
        Ok(peer) if peer.role.allows(request.method()) => peer,
        Ok(peer) => return http::last(denied(peer.uid, "change").into_response()),
        Err(refusal) => return http::last(refusal.into_response()),
    };
    let mut request = match http::read_body(request).await {
        Ok(request) => request,
        Err(err) => return http::last(err.into_response()),
    };
    request.extensions_mut().insert(peer);
    request.extensions_mut().insert(connection);
    match TowerToHyperService::new(router).call(request).await {
        Ok(response) => http::with_json_error(response).await,
        Err(never) => match never {},
    }
}

fn denied(uid: u32, what: &str) -> ApiError {
    tracing::debug!(uid, what, "refused a control request");
    ApiError::forbidden(format!("user {uid} may not {what} anything here"))
        .with_remedy(format!("join group {READ_GROUP} to read or {CHANGE_GROUP} to change"))
}

/// The connections that may be open.
#[derive(Debug)]
struct Places {
    changers: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    refused: Arc<Semaphore>,
}

impl Places {
    fn new() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self {
            changers: places(CHANGER_CONNECTIONS),
            readers: places(READER_CONNECTIONS),
            refused: places(REFUSED_CONNECTIONS),
        }
    }

    /// A place for whom the policy admitted, or one to hear the refusal, if any is left. A uid
    /// stands for a peer that may do nothing.
    fn take(
        &self,
        admission: Result<Peer, u32>,
    ) -> Option<(OwnedSemaphorePermit, Result<Peer, ApiError>)> {
        let refusal = match admission {
            Ok(peer) => {
                let places = match peer.role {
                    Role::Changer => &self.changers,
                    Role::Reader => &self.readers,
                };
                if let Ok(place) = places.clone().try_acquire_owned() {
                    return Some((place, Ok(peer)));
                }
                ApiError::busy("too many control connections").with_remedy("try again later")
            }
            Err(uid) => denied(uid, "read"),
        };
        let place = self.refused.clone().try_acquire_owned().ok()?;
        Some((place, Err(refusal)))
    }
}

/// Removes a socket at `path` on which nobody listens.
async fn remove_stale(path: &Path) -> Result<(), BindError> {
    let io_error = |source| BindError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(BindError::NotASocket { path: path.to_owned() }),
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(io_error(err)),
    }
    match UnixStream::connect(path).await {
        Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(io_error)
        }
        // `WouldBlock`: a server that is stopped or stuck, with a full queue.
        Ok(_) => Err(BindError::AlreadyRunning { path: path.to_owned() }),
        Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
            Err(BindError::AlreadyRunning { path: path.to_owned() })
        }
        Err(err) => Err(io_error(err)),
    }
}

/// The socket in the file system, removed at the end unless another has taken its name.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: Self::identity(path)? })
    }

    fn identity(path: &Path) -> io::Result<(u64, u64)> {
        fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if Self::identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests;
