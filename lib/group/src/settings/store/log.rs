// SPDX-License-Identifier: MIT OR Apache-2.0
//! Votes and entries on disk, as the engine wants them.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{ErrorSubject, ErrorVerb, LogState, OptionalSend, RaftLogReader};
use redb::ReadableTable;

use super::super::change::{pack, unpack};
use super::super::types::{Entry, LogId, MemberId, StorageError, Types, Vote};
use super::{Db, LOG, StoreError, set_meta};

/// Most bytes of entries that are read at a time: they must fit into a message.
const MAX_READ: usize = 512 << 10;

/// The log of a reign.
#[derive(Clone, Debug)]
pub struct Log {
    /// Where it is.
    pub db: Arc<Db>,
    /// The first entry that this version does not understand, if it was met: the engine is to start without it.
    pub halt: Option<u64>,
}

pub(super) fn failed(
    subject: ErrorSubject<MemberId>,
    verb: ErrorVerb,
    error: StoreError,
) -> StorageError {
    StorageError::from_io_error(subject, verb, error.into())
}

fn writing(error: StoreError) -> StorageError {
    failed(ErrorSubject::Logs, ErrorVerb::Write, error)
}

fn reading(error: StoreError) -> StorageError {
    failed(ErrorSubject::Logs, ErrorVerb::Read, error)
}

impl Log {
    fn entries(&self, range: impl RangeBounds<u64>, most: usize) -> Result<Vec<Entry>, StoreError> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        let packed = self.db.read(|transaction| {
            let table = transaction.open_table(LOG)?;
            let mut packed = vec![];
            let mut bytes = 0;
            for item in table.range::<u64>(range)? {
                let entry = item?.1.value().to_vec();
                bytes += entry.len();
                if bytes > most && !packed.is_empty() {
                    break;
                }
                packed.push(entry);
            }
            Ok(packed)
        })?;
        let unpacked = packed.iter().map(|entry| unpack(entry));
        unpacked.collect::<Option<_>>().ok_or_else(|| self.db.corrupt("an entry"))
    }

    /// The last entry that a majority is known to have.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn committed(&self) -> Result<Option<LogId>, StoreError> {
        Ok(self.db.meta::<Option<LogId>>("committed")?.flatten())
    }

    /// The entries after a place, without a bound but that of the log itself.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn after(&self, last: Option<LogId>) -> Result<Vec<Entry>, StoreError> {
        let from = last.map_or(Bound::Unbounded, |id| Bound::Excluded(id.index));
        self.entries((from, Bound::Unbounded), usize::MAX)
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        self.entries(range, usize::MAX).map_err(reading)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        let entries = self.entries(start..end, MAX_READ).map_err(reading)?;
        // A leader that has just fallen may look for what its successor had it cut off. The engine would panic at
        // nothing; so it is started again.
        if start < end && entries.is_empty() {
            return Err(reading(self.db.corrupt("a range of entries")));
        }
        Ok(entries)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let read = || {
            let last_purged_log_id: Option<LogId> = self.db.meta("purged")?;
            let last = self.db.read(|transaction| {
                let table = transaction.open_table(LOG)?;
                let last = table.last()?;
                Ok(last.map(|(_, entry)| entry.value().to_vec()))
            })?;
            let last: Option<Entry> = last
                .map(|entry| unpack(&entry).ok_or_else(|| self.db.corrupt("an entry")))
                .transpose()?;
            let last_log_id = last.map(|entry| entry.log_id).or(last_purged_log_id);
            Ok(LogState { last_purged_log_id, last_log_id })
        };
        read().map_err(reading)
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        let saved = self.db.write(true, move |transaction| set_meta(transaction, "vote", &vote));
        saved.await.map_err(|error| failed(ErrorSubject::Vote, ErrorVerb::Write, error))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let vote = self.db.meta("vote");
        vote.map_err(|error| failed(ErrorSubject::Vote, ErrorVerb::Read, error))
    }

    /// Not durably: whoever has lost it learns it again.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let saved =
            self.db.write(false, move |transaction| set_meta(transaction, "committed", &committed));
        saved.await.map_err(writing)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        let before_halt = |committed: Option<LogId>| match (committed, self.halt) {
            (Some(id), Some(halt)) if id.index >= halt => {
                let last = self.entries(halt.saturating_sub(1)..halt, usize::MAX)?.pop();
                Ok(last.map(|entry| entry.log_id))
            }
            _ => Ok(committed),
        };
        self.committed().and_then(before_halt).map_err(reading)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        flushed: LogFlushed<Types>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let packed: Vec<(u64, Vec<u8>)> =
            entries.into_iter().map(|entry| (entry.log_id.index, pack(&entry))).collect();
        let written = self.db.write(true, move |transaction| {
            let mut table = transaction.open_table(LOG)?;
            for (index, entry) in packed {
                table.insert(index, entry.as_slice())?;
            }
            Ok(())
        });
        written.await.map_err(writing)?;
        flushed.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId) -> Result<(), StorageError> {
        let written = self.db.write(true, move |transaction| {
            transaction.open_table(LOG)?.retain_in(from.index.., |_, _| false)?;
            Ok(())
        });
        written.await.map_err(writing)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        let written = self.db.write(true, move |transaction| {
            transaction.open_table(LOG)?.retain_in(..=upto.index, |_, _| false)?;
            set_meta(transaction, "purged", &upto)
        });
        written.await.map_err(writing)
    }
}
