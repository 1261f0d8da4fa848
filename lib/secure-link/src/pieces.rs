// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames out of a stream's bytes, as they come.

use crate::opening::LENGTH;

/// Bytes that are asked for at a time, at least.
const READ: usize = 16 << 10;
/// Most bytes of a frame with its length.
const MOST: usize = LENGTH + u16::MAX as usize;

/// Bytes received of which the frames are not all taken. Holds at most one frame and room for another: 128 KiB.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Incoming {
    /// Where to put the next bytes; then [`Self::filled`]. Never empty while [`Self::frame`] has none.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let wanted = self.frame_len().unwrap_or(0).clamp(READ, MOST);
        if self.buffer.len() < self.end + wanted {
            self.buffer.resize(self.end + wanted, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// As many bytes of the room have come.
    pub(crate) fn filled(&mut self, len: usize) {
        self.end = (self.end + len).min(self.buffer.len());
    }

    /// The next whole frame without its length; it is taken.
    pub(crate) fn frame(&mut self) -> Option<&mut [u8]> {
        let len = self.frame_len().filter(|len| self.end - self.start >= *len)?;
        let start = self.start;
        self.start += len;
        Some(&mut self.buffer[start + LENGTH..start + len])
    }

    /// Bytes of the next frame, with its length.
    fn frame_len(&self) -> Option<usize> {
        let len = self.buffer[self.start..self.end].first_chunk::<LENGTH>()?;
        Some(LENGTH + usize::from(u16::from_be_bytes(*len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn frames_are_the_same_however_the_bytes_come() {
        for seed in 0..100 {
            let mut rng = Rng::new(seed);
            let sizes: Vec<usize> = (0..20)
                .map(|_| if rng.percent(10) { u16::MAX as usize } else { rng.below(300) })
                .collect();
            let mut bytes = vec![];
            for (at, size) in sizes.iter().enumerate() {
                bytes.extend(u16::try_from(*size).unwrap().to_be_bytes());
                bytes.extend(vec![at as u8; *size]);
            }
            let mut incoming = Incoming::default();
            let mut rest = &bytes[..];
            let mut found = vec![];
            while !rest.is_empty() {
                let room = incoming.room();
                assert!(!room.is_empty());
                let len = (1 + rng.below(40_000)).min(room.len()).min(rest.len());
                room[..len].copy_from_slice(&rest[..len]);
                rest = &rest[len..];
                incoming.filled(len);
                while let Some(frame) = incoming.frame() {
                    assert!(frame.iter().all(|byte| usize::from(*byte) == found.len()));
                    found.push(frame.len());
                }
                assert!(incoming.buffer.len() <= 2 * MOST, "{}", incoming.buffer.len());
            }
            assert_eq!(found, sizes, "seed {seed}");
            assert_eq!(incoming.start, incoming.end);
        }
    }
}
