// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a server has acknowledged but not yet been told to make stable.
//!
//! A server that is restarted may have lost it, and NBD has no way to tell. The blade's host did not crash, so it
//! takes what was acknowledged for written and will not write it again. So it is kept until a flush that began after
//! its acknowledgement has succeeded, and written again, before anything else, over each new connection. What was
//! written twice is what was written once: the drive has one writer.
//!
//! Pieces never overlap: a later write takes the place of an earlier one, so they can be replayed in any order.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Data of a request, shared between those who still need it.
pub type Payload = Arc<Vec<u8>>;

/// Bytes in the log from which on no further request is taken: memory of the service processor, which has up to 16
/// drives.
pub const MAX_LOG: usize = 16 << 20;
/// Bytes in the log from which on the server is asked to flush, so that writing need not wait for it.
pub const FLUSH_ABOVE: usize = MAX_LOG / 2;
/// Pieces in the log, likewise: each costs about a hundred bytes beside its data.
pub const MAX_PIECES: usize = 16 << 10;

/// A run of bytes to be written again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    buffer: Payload,
    start: usize,
    len: usize,
    seq: u64,
}

impl Piece {
    /// Its bytes, copied if they are but a part of what was written at once.
    #[must_use]
    pub fn payload(&self) -> Payload {
        if self.len == self.buffer.len() {
            return Arc::clone(&self.buffer);
        }
        Arc::new(self.buffer[self.start..self.start + self.len].to_vec())
    }

    /// A part of it. A small part of a large buffer must not keep all of that.
    fn part(&self, from: usize, len: usize) -> Self {
        let start = self.start + from;
        if len * 2 < self.buffer.len() {
            let buffer = Arc::new(self.buffer[start..start + len].to_vec());
            return Self { buffer, start: 0, len, seq: self.seq };
        }
        Self { buffer: Arc::clone(&self.buffer), start, len, seq: self.seq }
    }
}

/// Acknowledged and not yet flushed.
#[derive(Debug, Default)]
pub struct ReplayLog {
    pieces: BTreeMap<u64, Piece>,
    bytes: usize,
    seq: u64,
}

impl ReplayLog {
    /// Remembers an acknowledged write.
    pub fn insert(&mut self, offset: u64, data: &Payload) {
        self.remove(offset, data.len() as u64);
        self.seq += 1;
        self.bytes += data.len();
        let piece = Piece { buffer: Arc::clone(data), start: 0, len: data.len(), seq: self.seq };
        self.pieces.insert(offset, piece);
    }

    /// Forgets a range: it was written anew, and that is stable.
    pub fn remove(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let before = self.pieces.range(..offset).next_back();
        let first = before
            .filter(|(at, piece)| *at + piece.len as u64 > offset)
            .map_or(offset, |(at, _)| *at);
        let touched: Vec<u64> = self.pieces.range(first..end).map(|(at, _)| *at).collect();
        for at in touched {
            let piece = self.pieces.remove(&at).expect("it was found in the map");
            self.bytes -= piece.len;
            let piece_end = at + piece.len as u64;
            if at < offset {
                let len = usize::try_from(offset - at).expect("shorter than the piece");
                self.keep(at, piece.part(0, len));
            }
            if piece_end > end {
                let from = usize::try_from(end - at).expect("shorter than the piece");
                self.keep(end, piece.part(from, piece.len - from));
            }
        }
    }

    fn keep(&mut self, at: u64, piece: Piece) {
        self.bytes += piece.len;
        self.pieces.insert(at, piece);
    }

    /// What a flush that begins now will have made stable.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.seq
    }

    /// A flush that began at `mark` succeeded.
    pub fn flushed(&mut self, mark: u64) {
        self.pieces.retain(|_, piece| piece.seq > mark);
        self.bytes = self.pieces.values().map(|piece| piece.len).sum();
    }

    /// All of it, by offset.
    pub fn pieces(&self) -> impl Iterator<Item = (u64, Payload)> + '_ {
        self.pieces.iter().map(|(at, piece)| (*at, piece.payload()))
    }

    /// Bytes that would have to be written again.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The server should be asked to flush.
    #[must_use]
    pub fn wants_flush(&self) -> bool {
        self.bytes >= FLUSH_ABOVE || self.pieces.len() >= MAX_PIECES / 2
    }

    /// There is no room for what another write might add.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes >= MAX_LOG || self.pieces.len() >= MAX_PIECES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(byte: u8, len: usize) -> Payload {
        Arc::new(vec![byte; len])
    }

    /// What is stored where, as a picture of the first bytes.
    fn picture(log: &ReplayLog, len: usize) -> Vec<u8> {
        let mut image = vec![b'.'; len];
        for (at, piece) in log.pieces() {
            let at = usize::try_from(at).unwrap();
            assert!(image[at..at + piece.len()].iter().all(|b| *b == b'.'), "pieces overlap");
            image[at..at + piece.len()].copy_from_slice(&piece);
        }
        assert_eq!(log.bytes(), image.iter().filter(|b| **b != b'.').count());
        image
    }

    #[test]
    fn later_writes_take_the_place_of_earlier_ones() {
        let mut log = ReplayLog::default();
        log.insert(2, &data(b'a', 10));
        log.insert(4, &data(b'b', 2));
        assert_eq!(picture(&log, 14), b"..aabbaaaaaa..");
        log.insert(0, &data(b'c', 3));
        log.insert(11, &data(b'd', 3));
        assert_eq!(picture(&log, 14), b"cccabbaaaaaddd");
        log.insert(3, &data(b'e', 8));
        assert_eq!(picture(&log, 14), b"ccceeeeeeeeddd");
        log.remove(2, 2);
        assert_eq!(picture(&log, 14), b"cc..eeeeeeeddd");
    }

    #[test]
    fn any_order_of_writes_gives_the_last_of_each_byte() {
        let mut seed = 1_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let mut log = ReplayLog::default();
        let mut model = vec![b'.'; 80];
        for step in 0..5000_u64 {
            let at = random(64);
            let len = usize::try_from(1 + random(16)).unwrap();
            let byte = b'A' + u8::try_from(step % 26).unwrap();
            let here = usize::try_from(at).unwrap();
            if random(4) == 0 {
                log.remove(at, len as u64);
                model[here..here + len].fill(b'.');
            } else {
                log.insert(at, &data(byte, len));
                model[here..here + len].fill(byte);
            }
            assert_eq!(picture(&log, 80), model, "step {step}");
        }
    }

    #[test]
    fn a_flush_covers_only_what_came_before_it() {
        let mut log = ReplayLog::default();
        log.insert(0, &data(b'a', 4));
        let mark = log.mark();
        log.insert(2, &data(b'b', 4));
        log.flushed(mark);
        assert_eq!(picture(&log, 8), b"..bbbb..");
        log.flushed(log.mark());
        assert_eq!(log.bytes(), 0);
    }

    #[test]
    fn a_small_rest_does_not_keep_a_large_buffer() {
        let mut log = ReplayLog::default();
        let large = data(b'a', 1000);
        log.insert(0, &large);
        log.insert(10, &data(b'b', 990));
        assert_eq!(Arc::strong_count(&large), 1);
    }
}
