// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server asks about exports and those who want them, and the simplest answer to it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::export::Export;
use super::health::Health;
use crate::nbd::negotiation::Refusal;
use crate::source::cache::{Cache, DEFAULT_CACHE};
use crate::source::place::Place;

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Somebody on this machine, without a certificate.
    Local,
    /// Whoever has the certificate of this name, which the chassis' own authority has signed.
    Certificate(String),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Certificate(name) => f.write_str(name),
        }
    }
}

/// Decides what is served to whom. Asked by the threads of connections, at once by many.
pub trait Exports: Send + Sync {
    /// Names and descriptions of what a peer may have.
    fn names(&self, peer: &Peer) -> Vec<(String, String)>;

    /// Looks an export up, to describe it.
    ///
    /// # Errors
    /// It is not to be had.
    fn describe(&self, peer: &Peer, name: &str) -> Result<Description, Refusal>;

    /// Takes an export for one connection. Connections that were given the same `Arc` share a grant.
    ///
    /// # Errors
    /// It is not to be had.
    fn open(&self, peer: &Peer, name: &str) -> Result<Opened, Refusal>;
}

/// An export as clients are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Bytes.
    pub size: u64,
    /// Of [`crate::nbd::flags`].
    pub flags: u16,
    /// In words.
    pub text: String,
}

impl Description {
    /// That of an export.
    #[must_use]
    pub fn of(export: &Export) -> Self {
        let (size, text) = (export.source().size(), export.description().to_owned());
        Self { size, flags: export.flags(), text }
    }
}

/// What a connection was given.
pub struct Opened {
    /// To be served.
    pub export: Arc<Export>,
    /// To be told when the connection is over.
    pub grant: Box<dyn Grant>,
}

/// What is to be given back.
pub trait Grant: Send {
    /// The connection is over; `in_order` if the client said so, or was never told that it has the export.
    fn ended(self: Box<Self>, in_order: bool);
}

impl Grant for () {
    fn ended(self: Box<Self>, _in_order: bool) {}
}

/// A share of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Where its blocks are. It need not be there yet.
    pub place: Place,
    /// Whether clients may write.
    pub writable: bool,
    /// For people; may be empty.
    pub description: String,
    /// The certificates' names that may have it; all if there is none.
    pub allow: Vec<String>,
}

/// Shares that are served to anybody who may have them, without a lease. A file is open while it is in use.
#[derive(Debug)]
pub struct FixedShares {
    shares: BTreeMap<String, (Share, Mutex<Weak<Export>>)>,
    cache: Arc<Cache>,
}

impl FixedShares {
    /// Shares by name.
    #[must_use]
    pub fn new(shares: BTreeMap<String, Share>) -> Self {
        let shares = shares.into_iter().map(|(name, share)| (name, (share, Mutex::default())));
        Self { shares: shares.collect(), cache: Cache::new(DEFAULT_CACHE) }
    }

    fn visible<'a>(&'a self, peer: &'a Peer) -> impl Iterator<Item = (&'a String, &'a Share)> {
        self.shares.iter().map(|(name, (share, _))| (name, share)).filter(move |(_, share)| {
            match peer {
                Peer::Local => true,
                Peer::Certificate(name) => share.allow.is_empty() || share.allow.contains(name),
            }
        })
    }
}

impl Exports for FixedShares {
    fn names(&self, peer: &Peer) -> Vec<(String, String)> {
        let visible = self.visible(peer);
        visible.map(|(name, share)| (name.clone(), share.description.clone())).collect()
    }

    fn describe(&self, peer: &Peer, name: &str) -> Result<Description, Refusal> {
        Ok(Description::of(&self.open(peer, name)?.export))
    }

    fn open(&self, peer: &Peer, name: &str) -> Result<Opened, Refusal> {
        let mut visible = self.visible(peer);
        // Clients that name none mean the only one.
        let found = if name.is_empty() {
            visible.next().filter(|_| visible.next().is_none())
        } else {
            visible.find(|(visible, _)| *visible == name)
        };
        let (name, share) = found.ok_or(Refusal::Unknown)?;
        let slot = &self.shares[name].1;
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(export) = slot.upgrade() {
            return Ok(Opened { export, grant: Box::new(()) });
        }
        let source = share.place.open(share.writable, &self.cache).map_err(|error| {
            tracing::warn!(
                share = name,
                error = &error as &dyn std::error::Error,
                "cannot open a share"
            );
            Refusal::Platform
        })?;
        let export = Export::new(source, share.writable, &share.description);
        let export = Arc::new(export.with_health(Arc::new(Health::new(name))));
        *slot = Arc::downgrade(&export);
        Ok(Opened { export, grant: Box::new(()) })
    }
}
