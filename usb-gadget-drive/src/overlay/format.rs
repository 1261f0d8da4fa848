// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an overlay file looks like. All numbers are little-endian.
//!
//! ```text
//!      0  header, 4096 bytes, written once
//!   4096  map page 0: slot 0, slot 1; map page 1: slot 0, slot 1; …  4096 bytes each
//!         the live map: which boot of the machine it is of, 4096 bytes; 4096 bytes for each map page
//!         (up to the next multiple of 64 KiB)
//!         data: cluster n of the share at n × 64 KiB, sparse
//! ```
//!
//! A map page says of 16,288 clusters, two bits each, where their content is. It is written to its two slots in turn,
//! number n of its versions to slot n mod 2, so that a torn write leaves the version before it. A map page is
//! written only when the data it names is on stable storage.
//!
//! The live map has the same two bits for each cluster, without gaps, and is written at once, whatever of the data
//! is on stable storage. It is good only in the boot in which it was written, when all that was written is still
//! in the kernel's memory: so it tells what a server that was killed had acknowledged, and nothing after a power cut.

use crate::arbiter::{BladeName, MAX_NAME_LEN, ShareName};
use crate::disk::Boot;

/// Bytes of a cluster: what is copied when a part of it is written.
pub const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// The same as a power of two.
pub const CLUSTER_BITS: u32 = 16;
/// Bytes of the header and of each slot: what disks write as one, or at least do not damage a neighbour of.
pub const PAGE: u64 = 4096;
/// Words of 32 clusters in a map page.
pub const WORDS_PER_PAGE: usize = (PAGE as usize - PAGE_HEAD) / 8;
/// Clusters a word has.
pub const CLUSTERS_PER_WORD: u64 = 32;
/// Largest share, bytes: its map takes 32 MiB of memory.
pub const MAX_SIZE: u64 = 8 << 40;
/// The format this program writes and the only one it reads.
pub const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"MPOVRLAY";
const PAGE_HEAD: usize = 24;
const NAME_FIELD: usize = 4 + MAX_NAME_LEN;
const SHARE_AT: usize = 48;
const BLADE_AT: usize = SHARE_AT + NAME_FIELD;

const _: () = assert!(BLADE_AT + NAME_FIELD <= PAGE as usize);

/// Which overlay a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The share below.
    pub share: ShareName,
    /// The blade it belongs to.
    pub blade: BladeName,
    /// The epoch it was made in: no other overlay of the share has the same.
    pub id: u64,
    /// The generation of the share below.
    pub generation: u64,
    /// Bytes of the share.
    pub size: u64,
}

/// Where the content of a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Place {
    /// In the share below.
    Base = 0,
    /// In the overlay's data.
    Data = 1,
    /// Nowhere: it reads as zeroes.
    Zero = 2,
}

impl Place {
    /// The two bits of a word that belong to `cluster`.
    #[must_use]
    pub fn in_word(word: u64, cluster: u64) -> Self {
        match word >> (2 * (cluster % CLUSTERS_PER_WORD)) & 3 {
            1 => Self::Data,
            2 => Self::Zero,
            _ => Self::Base,
        }
    }
}

/// Whether each cluster of a word is somewhere: both bits of a pair set is no [`Place`].
#[must_use]
pub fn is_sound(word: u64) -> bool {
    word & (word >> 1) & 0x5555_5555_5555_5555 == 0
}

/// Why a file is not an overlay this program can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Something else.
    #[error("it is not an overlay")]
    Magic,
    /// From a later release.
    #[error(
        "it has version {0} of the format and this program knows {VERSION}: use a later release"
    )]
    Version(u32),
    /// The header does not agree with its checksum, or with itself.
    #[error("its header is damaged ({0})")]
    Header(&'static str),
}

fn u32_at(bytes: &[u8; PAGE as usize], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8; PAGE as usize], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn name_at(bytes: &[u8; PAGE as usize], at: usize) -> Option<&str> {
    let len = u32_at(bytes, at) as usize;
    let field = &bytes[at + 4..at + NAME_FIELD];
    std::str::from_utf8(field.get(..len)?).ok()
}

fn put(bytes: &mut [u8; PAGE as usize], at: usize, field: &[u8]) {
    bytes[at..at + field.len()].copy_from_slice(field);
}

/// The checksum of a page without its field of four bytes at `at`.
fn checksum(bytes: &[u8; PAGE as usize], at: usize) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&bytes[..at]);
    sum.update(&bytes[at + 4..]);
    sum.finalize()
}

impl Header {
    /// The first page of the file.
    #[must_use]
    pub fn encode(&self) -> [u8; PAGE as usize] {
        let mut bytes = [0; PAGE as usize];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 8, &VERSION.to_le_bytes());
        put(&mut bytes, 16, &self.id.to_le_bytes());
        put(&mut bytes, 24, &self.generation.to_le_bytes());
        put(&mut bytes, 32, &self.size.to_le_bytes());
        put(&mut bytes, 40, &CLUSTER_BITS.to_le_bytes());
        for (at, name) in [(SHARE_AT, self.share.as_str()), (BLADE_AT, self.blade.as_str())] {
            let len = u32::try_from(name.len()).expect("a name is short");
            put(&mut bytes, at, &len.to_le_bytes());
            put(&mut bytes, at + 4, name.as_bytes());
        }
        let sum = checksum(&bytes, 12);
        put(&mut bytes, 12, &sum.to_le_bytes());
        bytes
    }

    /// # Errors
    /// Whatever is wrong with it.
    pub fn decode(bytes: &[u8; PAGE as usize]) -> Result<Self, FormatError> {
        if bytes[..8] != MAGIC {
            return Err(FormatError::Magic);
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        if u32_at(bytes, 12) != checksum(bytes, 12) {
            return Err(FormatError::Header("checksum"));
        }
        if u32_at(bytes, 40) != CLUSTER_BITS {
            return Err(FormatError::Header("size of a cluster"));
        }
        let size = u64_at(bytes, 32);
        if !(1..=MAX_SIZE).contains(&size) {
            return Err(FormatError::Header("size"));
        }
        let share = name_at(bytes, SHARE_AT).and_then(|name| name.parse().ok());
        let blade = name_at(bytes, BLADE_AT).and_then(|name| name.parse().ok());
        Ok(Self {
            share: share.ok_or(FormatError::Header("name of the share"))?,
            blade: blade.ok_or(FormatError::Header("name of the blade"))?,
            id: u64_at(bytes, 16),
            generation: u64_at(bytes, 24),
            size,
        })
    }

    /// How many clusters there are.
    #[must_use]
    pub fn clusters(&self) -> u64 {
        self.size.div_ceil(CLUSTER)
    }

    /// How many map pages there are.
    #[must_use]
    pub fn pages(&self) -> usize {
        let words = self.clusters().div_ceil(CLUSTERS_PER_WORD);
        usize::try_from(words).expect("bounded by MAX_SIZE").div_ceil(WORDS_PER_PAGE)
    }

    /// Where the page is that says of which boot the live map is, bytes; the live map is behind it.
    #[must_use]
    pub fn live_at(&self) -> u64 {
        PAGE + 2 * PAGE * self.pages() as u64
    }

    /// Where the data begins, bytes.
    #[must_use]
    pub fn data_at(&self) -> u64 {
        (self.live_at() + PAGE + PAGE * self.pages() as u64).next_multiple_of(CLUSTER)
    }

    /// Bytes of the file.
    #[must_use]
    pub fn file_size(&self) -> u64 {
        self.data_at() + self.clusters() * CLUSTER
    }
}

/// Where a version of a map page is, bytes.
#[must_use]
pub fn slot_at(page: usize, sequence: u64) -> u64 {
    PAGE + PAGE * (2 * page as u64 + sequence % 2)
}

/// The page before the live map of an overlay that is open in this boot of the machine.
#[must_use]
pub fn live_head(boot: Boot, id: u64) -> [u8; PAGE as usize] {
    let mut bytes = [0; PAGE as usize];
    put(&mut bytes, 4, &boot);
    put(&mut bytes, 4 + boot.len(), &id.to_le_bytes());
    let sum = checksum(&bytes, 0);
    put(&mut bytes, 0, &sum.to_le_bytes());
    bytes
}

/// One version of a map page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapPage {
    /// Counts its versions from 1.
    pub sequence: u64,
    /// [`WORDS_PER_PAGE`] of them.
    pub words: Vec<u64>,
}

impl MapPage {
    /// A page without a cluster in the overlay.
    #[must_use]
    pub fn empty() -> Self {
        Self { sequence: 1, words: vec![0; WORDS_PER_PAGE] }
    }

    /// The slot's bytes, for page `index` of the overlay `id`.
    #[must_use]
    pub fn encode(&self, index: usize, id: u64) -> [u8; PAGE as usize] {
        let mut bytes = [0; PAGE as usize];
        let index = u32::try_from(index).expect("bounded by MAX_SIZE");
        put(&mut bytes, 4, &index.to_le_bytes());
        put(&mut bytes, 8, &self.sequence.to_le_bytes());
        put(&mut bytes, 16, &id.to_le_bytes());
        for (i, word) in self.words.iter().enumerate() {
            put(&mut bytes, PAGE_HEAD + 8 * i, &word.to_le_bytes());
        }
        let sum = checksum(&bytes, 0);
        put(&mut bytes, 0, &sum.to_le_bytes());
        bytes
    }

    /// `None` if it is not whole, not this page of this overlay, or has a place no cluster can be at.
    #[must_use]
    pub fn decode(bytes: &[u8; PAGE as usize], index: usize, id: u64) -> Option<Self> {
        let sequence = u64_at(bytes, 8);
        let is_whole = u32_at(bytes, 0) == checksum(bytes, 0)
            && usize::try_from(u32_at(bytes, 4)).is_ok_and(|found| found == index)
            && u64_at(bytes, 16) == id
            // There is one more after each.
            && (1..u64::MAX).contains(&sequence);
        let words: Vec<u64> =
            (0..WORDS_PER_PAGE).map(|i| u64_at(bytes, PAGE_HEAD + 8 * i)).collect();
        (is_whole && words.iter().all(|word| is_sound(*word))).then_some(Self { sequence, words })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            share: "rescue".parse().unwrap(),
            blade: "blade-3".parse().unwrap(),
            id: 7,
            generation: 2,
            size: (3 << 30) + 512,
        }
    }

    /// Never to be edited: files of this version are on disks.
    #[test]
    fn the_header_of_version_1() {
        let bytes = header().encode();
        assert_eq!(&bytes[..12], b"MPOVRLAY\x01\0\0\0");
        assert_eq!(
            &bytes[16..48],
            b"\x07\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\x02\0\xc0\0\0\0\0\x10\0\0\0\0\0\0\0"
        );
        assert_eq!(&bytes[48..60], b"\x06\0\0\0rescue\0\0");
        assert_eq!(&bytes[116..128], b"\x07\0\0\0blade-3\0");
        assert_eq!(Header::decode(&bytes), Ok(header()));
    }

    #[test]
    fn what_is_refused() {
        let good = header().encode();
        let mut other = good;
        other[0] = 0;
        assert_eq!(Header::decode(&other), Err(FormatError::Magic));
        let mut later = good;
        later[8] = 2;
        assert_eq!(Header::decode(&later), Err(FormatError::Version(2)));
        for at in 12..PAGE as usize {
            let mut damaged = good;
            damaged[at] ^= 1;
            assert_eq!(Header::decode(&damaged), Err(FormatError::Header("checksum")), "{at}");
        }
        let long = Header { size: MAX_SIZE + 1, ..header() };
        assert_eq!(Header::decode(&long.encode()), Err(FormatError::Header("size")));
    }

    #[test]
    fn pages_and_places() {
        assert_eq!(header().clusters(), 3 * 16384 + 1);
        assert_eq!(header().pages(), 4);
        assert_eq!(header().data_at(), CLUSTER);
        let mut page = MapPage::empty();
        page.words[5] = 0b10_01_00;
        page.words[WORDS_PER_PAGE - 1] = 1 << 62;
        let bytes = page.encode(2, 7);
        assert_eq!(MapPage::decode(&bytes, 2, 7), Some(page.clone()));
        assert_eq!(MapPage::decode(&bytes, 1, 7), None, "another page");
        assert_eq!(MapPage::decode(&bytes, 2, 8), None, "another overlay");
        assert_eq!(MapPage::decode(&[0; PAGE as usize], 0, 0), None);
        let places: Vec<Place> = (0..4).map(|c| Place::in_word(page.words[5], c)).collect();
        assert_eq!(places, [Place::Base, Place::Data, Place::Zero, Place::Base]);
        page.words[0] = 3;
        assert_eq!(MapPage::decode(&page.encode(2, 7), 2, 7), None, "no such place");
        let last = MapPage { sequence: u64::MAX, ..MapPage::empty() };
        assert_eq!(MapPage::decode(&last.encode(0, 7), 0, 7), None, "no version after it");
    }

    #[test]
    fn a_torn_page_is_seen() {
        let old = MapPage { sequence: 3, words: vec![0x1111; WORDS_PER_PAGE] }.encode(0, 7);
        let new = MapPage { sequence: 5, words: vec![0x2222; WORDS_PER_PAGE] }.encode(0, 7);
        for cut in (512..PAGE as usize).step_by(512) {
            let mut torn = old;
            torn[..cut].copy_from_slice(&new[..cut]);
            assert_eq!(MapPage::decode(&torn, 0, 7), None, "{cut}");
        }
    }
}
