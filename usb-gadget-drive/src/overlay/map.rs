// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where each cluster is, as readers see it without a lock, and which pages of the map are still to be written.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use super::GROUP;
use super::format::{CLUSTERS_PER_WORD, MapPage, Place, WORDS_PER_PAGE, is_sound};

fn page_of(cluster: u64) -> usize {
    let word = usize::try_from(cluster / CLUSTERS_PER_WORD).expect("bounded by MAX_SIZE");
    word / WORDS_PER_PAGE
}

pub(super) struct Map {
    words: Box<[AtomicU64]>,
    /// Pages that changed since they were last taken.
    dirty: Box<[AtomicBool]>,
    /// Held by those who change a word until the page is marked. Otherwise one who saw the new word, wrote to
    /// the cluster, and flushed, could miss the page.
    changing: RwLock<()>,
}

impl Map {
    pub fn new(pages: &[MapPage]) -> Self {
        let words = pages.iter().flat_map(|page| page.words.iter().copied().map(AtomicU64::new));
        let dirty = pages.iter().map(|_| AtomicBool::new(false)).collect();
        Self { words: words.collect(), dirty, changing: RwLock::new(()) }
    }

    fn word(&self, cluster: u64) -> &AtomicU64 {
        let index = usize::try_from(cluster / CLUSTERS_PER_WORD).expect("bounded by MAX_SIZE");
        &self.words[index]
    }

    /// Where a cluster is. What was written to that place before [`Map::put`] is seen by whoever reads it then.
    pub fn place(&self, cluster: u64) -> Place {
        Place::in_word(self.word(cluster).load(Ordering::Acquire), cluster)
    }

    /// The place of `first`, and how many of the clusters up to and including `last` are there too.
    pub fn run(&self, first: u64, last: u64) -> (Place, u64) {
        let place = self.place(first);
        let more = (first + 1..=last).take_while(|cluster| self.place(*cluster) == place).count();
        (place, 1 + more as u64)
    }

    /// Changes the place of `first` to `last`. The caller has the lock of their group.
    pub fn put(&self, first: u64, last: u64, place: Place) {
        let _changing = self.changing.read().unwrap_or_else(PoisonError::into_inner);
        for cluster in first..=last {
            let shift = 2 * (cluster % CLUSTERS_PER_WORD);
            let change = |word| Some(word & !(3 << shift) | (place as u64) << shift);
            let (release, acquire) = (Ordering::AcqRel, Ordering::Acquire);
            let old = self.word(cluster).fetch_update(release, acquire, change);
            if old.is_ok_and(|old| Place::in_word(old, cluster) != place) {
                self.dirty[page_of(cluster)].store(true, Ordering::Release);
            }
        }
    }

    /// The bits of the clusters from `first` to `last` at `place`, with those of the other clusters of their group as
    /// they are, as bytes of the live map. The caller has the lock of the group.
    pub fn group_with(&self, group: u64, first: u64, last: u64, place: Place) -> [u8; 4] {
        let begin = group * GROUP;
        let bits = (0..GROUP).fold(0, |bits, n| {
            let cluster = begin + n;
            let is_new = (first..=last).contains(&cluster);
            let place = if is_new { place } else { self.place(cluster) };
            bits | (place as u32) << (2 * n)
        });
        bits.to_le_bytes()
    }

    /// All of it, as bytes of the live map.
    pub fn live(&self) -> Vec<u8> {
        self.words.iter().flat_map(|word| word.load(Ordering::Acquire).to_le_bytes()).collect()
    }

    /// Puts a live map in place of what was read from the map's pages; what differs is to be written.
    pub fn take_live(&self, live: &[u8]) {
        for (index, (word, live)) in self.words.iter().zip(live.chunks_exact(8)).enumerate() {
            let live = u64::from_le_bytes(live.try_into().expect("eight bytes"));
            if word.swap(live, Ordering::AcqRel) != live {
                self.dirty[index / WORDS_PER_PAGE].store(true, Ordering::Release);
            }
        }
    }

    /// Whether each cluster is at one of the places, and none that is in the overlay is behind the last of `clusters`.
    pub fn is_sound(&self, clusters: u64) -> bool {
        self.words.iter().zip((0..).step_by(CLUSTERS_PER_WORD as usize)).all(|(word, first)| {
            let word = word.load(Ordering::Acquire);
            let left = clusters.saturating_sub(first);
            let behind = if left < CLUSTERS_PER_WORD { u64::MAX << (2 * left) } else { 0 };
            is_sound(word) && word & behind == 0
        })
    }

    /// Pages that changed since the last time, as they are now.
    pub fn take_dirty(&self) -> Vec<(usize, Vec<u64>)> {
        let _unchanged = self.changing.write().unwrap_or_else(PoisonError::into_inner);
        let is_dirty = |page: &usize| self.dirty[*page].swap(false, Ordering::AcqRel);
        let words = |page| {
            let words = &self.words[page * WORDS_PER_PAGE..][..WORDS_PER_PAGE];
            words.iter().map(|word| word.load(Ordering::Acquire)).collect()
        };
        (0..self.dirty.len()).filter(is_dirty).map(|page| (page, words(page))).collect()
    }

    /// Pages that were taken and could not be written.
    pub fn give_back(&self, pages: &[(usize, Vec<u64>)]) {
        for (page, _) in pages {
            self.dirty[*page].store(true, Ordering::Release);
        }
    }

    /// How many clusters are in the data and how many are zeroed.
    pub fn count(&self) -> (u64, u64) {
        self.words.iter().fold((0, 0), |(data, zero), word| {
            let word = word.load(Ordering::Relaxed);
            let of = |bits: u64| u64::from((bits & 0x5555_5555_5555_5555).count_ones());
            (data + of(word), zero + of(word >> 1))
        })
    }
}
