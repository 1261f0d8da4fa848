// SPDX-License-Identifier: MIT OR Apache-2.0
use std::sync::Arc;

use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::super::change::{Change, Origin};
use super::super::disk::Folder;
use super::super::state::{Policy, State};
use super::super::types::{MemberId, StorageError, Types};
use super::*;

struct Anything;

impl Policy for Anything {
    fn judge(&self, _: &Origin, _: &Change, _: &State) -> Result<(), String> {
        Ok(())
    }
}

/// The engine's own tests number members.
impl From<u64> for MemberId {
    fn from(number: u64) -> Self {
        Self(u128::from(number).to_be_bytes())
    }
}

struct Builder;

impl StoreBuilder<Types, Log, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError> {
        let folder = tempfile::tempdir().unwrap();
        let disk = Folder::open(folder.path()).unwrap();
        let (reign, db) = open_newest(&disk, true).unwrap();
        let db = Arc::new(db);
        let machine = Machine::open(db.clone(), reign, Arc::new(Anything), None).unwrap();
        Ok((folder, Log { db, halt: None }, machine))
    }
}

#[test]
fn it_is_as_the_engine_wants_it() {
    Suite::test_all(Builder).unwrap();
}

#[test]
fn the_newest_reign_is_the_log_and_three_older_ones_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Folder::open(folder.path()).unwrap();
    assert_eq!(open_newest(&disk, true).unwrap().0, Reign::default());
    for number in 1..=9 {
        let reign = Reign { number, by: MemberId([7; 16]) };
        make(&disk, reign, None).unwrap();
        assert_eq!(open_newest(&disk, true).unwrap().0, reign);
    }
    let aside = open_aside(&disk, true).unwrap();
    let aside: Vec<u64> = aside.iter().map(|(reign, _)| reign.number).collect();
    assert_eq!(aside, [8, 7, 6]);
    // One that was being made when the power went is nothing.
    Db::open(&disk, NEW, true).unwrap();
    assert_eq!(open_newest(&disk, true).unwrap().0.number, 9);
    assert_eq!(reign_of("reign-x-y.redb"), None);
    assert_eq!(reign_of("journal.redb"), None);
}

#[test]
fn an_error_names_the_file_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name_of(Reign::default())), b"not a database at all")
        .unwrap();
    let disk = Folder::open(folder.path()).unwrap();
    let error = open_newest(&disk, true).unwrap_err().to_string();
    assert!(error.contains("/reign-0") && error.contains("see that"), "{error}");
}
