// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the NBD server asks of the manager.

use std::sync::{Arc, PoisonError, TryLockError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::jobs::header;
use super::{Manager, in_full};
use crate::arbiter::{
    Access, BladeName, Claim, Grant, Mode, Outcome, OverlayRef, Request, SessionId, ShareName,
};
use crate::fence::Fenced;
use crate::link::export_name::{ExportName, describe_grant};
use crate::nbd::negotiation::Refusal as NoExport;
use crate::overlay::Overlay;
use crate::serve::export::Export;
use crate::serve::exports::{self, Description, Opened, Peer};
use crate::source::Source;

/// How long a connection waits for the requests of the one before it. Its client waits for 3 s and then tries again.
const EARLIER_LIMIT: Duration = Duration::from_secs(2);
/// How long somebody who wants to know of a share waits for it to be opened.
pub(super) const SIZE_LIMIT: Duration = Duration::from_secs(2);
/// How long for one that somebody else is opening; opening takes a moment where nothing is wrong.
const GRACE: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(20);
/// Said of a share that is being opened while somebody asks for its size.
pub(super) const SLOW: &str = "its file or device does not answer: it is still being opened";

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

    pub(super) fn right(
        &self,
        configured: &super::Configured,
        blade: &BladeName,
    ) -> Option<Access> {
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
        if let Claim::Epoch(epoch) = wanted.claim {
            self.end_earlier(&share, blade, epoch)?;
        }
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

    /// Ends what a blade has open in an epoch, before it goes on in that: what it sent before must not come after what
    /// it sends from now on.
    fn end_earlier(&self, share: &ShareName, blade: &BladeName, epoch: u64) -> Result<(), String> {
        let wanted = (share, blade, Some(epoch));
        let earlier: Vec<(SessionId, usize, Option<Arc<Export>>)> = {
            let inner = self.lock();
            let sessions = inner.arbiter.sessions();
            let earlier = sessions.filter(|(_, s)| (&s.share, &s.blade, s.epoch) == wanted);
            let export = |id| inner.exports.get(&id).and_then(Weak::upgrade);
            earlier.map(|(id, s)| (id, s.connections, export(id))).collect()
        };
        let exports = || earlier.iter().filter_map(|(.., export)| export.as_ref());
        exports().for_each(|export| export.cut());
        if !exports().all(|export| export.wait_unused(EARLIER_LIMIT)) {
            return Err(format!(
                "BUSY: the device of share {share} has not yet done what blade {blade} asked for before; trying again"
            ));
        }
        let mut inner = self.lock();
        for (id, connections, _) in earlier {
            (0..connections).for_each(|_| inner.arbiter.lost(id));
            inner.exports.remove(&id);
        }
        Ok(())
    }

    /// Connections with the same grant have the same export.
    fn export(
        &self,
        share: &ShareName,
        blade: &BladeName,
        grant: &Grant,
    ) -> Result<Arc<Export>, String> {
        let key = (share.clone(), grant.overlay.map(|_| blade.clone()));
        let (opening, health) =
            self.below(&key, |open| (Arc::clone(&open.opening), Arc::clone(&open.health)));
        let _alone = opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(export) = self.lock().exports.get(&grant.session).and_then(Weak::upgrade) {
            return Ok(export);
        }
        let source = match grant.overlay {
            None => self.share_source_alone(share)?,
            Some(id) => self.overlay_source_alone(share, blade, id, grant.generation)?,
        };
        let source: Arc<dyn Source> = match grant.epoch {
            Some(epoch) => {
                let fence = self.below(&key, |open| Arc::clone(&open.fence));
                Arc::new(Fenced::new(source, fence, epoch))
            }
            None => source,
        };
        let description = describe_grant(grant.epoch, grant.generation);
        let export = Export::new(source, grant.access == Access::Write, &description);
        let export = Arc::new(export.with_health(health));
        self.lock().exports.insert(grant.session, Arc::downgrade(&export));
        Ok(export)
    }

    /// A blade's overlay, open once. The caller holds its `opening`.
    fn overlay_source_alone(
        &self,
        share: &ShareName,
        blade: &BladeName,
        id: u64,
        generation: u64,
    ) -> Result<Arc<dyn Source>, String> {
        let key = (share.clone(), Some(blade.clone()));
        if let Some(source) = self.below(&key, |open| open.source.upgrade()) {
            return Ok(source);
        }
        let below = self.share_source(share)?;
        let (share, blade) = (share.clone(), blade.clone());
        let header = header(&OverlayRef { share, blade, id, generation }, below.size());
        let overlay = Overlay::open(&self.dir, &header, below).map_err(|error| in_full(&error))?;
        let source: Arc<dyn Source> = Arc::new(overlay);
        self.below(&key, |open| open.source = Arc::downgrade(&source));
        Ok(source)
    }

    /// What lies below, open once for all.
    pub(super) fn share_source(&self, share: &ShareName) -> Result<Arc<dyn Source>, String> {
        let opening = self.below(&(share.clone(), None), |open| Arc::clone(&open.opening));
        let _alone = opening.lock().unwrap_or_else(PoisonError::into_inner);
        self.share_source_alone(share)
    }

    /// The same for who holds its `opening`.
    fn share_source_alone(&self, share: &ShareName) -> Result<Arc<dyn Source>, String> {
        let configured = self.shares.get(share).ok_or("the share is not configured any more")?;
        let key = (share.clone(), None);
        if let Some(source) = self.below(&key, |open| open.source.upgrade()) {
            return Ok(source);
        }
        let opened = configured.place.open(configured.share.is_writable, &self.cache);
        let source = opened.map_err(|error| in_full(&error))?;
        self.below(&key, |open| open.source = Arc::downgrade(&source));
        Ok(source)
    }

    /// Its bytes, or why it cannot be opened; does not wait for long where somebody else waits for its device already.
    pub(super) fn size(&self, share: &ShareName) -> Result<u64, String> {
        self.look_at(share).map(|(size, _)| size)
    }

    /// The same, and what is wrong with it at present.
    ///
    /// # Errors
    /// As for `size`.
    pub(super) fn look_at(&self, share: &ShareName) -> Result<(u64, Option<String>), String> {
        let opening = self.below(&(share.clone(), None), |open| Arc::clone(&open.opening));
        let end = Instant::now() + GRACE;
        let alone = loop {
            match opening.try_lock() {
                Ok(alone) => break alone,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(AGAIN),
                Err(TryLockError::WouldBlock) => return Err(SLOW.to_owned()),
            }
        };
        let found = self.share_source_alone(share).map(|source| (source.size(), source.trouble()));
        drop(alone);
        found
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
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::sync::Barrier;

    use super::*;
    use crate::arbiter::Share;
    use crate::link::export_name::claim_of;
    use crate::link::message::Kind;
    use crate::manager::Configured;
    use crate::serve::socket::Socket;
    use crate::source::cache::Cache;
    use crate::source::place::Place;

    pub struct World {
        pub manager: Arc<Manager>,
        pub runtime: tokio::runtime::Runtime,
        _folder: tempfile::TempDir,
    }

    /// With a private share `p` and an exclusive one `x`, both of 1 MiB.
    pub fn world() -> World {
        let folder = tempfile::tempdir().unwrap();
        let others = Some(Access::Write);
        let configured = |(name, mode): (&str, Mode)| {
            let path = folder.path().join(name);
            std::fs::write(&path, vec![0; 1 << 20]).unwrap();
            let place = Place::File(path);
            let (rights, is_writable, size) = (BTreeMap::new(), true, 1 << 20);
            let share = Share { mode, rights, others, is_writable, size };
            let (description, kind) = (String::new(), Kind::Disk);
            (name.parse().unwrap(), Configured { share, place, description, kind })
        };
        let shares = [("p", Mode::Private), ("x", Mode::Exclusive)].map(configured).into();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let state = folder.path().join("state");
        let manager =
            runtime.block_on(async { Manager::start(shares, state, Cache::new(0)) }).unwrap();
        World { manager, runtime, _folder: folder }
    }

    #[test]
    fn who_goes_on_in_an_epoch_has_nothing_left_on_its_way() {
        let World { manager, .. } = &world();
        let blade: BladeName = "b".parse().unwrap();
        for share in ["p", "x"] {
            let name = |claim| ExportName {
                share: share.parse().unwrap(),
                access: Some(Access::Write),
                claim,
            };
            let (_, first) = manager.attach(&blade, &name(Claim::New)).unwrap();
            let epoch = claim_of(first.description()).unwrap();
            let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let socket = Arc::new(Socket::new(ours.into()).unwrap());
            let busy = first.attach(&socket).unwrap();
            let error = manager.attach(&blade, &name(epoch)).unwrap_err();
            assert!(error.starts_with("BUSY"), "{error}");
            drop(busy);
            let (_, second) = manager.attach(&blade, &name(epoch)).unwrap();
            assert_eq!(claim_of(second.description()), Some(epoch), "the epoch is as it was");
            assert!(first.check_write().is_err() && second.check_write().is_ok());
        }
    }

    #[test]
    fn a_share_that_is_being_opened_keeps_no_other() {
        let World { manager, .. } = &world();
        let [slow, other]: [ShareName; 2] = ["x", "p"].map(|name| name.parse().unwrap());
        let opening = manager.below(&(slow.clone(), None), |open| Arc::clone(&open.opening));
        let held = opening.lock().unwrap();
        assert_eq!(manager.size(&other), Ok(1 << 20));
        assert_eq!(manager.size(&slow), Err(SLOW.to_owned()));
        assert!(manager.attach(&"b".parse().unwrap(), &"p@rw".parse().unwrap()).is_ok());
        drop(held);
        assert_eq!(manager.size(&slow), Ok(1 << 20));
    }

    #[test]
    fn connections_of_one_blade_that_come_at_once_have_one_overlay() {
        let World { manager, .. } = &world();
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
