// SPDX-License-Identifier: MIT OR Apache-2.0
//! What outlives the program: its epoch, and where consoles stand.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::shell::clock::unix_time;
use crate::wire::Addr;

/// An epoch later than all before, on disk before it is told to anybody. It follows the clock, so that it is later even
/// where the disk was lost.
///
/// # Errors
/// The disk takes none.
pub(super) fn next_epoch(dir: &Path) -> anyhow::Result<u32> {
    let path = dir.join("epoch");
    let last = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let now = u32::try_from(unix_time()).unwrap_or(0);
    let epoch = now.max(last.unwrap_or(0).saturating_add(1));
    write(&path, &format!("{epoch}\n"))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(epoch)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// Where consoles stand: the life of the LMC, and the offset of the next byte.
#[derive(Debug)]
pub(super) struct Stands {
    path: PathBuf,
    stands: BTreeMap<Addr, (u32, u64)>,
    changed: bool,
}

impl Stands {
    /// Those of the last life; none where they cannot be read, then what LMCs keep comes again.
    pub(super) fn load(dir: &Path) -> Self {
        let path = dir.join("consoles");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let line = |line: &str| {
            let mut words = line.split(' ');
            let addr = Addr::blade(words.next()?.parse().ok()?)?;
            Some((addr, (words.next()?.parse().ok()?, words.next()?.parse().ok()?)))
        };
        Self { path, stands: text.lines().filter_map(line).collect(), changed: false }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (Addr, u32, u64)> {
        self.stands.iter().map(|(addr, (life, end))| (*addr, *life, *end))
    }

    pub(super) fn set(&mut self, addr: Addr, life: u32, end: u64) {
        self.stands.insert(addr, (life, end));
        self.changed = true;
    }

    /// Writes them, if they are others. What is not written costs a repetition, no more.
    pub(super) fn store(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let line =
            |(addr, (life, end)): (&Addr, &(u32, u64))| format!("{} {life} {end}\n", addr.byte());
        let text: String = self.stands.iter().map(line).collect();
        let new = self.path.with_extension("new");
        let stored = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.path));
        if let Err(error) = stored {
            tracing::debug!(%error, "cannot note where consoles stand");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_rise_and_stands_are_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = next_epoch(dir.path()).unwrap();
        fs::write(dir.path().join("epoch"), "4000000000\n").unwrap();
        assert_eq!(next_epoch(dir.path()).unwrap(), 4_000_000_001);
        assert!(first > 1_700_000_000);
        let mut stands = Stands::load(dir.path());
        stands.set(Addr::blade(3).unwrap(), 7, 1 << 40);
        stands.store();
        fs::write(dir.path().join("x"), "").unwrap();
        let again = Stands::load(dir.path());
        assert_eq!(again.all().collect::<Vec<_>>(), [(Addr::blade(3).unwrap(), 7, 1 << 40)]);
    }
}
