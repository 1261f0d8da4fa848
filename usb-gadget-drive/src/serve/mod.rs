// SPDX-License-Identifier: MIT OR Apache-2.0
//! The management module's end: an NBD server.
//!
//! One thread per listener and per connection, and up to [`workers::MAX_WORKERS`] more for each connection while its
//! requests have to wait for a device. [`exports`] is what decides who gets what, [`export`] what is got and how it
//! is taken away; `connection` negotiates and `transmission` serves.

use std::collections::BTreeMap;
use std::io::{self, PipeReader, PipeWriter};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::ioctl_fionbio;
use rustix::net::{SocketFlags, accept_with, getsockname};
use rustls::ServerConfig;

use exports::Exports;
use socket::Socket;

use crate::seldom::Seldom;

mod connection;
pub mod export;
pub mod exports;
pub mod health;
mod input;
mod job;
mod link;
mod output;
pub(crate) mod socket;
pub mod tls;
mod transmission;
pub mod workers;

/// Connections of all clients together. 31 blades with ten drives on four connections each would be 1240, but blades
/// use one for a drive.
pub const MAX_CONNECTIONS: usize = 1024;
/// Those of them that have not chosen an export yet. Strangers cannot take the place of blades.
pub const MAX_NEGOTIATING: usize = 128;
/// Of a connection's thread.
const STACK: usize = 512 << 10;
/// After a failed `accept`, which is for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no listening.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// In clear, only this machine is served.
    #[error(
        "{0} can be reached from other machines, which takes TLS: give --tls DIR, or listen on a loopback address"
    )]
    NotLoopback(SocketAddr),
    /// The socket is no good.
    #[error("cannot listen")]
    Socket(#[from] io::Error),
}

/// Serves what an [`Exports`] has, on any number of sockets.
pub struct Server {
    exports: Arc<dyn Exports>,
    tls: Option<Arc<ServerConfig>>,
    state: Mutex<State>,
    /// A connection has ended.
    ended: Condvar,
    complaints: Seldom,
}

#[derive(Default)]
struct State {
    last: u64,
    sockets: BTreeMap<u64, Arc<Socket>>,
    negotiating: usize,
    /// Closed to have the threads that accept end. A listening socket may be systemd's too, which is not to be shut.
    listening: Vec<PipeWriter>,
    ending: bool,
}

impl Server {
    /// Serves `exports`; with `tls` also to other machines.
    #[must_use]
    pub fn new(exports: Arc<dyn Exports>, tls: Option<Arc<ServerConfig>>) -> Arc<Self> {
        let (state, ended, complaints) = (Mutex::default(), Condvar::new(), Seldom::default());
        Arc::new(Self { exports, tls, state, ended, complaints })
    }

    /// Listens on TCP; says at which address, for port 0 is any.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn listen_tcp(self: &Arc<Self>, address: SocketAddr) -> Result<SocketAddr, ListenError> {
        let listener = TcpListener::bind(address)?;
        let bound = listener.local_addr()?;
        self.listen(listener.into())?;
        Ok(bound)
    }

    /// Accepts connections on a listening stream socket of any family.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn listen(self: &Arc<Self>, listener: OwnedFd) -> Result<(), ListenError> {
        if let Ok(address) = SocketAddr::try_from(getsockname(&listener).map_err(io::Error::from)?)
            && !address.ip().to_canonical().is_loopback()
            && self.tls.is_none()
        {
            return Err(ListenError::NotLoopback(address));
        }
        // A client that is gone before it is accepted would leave the thread waiting for another.
        ioctl_fionbio(&listener, true).map_err(io::Error::from)?;
        let (ended, listening) = io::pipe()?;
        self.lock().listening.push(listening);
        let server = Arc::clone(self);
        let thread = thread::Builder::new().name("nbd-accept".to_owned()).stack_size(STACK);
        thread.spawn(move || server.accept(&listener, &ended))?;
        Ok(())
    }

    /// Listens on a Unix socket, whose file is made anew.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn listen_unix(self: &Arc<Self>, path: &std::path::Path) -> Result<(), ListenError> {
        // What a killed server left. A living one that it belongs to is found out by connecting.
        if std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        {
            std::fs::remove_file(path)?;
        }
        self.listen(UnixListener::bind(path)?.into())
    }

    /// Serves one connection in this thread.
    ///
    /// # Errors
    /// It is no socket.
    pub fn serve_one(&self, socket: OwnedFd) -> io::Result<()> {
        let socket = Arc::new(Socket::new(socket)?);
        if let Some(place) = self.place(&socket) {
            connection::run(self, place, &socket);
        }
        Ok(())
    }

    /// Connections that there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lock().sockets.len()
    }

    /// Takes no further connection and cuts those that there are; waits until what they asked for is done. False if
    /// that takes longer than `limit`.
    #[must_use]
    pub fn shut_down(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        state.ending = true;
        state.listening.clear();
        state.sockets.values().for_each(|socket| socket.cut());
        while !state.sockets.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.ended.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn accept(self: &Arc<Self>, listener: &OwnedFd, ended: &PipeReader) {
        loop {
            let mut either =
                [PollFd::new(listener, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
            let _ = poll(&mut either, None);
            if self.lock().ending {
                return;
            }
            let accepted = accept_with(listener, SocketFlags::CLOEXEC);
            match accepted.map_err(io::Error::from).and_then(|socket| self.begin(socket)) {
                Ok(()) => {}
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    /// Serves a connected stream socket in a thread of its own, as if it had been accepted.
    ///
    /// # Errors
    /// It is no socket, or there is no thread for it.
    pub fn begin(self: &Arc<Self>, socket: OwnedFd) -> io::Result<()> {
        let thread = thread::Builder::new().name("nbd-client".to_owned()).stack_size(STACK);
        self.begin_by(socket, |serve| thread.spawn(serve).map(drop))
    }

    fn begin_by(
        self: &Arc<Self>,
        socket: OwnedFd,
        spawn: impl FnOnce(Box<dyn FnOnce() + Send>) -> io::Result<()>,
    ) -> io::Result<()> {
        let socket = Arc::new(Socket::new(socket)?);
        let Some(place) = self.place(&socket) else {
            tracing::warn!(limit = MAX_CONNECTIONS, "too many connections: one is turned away");
            return Ok(());
        };
        let server = Arc::clone(self);
        let spawned = spawn(Box::new(move || connection::run(&server, place, &socket)));
        if spawned.is_err() {
            // Nobody else will: `shut_down` would wait for it.
            self.negotiated();
            self.leave(place);
        }
        spawned
    }

    /// Counts a connection in; none if there are too many.
    fn place(&self, socket: &Arc<Socket>) -> Option<u64> {
        let mut state = self.lock();
        let full = state.sockets.len() >= MAX_CONNECTIONS || state.negotiating >= MAX_NEGOTIATING;
        if full || state.ending {
            return None;
        }
        state.negotiating += 1;
        state.last += 1;
        let place = state.last;
        state.sockets.insert(place, Arc::clone(socket));
        Some(place)
    }

    /// Its negotiation is over, well or badly.
    fn negotiated(&self) {
        self.lock().negotiating -= 1;
    }

    fn leave(&self, place: u64) {
        self.lock().sockets.remove(&place);
        self.ended.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `accept` failed for the one peer that was to be taken.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::NotConnected
            | Kind::Interrupted
            | Kind::WouldBlock
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::exports::FixedShares;
    use super::*;

    #[test]
    fn a_connection_without_a_thread_leaves_its_place() {
        let server = Server::new(Arc::new(FixedShares::new(BTreeMap::new())), None);
        for _ in 0..=MAX_NEGOTIATING {
            let socket = UnixStream::pair().unwrap().0.into();
            let error = server.begin_by(socket, |_| Err(io::ErrorKind::WouldBlock.into()));
            assert!(error.is_err(), "it has a place each time");
        }
        assert_eq!(server.connections(), 0);
        assert!(server.shut_down(Duration::ZERO), "nobody is waited for");
    }
}
