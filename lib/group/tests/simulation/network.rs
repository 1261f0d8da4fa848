// SPDX-License-Identifier: MIT OR Apache-2.0
//! Networks between the machines: who reaches whom, over what, and how well.

use std::collections::{BTreeMap, VecDeque};

use group::core::LinkId;
use group::wire::{Message, Micros};
use seeds::Rng;

/// How many there are.
pub const NETWORKS: usize = 2;

/// A connection: from the one who connected to the other.
pub struct Link {
    pub ends: [usize; 2],
    /// Whether each end still has it.
    pub open: [bool; 2],
    /// What is on its way from each end, in order.
    pub flows: [VecDeque<Message>; 2],
    /// The network that it goes over.
    pub network: usize,
}

/// The networks.
pub struct Network {
    /// Whether packets get from one to another over a network.
    open: Vec<bool>,
    /// Whether datagrams from one to another are dropped on all networks, and only those.
    mute: Vec<bool>,
    count: usize,
    /// Lost, of a thousand datagrams.
    pub loss: u64,
    /// Delivered twice.
    pub twice: u64,
    /// Most microseconds on the way.
    pub delay: Micros,
    pub links: BTreeMap<LinkId, Link>,
    pub next_link: LinkId,
    /// When each path last was anything but perfect.
    bad: Vec<Micros>,
}

impl Network {
    pub fn new(count: usize) -> Self {
        Self {
            open: vec![true; count * count * NETWORKS],
            mute: vec![false; count * count],
            count,
            loss: 0,
            twice: 0,
            delay: 2_000,
            links: BTreeMap::new(),
            next_link: 1,
            bad: vec![0; count * count],
        }
    }

    fn at(&self, from: usize, to: usize, network: usize) -> usize {
        (network * self.count + from) * self.count + to
    }

    /// Whether datagrams get through one way.
    pub fn open(&self, from: usize, to: usize, network: usize) -> bool {
        self.open[self.at(from, to, network)] && !self.mute[from * self.count + to]
    }

    /// Whether a connection gets through.
    pub fn both(&self, one: usize, two: usize, network: usize) -> bool {
        self.open[self.at(one, two, network)] && self.open[self.at(two, one, network)]
    }

    /// The first network over which two reach each other.
    pub fn between(&self, one: usize, two: usize) -> Option<usize> {
        (0..NETWORKS).find(|network| self.both(one, two, *network))
    }

    pub fn set(&mut self, now: Micros, from: usize, to: usize, network: usize, open: bool) {
        let at = self.at(from, to, network);
        self.open[at] = open;
        self.spoil(now, from, to);
    }

    /// A firewall drops datagrams from one to another, and lets connections through; or does not any more.
    pub fn mute(&mut self, now: Micros, from: usize, to: usize, mute: bool) {
        self.mute[from * self.count + to] = mute;
        self.spoil(now, from, to);
    }

    /// Notes that two could have lost each other at this time.
    pub fn spoil(&mut self, now: Micros, one: usize, two: usize) {
        for (from, to) in [(one, two), (two, one)] {
            self.bad[from * self.count + to] = now;
        }
    }

    /// Since when two reach each other without a flaw; none if they do not.
    pub fn good_since(&self, one: usize, two: usize) -> Option<Micros> {
        self.open_since(one, two).filter(|_| self.loss <= 50)
    }

    /// The same, but for datagrams that are lost.
    pub fn open_since(&self, one: usize, two: usize) -> Option<Micros> {
        let open = |network| self.open(one, two, network) && self.open(two, one, network);
        let all = (0..NETWORKS).all(open);
        all.then(|| self.bad[one * self.count + two])
    }

    /// How long a packet takes.
    pub fn delay(&self, rng: &mut Rng) -> Micros {
        100 + rng.below(self.delay)
    }
}
