// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines of at most [`MAX_MESSAGE`] bytes from a stream that may be anybody's.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::{MAX_MESSAGE, SILENT_FOR};

/// Reads lines.
#[derive(Debug)]
pub(super) struct LineReader<R> {
    stream: R,
    buffer: Vec<u8>,
    /// Bytes of the buffer that hold no line's end.
    searched: usize,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(super) fn new(stream: R) -> Self {
        Self { stream, buffer: Vec::new(), searched: 0 }
    }

    /// The next line without its end, `None` at the end of the stream. Nothing is lost where the future is dropped.
    ///
    /// # Errors
    /// Those of the stream; `TimedOut` after [`SILENT_FOR`]; `InvalidData` for a line that is too long.
    pub(super) async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
                let end = self.searched + at;
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() >= MAX_MESSAGE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too long"));
            }
            let read = timeout(SILENT_FOR, self.stream.read_buf(&mut self.buffer));
            if read.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? == 0 {
                return Ok(None);
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
        let long = vec![b'x'; MAX_MESSAGE + 1];
        let error = LineReader::new(&long[..]).next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
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
