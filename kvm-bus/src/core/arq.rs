// SPDX-License-Identifier: MIT OR Apache-2.0
//! Selective repeat, one window for each class of a session. The receiver acknowledges what was *taken* from it, so
//! that a reader who does not read stops the sender: that is the credit.

use std::collections::VecDeque;

use super::{Micros, ms};

/// Messages under way at once. Sixteen of 1 KiB fill a line of 4 Mbaud at a round trip of 40 ms, as through fourteen blades.
pub const WINDOW: u16 = 16;
/// Time until a message is sent again: before anything is known, at least, and at most. What goes first waits for
/// nobody; consoles of many blades that flood a slow line wait seconds for their turn.
const FIRST_RTO: Micros = ms(400);
const LEAST_RTO: Micros = ms(20);
const MOST_RTO: Micros = ms(1500);
const MOST_RTO_BEHIND: Micros = ms(8000);
/// Later ones that arrived, until one that did not is sent again at once.
const EARLY: usize = 3;

/// How long a round trip takes (RFC 6298), of classes that wait alike.
#[derive(Debug, Clone)]
pub struct RoundTrip {
    smooth: Option<(Micros, Micros)>,
    most: Micros,
    /// How often the timeout was doubled since the last sample; never for what goes first.
    doubled: Option<u8>,
    /// Until when it is not doubled again: all that were sent together are late together.
    until: Micros,
}

impl RoundTrip {
    /// Of the classes that go first, or of those behind them.
    #[must_use]
    pub fn new(first: bool) -> Self {
        let (most, doubled) = if first { (MOST_RTO, None) } else { (MOST_RTO_BEHIND, Some(0)) };
        Self { smooth: None, most, doubled, until: 0 }
    }

    /// One was measured.
    pub fn sample(&mut self, took: Micros) {
        self.smooth = Some(match self.smooth {
            None => (took, took / 2),
            Some((mean, spread)) => ((7 * mean + took) / 8, (3 * spread + mean.abs_diff(took)) / 4),
        });
        self.doubled = self.doubled.map(|_| 0);
    }

    /// One took longer than the timeout. When a line fills, all do, none of them gives a sample (Karn), and so all would be
    /// sent twice from then on (RFC 6298, 5.5).
    fn late(&mut self, now: Micros) {
        if now >= self.until {
            self.doubled = self.doubled.map(|doubled| (doubled + 1).min(6));
            self.until = now + self.timeout();
        }
    }

    /// The smoothed time, if any was measured.
    #[must_use]
    pub fn mean(&self) -> Option<Micros> {
        self.smooth.map(|(mean, _)| mean)
    }

    /// How long to wait for an acknowledgement.
    #[must_use]
    pub fn timeout(&self) -> Micros {
        let once = self.smooth.map_or(FIRST_RTO, |(mean, spread)| {
            (mean + (4 * spread).max(LEAST_RTO)).clamp(LEAST_RTO, self.most)
        });
        (once << self.doubled.unwrap_or(0)).min(self.most)
    }
}

#[derive(Debug, Clone)]
struct Slot {
    payload: Vec<u8>,
    sent: Micros,
    due: Micros,
    tries: u8,
    arrived: bool,
    /// Of later ones, how many arrived since it was last sent.
    passed: usize,
}

/// The sending end of a window.
#[derive(Debug, Clone, Default)]
pub struct Sender {
    first: u16,
    slots: VecDeque<Slot>,
}

impl Sender {
    /// How many more messages may be under way.
    #[must_use]
    pub fn room(&self) -> usize {
        usize::from(WINDOW) - self.slots.len()
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes a message and gives its number; there must be room.
    pub fn push(&mut self, now: Micros, timeout: Micros, payload: Vec<u8>) -> u16 {
        debug_assert!(self.room() > 0, "the caller has asked");
        let seq = self.first.wrapping_add(self.slots.len() as u16);
        let slot =
            Slot { payload, sent: now, due: now + timeout, tries: 1, arrived: false, passed: 0 };
        self.slots.push_back(slot);
        seq
    }

    /// What an acknowledgement says: all before `next` were taken, and of those after it the ones in `bitmap` arrived.
    pub fn acknowledged(&mut self, now: Micros, next: u16, bitmap: u16, trip: &mut RoundTrip) {
        let taken = next.wrapping_sub(self.first);
        // An old one says nothing new; one from the future is none of ours.
        if usize::from(taken) > self.slots.len() {
            return;
        }
        let mut newest = None;
        for slot in self.slots.drain(..usize::from(taken)) {
            // Karn: of a message that was sent twice it is not known which arrived.
            if slot.tries == 1 && !slot.arrived {
                newest = Some(slot.sent);
            }
        }
        self.first = next;
        for at in 0..usize::from(WINDOW).min(self.slots.len()) {
            if bitmap >> at & 1 == 1 && !self.slots[at].arrived {
                self.slots[at].arrived = true;
                if self.slots[at].tries == 1 {
                    newest = Some(self.slots[at].sent);
                }
                for before in self.slots.iter_mut().take(at) {
                    before.passed += 1;
                    if before.passed == EARLY && before.tries == 1 {
                        before.due = now;
                    }
                }
            }
        }
        if let Some(sent) = newest {
            trip.sample(now.saturating_sub(sent));
        }
    }

    /// The messages that are to be sent again now.
    pub fn again(&mut self, now: Micros, trip: &mut RoundTrip) -> Vec<(u16, Vec<u8>)> {
        let mut again = vec![];
        // The oldest stands for all that were sent with it.
        let oldest = self.slots.iter().find(|slot| !slot.arrived);
        if oldest.is_some_and(|slot| slot.due <= now && slot.passed < EARLY) {
            trip.late(now);
        }
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if slot.arrived || slot.due > now {
                continue;
            }
            let doubled = if trip.doubled.is_some() { 0 } else { slot.tries.min(6) };
            slot.due = now + (trip.timeout() << doubled).min(trip.most);
            slot.tries = slot.tries.saturating_add(1);
            again.push((self.first.wrapping_add(at as u16), slot.payload.clone()));
        }
        again
    }

    /// When something is to be sent again.
    #[must_use]
    pub fn due(&self) -> Option<Micros> {
        self.slots.iter().filter(|slot| !slot.arrived).map(|slot| slot.due).min()
    }
}

/// The receiving end of a window.
#[derive(Debug, Clone, Default)]
pub struct Receiver {
    next: u16,
    slots: VecDeque<Option<Vec<u8>>>,
}

impl Receiver {
    /// Takes a message in; false if it was there before or is outside the window.
    pub fn receive(&mut self, seq: u16, payload: Vec<u8>) -> bool {
        let at = seq.wrapping_sub(self.next);
        if at >= WINDOW {
            return false;
        }
        let at = usize::from(at);
        if self.slots.len() <= at {
            self.slots.resize(at + 1, None);
        }
        if self.slots[at].is_some() {
            return false;
        }
        self.slots[at] = Some(payload);
        true
    }

    /// The next message in order.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        let payload = self.slots.front_mut()?.take()?;
        self.slots.pop_front();
        self.next = self.next.wrapping_add(1);
        Some(payload)
    }

    /// The next message in order, left where it is.
    #[must_use]
    pub fn peek(&self) -> Option<&[u8]> {
        self.slots.front()?.as_deref()
    }

    /// What to acknowledge; see [`Sender::acknowledged`].
    #[must_use]
    pub fn state(&self) -> (u16, u16) {
        let bit = |(at, slot): (usize, &Option<Vec<u8>>)| u16::from(slot.is_some()) << at;
        (self.next, self.slots.iter().enumerate().map(bit).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes so many, of one byte each that counts.
    fn pushed(count: u8) -> Sender {
        let mut sender = Sender { first: u16::MAX - 2, ..Sender::default() };
        for n in 0..count {
            assert_eq!(sender.push(0, ms(100), vec![n]), (u16::MAX - 2).wrapping_add(u16::from(n)));
        }
        sender
    }

    #[test]
    fn what_is_lost_is_sent_again_and_nothing_else() {
        let mut sender = pushed(8);
        let mut receiver = Receiver { next: u16::MAX - 2, ..Receiver::default() };
        for n in [0, 1, 3, 4, 6] {
            assert!(receiver.receive((u16::MAX - 2).wrapping_add(n), vec![n as u8]));
        }
        assert!(!receiver.receive(u16::MAX - 2, vec![9]), "twice");
        assert_eq!(
            (receiver.take(), receiver.take(), receiver.take()),
            (Some(vec![0]), Some(vec![1]), None)
        );
        let mut trip = RoundTrip::new(true);
        let (next, bitmap) = receiver.state();
        sender.acknowledged(ms(30), next, bitmap, &mut trip);
        assert_eq!(trip.mean(), Some(ms(30)));
        let again: Vec<_> =
            sender.again(ms(30), &mut trip).into_iter().map(|(_, p)| p[0]).collect();
        assert_eq!(again, [2], "three later ones arrived");
        let again: Vec<_> =
            sender.again(ms(100), &mut trip).into_iter().map(|(_, p)| p[0]).collect();
        assert_eq!(again, [5, 7]);
        assert!(receiver.receive(u16::MAX, vec![2]));
        assert_eq!(
            (receiver.take(), receiver.take(), receiver.take()),
            (Some(vec![2]), Some(vec![3]), Some(vec![4]))
        );
    }

    /// How often each of ten messages is sent, one after the other, when the way there and back takes half a second of a
    /// sudden.
    fn sends(first: bool) -> Vec<usize> {
        let mut trip = RoundTrip::new(first);
        trip.sample(ms(5));
        let (mut sender, mut now) = (Sender::default(), 0);
        let one = |_| {
            let seq = sender.push(now, trip.timeout(), vec![1]);
            let (taken, mut sent) = (now + ms(500), 1);
            while sender.due().is_some_and(|due| due < taken) {
                now = sender.due().unwrap();
                sent += sender.again(now, &mut trip).len();
            }
            now = taken;
            sender.acknowledged(now, seq.wrapping_add(1), 0, &mut trip);
            sent
        };
        (0..10).map(one).collect()
    }

    #[test]
    fn a_line_that_fills_up_is_not_filled_with_the_same() {
        assert_eq!(sends(false)[3..], [1; 7]);
        assert!(sends(true)[9] > 1, "what goes first is sent again soon, come what may");
    }

    #[test]
    fn a_reader_that_does_not_read_stops_the_sender() {
        let (mut sender, mut receiver) = (Sender::default(), Receiver::default());
        for n in 0..WINDOW {
            let seq = sender.push(0, ms(1), vec![n as u8]);
            assert!(receiver.receive(seq, vec![n as u8]));
        }
        let (next, bitmap) = receiver.state();
        sender.acknowledged(ms(1), next, bitmap, &mut RoundTrip::new(true));
        assert_eq!((sender.room(), sender.due()), (0, None), "all arrived, none was taken");
        assert!(!receiver.receive(WINDOW, vec![]), "outside");
        receiver.take().unwrap();
        let (next, bitmap) = receiver.state();
        sender.acknowledged(ms(2), next, bitmap, &mut RoundTrip::new(true));
        assert_eq!(sender.room(), 1);
    }

    #[test]
    fn acknowledgements_from_elsewhere_change_nothing() {
        let mut sender = pushed(3);
        for next in [0, 40_000, u16::MAX - 3, 1000] {
            if next != 0 {
                sender.acknowledged(0, next, u16::MAX, &mut RoundTrip::new(true));
            }
            assert_eq!(sender.slots.len(), 3);
        }
    }
}
