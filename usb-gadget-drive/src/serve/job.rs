// SPDX-License-Identifier: MIT OR Apache-2.0
//! Does what requests ask for, and makes the replies.

use std::io;

use super::export::{Attached, Export};
use super::link::Link;
use super::output::Output;
use crate::nbd::reply::{ChunkHeader, SimpleReply, block_status_chunk, error_chunk, state};
use crate::nbd::request::{Request, command, flag};
use crate::nbd::{BASE_ALLOCATION_ID, ErrorCode};
use crate::source::Zeroing;

/// Most of a large read that is in one chunk, bytes: the client has the first while the next is read.
pub const PIECE: u32 = 256 << 10;
/// Runs in one answer about what lies where. The client asks again for more.
const MAX_RUNS: usize = 2048;

/// What all threads of a connection need.
pub struct Served {
    /// To the client.
    pub link: Link,
    /// What it chose.
    pub attached: Attached,
    /// As it was told.
    pub flags: u16,
    /// Reads are answered in chunks.
    pub structured: bool,
    /// `BLOCK_STATUS` works.
    pub base_allocation: bool,
}

impl Served {
    /// What is served.
    #[must_use]
    pub fn export(&self) -> &Export {
        self.attached.export()
    }

    /// Appends a whole reply without data.
    pub fn reply(&self, request: &Request, done: Result<(), ErrorCode>, out: &mut Output) {
        let in_chunks = matches!(request.command, command::READ | command::BLOCK_STATUS);
        match done {
            Err(error) if in_chunks && self.structured => {
                out.push(&error_chunk(request.cookie, error));
            }
            done => {
                let reply = SimpleReply { error: done.err(), cookie: request.cookie };
                out.push(&reply.encode());
            }
        }
    }

    /// Reads what a checked request asks for, from its byte `from` on, and appends the replies; where that would
    /// wait and `wait` is not set, says from which byte on the rest has to be read.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn read(
        &self,
        request: &Request,
        from: u32,
        wait: bool,
        out: &mut Output,
    ) -> io::Result<Option<u32>> {
        let mut at = from;
        loop {
            let whole = !self.structured || request.has(flag::DF);
            let left = request.len - at;
            let len = if whole { left } else { left.min(PIECE) };
            let before = out.len();
            let offset = request.offset + u64::from(at);
            if !self.structured {
                out.push(&SimpleReply { error: None, cookie: request.cookie }.encode());
            } else {
                out.push(&ChunkHeader::data(request.cookie, offset, len, len == left));
            }
            match self.read_into(out.room(len as usize), offset, wait) {
                Ok(true) => {}
                Ok(false) => {
                    out.truncate(before);
                    return Ok(Some(at));
                }
                Err(error) => {
                    out.truncate(before);
                    self.reply(request, Err(error), out);
                    return Ok(None);
                }
            }
            out.send_batch(&self.link)?;
            at += len;
            if at == request.len {
                return Ok(None);
            }
        }
    }

    fn read_into(&self, buf: &mut [u8], offset: u64, wait: bool) -> Result<bool, ErrorCode> {
        self.export().check_read()?;
        let source = self.export().source();
        let read = if wait {
            source.read_at(buf, offset).map(|()| true)
        } else {
            source.try_read_at(buf, offset)
        };
        read.map_err(|error| self.export().failed("read", &error))
    }

    /// Writes some of what a checked request brought.
    ///
    /// # Errors
    /// As the client is told.
    pub fn write(&self, buf: &[u8], offset: u64, fua: bool) -> Result<(), ErrorCode> {
        self.change("write", || self.export().source().write_at(buf, offset, fua))
    }

    fn change(&self, what: &str, change: impl FnOnce() -> io::Result<()>) -> Result<(), ErrorCode> {
        self.export().check_write()?;
        change().map_err(|error| self.export().failed(what, &error))
    }

    fn flush(&self) -> Result<(), ErrorCode> {
        if !self.export().is_writable() {
            return self.export().check_read();
        }
        self.change("flush", || self.export().source().flush())
    }

    fn zero(&self, request: &Request) -> Result<(), ErrorCode> {
        let (may_trim, fast) = (!request.has(flag::NO_HOLE), request.has(flag::FAST_ZERO));
        let how = Zeroing { may_trim, fast };
        let (offset, len, fua) = (request.offset, request.len.into(), request.has(flag::FUA));
        let done = self.change("zero", || self.export().source().zero(offset, len, how, fua));
        // proto.md, "Error values": NBD_ENOTSUP is for those who asked for speed.
        done.map_err(|error| if fast || error != ErrorCode::NotSup { error } else { ErrorCode::Io })
    }

    fn trim(&self, request: &Request) -> Result<(), ErrorCode> {
        let (offset, len, fua) = (request.offset, request.len.into(), request.has(flag::FUA));
        self.change("trim", || self.export().source().trim(offset, len, fua))
    }

    fn status(&self, request: &Request, out: &mut Output) -> Result<(), ErrorCode> {
        self.export().check_read()?;
        let max = if request.has(flag::REQ_ONE) { 1 } else { MAX_RUNS };
        let source = self.export().source();
        let extents = source.extents(request.offset, request.len.into(), max);
        let mut left = request.len;
        let mut runs: Vec<(u32, u32)> = vec![];
        for extent in
            extents.map_err(|error| self.export().failed("map", &error))?.into_iter().take(max)
        {
            let len = u32::try_from(extent.len).unwrap_or(u32::MAX).min(left);
            let hole = if extent.is_hole { state::HOLE } else { 0 };
            let zero = if extent.is_zero { state::ZERO } else { 0 };
            if len > 0 {
                runs.push((len, hole | zero));
            }
            left -= len;
        }
        if runs.is_empty() {
            return Err(ErrorCode::Io);
        }
        out.push(&block_status_chunk(request.cookie, BASE_ALLOCATION_ID, &runs));
        Ok(())
    }
}

/// A checked request that has to wait.
pub struct Job {
    /// What is asked for.
    pub request: Request,
    /// Of a read, the bytes that have been answered.
    pub from: u32,
    /// Of a write.
    pub payload: Vec<u8>,
}

impl Job {
    /// The memory it takes, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        bytes(&self.request)
    }

    /// Does it; the reply is in `out`, where it has not been sent.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn run(&self, served: &Served, out: &mut Output) -> io::Result<()> {
        let request = &self.request;
        let done = match request.command {
            command::READ => return served.read(request, self.from, true, out).map(|_| ()),
            command::BLOCK_STATUS => match served.status(request, out) {
                Ok(()) => return Ok(()),
                failed => failed,
            },
            command::WRITE => served.write(&self.payload, request.offset, request.has(flag::FUA)),
            command::FLUSH => served.flush(),
            command::TRIM => served.trim(request),
            command::WRITE_ZEROES => served.zero(request),
            _ => Err(ErrorCode::Inval),
        };
        served.reply(request, done, out);
        Ok(())
    }
}

/// The memory that a request takes while it waits.
#[must_use]
pub fn bytes(request: &Request) -> usize {
    match request.command {
        command::READ | command::WRITE => request.len as usize,
        _ => 0,
    }
}
