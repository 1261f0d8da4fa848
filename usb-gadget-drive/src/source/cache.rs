// SPDX-License-Identifier: MIT OR Apache-2.0
//! Blocks of remote sources, kept in memory for all who read them: N blades that boot one image read it once.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::{Range, RangeInclusive};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Abilities, Extent, Source, Zeroing};

/// Bytes where the configuration does not say: what a CD's hot part takes, on a small service processor.
pub const DEFAULT_CACHE: u64 = 64 << 20;
/// Bytes that are read and kept together.
pub const CHUNK: u64 = 128 << 10;
/// Chunks that are read at once by who reads on and on: 1 MiB.
const AHEAD: u64 = 8;
/// Chunks that are being read at a time: 4 MiB, what a line of 1 MB/s carries within [`super::remote::HOLD`].
const MAX_LOADING: u64 = 32;

/// The memory that all remote sources share.
#[derive(Debug)]
pub struct Cache {
    state: Mutex<State>,
    /// A chunk that was being read is there, or is not going to be.
    loaded: Condvar,
    /// Chunks.
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    chunks: HashMap<Key, Chunk>,
    /// The chunks that are there, in the order in which the hand comes by.
    hand: VecDeque<Key>,
    loading: u64,
    last_source: u64,
    fetched: u64,
}

/// Source and number of the chunk.
type Key = (u64, u64);

#[derive(Debug)]
enum Chunk {
    /// Somebody reads it. `stale` when it was written to meanwhile.
    Loading { stale: bool },
    /// It is there. `used` since the hand came by.
    There { bytes: Arc<[u8]>, used: bool },
}

/// How a cache does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes it may have.
    pub capacity: u64,
    /// Bytes it has.
    pub bytes: u64,
    /// Bytes read from remote sources since the start.
    pub fetched: u64,
}

impl Cache {
    /// Room for this many bytes, at least for two reads ahead.
    #[must_use]
    pub fn new(bytes: u64) -> Arc<Self> {
        let capacity = usize::try_from((bytes / CHUNK).max(2 * AHEAD)).unwrap_or(usize::MAX);
        Arc::new(Self { state: Mutex::default(), loaded: Condvar::new(), capacity })
    }

    /// How it does.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let state = self.lock();
        let capacity = self.capacity as u64 * CHUNK;
        Usage { capacity, bytes: state.hand.len() as u64 * CHUNK, fetched: state.fetched }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.loaded.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep(&mut self, key: Key, bytes: Arc<[u8]>, capacity: usize) {
        while self.hand.len() >= capacity {
            let Some(oldest) = self.hand.pop_front() else { break };
            match self.chunks.get_mut(&oldest) {
                Some(Chunk::There { used, .. }) if *used => {
                    *used = false;
                    self.hand.push_back(oldest);
                }
                _ => drop(self.chunks.remove(&oldest)),
            }
        }
        self.chunks.insert(key, Chunk::There { bytes, used: false });
        self.hand.push_back(key);
    }

    /// Chunks that somebody changes are read again.
    fn forget(&mut self, source: u64, chunks: RangeInclusive<u64>) {
        let mut gone = false;
        for index in chunks {
            let key = (source, index);
            match self.chunks.get_mut(&key) {
                Some(Chunk::Loading { stale }) => *stale = true,
                Some(Chunk::There { .. }) => gone |= self.chunks.remove(&key).is_some(),
                None => {}
            }
        }
        if gone {
            self.hand.retain(|key| self.chunks.contains_key(key));
        }
    }
}

/// A source that is read through a cache.
pub struct Cached<S> {
    below: S,
    cache: Arc<Cache>,
    id: u64,
}

impl<S: Source> Cached<S> {
    /// `below`, read through `cache`.
    #[must_use]
    pub fn new(below: S, cache: Arc<Cache>) -> Self {
        let id = {
            let mut state = cache.lock();
            state.last_source += 1;
            state.last_source
        };
        Self { below, cache, id }
    }

    /// The chunk, from memory or from below; with it what is likely to be asked for next.
    fn chunk(&self, index: u64) -> io::Result<Arc<[u8]>> {
        let mut state = self.cache.lock();
        loop {
            let has_room = state.loading < MAX_LOADING;
            match state.chunks.get_mut(&(self.id, index)) {
                Some(Chunk::There { bytes, used }) => {
                    *used = true;
                    return Ok(Arc::clone(bytes));
                }
                None if has_room => break,
                _ => state = self.cache.wait(state),
            }
        }
        let chunks = index..self.ahead(&state, index);
        for at in chunks.clone() {
            state.chunks.insert((self.id, at), Chunk::Loading { stale: false });
        }
        state.loading += chunks.end - index;
        drop(state);
        // Whatever happens in there, nobody waits for ever.
        let loading = Loading { cache: &self.cache, id: self.id, chunks: chunks.clone() };
        let from = index * CHUNK;
        let len = self.below.size().min(chunks.end * CHUNK) - from;
        let mut bytes = vec![0; usize::try_from(len).expect("at most AHEAD chunks")];
        self.below.read_at(&mut bytes, from)?;
        Ok(loading.done(&bytes))
    }

    /// Where to stop reading that begins at a chunk: who has read what is before it reads on.
    fn ahead(&self, state: &State, index: u64) -> u64 {
        let is_known = |at: u64| state.chunks.contains_key(&(self.id, at));
        let wanted = if index == 0 || is_known(index - 1) { AHEAD } else { 1 };
        let end = self.below.size().div_ceil(CHUNK);
        let last = end.min(index + wanted.min(MAX_LOADING - state.loading));
        (index + 1..last).find(|at| is_known(*at)).unwrap_or(last)
    }

    fn forget(&self, offset: u64, len: u64) {
        let last = (offset + len.max(1) - 1) / CHUNK;
        self.cache.lock().forget(self.id, offset / CHUNK..=last);
    }

    /// Makes a change: what is being read meanwhile may be of before or after it, and is not kept.
    fn change<T>(
        &self,
        offset: u64,
        len: u64,
        change: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.forget(offset, len);
        let done = change();
        self.forget(offset, len);
        done
    }
}

/// Chunks that one thread reads for all.
struct Loading<'a> {
    cache: &'a Cache,
    id: u64,
    chunks: Range<u64>,
}

impl Loading<'_> {
    /// They are there; the first is what was asked for.
    fn done(self, bytes: &[u8]) -> Arc<[u8]> {
        let mut state = self.cache.lock();
        state.fetched += bytes.len() as u64;
        let mut first = None;
        for (index, bytes) in self.chunks.clone().zip(bytes.chunks(CHUNK as usize)) {
            let bytes: Arc<[u8]> = bytes.into();
            first.get_or_insert_with(|| Arc::clone(&bytes));
            if let Some(Chunk::Loading { stale: false }) = state.chunks.get(&(self.id, index)) {
                state.keep((self.id, index), bytes, self.cache.capacity);
            }
        }
        first.expect("a chunk has bytes")
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        for index in self.chunks.clone() {
            let key = (self.id, index);
            if matches!(state.chunks.get(&key), Some(Chunk::Loading { .. })) {
                state.chunks.remove(&key);
            }
        }
        state.loading -= self.chunks.end - self.chunks.start;
        self.cache.loaded.notify_all();
    }
}

impl<S> Drop for Cached<S> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        let id = self.id;
        state.chunks.retain(|(source, _), _| *source != id);
        state.hand.retain(|(source, _)| *source != id);
    }
}

impl<S: Source> Source for Cached<S> {
    fn size(&self) -> u64 {
        self.below.size()
    }

    fn abilities(&self) -> Abilities {
        self.below.abilities()
    }

    fn trouble(&self) -> Option<String> {
        self.below.trouble()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let chunk = self.chunk(at / CHUNK)?;
            let from = usize::try_from(at % CHUNK).expect("a chunk is small");
            let len = rest.len().min(chunk.len() - from);
            let (part, behind) = rest.split_at_mut(len);
            part.copy_from_slice(&chunk[from..from + len]);
            (rest, at) = (behind, at + len as u64);
        }
        Ok(())
    }

    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        let end = offset + buf.len() as u64;
        let is_there = {
            let state = self.cache.lock();
            let there =
                |index| matches!(state.chunks.get(&(self.id, index)), Some(Chunk::There { .. }));
            (offset / CHUNK..end.div_ceil(CHUNK)).all(there)
        };
        if is_there {
            self.read_at(buf, offset)?;
        }
        Ok(is_there)
    }

    fn write_at(&self, buf: &[u8], offset: u64, fua: bool) -> io::Result<()> {
        self.change(offset, buf.len() as u64, || self.below.write_at(buf, offset, fua))
    }

    fn flush(&self) -> io::Result<()> {
        self.below.flush()
    }

    fn trim(&self, offset: u64, len: u64, fua: bool) -> io::Result<()> {
        self.change(offset, len, || self.below.trim(offset, len, fua))
    }

    fn zero(&self, offset: u64, len: u64, how: Zeroing, fua: bool) -> io::Result<()> {
        self.change(offset, len, || self.below.zero(offset, len, how, fua))
    }

    fn extents(&self, offset: u64, len: u64, max: usize) -> io::Result<Vec<Extent>> {
        self.below.extents(offset, len, max)
    }
}

#[cfg(test)]
mod tests;
