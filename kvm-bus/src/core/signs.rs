// SPDX-License-Identifier: MIT OR Apache-2.0
//! When the other end of a session was there, by the clock of this one. Beats are numbered, and say which of the other
//! end's came last: whoever names a beat of ours was there after it was sent, however long the answer was on its way. What
//! a line repeats, or gives up late, is no sign of life; and an end that is not heard learns of it.

use std::collections::VecDeque;

use super::Micros;

/// Beats of which it is known when they were sent: more than fit into the time after which the peer is dead.
const REMEMBERED: usize = 32;

/// Beats of both ends.
#[derive(Debug, Clone)]
pub struct Signs {
    /// Of the latest beat sent.
    number: u16,
    /// Beats that were not answered yet, and when they were sent, the latest last.
    sent: VecDeque<(u16, Micros)>,
    /// Of the peer's latest beat.
    theirs: Option<u16>,
    heard: Micros,
    beat: Micros,
}

impl Signs {
    /// Of a session that begins now.
    #[must_use]
    pub fn new(now: Micros) -> Self {
        Self { number: 0, sent: VecDeque::new(), theirs: None, heard: now, beat: now }
    }

    /// The peer was there then, or later.
    #[must_use]
    pub fn heard(&self) -> Micros {
        self.heard
    }

    /// It is known otherwise that the peer was there.
    pub fn was_there(&mut self, at: Micros) {
        self.heard = self.heard.max(at);
    }

    /// When the last beat was sent.
    #[must_use]
    pub fn beat(&self) -> Micros {
        self.beat
    }

    /// The next beat: its number, and the payload of its frame, two bytes, little-endian: the number of the peer's latest;
    /// none if none has come.
    pub fn send(&mut self, now: Micros) -> (u16, Vec<u8>) {
        self.number = self.number.wrapping_add(1);
        self.beat = now;
        if self.sent.len() == REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((self.number, now));
        (self.number, self.theirs.map_or_else(Vec::new, |theirs| theirs.to_le_bytes().to_vec()))
    }

    /// A beat of the peer came.
    pub fn receive(&mut self, number: u16, payload: &[u8]) {
        let is_new = |last: u16| (1..1 << 15).contains(&number.wrapping_sub(last));
        if !self.theirs.is_none_or(is_new) {
            return;
        }
        self.theirs = Some(number);
        let Ok(ours) = payload.try_into().map(u16::from_le_bytes) else { return };
        if let Some(at) = self.sent.iter().position(|(number, _)| *number == ours) {
            let answered = self.sent.drain(..=at).next_back();
            self.was_there(answered.map_or(0, |(_, sent)| sent));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_was_there_when_what_it_answers_was_sent() {
        let (mut here, mut there) = (Signs::new(0), Signs::new(0));
        let (number, payload) = here.send(100);
        assert_eq!((number, payload.len()), (1, 0));
        there.receive(number, &payload);
        assert_eq!(there.heard(), 0, "nothing of its own was answered");
        let (number, payload) = there.send(400);
        here.receive(number, &payload);
        assert_eq!(here.heard(), 100);
        // However late the answer is.
        let first = there.send(500);
        let _ = here.send(600);
        here.receive(first.0, &first.1);
        assert_eq!(here.heard(), 100, "the beat of 600 was not answered");
    }

    #[test]
    fn old_and_repeated_beats_are_no_signs() {
        let (mut here, mut there) = (Signs::new(0), Signs::new(0));
        let first = here.send(100);
        there.receive(first.0, &first.1);
        let old = there.send(150);
        let second = here.send(200);
        there.receive(second.0, &second.1);
        let new = there.send(250);
        here.receive(new.0, &new.1);
        assert_eq!(here.heard(), 200);
        let _ = here.send(300);
        for _ in 0..3 {
            here.receive(old.0, &old.1);
            here.receive(new.0, &new.1);
            assert_eq!((here.heard(), here.theirs), (200, Some(2)));
        }
    }

    #[test]
    fn numbers_begin_anew_and_what_is_remembered_is_bounded() {
        let (mut here, mut there) = (Signs::new(0), Signs::new(0));
        for now in 0..70_000 {
            let (number, payload) = here.send(now);
            there.receive(number, &payload);
            let (number, payload) = there.send(now);
            here.receive(number, &payload);
            assert_eq!(here.heard(), now);
        }
        for now in 0..100 {
            let _ = here.send(now);
        }
        assert_eq!(here.sent.len(), REMEMBERED);
        here.receive(there.number.wrapping_add(1), &[1, 2, 3]);
        here.receive(there.number.wrapping_add(2), &[]);
    }
}
