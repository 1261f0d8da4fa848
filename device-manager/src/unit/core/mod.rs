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

mod devices;
mod leases;
mod links;

use std::collections::BTreeMap;
use std::time::Duration;

use group::core::clock::{Clock, Offset};
use serde::{Deserialize, Serialize};

use crate::record::{Device, DeviceId, Found, Holder, LeaseInfo, Machine, Stamp};
use crate::wire::{Beat, Carried, FromHolder, FromUnit, ToHolder, ToUnit, Token};
use devices::Entry;
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
    /// Write this where the next life finds it if the machine stays up.
    Store(Kept),
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

/// What the next life of the program finds if the machine stays up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// Leases, in no order.
    pub leases: Vec<Stored>,
    /// Devices of which somebody had all and gave it back, with [`Found::instance`].
    pub set_up: BTreeMap<DeviceId, u64>,
}

/// A lease, as the next life of the program finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// As told.
    pub info: LeaseInfo,
    /// Its device, as it was.
    pub found: Found,
    /// See [`Found::instance`].
    pub instance: u64,
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
    restored: Kept,
    out: Vec<Action>,
}

impl Unit {
    /// A unit at its start; `restored` is of the life before: leases whose data paths run still, if they are in use. `wall` is this machine's time,
    /// microseconds since 1970.
    #[must_use]
    pub fn new(options: Options, mut restored: Kept, now: Micros, wall: i64) -> Self {
        restored.leases.retain(|stored| !stored.over);
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
            restored,
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

#[cfg(test)]
mod tests;
