// SPDX-License-Identifier: MIT OR Apache-2.0
//! A store of sensor data records with its reservation: the state behind IPMI 2.0 chapters 33 and 35.

use ipmi::CompletionCode;
use ipmi::sdr::{Body, HEADER_LEN, MAX_LEN, Record};

use super::Answer;

/// Bytes that the repository holds, 32 KiB: several times the largest set of sensors here.
pub const CAPACITY: usize = 32 * 1024;
/// The added record is not as long as its header says (Partial Add SDR, section 33.14).
const LENGTH_MISMATCH: CompletionCode = CompletionCode(0x80);
/// Record type of the board that [`Repository::change`] adds and removes.
const HOT_PLUG_TYPE: u8 = 0xc0;

/// At most one reservation is good at a time: the newest.
#[derive(Debug, Default)]
pub struct Reservation {
    last: u16,
    valid: bool,
}

impl Reservation {
    /// A new reservation; it ends the one before. Never 0, which means "none".
    pub fn take(&mut self) -> u16 {
        self.last = self.last.checked_add(1).unwrap_or(1);
        self.valid = true;
        self.last
    }

    /// Ends the reservation.
    pub fn cancel(&mut self) {
        self.valid = false;
    }

    /// Whether `id` (little endian) is the good one.
    ///
    /// # Errors
    /// C5.
    pub fn check(&self, id: [u8; 2]) -> Result<(), CompletionCode> {
        if self.valid && u16::from_le_bytes(id) == self.last {
            Ok(())
        } else {
            Err(CompletionCode::RESERVATION_CANCELLED)
        }
    }
}

/// Part of a record as Get SDR and Get SEL Entry ask for it; a count of 0xff means to the end.
///
/// # Errors
/// An offset outside, or more bytes than there are.
pub fn read_part(record: &[u8], offset: u8, count: u8) -> Result<&[u8], CompletionCode> {
    let rest = record.get(usize::from(offset)..).unwrap_or_default();
    if rest.is_empty() {
        return Err(CompletionCode::OUT_OF_RANGE);
    }
    match count {
        0xff => Ok(rest),
        count => rest.get(..usize::from(count)).ok_or(CompletionCode::CANNOT_RETURN_BYTES),
    }
}

/// The first number from `start` on that is not in use. 0x0000 and 0xffff have other meanings.
pub fn free_id(start: u16, used: impl Fn(u16) -> bool) -> u16 {
    let start = if matches!(start, 0 | 0xffff) { 1 } else { start };
    let ids = (start..0xffff).chain(1..start);
    ids.into_iter().find(|id| !used(*id)).expect("no store here holds 65534 records")
}

/// Records in their order, each with its number.
#[derive(Debug)]
pub struct Repository {
    records: Vec<(u16, Vec<u8>)>,
    next_id: u16,
    reservation: Reservation,
    added: u32,
    erased: u32,
    /// A record that Partial Add SDR has begun.
    partial: Option<(u16, Vec<u8>)>,
    /// The repository changes by itself after so many more Get SDR commands.
    change_after: Option<u32>,
}

impl Repository {
    /// A repository with these records, numbered from 1, filled at `time`.
    pub fn new(bodies: impl IntoIterator<Item = Body>, time: u32) -> Self {
        let mut repository = Self {
            records: Vec::new(),
            next_id: 1,
            reservation: Reservation::default(),
            added: time,
            erased: time,
            partial: None,
            change_after: None,
        };
        for body in bodies {
            let id = repository.next_id;
            let bytes = Record { id, body }.encode().expect("the simulator's own names are short");
            repository.records.push((id, bytes));
            repository.next_id += 1;
        }
        repository
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Bytes that are free.
    pub fn free(&self) -> usize {
        CAPACITY.saturating_sub(self.records.iter().map(|(_, bytes)| bytes.len()).sum())
    }

    /// When a record was last added, and when one was last erased.
    pub fn times(&self) -> (u32, u32) {
        (self.added, self.erased)
    }

    /// A new reservation.
    pub fn reserve(&mut self) -> u16 {
        self.reservation.take()
    }

    /// The reservation ends, and with it an unfinished record.
    pub fn cancel_reservation(&mut self) {
        self.reservation.cancel();
        self.partial = None;
    }

    fn find(&self, id: u16) -> Result<usize, CompletionCode> {
        match id {
            0x0000 => (!self.records.is_empty()).then_some(0),
            0xffff => self.records.len().checked_sub(1),
            id => self.records.iter().position(|(record, _)| *record == id),
        }
        .ok_or(CompletionCode::NOT_PRESENT)
    }

    /// Get SDR (section 33.12) and Get Device SDR: reservation, record, offset, count. The
    /// reservation counts only for a read from the middle of a record.
    ///
    /// # Errors
    /// C5, no such record, or bytes that are not there.
    pub fn get(&mut self, data: &[u8], time: u32) -> Answer {
        match self.change_after {
            Some(0) => {
                self.change(time);
                self.change_after = None;
            }
            Some(left) => self.change_after = Some(left - 1),
            None => {}
        }
        let &[resv0, resv1, id0, id1, offset, count] = data else {
            return Err(CompletionCode::DATA_LENGTH_INVALID);
        };
        if offset != 0 {
            self.reservation.check([resv0, resv1])?;
        }
        let at = self.find(u16::from_le_bytes([id0, id1]))?;
        let next = self.records.get(at + 1).map_or(0xffff, |(id, _)| *id);
        let mut answer = next.to_le_bytes().to_vec();
        answer.extend_from_slice(read_part(&self.records[at].1, offset, count)?);
        Ok(answer)
    }

    /// Add SDR. Returns the record's number.
    ///
    /// # Errors
    /// Wrong length, or no room.
    pub fn add(&mut self, record: &[u8], time: u32) -> Result<u16, CompletionCode> {
        self.insert(self.records.len(), record, time)
    }

    fn insert(&mut self, at: usize, record: &[u8], time: u32) -> Result<u16, CompletionCode> {
        let said = record.get(4).map(|len| HEADER_LEN + usize::from(*len));
        if said != Some(record.len()) {
            return Err(LENGTH_MISMATCH);
        }
        if record.len() > self.free() {
            return Err(CompletionCode::OUT_OF_SPACE);
        }
        let id = self.new_id();
        let mut record = record.to_vec();
        record[..2].copy_from_slice(&id.to_le_bytes());
        self.records.insert(at, (id, record));
        self.touch_added(time);
        Ok(id)
    }

    fn new_id(&mut self) -> u16 {
        let id = free_id(self.next_id, |id| self.records.iter().any(|(used, _)| *used == id));
        self.next_id = id + 1;
        id
    }

    /// Time stamps grow with each change even within a second: whoever caches by them shall see it.
    fn touch_added(&mut self, time: u32) {
        self.added = time.max(self.added.saturating_add(1));
        self.reservation.cancel();
    }

    fn touch_erased(&mut self, time: u32) {
        self.erased = time.max(self.erased.saturating_add(1));
        self.reservation.cancel();
    }

    /// Partial Add SDR (section 33.14): reservation, record, offset, progress, data. Returns the
    /// record's number, with which to go on.
    ///
    /// # Errors
    /// C5, an offset that does not follow on, or a wrong length at the end.
    pub fn partial_add(&mut self, data: &[u8], time: u32) -> Result<u16, CompletionCode> {
        let [resv0, resv1, id0, id1, offset, progress, part @ ..] = data else {
            return Err(CompletionCode::DATA_LENGTH_INVALID);
        };
        self.reservation.check([*resv0, *resv1])?;
        let id = u16::from_le_bytes([*id0, *id1]);
        if id == 0 && *offset == 0 {
            let id = self.new_id();
            self.partial = Some((id, Vec::new()));
        } else if self.partial.as_ref().is_none_or(|(begun, _)| *begun != id) {
            return Err(CompletionCode::NOT_PRESENT);
        }
        let (id, mut record) = self.partial.take().ok_or(CompletionCode::NOT_PRESENT)?;
        if record.len() != usize::from(*offset) || record.len() + part.len() > MAX_LEN {
            return Err(CompletionCode::OUT_OF_RANGE);
        }
        record.extend_from_slice(part);
        if progress & 0x0f == 0x01 {
            self.next_id = id;
            return self.add(&record, time);
        }
        self.partial = Some((id, record));
        Ok(id)
    }

    /// Delete SDR: reservation and record.
    ///
    /// # Errors
    /// C5 or no such record.
    pub fn delete(&mut self, data: &[u8], time: u32) -> Result<u16, CompletionCode> {
        let &[resv0, resv1, id0, id1] = data else {
            return Err(CompletionCode::DATA_LENGTH_INVALID);
        };
        self.reservation.check([resv0, resv1])?;
        let at = self.find(u16::from_le_bytes([id0, id1]))?;
        let (id, _) = self.records.remove(at);
        self.touch_erased(time);
        Ok(id)
    }

    /// Clear SDR Repository: reservation, `CLR`, operation. Whether anything was erased.
    ///
    /// # Errors
    /// C5 or another operation.
    pub fn clear(&mut self, data: &[u8], time: u32) -> Result<bool, CompletionCode> {
        let &[resv0, resv1, b'C', b'L', b'R', operation] = data else {
            return Err(CompletionCode::INVALID_DATA_FIELD);
        };
        match operation {
            0x00 => Ok(false),
            0xaa => {
                self.reservation.check([resv0, resv1])?;
                self.records.clear();
                self.touch_erased(time);
                Ok(true)
            }
            _ => Err(CompletionCode::INVALID_DATA_FIELD),
        }
    }

    /// Changes by itself, now (0) or after so many more Get SDR commands: a record comes into the
    /// middle, and goes the next time.
    pub fn change_after(&mut self, gets: u32, time: u32) {
        if gets == 0 {
            self.change(time);
        } else {
            self.change_after = Some(gets);
        }
    }

    fn change(&mut self, time: u32) {
        let there = self.records.iter().position(|(_, bytes)| bytes.get(3) == Some(&HOT_PLUG_TYPE));
        if let Some(at) = there {
            self.records.remove(at);
            self.touch_erased(time);
            return;
        }
        let mut bytes = super::device::MANUFACTURER.to_vec();
        bytes.extend(b"hot-plug board");
        let record = Record { id: 0, body: Body::Other { kind: HOT_PLUG_TYPE, bytes } };
        let record = record.encode().expect("17 bytes fit");
        // A repository without room stays as it is, but its reservation ends all the same.
        if self.insert(self.records.len() / 2, &record, time).is_err() {
            self.reservation.cancel();
        }
    }
}

#[cfg(test)]
mod tests;
