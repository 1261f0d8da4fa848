// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the NBD server asks of the manager.

use std::sync::{Arc, PoisonError, Weak};

use super::jobs::header;
use super::{Below, Manager, Open, in_full};
use crate::arbiter::{
    Access, BladeName, Claim, Grant, Mode, Outcome, OverlayRef, Request, SessionId, ShareName,
};
use crate::fence::{Fence, Fenced};
use crate::link::export_name::{ExportName, describe_grant};
use crate::nbd::negotiation::Refusal as NoExport;
use crate::overlay::Overlay;
use crate::serve::export::Export;
use crate::serve::exports::{self, Description, Opened, Peer};
use crate::source::Source;
use crate::source::file::FileSource;

/// What clients of this machine, which have no certificate, are in the rights of shares.
pub const LOCAL: &str = "local";

impl Manager {
    /// Who a peer is in the rights of shares.
    ///
    /// # Errors
    /// Its certificate's name is none of a blade.
    pub fn blade(peer: &Peer) -> Result<BladeName, String> {
        let name = match peer {
            Peer::Local => LOCAL,
            Peer::Certificate(name) => name,
        };
        name.parse().map_err(|error| format!("{error}"))
    }

    /// What a blade may have: names and descriptions.
    pub fn visible(&self, blade: &BladeName) -> Vec<(String, String)> {
        let may = self.shares.iter().filter(|(_, c)| self.right(c, blade).is_some());
        may.map(|(name, c)| (name.to_string(), c.description.clone())).collect()
    }

    fn right(&self, configured: &super::Configured, blade: &BladeName) -> Option<Access> {
        configured.share.rights.get(blade).copied().or(configured.share.others)
    }

    /// How a blade uses a share where it does not say.
    pub(super) fn usual(&self, share: &ShareName, blade: &BladeName) -> Access {
        let Some(configured) = self.shares.get(share) else { return Access::Read };
        match (configured.share.mode, self.right(configured, blade)) {
            (Mode::Exclusive | Mode::Private, Some(Access::Write)) => Access::Write,
            _ => Access::Read,
        }
    }

    /// Grants a share to a connection of a blade. Waits until that is decided and stored: for a thread that serves.
    ///
    /// # Errors
    /// Why not, with the remedy.
    pub fn attach(
        self: &Arc<Self>,
        blade: &BladeName,
        wanted: &ExportName,
    ) -> Result<(SessionId, Arc<Export>), String> {
        let share = wanted.share.clone();
        let access = wanted.access.unwrap_or_else(|| self.usual(&share, blade));
        let request = Request::Attach {
            share: share.clone(),
            blade: blade.clone(),
            access,
            claim: wanted.claim,
        };
        let grant = match self.runtime.block_on(self.request(request)) {
            Ok(Outcome::Granted(grant)) => grant,
            Ok(Outcome::Done(_)) => return Err("the share was not granted".to_owned()),
            Err(refusal) => return Err(refusal.to_string()),
        };
        let session = grant.session;
        let made = self.export(&share, blade, &grant);
        if let Err(reason) = &made {
            tracing::error!(%share, %blade, reason, "a share cannot be opened");
            // Who goes on keeps what it has; its source may be back soon.
            self.ended(session, matches!(wanted.claim, Claim::Any | Claim::New));
        }
        made.map(|export| (session, export))
    }

    /// A connection is over; `in_order` when the client said so or had not begun.
    pub fn ended(self: &Arc<Self>, session: SessionId, in_order: bool) {
        self.with(|inner, now| {
            if in_order {
                inner.arbiter.detached(now, session);
            } else {
                inner.arbiter.lost(session);
            }
            if !inner.arbiter.sessions().any(|(id, _)| id == session) {
                inner.exports.remove(&session);
            }
        });
    }

    /// Connections with the same grant have the same export.
    fn export(
        &self,
        share: &ShareName,
        blade: &BladeName,
        grant: &Grant,
    ) -> Result<Arc<Export>, String> {
        let _alone = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(export) = self.lock().exports.get(&grant.session).and_then(Weak::upgrade) {
            return Ok(export);
        }
        let (source, fence) = self.source(share, blade, grant)?;
        let source: Arc<dyn Source> = match grant.epoch {
            Some(epoch) => Arc::new(Fenced::new(source, fence, epoch)),
            None => source,
        };
        let description = describe_grant(grant.epoch, grant.generation);
        let export = Export::new(source, grant.access == Access::Write, &description);
        let export = Arc::new(export);
        self.lock().exports.insert(grant.session, Arc::downgrade(&export));
        Ok(export)
    }

    fn source(
        &self,
        share: &ShareName,
        blade: &BladeName,
        grant: &Grant,
    ) -> Result<(Arc<dyn Source>, Arc<Fence>), String> {
        let Some(id) = grant.overlay else {
            let source = self.share_source(share)?;
            let fence = self.fence(&(share.clone(), None), &source, grant);
            return Ok((source, fence));
        };
        let key = (share.clone(), Some(blade.clone()));
        let open = self.lock().open.get(&key).and_then(|open| open.source.upgrade());
        let source = match open {
            Some(source) => source,
            None => {
                let below = self.share_source(share)?;
                let (share, blade, generation) = (share.clone(), blade.clone(), grant.generation);
                let header = header(&OverlayRef { share, blade, id, generation }, below.size());
                let overlay = Overlay::open(&self.dir, &header, below);
                Arc::new(overlay.map_err(|error| in_full(&error))?)
            }
        };
        let fence = self.fence(&key, &source, grant);
        Ok((source, fence))
    }

    /// What lies below, if it is open.
    pub(super) fn open_source(&self, share: &ShareName) -> Option<Arc<dyn Source>> {
        self.lock().open.get(&(share.clone(), None)).and_then(|open| open.source.upgrade())
    }

    /// What lies below, open once for all.
    pub(super) fn share_source(&self, share: &ShareName) -> Result<Arc<dyn Source>, String> {
        let configured = self.shares.get(share).ok_or("the share is not configured any more")?;
        if let Some(source) = self.open_source(share) {
            return Ok(source);
        }
        let key = (share.clone(), None);
        let opened = configured.place.open(configured.share.is_writable, &self.cache);
        let source = opened.map_err(|error| in_full(&error))?;
        let mut inner = self.lock();
        let open = inner
            .open
            .entry(key)
            .or_insert_with(|| Open { source: Weak::<FileSource>::new(), fence: Fence::new(0) });
        if let Some(source) = open.source.upgrade() {
            // Another thread was quicker.
            return Ok(source);
        }
        open.source = Arc::downgrade(&source);
        Ok(source)
    }

    /// The fence before a source, which stays when it is closed and opened again.
    fn fence(&self, key: &Below, source: &Arc<dyn Source>, grant: &Grant) -> Arc<Fence> {
        let mut inner = self.lock();
        let open = inner.open.entry(key.clone()).or_insert_with(|| Open {
            source: Arc::downgrade(source),
            fence: Fence::new(grant.epoch.unwrap_or(0)),
        });
        open.source = Arc::downgrade(source);
        Arc::clone(&open.fence)
    }
}

/// The manager as the NBD server sees it.
#[derive(Debug)]
pub struct Managed(pub Arc<Manager>);

struct Session {
    manager: Arc<Manager>,
    id: SessionId,
}

impl exports::Grant for Session {
    fn ended(self: Box<Self>, in_order: bool) {
        self.manager.ended(self.id, in_order);
    }
}

impl Managed {
    fn wanted(peer: &Peer, name: &str) -> Result<(BladeName, ExportName), NoExport> {
        let blade = Manager::blade(peer).map_err(NoExport::Policy)?;
        Ok((blade, name.parse().map_err(|()| NoExport::Unknown)?))
    }
}

impl exports::Exports for Managed {
    fn names(&self, peer: &Peer) -> Vec<(String, String)> {
        Manager::blade(peer).map(|blade| self.0.visible(&blade)).unwrap_or_default()
    }

    fn describe(&self, peer: &Peer, name: &str) -> Result<Description, NoExport> {
        let (blade, wanted) = Self::wanted(peer, name)?;
        let configured = self.0.shares.get(&wanted.share).ok_or(NoExport::Unknown)?;
        if self.0.right(configured, &blade).is_none() {
            return Err(NoExport::Unknown);
        }
        let access = wanted.access.unwrap_or_else(|| self.0.usual(&wanted.share, &blade));
        let source = self.0.share_source(&wanted.share).map_err(|_| NoExport::Platform)?;
        let export = Export::new(source, access == Access::Write, &configured.description);
        Ok(Description::of(&export))
    }

    fn open(&self, peer: &Peer, name: &str) -> Result<Opened, NoExport> {
        let (blade, wanted) = Self::wanted(peer, name)?;
        match self.0.attach(&blade, &wanted) {
            Ok((id, export)) => {
                let manager = Arc::clone(&self.0);
                Ok(Opened { export, grant: Box::new(Session { manager, id }) })
            }
            Err(reason) => {
                tracing::warn!(%blade, share = %wanted.share, reason, "refused");
                Err(NoExport::Policy(reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::arbiter::Share;
    use crate::link::message::Kind;
    use crate::manager::Configured;
    use crate::source::cache::Cache;
    use crate::source::place::Place;

    #[test]
    fn connections_of_one_blade_that_come_at_once_have_one_overlay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        let (place, cache) = (Place::File(path), Cache::new(0));
        let (mode, others) = (Mode::Private, Some(Access::Write));
        let share =
            Share { mode, rights: BTreeMap::new(), others, is_writable: true, size: 1 << 20 };
        let (description, kind) = (String::new(), Kind::Disk);
        let shares =
            [("p".parse().unwrap(), Configured { share, place, description, kind })].into();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let state = folder.path().join("state");
        let manager = runtime.block_on(async { Manager::start(shares, state, cache) }).unwrap();
        for blade in 0..20 {
            let blade: BladeName = format!("b{blade}").parse().unwrap();
            let together = Barrier::new(8);
            let attach = || {
                together.wait();
                manager.attach(&blade, &"p@rw".parse().unwrap()).unwrap()
            };
            let granted: Vec<(SessionId, Arc<Export>)> = thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(attach)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(
                granted.iter().all(|(_, export)| Arc::ptr_eq(export, &granted[0].1)),
                "{blade}"
            );
        }
    }
}
