// SPDX-License-Identifier: MIT OR Apache-2.0
//! The streams of a disk's connection: two ends that keep to the rules, in any order of what they do, and one that is told
//! anything.

use std::collections::{BTreeMap, VecDeque};

use device_manager::streams::{
    Bytes, Event, Frame, MAX_DATA, MAX_STREAMS, StreamNo, Streams, Violation, WINDOW,
};
use device_manager::wire::Bounded;

use crate::Reached;
use crate::input::Input;

/// Longest frame of an input.
const MAX: usize = 600;

struct End {
    streams: Streams,
    /// On their way to it.
    coming: VecDeque<Frame>,
    /// Came, and were not taken: by stream.
    kept: BTreeMap<StreamNo, usize>,
    opened: u8,
}

impl End {
    fn new(is_holder: bool) -> Self {
        let (streams, coming) = (Streams::new(is_holder), VecDeque::new());
        Self { streams, coming, kept: BTreeMap::new(), opened: 0 }
    }

    fn handle(&mut self, frame: Frame, reached: &mut Reached) -> Result<(), Violation> {
        match self.streams.handle(frame)? {
            Some(Event::Opened(_)) => drop(reached.insert("opened")),
            Some(Event::Data(no, bytes)) => {
                let kept = self.kept.entry(no).or_default();
                *kept += bytes.len();
                reached.insert("data");
                assert!(*kept <= WINDOW as usize, "more than a window is to be kept");
            }
            Some(Event::Room(_)) => drop(reached.insert("room")),
            Some(Event::Closed(_)) => drop(reached.insert("closed")),
            None => drop(reached.insert("late")),
        }
        assert!(self.streams.len() <= MAX_STREAMS);
        Ok(())
    }

    /// One thing that an end does by itself, and what the other is told of it.
    fn act(&mut self, what: u8, no: StreamNo, len: usize, reached: &mut Reached) -> Option<Frame> {
        match what {
            // What is closed at the end has a number of a byte.
            0 if self.opened < u8::MAX => {
                self.opened += 1;
                self.streams.open().map(Frame::Open)
            }
            0 => None,
            1 => {
                let room = self.streams.room(no);
                assert!(room <= MAX_DATA);
                if room == 0 {
                    reached.insert("no room");
                    return None;
                }
                let len = len.min(room);
                self.streams.sent(no, len);
                Some(Frame::Data(no, Bytes(vec![0; len])))
            }
            2 => {
                let kept = self.kept.get_mut(&no)?;
                let len = len.min(*kept);
                *kept -= len;
                self.streams.taken(no, len)
            }
            _ => self.streams.close(no),
        }
    }
}

/// Entries of six bytes: what is done and by which end, the stream, how much; or a frame as it comes.
///
/// # Panics
/// Where ends that keep to the rules fall out, a window is exceeded, or something is not written as it was read.
pub fn device_streams(data: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let mut input = Input::new(data);
    let mut ends = [End::new(true), End::new(false)];
    let mut hostile = Some(End::new(false));
    while !input.rest().is_empty() {
        let (head, no) = (input.u8(), StreamNo::from(input.u8()));
        let len = input.u32() as usize;
        let at = usize::from(head & 1);
        match head >> 1 & 7 {
            what @ 0..=3 => {
                if let Some(frame) = ends[at].act(what, no, len, &mut reached) {
                    ends[1 - at].coming.push_back(frame);
                }
            }
            4 => {
                let bytes = input.bytes(len.min(MAX));
                let Ok(frame) = Frame::decode(bytes) else { continue };
                reached.insert("a frame");
                assert_eq!(Frame::decode(&frame.encode()), Ok(frame.clone()), "as it was read");
                let wrong = hostile.as_mut().map(|end| end.handle(frame, &mut reached));
                if matches!(wrong, Some(Err(_))) {
                    reached.insert("refused");
                    hostile = None;
                }
            }
            _ => {
                if let Some(frame) = ends[at].coming.pop_front() {
                    let told = ends[at].handle(frame, &mut reached);
                    assert_eq!(told, Ok(()), "they keep to the rules");
                }
            }
        }
    }
    finish(&mut ends, &mut reached);
    reached
}

/// All that was said arrives, and what is closed by both is gone.
fn finish(ends: &mut [End; 2], reached: &mut Reached) {
    // The unit's end may have to hear of a stream before it closes it.
    for _ in 0..3 {
        for at in 0..2 {
            for no in 1..=StreamNo::from(u8::MAX) {
                if let Some(frame) = ends[at].streams.close(no) {
                    ends[1 - at].coming.push_back(frame);
                }
            }
            while let Some(frame) = ends[at].coming.pop_front() {
                assert_eq!(ends[at].handle(frame, reached), Ok(()), "they keep to the rules");
            }
        }
    }
    if ends.iter().any(|end| end.kept.values().any(|kept| *kept == WINDOW as usize)) {
        reached.insert("a full window");
    }
    assert!(ends.iter().all(|end| end.streams.is_empty()), "what both have closed is gone");
}
