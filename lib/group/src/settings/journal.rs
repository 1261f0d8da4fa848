// SPDX-License-Identifier: MIT OR Apache-2.0
//! The executor's records on disk. They belong to the machine, not to a reign: what was done stays done.

use std::sync::Arc;

use redb::{ReadableTable, TableDefinition};

use super::change::{OrderId, pack, unpack};
use super::disk::Disk;
use super::executor::Record;
use super::store::{Db, StoreError};

const NAME: &str = "journal.redb";
const RECORDS: TableDefinition<[u8; 16], &[u8]> = TableDefinition::new("orders");

/// The journal.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    inline: bool,
    /// None after a failure: a database that could not write wants to be opened again.
    db: Option<Arc<Db>>,
}

impl Journal {
    /// Opens it, and reads all of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(disk: Arc<dyn Disk>, inline: bool) -> Result<(Self, Vec<Record>), StoreError> {
        let db = Db::open(&*disk, NAME, inline)?;
        db.commit(true, |transaction| {
            transaction.open_table(RECORDS)?;
            Ok(())
        })?;
        let packed = db.read(|transaction| {
            let table = transaction.open_table(RECORDS)?;
            let records = table.iter()?.map(|item| Ok(item?.1.value().to_vec()));
            records.collect::<Result<Vec<_>, redb::Error>>()
        })?;
        let records = packed.iter().map(|record| unpack(record)).collect::<Option<_>>();
        let corrupt = || StoreError::Corrupt { file: disk.show(NAME), what: "a record" };
        let records = records.ok_or_else(corrupt)?;
        Ok((Self { disk, inline, db: Some(Arc::new(db)) }, records))
    }

    async fn write(
        &mut self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
    ) -> Result<(), StoreError> {
        let db = match self.db.take() {
            Some(db) => db,
            None => Arc::new(Db::open(&*self.disk, NAME, self.inline)?),
        };
        db.write(true, change).await?;
        self.db = Some(db);
        Ok(())
    }

    /// Puts a record on the disk, in place of the one with its id.
    ///
    /// # Errors
    /// It may or may not be there. The next attempt begins anew.
    pub async fn put(&mut self, record: &Record) -> Result<(), StoreError> {
        let (id, bytes) = (record.order.id.0, pack(record));
        self.write(move |transaction| {
            transaction.open_table(RECORDS)?.insert(id, bytes.as_slice())?;
            Ok(())
        })
        .await
    }

    /// Removes records.
    ///
    /// # Errors
    /// They may still be there.
    pub async fn forget(&mut self, ids: Vec<OrderId>) -> Result<(), StoreError> {
        self.write(move |transaction| {
            let mut table = transaction.open_table(RECORDS)?;
            for id in ids {
                table.remove(id.0)?;
            }
            Ok(())
        })
        .await
    }
}
