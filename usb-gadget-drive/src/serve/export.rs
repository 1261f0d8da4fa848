// SPDX-License-Identifier: MIT OR Apache-2.0
//! A source as it is served to some clients, and the means to take it from them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::socket::Socket;
use crate::nbd::{ErrorCode, flags};
use crate::source::Source;

/// All is served.
const OPEN: u8 = 0;
/// Reads are.
const REVOKED: u8 = 1;
/// Nothing is.
const CUT: u8 = 2;

/// A source as it is served to those who were given this very export.
///
/// Whoever arbitrates makes one for each grant, and takes the grant back by [`Export::revoke`] and
/// [`Export::wait_idle`], after which no write of it can reach the source any more; then by [`Export::cut`].
pub struct Export {
    source: Arc<dyn Source>,
    writable: bool,
    description: String,
    level: AtomicU8,
    /// Changes of the source that are being made.
    changing: AtomicUsize,
    /// The sockets of its connections, by a number that is never used twice.
    connections: Mutex<Connections>,
    /// `changing` became 0 after a revocation, or a connection ended.
    quiet: Condvar,
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
            .field("level", &self.level)
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
            level: AtomicU8::new(OPEN),
            changing: AtomicUsize::new(0),
            connections: Mutex::default(),
            quiet: Condvar::new(),
        }
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
        match self.level.load(Ordering::Relaxed) {
            CUT => Err(ErrorCode::Shutdown),
            _ => Ok(()),
        }
    }

    /// Leave to make one change, or to flush, while the permit lives.
    ///
    /// # Errors
    /// `EPERM` of what is read-only or revoked, `ESHUTDOWN` once it is cut.
    pub fn permit(&self) -> Result<Permit<'_>, ErrorCode> {
        if !self.writable {
            return Err(ErrorCode::Perm);
        }
        // The order of these two against that in `revoke` and `wait_idle` decides: either this sees the revocation,
        // or the other sees the permit. Hence sequential consistency.
        self.changing.fetch_add(1, Ordering::SeqCst);
        let permit = Permit(self);
        match self.level.load(Ordering::SeqCst) {
            OPEN => Ok(permit),
            REVOKED => Err(ErrorCode::Perm),
            _ => Err(ErrorCode::Shutdown),
        }
    }

    /// No further change is permitted; reads go on. Never undone.
    pub fn revoke(&self) {
        self.level.fetch_max(REVOKED, Ordering::SeqCst);
    }

    /// Waits until no change is being made; false if that takes longer than `limit`. Useful after `revoke`.
    #[must_use]
    pub fn wait_idle(&self, limit: Duration) -> bool {
        self.wait(limit, |_| self.changing.load(Ordering::SeqCst) == 0)
    }

    /// Nothing further is served, and all connections are cut; their threads end by themselves. Never undone.
    pub fn cut(&self) {
        self.level.store(CUT, Ordering::SeqCst);
        self.lock().sockets.values().for_each(|socket| socket.cut());
    }

    /// Waits until no connection is left, and so nobody in the source; false if that takes longer than `limit`.
    #[must_use]
    pub fn wait_unused(&self, limit: Duration) -> bool {
        self.wait(limit, |connections| connections.sockets.is_empty())
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
        // Under the lock: `cut` goes through the connections after it has changed the level.
        self.check_read()?;
        connections.last += 1;
        let id = connections.last;
        connections.sockets.insert(id, Arc::clone(socket));
        Ok(Attached { export: Arc::clone(self), id })
    }

    fn wait(&self, limit: Duration, until: impl Fn(&Connections) -> bool) -> bool {
        let end = Instant::now() + limit;
        let mut connections = self.lock();
        while !until(&connections) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.quiet.wait_timeout(connections, left);
            connections = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leave to make one change.
#[derive(Debug)]
pub struct Permit<'a>(&'a Export);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let left = self.0.changing.fetch_sub(1, Ordering::SeqCst) - 1;
        if left == 0 && self.0.level.load(Ordering::SeqCst) != OPEN {
            // With the lock, so that it does not fall between a waiter's look and its sleep.
            let _connections = self.0.lock();
            self.0.quiet.notify_all();
        }
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
        self.export.quiet.notify_all();
    }
}

#[cfg(test)]
mod tests;
