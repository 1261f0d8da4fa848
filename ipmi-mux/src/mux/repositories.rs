// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reservations of SDR repositories and the SEL, one per virtual controller where the BMC has one in all.
//!
//! A BMC knows one good reservation per repository: the newest (IPMI 2.0 sections 31.4, 33.11, 35.4), so that
//! clients cancel each other's. Here each controller has a number of its own, and the mux has the one
//! real reservation and puts it in the place of theirs.
//!
//! When the BMC says C5 (cancelled), somebody beside us reserved, or the contents changed. Which of
//! them the repository's info tells: its counts and time stamps. Where it is the same, the mux reserves
//! again and repeats the command. Where it changed, a new *generation* begins: numbers of the one before
//! are void, as the specification wants it. A real reservation is therefore only used after the info was
//! read behind it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ipmi::NetFn;

use super::HandleId;
use super::request::Moment;
use crate::addr::Addr;
use crate::devintf::Send;

/// Repositories at once: a handful per controller that is reached. The least recently used one that
/// nobody has a reservation of makes room.
pub const MAX_REPOSITORIES: usize = 64;
/// How long a look at the info vouches for the contents. Clients that read records from the cache
/// learn of a change at most this late.
pub const CHECKED_FOR: Duration = Duration::from_secs(1);

/// A kind of repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The sensor data records of the whole system.
    Sdr,
    /// The sensor data records of a controller's own sensors.
    DeviceSdr,
    /// The system event log.
    Sel,
}

impl Kind {
    /// Network function, and commands that read the info and reserve.
    pub fn commands(self) -> (u8, u8, u8) {
        match self {
            Self::Sdr => (NetFn::STORAGE.get(), 0x20, 0x22),
            Self::DeviceSdr => (NetFn::SENSOR_EVENT.get(), 0x20, 0x22),
            Self::Sel => (NetFn::STORAGE.get(), 0x40, 0x42),
        }
    }
}

/// A repository of the controller at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub kind: Kind,
    pub addr: Addr,
}

/// What a command has to do with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Asks for a reservation.
    Reserve,
    /// Carries a reservation in its first two bytes.
    Reserved {
        /// It reads from the beginning of a record, for which none is needed.
        optional: bool,
    },
    /// Reads the info.
    Info,
    /// Neither, but it changes the contents.
    None,
}

/// Which repository a command is for, what it does there, and whether it changes the contents.
pub(super) fn role(send: &Send) -> Option<(Key, Role, bool)> {
    let netfn = NetFn::new(send.netfn & 0x3f)?;
    let data = &send.data[..];
    let reserved = Role::Reserved { optional: false };
    // Reservation, record, offset: Get SDR, Get Device SDR, Get SEL Entry.
    let get = || Role::Reserved { optional: data.get(4) == Some(&0) };
    // `CLR` and AA begins to erase; 00 asks how far it is.
    let erases = data.get(5) != Some(&0);
    let (kind, role, changes) = match (netfn, send.cmd) {
        (NetFn::STORAGE, 0x20) => (Kind::Sdr, Role::Info, false),
        (NetFn::STORAGE, 0x21) => (Kind::Sdr, Role::None, false),
        (NetFn::STORAGE, 0x22) => (Kind::Sdr, Role::Reserve, false),
        (NetFn::STORAGE, 0x23) => (Kind::Sdr, get(), false),
        (NetFn::STORAGE, 0x24) => (Kind::Sdr, Role::None, true),
        (NetFn::STORAGE, 0x25 | 0x26) => (Kind::Sdr, reserved, true),
        (NetFn::STORAGE, 0x27) => (Kind::Sdr, reserved, erases),
        (NetFn::STORAGE, 0x2a..=0x2c) => (Kind::Sdr, Role::None, true),
        (NetFn::STORAGE, 0x40) => (Kind::Sel, Role::Info, false),
        (NetFn::STORAGE, 0x42) => (Kind::Sel, Role::Reserve, false),
        (NetFn::STORAGE, 0x43) => (Kind::Sel, get(), false),
        (NetFn::STORAGE, 0x44) => (Kind::Sel, Role::None, true),
        (NetFn::STORAGE, 0x45 | 0x46) => (Kind::Sel, reserved, true),
        (NetFn::STORAGE, 0x47) => (Kind::Sel, reserved, erases),
        (NetFn::SENSOR_EVENT, 0x20) => (Kind::DeviceSdr, Role::Info, false),
        (NetFn::SENSOR_EVENT, 0x21) => (Kind::DeviceSdr, get(), false),
        (NetFn::SENSOR_EVENT, 0x22) => (Kind::DeviceSdr, Role::Reserve, false),
        _ => return None,
    };
    Some((Key { kind, addr: send.addr }, role, changes))
}

/// Reads a reservation, little endian. 0 is none.
pub(super) fn reservation(data: &[u8]) -> u16 {
    match data {
        [low, high, ..] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Real {
    id: u16,
    /// When the command that took it was handed to the BMC.
    taken: Moment,
}

/// What the info said last.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stamp {
    Unknown,
    /// The BMC has no such command, or answers it with an error: nothing tells a change from a
    /// reservation of somebody else.
    Unsupported,
    Is(Vec<u8>),
}

#[derive(Debug)]
pub(super) struct Repository {
    real: Option<Real>,
    stamp: Stamp,
    /// When the command that read the info last was handed to the BMC.
    checked: Option<Moment>,
    generation: u64,
    /// The controller whose reservation goes on after it changed the contents: as long as the real one
    /// does, for what others change at that moment no look at the info tells.
    goes_on: Option<HandleId>,
    /// Number and generation of each controller's reservation.
    ids: HashMap<HandleId, (u16, u64)>,
    next_id: u16,
    used: Instant,
}

impl Repository {
    fn new(now: Instant) -> Self {
        Self {
            real: None,
            stamp: Stamp::Unknown,
            checked: None,
            generation: 0,
            goes_on: None,
            ids: HashMap::new(),
            next_id: 1,
            used: now,
        }
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The real reservation, where the info has been read behind it.
    pub fn real(&self) -> Option<u16> {
        let real = self.real?;
        self.checked.is_some_and(|checked| checked > real.taken).then_some(real.id)
    }

    /// Whether there is a real reservation, the info behind it read or not.
    pub fn has_real(&self) -> bool {
        self.real.is_some()
    }

    /// Whether there is one, and not this.
    pub fn has_real_beside(&self, id: Option<u16>) -> bool {
        self.real.is_some_and(|real| Some(real.id) != id)
    }

    /// The same, taken after the command of that number.
    pub fn has_real_since(&self, number: u64) -> bool {
        self.real.is_some_and(|real| real.taken.1 > number)
    }

    /// Whether it is known what the contents were stamped with.
    pub fn has_stamp(&self) -> bool {
        matches!(self.stamp, Stamp::Is(_))
    }

    /// Whether the contents are vouched for at `now`.
    pub fn is_checked(&self, now: Instant) -> bool {
        let fresh = |(at, _)| now.saturating_duration_since(at) <= CHECKED_FOR;
        self.stamp != Stamp::Unsupported && self.checked.is_some_and(fresh)
    }

    /// Whether the real reservation and the look behind it are good for a client that asked after the
    /// command of serial number `asked`.
    pub fn serves(&self, kind: Kind, asked: u64, now: Instant) -> bool {
        let Some(real) = self.real.filter(|_| self.real().is_some()) else { return false };
        // Of the event log a client may be about to erase what it has not seen: it gets a new look always.
        real.taken.1 > asked || kind != Kind::Sel && self.is_checked(now)
    }

    /// A reservation for a controller; the one it had is void.
    pub fn hand_out(&mut self, controller: HandleId) -> u16 {
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        self.ids.insert(controller, (id, self.generation));
        self.goes_on = self.goes_on.filter(|other| *other != controller);
        id
    }

    /// Whether this number is a good reservation of the controller.
    pub fn is_good(&self, controller: HandleId, id: u16) -> bool {
        self.ids.get(&controller) == Some(&(id, self.generation))
    }

    /// The BMC has reserved.
    pub fn reserved(&mut self, id: u16, sent: Moment) {
        self.lose_real();
        self.real = Some(Real { id, taken: sent });
    }

    /// The BMC said that this reservation is cancelled.
    pub fn cancelled(&mut self, id: u16) {
        if self.real.is_some_and(|real| real.id == id) {
            self.lose_real();
        }
    }

    /// The real reservation is no longer that under which the ids were given out.
    fn lose_real(&mut self) {
        if let Some(controller) = self.goes_on.take() {
            self.ids.remove(&controller);
        }
        if self.real.take().is_some() && self.stamp == Stamp::Unsupported {
            self.generation += 1;
        }
    }

    /// The info was read, data after the completion code; an empty one was an error. Returns whether
    /// the contents have changed.
    pub fn learn(&mut self, info: &[u8], sent: Moment) -> bool {
        if self.checked.is_some_and(|checked| checked > sent) {
            return false;
        }
        self.checked = Some(sent);
        let stamp = if info.is_empty() { Stamp::Unsupported } else { Stamp::Is(info.to_vec()) };
        let changed = self.stamp != Stamp::Unknown && self.stamp != stamp;
        self.stamp = stamp;
        self.generation += u64::from(changed);
        changed
    }

    /// A command of ours changed the contents, or may have. Others' reservations are void; that of the
    /// controller that did it, if it is known to have worked, goes on.
    pub fn changed_by(&mut self, controller: Option<HandleId>) {
        let id = controller.and_then(|c| self.ids.get(&c).copied());
        let goes_on = id.filter(|(_, generation)| *generation == self.generation);
        self.generation += 1;
        self.stamp = Stamp::Unknown;
        self.checked = None;
        if let (Some(controller), Some((id, _))) = (controller, goes_on) {
            self.ids.insert(controller, (id, self.generation));
        }
        self.goes_on = controller.filter(|_| goes_on.is_some());
    }

    /// The BMC was reset, or firmware was at work: its reservation is gone, the contents may be others.
    pub fn distrust(&mut self) {
        self.lose_real();
        self.checked = None;
    }

    pub fn has_reservations(&self) -> bool {
        !self.ids.is_empty()
    }
}

#[derive(Debug, Default)]
pub(super) struct Repositories(HashMap<Key, Repository>);

impl Repositories {
    pub fn get(&self, key: &Key) -> Option<&Repository> {
        self.0.get(key)
    }

    pub fn get_mut(&mut self, key: &Key) -> Option<&mut Repository> {
        self.0.get_mut(key)
    }

    /// The repository, made known if it is new; `None` when there is no room for it.
    pub fn entry(&mut self, now: Instant, key: Key) -> Option<&mut Repository> {
        if self.0.len() >= MAX_REPOSITORIES && !self.0.contains_key(&key) {
            let unused = self.0.iter().filter(|(_, r)| !r.has_reservations());
            let oldest = unused.min_by_key(|(_, r)| r.used).map(|(key, _)| *key)?;
            self.0.remove(&oldest);
        }
        let repository = self.0.entry(key).or_insert_with(|| Repository::new(now));
        repository.used = now;
        Some(repository)
    }

    /// A controller is gone, and its reservations.
    pub fn forget(&mut self, controller: HandleId) {
        for repository in self.0.values_mut() {
            repository.ids.remove(&controller);
        }
    }

    pub fn distrust_all(&mut self) {
        self.0.values_mut().for_each(Repository::distrust);
    }

    /// Controllers with a reservation, for the status.
    pub fn reservations(&self) -> usize {
        self.0.values().map(|r| r.ids.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: HandleId = HandleId(1);
    const B: HandleId = HandleId(2);

    fn at(start: Instant, ms: u64) -> Moment {
        (start + Duration::from_millis(ms), ms)
    }

    #[test]
    fn a_reservation_is_good_after_a_look_behind_it() {
        let start = Instant::now();
        let mut r = Repository::new(start);
        r.reserved(7, at(start, 10));
        assert_eq!(r.real(), None);
        assert!(!r.learn(&[1], at(start, 5)), "the first look changes nothing");
        assert_eq!(r.real(), None, "it was before the reservation");
        r.learn(&[1], at(start, 20));
        assert_eq!(r.real(), Some(7));
        let (a, b) = (r.hand_out(A), r.hand_out(B));
        assert!(r.is_good(A, a) && r.is_good(B, b), "neither cancels the other's");
        assert!(!r.is_good(A, b) || a == b);
        let second = r.hand_out(A);
        assert!(!r.is_good(A, a) && r.is_good(A, second), "its own older one is void");
    }

    #[test]
    fn only_a_change_of_the_contents_voids_reservations() {
        let start = Instant::now();
        let mut r = Repository::new(start);
        r.reserved(7, at(start, 0));
        r.learn(&[1, 2], at(start, 1));
        let a = r.hand_out(A);
        r.cancelled(7);
        r.reserved(9, at(start, 10));
        r.learn(&[1, 2], at(start, 11));
        assert!(r.is_good(A, a), "somebody else had reserved, no more");
        assert!(r.learn(&[1, 3], at(start, 20)));
        assert!(!r.is_good(A, a));
    }

    #[test]
    fn without_info_every_cancellation_may_be_a_change() {
        let start = Instant::now();
        let mut r = Repository::new(start);
        r.reserved(7, at(start, 0));
        r.learn(&[], at(start, 1));
        let a = r.hand_out(A);
        r.cancelled(7);
        assert!(!r.is_good(A, a));
        assert!(!r.is_checked(start));
    }

    #[test]
    fn ones_own_change_voids_the_others_reservations() {
        let start = Instant::now();
        let mut r = Repository::new(start);
        r.learn(&[1], at(start, 0));
        let (a, b) = (r.hand_out(A), r.hand_out(B));
        r.changed_by(Some(A));
        assert!(r.is_good(A, a) && !r.is_good(B, b));
        assert!(!r.learn(&[2], at(start, 1)), "the new stamp is that of the change known of");
        r.changed_by(None);
        assert!(!r.is_good(A, a), "where it is not known whether it worked, nobody goes on");
    }

    #[test]
    fn repositories_in_use_are_kept() {
        let start = Instant::now();
        let mut all = Repositories::default();
        let key = |lun| Key { kind: Kind::Sdr, addr: Addr::system_interface(lun) };
        all.entry(start, key(0)).unwrap().hand_out(A);
        for lun in 1..=255 {
            assert!(all.entry(at(start, lun.into()).0, key(lun)).is_some());
        }
        assert_eq!(all.0.len(), MAX_REPOSITORIES);
        assert!(all.get(&key(0)).is_some() && all.get(&key(255)).is_some());
        for lun in 0..=255 {
            if let Some(r) = all.get_mut(&key(lun)) {
                r.hand_out(A);
            }
        }
        assert!(all.entry(start, key(7)).is_none());
        all.forget(A);
        assert!(all.entry(start, key(7)).is_some());
    }
}
