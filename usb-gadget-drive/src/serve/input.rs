// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has come from a client and has not been looked at.

use std::io;

use super::link::{Ciphered, Link};

/// Received at a time, bytes: many small requests, or a part of a large one that stays in a core's cache.
pub const INPUT: usize = 256 << 10;

/// The receiving end of a connection.
pub struct Input {
    buf: Box<[u8]>,
    start: usize,
    end: usize,
    /// Of a connection by TLS.
    pub ciphered: Ciphered,
}

impl Default for Input {
    fn default() -> Self {
        let buf = vec![0; INPUT].into_boxed_slice();
        Self { buf, start: 0, end: 0, ciphered: Ciphered::default() }
    }
}

impl Input {
    /// What there is.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buf[self.start..self.end]
    }

    /// Done with the first `len` bytes, which are there.
    pub fn consume(&mut self, len: usize) {
        self.start += len;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Waits for more, until there are `wanted` bytes, at most [`INPUT`]; false at the end.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn fill(&mut self, link: &Link, wanted: usize) -> io::Result<bool> {
        while self.end - self.start < wanted {
            if self.start + wanted > self.buf.len() || self.start > 0 && self.end == self.buf.len()
            {
                self.buf.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            let received = link.recv(&mut self.buf[self.end..], &mut self.ciphered)?;
            self.end += received;
            if received == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fills `buf`, first with what there is; false at the end.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn take(&mut self, link: &Link, buf: &mut [u8]) -> io::Result<bool> {
        let mut filled = buf.len().min(self.end - self.start);
        buf[..filled].copy_from_slice(&self.buf[self.start..self.start + filled]);
        self.consume(filled);
        while filled < buf.len() {
            let received = link.recv(&mut buf[filled..], &mut self.ciphered)?;
            filled += received;
            if received == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
