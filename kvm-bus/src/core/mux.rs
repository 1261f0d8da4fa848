// SPDX-License-Identifier: MIT OR Apache-2.0
//! The three-port multiplexor: two segments of the bus, and what is local. An RMM has one as well, whose two ports are
//! both ends of the chain; it passes nothing on.

use std::collections::BTreeMap;

use super::queue::{PortCounts, Queue};
use super::{Micros, ms};
use crate::wire::{Addr, Class, Frame, Kind};

/// How long it is believed that an address is reached by the port at which it was heard.
const BELIEVED: Micros = ms(1000);
/// How long a way from which no answer came is avoided, if there is another.
const AVOIDED: Micros = ms(10_000);
/// Passed on so often, a frame runs in a circle: no bus is as long.
const MOST_HOPS: u8 = 240;
/// Addresses remembered: all that there are.
const MOST_HEARD: usize = 256;

/// A segment: 0 is upstream, towards the RMM; 1 is downstream.
pub type Port = usize;
/// Segments of a multiplexor.
pub const PORTS: usize = 2;

#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Micros,
    hops: u8,
    avoid_until: Micros,
}

/// The multiplexor.
#[derive(Debug)]
pub struct Mux {
    addr: Addr,
    /// Whether what is for others goes on to the next segment.
    passes_on: bool,
    queues: [Queue; PORTS],
    /// Good frames that came by each.
    received: [u64; PORTS],
    heard: BTreeMap<Addr, [Option<Heard>; PORTS]>,
}

impl Mux {
    /// One for this address.
    #[must_use]
    pub fn new(addr: Addr) -> Self {
        Self {
            addr,
            passes_on: !addr.is_rmm(),
            queues: Default::default(),
            received: [0; PORTS],
            heard: BTreeMap::new(),
        }
    }

    /// A frame came by a segment. What is for this address is given back.
    pub fn receive(&mut self, now: Micros, port: Port, mut frame: Frame) -> Option<Frame> {
        *self.received.get_mut(port)? += 1;
        // One's own comes back where the bus is a ring.
        if frame.src == self.addr {
            return None;
        }
        if self.heard.len() < MOST_HEARD || self.heard.contains_key(&frame.src) {
            let heard = self.heard.entry(frame.src).or_default();
            let avoid_until = heard[port].map_or(0, |heard| heard.avoid_until);
            heard[port] = Some(Heard { at: now, hops: frame.hops, avoid_until });
        }
        let mine = frame.dst == self.addr || frame.dst == Addr::ALL;
        let local = mine.then(|| frame.clone());
        if self.passes_on && frame.dst != self.addr && frame.hops < MOST_HOPS {
            frame.hops += 1;
            self.queues[1 - port].push(frame);
        }
        local
    }

    /// Sends a frame of one's own: to all by both segments, else by the nearer way.
    pub fn send(&mut self, now: Micros, frame: Frame) {
        if frame.dst == Addr::ALL {
            self.queues[1].push(frame.clone());
            self.queues[0].push(frame);
            return;
        }
        match self.way(now, frame.dst) {
            Some(port) => self.queues[port].push(frame),
            // Nobody has heard of it: both ways, where it is not much.
            None if frame.kind != Kind::Data && frame.class <= Class::Input => {
                self.queues[1].push(frame.clone());
                self.queues[0].push(frame);
            }
            None => {}
        }
    }

    /// By which port an address is reached. A blade takes the end of the bus that is nearer; an RMM answers
    /// where the blade was heard last, as that is the blade's to choose.
    #[must_use]
    pub fn way(&self, now: Micros, addr: Addr) -> Option<Port> {
        let heard = self.heard.get(&addr)?;
        let fresh = |port: &Port| heard[*port].filter(|heard| now < heard.at + BELIEVED);
        let nearest = (0..PORTS)
            .filter(|port| self.passes_on && fresh(port).is_some())
            .min_by_key(|port| fresh(port).map(|heard| (heard.avoid_until > now, heard.hops)));
        let latest = || {
            let found = (0..PORTS).filter(|port| heard[*port].is_some());
            found.max_by_key(|port| heard[*port].map(|heard| heard.at))
        };
        nearest.or_else(latest)
    }

    /// How many multiplexors are on the way to an address.
    #[must_use]
    pub fn hops(&self, now: Micros, addr: Addr) -> Option<u8> {
        let port = self.way(now, addr)?;
        self.heard.get(&addr)?[port].map(|heard| heard.hops)
    }

    /// Nothing came back from an address by the way taken now: another one is tried for a while, if there is one.
    pub fn distrust(&mut self, now: Micros, addr: Addr) {
        let Some(port) = self.way(now, addr) else { return };
        if let Some(heard) = self.heard.get_mut(&addr).and_then(|heard| heard[port].as_mut()) {
            heard.avoid_until = now + AVOIDED;
        }
    }

    /// The segment was cut: what waits for it is worth nothing.
    pub fn cut(&mut self, port: Port) {
        self.queues[port].clear();
        for heard in self.heard.values_mut() {
            heard[port] = None;
        }
    }

    /// The next bytes for a segment. Ask when the line has sent what it was given.
    pub fn next(&mut self, port: Port) -> Option<Vec<u8>> {
        self.queues[port].pop()
    }

    /// Whether something waits for a segment.
    #[must_use]
    pub fn has_some(&self, port: Port) -> bool {
        !self.queues[port].is_empty()
    }

    /// What a port did.
    #[must_use]
    pub fn counts(&self, port: Port) -> PortCounts {
        self.queues[port].counts()
    }

    /// How many good frames came by a port.
    #[must_use]
    pub fn received(&self, port: Port) -> u64 {
        self.received[port]
    }

    /// The address.
    #[must_use]
    pub fn addr(&self) -> Addr {
        self.addr
    }
}
