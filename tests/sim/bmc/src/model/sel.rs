// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system event log: IPMI 2.0 chapter 31. Also the clock, which log and repository share.

use std::time::Duration;

use ipmi::CompletionCode;
use ipmi::sel::{Body, Entry, Event, LEN, OEM_PLAIN};

use super::records::{Reservation, free_id, read_part};
use super::{Answer, Bmc};

/// Entries that the log holds.
pub const MAX_ENTRIES: usize = 1_000;

/// The log.
#[derive(Debug)]
pub struct Sel {
    entries: Vec<(u16, [u8; LEN])>,
    next_id: u16,
    reservation: Reservation,
    added: u32,
    erased: u32,
    overflow: bool,
    utc_offset: [u8; 2],
}

impl Sel {
    /// An empty log, erased at `time`.
    pub fn new(time: u32) -> Self {
        Self {
            entries: Vec::new(),
            next_id: 1,
            reservation: Reservation::default(),
            added: time,
            erased: time,
            overflow: false,
            // Not known (section 31.11a).
            utc_offset: 0x07ffi16.to_le_bytes(),
        }
    }

    /// The reservation ends.
    pub fn cancel_reservation(&mut self) {
        self.reservation.cancel();
    }

    /// When the last entry was added.
    pub fn last_addition(&self) -> u32 {
        self.added
    }

    /// Number of the last entry, 0xffff when there is none.
    pub fn last_id(&self) -> u16 {
        self.entries.last().map_or(0xffff, |(id, _)| *id)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Appends a record; its number is chosen here.
    fn push(&mut self, time: u32, mut bytes: [u8; LEN]) -> Result<u16, CompletionCode> {
        if self.entries.len() >= MAX_ENTRIES {
            self.overflow = true;
            return Err(CompletionCode::OUT_OF_SPACE);
        }
        let id = free_id(self.next_id, |id| self.entries.iter().any(|(used, _)| *used == id));
        self.next_id = id + 1;
        bytes[..2].copy_from_slice(&id.to_le_bytes());
        self.entries.push((id, bytes));
        self.added = time;
        Ok(id)
    }

    /// Where the record with this number is; 0x0000 is the first, 0xffff the last.
    fn find(&self, id: u16) -> Result<usize, CompletionCode> {
        match id {
            0x0000 => (!self.entries.is_empty()).then_some(0),
            0xffff => self.entries.len().checked_sub(1),
            id => self.entries.iter().position(|(entry, _)| *entry == id),
        }
        .ok_or(CompletionCode::NOT_PRESENT)
    }
}

impl Bmc {
    /// An event happened: into the log and to system software.
    pub(super) fn post_event(&mut self, now: Duration, event: Event) {
        let timestamp = self.time(now);
        let mut entry = Entry { id: 0xffff, body: Body::System { timestamp, event } };
        if self.messaging.logging_enabled() {
            match self.sel.push(timestamp, entry.encode()) {
                Ok(id) => entry.id = id,
                Err(_) => self.note("event log is full"),
            }
        }
        self.note(format!("event of sensor {}", event.sensor));
        self.messaging.push_event(entry.encode());
    }

    /// The log, for looking.
    pub fn sel(&self) -> &Sel {
        &self.sel
    }
}

/// Version, entries, free bytes, times, and what is supported: delete, reserve, allocation info.
pub fn info(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    let sel = &bmc.sel;
    // Both are at most 16 times MAX_ENTRIES.
    let count = sel.entries.len() as u16;
    let free = ((MAX_ENTRIES - sel.entries.len()) * LEN) as u16;
    let mut data = vec![0x51];
    data.extend(count.to_le_bytes());
    data.extend(free.to_le_bytes());
    data.extend(sel.added.to_le_bytes());
    data.extend(sel.erased.to_le_bytes());
    data.push(if sel.overflow { 0x8b } else { 0x0b });
    Ok(data)
}

/// Units of one entry.
pub fn allocation_info(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    let free = (MAX_ENTRIES - bmc.sel.entries.len()) as u16;
    let mut data = (MAX_ENTRIES as u16).to_le_bytes().to_vec();
    data.extend((LEN as u16).to_le_bytes());
    data.extend(free.to_le_bytes());
    data.extend(free.to_le_bytes());
    data.push(1);
    Ok(data)
}

pub fn reserve(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    let id = bmc.sel.reservation.take();
    bmc.note(format!("SEL reservation 0x{id:04x}"));
    Ok(id.to_le_bytes().to_vec())
}

/// A reservation is needed only to read from the middle of a record (section 31.5).
pub fn get(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    let sel = &bmc.sel;
    if data[4] != 0 {
        sel.reservation.check([data[0], data[1]])?;
    }
    let at = sel.find(u16::from_le_bytes([data[2], data[3]]))?;
    let next = sel.entries.get(at + 1).map_or(0xffff, |(id, _)| *id);
    let mut answer = next.to_le_bytes().to_vec();
    answer.extend_from_slice(read_part(&sel.entries[at].1, data[4], data[5])?);
    Ok(answer)
}

/// The time stamp is set here for the types that have one (section 31.6).
pub fn add(bmc: &mut Bmc, now: Duration, data: &[u8]) -> Answer {
    let time = bmc.time(now);
    let mut bytes = [0; LEN];
    bytes.copy_from_slice(data);
    if bytes[2] < OEM_PLAIN {
        bytes[3..7].copy_from_slice(&time.to_le_bytes());
    }
    let id = bmc.sel.push(time, bytes)?;
    bmc.note(format!("SEL entry {id} added"));
    Ok(id.to_le_bytes().to_vec())
}

pub fn delete(bmc: &mut Bmc, now: Duration, data: &[u8]) -> Answer {
    let time = bmc.time(now);
    bmc.sel.reservation.check([data[0], data[1]])?;
    let at = bmc.sel.find(u16::from_le_bytes([data[2], data[3]]))?;
    let (id, _) = bmc.sel.entries.remove(at);
    bmc.sel.reservation.cancel();
    bmc.sel.erased = time;
    bmc.note(format!("SEL entry {id} deleted"));
    Ok(id.to_le_bytes().to_vec())
}

/// Erasing takes no time here, so its status is always "completed" (section 31.9). The status may be
/// asked without a reservation, because erasing has ended that.
pub fn clear(bmc: &mut Bmc, now: Duration, data: &[u8]) -> Answer {
    let time = bmc.time(now);
    if &data[2..5] != b"CLR" {
        return Err(CompletionCode::INVALID_DATA_FIELD);
    }
    match data[5] {
        0x00 => {}
        0xaa => {
            bmc.sel.reservation.check([data[0], data[1]])?;
            bmc.sel.reservation.cancel();
            bmc.sel.entries.clear();
            bmc.sel.overflow = false;
            bmc.sel.erased = time;
            bmc.note("SEL cleared");
        }
        _ => return Err(CompletionCode::INVALID_DATA_FIELD),
    }
    Ok(vec![0x01])
}

pub fn get_time(bmc: &mut Bmc, now: Duration, _: &[u8]) -> Answer {
    Ok(bmc.time(now).to_le_bytes().to_vec())
}

pub fn set_time(bmc: &mut Bmc, now: Duration, data: &[u8]) -> Answer {
    bmc.clock.set(now, u32::from_le_bytes([data[0], data[1], data[2], data[3]]));
    Ok(vec![])
}

pub fn get_utc_offset(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    Ok(bmc.sel.utc_offset.to_vec())
}

pub fn set_utc_offset(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    bmc.sel.utc_offset = [data[0], data[1]];
    Ok(vec![])
}
