// SPDX-License-Identifier: MIT OR Apache-2.0
//! A unit's one manager: found, kept, and changed when it is silent or gone.

use super::devices::Entry;
use super::{Action, BEAT, CONNECT, ConnId, Micros, Note, PAUSE, SILENCE, Unit};
use crate::record::{MAX_EPOCH, Machine};
use crate::wire::{Beat, FromUnit, ToUnit};

/// Where it stands.
#[derive(Debug, Clone)]
pub(super) enum Link {
    /// The next attempt is due.
    Seeking { at: Micros },
    /// One is under way.
    Connecting { manager: Machine, since: Micros },
    /// Connected; the manager has not said who it takes the unit for.
    Greeting { manager: Machine, conn: ConnId, since: Micros },
    /// The manager has all that the unit says.
    Serving { manager: Machine, conn: ConnId, heard: Micros, beat_at: Micros },
}

impl Unit {
    pub(super) fn link_due(&self) -> Micros {
        match &self.link {
            Link::Seeking { .. } if self.managers.is_empty() => Micros::MAX,
            Link::Seeking { at } => *at,
            Link::Connecting { since, .. } | Link::Greeting { since, .. } => since + CONNECT,
            Link::Serving { heard, beat_at, .. } => (heard + SILENCE).min(*beat_at),
        }
    }

    pub(super) fn set_managers(&mut self, now: Micros, managers: Vec<Machine>) {
        if managers == self.managers {
            return;
        }
        let current = match &self.link {
            Link::Seeking { .. } => None,
            Link::Connecting { manager, .. }
            | Link::Greeting { manager, .. }
            | Link::Serving { manager, .. } => Some(manager.clone()),
        };
        self.managers = managers;
        self.turn = 0;
        match current {
            // It belongs to the group no more.
            Some(manager) if !self.managers.contains(&manager) => {
                self.leave(now, "it is in the list no more");
            }
            Some(manager) => {
                self.turn = self.managers.iter().position(|m| *m == manager).unwrap_or(0);
            }
            None => self.link = Link::Seeking { at: now },
        }
    }

    /// Gives a link up; the same manager is tried first, then the next.
    fn leave(&mut self, now: Micros, why: &'static str) {
        match std::mem::replace(&mut self.link, Link::Seeking { at: now }) {
            Link::Seeking { at } => self.link = Link::Seeking { at },
            Link::Connecting { .. } => {}
            Link::Greeting { conn, .. } => self.out.push(Action::Close(conn)),
            Link::Serving { manager, conn, .. } => {
                self.out.push(Action::Close(conn));
                self.out.push(Action::Note(Note::Without(manager, why)));
            }
        }
        (self.echo, self.offset) = (None, group::core::clock::Offset::default());
    }

    /// The next manager is to be tried: at once, until all were; then after a pause.
    fn try_next(&mut self, now: Micros) {
        self.turn = self.turn.wrapping_add(1);
        self.failures += 1;
        let rounds = self.failures / self.managers.len().max(1);
        let pause = if self.failures.is_multiple_of(self.managers.len().max(1)) {
            // Not all units of a rack at the same time.
            let jitter = (now ^ self.epoch).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
            let pause = (PAUSE.0 << rounds.min(5)).min(PAUSE.1);
            pause / 2 + pause * jitter / 131_072
        } else {
            0
        };
        self.link = Link::Seeking { at: now + pause };
    }

    pub(super) fn connected(&mut self, now: Micros, manager: Machine, conn: ConnId) {
        match &self.link {
            Link::Connecting { manager: wanted, .. } if *wanted == manager => {
                self.link = Link::Greeting { manager, conn, since: now };
            }
            // It came too late.
            _ => self.out.push(Action::Close(conn)),
        }
    }

    pub(super) fn not_connected(&mut self, now: Micros, manager: &Machine) {
        if matches!(&self.link, Link::Connecting { manager: wanted, .. } if wanted == manager) {
            self.try_next(now);
        }
    }

    pub(super) fn link_ended(&mut self, now: Micros, ended: ConnId, why: &'static str) {
        match self.link {
            Link::Greeting { conn, .. } if conn == ended => self.try_next(now),
            Link::Serving { conn, .. } if conn == ended => self.leave(now, why),
            _ => {}
        }
    }

    pub(super) fn said(&mut self, now: Micros, from: ConnId, message: ToUnit) {
        match &mut self.link {
            Link::Greeting { conn, .. } if *conn == from => {
                if let ToUnit::Welcome { newest, .. } = message {
                    self.welcomed(now, newest);
                } else {
                    self.out.push(Action::Close(from));
                    self.try_next(now);
                }
            }
            Link::Serving { conn, heard, .. } if *conn == from => {
                *heard = now;
                match message {
                    ToUnit::Welcome { .. } => {}
                    ToUnit::Lease(request, wanted, terms) => {
                        let answer = self.lease(now, &wanted, &terms);
                        self.out.push(Action::Send(from, FromUnit::Answer(request, answer)));
                    }
                    ToUnit::Revoke(no, why) => self.end(now, no, &why),
                    ToUnit::Beat(beat) => self.take_beat(now, &beat),
                    ToUnit::Elsewhere => {
                        self.leave(now, "it takes this unit for another manager's");
                    }
                }
            }
            _ => {}
        }
    }

    /// The manager knows how new the newest is that this unit ever said. If that is not older than what it says now, its
    /// disk was set back, and nobody would believe it.
    fn welcomed(&mut self, now: Micros, newest: Option<(u64, u64)>) {
        if newest.is_some_and(|newest| newest > (self.epoch, self.seq)) {
            // By a step that differs from life to life: another manager may have had the same to say to the life before.
            let step = 1 + u64::from(self.token(0).0[0]);
            let epoch = newest.map_or(0, |newest| newest.0.saturating_add(step)).min(MAX_EPOCH);
            self.leave(now, "");
            self.link = Link::Seeking { at: Micros::MAX };
            if self.raising.is_none() {
                self.raising = Some(epoch);
                self.out.push(Action::Raise(epoch));
            }
            return;
        }
        let Link::Greeting { manager, conn, .. } = self.link.clone() else { return };
        let hello =
            FromUnit::Hello { stamp: self.stamp(now), addresses: self.options.addresses.clone() };
        self.link = Link::Serving { manager: manager.clone(), conn, heard: now, beat_at: now };
        self.failures = 0;
        self.out.push(Action::Send(conn, hello));
        for id in self.devices.keys().copied().collect::<Vec<_>>() {
            self.tell(now, id);
        }
        self.out.push(Action::Send(conn, FromUnit::Complete));
        self.out.push(Action::Note(Note::With(manager)));
    }

    pub(super) fn raised(&mut self, now: Micros, epoch: u64) {
        if self.raising.take() == Some(epoch) {
            (self.epoch, self.seq, self.numbers) = (epoch, 0, 0);
            self.link = Link::Seeking { at: now };
            self.count_anew();
        }
    }

    /// What was counted from a lower epoch may be a number of a life before: whoever asks by that one means what was there then.
    fn count_anew(&mut self) {
        let is_free = |entry: &Entry| entry.device.functions.iter().all(|f| f.lease.is_none());
        let free = self.devices.iter().filter(|(_, entry)| is_free(entry));
        for id in free.map(|(id, _)| *id).collect::<Vec<_>>() {
            let gen_no = self.number();
            if let Some(entry) = self.devices.get_mut(&id) {
                entry.device.gen_no = gen_no;
            }
        }
    }

    pub(super) fn keep_link(&mut self, now: Micros) {
        match &mut self.link {
            Link::Seeking { at } if *at <= now && self.raising.is_none() => {
                let Some(manager) = self.managers.get(self.turn % self.managers.len().max(1))
                else {
                    return;
                };
                let manager = manager.clone();
                self.link = Link::Connecting { manager: manager.clone(), since: now };
                self.out.push(Action::Connect(manager));
            }
            Link::Connecting { since, .. } if *since + CONNECT <= now => self.try_next(now),
            Link::Greeting { since, conn, .. } if *since + CONNECT <= now => {
                self.out.push(Action::Close(*conn));
                self.try_next(now);
            }
            Link::Serving { heard, .. } if *heard + SILENCE <= now => {
                self.leave(now, "it is silent");
                self.try_next(now);
                self.keep_link(now);
            }
            Link::Serving { conn, beat_at, .. } if *beat_at <= now => {
                *beat_at = now + BEAT;
                let beat = Beat { sent: now, echo: self.echo, group: None };
                self.out.push(Action::Send(*conn, FromUnit::Beat(beat)));
            }
            _ => {}
        }
    }
}
