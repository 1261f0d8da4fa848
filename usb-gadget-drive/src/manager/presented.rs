// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which share each blade is to have, kept over a restart: an agent that comes back gets its drives again.

use std::collections::BTreeMap;
use std::{fmt, io};

use serde::{Deserialize, Serialize};

use crate::arbiter::{BladeName, ShareName};
use crate::disk::{Dir, File};
use crate::link::message::{Drive, Kind};

const FILE: &str = "presented.json";
const NEW: &str = "presented.json.new";
/// Bytes of the file: 64 blades with 16 drives are a tenth of it.
const MAX_LEN: u64 = 1 << 20;

/// How a blade has a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presented {
    /// As what.
    pub kind: Kind,
    /// Whether its host may write.
    pub writable: bool,
}

impl fmt::Display for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.kind, self.writable) {
            (Kind::Cd, _) => "CD-ROM",
            (Kind::Disk, true) => "disk",
            (Kind::Disk, false) => "read-only disk",
        })
    }
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    blades: BTreeMap<BladeName, BTreeMap<ShareName, Presented>>,
}

impl Table {
    /// Reads it; an empty one where there is none.
    ///
    /// # Errors
    /// Those of the file system; `InvalidData` for a file that is not what was written.
    pub fn load<D: Dir>(dir: &D) -> io::Result<Self> {
        let file = match dir.open(FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            opened => opened?,
        };
        let len = file.size()?;
        if len > MAX_LEN {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has {len} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(len).expect("at most MAX_LEN")];
        file.read_at(&mut bytes, 0)?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Writes it to stable storage.
    ///
    /// # Errors
    /// Those of the file system; the old one is there then.
    pub fn store<D: Dir>(&self, dir: &D) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(self).expect("names and flags only");
        let file = dir.create(NEW)?;
        file.write_at(&bytes, 0)?;
        file.sync()?;
        dir.rename(NEW, FILE)?;
        dir.sync()
    }

    /// How a blade is to have a share, if it is.
    #[must_use]
    pub fn get(&self, blade: &BladeName, share: &ShareName) -> Option<Presented> {
        self.blades.get(blade)?.get(share).copied()
    }

    /// What a blade is to have.
    pub fn of(&self, blade: &BladeName) -> impl Iterator<Item = (&ShareName, Presented)> {
        self.blades.get(blade).into_iter().flatten().map(|(share, how)| (share, *how))
    }

    /// Blades that are to have anything.
    pub fn blades(&self) -> impl Iterator<Item = &BladeName> {
        self.blades.keys()
    }

    /// A blade is to have a share.
    pub fn set(&mut self, blade: &BladeName, share: &ShareName, how: Presented) {
        self.blades.entry(blade.clone()).or_default().insert(share.clone(), how);
    }

    /// A blade is to have a share no more.
    pub fn unset(&mut self, blade: &BladeName, share: &ShareName) {
        if let Some(shares) = self.blades.get_mut(blade) {
            shares.remove(share);
            if shares.is_empty() {
                self.blades.remove(blade);
            }
        }
    }

    /// What an agent that has these drives lacks, and what it has and should not.
    #[must_use]
    pub fn differences(
        &self,
        blade: &BladeName,
        drives: &[Drive],
    ) -> (Vec<(ShareName, Presented)>, Vec<ShareName>) {
        let is = |share: &ShareName, how: Presented, drive: &Drive| {
            !drive.local
                && drive.name == share.as_str()
                && (drive.kind, drive.writable) == (how.kind, how.writable)
        };
        let lacks = |(share, how): &(&ShareName, Presented)| {
            !drives.iter().any(|drive| is(share, *how, drive))
        };
        let missing = self.of(blade).filter(lacks).map(|(share, how)| (share.clone(), how));
        let remote = drives.iter().filter(|drive| !drive.local);
        let shares = remote.filter_map(|drive| {
            let share: ShareName = drive.name.parse().ok()?;
            let wanted = self.get(blade, &share).is_some_and(|how| is(&share, how, drive));
            (!wanted).then_some(share)
        });
        (missing.collect(), shares.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDir;
    use crate::link::message::DriveState;

    fn drive(name: &str, kind: Kind, local: bool) -> Drive {
        let (writable, state) = (false, DriveState::Inserted);
        Drive { name: name.into(), local, kind, writable, lun: 0, state, reason: None }
    }

    #[test]
    fn what_is_missing_and_what_is_too_much() {
        let (blade, other) = ("b1".parse().unwrap(), "b2".parse().unwrap());
        let mut table = Table::default();
        let cd = Presented { kind: Kind::Cd, writable: false };
        for share in ["a", "b", "c"] {
            table.set(&blade, &share.parse().unwrap(), cd);
        }
        table.set(&other, &"d".parse().unwrap(), cd);
        let drives = [
            drive("a", Kind::Cd, false),
            drive("b", Kind::Disk, false),
            drive("c", Kind::Cd, true),
            drive("d", Kind::Cd, false),
            drive("own", Kind::Disk, true),
        ];
        let (missing, extra) = table.differences(&blade, &drives);
        let names: Vec<&str> = missing.iter().map(|(share, _)| share.as_str()).collect();
        assert_eq!(names, ["b", "c"]);
        assert_eq!(extra.iter().map(ShareName::as_str).collect::<Vec<_>>(), ["b", "d"]);
    }

    #[test]
    fn it_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let dir = RealDir::new(folder.path()).unwrap();
        assert_eq!(Table::load(&dir).unwrap(), Table::default());
        let mut table = Table::default();
        let (blade, share) = ("b".parse().unwrap(), "s".parse().unwrap());
        table.set(&blade, &share, Presented { kind: Kind::Disk, writable: true });
        table.store(&dir).unwrap();
        assert_eq!(Table::load(&dir).unwrap(), table);
        table.unset(&blade, &share);
        assert_eq!(table, Table::default());
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        assert!(Table::load(&dir).is_err());
    }
}
