// SPDX-License-Identifier: MIT OR Apache-2.0
//! The epoch on disk.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Why there is no epoch.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// The system's reason.
    #[error("{}: cannot be read or written", path.display())]
    Io {
        /// Of which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no number: the file is damaged. An epoch that was used before must not be used again.
    #[error("{}: is no epoch; remove the file, and the other members will tell which one is to follow", .0.display())]
    Damaged(PathBuf),
}

/// Reads the epoch of the last life, and writes that of the next to disk before it is used.
///
/// # Errors
/// [`EpochError`].
pub fn next(folder: &Path) -> Result<u64, EpochError> {
    let path = folder.join("epoch");
    let last = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| EpochError::Damaged(path.clone()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0_u64,
        Err(source) => return Err(EpochError::Io { path, source }),
    };
    let next = last.checked_add(1).ok_or(EpochError::Damaged(path))?;
    store(folder, next)?;
    Ok(next)
}

/// Writes an epoch to disk: when this returns, it and its name are there after a power cut.
///
/// # Errors
/// [`EpochError::Io`].
pub fn store(folder: &Path, epoch: u64) -> Result<(), EpochError> {
    let (path, new) = (folder.join("epoch"), folder.join("epoch.new"));
    let write = || {
        let mut file = File::create(&new)?;
        writeln!(file, "{epoch}")?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| EpochError::Io { path: path.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_life_has_another() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(next(folder.path()).unwrap(), 1);
        assert_eq!(next(folder.path()).unwrap(), 2);
        store(folder.path(), 9).unwrap();
        assert_eq!(next(folder.path()).unwrap(), 10);
        fs::write(folder.path().join("epoch"), "x").unwrap();
        let error = next(folder.path()).unwrap_err();
        assert!(error.to_string().contains("/epoch: is no epoch"), "{error}");
        assert!(matches!(next(Path::new("/nowhere")), Err(EpochError::Io { .. })));
    }
}
