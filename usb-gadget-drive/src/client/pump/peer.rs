// SPDX-License-Identifier: MIT OR Apache-2.0
//! A non-blocking socket of the pump: messages in, messages out.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use rustix::event::PollFlags;

use super::super::connect::Stream;
use crate::client::replay::Payload;
use crate::nbd::request::Request;

/// Pieces written at a time; the kernel takes 1024.
const MAX_SLICES: usize = 64;
/// Bytes read at a time where requests are small.
const READ_BUFFER: usize = 64 << 10;
/// Something to be written: a header, or data that others may still need.
enum Chunk {
    Head(Vec<u8>),
    Data(Payload),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Head(bytes) => bytes,
            Self::Data(data) => data,
        }
    }
}

/// Where reading is within a message.
enum Incoming<H> {
    Header { bytes: [u8; Request::LEN], have: usize },
    Body { header: H, bytes: Vec<u8>, have: usize },
}

impl<H> Default for Incoming<H> {
    fn default() -> Self {
        Self::Header { bytes: [0; Request::LEN], have: 0 }
    }
}

/// One socket with what is on its way.
pub struct Peer<S, H> {
    /// Where from and to.
    pub stream: S,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    incoming: Incoming<H>,
    out: VecDeque<Chunk>,
    written: usize,
    /// It is worth reading.
    pub readable: bool,
}

impl<S: Stream, H> Peer<S, H> {
    /// With nothing on its way.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: vec![0; READ_BUFFER],
            start: 0,
            end: 0,
            incoming: Incoming::default(),
            out: VecDeque::new(),
            written: 0,
            readable: true,
        }
    }

    /// Fills `target` from `have` on; false if there is not yet enough.
    fn fill(
        stream: &mut S,
        buffer: &mut [u8],
        (start, end): (&mut usize, &mut usize),
        target: &mut [u8],
        have: &mut usize,
    ) -> io::Result<bool> {
        while *have < target.len() {
            let rest = &mut target[*have..];
            if start < end {
                let len = rest.len().min(*end - *start);
                rest[..len].copy_from_slice(&buffer[*start..*start + len]);
                *start += len;
                *have += len;
                continue;
            }
            let direct = rest.len() >= buffer.len() / 2;
            let read = if direct { stream.read(rest) } else { stream.read(buffer) };
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) if direct => *have += len,
                Ok(len) => (*start, *end) = (0, len),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// The next message, if it is whole: `decode` reads a header of `len` bytes and says how many follow.
    pub fn next(
        &mut self,
        len: usize,
        decode: impl FnOnce(&[u8; Request::LEN]) -> io::Result<(H, usize)>,
    ) -> io::Result<Option<(H, Vec<u8>)>> {
        let Self { stream, buffer, start, end, incoming, .. } = self;
        if let Incoming::Header { bytes, have } = incoming {
            if !Self::fill(stream, buffer, (start, end), &mut bytes[..len], have)? {
                self.readable = false;
                return Ok(None);
            }
            let (header, body) = decode(bytes)?;
            *incoming = Incoming::Body { header, bytes: vec![0; body], have: 0 };
        }
        if let Incoming::Body { bytes, have, .. } = incoming
            && !Self::fill(stream, buffer, (start, end), bytes, have)?
        {
            self.readable = false;
            return Ok(None);
        }
        match std::mem::take(incoming) {
            Incoming::Body { header, bytes, .. } => Ok(Some((header, bytes))),
            Incoming::Header { .. } => Ok(None),
        }
    }

    /// Queues a message; its header and perhaps data.
    pub fn push(&mut self, head: &[u8], data: Payload) {
        self.out.push_back(Chunk::Head(head.to_vec()));
        if !data.is_empty() {
            self.out.push_back(Chunk::Data(data));
        }
    }

    /// Writes what the socket takes.
    pub fn write(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            let mut skip = self.written;
            let slices: Vec<IoSlice<'_>> = self
                .out
                .iter()
                .take(MAX_SLICES)
                .map(|chunk| IoSlice::new(&chunk.bytes()[std::mem::take(&mut skip)..]))
                .collect();
            match self.stream.write_vectored(&slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => self.wrote(len),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        match self.stream.flush() {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(e),
            _ => Ok(()),
        }
    }

    fn wrote(&mut self, len: usize) {
        self.written += len;
        while let Some(first) =
            self.out.front().map(|chunk| chunk.bytes().len()).filter(|len| *len <= self.written)
        {
            self.written -= first;
            self.out.pop_front();
        }
    }

    /// Something was read but not yet taken.
    pub fn has_more(&self) -> bool {
        self.start < self.end
    }

    /// Nothing is to be written.
    pub fn is_idle(&self) -> bool {
        self.out.is_empty()
    }

    /// What to poll for.
    pub fn flags(&self, read: bool) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, read);
        flags.set(PollFlags::OUT, !self.out.is_empty() || self.stream.wants_write());
        flags
    }
}
