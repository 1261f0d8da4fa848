// SPDX-License-Identifier: MIT OR Apache-2.0
//! The arbiter's state in a file, so that a restart forgets nothing.
//!
//! One line with the format's version and the checksum, then JSON, which an operator can read. It is written beside
//! the old one, synced, and renamed over it; a crash leaves one or the other, whole. A damaged file is refused: with a
//! guess in its place an epoch could go back and two blades could write.

use std::io;

use crate::arbiter::State;
use crate::disk::{Dir, File};

/// The file's name.
pub const FILE: &str = "state";
const NEW: &str = "state.new";
/// Bytes of the file: 256 shares with 64 overlays each, and long names, need a third of this.
pub const MAX_LEN: u64 = 8 << 20;
/// The format this program writes and the only one it reads.
pub const VERSION: u32 = 1;
const MAGIC: &str = "midplane-drive-state";

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

/// The file's contents.
#[must_use]
pub fn encode(state: &State) -> Vec<u8> {
    let json = serde_json::to_string_pretty(state).expect("names and numbers only");
    let sum = crc32fast::hash(json.as_bytes());
    format!("{MAGIC} {VERSION} {sum:08x}\n{json}").into_bytes()
}

/// What is wrong with a file, before it is known which it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// Another version.
    Version(u32),
    /// Anything else.
    Damaged(String),
}

/// # Errors
/// Whatever is wrong with it.
pub fn decode(bytes: &[u8]) -> Result<State, DecodeError> {
    let damaged = |what: &str| DecodeError::Damaged(what.to_owned());
    let split = bytes.iter().position(|b| *b == b'\n').ok_or_else(|| damaged("no first line"))?;
    let (head, json) = (&bytes[..split], &bytes[split + 1..]);
    let head = std::str::from_utf8(head).map_err(|_| damaged("its first line"))?;
    let [magic, version, sum] = head.split(' ').collect::<Vec<_>>()[..] else {
        return Err(damaged("its first line"));
    };
    if magic != MAGIC {
        return Err(damaged("its first line"));
    }
    match version.parse() {
        Ok(VERSION) => {}
        Ok(version) => return Err(DecodeError::Version(version)),
        Err(_) => return Err(damaged("its first line")),
    }
    if u32::from_str_radix(sum, 16) != Ok(crc32fast::hash(json)) {
        return Err(damaged("its checksum"));
    }
    serde_json::from_slice(json).map_err(|error| DecodeError::Damaged(error.to_string()))
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
    use super::*;
    use crate::arbiter::{Lease, OverlayState, Phase, ShareState};
    use crate::disk::RealDir;

    fn state() -> State {
        let blade = || "blade-3".parse().unwrap();
        let overlay = OverlayState {
            id: 5,
            epoch: 6,
            generation: 2,
            since: 1_700_000_000,
            phase: Phase::Ready,
        };
        let share = ShareState {
            generation: 2,
            epoch: 7,
            lease: Some(Lease { blade: blade(), epoch: 7, since: 1_700_000_001, is_known: false }),
            overlays: [(blade(), overlay)].into(),
        };
        State { shares: [("rescue".parse().unwrap(), share)].into() }
    }

    /// Never to be edited: files of this version are on disks.
    const GOLDEN: &str = r#"midplane-drive-state 1 ec09790f
{
  "shares": {
    "rescue": {
      "generation": 2,
      "epoch": 7,
      "lease": {
        "blade": "blade-3",
        "epoch": 7,
        "since": 1700000001,
        "is_known": false
      },
      "overlays": {
        "blade-3": {
          "id": 5,
          "epoch": 6,
          "generation": 2,
          "since": 1700000000,
          "phase": "ready"
        }
      }
    }
  }
}"#;

    #[test]
    fn version_1() {
        assert_eq!(String::from_utf8(encode(&state())).unwrap(), GOLDEN);
        assert_eq!(decode(GOLDEN.as_bytes()), Ok(state()));
    }

    #[test]
    fn damage_is_seen_wherever_it_is() {
        let good = encode(&state());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 2;
            assert!(decode(&bad).is_err(), "{at}");
            assert!(decode(&good[..at]).is_err(), "cut at {at}");
        }
        assert_eq!(decode(b"midplane-drive-state 2 0\n{}"), Err(DecodeError::Version(2)));
    }

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
