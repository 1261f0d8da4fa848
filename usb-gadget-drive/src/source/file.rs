// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file or a block device, through the page cache.
//!
//! It is read and written by calls, never mapped: a file that shrinks under us gives `EIO`, not a signal.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, fdatasync, fstatfs, seek};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};

use super::{Abilities, Extent, Source, Zeroing};

/// `statfs` names by it the file systems that have no device to wait for (`linux/magic.h`).
const MEMORY_FILE_SYSTEMS: [i64; 2] = [0x0102_1994, 0x8584_58f6];
/// Zeroes that are written at a time where the device cannot make them itself, bytes.
const ZEROES: usize = 64 << 10;
/// What ranges of a block device are multiples of when it is told to zero or to trim them, bytes: at least the
/// logical block of all but the oddest.
const DEVICE_BLOCK: u64 = 4096;

/// Why a file cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be opened.
    #[error("cannot open {path}{}", remedy(source))]
    Open {
        /// What was to be opened.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is a directory, a pipe or the like.
    #[error("{0} is neither a file nor a block device")]
    Kind(PathBuf),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; the server's user must be allowed to read it, and to write it unless it is read-only"
        }
        _ => "",
    }
}

/// How a read can be tried without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tries {
    /// Any read is without waiting.
    Always,
    /// By `RWF_NOWAIT`.
    NoWait,
}

/// An open file or block device.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    size: u64,
    writable: bool,
    is_device: bool,
    tries: Tries,
    /// Set when `RWF_NOWAIT` turned out not to work here.
    no_tries: AtomicBool,
    /// Set when the end was met before `size`: what was written behind it may be gone.
    shrunk: AtomicBool,
    /// The run of data that was found last, up to a hole or the end. To look for that end again for each piece of a
    /// large file takes long where the page cache has to be searched. Locked while it is looked for.
    data: Mutex<Range<u64>>,
}

impl FileSource {
    /// Opens `path`, of which the present size is that of the source.
    ///
    /// # Errors
    /// It cannot be opened, or is something else than a file or a block device.
    pub fn open(path: &Path, writable: bool) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Open { path: path.to_owned(), source };
        // A pipe would hold the opener; its kind is known only behind the opening.
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(OpenError::Kind(path.to_owned()));
        }
        let file = OpenOptions::new().read(true).write(writable).open(path).map_err(failed)?;
        Self::new(file, writable).map_err(failed)
    }

    /// One that is open already, for reading and, if `writable`, for writing.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(file: File, writable: bool) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        // A block device has no size of its own in `stat`.
        let size = seek(&file, SeekFrom::End(0))?;
        let file_system = fstatfs(&file)?.f_type;
        // Of a device node it would be the file system of /dev.
        let in_memory = kind.is_file()
            && MEMORY_FILE_SYSTEMS
                .iter()
                .any(|magic| i128::from(file_system) == i128::from(*magic));
        Ok(Self {
            file,
            size,
            writable,
            is_device: kind.is_block_device(),
            tries: if in_memory { Tries::Always } else { Tries::NoWait },
            no_tries: AtomicBool::new(false),
            shrunk: AtomicBool::new(false),
            data: Mutex::default(),
        })
    }

    fn shrunk(&self) -> io::Error {
        self.shrunk.store(true, Ordering::Relaxed);
        let size = self.size;
        io::Error::other(format!(
            "its file has become shorter than the {size} bytes it had; put it back, eject it everywhere and insert it again"
        ))
    }

    fn check_writable(&self) -> io::Result<()> {
        if !self.writable {
            return Err(Errno::ROFS.into());
        }
        if self.shrunk.load(Ordering::Relaxed) {
            return Err(self.shrunk());
        }
        Ok(())
    }

    fn write_all(&self, mut buf: &[u8], mut offset: u64, flags: ReadWriteFlags) -> io::Result<()> {
        while !buf.is_empty() {
            match pwritev2(&self.file, &[IoSlice::new(buf)], offset, flags) {
                Ok(0) => return Err(Errno::NOSPC.into()),
                Ok(written) => {
                    buf = &buf[written..];
                    offset += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The part of a range that a device can be told about in one go; before and behind it are loose ends.
    fn whole_blocks(&self, offset: u64, len: u64) -> (u64, u64) {
        if !self.is_device {
            return (offset, offset + len);
        }
        let end = offset + len;
        let first = offset.next_multiple_of(DEVICE_BLOCK).min(end);
        // A device may end within such a block, and then its own end is a good one.
        let last = if end == self.size { end } else { end - end % DEVICE_BLOCK };
        (first, last.max(first))
    }

    fn allocate(&self, how: FallocateFlags, from: u64, to: u64) -> Result<(), Errno> {
        if from == to {
            return Ok(());
        }
        let done = loop {
            match fallocate(&self.file, how | FallocateFlags::KEEP_SIZE, from, to - from) {
                Err(Errno::INTR) => {}
                done => break done,
            }
        };
        *self.known_data() = 0..0;
        done
    }

    fn known_data(&self) -> MutexGuard<'_, Range<u64>> {
        self.data.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_zeroes(&self, mut from: u64, to: u64) -> io::Result<()> {
        let zeroes = [0; ZEROES];
        while from < to {
            let len = (to - from).min(ZEROES as u64);
            self.write_all(&zeroes[..len as usize], from, ReadWriteFlags::empty())?;
            from += len;
        }
        Ok(())
    }
}

/// What a kernel or device without a way to do something says.
fn is_unsupported(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::NOTTY)
}

impl Source for FileSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn abilities(&self) -> Abilities {
        let write = self.writable;
        Abilities { write, trim: write, fast_zero: write, extents: !self.is_device }
    }

    fn is_prompt(&self) -> bool {
        true
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.shrunk(),
            _ => error,
        })
    }

    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        if self.tries == Tries::Always {
            return self.read_at(buf, offset).map(|()| true);
        }
        if self.no_tries.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let want = buf.len();
        match preadv2(&self.file, &mut [IoSliceMut::new(buf)], offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(read == want),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) if is_unsupported(error) || error == Errno::INVAL => {
                self.no_tries.store(true, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64, fua: bool) -> io::Result<()> {
        self.check_writable()?;
        let flags = if fua { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
        self.write_all(buf, offset, flags)
    }

    fn flush(&self) -> io::Result<()> {
        if !self.writable {
            return Ok(());
        }
        if !self.is_device && self.file.metadata()?.len() < self.size {
            return Err(self.shrunk());
        }
        Ok(fdatasync(&self.file)?)
    }

    fn trim(&self, offset: u64, len: u64, fua: bool) -> io::Result<()> {
        self.check_writable()?;
        let (from, to) = self.whole_blocks(offset, len);
        let done = if self.is_device && from < to {
            kernel_abi::block_device::discard(self.file.as_fd(), from, to - from)
        } else {
            self.allocate(FallocateFlags::PUNCH_HOLE, from, to).map_err(io::Error::from)
        };
        match done {
            // It is no more than a hint.
            Err(error) if Errno::from_io_error(&error).is_some_and(is_unsupported) => Ok(()),
            Ok(()) if fua => self.flush(),
            done => done,
        }
    }

    fn zero(&self, offset: u64, len: u64, how: Zeroing, fua: bool) -> io::Result<()> {
        self.check_writable()?;
        let (from, to) = self.whole_blocks(offset, len);
        let ways = [FallocateFlags::PUNCH_HOLE, FallocateFlags::ZERO_RANGE];
        let ways = if how.may_trim { &ways[..] } else { &ways[1..] };
        let mut done = Err(Errno::OPNOTSUPP);
        for way in ways {
            done = self.allocate(*way, from, to);
            if !done.is_err_and(is_unsupported) {
                break;
            }
        }
        match done {
            Ok(()) => {
                self.write_zeroes(offset, from)?;
                self.write_zeroes(to, offset + len)?;
            }
            Err(error) if !is_unsupported(error) => return Err(error.into()),
            Err(_) if how.fast => return Err(Errno::OPNOTSUPP.into()),
            Err(_) => self.write_zeroes(offset, offset + len)?,
        }
        if fua { self.flush() } else { Ok(()) }
    }

    fn extents(&self, offset: u64, len: u64, max: usize) -> io::Result<Vec<Extent>> {
        let end = offset + len;
        let mut extents = vec![];
        let mut at = offset;
        let mut known = self.known_data();
        // The file's position is moved by this, but nothing reads it.
        while !self.is_device && at < end && extents.len() < max {
            let data = match seek(&self.file, SeekFrom::Data(at)) {
                Ok(data) => data.min(self.size),
                Err(Errno::NXIO) => self.size,
                Err(error) if is_unsupported(error) || error == Errno::INVAL => break,
                Err(error) => return Err(error.into()),
            };
            let is_hole = data > at;
            if !is_hole && !known.contains(&at) {
                *known = at..seek(&self.file, SeekFrom::Hole(at))?.min(self.size);
            }
            let next = if is_hole { data } else { known.end };
            if next <= at {
                break;
            }
            extents.push(Extent { len: next - at, is_hole, is_zero: is_hole });
            at = next;
        }
        drop(known);
        if extents.is_empty() {
            extents.push(Extent { len, is_hole: false, is_zero: false });
        }
        Ok(extents)
    }
}

#[cfg(test)]
mod tests;
