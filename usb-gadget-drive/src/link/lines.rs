// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines of at most [`MAX_MESSAGE`] bytes from a stream that may be anybody's.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::{MAX_MESSAGE, SILENT_FOR};

/// Bytes read at once.
const PIECE: usize = 4096;

/// A line of more than [`MAX_MESSAGE`] bytes, its end counted in: nothing after it can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message is too long")]
pub struct TooLong;

/// Cuts a stream into lines.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Bytes of the buffer that were returned.
    begin: usize,
    /// Bytes of the buffer that were returned or hold no line's end.
    searched: usize,
}

impl Lines {
    /// Takes the next bytes of the stream, any number. To be called when [`Lines::next`] has no line.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.begin);
        self.searched -= self.begin;
        self.begin = 0;
        self.buffer.extend(bytes);
    }

    /// The next line without its end, `None` if there is none yet.
    ///
    /// # Errors
    /// It is too long.
    #[expect(clippy::should_implement_trait, reason = "`None` is not the end")]
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let found = self.buffer[self.searched..].iter().position(|b| *b == b'\n');
        let end = found.map_or(self.buffer.len(), |at| self.searched + at);
        if end - self.begin >= MAX_MESSAGE {
            return Err(TooLong);
        }
        self.searched = end;
        Ok(found.map(|_| {
            let line = self.buffer[self.begin..end].to_vec();
            self.searched = end + 1;
            self.begin = end + 1;
            line
        }))
    }
}

/// Reads lines.
#[derive(Debug)]
pub(super) struct LineReader<R> {
    stream: R,
    lines: Lines,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, lines: Lines::default() }
    }

    /// The next line without its end, `None` at the end of the stream. Nothing is lost where the future is dropped.
    ///
    /// # Errors
    /// Those of the stream; `TimedOut` after [`SILENT_FOR`]; `InvalidData` for a line that is too long.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        loop {
            if let Some(line) = self.lines.next().map_err(invalid)? {
                return Ok(Some(line));
            }
            let mut piece = [0; PIECE];
            let read = timeout(SILENT_FOR, self.stream.read(&mut piece));
            match read.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
                0 => return Ok(None),
                len => self.lines.push(&piece[..len]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_whole_and_bounded() {
        let mut lines = LineReader::new(&b"a\n\nbc\nd"[..]);
        for want in [&b"a"[..], b"", b"bc"] {
            assert_eq!(lines.next().await.unwrap().unwrap(), want);
        }
        assert_eq!(lines.next().await.unwrap(), None);
        let line = |len| [&vec![b'x'; len][..], b"\n"].concat();
        let longest = line(MAX_MESSAGE - 1);
        let read = LineReader::new(&longest[..]).next().await.unwrap().unwrap();
        assert_eq!(read.len(), MAX_MESSAGE - 1);
        // Whether its end is in sight or not.
        let long = line(MAX_MESSAGE);
        for long in [&long[..], &long[..MAX_MESSAGE]] {
            let error = LineReader::new(long).next().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_has_an_end() {
        let (stream, _other) = tokio::io::duplex(64);
        assert_eq!(
            LineReader::new(stream).next().await.unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }
}
