// SPDX-License-Identifier: MIT OR Apache-2.0
//! The work that the arbiter orders.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::presented::Presented;
use super::{Below, Copied, Manager, in_full};
use crate::arbiter::{BladeName, Job, OverlayRef, SessionId, ShareName};
use crate::link::message::{Claim, Order};
use crate::overlay::{self, Overlay};
use crate::serve::export::Export;

/// Requests that are on their way when a writer is cut may take this long: a disk's own time-out.
const CUT_LIMIT: Duration = Duration::from_secs(60);

impl Manager {
    pub(super) async fn perform(self: &Arc<Self>, job: Job) -> Result<(), String> {
        match job {
            Job::Eject { share, blade, forced } => {
                let order = Order::Eject { share: share.clone(), forced };
                self.order(&blade, order).await.map_err(|error| error.to_string())?;
                self.present(&blade, &share, None).await.map_err(|error| in_full(&error))
            }
            Job::Insert { share, blade, epoch } => self.insert_again(share, blade, epoch).await,
            Job::Cut { share, overlay, epoch, sessions } => {
                self.in_thread(move |manager| manager.cut((share, overlay), epoch, &sessions)).await
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

    fn cut(&self, below: Below, epoch: Option<u64>, sessions: &[SessionId]) -> Result<(), String> {
        let (exports, fence): (Vec<Arc<Export>>, _) = {
            let mut inner = self.lock();
            let exports = sessions.iter().filter_map(|id| inner.exports.remove(id)?.upgrade());
            (exports.collect(), inner.open.get(&below).map(|open| Arc::clone(&open.fence)))
        };
        for export in &exports {
            export.revoke();
        }
        if let (Some(fence), Some(epoch)) = (fence, epoch) {
            fence.cut(epoch);
        }
        for export in exports {
            let idle = export.wait_idle(CUT_LIMIT);
            export.cut();
            if !idle || !export.wait_unused(CUT_LIMIT) {
                return Err("a device does not finish what it was asked for".to_owned());
            }
        }
        Ok(())
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
