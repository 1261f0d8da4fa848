// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a console said, by offset from its beginning: the end of it is kept, so that nothing is lost while nobody listens.

use std::collections::VecDeque;

/// The end of a stream.
#[derive(Debug, Clone)]
pub struct Ring {
    end: u64,
    bytes: VecDeque<u8>,
    bound: usize,
}

impl Ring {
    /// An empty one that keeps so many bytes.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self { end: 0, bytes: VecDeque::new(), bound }
    }

    /// Adds what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        self.bytes.extend(&bytes[bytes.len().saturating_sub(self.bound)..]);
        let over = self.bytes.len().saturating_sub(self.bound);
        self.bytes.drain(..over);
    }

    /// Goes to an offset without what is before it.
    pub fn skip_to(&mut self, offset: u64) {
        self.bytes.clear();
        self.end = offset;
    }

    /// Offset of the oldest byte kept.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    /// Offset of the next byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// At most `most` bytes from `offset`, or from the oldest kept, and the offset of the first.
    #[must_use]
    pub fn from(&self, offset: u64, most: usize) -> (u64, Vec<u8>) {
        let offset = offset.clamp(self.start(), self.end);
        let skip = usize::try_from(offset - self.start()).expect("within the ring");
        let (front, back) = self.bytes.as_slices();
        let bytes = match skip.checked_sub(front.len()) {
            None => [&front[skip..], back].concat(),
            Some(skip) => back[skip..].to_vec(),
        };
        (offset, bytes.into_iter().take(most).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept() {
        let mut ring = Ring::new(8);
        ring.push(b"abcde");
        ring.push(b"fghijk");
        assert_eq!((ring.start(), ring.end()), (3, 11));
        assert_eq!(ring.from(0, 3), (3, b"def".to_vec()));
        assert_eq!(ring.from(9, 10), (9, b"jk".to_vec()));
        assert_eq!(ring.from(99, 10), (11, vec![]));
        ring.push(&[b'x'; 100]);
        assert_eq!(ring.from(0, 100), (103, vec![b'x'; 8]));
        ring.skip_to(500);
        assert_eq!(ring.from(0, 100), (500, vec![]));
    }
}
