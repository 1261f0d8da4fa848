// SPDX-License-Identifier: MIT OR Apache-2.0
//! The work that the arbiter orders.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::presented::Presented;
use super::{Below, Copied, Manager, in_full};
use crate::arbiter::{BladeName, Job, OverlayRef, SessionId, ShareName};
use crate::link::message::{Claim, Order};
use crate::overlay::{self, Overlay};
use crate::serve::export::Export;

impl Manager {
    pub(super) async fn perform(self: &Arc<Self>, job: Job) -> Result<(), String> {
        match job {
            Job::Eject { share, blade, forced } => {
                let order = Order::Eject { share: share.clone(), forced };
                if forced {
                    // First, so that an agent that is out of reach does not get it again when it is back.
                    self.let_go(&blade, &share).await?;
                    return self.order(&blade, order).await.map_err(|error| error.to_string());
                }
                self.order(&blade, order).await.map_err(|error| error.to_string())?;
                self.let_go(&blade, &share).await
            }
            Job::Insert { share, blade, epoch } => self.insert_again(share, blade, epoch).await,
            Job::Cut { share, overlay, epoch, sessions } => {
                let below = (share, overlay);
                self.in_thread(move |manager| manager.cut(&below, epoch, &sessions)).await;
                Ok(())
            }
            Job::Flush { share, overlay } => {
                self.in_thread(move |manager| manager.flush(&(share, overlay))).await
            }
            Job::Make(which) => self.in_thread(move |manager| manager.make(&which)).await,
            Job::Commit(which) => {
                let committed = self.in_thread(move |manager| manager.commit(&which)).await;
                if self.is_ending.load(Ordering::Relaxed) {
                    return pending().await;
                }
                committed
            }
            Job::Remove(which) => {
                self.in_thread(move |manager| {
                    let removed = overlay::remove(&manager.dir, &which.share, &which.blade);
                    removed.map_err(|error| in_full(&error))
                })
                .await
            }
        }
    }

    async fn let_go(self: &Arc<Self>, blade: &BladeName, share: &ShareName) -> Result<(), String> {
        self.present(blade, share, None).await.map_err(|error| in_full(&error))
    }

    /// Has a thread do what waits for devices.
    pub(super) async fn in_thread<R: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Self>) -> R + Send + 'static,
    ) -> R {
        let manager = Arc::clone(self);
        let done = self.runtime.spawn_blocking(move || work(&manager)).await;
        done.expect("it neither panics nor is aborted")
    }

    async fn insert_again(
        self: &Arc<Self>,
        share: ShareName,
        blade: BladeName,
        epoch: u64,
    ) -> Result<(), String> {
        let configured = self.shares.get(&share).ok_or("the share is not configured any more")?;
        let before = self.lock().presented.get(&blade, &share);
        let kind = before.map_or(configured.kind, |presented| presented.kind);
        let claim = Claim::Epoch(epoch);
        let order = Order::Insert { share: share.clone(), kind, writable: true, claim, lun: None };
        self.order(&blade, order).await.map_err(|error| error.to_string())?;
        let how = Presented { kind, writable: true };
        self.present(&blade, &share, Some(how)).await.map_err(|error| in_full(&error))
    }

    /// Remembers that a blade is to have a share, or not.
    pub(super) async fn present(
        self: &Arc<Self>,
        blade: &BladeName,
        share: &ShareName,
        how: Option<Presented>,
    ) -> std::io::Result<()> {
        let (blade, share) = (blade.clone(), share.clone());
        self.in_thread(move |manager| {
            let mut inner = manager.lock();
            if inner.presented.get(&blade, &share) == how {
                return Ok(());
            }
            let mut table = inner.presented.clone();
            match how {
                Some(how) => table.set(&blade, &share, how),
                None => table.unset(&blade, &share),
            }
            // Under the lock, so that of two the later is on the disk. It is small, and changes when a person asks.
            table.store(&manager.dir)?;
            inner.presented = table;
            Ok(())
        })
        .await
    }

    fn cut(&self, below: &Below, epoch: Option<u64>, sessions: &[SessionId]) {
        let (exports, fence): (Vec<Arc<Export>>, _) = {
            let mut inner = self.lock();
            let exports = sessions.iter().filter_map(|id| inner.exports.remove(id)?.upgrade());
            (exports.collect(), inner.open.get(below).map(|open| Arc::clone(&open.fence)))
        };
        exports.iter().for_each(|export| export.cut());
        if let (Some(fence), Some(epoch)) = (fence, epoch) {
            fence.cut(epoch);
        }
    }

    fn flush(&self, below: &Below) -> Result<(), String> {
        let open = self.lock().open.get(below).and_then(|open| open.source.upgrade());
        // What nobody has open was synced when it was closed.
        open.map_or(Ok(()), |source| source.flush().map_err(|error| error.to_string()))
    }

    fn make(&self, which: &OverlayRef) -> Result<(), String> {
        let size = self.share_source(&which.share)?.size();
        let header = header(which, size);
        overlay::create(&self.dir, &header).map_err(|error| in_full(&error))
    }

    fn commit(&self, which: &OverlayRef) -> Result<(), String> {
        let below = self.share_source(&which.share)?;
        let header = header(which, below.size());
        let overlay = Overlay::open(&self.dir, &header, Arc::clone(&below));
        let overlay = overlay.map_err(|error| in_full(&error))?;
        let key = (which.share.clone(), which.blade.clone());
        let copied = overlay.commit(&*below, &mut |done, total| {
            self.lock().copied.insert(key.clone(), Copied { done, total });
            !self.is_ending.load(Ordering::Relaxed)
        });
        self.lock().copied.remove(&key);
        copied.map_err(|error| error.to_string())
    }
}

pub(super) fn header(which: &OverlayRef, size: u64) -> overlay::format::Header {
    let OverlayRef { share, blade, id, generation } = which.clone();
    overlay::format::Header { share, blade, id, generation, size }
}

#[cfg(test)]
mod tests {
    use super::super::exports::tests::world;
    use super::*;
    use crate::link::message::Kind;

    #[test]
    fn a_blade_out_of_reach_does_not_keep_what_is_taken_by_force() {
        let world = world();
        let (blade, share): (BladeName, ShareName) = ("b".parse().unwrap(), "x".parse().unwrap());
        let how = Presented { kind: Kind::Disk, writable: true };
        world.runtime.block_on(world.manager.present(&blade, &share, Some(how))).unwrap();
        for (forced, has) in [(false, Some(how)), (true, None)] {
            let what = Job::Eject { share: share.clone(), blade: blade.clone(), forced };
            let error = world.runtime.block_on(world.manager.perform(what)).unwrap_err();
            assert!(error.contains("not connected"), "{error}");
            assert_eq!(world.manager.lock().presented.get(&blade, &share), has, "{forced}");
        }
    }
}
