// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a device may hold: per sector the last flushed content, and what was written since.
//!
//! Contents are stamps: a sector is filled with one number, zeroes are 0. So it is seen when one is torn or mixed.

use std::collections::BTreeMap;

use usb_gadget_drive::source::Source;

use crate::disk::SECTOR;

#[derive(Clone, Default)]
struct Cell {
    safe: u64,
    later: Vec<u64>,
    /// What it was before a write that was not done, or not to its end.
    unsure: Option<u64>,
}

impl Cell {
    fn may_be(&self, found: u64) -> bool {
        found == self.safe || self.later.contains(&found)
    }
}

/// How a server ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The power is cut: what was not synced may be lost.
    Power,
    /// The process is killed: nothing that was done is lost.
    Kill,
    /// It is killed after a sync failed: as with the power, but what is there may still be lost.
    FailedSync,
}

/// A device, as far as anybody writes to it.
#[derive(Clone, Default)]
pub struct Model {
    cells: BTreeMap<u64, Cell>,
}

pub fn sectors(offset: u64, len: u64) -> std::ops::Range<u64> {
    offset / SECTOR..(offset + len) / SECTOR
}

/// The bytes of sectors with one stamp.
pub fn stamped(stamp: u64, len: u64) -> Vec<u8> {
    stamp.to_le_bytes().repeat(len as usize / 8)
}

fn stamps(bytes: &[u8]) -> Vec<Option<u64>> {
    let of = |sector: &[u8]| {
        let first = u64::from_le_bytes(sector[..8].try_into().expect("eight bytes"));
        // All words are the same if each is the one before it.
        (sector[8..] == sector[..sector.len() - 8]).then_some(first)
    };
    bytes.chunks(SECTOR as usize).map(of).collect()
}

impl Model {
    /// One with this content on stable storage.
    pub fn with(contents: impl Iterator<Item = (u64, u64)>) -> Self {
        let cells = contents.map(|(at, safe)| (at, Cell { safe, ..Cell::default() }));
        Self { cells: cells.collect() }
    }

    fn last(cell: &Cell) -> u64 {
        cell.later.last().copied().unwrap_or(cell.safe)
    }

    /// What it reads as now.
    pub fn now(&self) -> impl Iterator<Item = (u64, u64)> {
        self.cells.iter().map(|(at, cell)| (*at, Self::last(cell)))
    }

    /// A write, done, or not to its end.
    pub fn write(&mut self, offset: u64, len: u64, stamp: u64, is_done: bool) {
        for at in sectors(offset, len) {
            let cell = self.cells.get_mut(&at).expect("a sector that is looked at");
            cell.unsure = (!is_done).then(|| Self::last(cell));
            cell.later.push(stamp);
        }
    }

    pub fn flush(&mut self) {
        for cell in self.cells.values_mut() {
            cell.safe = Self::last(cell);
            cell.later.clear();
        }
    }

    pub fn flush_range(&mut self, offset: u64, len: u64) {
        for at in sectors(offset, len) {
            let cell = self.cells.get_mut(&at).expect("a sector that is looked at");
            cell.safe = Self::last(cell);
            cell.later.clear();
        }
    }

    /// Whether a range that was read is what it must be.
    pub fn check(&self, bytes: &[u8], offset: u64) -> Result<(), String> {
        for (at, found) in sectors(offset, bytes.len() as u64).zip(stamps(bytes)) {
            let wanted = self.cells.get(&at).map_or(0, Self::last);
            if found != Some(wanted) {
                return Err(format!("sector {at} is {found:x?} and must be {wanted:x}"));
            }
        }
        Ok(())
    }

    /// Reads all of it.
    pub fn check_all(&self, source: &dyn Source) -> Result<(), String> {
        let mut sector = [0; SECTOR as usize];
        for at in self.cells.keys() {
            source.read_at(&mut sector, at * SECTOR).map_err(|error| error.to_string())?;
            self.check(&sector, at * SECTOR)?;
        }
        Ok(())
    }

    /// Reads all of it after a crash. What was written is there, or, where it may be lost, was since the last flush.
    /// After a power cut what is there is safe.
    pub fn found(&mut self, source: &dyn Source, end: End) -> Result<(), String> {
        let mut sector = [0; SECTOR as usize];
        for (at, cell) in &mut self.cells {
            source.read_at(&mut sector, at * SECTOR).map_err(|error| error.to_string())?;
            let found = stamps(&sector)[0];
            match found {
                Some(found) if end == End::Power && cell.may_be(found) => {
                    cell.safe = found;
                    cell.later.clear();
                }
                Some(found) if found == Self::last(cell) => {}
                Some(found) if end == End::Kill && cell.unsure == Some(found) => {
                    cell.later.push(found);
                }
                Some(found) if end == End::FailedSync && cell.may_be(found) => {
                    cell.later.push(found);
                }
                _ => {
                    let Cell { safe, later, .. } = cell;
                    return Err(format!(
                        "sector {at} is {found:x?} after a crash, flushed {safe:x}, since then {later:x?}, {end:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}
