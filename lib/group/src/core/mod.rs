// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a member decides. [`Core::handle`] is told what happens and when, and answers with what to do: no
//! clock, no socket, no file, so that a simulation can be the whole group.
//!
//! ```text
//!  no link ──attempt (lower address) or ask (higher)──► connecting ──► link, Welcome both ways ──► beats both ways: here
//!     ▲                                                                                               │
//!     │◄── said it leaves, port refused ──────────────────────────────────────────────────────────────┤
//!     │◄── silent: suspected, probed, nothing ────────────────────────────────────────────────────────┤
//!     └─── the link ends: still here while beats come; the port is tried at once ─────────────────────┘
//! ```

mod beats;
pub mod clock;
mod election;
mod links;
mod peer;
mod pushes;
pub mod records;
mod status;
pub mod timing;

use std::collections::BTreeMap;
use std::net::IpAddr;

use secure_link::Name;

use crate::wire::{Beat, Life, Message, Micros};
use clock::Clock;
use election::Eligibility;
pub use election::{Standing, Unfit};
use peer::{Link, Peer, Presence};
pub use peer::{LinkId, MAX_NETWORKS, Rank, Why};
use records::{Change, Own, TooMuch};
pub use status::{MemberStatus, Records, Redirect, SEES, Status};
use timing::{STALL, suspect_after};

/// Whose records a member holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replication {
    /// Everybody's.
    #[default]
    All,
    /// Its own alone; it asks the others.
    Own,
}

/// A member of the group's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: Name,
    /// Its address on the first network.
    pub address: IpAddr,
}

/// What does not change while the program runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// This member.
    pub own: Name,
    /// This life, whose epoch is on disk.
    pub life: Life,
    /// Whose records it holds.
    pub replication: Replication,
    /// Whether it can be the manager at all.
    pub leads: bool,
}

/// What happens.
#[derive(Debug, Clone)]
pub enum Event {
    /// It is the time that [`Core::next`] gave.
    Tick,
    /// The group's list, this member in it.
    List(Vec<Listed>),
    /// A link to a member is there, connected to or accepted; it takes the place of an older one.
    Linked(Name, LinkId),
    /// A link that was there is over.
    LinkEnded(Name, LinkId),
    /// [`Action::Connect`] or [`Action::Knock`] came to nothing; `refused`: by the machine, whose program is not there.
    NotLinked {
        /// Whom it was to reach.
        peer: Name,
        /// Whether the port is refused.
        refused: bool,
    },
    /// A member, which may not initiate, asks to be connected to. Anybody may have sent it.
    Asked(Name),
    /// A member said something over a link.
    Message(Name, LinkId, Message),
    /// A member said something to the program: a sign of life.
    Heard(Name, LinkId),
    /// The last [`Message::Push`] was written to the link.
    Sent(Name, LinkId),
    /// A beat of a member came over a network, from 0.
    Beat(Name, usize, Beat),
    /// The epoch is on disk.
    Persisted(u64),
    /// A reason why this member cannot be the manager, or its end.
    Unfit(Unfit, bool),
    /// A member was shut out.
    Revoked(Name),
    /// This member stops.
    Leave,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Connect to a member, and answer [`Event::Linked`] or [`Event::NotLinked`].
    Connect(Name),
    /// Find out whether a member's port is refused, and answer [`Event::NotLinked`] if it is.
    Knock(Name),
    /// Ask a member to connect.
    Ask(Name),
    /// Say something over a link. A push is answered by [`Event::Sent`] when it is written.
    Send(Name, LinkId, Message),
    /// Send a beat.
    Beat(Name, Over, Beat),
    /// End a link.
    Close(Name, LinkId),
    /// Write the epoch to disk with everything before it, and answer [`Event::Persisted`].
    Persist(u64),
    /// For the program.
    Tell(Notice),
}

/// Where a beat goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Over all networks.
    All,
    /// Over this one, from 0.
    One(usize),
}

/// What a program wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A member is here.
    Here(Name),
    /// A member is not here any more.
    Away(Name, Why),
    /// There is another active manager, or none, as far as can be seen from here.
    Manager(Option<Name>),
    /// A member's records changed.
    Records(Name),
}

/// What happened, in numbers, since the program started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Counters {
    /// Changes of the active manager.
    pub elections: u64,
    /// Members that came.
    pub came: u64,
    /// Members that went.
    pub went: u64,
    /// Lists of records that had a gap, which was filled.
    pub repaired: u64,
    /// Beats, welcomes and records of lives that are over.
    pub stale: u64,
    /// Beats that were repeated on the way.
    pub repeated: u64,
    /// Times that this machine stood still.
    pub stalls: u64,
}

/// A member.
#[derive(Debug, Clone)]
pub struct Core {
    options: Options,
    life: Life,
    /// The epoch that is being written.
    raising: Option<u64>,
    /// This member's place; none while it is not in the list.
    rank: Option<Rank>,
    peers: BTreeMap<Name, Peer>,
    records: Own,
    clock: Clock,
    eligibility: Eligibility,
    manager: Option<Name>,
    beat_at: Micros,
    /// Counts its beats: networks take turns.
    turn: usize,
    /// The next one tells what is not to wait for a turn.
    urgent: bool,
    next: Micros,
    left: bool,
    counters: Counters,
    out: Vec<Action>,
}

impl Core {
    /// A member at its start. `wall` is its clock's time, in microseconds since 1970.
    #[must_use]
    pub fn new(options: Options, now: Micros, wall: i64) -> Self {
        Self {
            life: options.life,
            raising: None,
            rank: None,
            peers: BTreeMap::new(),
            records: Own::default(),
            clock: Clock::new(now, wall),
            eligibility: Eligibility::new(options.leads),
            manager: None,
            beat_at: now,
            turn: 0,
            urgent: false,
            next: now,
            left: false,
            counters: Counters::default(),
            out: vec![],
            options,
        }
    }

    /// When to be called at the latest.
    #[must_use]
    pub fn next(&self) -> Micros {
        self.next
    }

    /// Takes in what happens.
    #[must_use = "they are to be carried out"]
    pub fn handle(&mut self, now: Micros, event: Event) -> Vec<Action> {
        self.notice_stall(now);
        self.take(now, event);
        self.settle(now);
        std::mem::take(&mut self.out)
    }

    /// Changes this member's records, and tells the others.
    ///
    /// # Errors
    /// [`TooMuch`]: nothing is changed.
    pub fn change(&mut self, now: Micros, changes: Vec<Change>) -> Result<Vec<Action>, TooMuch> {
        self.notice_stall(now);
        let at = self.clock.stamp(now);
        self.records.change(changes, at)?;
        self.push_all();
        self.settle(now);
        Ok(std::mem::take(&mut self.out))
    }

    fn take(&mut self, now: Micros, event: Event) {
        match event {
            Event::Tick => {}
            Event::List(list) => self.list(now, list),
            Event::Linked(peer, id) => self.linked(now, &peer, id),
            Event::LinkEnded(peer, id) => self.link_ended(now, &peer, id),
            Event::NotLinked { peer, refused } => self.not_linked(now, &peer, refused),
            Event::Asked(peer) => self.asked(now, &peer),
            Event::Message(peer, id, message) => self.said(now, &peer, id, message),
            Event::Heard(peer, id) => self.heard(now, &peer, id),
            Event::Sent(peer, id) => self.pushed(&peer, id),
            Event::Beat(peer, network, beat) => self.beat(now, &peer, network, &beat),
            Event::Persisted(epoch) => self.persisted(epoch),
            Event::Unfit(unfit, is) => self.eligibility.set_unfit(unfit, is),
            Event::Revoked(peer) => self.remove(now, &peer, Why::Revoked),
            Event::Leave => self.leave(),
        }
    }

    /// All that the time brings, and what follows from what was taken in.
    fn settle(&mut self, now: Micros) {
        self.look_at_peers(now);
        self.elect(now);
        self.keep_time(now);
        if now >= self.beat_at && !self.left {
            self.beat_all(now);
        }
        self.next = self.find_next();
    }

    fn find_next(&self) -> Micros {
        let peers = self.peers.values().flat_map(|peer| {
            let link = match peer.link {
                Link::None { attempt_at } => Some(attempt_at),
                Link::Connecting { since } => Some(since + timing::CONNECT),
                Link::Up { .. } => peer.given_up_at(),
            };
            [link, peer.here().map(peer::Here::look_at)]
        });
        let own = [self.eligibility.look_at(), (!self.left).then_some(self.beat_at)];
        peers.chain(own).flatten().min().unwrap_or(Micros::MAX)
    }

    /// This machine stood still, or its loop did: what came meanwhile is not read yet, so nobody is accused
    /// of silence for that time.
    fn notice_stall(&mut self, now: Micros) {
        let late = now.saturating_sub(self.next);
        if late <= STALL || self.left {
            return;
        }
        self.counters.stalls += 1;
        let mut silent = 0;
        for peer in self.peers.values_mut() {
            let Presence::Here(here) = &mut peer.presence else { continue };
            silent = silent.max(now.saturating_sub(here.heard));
            here.heard = (here.heard + late).min(now);
            here.acked = (here.acked + late).min(now);
        }
        if silent >= suspect_after(self.interval()) + timing::GRACE {
            // The others have removed this member, and have another manager.
            self.eligibility.hold_down(now);
        }
    }

    fn remove(&mut self, now: Micros, name: &Name, why: Why) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let was_here = peer.here().is_some();
        // Its beats may come again at once: the link stays for a while.
        let lingers = was_here && why == Why::Silent;
        if let Link::Up { id, .. } = peer.link
            && !lingers
        {
            self.out.push(Action::Close(name.clone(), id));
            peer.pushing = false;
            peer.back_off(now);
        }
        peer.flags = crate::wire::Flags::default();
        (peer.manager, peer.time) = (None, None);
        peer.presence = match peer.presence {
            Presence::Away { since, .. } => Presence::Away { since, why },
            Presence::Here(_) => Presence::Away { since: now, why },
        };
        if was_here {
            self.counters.went += 1;
            self.out.push(Action::Tell(Notice::Away(name.clone(), why)));
        }
    }

    fn leave(&mut self) {
        self.left = true;
        for (name, peer) in &self.peers {
            if let Link::Up { id, .. } = peer.link {
                self.out.push(Action::Send(name.clone(), id, Message::Leaving));
                self.out.push(Action::Close(name.clone(), id));
            }
        }
    }
}
