// SPDX-License-Identifier: MIT OR Apache-2.0
//! What one blade wrote to a share that many have: a copy-on-write overlay on disk, over a share that stays as it is.
//!
//! What it promises:
//! * a write that returned is there after the server was killed, however often;
//! * a write that a later flush acknowledged, or one with FUA, is there after a power cut; of the others
//!   each sector is there or not;
//! * nothing is ever written to the share below, until [`commit`](Overlay::commit);
//! * a cluster that was zeroed or trimmed reads as zeroes, whatever the share has there.
//!
//! A flush writes, in this order: the data to stable storage, then the map pages that name new clusters, then these
//! to stable storage. It takes the pages as they were *before* the data was synced, so that they name nothing that
//! came later. Where no cluster is new it costs what a flush of a plain file does.
//!
//! Reads take no lock. A write takes one only where a cluster is not in the overlay yet: that of its group of 1 MiB.
//!
//! For the shell: keep one `Arc<Overlay>` for each overlay while a session has it, never two of the same file. Wrap it
//! in a [`Fenced`](crate::fence::Fenced) with the session's epoch, and serve that.

mod device;
mod file;
pub mod format;
mod map;
#[cfg(test)]
mod tests;

pub use file::{OverlayError, create, file_name, remove};

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::disk::File;
use crate::source::{Source, Zeroing};
use format::{CLUSTER, CLUSTER_BITS, Header, MapPage, PAGE, Place, slot_at};
use map::Map;

/// Clusters of a group: writes of up to 1 MiB are one. Their bits are four bytes of the live map.
const GROUP: u64 = 16;
/// Locks for the groups. More than the threads that can be at work on one overlay (16 connections with 8 workers
/// would be 128, of which few copy at the same time).
const LOCKS: usize = 64;
/// Bytes copied at a time by a commit.
const COPY: u64 = 1 << 20;
/// Bytes after which a commit flushes: what it says is done would else wait in memory for one long flush at the end.
const FLUSH_EVERY: u64 = 64 << 20;

/// How much is in an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of its own.
    pub data: u64,
    /// Bytes zeroed or trimmed.
    pub zeroed: u64,
}

/// An overlay that is open. As a [`Source`] it is what its blade sees.
pub struct Overlay<F: File> {
    header: Header,
    data_at: u64,
    file: F,
    base: Arc<dyn Source>,
    map: Map,
    locks: [Mutex<()>; LOCKS],
    flushing: Mutex<Flushing>,
    /// Flushes that began.
    began: AtomicU64,
    /// A sync failed: Linux may have dropped what it could not write and report success next time.
    is_broken: AtomicBool,
}

struct Flushing {
    /// The version of each map page on disk.
    sequences: Vec<u64>,
    /// The last flush that succeeded, by its number in `began`.
    done: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic could leave behind these is whole: the file, not memory, has the state.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<F: File> Overlay<F> {
    /// Which overlay this is.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How much is in it.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let (data, zeroed) = self.map.count();
        Usage { data: data * CLUSTER, zeroed: zeroed * CLUSTER }
    }

    /// Writes all that is in the overlay to `below`, which is the share itself, opened for writing, and flushes it.
    /// The overlay stays as it is: after a crash or an error the same again gives the same. Tells `progress` how
    /// many bytes are done and how many there are; where it answers false the commit ends with `Interrupted`.
    ///
    /// # Errors
    /// Those of either device. The share is part old and part new then, until a commit succeeds.
    pub fn commit(
        &self,
        below: &dyn Source,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> io::Result<()> {
        let Usage { data, zeroed } = self.usage();
        let (total, mut done, mut flushed) = (data + zeroed, 0, 0);
        let mut buf = vec![0; usize::try_from(COPY).expect("1 MiB")];
        for (place, at, len) in self.runs(0, self.header.size) {
            let end = at + len;
            for at in (at..end).step_by(usize::try_from(COPY).expect("1 MiB")) {
                let len = (end - at).min(COPY);
                match place {
                    Place::Base => break,
                    Place::Zero => {
                        below.zero(at, len, Zeroing { may_trim: true, fast: false }, false)?;
                    }
                    Place::Data => {
                        let part = &mut buf[..usize::try_from(len).expect("at most 1 MiB")];
                        self.file.read_at(part, self.data_at + at)?;
                        below.write_at(part, at, false)?;
                    }
                }
                done += len.next_multiple_of(CLUSTER);
                if done - flushed >= FLUSH_EVERY {
                    below.flush()?;
                    flushed = done;
                }
                if !progress(done, total) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
            }
        }
        below.flush()
    }

    fn cluster_range(offset: u64, len: u64) -> (u64, u64) {
        (offset >> CLUSTER_BITS, (offset + len - 1) >> CLUSTER_BITS)
    }

    /// The parts of a range by where they are: place, offset, length. An empty range has none.
    fn runs(&self, offset: u64, len: u64) -> impl Iterator<Item = (Place, u64, u64)> {
        let end = offset + len;
        let mut at = offset;
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let (first, last) = Self::cluster_range(at, end - at);
                let (place, clusters) = self.map.run(first, last);
                let from = at;
                at = end.min((first + clusters) << CLUSTER_BITS);
                (place, from, at - from)
            })
        })
    }

    fn check(&self) -> io::Result<()> {
        if self.is_broken.load(Ordering::Acquire) { Err(Errno::IO.into()) } else { Ok(()) }
    }

    fn group_lock(&self, cluster: u64) -> MutexGuard<'_, ()> {
        let index = usize::try_from(cluster / GROUP % LOCKS as u64).expect("less than LOCKS");
        lock(&self.locks[index])
    }

    /// Where a cluster ends; the last one with the share.
    fn cluster_end(&self, cluster: u64) -> u64 {
        ((cluster + 1) << CLUSTER_BITS).min(self.header.size)
    }

    /// Changes the place of clusters of one group: in the live map, then for readers. The caller has their lock.
    fn put(&self, first: u64, last: u64, place: Place) -> io::Result<()> {
        let group = first / GROUP;
        let bytes = self.map.group_with(group, first, last, place);
        let at = self.header.live_at() + PAGE + group * bytes.len() as u64;
        self.file.write_at(&bytes, at)?;
        self.map.put(first, last, place);
        Ok(())
    }

    /// Brings a cluster into the data whose part at `offset` becomes `part`. The caller has its lock.
    fn copy_up(&self, offset: u64, part: &[u8]) -> io::Result<()> {
        let cluster = offset >> CLUSTER_BITS;
        let begin = cluster << CLUSTER_BITS;
        let len = usize::try_from(self.cluster_end(cluster) - begin).expect("a cluster");
        let mut whole = vec![0; len];
        if self.map.place(cluster) == Place::Base {
            self.base.read_at(&mut whole, begin)?;
        }
        let within = usize::try_from(offset - begin).expect("within a cluster");
        whole[within..within + part.len()].copy_from_slice(part);
        self.file.write_at(&whole, self.data_at + begin)?;
        self.put(cluster, cluster, Place::Data)
    }

    /// Splits a range at the borders of groups, then each part into a piece of its first cluster, whole clusters, and
    /// a piece of its last: offset, length, and whether it is whole.
    fn pieces(&self, offset: u64, len: u64) -> impl Iterator<Item = (u64, u64, bool)> {
        let end = offset + len;
        let mut at = offset;
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let from = at;
                let cluster = from >> CLUSTER_BITS;
                let group_end = (cluster / GROUP + 1) * GROUP * CLUSTER;
                let begins = from.is_multiple_of(CLUSTER);
                let whole_end = if end >= self.header.size { end } else { end & !(CLUSTER - 1) };
                let is_whole = begins && self.cluster_end(cluster) <= end;
                at = if is_whole {
                    whole_end.min(group_end)
                } else {
                    end.min(self.cluster_end(cluster))
                };
                (from, at - from, is_whole)
            })
        })
    }

    /// Whether all clusters of a range are in the data.
    fn is_all_data(&self, offset: u64, len: u64) -> bool {
        let (first, last) = Self::cluster_range(offset, len);
        self.map.run(first, last) == (Place::Data, last - first + 1)
    }

    /// Writes one of the [`pieces`](Self::pieces).
    fn write_piece(&self, buf: &[u8], offset: u64, is_whole: bool) -> io::Result<()> {
        let len = buf.len() as u64;
        // A cluster leaves the data only by a zero or trim of all of it; one at the same time may come before or
        // after.
        if self.is_all_data(offset, len) {
            return self.file.write_at(buf, self.data_at + offset);
        }
        let (first, last) = Self::cluster_range(offset, len);
        let _group = self.group_lock(first);
        // It may have been brought there in the meantime.
        if !is_whole && self.map.place(first) != Place::Data {
            return self.copy_up(offset, buf);
        }
        self.file.write_at(buf, self.data_at + offset)?;
        self.put(first, last, Place::Data)
    }

    /// Makes whole clusters read as zeroes without data of their own.
    fn zero_whole(&self, offset: u64, len: u64) -> io::Result<()> {
        let (first, last) = Self::cluster_range(offset, len);
        let _group = self.group_lock(first);
        self.put(first, last, Place::Zero)?;
        // Space that was not taken yet is given back for nothing; a hole costs little to make.
        self.file.punch(self.data_at + offset, len.next_multiple_of(CLUSTER))
    }

    /// Makes a part of a cluster read as zeroes.
    fn zero_part(&self, offset: u64, len: u64, may_trim: bool) -> io::Result<()> {
        let cluster = offset >> CLUSTER_BITS;
        let zeroes = vec![0; usize::try_from(len).expect("within a cluster")];
        let _group = self.group_lock(cluster);
        match self.map.place(cluster) {
            Place::Data if may_trim => self.file.punch(self.data_at + offset, len),
            Place::Data => self.file.write_at(&zeroes, self.data_at + offset),
            Place::Zero if may_trim => Ok(()),
            Place::Zero | Place::Base => self.copy_up(offset, &zeroes),
        }
    }

    fn flush_all(&self) -> io::Result<()> {
        // A flush that begins from now on has all that was written before this call.
        let enough = self.began.load(Ordering::SeqCst) + 1;
        let mut flushing = lock(&self.flushing);
        self.check()?;
        if flushing.done >= enough {
            return Ok(());
        }
        let number = self.began.fetch_add(1, Ordering::SeqCst) + 1;
        let pages = self.map.take_dirty();
        self.sync()?;
        if !pages.is_empty() {
            self.write_map(&pages, &flushing.sequences)
                .inspect_err(|_| self.map.give_back(&pages))?;
            self.sync()?;
            for (index, _) in pages {
                flushing.sequences[index] += 1;
            }
        }
        flushing.done = number;
        Ok(())
    }

    fn write_map(&self, pages: &[(usize, Vec<u64>)], sequences: &[u64]) -> io::Result<()> {
        for (index, words) in pages {
            let page = MapPage { sequence: sequences[*index] + 1, words: words.clone() };
            let bytes = page.encode(*index, self.header.id);
            self.file.write_at(&bytes, slot_at(*index, page.sequence))?;
        }
        Ok(())
    }

    /// After an error nothing is written or flushed any more: what was written since the last success may be gone.
    fn sync(&self) -> io::Result<()> {
        self.file.sync().inspect_err(|_| self.is_broken.store(true, Ordering::Release))
    }
}
