// SPDX-License-Identifier: MIT OR Apache-2.0
//! Beats, and what they decide: who is here, who is the manager, what time it is.

use secure_link::Name;

use super::peer::{Here, Presence};
use super::timing::{BEAT, CATCH_UP, FEW, FIRST, SLOW_BEAT};
use super::{Action, Core, Notice, Over};
use crate::wire::{Beat, Flags, Message, Micros};

impl Core {
    /// How many members are here, this one counted.
    pub(super) fn sees(&self) -> u8 {
        let here = self.peers.values().filter(|peer| peer.here().is_some()).count();
        u8::try_from(here + 1).unwrap_or(u8::MAX)
    }

    /// How large this part of the group is, should it be parted: this member, and who else has been here for a while. Those
    /// count for neither part who come while the parts meet.
    fn part(&self, now: Micros) -> u8 {
        let settled = |peer: &&super::Peer| peer.here().is_some_and(|here| here.settled(now));
        let here = self.peers.values().filter(settled).count();
        u8::try_from(here + 1).unwrap_or(u8::MAX)
    }

    /// The same without that peer.
    pub(super) fn part_besides(&self, now: Micros, name: &Name) -> u8 {
        let it = self.peers.get(name).and_then(super::Peer::here);
        self.part(now) - u8::from(it.is_some_and(|here| here.settled(now)))
    }

    /// Between this member's beats: where there are many to send them to, those who are far from being the manager are slow.
    /// Who is linked and not here yet counts: if all that wait for one another were fast, none would ever be heard in time.
    pub(super) fn interval(&self) -> Micros {
        if self.peers.values().filter(|peer| peer.gets_beats()).count() < FEW {
            return BEAT;
        }
        let may_lead = |peer: &&super::Peer| {
            peer.candidate() || (peer.here().is_none() && peer.welcomed().is_some())
        };
        let before = |peer: &&super::Peer| Some(&peer.rank) < self.rank.as_ref();
        let few = self.peers.values().filter(may_lead).filter(before).count() < FIRST;
        if self.eligibility.eligible() && few { BEAT } else { SLOW_BEAT }
    }

    /// Networks take turns, as most of what a beat costs is the packet. What is new goes over all, and so does a beat to who
    /// is not heard over two of them.
    pub(super) fn beat_all(&mut self, now: Micros) {
        self.beat_at = now + self.interval();
        self.turn = self.turn.wrapping_add(1);
        let urgent = std::mem::take(&mut self.urgent);
        let reached = self.peers.values().filter(|peer| peer.gets_beats()).map(|peer| {
            let turn = peer.turn(now, self.turn).filter(|_| !urgent);
            (peer.name.clone(), turn.map_or(Over::All, Over::One))
        });
        for (name, over) in reached.collect::<Vec<_>>() {
            self.send_beat_over(over, now, &name, false);
        }
    }

    pub(super) fn send_beat(&mut self, now: Micros, name: &Name, probe: bool) {
        self.send_beat_over(Over::All, now, name, probe);
    }

    fn send_beat_over(&mut self, over: Over, now: Micros, name: &Name, probe: bool) {
        let (time, error) = self.clock.read(now);
        let (interval, part) = (self.interval(), self.part(now));
        let flags = self.flags();
        let Some(peer) = self.peers.get_mut(name) else { return };
        peer.beaten = now.max(peer.beaten + 1);
        let beat = Beat {
            sent: peer.beaten,
            epoch: self.life.epoch,
            echo: peer.echo(),
            probe,
            interval: u16::try_from(interval / 1000).unwrap_or(u16::MAX),
            flags,
            manager: self.manager.clone(),
            part,
            version: self.records.version(),
            hash: self.records.hash(),
            have: peer.mirror.as_ref().map_or(0, super::records::Mirror::version),
            // What was sent a microsecond later than it is, is so for the clock too.
            time: time.wrapping_add((peer.beaten - now) as i64),
            time_error: error.map(|error| u32::try_from(error).unwrap_or(u32::MAX)),
        };
        self.out.push(Action::Beat(name.clone(), over, beat));
    }

    fn flags(&self) -> Flags {
        let active = self.manager.as_ref() == Some(&self.options.own);
        Flags { eligible: self.eligibility.eligible(), active }
    }

    pub(super) fn beat(&mut self, now: Micros, name: &Name, network: usize, beat: &Beat) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let (linked, here) = (peer.welcomed().is_some(), peer.here().is_some());
        // Before its welcome nothing is known of this life of it.
        if !(linked || here) || !peer.hear(now, network, beat, &mut self.counters) {
            return;
        }
        if !here {
            self.meet(now, name, beat);
        }
        self.compare(now, name, beat);
        if beat.probe {
            self.send_beat(now, name, false);
        }
    }

    /// A member is here when it says what it has just received from us: that it is heard says nothing of that, nor does
    /// a link, which a firewall may let through without the beats. And somebody may have held back the beat.
    fn meet(&mut self, now: Micros, name: &Name, beat: &Beat) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let Some(echo) = beat.echo.filter(|echo| echo.sent <= now) else { return };
        let interval = Micros::from(beat.interval).saturating_mul(1000).max(BEAT);
        let here = Here { since: now, heard: now, acked: echo.sent, interval, probed: 0 };
        if now < here.dead_at() {
            let parted = peer.lingers();
            peer.presence = Presence::Here(here);
            self.counters.came += 1;
            self.out.push(Action::Tell(Notice::Here(name.clone())));
            if parted {
                // It may count this member already.
                self.give_way(now, name, beat.manager.as_ref(), beat.part.saturating_sub(1));
            }
            // It waits for the same.
            self.send_beat(now, name, false);
        }
    }

    /// Of a group that was parted the larger part keeps its manager for now. `part` is how many are in the other's, without this
    /// member.
    pub(super) fn give_way(&mut self, now: Micros, name: &Name, manager: Option<&Name>, part: u8) {
        let other = manager.is_some() && manager != self.manager.as_ref();
        if other && self.part_besides(now, name) < part {
            self.eligibility.hold_down(now);
            self.elect(now);
        }
    }

    /// Compares what the peer says of its records with what is here of them.
    fn compare(&mut self, now: Micros, name: &Name, beat: &Beat) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let Some((id, mirror)) = peer.welcomed().zip(peer.mirror.as_ref()) else { return };
        let same = mirror.have().is_some_and(|have| have.1 == beat.version);
        if same && mirror.hash() == beat.hash {
            peer.behind = None;
            return;
        }
        let since = *peer.behind.get_or_insert(now);
        // A version may be on its way; a wrong hash is not put right by waiting.
        if same || now >= since + CATCH_UP {
            peer.behind = None;
            self.counters.repaired += 1;
            self.out.push(Action::Send(name.clone(), id, Message::Again));
        }
    }

    /// Finds the manager, and tells of changes.
    pub(super) fn elect(&mut self, now: Micros) {
        let before = (self.flags(), self.manager.clone());
        let others = self.peers.values().any(super::Peer::candidate);
        let gone = |why| matches!(why, super::Why::Left);
        let all = self.peers.values().all(|peer| match peer.presence {
            Presence::Here(_) => true,
            Presence::Away { why, .. } => gone(why),
        });
        // Before the list is read nobody is known, and so nobody is missing.
        if self.rank.is_some() {
            self.eligibility.update(now, others, all);
        }
        let candidates = self.peers.values().filter(|peer| peer.candidate());
        let candidates = candidates.map(|peer| &peer.rank);
        let own = self.rank.as_ref().filter(|_| self.eligibility.eligible() && !self.left);
        self.manager = candidates.chain(own).min().map(|rank| rank.1.clone());
        if before.1 != self.manager {
            self.counters.elections += 1;
            self.out.push(Action::Tell(Notice::Manager(self.manager.clone())));
        }
        if before != (self.flags(), self.manager.clone()) {
            // The others are not kept waiting for the next beat.
            (self.beat_at, self.urgent) = (now, true);
        }
    }

    /// Follows the member with the lowest address, or is that member.
    pub(super) fn keep_time(&mut self, now: Micros) {
        let here = self.peers.values().filter(|peer| peer.here().is_some());
        let first = here.min_by_key(|peer| &peer.rank);
        match first.filter(|peer| self.rank.as_ref().is_none_or(|own| peer.rank < *own)) {
            Some(peer) => {
                if let Some((offset, theirs)) = peer.offset.best(now).zip(peer.time) {
                    self.clock.follow(now, offset, theirs);
                }
            }
            // At the start the others are awaited, as for the manager.
            None if self.manager.is_some() => self.clock.lead(now),
            None => {}
        }
    }
}
