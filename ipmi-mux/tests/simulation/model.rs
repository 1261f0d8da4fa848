// SPDX-License-Identifier: MIT OR Apache-2.0
//! A BMC as IPMI 2.0 describes it, as far as the clients of the simulation use one. It knows when it did
//! what, and says so in its answers where these have room.

/// Microseconds of virtual time.
pub type Time = u64;

pub const MS: Time = 1_000;
pub const SECOND: Time = 1_000_000;

const OK: u8 = 0x00;
const INVALID_COMMAND: u8 = 0xc1;
const RESERVATION_CANCELLED: u8 = 0xc5;
const LENGTH_INVALID: u8 = 0xc7;
const NOT_PRESENT: u8 = 0xcb;
const INVALID_FIELD: u8 = 0xcc;

/// Global enables after a reset.
pub const DEFAULT_ENABLES: u8 = 0x01;
/// Bytes of the header of a sensor data record, the last of which is the length of the rest.
pub const HEADER: u8 = 5;

/// Records a repository holds.
const FULL: u16 = 20;

/// What differs from BMC to BMC.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// The reservation is checked where a record is read from its beginning, too.
    pub strict: bool,
    /// Clear SEL cancels the reservation it came with.
    pub clear_cancels: bool,
    /// Get SDR Repository Info and Get SEL Info exist.
    pub info: bool,
    /// First reservation.
    pub first_reservation: u16,
}

/// A repository: contents, and the one reservation.
#[derive(Debug)]
pub struct Store {
    pub count: u16,
    /// How often the contents have changed, by whomever; and when.
    pub version: u64,
    pub changes: Vec<Time>,
    /// The info of each version.
    pub infos: Vec<Vec<u8>>,
    /// When somebody beside the mux reserved.
    pub outsiders: Vec<Time>,
    reservation: u16,
    next_reservation: u16,
    added: u32,
    erased: u32,
}

impl Store {
    fn new(count: u16, first: u16) -> Self {
        let (changes, outsiders) = (vec![], vec![]);
        let mut store = Self {
            count,
            version: 0,
            changes,
            infos: vec![],
            outsiders,
            reservation: 0,
            next_reservation: first.max(1),
            added: 1,
            erased: 1,
        };
        store.infos.push(store.info());
        store
    }

    fn reserve(&mut self) -> u16 {
        self.reservation = self.next_reservation;
        self.next_reservation = self.next_reservation.checked_add(1).unwrap_or(1);
        self.reservation
    }

    fn is_good(&self, id: u16) -> bool {
        id != 0 && id == self.reservation
    }

    /// A stamp of seconds never stands still over a change: what stamps cannot tell, nobody can.
    fn stamp(&self, now: Time) -> u32 {
        let seconds = u32::try_from(now / SECOND).expect("a short simulation");
        seconds.max(self.added.max(self.erased) + 1)
    }

    pub fn add(&mut self, now: Time) {
        self.added = self.stamp(now);
        // A full one changes all the same: a record is replaced.
        self.count = (self.count + 1).min(FULL);
        self.changed(now);
        self.reservation = 0;
    }

    fn erase(&mut self, now: Time) {
        self.erased = self.stamp(now);
        self.count = 0;
        self.changed(now);
    }

    fn changed(&mut self, now: Time) {
        self.version += 1;
        self.changes.push(now);
        self.infos.push(self.info());
    }

    pub fn reserve_beside(&mut self, now: Time) {
        self.reserve();
        self.outsiders.push(now);
    }

    /// IPMI 2.0 tables 33-3 and 31-2, which are laid out alike.
    fn info(&self) -> Vec<u8> {
        let mut data = vec![OK, 0x51];
        data.extend(self.count.to_le_bytes());
        data.extend(1000u16.wrapping_sub(self.count).to_le_bytes());
        data.extend(self.added.to_le_bytes());
        data.extend(self.erased.to_le_bytes());
        data.push(0x02);
        data
    }

    /// Whether the change that ended a version added something.
    pub fn is_addition(&self, version: u64) -> bool {
        let count = |v: u64| self.infos.get(usize::try_from(v).ok()?)?.get(2..4);
        count(version + 1) != Some(&[0, 0])
    }

    /// The version that was current at a time.
    pub fn version_at(&self, at: Time) -> u64 {
        self.changes.partition_point(|change| *change <= at) as u64
    }

    pub fn changed_between(&self, from: Time, to: Time) -> bool {
        self.changes.iter().any(|at| (from..=to).contains(at))
    }
}

#[derive(Debug)]
pub struct Model {
    habits: Habits,
    pub sdr: Store,
    pub sel: Store,
    pub enables: u8,
    pub boot_in_progress: bool,
    pub watchdog_set: bool,
    /// Of the sensor: grows with every command that changes it.
    pub resets: Vec<Time>,
    counter: u32,
    sel_first: u16,
}

impl Model {
    pub fn new(habits: Habits, records: u16, entries: u16) -> Self {
        let first = habits.first_reservation;
        Self {
            habits,
            sdr: Store::new(records, first),
            sel: Store::new(entries, first),
            enables: DEFAULT_ENABLES,
            boot_in_progress: false,
            watchdog_set: false,
            resets: vec![],
            counter: 0,
            sel_first: 1,
        }
    }

    /// Cold reset, or a power cut: what is not in its flash is gone (IPMI 2.0 sections 20.2, 31.4).
    pub fn reset(&mut self, now: Time) {
        self.resets.push(now);
        self.sdr.reservation = 0;
        self.sel.reservation = 0;
        self.enables = DEFAULT_ENABLES;
        self.boot_in_progress = false;
        self.watchdog_set = false;
    }

    /// Carries out a command. The answer begins with the completion code.
    pub fn execute(&mut self, now: Time, netfn: u8, cmd: u8, data: &[u8]) -> Vec<u8> {
        match (netfn & 0x3f, cmd, data) {
            (0x06, 0x01, _) => vec![OK, 0x20, 1, 2, 3, 2, 0xbf, 1, 0, 0, 7, 7],
            (0x06, 0x02, []) => {
                self.reset(now);
                vec![OK]
            }
            (0x06, 0x22, _) => vec![if self.watchdog_set { OK } else { 0x80 }],
            (0x06, 0x24, [_, _, _, _, _, _]) => {
                self.watchdog_set = true;
                vec![OK]
            }
            (0x06, 0x25, []) => vec![OK, u8::from(self.watchdog_set)],
            (0x06, 0x2e, [enables]) => {
                self.enables = *enables;
                vec![OK]
            }
            (0x06, 0x2f, []) => vec![OK, self.enables],
            (0x00, 0x08, [parameter, value, ..]) => self.set_boot_option(*parameter, *value),
            // A reading that says when it was taken.
            (0x04, 0x2d, [sensor]) => [&[OK, *sensor][..], &now.to_le_bytes()].concat(),
            (0x04, 0x30, [_, ..]) => vec![OK],
            (0x30, 0x01, _) => [&[OK][..], data].concat(),
            (0x30, 0x03, _) => {
                self.counter += 1;
                [&[OK][..], &self.counter.to_le_bytes()].concat()
            }
            (0x0a, 0x20, []) if self.habits.info => self.sdr.info(),
            (0x0a, 0x40, []) if self.habits.info => self.sel.info(),
            (0x0a, 0x22, []) => reserved(self.sdr.reserve()),
            (0x0a, 0x42, []) => reserved(self.sel.reserve()),
            (0x0a, 0x23, &[r0, r1, i0, i1, offset, count]) => {
                let (reservation, id) =
                    (u16::from_le_bytes([r0, r1]), u16::from_le_bytes([i0, i1]));
                self.get_sdr(reservation, id, offset, count)
            }
            (0x0a, 0x43, &[r0, r1, i0, i1, offset, _]) => {
                let (reservation, id) =
                    (u16::from_le_bytes([r0, r1]), u16::from_le_bytes([i0, i1]));
                self.get_sel_entry(reservation, id, offset)
            }
            (0x0a, 0x47, &[r0, r1, b'C', b'L', b'R', operation]) => {
                self.clear_sel(now, u16::from_le_bytes([r0, r1]), operation)
            }
            (0x0a, 0x47 | 0x23 | 0x43, _) => vec![LENGTH_INVALID],
            _ => vec![INVALID_COMMAND],
        }
    }

    /// IPMI 2.0 section 28.12, with the completion code of table 28-13.
    fn set_boot_option(&mut self, parameter: u8, value: u8) -> Vec<u8> {
        if parameter & 0x7f != 0 {
            return vec![OK];
        }
        if value & 3 == 1 && self.boot_in_progress {
            return vec![0x81];
        }
        self.boot_in_progress = value & 3 == 1;
        vec![OK]
    }

    /// Record `id` holds its version in each byte but the first two and the fifth.
    fn get_sdr(&self, reservation: u16, id: u16, offset: u8, count: u8) -> Vec<u8> {
        let checked = offset > 0 || self.habits.strict && reservation != 0;
        if checked && !self.sdr.is_good(reservation) {
            return vec![RESERVATION_CANCELLED];
        }
        let id = id.max(1);
        if id > self.sdr.count {
            return vec![NOT_PRESENT];
        }
        let version = self.sdr.version.to_le_bytes()[0];
        let [low, high] = id.to_le_bytes();
        let rest = record_rest(id);
        let mut record = vec![low, high, version, version, rest];
        record.resize(usize::from(HEADER + rest), version);
        if usize::from(offset) >= record.len() {
            return vec![INVALID_FIELD];
        }
        let end = (usize::from(offset) + usize::from(count)).min(record.len());
        let next = if id == self.sdr.count { 0xffff } else { id + 1 };
        let next = next.to_le_bytes();
        [&[OK][..], &next, &record[usize::from(offset)..end]].concat()
    }

    fn get_sel_entry(&self, reservation: u16, id: u16, offset: u8) -> Vec<u8> {
        if offset > 0 && !self.sel.is_good(reservation) {
            return vec![RESERVATION_CANCELLED];
        }
        let id = if id == 0 { self.sel_first } else { id };
        if !(self.sel_first..self.sel_first + self.sel.count).contains(&id) {
            return vec![NOT_PRESENT];
        }
        let next = if id + 1 == self.sel_first + self.sel.count { 0xffff } else { id + 1 };
        let mut data = [&[OK][..], &next.to_le_bytes(), &id.to_le_bytes()].concat();
        data.resize(19, 2);
        data
    }

    /// IPMI 2.0 section 31.9: AA begins, 00 asks how far it is; the answer says "done".
    fn clear_sel(&mut self, now: Time, reservation: u16, operation: u8) -> Vec<u8> {
        if !self.sel.is_good(reservation) {
            return vec![RESERVATION_CANCELLED];
        }
        if operation == 0xaa {
            self.sel_first += self.sel.count;
            self.sel.erase(now);
            if self.habits.clear_cancels {
                self.sel.reservation = 0;
            }
        }
        vec![OK, 1]
    }
}

fn reserved(id: u16) -> Vec<u8> {
    [&[OK][..], &id.to_le_bytes()].concat()
}

/// Bytes of a record behind its header.
pub fn record_rest(id: u16) -> u8 {
    u8::try_from(7 + id * 13 % 40).expect("at most 46")
}
