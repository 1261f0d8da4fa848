// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files that must survive a power cut, as the few operations that overlays and the state need of them.
//!
//! Two small traits, so that the simulation can put a file system in their place that loses and tears what was
//! not synced. What they promise is what Linux promises: contents are safe after [`File::sync`], names after
//! [`Dir::sync`], and nothing else is.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags};

/// Zeroes written at a time where a file system cannot punch holes, bytes.
static ZEROES: [u8; 65536] = [0; 65536];

/// Where Linux tells one start of the machine from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Which start of the machine this is: what was written since then can be read, synced or not.
pub type Boot = [u8; 16];

/// An open file. Offsets and lengths are in bytes; all calls may be made by many threads at once.
pub trait File: Send + Sync {
    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` behind the end, and those of the file system.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// The same if it is in memory; false, with `buf` in any state, if not.
    ///
    /// # Errors
    /// Those of the file system.
    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        let _ = (buf, offset);
        Ok(false)
    }

    /// Writes all of `buf` at `offset`; the file grows where needed.
    ///
    /// # Errors
    /// Those of the file system.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Makes a range read as zeroes and gives its space back where that can be done.
    ///
    /// # Errors
    /// Those of the file system.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Brings contents and length to stable storage.
    ///
    /// # Errors
    /// Those of the file system. Linux may then have forgotten what it could not write, and say that a second try
    /// worked: what was written since the last success is to be taken as lost.
    fn sync(&self) -> io::Result<()>;

    /// Bytes.
    ///
    /// # Errors
    /// Those of the file system.
    fn size(&self) -> io::Result<u64>;

    /// Cuts or extends with zeroes.
    ///
    /// # Errors
    /// Those of the file system.
    fn set_size(&self, size: u64) -> io::Result<()>;
}

/// A directory with files directly in it.
pub trait Dir: Send + Sync {
    /// What its files are.
    type File: File + 'static;

    /// Makes an empty file, in place of one that is there.
    ///
    /// # Errors
    /// Those of the file system.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// `NotFound`, and those of the file system.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, in place of one that has it.
    ///
    /// # Errors
    /// `NotFound`, and those of the file system.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a name away.
    ///
    /// # Errors
    /// `NotFound`, and those of the file system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names in it.
    ///
    /// # Errors
    /// Those of the file system.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Brings the names to stable storage.
    ///
    /// # Errors
    /// Those of the file system.
    fn sync(&self) -> io::Result<()>;

    /// The start of the machine that keeps what is not synced in its memory.
    ///
    /// # Errors
    /// Those of the file system.
    fn boot(&self) -> io::Result<Boot>;

    /// Where a file is, for messages.
    fn show(&self, name: &str) -> String {
        name.to_owned()
    }
}

/// A directory of the machine.
#[derive(Debug, Clone)]
pub struct RealDir(PathBuf);

impl RealDir {
    /// The directory at `path`, made with its parents if it is not there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new(path: impl AsRef<Path>) -> io::Result<Self> {
        std::fs::create_dir_all(&path)?;
        Ok(Self(path.as_ref().to_owned()))
    }
}

impl Dir for RealDir {
    type File = std::fs::File;

    fn create(&self, name: &str) -> io::Result<Self::File> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).open(self.0.join(name))
    }

    fn open(&self, name: &str) -> io::Result<Self::File> {
        std::fs::OpenOptions::new().read(true).write(true).open(self.0.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.0.join(name))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.0)?;
        // A name that is not UTF-8 is none of ours.
        let names =
            entries.filter_map(|entry| entry.map(|e| e.file_name().into_string().ok()).transpose());
        names.collect()
    }

    fn sync(&self) -> io::Result<()> {
        std::fs::File::open(&self.0)?.sync_all()
    }

    fn boot(&self) -> io::Result<Boot> {
        // A UUID in text, see random(4).
        let named = |kind, why: &dyn std::fmt::Display| {
            io::Error::new(kind, format!("{BOOT_ID}: {why}; it must be readable for this program"))
        };
        let text = std::fs::read_to_string(BOOT_ID).map_err(|e| named(e.kind(), &e))?;
        let digits = text.trim().replace('-', "");
        let number = u128::from_str_radix(&digits, 16);
        number.map(u128::to_be_bytes).map_err(|_| named(io::ErrorKind::InvalidData, &"no UUID"))
    }

    fn show(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl File for std::fs::File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }

    fn try_read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        let want = buf.len();
        let got = rustix::io::preadv2(
            self,
            &mut [io::IoSliceMut::new(buf)],
            offset,
            ReadWriteFlags::NOWAIT,
        );
        match got {
            Ok(got) => Ok(got == want),
            // Not every file system knows of reading without waiting.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(buf, offset)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(self, how, offset, len) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP) => {
                let end = offset + len;
                let mut at = offset;
                while at < end {
                    let part = (end - at).min(ZEROES.len() as u64);
                    let zeroes = &ZEROES[..usize::try_from(part).expect("at most 64 KiB")];
                    self.write_all_at(zeroes, at)?;
                    at += part;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }
}
