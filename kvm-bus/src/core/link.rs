// SPDX-License-Identifier: MIT OR Apache-2.0
//! One session between an RMM and an LMC, either end: windows, acknowledgements, signs of life.

use super::arq::{Receiver, RoundTrip, Sender};
use super::signs::Signs;
use super::{Micros, ms};
use crate::wire::{Addr, Class, Frame, Kind, RELIABLE};

/// Between signs of life of a blade that is coupled, and of another one.
const BEAT_COUPLED: Micros = ms(300);
const BEAT: Micros = ms(1000);
/// After so long without a sign the peer is gone: keys go up. An answer is up to two beats old, and four may be lost.
pub const DEAD_COUPLED: Micros = ms(2000);
/// The same of a blade that is not coupled, whose keys are up anyway.
pub const DEAD: Micros = ms(6000);
/// Later than this a timer is seen to be late.
const LATE: Micros = ms(200);
/// How long an acknowledgement waits for others, unless something is missing.
const ACK_DELAY: Micros = ms(5);

/// By how much this end was late, if what was due then is done only now. Nothing if it is not worth mentioning.
#[must_use]
pub fn lateness(now: Micros, due: Micros) -> Option<Micros> {
    now.checked_sub(due).filter(|late| *late > LATE)
}

/// Which of the round trips is that of a class.
fn behind(class: Class) -> usize {
    usize::from(class > Class::Input)
}

/// A session.
#[derive(Debug, Clone)]
pub struct Link {
    local: Addr,
    remote: Addr,
    session: u32,
    senders: [Sender; RELIABLE.len()],
    receivers: [Receiver; RELIABLE.len()],
    /// Of control and input, and of the classes behind them.
    trips: [RoundTrip; 2],
    signs: Signs,
    ack_due: Option<Micros>,
    /// Classes to be acknowledged, a bit each.
    ack_for: u8,
    coupled: bool,
    again: u64,
    acks: u16,
}

impl Link {
    /// A session that begins.
    #[must_use]
    pub fn new(now: Micros, local: Addr, remote: Addr, session: u32) -> Self {
        Self {
            local,
            remote,
            session,
            senders: Default::default(),
            receivers: Default::default(),
            trips: [RoundTrip::new(true), RoundTrip::new(false)],
            signs: Signs::new(now),
            ack_due: None,
            ack_for: 0,
            coupled: false,
            again: 0,
            acks: 0,
        }
    }

    /// Its number.
    #[must_use]
    pub fn session(&self) -> u32 {
        self.session
    }

    /// Whom it is with.
    #[must_use]
    pub fn remote(&self) -> Addr {
        self.remote
    }

    /// How many more messages of the class may be sent.
    #[must_use]
    pub fn room(&self, class: Class) -> usize {
        self.senders[class as usize].room()
    }

    /// Whether all messages of the class were taken.
    #[must_use]
    pub fn is_idle(&self, class: Class) -> bool {
        self.senders[class as usize].is_idle()
    }

    /// The smoothed round trip, if one was measured.
    #[must_use]
    pub fn round_trip(&self) -> Option<Micros> {
        self.trips[0].mean()
    }

    /// Messages that were sent again.
    #[must_use]
    pub fn sent_again(&self) -> u64 {
        self.again
    }

    /// When the peer was last known to be there: it gave signs of life for at most [`DEAD_COUPLED`] or [`DEAD`] after that.
    #[must_use]
    pub fn heard(&self) -> Micros {
        self.signs.heard()
    }

    /// This end was late by so much, and has not read yet what came meanwhile: that is no silence of the peer.
    pub fn forgive(&mut self, now: Micros, late: Micros) {
        self.signs.was_there((self.heard() + late).min(now));
    }

    /// The blade is coupled: both ends give more signs of life, and miss them sooner. What they know of one another may be
    /// older than that when it begins.
    pub fn couple(&mut self, now: Micros) {
        if !std::mem::replace(&mut self.coupled, true) {
            self.signs.was_there(now);
        }
    }

    /// It is coupled no more.
    pub fn uncouple(&mut self) {
        self.coupled = false;
    }

    /// Whether the peer has been silent for too long.
    #[must_use]
    pub fn is_dead(&self, now: Micros) -> bool {
        now >= self.dies()
    }

    fn dies(&self) -> Micros {
        self.heard() + if self.coupled { DEAD_COUPLED } else { DEAD }
    }

    fn beats(&self) -> Micros {
        self.signs.beat() + if self.coupled { BEAT_COUPLED } else { BEAT }
    }

    /// Sends a message of a reliable class; gives it back if there is no room.
    ///
    /// # Errors
    /// The message.
    pub fn send(
        &mut self,
        now: Micros,
        class: Class,
        payload: Vec<u8>,
        out: &mut Vec<Frame>,
    ) -> Result<(), Vec<u8>> {
        if self.room(class) == 0 {
            return Err(payload);
        }
        let seq = self.senders[class as usize].push(
            now,
            self.trips[behind(class)].timeout(),
            payload.clone(),
        );
        out.push(self.data(class, seq, payload));
        Ok(())
    }

    /// A frame of this session came.
    pub fn receive(&mut self, now: Micros, frame: Frame) {
        match frame.kind {
            Kind::Beat => self.signs.receive(frame.seq, &frame.payload),
            Kind::Ack => {
                for entry in frame.payload.chunks_exact(5) {
                    let [class, n0, n1, b0, b1] = *entry else { continue };
                    let Some(class) = RELIABLE.get(usize::from(class)).copied() else { continue };
                    let (next, bitmap) =
                        (u16::from_le_bytes([n0, n1]), u16::from_le_bytes([b0, b1]));
                    let trip = &mut self.trips[behind(class)];
                    self.senders[class as usize].acknowledged(now, next, bitmap, trip);
                }
            }
            Kind::Data => {
                let Some(receiver) = self.receivers.get_mut(frame.class as usize) else { return };
                receiver.receive(frame.seq, frame.payload);
                let (_, arrived) = receiver.state();
                let gap = arrived & (arrived.wrapping_add(1)) != 0;
                self.acknowledge(now, frame.class, if gap { 0 } else { ACK_DELAY });
            }
            _ => {}
        }
    }

    /// The next message of a class. What is not taken stays, and the peer sends no more than the window.
    pub fn take(&mut self, now: Micros, class: Class) -> Option<Vec<u8>> {
        let payload = self.receivers[class as usize].take()?;
        self.acknowledge(now, class, ACK_DELAY);
        Some(payload)
    }

    /// The next message of a class, left where it is.
    #[must_use]
    pub fn peek(&self, class: Class) -> Option<&[u8]> {
        self.receivers[class as usize].peek()
    }

    fn acknowledge(&mut self, now: Micros, class: Class, within: Micros) {
        self.ack_for |= 1 << class as u8;
        let due = now + within;
        self.ack_due = Some(self.ack_due.map_or(due, |earlier| earlier.min(due)));
    }

    /// Sends what is due.
    pub fn tick(&mut self, now: Micros, out: &mut Vec<Frame>) {
        for class in RELIABLE {
            let trip = &mut self.trips[behind(class)];
            for (seq, payload) in self.senders[class as usize].again(now, trip) {
                self.again += 1;
                out.push(self.data(class, seq, payload));
            }
        }
        if self.ack_due.is_some_and(|due| due <= now) {
            self.ack_due = None;
            let mut ack =
                Frame::new(Class::Input, Kind::Ack, self.local, self.remote, self.session);
            // A number of its own, so that in a queue none takes the place of one for other classes.
            self.acks = self.acks.wrapping_add(1);
            ack.seq = self.acks;
            let classes = std::mem::take(&mut self.ack_for);
            for class in RELIABLE.into_iter().filter(|class| classes >> *class as u8 & 1 == 1) {
                let (next, bitmap) = self.receivers[class as usize].state();
                ack.payload.push(class as u8);
                ack.payload.extend(next.to_le_bytes());
                ack.payload.extend(bitmap.to_le_bytes());
            }
            out.push(ack);
        }
        if self.beats() <= now {
            let beat =
                Frame::new(Class::Control, Kind::Beat, self.local, self.remote, self.session);
            let (seq, payload) = self.signs.send(now);
            out.push(Frame { seq, payload, ..beat });
        }
    }

    /// When [`Self::tick`] has something to do, or the peer is dead.
    #[must_use]
    pub fn wake(&self) -> Micros {
        let again = self.senders.iter().filter_map(Sender::due).min();
        let others = [again, self.ack_due].into_iter().flatten().min();
        self.dies().min(self.beats()).min(others.unwrap_or(Micros::MAX))
    }

    fn data(&self, class: Class, seq: u16, payload: Vec<u8>) -> Frame {
        let frame = Frame::new(class, Kind::Data, self.local, self.remote, self.session);
        Frame { seq, payload, ..frame }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_line_says_again_keeps_no_session_alive() {
        let [here, there] = [Addr::rmm(0), Addr::blade(1)].map(Option::unwrap);
        let mut rmm = Link::new(0, here, there, 1);
        let mut lmc = Link::new(0, there, here, 1);
        rmm.couple(0);
        lmc.couple(0);
        let (mut now, mut last) = (0, vec![]);
        while now < ms(10_000) {
            now += ms(100);
            let mut frames = vec![];
            rmm.tick(now, &mut frames);
            frames.iter().for_each(|frame| lmc.receive(now, frame.clone()));
            last.extend(frames);
            let mut answers = vec![];
            lmc.tick(now, &mut answers);
            answers.into_iter().for_each(|frame| rmm.receive(now, frame));
            assert!(!rmm.is_dead(now) && !lmc.is_dead(now));
        }
        assert!(now - rmm.heard() <= 2 * BEAT_COUPLED + ms(100));
        // The RMM's side is cut, and the line repeats what it once said.
        let known = lmc.heard();
        while !lmc.is_dead(now) {
            now += ms(100);
            for frame in &last {
                lmc.receive(now, frame.clone());
            }
            let mut answers = vec![];
            lmc.tick(now, &mut answers);
            answers.into_iter().for_each(|frame| rmm.receive(now, frame));
        }
        assert_eq!(lmc.heard(), known);
        assert!(rmm.is_dead(now + 2 * BEAT_COUPLED), "who is not heard knows it too");
        assert!(lmc.dies() <= rmm.heard() + 2 * DEAD_COUPLED, "the RMM waits for so long");
    }
}
