// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many unfinished handshakes there may be, in all and from one place, and how often one place may begin
//! one: what a flood of half-open connections can take is bounded, and members keep their way in.
//!
//! Whoever is not on the roster shares [`MAX_STRANGERS`] of the [`MAX_PENDING`] places, so strangers never
//! take the last ones. A flood from the very address of a member can keep that member out, and nobody
//! else.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Unfinished handshakes at a time: a whole group that comes at once. Each is at most a connection and
/// [`crate::opening::MAX_HANDSHAKE_FRAME`] bytes for [`crate::handshake::HANDSHAKE_LIMIT`].
pub const MAX_PENDING: usize = 128;
/// Of these, such of sources that are no member's address.
pub const MAX_STRANGERS: usize = 32;
/// Of these, such of one source: a member with five programs, each twice.
pub const MAX_PER_SOURCE: usize = 10;
/// Handshakes that one source may begin at once after a rest.
pub const BURST: u32 = 20;
/// How long it takes a source to earn another beginning: 10 in a second, at about 0.3 ms of computing each.
pub const EARNED_EVERY: Duration = Duration::from_millis(100);
/// Sources that are remembered. When there are more, those at rest are forgotten; if there is none, a new one
/// has to wait.
pub const MAX_SOURCES: usize = 512;

/// Bounds unfinished handshakes.
#[derive(Debug, Default)]
pub struct Gate {
    sources: BTreeMap<IpAddr, Source>,
    pending: usize,
    strangers: usize,
}

#[derive(Debug)]
struct Source {
    pending: usize,
    /// When it has earned all beginnings of a burst. Later than now by one [`EARNED_EVERY`] for each spent.
    rested: Instant,
}

/// A place for one handshake, to be given back with [`Gate::leave`].
#[derive(Debug)]
#[must_use]
pub struct Place {
    source: IpAddr,
    stranger: bool,
}

impl Gate {
    /// Gives a connection from `source` a place. `known` says that a member has this address. None if it is
    /// to be closed at once.
    pub fn enter(&mut self, now: Instant, source: IpAddr, known: bool) -> Option<Place> {
        let source = network(source);
        if self.pending >= MAX_PENDING || (!known && self.strangers >= MAX_STRANGERS) {
            return None;
        }
        if !self.sources.contains_key(&source) && self.sources.len() >= MAX_SOURCES {
            self.sources.retain(|_, source| source.pending > 0 || source.rested > now);
            if self.sources.len() >= MAX_SOURCES {
                return None;
            }
        }
        let entry = self.sources.entry(source).or_insert(Source { pending: 0, rested: now });
        let rested = entry.rested.max(now);
        if entry.pending >= MAX_PER_SOURCE || rested - now > EARNED_EVERY * (BURST - 1) {
            return None;
        }
        entry.pending += 1;
        entry.rested = rested + EARNED_EVERY;
        self.pending += 1;
        self.strangers += usize::from(!known);
        Some(Place { source, stranger: !known })
    }

    /// The handshake is over, one way or the other.
    pub fn leave(&mut self, place: Place) {
        let Place { source, stranger } = place;
        self.pending -= 1;
        self.strangers -= usize::from(stranger);
        if let Some(source) = self.sources.get_mut(&source) {
            source.pending -= 1;
        }
    }

    /// Handshakes under way.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending
    }
}

/// One source is an address of IPv4, or a network of IPv6: whoever has one address of that has all 2^64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::rng::Rng;

    fn v4(host: u32) -> IpAddr {
        Ipv4Addr::from_bits(host).into()
    }

    #[test]
    fn strangers_leave_room_for_members() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let mut places: Vec<_> =
            (0..1000).filter_map(|host| gate.enter(now, v4(host), false)).collect();
        assert_eq!(places.len(), MAX_STRANGERS);
        places.extend((1000..2000).filter_map(|host| gate.enter(now, v4(host), true)));
        assert_eq!((places.len(), gate.pending()), (MAX_PENDING, MAX_PENDING));
        gate.leave(places.swap_remove(0));
        assert!(gate.enter(now, v4(9), false).is_some());
        places.into_iter().for_each(|place| gate.leave(place));
        assert_eq!(gate.pending(), 1);
    }

    #[test]
    fn one_source_has_its_share_at_a_time_and_in_time() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let places: Vec<_> = (0..100).filter_map(|_| gate.enter(now, v4(1), true)).collect();
        assert_eq!(places.len(), MAX_PER_SOURCE);
        places.into_iter().for_each(|place| gate.leave(place));
        // One after the other, each finished at once.
        let mut begun = MAX_PER_SOURCE as u32;
        let mut over = |gate: &mut Gate, at: Duration, tries: u32| {
            for _ in 0..tries {
                if let Some(place) = gate.enter(now + at, v4(1), true) {
                    gate.leave(place);
                    begun += 1;
                }
            }
            begun
        };
        assert_eq!(over(&mut gate, Duration::ZERO, 1000), BURST);
        assert_eq!(over(&mut gate, EARNED_EVERY * 3, 1000), BURST + 3);
        assert_eq!(over(&mut gate, Duration::from_secs(3600), 1000), 2 * BURST + 3);
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let address = |last: u128| Ipv6Addr::from_bits(0xfd00 << 112 | last).into();
        let entered = (0..100).filter(|last| gate.enter(now, address(*last), true).is_some());
        assert_eq!(entered.count(), MAX_PER_SOURCE);
        assert!(gate.enter(now, address(1 << 64), true).is_some());
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), v4(0x0a00_0001));
    }

    #[test]
    fn sources_that_come_and_go_at_once_are_bounded() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let mut come_and_go = |now| {
            let entered = (0..2000).filter_map(|host| {
                let place = gate.enter(now, v4(host), false)?;
                gate.leave(place);
                Some(host)
            });
            entered.count()
        };
        assert_eq!(come_and_go(now), MAX_SOURCES);
        // Once those are at rest, others have their turn.
        assert_eq!(come_and_go(now + EARNED_EVERY * 2), MAX_SOURCES);
    }

    #[test]
    fn nothing_grows_beyond_its_bound() {
        let (mut gate, mut now, mut rng) = (Gate::default(), Instant::now(), Rng::new(1));
        let mut places = vec![];
        for _ in 0..200_000 {
            now += Duration::from_millis(rng.below(3) as u64);
            if rng.percent(60) {
                let known = rng.percent(30);
                places.extend(gate.enter(now, v4(rng.below(5000) as u32), known));
            } else if !places.is_empty() {
                gate.leave(places.swap_remove(rng.below(places.len())));
            }
            assert!(gate.sources.len() <= MAX_SOURCES && gate.pending() == places.len());
            assert!(gate.pending() <= MAX_PENDING && gate.strangers <= MAX_STRANGERS);
        }
        let spent: usize = gate.sources.values().map(|source| source.pending).sum();
        assert_eq!(spent, places.len());
    }
}
