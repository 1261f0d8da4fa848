// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several connections over the one of a lease, as numbered streams. The holder's end opens them; each direction of each has a
//! window, so that who reads nothing holds nobody else, and costs no more memory than that.
//!
//! ```text
//!  holder: open ──► data ⇄ (as much as the window has room for; taken bytes are given back as credit) ──► close ⇄ close: gone
//! ```
//!
//! Knows no socket: [`Streams::handle`] takes frames in, and each end says what it read and delivered itself.

pub mod pump;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::wire::{Bounded, MAX_MESSAGE};

/// Most streams at a time: twice what `nbd-client` opens at most.
pub const MAX_STREAMS: usize = 32;
/// Bytes of one direction of a stream that are on their way, or wait to be read. With all streams full that is 16 MiB at an end;
/// a network of 1 Gbit/s and 4 ms there and back is filled by one stream.
pub const WINDOW: u32 = 512 << 10;
/// Most bytes of one frame; its head fits beside them in a message.
pub const MAX_DATA: usize = MAX_MESSAGE - 64;
/// Credit is given when so much was taken: a frame for each read would be many small ones.
const CREDIT: u32 = WINDOW / 4;

/// Names a stream, as long as the connection lasts.
pub type StreamNo = u32;

/// Bytes of a stream, written and read in one go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

/// What one end tells the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// From the holder: a new one, with a greater number than all before.
    Open(StreamNo),
    /// At most [`MAX_DATA`], and no more than the receiver has room for.
    Data(StreamNo, Bytes),
    /// So many bytes more may be sent.
    Credit(StreamNo, u32),
    /// The sender has no more.
    Close(StreamNo),
}

impl Bounded for Frame {
    fn is_bounded(&self) -> bool {
        match self {
            Self::Data(_, Bytes(bytes)) => bytes.len() <= MAX_DATA,
            Self::Credit(_, credit) => *credit <= WINDOW,
            Self::Open(_) | Self::Close(_) => true,
        }
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(Whole).map(Self)
    }
}

struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = vec![];
        while let Some(byte) = all.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

/// The other end did what it may not: the connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Only the holder opens streams, with rising numbers, and not too many.
    #[error("the other end opens stream {0}, which it may not")]
    Open(StreamNo),
    /// There is no such stream, or it was closed.
    #[error("the other end speaks on stream {0}, which is not open")]
    NotOpen(StreamNo),
    /// Nobody has room for that.
    #[error("the other end sends more on stream {0} than its window has room for")]
    Window(StreamNo),
    /// Nobody sent that.
    #[error("the other end gives credit on stream {0} for what it was not sent")]
    Credit(StreamNo),
}

/// What a frame means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A stream begins.
    Opened(StreamNo),
    /// Bytes that are to be delivered.
    Data(StreamNo, Vec<u8>),
    /// There is room for more: see [`Streams::room`].
    Room(StreamNo),
    /// Nothing more comes.
    Closed(StreamNo),
}

#[derive(Debug, Clone, Copy)]
struct Stream {
    /// What may be sent.
    room: u32,
    /// What the other end may send.
    window: u32,
    /// What was delivered, and is not given back yet.
    taken: u32,
    closed_here: bool,
    closed_there: bool,
}

/// The streams of one connection.
#[derive(Debug)]
pub struct Streams {
    is_holder: bool,
    last: StreamNo,
    streams: BTreeMap<StreamNo, Stream>,
}

impl Streams {
    /// None yet, at the holder's end or the unit's.
    #[must_use]
    pub fn new(is_holder: bool) -> Self {
        Self { is_holder, last: 0, streams: BTreeMap::new() }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Begins one, which [`Frame::Open`] is to tell; none at the unit, or if there are too many, or numbers have run out.
    pub fn open(&mut self) -> Option<StreamNo> {
        let may = self.is_holder && self.streams.len() < MAX_STREAMS;
        let no = self.last.checked_add(1).filter(|_| may)?;
        self.begin(no);
        Some(no)
    }

    fn begin(&mut self, no: StreamNo) {
        self.last = no;
        let (room, window) = (WINDOW, WINDOW);
        let stream = Stream { room, window, taken: 0, closed_here: false, closed_there: false };
        self.streams.insert(no, stream);
    }

    /// Bytes that may be sent on a stream now, at most [`MAX_DATA`].
    #[must_use]
    pub fn room(&self, no: StreamNo) -> usize {
        let stream = self.streams.get(&no).filter(|stream| !stream.closed_here);
        stream.map_or(0, |stream| (stream.room as usize).min(MAX_DATA))
    }

    /// Bytes are about to be sent, no more than there was room for.
    pub fn sent(&mut self, no: StreamNo, len: usize) {
        if let Some(stream) = self.streams.get_mut(&no) {
            stream.room = stream.room.saturating_sub(u32::try_from(len).unwrap_or(u32::MAX));
        }
    }

    /// Bytes were delivered, or thrown away as nobody is there to have them: perhaps credit is to be given.
    #[must_use = "it is to be sent"]
    pub fn taken(&mut self, no: StreamNo, len: usize) -> Option<Frame> {
        let stream = self.streams.get_mut(&no).filter(|stream| !stream.closed_there)?;
        let most = WINDOW - stream.window;
        stream.taken =
            stream.taken.saturating_add(u32::try_from(len).unwrap_or(u32::MAX)).min(most);
        if stream.taken < CREDIT {
            return None;
        }
        let credit = std::mem::take(&mut stream.taken);
        stream.window += credit;
        Some(Frame::Credit(no, credit))
    }

    /// Nothing more will be sent on a stream.
    #[must_use = "it is to be sent"]
    pub fn close(&mut self, no: StreamNo) -> Option<Frame> {
        let stream = self.streams.get_mut(&no).filter(|stream| !stream.closed_here)?;
        stream.closed_here = true;
        self.forget(no);
        Some(Frame::Close(no))
    }

    /// What is closed by both is gone.
    fn forget(&mut self, no: StreamNo) {
        if self.streams.get(&no).is_some_and(|stream| stream.closed_here && stream.closed_there) {
            self.streams.remove(&no);
        }
    }

    /// Takes a frame in.
    ///
    /// # Errors
    /// See [`Violation`].
    pub fn handle(&mut self, frame: Frame) -> Result<Option<Event>, Violation> {
        Ok(Some(match frame {
            Frame::Open(no) => {
                if self.is_holder || no <= self.last || self.streams.len() >= MAX_STREAMS {
                    return Err(Violation::Open(no));
                }
                self.begin(no);
                Event::Opened(no)
            }
            Frame::Data(no, Bytes(bytes)) => {
                let stream = self.of_peer(no)?;
                let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                stream.window = stream.window.checked_sub(len).ok_or(Violation::Window(no))?;
                Event::Data(no, bytes)
            }
            Frame::Credit(no, credit) => {
                // It may cross our end of a stream that is gone there.
                let Some(stream) = self.streams.get_mut(&no) else {
                    return if no <= self.last { Ok(None) } else { Err(Violation::NotOpen(no)) };
                };
                let room = stream.room.checked_add(credit).filter(|room| *room <= WINDOW);
                stream.room = room.ok_or(Violation::Credit(no))?;
                Event::Room(no)
            }
            Frame::Close(no) => {
                self.of_peer(no)?.closed_there = true;
                self.forget(no);
                Event::Closed(no)
            }
        }))
    }

    /// A stream on which the other end may send.
    fn of_peer(&mut self, no: StreamNo) -> Result<&mut Stream, Violation> {
        let stream = self.streams.get_mut(&no).filter(|stream| !stream.closed_there);
        stream.ok_or(Violation::NotOpen(no))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::WireError;

    fn data(no: StreamNo, len: usize) -> Frame {
        Frame::Data(no, Bytes(vec![7; len]))
    }

    fn pair() -> (Streams, Streams) {
        let (mut holder, mut unit) = (Streams::new(true), Streams::new(false));
        let no = holder.open().unwrap();
        assert_eq!(unit.handle(Frame::Open(no)), Ok(Some(Event::Opened(1))));
        (holder, unit)
    }

    /// Other releases read these bytes: they are never changed.
    #[test]
    fn golden_bytes() {
        assert_eq!(Frame::Open(300).encode(), [1, 0, 0xac, 2]);
        assert_eq!(Frame::Data(1, Bytes(vec![8, 9])).encode(), [1, 1, 1, 2, 8, 9]);
        assert_eq!(Frame::Credit(2, 128).encode(), [1, 2, 2, 0x80, 1]);
        assert_eq!(Frame::Close(3).encode(), [1, 3, 3]);
    }

    #[test]
    fn frames_are_read_as_they_were_written_and_have_bounds() {
        for frame in [Frame::Open(1), data(2, MAX_DATA), Frame::Credit(3, WINDOW), Frame::Close(4)]
        {
            assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
        }
        assert_eq!(Frame::decode(&data(1, MAX_DATA + 1).encode()), Err(WireError::Long));
        assert_eq!(Frame::decode(&Frame::Credit(1, WINDOW + 1).encode()), Err(WireError::Long));
        for bad in [&[1, 1, 1, 2, 8][..], &[1, 4, 1], &[1, 0], &[1, 3, 3, 3]] {
            assert_eq!(Frame::decode(bad), Err(WireError::Malformed), "{bad:?}");
        }
    }

    #[test]
    fn a_window_ends_and_is_opened_by_credit_alone() {
        let (mut holder, mut unit) = pair();
        let mut sent = 0;
        while holder.room(1) > 0 {
            let len = holder.room(1);
            holder.sent(1, len);
            assert!(unit.handle(data(1, len)).is_ok());
            sent += len;
        }
        assert_eq!(sent, WINDOW as usize);
        assert_eq!(unit.handle(data(1, 1)), Err(Violation::Window(1)));
        assert_eq!(unit.taken(1, 1), None, "little by little");
        let credit = unit.taken(1, CREDIT as usize).unwrap();
        assert_eq!(credit, Frame::Credit(1, CREDIT + 1));
        assert_eq!(holder.handle(credit), Ok(Some(Event::Room(1))));
        assert!(holder.room(1) > 0);
        assert_eq!(holder.handle(Frame::Credit(1, WINDOW)), Err(Violation::Credit(1)));
    }

    #[test]
    fn one_that_stands_still_holds_no_other() {
        let (mut holder, mut unit) = pair();
        assert_eq!(holder.open(), Some(2));
        unit.handle(Frame::Open(2)).unwrap();
        unit.sent(1, WINDOW as usize);
        assert_eq!(unit.room(1), 0);
        assert_eq!(unit.room(2), MAX_DATA);
    }

    #[test]
    fn a_stream_is_gone_when_both_have_closed_it() {
        let (mut holder, mut unit) = pair();
        let close = holder.close(1).unwrap();
        assert_eq!(holder.close(1), None, "once");
        assert_eq!(holder.room(1), 0);
        assert_eq!(unit.handle(close.clone()), Ok(Some(Event::Closed(1))));
        assert_eq!(unit.handle(close), Err(Violation::NotOpen(1)));
        assert!(unit.room(1) > 0, "the other direction goes on");
        assert_eq!(unit.taken(1, WINDOW as usize), None, "nobody needs credit");
        let close = unit.close(1).unwrap();
        assert!(unit.is_empty());
        assert_eq!(holder.handle(close), Ok(Some(Event::Closed(1))));
        assert!(holder.is_empty());
        assert_eq!(holder.handle(Frame::Credit(1, 1)), Ok(None), "it was on its way");
        assert_eq!(holder.open(), Some(2), "a number is never used twice");
    }

    #[test]
    fn only_the_holder_opens_and_not_too_many() {
        let (mut holder, mut unit) = pair();
        assert_eq!((unit.open(), holder.handle(Frame::Open(2))), (None, Err(Violation::Open(2))));
        assert_eq!(unit.handle(Frame::Open(1)), Err(Violation::Open(1)));
        for no in 2..=MAX_STREAMS as u32 {
            assert_eq!(holder.open(), Some(no));
            assert!(unit.handle(Frame::Open(no)).is_ok());
        }
        assert_eq!(holder.open(), None);
        assert_eq!(unit.handle(Frame::Open(99)), Err(Violation::Open(99)));
        for frame in [data(100, 1), Frame::Close(100), Frame::Credit(100, 1)] {
            assert_eq!(unit.handle(frame), Err(Violation::NotOpen(100)));
        }
    }
}
