// SPDX-License-Identifier: MIT OR Apache-2.0
//! A source that lets through only the epochs which are still good.
//!
//! One [`Fence`] stands before each thing that has one writer: an exclusive share, or an overlay. All sessions of its
//! writers go through a [`Fenced`] of their own epoch. The arbiter's [`Cut`](crate::arbiter::Job::Cut) raises the
//! fence: that waits for the requests on their way, since these would still reach the disk, and refuses all later
//! ones for ever, whatever connection they come by, also one that was lost before and that nobody counts any more.

use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use rustix::io::Errno;

use crate::source::{Abilities, Extent, Source, Zeroing};

/// Which epochs are let through.
#[derive(Debug, Default)]
pub struct Fence {
    /// The lowest that is.
    lowest: RwLock<u64>,
}

impl Fence {
    /// One that lets through `epoch` and later ones.
    #[must_use]
    pub fn new(epoch: u64) -> Arc<Self> {
        Arc::new(Self { lowest: RwLock::new(epoch) })
    }

    /// Refuses `epoch` and all before it from now on, after it has waited for requests on their way. It may wait as
    /// long as the device behind does.
    pub fn cut(&self, epoch: u64) {
        let mut lowest = self.lowest.write().unwrap_or_else(PoisonError::into_inner);
        *lowest = (*lowest).max(epoch.saturating_add(1));
    }

    /// Lets a request of this epoch through while the guard lives.
    fn pass(&self, epoch: u64) -> io::Result<RwLockReadGuard<'_, u64>> {
        let lowest = self.lowest.read().unwrap_or_else(PoisonError::into_inner);
        if epoch < *lowest {
            return Err(Errno::PERM.into());
        }
        Ok(lowest)
    }
}

/// A source as the writer of one epoch has it. What comes late gets `EPERM`.
pub struct Fenced {
    source: Arc<dyn Source>,
    fence: Arc<Fence>,
    epoch: u64,
}

impl Fenced {
    /// `source` for the writer with `epoch`.
    #[must_use]
    pub fn new(source: Arc<dyn Source>, fence: Arc<Fence>, epoch: u64) -> Self {
        Self { source, fence, epoch }
    }
}

impl Source for Fenced {
    fn size(&self) -> u64 {
        self.source.size()
    }

    fn abilities(&self) -> Abilities {
        self.source.abilities()
    }

    fn is_prompt(&self) -> bool {
        self.source.is_prompt()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let _pass = self.fence.pass(self.epoch)?;
        self.source.read_at(buf, offset)
    }

    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        // Whoever raises the fence may wait for a slow device; this call must not.
        let Ok(lowest) = self.fence.lowest.try_read() else { return Ok(false) };
        if self.epoch < *lowest {
            return Err(Errno::PERM.into());
        }
        self.source.try_read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64, fua: bool) -> io::Result<()> {
        let _pass = self.fence.pass(self.epoch)?;
        self.source.write_at(buf, offset, fua)
    }

    fn flush(&self) -> io::Result<()> {
        let _pass = self.fence.pass(self.epoch)?;
        self.source.flush()
    }

    fn trim(&self, offset: u64, len: u64, fua: bool) -> io::Result<()> {
        let _pass = self.fence.pass(self.epoch)?;
        self.source.trim(offset, len, fua)
    }

    fn zero(&self, offset: u64, len: u64, how: Zeroing, fua: bool) -> io::Result<()> {
        let _pass = self.fence.pass(self.epoch)?;
        self.source.zero(offset, len, how, fua)
    }

    fn extents(&self, offset: u64, len: u64, max: usize) -> io::Result<Vec<Extent>> {
        let _pass = self.fence.pass(self.epoch)?;
        self.source.extents(offset, len, max)
    }
}
