// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known of one other member: whether it is here, the link to it, and what it has said.

use std::net::IpAddr;

use secure_link::Name;

use super::Counters;
use super::clock::Offset;
use super::records::Mirror;
use super::timing::{
    BEAT, CONNECT, GRACE, LINGER, NETWORK_BEATS, PROBE, RETRY, RETRY_HERE, RETRY_MOST, SETTLED,
    SLOW_BEAT, suspect_after,
};
use crate::wire::{Beat, Echo, Flags, Life, Micros};

/// Most networks that members have in common.
pub const MAX_NETWORKS: usize = 4;

/// The order in which members are asked to be the manager: by address, the lowest first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(pub IpAddr, pub Name);

/// A link, as the shell numbers them.
pub type LinkId = u64;

/// Why a member is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It has not been met since this program started.
    NeverMet,
    /// It said that it stops.
    Left,
    /// Its machine is there, its program is not: the port is refused.
    Refused,
    /// Nothing comes from it, or nothing reaches it.
    Silent,
    /// It was shut out.
    Revoked,
    /// It sent what no member sends.
    Misbehaved,
}

/// The link to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// None; the next attempt is made, or asked for, at this time.
    None { attempt_at: Micros },
    /// The shell connects.
    Connecting { since: Micros },
    /// Both ends know each other.
    Up { id: LinkId, since: Micros, welcomed: bool },
}

/// Whether a member is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Away { since: Micros, why: Why },
    Here(Here),
}

/// The signs of life of a member that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Here {
    pub since: Micros,
    /// When anything last came from it.
    pub heard: Micros,
    /// When the newest beat that it has told to have received was sent.
    pub acked: Micros,
    /// Between its beats, or ours if that is more.
    pub interval: Micros,
    /// When it was last probed.
    pub probed: Micros,
}

impl Here {
    /// From when on it is probed. That it hears us is known two beats later than that we hear it.
    pub fn suspect_at(&self) -> Micros {
        let patience = suspect_after(self.interval);
        (self.heard + patience).min(self.acked + patience + 2 * self.interval)
    }

    /// When it is removed if nothing comes.
    pub fn dead_at(&self) -> Micros {
        self.suspect_at() + GRACE
    }

    /// Whether it counts as one of this part of the group, should it be parted.
    pub fn settled(&self, now: Micros) -> bool {
        now >= self.since + SETTLED
    }

    /// When to look again.
    pub fn look_at(&self) -> Micros {
        self.suspect_at().max(self.probed + PROBE).min(self.dead_at())
    }
}

/// What is known of one other member.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub name: Name,
    pub rank: Rank,
    pub link: Link,
    pub presence: Presence,
    /// Attempts at a link since there was one.
    pub attempts: u32,
    /// The newest life of it that is known.
    pub life: Option<Life>,
    pub flags: Flags,
    /// Whom it takes for the manager.
    pub manager: Option<Name>,
    /// The newest beat of it on each network.
    pub beats: [Option<Echo>; MAX_NETWORKS],
    /// When the last beat was sent to it.
    pub beaten: Micros,
    pub offset: Offset,
    /// Its group time minus its clock, and how far that may be off.
    pub time: Option<(i64, u64)>,
    /// Its records.
    pub mirror: Option<Mirror>,
    /// Since when its beats tell of records that have not come.
    pub behind: Option<Micros>,
    /// Whether it wants ours.
    pub wants: bool,
    /// Up to which version it has been sent ours.
    pub sent: Option<u64>,
    /// Whether a push waits to be written.
    pub pushing: bool,
}

impl Peer {
    pub fn new(name: Name, rank: Rank, now: Micros) -> Self {
        Self {
            name,
            rank,
            link: Link::None { attempt_at: now },
            presence: Presence::Away { since: now, why: Why::NeverMet },
            attempts: 0,
            life: None,
            flags: Flags::default(),
            manager: None,
            beats: [None; MAX_NETWORKS],
            beaten: 0,
            offset: Offset::default(),
            time: None,
            mirror: None,
            behind: None,
            wants: false,
            sent: None,
            pushing: false,
        }
    }

    pub fn here(&self) -> Option<&Here> {
        match &self.presence {
            Presence::Here(here) => Some(here),
            Presence::Away { .. } => None,
        }
    }

    pub fn here_mut(&mut self) -> Option<&mut Here> {
        match &mut self.presence {
            Presence::Here(here) => Some(here),
            Presence::Away { .. } => None,
        }
    }

    /// The link over which the other end has said who it is.
    pub fn welcomed(&self) -> Option<LinkId> {
        match self.link {
            Link::Up { id, welcomed: true, .. } => Some(id),
            _ => None,
        }
    }

    pub fn link_id(&self) -> Option<LinkId> {
        match self.link {
            Link::Up { id, .. } => Some(id),
            _ => None,
        }
    }

    /// When the link is given up, as nothing says that its other end still has it: no beats have come with it, or none
    /// come any more.
    pub fn given_up_at(&self) -> Option<Micros> {
        match (self.link, self.presence) {
            (Link::Up { since: up, .. }, Presence::Away { since, .. }) => {
                Some((up + CONNECT).max(since + LINGER))
            }
            _ => None,
        }
    }

    /// Its link is there still, and its beats stopped for a while.
    pub fn lingers(&self) -> bool {
        match (self.link, self.presence) {
            (Link::Up { since: up, .. }, Presence::Away { since, .. }) => since > up,
            _ => false,
        }
    }

    /// Whether beats are sent to it.
    pub fn gets_beats(&self) -> bool {
        self.welcomed().is_some() || self.here().is_some()
    }

    /// It could be the manager.
    pub fn candidate(&self) -> bool {
        self.here().is_some() && self.flags.eligible
    }

    /// The newest beat that it sent.
    pub fn echo(&self) -> Option<Echo> {
        self.beats.iter().flatten().max_by_key(|echo| echo.sent).copied()
    }

    /// The networks that its beats have come over lately.
    pub fn networks(&self, now: Micros) -> impl Iterator<Item = usize> + Clone {
        let interval = self.here().map_or(SLOW_BEAT, |here| here.interval);
        let lately = now.saturating_sub(NETWORK_BEATS * interval);
        let heard = move |beat: &Option<Echo>| beat.is_some_and(|beat| beat.arrived >= lately);
        self.beats.iter().enumerate().filter(move |at| heard(at.1)).map(|at| at.0)
    }

    /// Which network a beat to it goes over, when it is here, and heard over two or more.
    pub fn turn(&self, now: Micros, turn: usize) -> Option<usize> {
        self.here()?;
        let mut networks = self.networks(now);
        let count = networks.clone().count();
        (count >= 2).then(|| networks.nth(turn % count)).flatten()
    }

    /// Plans the next attempt: later with each, and not at the same time as others.
    pub fn back_off(&mut self, now: Micros) {
        let first = if self.here().is_some() { RETRY_HERE } else { RETRY };
        let wait = (first << self.attempts.min(10)).min(RETRY_MOST);
        self.attempts = self.attempts.saturating_add(1);
        // A quarter more or less, from name and attempt.
        let mix =
            self.name.as_str().bytes().fold(self.attempts, |mix, byte| {
                mix.wrapping_mul(31).wrapping_add(u32::from(byte))
            });
        let share = 750 + Micros::from(mix.wrapping_mul(2_654_435_761) >> 16) % 500;
        self.link = Link::None { attempt_at: now + wait * share / 1000 };
    }

    /// Takes a beat in. Returns whether it is one, and not the repetition of one.
    pub fn hear(
        &mut self,
        now: Micros,
        network: usize,
        beat: &Beat,
        counters: &mut Counters,
    ) -> bool {
        let newest = self.echo();
        let Some(slot) = self.beats.get_mut(network) else { return false };
        if self.life.is_none_or(|life| life.epoch != beat.epoch) {
            counters.stale += 1;
            return false;
        }
        if slot.is_some_and(|last| beat.sent <= last.sent) {
            counters.repeated += 1;
            return false;
        }
        *slot = Some(Echo { sent: beat.sent, arrived: now });
        if newest.is_some_and(|newest| beat.sent < newest.sent) {
            // It took its time on a slower network: its network works, but what it says is old.
            return true;
        }
        if let Some(here) = self.here_mut() {
            here.heard = here.heard.max(now);
            here.interval = Micros::from(beat.interval).saturating_mul(1000).max(BEAT);
            if let Some(echo) = beat.echo.filter(|echo| echo.sent <= now) {
                here.acked = here.acked.max(echo.sent);
            }
        }
        if let Some(Echo { sent, arrived }) = beat.echo.filter(|echo| echo.sent <= self.beaten) {
            self.offset.take([sent, arrived, beat.sent, now]);
        }
        self.time = beat
            .time_error
            .map(|error| (beat.time.wrapping_sub(beat.sent as i64), u64::from(error)));
        self.flags = beat.flags;
        self.manager.clone_from(&beat.manager);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_take_turns_while_beats_come_over_them() {
        let name: Name = "blade2".parse().unwrap();
        let rank = Rank([10, 0, 0, 2].into(), name.clone());
        let mut peer = Peer::new(name, rank, 0);
        let turns = |peer: &Peer, now| [0, 1, 2].map(|turn| peer.turn(now, turn));
        let heard = |arrived| Some(Echo { sent: 1, arrived });
        let now = 100 * BEAT;
        peer.beats[0] = heard(now);
        peer.beats[2] = heard(now);
        assert_eq!(turns(&peer, now), [None; 3], "it is not here");
        let here = Here { since: now, heard: now, acked: now, interval: BEAT, probed: 0 };
        peer.presence = Presence::Here(here);
        assert_eq!(turns(&peer, now), [Some(0), Some(2), Some(0)]);
        let last = now + NETWORK_BEATS * BEAT;
        peer.beats[2] = heard(last);
        assert_eq!(turns(&peer, last), [Some(0), Some(2), Some(0)]);
        assert_eq!(turns(&peer, last + 1), [None; 3], "one of two is silent");
        peer.beats[1] = heard(last);
        assert_eq!(turns(&peer, last + 1), [Some(1), Some(2), Some(1)]);
    }
}
