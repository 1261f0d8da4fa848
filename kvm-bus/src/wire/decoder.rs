// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds frames in a stream of bytes, whatever else is in it.

use serde::{Deserialize, Serialize};

use super::frame::{Frame, FrameError, MAX_ENCODED};

/// What came that was no frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// Damaged by noise or loss.
    pub damaged: u64,
    /// Longer than any frame.
    pub too_long: u64,
    /// Whole, but of another version.
    pub version: u64,
    /// Whole, but with fields that make no sense.
    pub fields: u64,
}

/// Takes bytes, gives frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// What comes until the next zero is too long already.
    skipping: bool,
    errors: Errors,
}

impl Decoder {
    /// The frames that these bytes complete.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Vec<Frame> {
        let mut frames = vec![];
        while let Some(end) = bytes.iter().position(|byte| *byte == 0) {
            self.take(&bytes[..end]);
            frames.extend(self.end_of_frame());
            bytes = &bytes[end + 1..];
        }
        self.take(bytes);
        frames
    }

    /// What went wrong so far.
    #[must_use]
    pub fn errors(&self) -> Errors {
        self.errors
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > MAX_ENCODED {
            self.skipping = true;
            self.buffer.clear();
        }
        if !self.skipping {
            self.buffer.extend(bytes);
        }
    }

    fn end_of_frame(&mut self) -> Option<Frame> {
        if std::mem::take(&mut self.skipping) {
            self.errors.too_long += 1;
            return None;
        }
        if self.buffer.is_empty() {
            return None;
        }
        let frame = Frame::decode(&self.buffer);
        self.buffer.clear();
        match frame {
            Ok(frame) => return Some(frame),
            Err(FrameError::Damaged) => self.errors.damaged += 1,
            Err(FrameError::Version(_)) => self.errors.version += 1,
            Err(FrameError::Field) => self.errors.fields += 1,
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Addr, Class, Kind};

    fn frame(n: u16) -> Frame {
        let [src, dst] = [Addr::blade(1), Addr::rmm(0)].map(Option::unwrap);
        Frame { seq: n, ..Frame::new(Class::Control, Kind::Data, src, dst, 1) }
    }

    #[test]
    fn noise_costs_only_the_frame_it_hits() {
        let mut wire = b"noise".to_vec();
        wire.extend(frame(1).encode());
        let mut hit = frame(2).encode();
        hit[4] ^= 1;
        wire.extend(hit);
        wire.extend([7; 5000]);
        wire.extend(frame(3).encode());
        let mut decoder = Decoder::default();
        let found: Vec<_> = decoder.feed(&wire).into_iter().map(|frame| frame.seq).collect();
        assert_eq!(found, [1, 3]);
        let errors = decoder.errors();
        assert_eq!((errors.damaged, errors.too_long), (2, 1));
        assert!(decoder.buffer.capacity() < 4 * MAX_ENCODED);
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(cuts in proptest::collection::vec(1usize..40, 1..60)) {
            let wire: Vec<u8> = (0..20).flat_map(|n| frame(n).encode()).collect();
            let mut decoder = Decoder::default();
            let (mut found, mut rest) = (vec![], &wire[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                found.extend(decoder.feed(now).into_iter().map(|frame| frame.seq));
                rest = later;
            }
            prop_assert_eq!(found, (0..20).collect::<Vec<_>>());
        }
    }
}
