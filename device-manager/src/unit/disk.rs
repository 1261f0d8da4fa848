// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a unit remembers: its epoch for ever, its leases while the machine is up.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::core::Kept;
use crate::record::MAX_EPOCH;

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}", path.display())]
pub struct DiskError {
    path: PathBuf,
    source: io::Error,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    |source| DiskError { path: path.to_owned(), source }
}

/// Files in two folders: one that outlives the machine's restart, and one that does not.
#[derive(Debug, Clone)]
pub struct Disk {
    epoch: PathBuf,
    leases: PathBuf,
}

impl Disk {
    /// In these folders.
    #[must_use]
    pub fn new(state: &Path, runtime: &Path) -> Self {
        Self { epoch: state.join("epoch"), leases: runtime.join("leases.json") }
    }

    /// The epoch of a new life: greater than all before, and on disk when this returns. By a step that differs each time: two
    /// lives that begin with the same disk, since it was set back, must not have the same.
    ///
    /// # Errors
    /// [`DiskError`]; a file that makes no sense is one, since a lower epoch would not be believed.
    pub fn next_epoch(&self, step: u8) -> Result<u64, DiskError> {
        let last: u64 = match fs::read_to_string(&self.epoch) {
            Ok(text) => text
                .trim()
                .parse()
                .map_err(|_| at(&self.epoch)(io::ErrorKind::InvalidData.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(at(&self.epoch)(error)),
        };
        let next = u64::min(last.saturating_add(1 + u64::from(step)), MAX_EPOCH);
        self.set_epoch(next)?;
        Ok(next)
    }

    /// Writes an epoch, with everything before it.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn set_epoch(&self, epoch: u64) -> Result<(), DiskError> {
        write(&self.epoch, format!("{epoch}\n").as_bytes(), true).map_err(at(&self.epoch))
    }

    /// What the life before kept; nothing after the machine's restart. What makes no sense is nothing.
    #[must_use]
    pub fn kept(&self) -> Kept {
        let bytes = fs::read(&self.leases).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Keeps that for the next life.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn keep(&self, kept: &Kept) -> Result<(), DiskError> {
        let bytes = serde_json::to_vec(kept).map_err(|error| at(&self.leases)(error.into()))?;
        write(&self.leases, &bytes, false).map_err(at(&self.leases))
    }
}

/// Whole or not at all.
fn write(path: &Path, bytes: &[u8], sync: bool) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let beside = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    if sync {
        file.sync_all()?;
    }
    fs::rename(&beside, path)?;
    if sync && let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_rise_and_nonsense_is_not_taken_for_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path(), folder.path());
        assert_eq!((disk.next_epoch(0).unwrap(), disk.next_epoch(255).unwrap()), (1, 257));
        disk.set_epoch(9).unwrap();
        assert_eq!(disk.next_epoch(0).unwrap(), 10);
        disk.set_epoch(u64::MAX).unwrap();
        assert_eq!(disk.next_epoch(255).unwrap(), MAX_EPOCH);
        fs::write(folder.path().join("epoch"), "x").unwrap();
        assert!(disk.next_epoch(0).is_err());
        assert_eq!(disk.kept(), Kept::default());
    }
}
