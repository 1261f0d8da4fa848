// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk that forgets, at a power cut, any of the sectors that were not synced; that fills; and whose files nobody can
//! touch any more who was killed.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use group::settings::disk::{Disk, StorageBackend};
use seeds::Rng;

const SECTOR: usize = 512;

#[derive(Debug)]
enum Op {
    Len(u64),
    Write(u64, Vec<u8>),
}

#[derive(Debug, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Op>,
}

fn write(bytes: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Len(len) => bytes.resize(usize::try_from(*len).expect("it fits"), 0),
        Op::Write(at, data) => {
            let at = usize::try_from(*at).expect("it fits");
            bytes.resize(bytes.len().max(at + data.len()), 0);
            bytes[at..at + data.len()].copy_from_slice(data);
        }
    }
}

#[derive(Debug, Default)]
struct Files {
    files: BTreeMap<String, Content>,
    life: u64,
    full: bool,
    syncs: u64,
}

/// A machine's disk, which outlives its processes.
#[derive(Debug, Clone, Default)]
pub struct Machine(Arc<Mutex<Files>>);

impl Machine {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.0.lock().expect("nobody panics with it")
    }

    /// For a process that starts now; those before it are dead.
    pub fn boot(&self) -> Handle {
        let mut files = self.files();
        files.life += 1;
        Handle { machine: self.clone(), life: files.life }
    }

    /// The process is gone. After a loss of power, so is any part of what was not synced.
    pub fn kill(&self, power: Option<&mut Rng>) {
        let mut files = self.files();
        files.life += 1;
        let Some(rng) = power else { return };
        for content in files.files.values_mut() {
            for op in std::mem::take(&mut content.unsynced) {
                match op {
                    Op::Len(_) if rng.permille(500) => write(&mut content.durable, &op),
                    Op::Len(_) => {}
                    Op::Write(at, data) => {
                        for (n, sector) in data.chunks(SECTOR).enumerate() {
                            if rng.permille(500) {
                                let at = at + (n * SECTOR) as u64;
                                write(&mut content.durable, &Op::Write(at, sector.to_vec()));
                            }
                        }
                    }
                }
            }
            content.live = content.durable.clone();
        }
    }

    pub fn set_full(&self, full: bool) {
        self.files().full = full;
    }

    pub fn syncs(&self) -> u64 {
        self.files().syncs
    }
}

/// The disk for one life of a process.
#[derive(Debug, Clone)]
pub struct Handle {
    machine: Machine,
    life: u64,
}

impl Handle {
    fn files(&self) -> io::Result<MutexGuard<'_, Files>> {
        let files = self.machine.files();
        if files.life == self.life { Ok(files) } else { Err(io::Error::other("killed")) }
    }

    fn files_with_room(&self) -> io::Result<MutexGuard<'_, Files>> {
        let files = self.files()?;
        if files.full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(files) }
    }
}

impl Disk for Handle {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files()?.files.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn StorageBackend>> {
        self.files()?.files.entry(name.to_owned()).or_default();
        Ok(Box::new(File { disk: self.clone(), name: name.to_owned() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files_with_room()?;
        let content = files.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files()?.files.remove(name);
        Ok(())
    }

    fn show(&self, name: &str) -> String {
        name.to_owned()
    }
}

#[derive(Debug)]
struct File {
    disk: Handle,
    name: String,
}

impl File {
    fn change(&self, op: Op) -> io::Result<()> {
        let mut files = self.disk.files_with_room()?;
        let content = files.files.get_mut(&self.name).ok_or(io::ErrorKind::NotFound)?;
        write(&mut content.live, &op);
        content.unsynced.push(op);
        Ok(())
    }
}

impl StorageBackend for File {
    fn len(&self) -> io::Result<u64> {
        let files = self.disk.files()?;
        let content = files.files.get(&self.name).ok_or(io::ErrorKind::NotFound)?;
        Ok(content.live.len() as u64)
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let files = self.disk.files()?;
        let content = files.files.get(&self.name).ok_or(io::ErrorKind::NotFound)?;
        let at = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = content.live.get(at..at + len).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(bytes.to_vec())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Op::Len(len))
    }

    fn sync_data(&self, _eventual: bool) -> io::Result<()> {
        let mut files = self.disk.files_with_room()?;
        files.syncs += 1;
        let content = files.files.get_mut(&self.name).ok_or(io::ErrorKind::NotFound)?;
        for op in std::mem::take(&mut content.unsynced) {
            write(&mut content.durable, &op);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Op::Write(offset, data.to_vec()))
    }
}
