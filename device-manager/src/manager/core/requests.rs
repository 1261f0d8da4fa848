// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests: of this manager's services, to the manager that has the device; and of any manager's, to the unit.

use super::{Action, Ask, MAX_WANTS, Manager, Micros, Note, PATIENCE};
use crate::record::{DeviceId, Holder, Machine, Taken};
use crate::unit::core::ConnId;
use crate::wire::{Grant, Peer, Refusal, RequestNo, ToUnit, Wanted};

/// Of a service here.
#[derive(Debug, Clone)]
pub(super) struct Request {
    wanted: Wanted,
    state: Asked,
}

#[derive(Debug, Clone)]
enum Asked {
    /// Its manager is to be found again, until then.
    Nobody(Micros),
    /// This manager, itself or another, was asked.
    Manager(Machine),
}

impl Request {
    pub fn due(&self) -> Option<Micros> {
        match self.state {
            Asked::Nobody(until) => Some(until),
            Asked::Manager(_) => None,
        }
    }
}

/// For a device of a unit here.
#[derive(Debug, Clone)]
pub(super) struct Want {
    pub wanted: Wanted,
    state: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Somebody else has it.
    Waits,
    /// The unit was asked, over this connection, by this number.
    Asked(ConnId, u64),
    /// Likewise, and nobody wants it any more.
    Dropped(ConnId, u64),
}

impl Want {
    pub fn waits(&self) -> bool {
        self.state == Stage::Waits
    }
}

type Key = (Option<Machine>, RequestNo);

impl Manager {
    /// A service here wants a device.
    pub(super) fn ask(&mut self, now: Micros, no: RequestNo, ask: Ask) {
        if self.requests.len() >= MAX_WANTS {
            return self.out.push(Action::Answer(no, Err(Refusal::Full)));
        }
        let Some((device, _)) = self.device(ask.device) else {
            return self.out.push(Action::Answer(no, Err(Refusal::NoDevice)));
        };
        let Ask { device: id, function, holder, queue, limit_s, since_ms } = ask;
        let wanted = Wanted {
            device: id,
            gen_no: device.gen_no,
            function,
            holder,
            queue,
            limit_s,
            since_ms,
        };
        self.requests.insert(no, Request { wanted, state: Asked::Nobody(now + PATIENCE) });
        self.ask_found();
    }

    /// Requests whose manager was not known, and is now.
    pub(super) fn ask_found(&mut self) {
        let open = self.requests.iter().filter(|(_, r)| matches!(r.state, Asked::Nobody(_)));
        for no in open.map(|(no, _)| *no).collect::<Vec<_>>() {
            let wanted = self.requests[&no].wanted.clone();
            let Some((device, owner)) = self.device(wanted.device) else { continue };
            let owner = owner.clone();
            if device.gen_no != wanted.gen_no {
                self.requests.remove(&no);
                self.out.push(Action::Answer(no, Err(Refusal::NoDevice)));
                continue;
            }
            if let Some(request) = self.requests.get_mut(&no) {
                request.state = Asked::Manager(owner.clone());
            }
            if owner == self.options.own {
                self.want((None, no), wanted);
            } else {
                self.out.push(Action::ToPeer(owner, Peer::Want(no, wanted)));
            }
        }
    }

    /// A peer may have missed what it was asked, or its answer was: it is asked again, and knows the request by its number as
    /// long as it is not answered.
    pub(super) fn ask_again(&mut self, peer: &Machine) {
        for no in self.asks(peer) {
            let want = Peer::Want(no, self.requests[&no].wanted.clone());
            self.out.push(Action::ToPeer(peer.clone(), want));
        }
    }

    /// Requests that a peer was asked.
    pub(super) fn asks(&self, peer: &Machine) -> Vec<RequestNo> {
        let asked = |r: &Request| matches!(&r.state, Asked::Manager(to) if to == peer);
        self.requests.iter().filter(|(_, request)| asked(request)).map(|(no, _)| *no).collect()
    }

    /// A peer asks for nothing but this: that it wants something no more may have been missed.
    pub(super) fn asks_no_others(&mut self, peer: &Machine, requests: &[RequestNo]) {
        let of = self.wants.keys().filter(|(from, _)| from.as_ref() == Some(peer));
        let over = of.filter(|(_, no)| !requests.contains(no)).cloned();
        for key in over.collect::<Vec<_>>() {
            self.unwant(&key);
        }
    }

    pub(super) fn target_away(&mut self, now: Micros, peer: &Machine) {
        for request in self.requests.values_mut() {
            if matches!(&request.state, Asked::Manager(to) if to == peer) {
                request.state = Asked::Nobody(now + PATIENCE);
            }
        }
        self.ask_found();
    }

    pub(super) fn keep_requests(&mut self, now: Micros) {
        let late = self.requests.iter().filter(|(_, r)| r.due().is_some_and(|due| due <= now));
        for no in late.map(|(no, _)| *no).collect::<Vec<_>>() {
            self.requests.remove(&no);
            self.out.push(Action::Answer(no, Err(Refusal::NoUnit)));
        }
    }

    pub(super) fn cancel(&mut self, no: RequestNo) {
        let Some(request) = self.requests.remove(&no) else { return };
        match request.state {
            Asked::Manager(to) if to == self.options.own => self.unwant(&(None, no)),
            Asked::Manager(to) => self.out.push(Action::ToPeer(to, Peer::Cancel(no))),
            Asked::Nobody(_) => {}
        }
    }

    pub(super) fn is_queued(&mut self, from: &Machine, no: RequestNo, place: u32) {
        let request = self.requests.get(&no);
        if request.is_some_and(|r| matches!(&r.state, Asked::Manager(to) if to == from)) {
            self.out.push(Action::Waits(no, place));
        } else {
            // It was asked again when its answer was on its way.
            self.out.push(Action::ToPeer(from.clone(), Peer::Cancel(no)));
        }
    }

    pub(super) fn answered(
        &mut self,
        now: Micros,
        from: &Machine,
        no: RequestNo,
        answer: Result<Box<Grant>, Refusal>,
    ) {
        let Some(request) = self.requests.get_mut(&no) else {
            // The service went while the answer was on its way: nobody is to keep the device for it.
            if let Ok(grant) = answer
                && let Some(by) = grant.device.lease(grant.no).map(|lease| lease.holder.clone())
            {
                let unit = grant.device.unit.clone();
                let end = Peer::End { unit, no: grant.no, by, force: false };
                self.out.push(Action::ToPeer(from.clone(), end));
            }
            return;
        };
        if !matches!(&request.state, Asked::Manager(to) if to == from) {
            return;
        }
        // It was with another manager by then.
        if answer == Err(Refusal::NoUnit) {
            request.state = Asked::Nobody(now + PATIENCE);
            return;
        }
        self.requests.remove(&no);
        self.out.push(Action::Answer(no, answer));
    }

    fn reply(&mut self, key: Key, answer: Result<Box<Grant>, Refusal>) {
        match key {
            (Some(peer), no) => self.out.push(Action::ToPeer(peer, Peer::Answer(no, answer))),
            (None, no) => {
                if self.requests.remove(&no).is_some() {
                    self.out.push(Action::Answer(no, answer));
                }
            }
        }
    }

    /// Somebody wants a device of a unit here.
    pub(super) fn want(&mut self, key: Key, wanted: Wanted) {
        if let Some(want) = self.wants.get_mut(&key) {
            // Asked again, perhaps after it was thought to be gone.
            if let Stage::Dropped(conn, number) = want.state {
                want.state = Stage::Asked(conn, number);
            }
            return;
        }
        let found = self.units.values().find_map(|link| {
            link.stamp?;
            link.devices.get(&wanted.device)
        });
        let Some(device) = found else {
            return self.reply(key, Err(Refusal::NoUnit));
        };
        if device.gen_no != wanted.gen_no {
            return self.reply(key, Err(Refusal::NoDevice));
        }
        let allowed = match self.policy.judge(device, &wanted.holder, wanted.limit_s) {
            Ok(allowed) => allowed,
            Err(why) => {
                let note = Note::Denied(wanted.holder.clone(), wanted.device, why.clone());
                self.out.push(Action::Note(note));
                return self.reply(key, Err(Refusal::Denied(why)));
            }
        };
        let taken = match device.taken(wanted.function) {
            Some(Taken::Unavailable(why)) => Some(Refusal::Unavailable(why.to_owned())),
            Some(Taken::Leased(lease)) => Some(Refusal::Leased(lease.holder.clone())),
            None => None,
        };
        let waits =
            wanted.queue && allowed.queue && !matches!(taken, Some(Refusal::Unavailable(_)));
        if let Some(why) = taken.filter(|_| !waits) {
            return self.reply(key, Err(why));
        }
        if self.wants.len() >= MAX_WANTS {
            return self.reply(key, Err(Refusal::Full));
        }
        let (id, wanted) = (wanted.device, Wanted { queue: waits, ..wanted });
        self.wants.insert(key.clone(), Want { wanted, state: Stage::Waits });
        self.serve_queue(id);
        if self.wants.get(&key).is_some_and(Want::waits) {
            self.tell_places(id);
        }
    }

    /// Those who wait for a device, the first first.
    fn waiting(&self, id: DeviceId) -> Vec<Key> {
        let of = self.wants.iter().filter(|(_, want)| want.waits() && want.wanted.device == id);
        let mut keys: Vec<_> = of.map(|(key, want)| (want.wanted.since_ms, key.clone())).collect();
        keys.sort();
        keys.into_iter().map(|(_, key)| key).collect()
    }

    fn tell_places(&mut self, id: DeviceId) {
        for (place, key) in self.waiting(id).into_iter().enumerate() {
            let place = u32::try_from(place + 1).unwrap_or(u32::MAX);
            match key {
                (Some(peer), no) => self.out.push(Action::ToPeer(peer, Peer::Queued(no, place))),
                (None, no) => self.out.push(Action::Waits(no, place)),
            }
        }
    }

    /// Asks the unit for those who are next, one for each part of a device that is free.
    pub(super) fn serve_queue(&mut self, id: DeviceId) {
        let mut moved = false;
        for key in self.waiting(id) {
            let asked = self.wants.values().any(|want| !want.waits() && want.wanted.device == id);
            let Some(want) = self.wants.get(&key) else { continue };
            let found = self.units.iter().find_map(|(conn, link)| {
                link.stamp?;
                Some((*conn, link.devices.get(&id)?))
            });
            let Some((conn, device)) = found else { return };
            // Who waits behind somebody else must not overtake him; who does not wait may be told no by the unit.
            if device.taken(want.wanted.function).is_some() || (asked && want.wanted.queue) {
                continue;
            }
            let judged = self.policy.judge(device, &want.wanted.holder, want.wanted.limit_s);
            let terms = match judged {
                Ok(allowed) => allowed.terms,
                Err(why) => {
                    self.wants.remove(&key);
                    self.reply(key, Err(Refusal::Denied(why)));
                    continue;
                }
            };
            let wanted = want.wanted.clone();
            self.asked += 1;
            let number = self.asked;
            if let Some(want) = self.wants.get_mut(&key) {
                want.state = Stage::Asked(conn, number);
            }
            self.out.push(Action::ToUnit(conn, ToUnit::Lease(number, wanted, terms)));
            moved = true;
        }
        if moved {
            self.tell_places(id);
        }
    }

    pub(super) fn unit_answered(
        &mut self,
        conn: ConnId,
        number: u64,
        answer: Result<Box<Grant>, Refusal>,
    ) {
        let (asked, dropped) = (Stage::Asked(conn, number), Stage::Dropped(conn, number));
        let key = self.wants.iter().find(|(_, want)| want.state == asked || want.state == dropped);
        let Some(key) = key.map(|(key, _)| key.clone()) else { return };
        let Some(want) = self.wants.get_mut(&key) else { return };
        let id = want.wanted.device;
        if want.state == dropped {
            self.wants.remove(&key);
            if let Ok(grant) = answer {
                let revoke = ToUnit::Revoke(grant.no, "nobody wants it any more".to_owned());
                self.out.push(Action::ToUnit(conn, revoke));
            }
        } else if want.wanted.queue && matches!(answer, Err(Refusal::Leased(_))) {
            want.state = Stage::Waits;
            self.tell_places(id);
            return;
        } else {
            self.wants.remove(&key);
            self.reply(key, answer);
        }
        self.serve_queue(id);
    }

    pub(super) fn unwant(&mut self, key: &Key) {
        let Some(want) = self.wants.get_mut(key) else { return };
        let id = want.wanted.device;
        match want.state {
            Stage::Asked(conn, number) => want.state = Stage::Dropped(conn, number),
            Stage::Dropped(..) => {}
            Stage::Waits => {
                self.wants.remove(key);
                self.tell_places(id);
            }
        }
    }

    pub(super) fn asker_away(&mut self, peer: &Machine) {
        self.asks_no_others(peer, &[]);
    }

    /// A device is not here any more: those who wait for it ask whoever has it next.
    pub(super) fn forget_wants(&mut self, id: DeviceId) {
        let of = self.wants.iter().filter(|(_, want)| want.wanted.device == id);
        for key in of.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            let Some(want) = self.wants.remove(&key) else { continue };
            match (&key.0, want.state) {
                (_, Stage::Dropped(..)) => {}
                (None, _) => {
                    if let Some(request) = self.requests.get_mut(&key.1) {
                        // A moment from now at the earliest it is somewhere else; `ask_found` looks each time.
                        request.state = Asked::Nobody(self.lately + PATIENCE);
                    }
                }
                (Some(_), _) => self.reply(key, Err(Refusal::NoUnit)),
            }
        }
    }

    /// Ends a lease: asked by somebody here, or over a peer's link.
    pub(super) fn end_lease(
        &mut self,
        from: Option<&Machine>,
        unit: &Machine,
        no: u64,
        by: &Holder,
        force: bool,
    ) {
        let Some((conn, link)) = self.link_of(unit) else {
            let owner = self.owner(unit).map(|(owner, _)| owner.clone());
            if let Some(owner) = owner.filter(|owner| from.is_none() && *owner != self.options.own)
            {
                let end = Peer::End { unit: unit.clone(), no, by: by.clone(), force };
                self.out.push(Action::ToPeer(owner, end));
            }
            return;
        };
        let Some(lease) = link.devices.values().find_map(|device| device.lease(no)) else { return };
        let holder = &lease.holder;
        let own = by.machine == holder.machine && (by.uid == holder.uid || force);
        // The operators of the machine with the device, and of its manager, may take it away.
        let operator = force && (by.machine == *unit || by.machine == self.options.own);
        if own || operator {
            let why = if own {
                crate::unit::core::RELEASED.to_owned()
            } else {
                format!("taken away by {by}")
            };
            self.out.push(Action::ToUnit(conn, ToUnit::Revoke(no, why)));
        } else {
            let text = format!("{by} wants to end lease {no}, which is {holder}'s");
            self.out.push(Action::Note(Note::Wrong(text)));
        }
    }
}
