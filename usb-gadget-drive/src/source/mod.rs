// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the blocks of a share come from: a file, a block device, another server, an overlay over one of these.

use std::io;

pub mod cache;
pub mod file;
pub mod place;
pub mod remote;
pub mod uri;

/// What a source can do beyond reading. Of a source that is read-only all else is false.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Abilities {
    /// `write_at` and `zero` work.
    pub write: bool,
    /// `trim` frees space.
    pub trim: bool,
    /// `zero` with [`Zeroing::fast`] is faster than writing zeroes, or fails at once.
    pub fast_zero: bool,
    /// `extents` tells holes from data.
    pub extents: bool,
}

/// How to write zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Zeroing {
    /// A hole may be made of it; otherwise its space stays allocated.
    pub may_trim: bool,
    /// To fail with `EOPNOTSUPP` where it is not faster than writing them.
    pub fast: bool,
}

/// A run of blocks of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes, at least 1.
    pub len: u64,
    /// No space is allocated for it (NBD's `STATE_HOLE`).
    pub is_hole: bool,
    /// It reads as zeroes (NBD's `STATE_ZERO`).
    pub is_zero: bool,
}

/// Blocks that can be read and perhaps written by many threads at once. Its size stays the same while it is open.
///
/// Offsets and lengths are in bytes; the caller has checked them against `size`. Each call may block for as long
/// as the device behind it does. A write that has returned is seen by every later read of any thread; it is on
/// stable storage when a later `flush` has returned, or at once with `fua`.
///
/// Errors carry a raw OS error where there is one: `ENOSPC` and `EIO` are told apart by whoever is served.
pub trait Source: Send + Sync {
    /// Bytes.
    fn size(&self) -> u64;

    /// What it can do.
    fn abilities(&self) -> Abilities;

    /// Whether a write without `fua` goes to memory and so seldom waits.
    fn is_prompt(&self) -> bool {
        false
    }

    /// Why it does not answer as it should at present, if that is known.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// Those of the device behind.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// The same if it can be done without waiting for a device; false, with `buf` in any state, if not.
    ///
    /// # Errors
    /// Those of the device behind.
    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        let _ = (buf, offset);
        Ok(false)
    }

    /// Writes all of `buf` at `offset`.
    ///
    /// # Errors
    /// `EROFS` where it cannot be written, `ENOSPC`, and those of the device behind.
    fn write_at(&self, buf: &[u8], offset: u64, fua: bool) -> io::Result<()>;

    /// Brings what was written to stable storage.
    ///
    /// # Errors
    /// Those of the device behind. What was written since the last success may be lost.
    fn flush(&self) -> io::Result<()>;

    /// Gives the space of a range back where that can be done; it may read as anything afterwards.
    ///
    /// # Errors
    /// Those of the device behind.
    fn trim(&self, offset: u64, len: u64, fua: bool) -> io::Result<()>;

    /// Makes a range read as zeroes.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where `how.fast` cannot be kept, and as `write_at`.
    fn zero(&self, offset: u64, len: u64, how: Zeroing, fua: bool) -> io::Result<()>;

    /// What lies in a range, at most `max` runs, in order and without a gap from `offset` on. The last may reach
    /// beyond the range; they need not reach its end.
    ///
    /// # Errors
    /// Those of the device behind.
    fn extents(&self, offset: u64, len: u64, max: usize) -> io::Result<Vec<Extent>> {
        let _ = (offset, max);
        Ok(vec![Extent { len, is_hole: false, is_zero: false }])
    }
}
