// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replies that are gathered before they are sent.

use std::io;

use super::link::Link;

/// Gathered bytes that are sent without waiting for more. About what stays in a core's cache.
pub const BATCH: usize = 256 << 10;
/// Memory that is kept for the next replies, bytes; what a larger one needed is given back.
const KEPT: usize = 4 << 20;

/// Replies of one thread.
#[derive(Default)]
pub struct Output {
    /// Only ever grows by zeroes, so that no byte of it has to be written twice.
    buf: Vec<u8>,
    used: usize,
}

impl Output {
    /// Appends `len` bytes of any content, to be filled; at most the largest payload and its header.
    pub fn room(&mut self, len: usize) -> &mut [u8] {
        let start = self.used;
        self.used += len;
        if self.buf.len() < self.used {
            self.buf.resize(self.used, 0);
        }
        &mut self.buf[start..self.used]
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
    }

    /// How much there is.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Takes back what was appended since there were `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.used = self.used.min(len);
    }

    /// Forgets all.
    pub fn discard(&mut self) {
        self.used = 0;
        if self.buf.len() > KEPT {
            self.buf = vec![];
        }
    }

    /// Sends all.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send(&mut self, link: &Link) -> io::Result<()> {
        if self.used > 0 {
            link.send_all(&self.buf[..self.used])?;
            self.discard();
        }
        Ok(())
    }

    /// Sends all if it is a batch.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send_batch(&mut self, link: &Link) -> io::Result<()> {
        if self.used >= BATCH { self.send(link) } else { Ok(()) }
    }
}
