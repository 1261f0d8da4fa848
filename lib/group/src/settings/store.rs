// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log of a reign on disk, in one file of its own: votes, entries, and the state that they were compacted into.
//!
//! The file with the greatest reign in its name is the log; older ones were put aside, and are kept for a while. A file gets
//! its name when it is whole. What is acknowledged is on disk before: a commit of the database is an fsync.

mod log;
mod machine;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use redb::{
    Database, Durability, ReadableTable, StorageBackend, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::change::{pack, unpack};
use super::disk::Disk;
use super::types::{Reign, Vote};

pub use log::Log;
pub use machine::{Contents, Machine, TooNew, View};

/// Logs of former reigns that are kept: a person may want to see what became of them.
pub const MAX_ASIDE: usize = 3;
/// Bytes of a database that are held in memory; the entries that followers need are the newest.
const CACHE: usize = 2 << 20;
const NEW: &str = "new.redb";

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");

/// Why something is not stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system's reason.
    #[error("{file}: {why}; see that the disk has room and is sound")]
    Io {
        /// Which.
        file: String,
        /// Why.
        why: String,
    },
    /// It has something that is not ours.
    #[error(
        "{file}: {what} cannot be read; dismiss this member, move the file away, and admit it again"
    )]
    Corrupt {
        /// Which.
        file: String,
        /// What.
        what: &'static str,
    },
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        Self::other(error)
    }
}

/// A database of ours: a log, or the journal.
#[derive(Debug)]
pub struct Db {
    database: Database,
    file: String,
    inline: bool,
}

#[derive(Debug)]
struct Backend(Box<dyn StorageBackend>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.0.read(offset, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self, eventual: bool) -> io::Result<()> {
        self.0.sync_data(eventual)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

impl Db {
    /// Opens it. `inline`: what waits for the disk waits in the caller's thread; else in one of the runtime's own.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(disk: &dyn Disk, name: &str, inline: bool) -> Result<Self, StoreError> {
        let file = disk.show(name);
        let io = |why: String| StoreError::Io { file: file.clone(), why };
        let backend = Backend(disk.open(name).map_err(|error| io(error.to_string()))?);
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE);
        let database =
            builder.create_with_backend(backend).map_err(|error| io(error.to_string()))?;
        Ok(Self { database, file, inline })
    }

    fn failed(&self, why: &redb::Error) -> StoreError {
        StoreError::Io { file: self.file.clone(), why: why.to_string() }
    }

    fn corrupt(&self, what: &'static str) -> StoreError {
        StoreError::Corrupt { file: self.file.clone(), what }
    }

    /// Changes it, and returns when that is on disk, or, if not `durable`, at once.
    pub(super) fn commit<R>(
        &self,
        durable: bool,
        change: impl FnOnce(&WriteTransaction) -> Result<R, redb::Error>,
    ) -> Result<R, StoreError> {
        let commit = || {
            let mut transaction = self.database.begin_write()?;
            let durability = if durable { Durability::Immediate } else { Durability::None };
            transaction.set_durability(durability);
            let result = change(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        commit().map_err(|error| self.failed(&error))
    }

    /// [`Self::commit`], without holding up others.
    pub(super) async fn write<R: Send + 'static>(
        self: &Arc<Self>,
        durable: bool,
        change: impl FnOnce(&WriteTransaction) -> Result<R, redb::Error> + Send + 'static,
    ) -> Result<R, StoreError> {
        if self.inline {
            return self.commit(durable, change);
        }
        let db = self.clone();
        let written = tokio::task::spawn_blocking(move || db.commit(durable, change)).await;
        written.unwrap_or_else(|stopped| {
            Err(StoreError::Io { file: self.file.clone(), why: stopped.to_string() })
        })
    }

    pub(super) fn read<R>(
        &self,
        read: impl FnOnce(&redb::ReadTransaction) -> Result<R, redb::Error>,
    ) -> Result<R, StoreError> {
        let read = || read(&self.database.begin_read()?);
        read().map_err(|error| self.failed(&error))
    }

    /// Something by name, whose form is checked.
    fn meta<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, StoreError> {
        let bytes = self.read(|transaction| {
            let table = transaction.open_table(META)?;
            Ok(table.get(name)?.map(|bytes| bytes.value().to_vec()))
        })?;
        bytes.map(|bytes| unpack(&bytes).ok_or_else(|| self.corrupt(name))).transpose()
    }
}

/// Its opposite, within a change.
fn get_meta<T: DeserializeOwned>(
    transaction: &WriteTransaction,
    name: &str,
) -> Result<Option<T>, redb::Error> {
    let table = transaction.open_table(META)?;
    let value = table.get(name)?;
    Ok(value.and_then(|bytes| unpack(bytes.value())))
}

fn set_meta<T: Serialize>(
    transaction: &WriteTransaction,
    name: &str,
    value: &T,
) -> Result<(), redb::Error> {
    transaction.open_table(META)?.insert(name, pack(value).as_slice())?;
    Ok(())
}

fn name_of(reign: Reign) -> String {
    format!("reign-{:020}-{}.redb", reign.number, reign.by)
}

fn reign_of(name: &str) -> Option<Reign> {
    let (number, by) = name.strip_prefix("reign-")?.strip_suffix(".redb")?.split_once('-')?;
    let by: secure_link::NodeId = by.parse().ok()?;
    Some(Reign { number: number.parse().ok()?, by: by.into() })
}

fn reigns(disk: &dyn Disk) -> Result<Vec<Reign>, StoreError> {
    let listed = disk.list();
    let names =
        listed.map_err(|why| StoreError::Io { file: disk.show("."), why: why.to_string() })?;
    let mut reigns: Vec<Reign> = names.iter().filter_map(|name| reign_of(name)).collect();
    reigns.sort_unstable();
    Ok(reigns)
}

/// The newest reign, if there is a log.
///
/// # Errors
/// The folder cannot be read.
pub fn newest(disk: &dyn Disk) -> Result<Option<Reign>, StoreError> {
    Ok(reigns(disk)?.pop())
}

/// Opens the log of the newest reign; there is one of the first, empty, if there was none.
///
/// # Errors
/// It cannot be read or made.
pub fn open_newest(disk: &dyn Disk, inline: bool) -> Result<(Reign, Db), StoreError> {
    let reign = match newest(disk)? {
        Some(reign) => reign,
        None => {
            make(disk, Reign::default(), None)?;
            Reign::default()
        }
    };
    Ok((reign, Db::open(disk, &name_of(reign), inline)?))
}

/// Opens the log of a reign that was put aside, the newest first.
///
/// # Errors
/// It cannot be read.
pub fn open_aside(disk: &dyn Disk, inline: bool) -> Result<Vec<(Reign, Db)>, StoreError> {
    let aside = reigns(disk)?.into_iter().rev().skip(1);
    aside.map(|reign| Ok((reign, Db::open(disk, &name_of(reign), inline)?))).collect()
}

/// Makes the log of a reign. From then on it is the newest, and what was is aside; the oldest of those are removed.
///
/// # Errors
/// It cannot be made: what was is still the newest.
pub fn make(disk: &dyn Disk, reign: Reign, base: Option<&Contents>) -> Result<(), StoreError> {
    let failed = |why: io::Error| StoreError::Io { file: disk.show(NEW), why: why.to_string() };
    disk.remove(NEW).map_err(failed)?;
    let db = Db::open(disk, NEW, true)?;
    db.commit(true, |transaction| {
        transaction.open_table(LOG)?;
        set_meta(transaction, "reign", &reign)?;
        if let Some(contents) = base {
            contents.store(transaction)?;
            if let Some(last) = contents.applied {
                set_meta(transaction, "purged", &last)?;
                // So that the engine does not take it for a log that was never begun.
                let vote = Vote::new(last.leader_id.term, last.leader_id.node_id);
                set_meta(transaction, "vote", &vote)?;
            }
        }
        Ok(())
    })?;
    drop(db);
    disk.rename(NEW, &name_of(reign)).map_err(failed)?;
    let aside: Vec<Reign> = reigns(disk)?.into_iter().rev().skip(1 + MAX_ASIDE).collect();
    for old in aside {
        disk.remove(&name_of(old)).map_err(failed)?;
    }
    Ok(())
}
