// SPDX-License-Identifier: MIT OR Apache-2.0
//! What other members said last, on disk: who is started again while another is away still knows of it. A file for each
//! member, written when it goes and when this program ends; a damaged or an old one is left out.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::monitor::{Inner, Monitor, Other};
use crate::core::FORGET_MS;
use crate::formats::records::Identity;
use crate::metric::Meta;
use crate::sources::now;

/// Most metrics that are kept of a member: some 150 bytes each.
pub const MAX_KEPT: usize = 1_000;
/// Longest file, bytes: so many metrics with the longest of names.
const MAX_FILE: u64 = 1 << 20;
/// Most members, as of `lib/group`.
const MAX_FILES: usize = super::monitor::MAX_OTHERS;
/// What writing may take when this program ends.
const END: Duration = Duration::from_secs(3);
/// The version of the layout.
const VERSION: u8 = 1;

/// What one member said last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// When it was written, milliseconds since 1970.
    pub at_ms: u64,
    /// Who it is.
    pub identity: Identity,
    /// Where.
    pub place: String,
    /// What it measured.
    pub values: Vec<(Meta, f64)>,
}

fn folder(state: &Path) -> PathBuf {
    state.join("last-known")
}

/// Writes what a member said.
///
/// # Errors
/// It is not written; what was there before stays.
pub fn write(state: &Path, member: &str, said: &Said) -> io::Result<()> {
    let folder = folder(state);
    fs::create_dir_all(&folder)?;
    let body = postcard::to_extend(said, vec![VERSION]).map_err(io::Error::other)?;
    let bytes = [&crc32fast::hash(&body).to_le_bytes()[..], &body].concat();
    let new = folder.join(format!(".{member}"));
    // Without a wait for the disk: one that a loss of power tears is known by its sum, and was worth little.
    fs::write(&new, bytes)?;
    fs::rename(&new, folder.join(member))
}

fn read(path: &Path, wall: u64) -> Option<Said> {
    if fs::metadata(path).ok()?.len() > MAX_FILE {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    let (sum, body) = bytes.split_first_chunk::<4>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
        return None;
    }
    let (said, rest) = postcard::take_from_bytes::<Said>(body.strip_prefix(&[VERSION])?).ok()?;
    let is_old = wall.saturating_sub(said.at_ms) > FORGET_MS;
    (rest.is_empty() && !is_old && said.values.len() <= MAX_KEPT).then_some(said)
}

/// Reads what all members said, by name; what is of no use is removed.
#[must_use]
pub fn read_all(state: &Path, wall: u64) -> Vec<(String, Said)> {
    let entries = fs::read_dir(folder(state)).into_iter().flatten().flatten();
    let mut out = vec![];
    for path in entries.map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("").to_owned();
        match read(&path, wall) {
            Some(said) if out.len() < MAX_FILES && !name.starts_with('.') => out.push((name, said)),
            _ => drop(fs::remove_file(&path)),
        }
    }
    out
}

impl Inner {
    /// What a member said last, if it said anything.
    fn said(&self, other: &Other) -> Option<Said> {
        let values = self.core.place(&other.place)?.metrics.values();
        let values = values.filter_map(|entry| Some((Meta::clone(&entry.meta), entry.value?)));
        let values: Vec<_> = values.take(MAX_KEPT).collect();
        let (identity, place) = (other.identity.clone(), other.place.clone());
        (!values.is_empty()).then(|| Said { at_ms: now().wall, identity, place, values })
    }
}

/// Writes what members said last, with a thread of its own, as a disk may take its time.
pub struct Keeper {
    orders: SyncSender<(String, Said)>,
    /// Ends with the thread.
    written: oneshot::Receiver<()>,
}

impl Keeper {
    /// For files in the folder of what is kept.
    ///
    /// # Errors
    /// There is no room for a thread.
    pub fn start(state: &Path) -> io::Result<Self> {
        let (orders, receiver) = sync_channel::<(String, Said)>(MAX_FILES);
        let (ends, written) = oneshot::channel();
        let state = state.to_owned();
        std::thread::Builder::new().name("last-known".to_owned()).spawn(move || {
            for (member, said) in receiver {
                if let Err(error) = write(&state, &member, &said) {
                    tracing::warn!(%error, member, "what it said last is not kept over a restart");
                }
            }
            drop(ends);
        })?;
        Ok(Self { orders, written })
    }

    /// A member went away: what it said last is written, without waiting.
    pub fn keep(&self, inner: &Inner, member: &str) {
        let said = inner.others.get(member).and_then(|other| inner.said(other));
        if let Some(said) = said
            && self.orders.try_send((member.to_owned(), said)).is_err()
        {
            tracing::warn!(
                member,
                "the disk is slow: what it said last is not kept over a restart"
            );
        }
    }

    /// This program ends: what those said who are still there is written as well. Waits for the disk, but not for ever.
    pub async fn keep_all(self, monitor: &Monitor) {
        {
            let inner = monitor.lock();
            for (member, _) in inner.others.iter().filter(|(_, other)| other.here) {
                self.keep(&inner, member);
            }
        }
        drop(self.orders);
        let _ = tokio::time::timeout(END, self.written).await;
    }
}

/// This program has started: what others said is known again, until they are heard.
pub fn recall(monitor: &Monitor) {
    let all = read_all(&monitor.config.state_dir, now().wall);
    let mut inner = monitor.lock();
    let mut taken = BTreeSet::from([inner.place.clone()]);
    for (member, said) in all {
        if member == inner.name {
            continue;
        }
        let place = if taken.insert(said.place.clone()) { said.place } else { member.clone() };
        inner.core.recall(now(), said.at_ms, &place, said.values);
        let away = "not heard since the start".to_owned();
        let (identity, other) = (said.identity, Other { place, away, ..Other::default() });
        inner.others.insert(member, Other { identity, ..other });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Unit;

    fn said(at_ms: u64) -> Said {
        let identity = Identity { serial: "S2".to_owned(), ..Identity::default() };
        let values = vec![(Meta::new("hwmon/x/temp1", "CPU", Unit::Celsius, 1000), 41.5)];
        Said { at_ms, identity, place: "2".to_owned(), values }
    }

    #[test]
    fn what_is_whole_and_not_old_is_known_again_and_the_rest_removed() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(read_all(state.path(), 0), []);
        for name in ["blade2", "old", "torn", "long"] {
            write(state.path(), name, &said(if name == "old" { 5 } else { FORGET_MS })).unwrap();
        }
        let at = |name: &str| state.path().join("last-known").join(name);
        let whole = fs::read(at("torn")).unwrap();
        fs::write(at("long"), vec![0; MAX_FILE as usize + 1]).unwrap();
        for len in 0..whole.len() {
            fs::write(at("torn"), &whole[..len]).unwrap();
            assert_eq!(read(&at("torn"), 0), None, "{len} bytes");
        }
        fs::write(at(".new"), &whole).unwrap();
        let all = read_all(state.path(), FORGET_MS + 6);
        assert_eq!(all, [("blade2".to_owned(), said(FORGET_MS))]);
        assert_eq!(fs::read_dir(at("")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn a_disk_that_hangs_holds_nobody() {
        let state = tempfile::tempdir().unwrap();
        fs::create_dir(state.path().join("last-known")).unwrap();
        // Opening it for writing waits for a reader.
        let hangs = state.path().join("last-known/.blade2");
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, hangs, kind, 0o600.into(), 0).unwrap();
        let keeper = Keeper::start(state.path()).unwrap();
        let mut refused = 0;
        for _ in 0..2 * MAX_FILES {
            refused += u32::from(keeper.orders.try_send(("blade2".to_owned(), said(7))).is_err());
        }
        assert!(refused > 0, "what waits has no end");
    }

    #[test]
    fn what_is_kept_fits_into_a_file() {
        let long = "x".repeat(500);
        let labels = [("one", long.as_str()), ("two", long.as_str())];
        let exported =
            crate::metric::Exported::gauge(&long[..64], &labels.map(|(k, v)| (k, &v[..96])));
        let meta = Meta::new(&long, &long, Unit::Volts, 1000).exported(exported);
        let state = tempfile::tempdir().unwrap();
        let most = Said { values: vec![(meta, 1.0); MAX_KEPT], ..said(7) };
        write(state.path(), "blade2", &most).unwrap();
        assert_eq!(read_all(state.path(), 7).len(), 1);
    }
}
