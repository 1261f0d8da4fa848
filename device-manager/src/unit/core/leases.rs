// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leases at the unit: granted, carried, renewed, ended.

use sha2::{Digest, Sha256};

use super::{Action, ConnId, Kept, Micros, Note, OPEN, Stored, Unit};
use crate::record::{DISK, DeviceId, Found, IPMI, LeaseInfo, Machine, Taken, WHOLE, cut};
use crate::wire::{Carried, FromHolder, Grant, LeaseTerms, Refusal, ToHolder, Token, Wanted};

/// What carries a lease's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    None,
    /// A connection is being handed over.
    Starting(ConnId),
    /// The kernel, or a task, has it.
    Running,
    /// It is being cut.
    Cutting,
}

/// A lease.
#[derive(Debug, Clone)]
pub struct Lease {
    /// As told.
    pub info: LeaseInfo,
    /// Of which device.
    pub device: DeviceId,
    /// Of which part.
    pub function: u8,
    read_only: bool,
    found: Found,
    gen_no: u64,
    token: Token,
    expires: Micros,
    ends: Option<Micros>,
    /// Over which it is renewed.
    control: Option<ConnId>,
    path: Path,
    /// Why it ends.
    ending: Option<String>,
}

impl Lease {
    pub(super) fn due(&self) -> Micros {
        if self.ending.is_some() {
            return Micros::MAX;
        }
        self.ends.map_or(self.expires, |ends| ends.min(self.expires))
    }

    /// Whether data may flow.
    #[must_use]
    pub fn is_carried(&self) -> bool {
        matches!(self.path, Path::Running | Path::Starting(_))
    }

    /// Whether it is over but for the data path.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// When it ends if it is not renewed.
    #[must_use]
    pub fn expires(&self) -> Micros {
        self.expires
    }
}

impl Unit {
    pub(super) fn token(&self, no: u64) -> Token {
        let digest = Sha256::digest([&self.options.secret[..], &no.to_le_bytes()].concat());
        Token(std::array::from_fn(|i| digest[i]))
    }

    fn ttl(&self) -> Micros {
        u64::try_from(self.options.ttl.as_micros()).unwrap_or(Micros::MAX / 4)
    }

    /// A manager asks for a lease.
    pub(super) fn lease(
        &mut self,
        now: Micros,
        wanted: &Wanted,
        terms: &LeaseTerms,
    ) -> Result<Box<Grant>, Refusal> {
        let through = match self.with() {
            super::With::Manager(manager) => manager.clone(),
            super::With::Nobody => return Err(Refusal::NoUnit),
        };
        let entry = self.devices.get_mut(&wanted.device).ok_or(Refusal::NoDevice)?;
        if entry.device.gen_no != wanted.gen_no {
            return Err(Refusal::NoDevice);
        }
        match entry.device.taken(wanted.function) {
            Some(Taken::Leased(lease)) => return Err(Refusal::Leased(lease.holder.clone())),
            Some(Taken::Unavailable(why)) => return Err(Refusal::Unavailable(why.to_owned())),
            None => {}
        }
        if let Some((holder, until)) = &entry.reserved
            && *until > now
            && (&holder.machine, holder.uid) != (&wanted.holder.machine, wanted.holder.uid)
        {
            return Err(Refusal::Leased(holder.clone()));
        }
        entry.reserved = None;
        let kind = &entry.device.functions[usize::from(wanted.function)].kind;
        if terms.read_only && kind != DISK {
            let why = if kind == IPMI { READ_ONLY_BMC } else { READ_ONLY };
            return Err(Refusal::Denied(why.to_owned()));
        }
        let found = entry.device.found.clone();
        let no = self.number();
        let since = self.clock.stamp(now);
        let limit = terms.limit_s.map(|limit| u64::from(limit) * 1_000_000);
        let info = LeaseInfo {
            no,
            holder: wanted.holder.clone(),
            through,
            since,
            until: limit.map(|limit| since.saturating_add_unsigned(limit)),
            in_use: false,
        };
        let lease = Lease {
            info: info.clone(),
            device: wanted.device,
            function: wanted.function,
            read_only: terms.read_only,
            found,
            gen_no: wanted.gen_no,
            token: self.token(no),
            expires: now + OPEN,
            ends: limit.map(|limit| now + limit),
            control: None,
            path: Path::None,
            ending: None,
        };
        let token = lease.token.clone();
        self.leases.insert(no, lease);
        if let Some(entry) = self.devices.get_mut(&wanted.device) {
            entry.device.functions[usize::from(wanted.function)].lease = Some(info);
            entry.refresh();
        }
        self.out.push(Action::Note(Note::Granted(no, wanted.device, wanted.holder.clone())));
        self.store();
        self.tell(now, wanted.device);
        let device = self.devices[&wanted.device].device.clone();
        let ttl_ms = u32::try_from(self.options.ttl.as_millis()).unwrap_or(u32::MAX);
        let addresses = self.options.addresses.clone();
        Ok(Box::new(Grant { no, device, function: wanted.function, token, addresses, ttl_ms }))
    }

    /// Shows or hides a lease at its device.
    fn show(&mut self, device: DeviceId, no: u64, info: Option<&LeaseInfo>) {
        let Some(entry) = self.devices.get_mut(&device) else { return };
        for function in &mut entry.device.functions {
            if function.lease.as_ref().is_some_and(|info| info.no == no) {
                function.lease = info.cloned();
            }
        }
    }

    pub(super) fn store(&mut self) {
        let alive = |lease: &&Lease| lease.ending.is_none() || lease.path != Path::None;
        let leases = self.leases.values().filter(alive).map(|lease| Stored {
            info: lease.info.clone(),
            found: lease.found.clone(),
            instance: lease.found.instance,
            gen_no: lease.gen_no,
            function: lease.function,
            read_only: lease.read_only,
            token: lease.token.clone(),
            expires: lease.expires,
            ends: lease.ends,
            over: lease.ending.is_some(),
            places: self.devices.get(&lease.device).map(|e| e.places.clone()).unwrap_or_default(),
        });
        let set_up = self.devices.iter().filter(|(_, entry)| entry.is_set_up);
        let set_up = set_up.map(|(id, entry)| (*id, entry.device.found.instance));
        let kept = Kept { leases: leases.collect(), set_up: set_up.collect() };
        self.out.push(Action::Store(kept));
    }

    /// A lease of the life before, whose data path runs still.
    pub(super) fn restore(&mut self, now: Micros, device: DeviceId, stored: Stored) {
        let Stored { info, gen_no, function, read_only, token, expires, ends, .. } = stored;
        // It is stored for a life after this one, too.
        let found = Found { instance: stored.instance, ..stored.found };
        let no = info.no;
        // The holder could not renew it while nobody was there.
        let expires = expires.max(now + OPEN);
        let path = if info.in_use { Path::Running } else { Path::None };
        let lease = Lease {
            info,
            device,
            function,
            read_only,
            found,
            gen_no,
            token,
            expires,
            ends,
            control: None,
            path,
            ending: None,
        };
        self.leases.insert(no, lease);
    }

    pub(super) fn came(&mut self, now: Micros, conn: ConnId, machine: &Machine, said: FromHolder) {
        let (no, token) = match &said {
            FromHolder::Open { no, token }
            | FromHolder::Data { no, token }
            | FromHolder::Framed { no, token } => (*no, token),
            FromHolder::Renew | FromHolder::Release => return self.renewed(now, conn, &said),
        };
        let good = self.leases.get(&no).filter(|lease| {
            lease.ending.is_none() && lease.token == *token && lease.info.holder.machine == *machine
        });
        if good.is_none() {
            let text =
                format!("{machine} came for lease {no}, which is not its own, or not any more");
            self.out.push(Action::Note(Note::Wrong(text)));
            return self.turn_away(conn, "there is no such lease");
        }
        let ttl = self.ttl();
        let Some(lease) = self.leases.get_mut(&no) else { return };
        if matches!(said, FromHolder::Open { .. }) {
            if let Some(old) = lease.control.replace(conn) {
                self.out.push(Action::Hang(old));
            }
            lease.expires = now + ttl;
            return self.good(conn);
        }
        if lease.path != Path::None {
            return self.turn_away(conn, "its data has a connection already");
        }
        lease.path = Path::Starting(conn);
        let (found, function) = (Box::new(lease.found.clone()), lease.function);
        let read_only = lease.read_only;
        self.out.push(Action::Carry { no, conn, found, function, read_only });
    }

    fn turn_away(&mut self, conn: ConnId, why: &str) {
        self.out.push(Action::Answer(conn, ToHolder::Ended(why.to_owned())));
        self.out.push(Action::Hang(conn));
    }

    fn renewed(&mut self, now: Micros, conn: ConnId, said: &FromHolder) {
        let ttl = self.ttl();
        let of_conn = self.leases.iter_mut().find(|(_, lease)| lease.control == Some(conn));
        let Some((no, lease)) = of_conn.filter(|(_, lease)| lease.ending.is_none()) else {
            return self.turn_away(conn, "there is no such lease");
        };
        if *said == FromHolder::Release {
            let no = *no;
            return self.end(now, no, RELEASED);
        }
        lease.expires = now + ttl;
        self.good(conn);
    }

    /// The holder counts on a lease for so long from here on: so must a life after this one.
    fn good(&mut self, conn: ConnId) {
        self.store();
        let ttl_ms = u32::try_from(self.ttl() / 1000).unwrap_or(u32::MAX);
        self.out.push(Action::Answer(conn, ToHolder::Good(ttl_ms)));
    }

    pub(super) fn conn_ended(&mut self, conn: ConnId) {
        for lease in self.leases.values_mut() {
            if lease.control == Some(conn) {
                lease.control = None;
            }
        }
    }

    pub(super) fn carries(&mut self, now: Micros, no: u64, result: Result<Carried, String>) {
        let Some(lease) = self.leases.get_mut(&no) else {
            // It ended meanwhile.
            self.out.push(Action::Cut(no));
            return;
        };
        if !matches!(lease.path, Path::Starting(_)) {
            return;
        }
        match result {
            Ok(_) => {
                lease.path = Path::Running;
                lease.info.in_use = true;
                let (device, info) = (lease.device, lease.info.clone());
                self.show(device, no, Some(&info));
                self.store();
                self.tell(now, device);
            }
            // Whatever is half done is undone.
            Err(why) => self.end(now, no, &why),
        }
    }

    pub(super) fn is_cut(&mut self, now: Micros, no: u64) {
        let Some(lease) = self.leases.get_mut(&no) else { return };
        lease.path = Path::None;
        if lease.ending.is_none() {
            // By itself: the machine of the holder, or the network to it, is gone.
            let (device, holder) = (lease.device, lease.info.holder.clone());
            let quarantine = u64::try_from(self.options.quarantine.as_micros()).unwrap_or(0);
            if let Some(entry) = self.devices.get_mut(&device).filter(|_| quarantine > 0) {
                entry.reserved = Some((holder, now + quarantine));
            }
            return self.end(now, no, "its data connection was lost");
        }
        self.store();
        self.finish(now, no);
    }

    /// Ends a lease: nothing flows any more, then it is gone.
    pub(super) fn end(&mut self, now: Micros, no: u64, why: &str) {
        let Some(lease) = self.leases.get_mut(&no).filter(|lease| lease.ending.is_none()) else {
            return;
        };
        // It may be longer than what a message bears.
        let why = cut(why);
        lease.ending = Some(why.clone());
        let (control, free) = (lease.control, lease.path == Path::None);
        if !free {
            lease.path = Path::Cutting;
        }
        // Before anybody is told: a life that is killed now must not bring it back.
        self.store();
        if let Some(conn) = control {
            self.out.push(Action::Answer(conn, ToHolder::Ended(why)));
            self.out.push(Action::Hang(conn));
        }
        if free {
            self.finish(now, no);
        } else {
            self.out.push(Action::Cut(no));
        }
    }

    fn finish(&mut self, now: Micros, no: u64) {
        let Some(lease) = self.leases.remove(&no) else { return };
        let why = lease.ending.unwrap_or_default();
        // Who lost it did not finish.
        let is_released = why == RELEASED;
        let note = Note::Ended(no, lease.device, lease.info.holder, why);
        self.out.push(Action::Note(note));
        self.show(lease.device, no, None);
        if lease.function == WHOLE && lease.info.in_use && is_released {
            self.set_up(lease.device, lease.gen_no);
        }
        // After all of it its parts are there when drivers have it again.
        if let Some(entry) = self.devices.get_mut(&lease.device) {
            entry.refresh();
        }
        self.tell(now, lease.device);
    }

    /// What was not renewed ends, here and nowhere else.
    pub(super) fn expire(&mut self, now: Micros) {
        let due = self.leases.iter().filter(|(_, lease)| lease.due() <= now);
        let due: Vec<_> = due.map(|(no, lease)| (*no, lease.expires <= now)).collect();
        for (no, silent) in due {
            self.end(now, no, if silent { "it was not renewed" } else { "its time is over" });
        }
    }
}

/// Why more than a disk cannot be had for reading alone.
const READ_ONLY: &str =
    "it may only be read, which a disk by itself can be held to: lease it with `--function disk`";
/// Why a BMC cannot be had so at all: which of its commands change nothing, only its maker knows.
const READ_ONLY_BMC: &str = "it may only be read, which a BMC cannot be held to";
/// Why a lease ends that its holder gives back.
pub const RELEASED: &str = "released";
