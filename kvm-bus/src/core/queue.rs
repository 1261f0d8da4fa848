// SPDX-License-Identifier: MIT OR Apache-2.0
//! What waits for one port of a multiplexor: keys go before consoles, consoles share with the screen, and each source
//! has its turn, so that a blade that babbles delays nobody but itself.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::wire::{Addr, Class, Frame, Kind};

/// Frames of one source and class that may wait: two windows, one on its way in each direction.
const PER_SOURCE: usize = 32;
/// Of what nobody sends again only the latest are worth sending.
const PER_SOURCE_BULK: usize = 8;
/// Turns of the classes that share what control and input leave: consoles four, the screen two, the rest one.
const TURNS: [Class; 7] = [
    Class::Console,
    Class::Screen,
    Class::Console,
    Class::Bulk,
    Class::Console,
    Class::Screen,
    Class::Console,
];

/// Counts of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounts {
    /// Frames sent.
    pub frames: u64,
    /// Bytes of them on the wire.
    pub bytes: u64,
    /// Frames given up because too many waited.
    pub dropped: u64,
}

/// The queue of a port.
#[derive(Debug, Default)]
pub struct Queue {
    /// By class, then by source and destination, in whose turn it is.
    waiting: BTreeMap<Class, VecDeque<Flow>>,
    turn: usize,
    counts: PortCounts,
}

#[derive(Debug)]
struct Flow {
    ends: (Addr, Addr),
    frames: VecDeque<Frame>,
}

impl Queue {
    /// Puts a frame at the end of its flow. One that waits already, and is now sent again, is not put there twice.
    pub fn push(&mut self, frame: Frame) {
        let flows = self.waiting.entry(frame.class).or_default();
        let ends = (frame.src, frame.dst);
        let at = flows.iter().position(|flow| flow.ends == ends).unwrap_or_else(|| {
            flows.push_back(Flow { ends, frames: VecDeque::new() });
            flows.len() - 1
        });
        let waiting = &mut flows[at].frames;
        let same = |other: &&mut Frame| {
            let numbered = frame.kind != Kind::Beat;
            (other.kind, other.session) == (frame.kind, frame.session)
                && (!numbered || other.seq == frame.seq)
        };
        if let Some(other) = waiting.iter_mut().find(same) {
            // A beat, an acknowledgement or a choice that waits is replaced by the later one.
            *other = frame;
            return;
        }
        let bound = if frame.class == Class::Bulk { PER_SOURCE_BULK } else { PER_SOURCE };
        if waiting.len() >= bound {
            self.counts.dropped += 1;
            waiting.pop_front();
        }
        waiting.push_back(frame);
    }

    /// The next frame, as bytes for the line.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        let frame = self.next(Class::Control).or_else(|| self.next(Class::Input));
        let frame = frame.or_else(|| self.next_in_turn())?;
        let bytes = frame.encode();
        self.counts.frames += 1;
        self.counts.bytes += bytes.len() as u64;
        Some(bytes)
    }

    fn next_in_turn(&mut self) -> Option<Frame> {
        (0..TURNS.len()).find_map(|_| {
            let class = TURNS[self.turn];
            self.turn = (self.turn + 1) % TURNS.len();
            self.next(class)
        })
    }

    fn next(&mut self, class: Class) -> Option<Frame> {
        let flows = self.waiting.get_mut(&class)?;
        let mut flow = flows.pop_front()?;
        let frame = flow.frames.pop_front();
        if !flow.frames.is_empty() {
            flows.push_back(flow);
        }
        frame
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.values().all(VecDeque::is_empty)
    }

    /// What the port did.
    #[must_use]
    pub fn counts(&self) -> PortCounts {
        self.counts
    }

    /// Forgets what waits, as when the line was cut: it would come late, and what matters is sent again.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Decoder;

    fn frame(class: Class, slot: u8, seq: u16) -> Frame {
        let [src, dst] = [Addr::blade(slot), Addr::rmm(0)].map(Option::unwrap);
        Frame { seq, ..Frame::new(class, Kind::Data, src, dst, 1) }
    }

    fn drain(queue: &mut Queue) -> Vec<(Class, u8, u16)> {
        let mut decoder = Decoder::default();
        std::iter::from_fn(|| queue.pop())
            .flat_map(|bytes| decoder.feed(&bytes))
            .map(|frame| (frame.class, frame.src.byte(), frame.seq))
            .collect()
    }

    #[test]
    fn keys_first_and_each_source_in_turn() {
        let mut queue = Queue::default();
        for seq in 0..4 {
            queue.push(frame(Class::Console, 1, seq));
        }
        queue.push(frame(Class::Console, 2, 0));
        queue.push(frame(Class::Screen, 1, 0));
        queue.push(frame(Class::Input, 3, 0));
        let order: Vec<_> =
            drain(&mut queue).into_iter().map(|(class, slot, _)| (class, slot)).collect();
        let (c, s) = (Class::Console, Class::Screen);
        assert_eq!(order, [(Class::Input, 3), (c, 1), (s, 1), (c, 2), (c, 1), (c, 1), (c, 1)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_waits_is_bounded_and_is_not_there_twice() {
        let mut queue = Queue::default();
        for seq in 0..100 {
            queue.push(frame(Class::Console, 1, seq));
            queue.push(frame(Class::Console, 1, seq));
        }
        assert_eq!(queue.counts().dropped, 68);
        assert_eq!(drain(&mut queue).len(), PER_SOURCE);
    }
}
