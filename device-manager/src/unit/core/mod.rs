// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a unit decides. [`Unit::handle`] is told what happens and when, and answers with what to do.
//!
//! ```text
//!  link:   seeking ──► connecting ──► welcomed: says all it has ──► serving ──(silence, end, told it is elsewhere)──► seeking
//!  lease:  granted ──► opened ──► carried ──► ending: its end is carried out ──► gone
//! ```
//!
//! The two do not touch each other: a lease begins only over a link to a manager, and goes on whatever becomes of
//! that. It ends here alone: given back, revoked, expired, its device unplugged or its data path lost; and only when
//! the data path is cut is the device free again.

mod leases;
mod links;

use std::collections::BTreeMap;
use std::time::Duration;

use group::core::clock::{Clock, Offset};
use serde::{Deserialize, Serialize};

use crate::record::{
    Device, DeviceId, Found, Function, Holder, LeaseInfo, MAX_DEVICES, MAX_FUNCTIONS, Machine,
    Stamp, WHOLE,
};
use crate::wire::{Beat, Carried, FromHolder, FromUnit, ToHolder, ToUnit, Token};
pub use leases::{Lease, RELEASED};
use links::Link;

/// Microseconds of this machine's clock since its boot.
pub type Micros = u64;

/// A connection to a manager, or of a holder.
pub type ConnId = u64;

/// Each side says something at least so often.
pub const BEAT: Micros = 1_000_000;
/// Who says nothing for so long is gone: three beats, and time for a late one.
pub const SILENCE: Micros = 3_500_000;
/// A connection that does not come about for so long is given up.
pub const CONNECT: Micros = 2_000_000;
/// Pause after all managers were tried, at first and at most.
pub const PAUSE: (Micros, Micros) = (100_000, 2_000_000);
/// Who was granted a lease comes for it within this time.
pub const OPEN: Micros = 10_000_000;

/// Why a part of a device is not to be had that needs to be set up.
const NO_SETUP: &str = "it is to be set up first: attach all of it, set it up, and give it back";

/// Why one is not to be had that was there before.
const GONE: &str = "it is gone";
/// Most parts of one device.
const MAX_PARTS: usize = MAX_FUNCTIONS - 1;

/// What does not change while the unit runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// This machine.
    pub own: Machine,
    /// This life, on disk before the unit begins.
    pub epoch: u64,
    /// For tokens.
    pub secret: [u8; 32],
    /// A lease that is not renewed for so long ends.
    pub ttl: Duration,
    /// Only the holder that lost a device may have it again for so long.
    pub quarantine: Duration,
    /// Where holders reach this unit.
    pub addresses: Vec<std::net::SocketAddr>,
}

/// What happens.
#[derive(Debug, Clone)]
pub enum Event {
    /// It is the time that [`Unit::next`] gave.
    Tick,
    /// The managers there are, the best first.
    Managers(Vec<Machine>),
    /// [`Action::Connect`] came about.
    Connected(Machine, ConnId),
    /// It did not.
    NotConnected(Machine),
    /// A link to a manager is over.
    LinkEnded(ConnId),
    /// A manager says something.
    Said(ConnId, ToUnit),
    /// All devices there are, and no others.
    Inventory(Vec<Found>),
    /// A holder on this machine says something; the first thing names its lease.
    Came(ConnId, Machine, FromHolder),
    /// A holder's connection is over.
    ConnEnded(ConnId),
    /// What became of [`Action::Carry`].
    Carries(u64, Result<Carried, String>),
    /// The data path of a lease is cut: by [`Action::Cut`], or by itself.
    Cut(u64),
    /// [`Action::Raise`] is on disk.
    Raised(u64),
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Connect to a manager; answered by [`Event::Connected`] or [`Event::NotConnected`].
    Connect(Machine),
    /// Say something to a manager.
    Send(ConnId, FromUnit),
    /// End a link.
    Close(ConnId),
    /// Say something to a holder.
    Answer(ConnId, ToHolder),
    /// End a holder's connection, when all is written.
    Hang(ConnId),
    /// Give a holder's connection to a device; answered by [`Event::Carries`]. Then it is nobody else's.
    Carry {
        /// The lease.
        no: u64,
        /// The connection.
        conn: ConnId,
        /// The device.
        found: Box<Found>,
        /// Which part of it, by its place.
        function: u8,
        /// Whether nothing may be written.
        read_only: bool,
    },
    /// Cut a lease's data path, whatever state it is in; answered by [`Event::Cut`].
    Cut(u64),
    /// Write the leases where the next life finds them if the machine stays up.
    Store(Vec<Stored>),
    /// Write this epoch to disk; answered by [`Event::Raised`].
    Raise(u64),
    /// For the log.
    Note(Note),
}

/// What happened, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// This manager has the unit now.
    With(Machine),
    /// No manager has it.
    Without(Machine, &'static str),
    /// A lease began.
    Granted(u64, DeviceId, Holder),
    /// A lease ended, and why.
    Ended(u64, DeviceId, Holder, String),
    /// A device is there.
    Plugged(DeviceId),
    /// A device is gone.
    Unplugged(DeviceId),
    /// Holders or managers did what they may not.
    Wrong(String),
}

/// A lease, as the next life of the program finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// As told.
    pub info: LeaseInfo,
    /// Its device, as it was.
    pub found: Found,
    /// See [`Device::gen_no`].
    pub gen_no: u64,
    /// Which part.
    pub function: u8,
    /// Whether nothing may be written.
    #[serde(default)]
    pub read_only: bool,
    /// Its token.
    pub token: Token,
    /// When it ends if it is not renewed, by the boot's clock.
    pub expires: Micros,
    /// When it ends if it is, by the same.
    pub ends: Option<Micros>,
    /// It has ended, and its data path is being cut: the next life gives the device back, and forgets it.
    #[serde(default)]
    pub over: bool,
    /// The parts of its device by their places, those too that are not there now: type and node.
    #[serde(default)]
    pub places: Vec<(String, String)>,
}

/// Where the unit stands with managers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With<'a> {
    /// It looks for one.
    Nobody,
    /// It has one.
    Manager(&'a Machine),
}

#[derive(Debug, Clone)]
struct Entry {
    device: Device,
    /// Whose it stays for a while.
    reserved: Option<(Holder, Micros)>,
    /// Somebody had all of it since it was plugged in, and gave it back.
    is_set_up: bool,
    /// Its parts since it was plugged in, in the order in which they came: who asks for one names it by its place,
    /// perhaps before another one goes.
    places: Vec<(String, String)>,
}

/// A unit.
#[derive(Debug, Clone)]
pub struct Unit {
    options: Options,
    epoch: u64,
    /// The epoch that is being written.
    raising: Option<u64>,
    seq: u64,
    numbers: u64,
    managers: Vec<Machine>,
    /// Which of them is to be tried next, and how many were in vain.
    turn: usize,
    failures: usize,
    link: Link,
    clock: Clock,
    offset: Offset,
    echo: Option<(u64, u64)>,
    devices: BTreeMap<DeviceId, Entry>,
    leases: BTreeMap<u64, Lease>,
    /// Of the life before; looked at with the first inventory.
    restored: Vec<Stored>,
    out: Vec<Action>,
}

impl Unit {
    /// A unit at its start; `restored` are leases of the life before whose data paths run still. `wall` is this machine's time,
    /// microseconds since 1970.
    #[must_use]
    pub fn new(options: Options, restored: Vec<Stored>, now: Micros, wall: i64) -> Self {
        Self {
            epoch: options.epoch,
            raising: None,
            seq: 0,
            numbers: 0,
            managers: vec![],
            turn: 0,
            failures: 0,
            link: Link::Seeking { at: now },
            clock: Clock::new(now, wall),
            offset: Offset::default(),
            echo: None,
            devices: BTreeMap::new(),
            leases: BTreeMap::new(),
            restored: restored.into_iter().filter(|stored| !stored.over).collect(),
            out: vec![],
            options,
        }
    }

    /// When to be called at the latest.
    #[must_use]
    pub fn next(&self) -> Micros {
        let leases = self.leases.values().map(Lease::due).min();
        leases.unwrap_or(Micros::MAX).min(self.link_due())
    }

    /// Takes in what happens.
    #[must_use = "they are to be carried out"]
    pub fn handle(&mut self, now: Micros, event: Event) -> Vec<Action> {
        match event {
            Event::Tick => {}
            Event::Managers(managers) => self.set_managers(now, managers),
            Event::Connected(manager, conn) => self.connected(now, manager, conn),
            Event::NotConnected(manager) => self.not_connected(now, &manager),
            Event::LinkEnded(conn) => self.link_ended(now, conn, "the connection ended"),
            Event::Said(conn, message) => self.said(now, conn, message),
            Event::Inventory(found) => self.inventory(now, found),
            Event::Came(conn, machine, message) => self.came(now, conn, &machine, message),
            Event::ConnEnded(conn) => self.conn_ended(conn),
            Event::Carries(no, result) => self.carries(now, no, result),
            Event::Cut(no) => self.is_cut(now, no),
            Event::Raised(epoch) => self.raised(now, epoch),
        }
        self.expire(now);
        self.keep_link(now);
        std::mem::take(&mut self.out)
    }

    /// Its devices.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values().map(|entry| &entry.device)
    }

    /// Its leases.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// Its manager.
    #[must_use]
    pub fn with(&self) -> With<'_> {
        match &self.link {
            Link::Serving { manager, .. } => With::Manager(manager),
            _ => With::Nobody,
        }
    }

    /// This life.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    fn stamp(&mut self, now: Micros) -> Stamp {
        self.seq += 1;
        Stamp { epoch: self.epoch, seq: self.seq, at: self.clock.stamp(now) }
    }

    /// Greater than all before, in earlier lives too: those have lower epochs.
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        (self.epoch << 32) | self.numbers
    }

    /// Tells the manager of a device as it is now.
    fn tell(&mut self, now: Micros, id: DeviceId) {
        let stamp = self.stamp(now);
        let Some(entry) = self.devices.get_mut(&id) else { return };
        entry.device.stamp = stamp;
        if let Link::Serving { conn, .. } = self.link {
            let device = Box::new(entry.device.clone());
            self.out.push(Action::Send(conn, FromUnit::Device(device)));
        }
    }

    fn inventory(&mut self, now: Micros, all: Vec<Found>) {
        let mut seen = BTreeMap::new();
        for found in all.into_iter().take(MAX_DEVICES) {
            seen.insert(DeviceId::new(&self.options.own, &found.key), found);
        }
        // Another one under the same name is another device.
        let same = |entry: &Entry, found: &Found| {
            let old = &entry.device.found;
            (old.descriptors, &old.path) == (found.descriptors, &found.path)
        };
        let gone = self
            .devices
            .iter()
            .filter(|(id, entry)| !seen.get(id).is_some_and(|found| same(entry, found)));
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.unplugged(now, id);
        }
        for (id, found) in seen {
            if self.devices.contains_key(&id) {
                self.changed(now, id, found);
            } else {
                self.plugged(now, id, found);
            }
        }
        for lost in std::mem::take(&mut self.restored) {
            // Its device is not there any more: what carried it is to go.
            self.out.push(Action::Cut(lost.info.no));
        }
    }

    /// Something of a device is different, or nothing.
    fn changed(&mut self, now: Micros, id: DeviceId, found: Found) {
        let Some(entry) = self.devices.get(&id) else { return };
        let count = entry.places.len();
        let is_new = |part: &&(String, String)| !entry.places.contains(part);
        let new = found.parts.iter().take(MAX_PARTS).filter(is_new).count();
        let is_free = entry.device.functions.iter().all(|f| f.lease.is_none());
        // As when drivers have it again after all of it was leased: they may give other nodes.
        let are_others =
            count > 0 && new > 0 && !entry.places.iter().any(|part| found.parts.contains(part));
        // Nobody is to get what has the place now of what he asked for.
        let anew = (is_free && (are_others || count + new > MAX_PARTS)).then(|| self.number());
        let Some(entry) = self.devices.get_mut(&id) else { return };
        if let Some(gen_no) = anew {
            entry.device.gen_no = gen_no;
            entry.places.clear();
        }
        let found = entry.place(found);
        if entry.device.found == found {
            return;
        }
        entry.device.update(found, entry.is_set_up);
        if entry.places.len() > count {
            self.store();
        }
        self.tell(now, id);
    }

    fn plugged(&mut self, now: Micros, id: DeviceId, found: Found) {
        // Of a life before. What was to be set up may have been plugged in again while nobody looked: that is asked for anew.
        let matches = |stored: &Stored| {
            (&stored.found.key, stored.found.descriptors) == (&found.key, found.descriptors)
                && (stored.function == WHOLE || (stored.part().is_some() && !found.needs_setup))
        };
        let (ours, others) = std::mem::take(&mut self.restored).into_iter().partition(matches);
        self.restored = others;
        let ours: Vec<Stored> = ours;
        let gen_no = ours.first().map_or_else(|| self.number(), |stored| stored.gen_no);
        let stamp = Stamp { epoch: self.epoch, seq: self.seq, at: 0 };
        let unit = self.options.own.clone();
        let mut functions = vec![Function::new("whole", None)];
        for stored in &ours {
            let lease = Some(stored.info.clone());
            match stored.part() {
                None => functions[usize::from(WHOLE)].lease = lease,
                Some((kind, node)) => {
                    functions.push(Function { lease, ..Function::new(kind, Some(node.clone())) });
                }
            }
        }
        let places = ours.iter().map(|stored| &stored.places).max_by_key(|places| places.len());
        let places = places.cloned().unwrap_or_default();
        let device = Device { id, unit, gen_no, functions, found: found.clone(), stamp };
        let mut entry = Entry { device, reserved: None, is_set_up: false, places };
        let found = entry.place(found);
        entry.device.update(found, false);
        self.devices.insert(id, entry);
        for stored in ours {
            self.restore(now, id, stored);
        }
        self.out.push(Action::Note(Note::Plugged(id)));
        self.tell(now, id);
    }

    /// Its parts may be used by themselves from here on, unless it was plugged in again meanwhile.
    fn set_up(&mut self, id: DeviceId, gen_no: u64) {
        let of = |entry: &&mut Entry| entry.device.gen_no == gen_no;
        let Some(entry) = self.devices.get_mut(&id).filter(of) else { return };
        entry.is_set_up = true;
        entry.device.update(entry.device.found.clone(), true);
    }

    fn unplugged(&mut self, now: Micros, id: DeviceId) {
        self.devices.remove(&id);
        let stamp = self.stamp(now);
        let held = self.leases.iter().filter(|(_, lease)| lease.device == id);
        for no in held.map(|(no, _)| *no).collect::<Vec<_>>() {
            self.end(now, no, "the device was unplugged");
        }
        if let Link::Serving { conn, .. } = self.link {
            self.out.push(Action::Send(conn, FromUnit::Gone(id, stamp)));
        }
        self.out.push(Action::Note(Note::Unplugged(id)));
    }

    fn take_beat(&mut self, now: Micros, beat: &Beat) {
        self.echo = Some((beat.sent, now));
        if let Some((sent, came)) = beat.echo {
            self.offset.take([sent, came, beat.sent, now]);
        }
        if let Some((best, group)) = self.offset.best(now).zip(beat.group) {
            self.clock.follow(now, best, group);
        }
    }
}

impl Stored {
    /// The part that is leased, by type and node; none for all of it.
    fn part(&self) -> Option<&(String, String)> {
        self.places.get(usize::from(self.function).checked_sub(1)?)
    }
}

impl Entry {
    /// Puts parts where they were before. One that is gone keeps its place before others, and while it is leased.
    fn place(&mut self, mut found: Found) -> Found {
        for part in &found.parts {
            if !self.places.contains(part) && self.places.len() < MAX_PARTS {
                self.places.push(part.clone());
            }
        }
        let leased: Vec<_> = self.device.functions.iter().filter(|f| f.lease.is_some()).collect();
        let is_leased = |node: &String| leased.iter().any(|f| f.node.as_ref() == Some(node));
        let is_there = |part: &(String, String)| found.parts.contains(part);
        let last = self.places.iter().rposition(|part| is_there(part) || is_leased(&part.1));
        let parts = self.places[..last.map_or(0, |last| last + 1)].to_vec();
        let gone = parts.iter().filter(|part| !is_there(part));
        let gone: Vec<_> = gone.map(|(_, node)| (node.clone(), GONE.to_owned())).collect();
        found.busy.extend(gone);
        Found { parts, ..found }
    }
}

impl Device {
    /// Takes over what is found of it, and leaves leases as they are.
    fn update(&mut self, found: Found, is_set_up: bool) {
        let whole = self.functions.swap_remove(0);
        let mut functions = vec![Function { unavailable: found.unavailable.clone(), ..whole }];
        for (kind, node) in &found.parts {
            let of = |f: &&Function| f.node.as_ref() == Some(node);
            let lease = self.functions.iter().find(of).and_then(|f| f.lease.clone());
            let busy = found.busy.iter().find(|(of, _)| of == node);
            let setup = (found.needs_setup && !is_set_up).then(|| NO_SETUP.to_owned());
            let unavailable = busy.map(|(_, why)| why.clone()).or(setup);
            let function = Function::new(kind, Some(node.clone()));
            functions.push(Function { lease, unavailable, ..function });
        }
        (self.functions, self.found) = (functions, found);
    }
}

#[cfg(test)]
mod tests;
