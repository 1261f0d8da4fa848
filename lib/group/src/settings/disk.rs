// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the logs and the journal lie: a folder, or what a test has instead.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub use redb::StorageBackend;
use redb::backends::FileBackend;

/// Files by name.
pub trait Disk: std::fmt::Debug + Send + Sync + 'static {
    /// All names.
    ///
    /// # Errors
    /// The folder cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A file; it is made if there is none.
    ///
    /// # Errors
    /// It cannot be opened.
    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>>;

    /// Puts a file in the place of another, durably: after a power cut there is one or the other, whole.
    ///
    /// # Errors
    /// The old name may still be there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file, if there is one.
    ///
    /// # Errors
    /// It is still there.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// What a person calls the file.
    fn show(&self, name: &str) -> String;
}

/// A folder of a file system.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// This one; it is made if there is none, for its owner alone.
    ///
    /// # Errors
    /// There is none, and it cannot be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self(path.to_owned()))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(self.0.join(name))?;
        self.sync()?;
        Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))?;
        self.sync()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.0.join(name)) {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(other) => Err(other),
            Ok(()) => self.sync(),
        }
    }

    fn show(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}
