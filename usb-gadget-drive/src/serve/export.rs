// SPDX-License-Identifier: MIT OR Apache-2.0
//! A source as it is served to some clients, and the means to take it from them.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::health::Health;
use super::socket::Socket;
use crate::nbd::{ErrorCode, flags};
use crate::source::Source;

/// A source as it is served to those who were given this very export.
///
/// Whoever arbitrates makes one for each grant, and takes the grant back by [`Export::cut`]. After
/// [`Export::wait_unused`] nothing of it can reach the source any more.
pub struct Export {
    source: Arc<dyn Source>,
    writable: bool,
    description: String,
    health: Arc<Health>,
    is_cut: AtomicBool,
    /// The sockets of its connections, by a number that is never used twice.
    connections: Mutex<Connections>,
    /// A connection ended.
    ended: Condvar,
}

#[derive(Default)]
struct Connections {
    last: u64,
    sockets: BTreeMap<u64, Arc<Socket>>,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("size", &self.source.size())
            .field("writable", &self.writable)
            .field("is_cut", &self.is_cut)
            .finish_non_exhaustive()
    }
}

impl Export {
    /// Serves `source`; it is written only if both it and `writable` say so.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, writable: bool, description: &str) -> Self {
        let writable = writable && source.abilities().write;
        Self {
            source,
            writable,
            description: description.to_owned(),
            health: Arc::new(Health::new("source")),
            is_cut: AtomicBool::new(false),
            connections: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    /// Tells of failures there.
    #[must_use]
    pub fn with_health(mut self, health: Arc<Health>) -> Self {
        self.health = health;
        self
    }

    /// The error of the source as clients are told of it; people are told more.
    #[must_use]
    pub fn failed(&self, what: &str, error: &io::Error) -> ErrorCode {
        // Neither is the device's fault: a writer whose time is over, and zeroing that would not be fast.
        if !matches!(Errno::from_io_error(error), Some(Errno::PERM | Errno::OPNOTSUPP)) {
            self.health.failed(what, error);
        }
        ErrorCode::from(error)
    }

    /// What is served.
    #[must_use]
    pub fn source(&self) -> &dyn Source {
        &*self.source
    }

    /// Whether clients may write, as they were told.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// For people.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// What clients are told ([`flags`]). All connections share the source, so a flush on one covers all.
    #[must_use]
    pub fn flags(&self) -> u16 {
        let abilities = self.source.abilities();
        let given = |yes: bool, flag: u16| if yes { flag } else { 0 };
        flags::HAS_FLAGS
            | flags::SEND_FLUSH
            | flags::SEND_FUA
            | flags::CAN_MULTI_CONN
            | given(!self.writable, flags::READ_ONLY)
            | given(self.writable, flags::SEND_WRITE_ZEROES)
            | given(self.writable && abilities.trim, flags::SEND_TRIM)
            | given(self.writable && abilities.fast_zero, flags::SEND_FAST_ZERO)
    }

    /// Leave to read.
    ///
    /// # Errors
    /// `ESHUTDOWN` once it is cut.
    pub fn check_read(&self) -> Result<(), ErrorCode> {
        if self.is_cut.load(Ordering::Relaxed) { Err(ErrorCode::Shutdown) } else { Ok(()) }
    }

    /// Leave to make a change.
    ///
    /// # Errors
    /// `EPERM` of what is read-only, `ESHUTDOWN` once it is cut.
    pub fn check_write(&self) -> Result<(), ErrorCode> {
        if !self.writable {
            return Err(ErrorCode::Perm);
        }
        self.check_read()
    }

    /// Nothing further is served, and all connections are cut; their threads end by themselves. Never undone.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
        self.lock().sockets.values().for_each(|socket| socket.cut());
    }

    /// Waits until no connection is left, and so nobody in the source; false if that takes longer than `limit`.
    #[must_use]
    pub fn wait_unused(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        let mut connections = self.lock();
        while !connections.sockets.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.ended.wait_timeout(connections, left);
            connections = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Connections that use it.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lock().sockets.len()
    }

    /// Counts a connection in, until the answer is dropped.
    ///
    /// # Errors
    /// `ESHUTDOWN` once it is cut.
    pub fn attach(self: &Arc<Self>, socket: &Arc<Socket>) -> Result<Attached, ErrorCode> {
        let mut connections = self.lock();
        // Under the lock: `cut` goes through the connections after it has said that it is.
        self.check_read()?;
        connections.last += 1;
        let id = connections.last;
        connections.sockets.insert(id, Arc::clone(socket));
        Ok(Attached { export: Arc::clone(self), id })
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's use of an export.
#[derive(Debug)]
pub struct Attached {
    export: Arc<Export>,
    id: u64,
}

impl Attached {
    /// What is used.
    #[must_use]
    pub fn export(&self) -> &Arc<Export> {
        &self.export
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.export.lock().sockets.remove(&self.id);
        self.export.ended.notify_all();
    }
}

#[cfg(test)]
mod tests;
