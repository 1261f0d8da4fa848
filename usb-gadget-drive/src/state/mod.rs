// SPDX-License-Identifier: MIT OR Apache-2.0
//! The arbiter's state in a file, so that a restart forgets nothing.
//!
//! One line with the format's version and the checksum, then JSON, which an operator can read. It is written beside
//! the old one, synced, and renamed over it; a crash leaves one or the other, whole. A damaged file is refused: with a
//! guess in its place an epoch could go back and two blades could write.

mod format;

pub use format::{DecodeError, LAST, VERSION, decode, encode};

use std::io;

use crate::arbiter::State;
use crate::disk::{Dir, File};

/// The file's name.
pub const FILE: &str = "state";
const NEW: &str = "state.new";
/// Bytes of the file: 256 shares with 64 overlays each, and long names, need a third of this.
pub const MAX_LEN: u64 = 8 << 20;

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system refused.
    #[error("cannot {what} {file}")]
    Io {
        /// What was to be done.
        what: &'static str,
        /// The file.
        file: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// From a later release.
    #[error(
        "{file} has version {version} of the format and this program knows {VERSION}: use a later release"
    )]
    Version {
        /// The file.
        file: String,
        /// Its version.
        version: u32,
    },
    /// Not what was written.
    #[error(
        "{file} is damaged ({what}): put back a copy of it, or, when no blade has a drive of this server inserted, \
         remove it, which forgets all overlays and leases"
    )]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        what: String,
    },
}

/// Reads the state; a new one where there is none yet.
///
/// # Errors
/// Those of the system, a damaged file, and one of another version.
pub fn load<D: Dir>(dir: &D) -> Result<State, StateError> {
    let file = || dir.show(FILE);
    let failed = |source| StateError::Io { what: "read", file: file(), source };
    let opened = match dir.open(FILE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
        opened => opened.map_err(failed)?,
    };
    // A server before this one may have been killed between the rename and the sync: what is told to anybody by
    // this state must not be undone by a power cut.
    dir.sync().map_err(failed)?;
    let len = opened.size().map_err(failed)?;
    if len > MAX_LEN {
        return Err(StateError::Damaged { file: file(), what: format!("it has {len} bytes") });
    }
    let mut bytes = vec![0; usize::try_from(len).expect("at most MAX_LEN")];
    opened.read_at(&mut bytes, 0).map_err(failed)?;
    decode(&bytes).map_err(|error| match error {
        DecodeError::Version(version) => StateError::Version { file: file(), version },
        DecodeError::Damaged(what) => StateError::Damaged { file: file(), what },
    })
}

/// Writes the state. Once this has returned it is on stable storage; after an error, either this or the one before
/// is.
///
/// # Errors
/// Those of the system.
pub fn store<D: Dir>(dir: &D, state: &State) -> Result<(), StateError> {
    let write = || {
        let file = dir.create(NEW)?;
        file.write_at(&encode(state), 0)?;
        file.sync()?;
        dir.rename(NEW, FILE)?;
        dir.sync()
    };
    write().map_err(|source| StateError::Io { what: "write", file: dir.show(FILE), source })
}

#[cfg(test)]
mod tests {
    use super::format::tests::state;
    use super::*;
    use crate::disk::RealDir;

    #[test]
    fn what_was_stored_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let real = RealDir::new(dir.path()).unwrap();
        assert_eq!(load(&real).unwrap(), State::default());
        store(&real, &state()).unwrap();
        store(&real, &state()).unwrap();
        assert_eq!(load(&real).unwrap(), state());
        std::fs::write(dir.path().join(FILE), b"rubbish").unwrap();
        let error = load(&real).unwrap_err().to_string();
        assert!(error.contains("put back a copy"), "{error}");
    }
}
