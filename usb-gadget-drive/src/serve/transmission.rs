// SPDX-License-Identifier: MIT OR Apache-2.0
//! Serves the requests of one connection, in its own thread.
//!
//! What can be done without waiting is done here, in order, and the replies of all requests that have come are sent
//! together; the rest is for the workers. The thread waits for the client only when nothing is left to send to it.

use std::io;
use std::sync::Arc;

use super::input::{INPUT, Input};
use super::job::{self, Job, Served};
use super::output::Output;
use super::workers::Workers;
use crate::nbd::request::{Request, command, flag};
use crate::nbd::{BadMagic, ErrorCode};

/// Longest payload that is passed over to refuse its request, bytes; a longer one ends the connection.
const MAX_DRAINED: u32 = 256 << 20;
/// Least of a payload that is written at a time while more of it is to come, bytes.
const LEAST: usize = 64 << 10;
/// Parts of a payload end at multiples of it: the kernel would read the rest of a page before it writes a part of it.
const PAGE: u64 = 4096;

/// How serving ended.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The client left without a word, is out of reach, or reads nothing.
    #[error("the connection is lost")]
    Connection(#[from] io::Error),
    /// It is out of step.
    #[error(transparent)]
    Magic(#[from] BadMagic),
    /// A payload longer than [`MAX_DRAINED`].
    #[error("a write of {0} bytes")]
    TooLong(u32),
}

/// Serves until the client disconnects; what it asked for has been done then. Whether it said that it would.
///
/// # Errors
/// It ended in another way.
pub fn serve(served: Arc<Served>, input: Input) -> Result<bool, Broken> {
    let workers = Workers::new(Arc::clone(&served));
    let mut transmission = Transmission { served, input, out: Output::default(), workers };
    let ended = transmission.run();
    if ended.is_err() {
        // Workers may be sending to somebody who reads nothing; they are waited for.
        transmission.served.link.socket().cut();
    }
    ended
}

struct Transmission {
    served: Arc<Served>,
    input: Input,
    out: Output,
    workers: Workers,
}

impl Transmission {
    fn run(&mut self) -> Result<bool, Broken> {
        while let Some(request) = self.next()? {
            if request.command == command::DISC {
                self.send()?;
                return Ok(true);
            }
            self.request(&request)?;
        }
        self.send()?;
        Ok(false)
    }

    fn send(&mut self) -> io::Result<()> {
        self.out.send(&self.served.link)
    }

    /// The next request; none if there will be no more.
    fn next(&mut self) -> Result<Option<Request>, Broken> {
        loop {
            if let Some(header) = self.input.bytes().first_chunk() {
                let request = Request::decode(header)?;
                self.input.consume(Request::LEN);
                return Ok(Some(request));
            }
            self.send()?;
            if !self.input.fill(&self.served.link, Request::LEN)? {
                return match self.input.bytes() {
                    [] => Ok(None),
                    _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                };
            }
        }
    }

    fn request(&mut self, request: &Request) -> Result<(), Broken> {
        let served = Arc::clone(&self.served);
        let size = served.export().source().size();
        if let Err(error) = request.check(served.flags, served.base_allocation, size) {
            self.drain(request.payload())?;
            served.reply(request, Err(error), &mut self.out);
            return Ok(());
        }
        let prompt = served.export().source().is_prompt();
        match request.command {
            command::READ => {
                if let Some(from) = served.read(request, 0, false, &mut self.out)? {
                    self.later(request, from, vec![])?;
                }
            }
            command::WRITE if prompt && !request.has(flag::FUA) => {
                let done = self.write(request)?;
                served.reply(request, done, &mut self.out);
                self.out.send_batch(&served.link)?;
            }
            command::WRITE => {
                self.wait_for_room(request)?;
                let mut payload = vec![0; request.len as usize];
                if payload.len() > self.input.bytes().len() {
                    self.send()?;
                }
                if !self.input.take(&served.link, &mut payload)? {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                self.later(request, 0, payload)?;
            }
            _ => self.later(request, 0, vec![])?,
        }
        Ok(())
    }

    /// Writes a payload part by part as it comes. All of it is taken, whatever becomes of it.
    fn write(&mut self, request: &Request) -> io::Result<Result<(), ErrorCode>> {
        let mut done = Ok(());
        let mut offset = request.offset;
        let mut left = request.len as usize;
        while left > 0 {
            self.receive(left.min(LEAST))?;
            let here = self.input.bytes().len();
            let mut len = left.min(here);
            if len < left {
                let loose = (offset + len as u64) % PAGE;
                len -= usize::try_from(loose).expect("less than a page");
            }
            if done.is_ok() {
                done = self.served.write(&self.input.bytes()[..len], offset, false);
            }
            self.input.consume(len);
            offset += len as u64;
            left -= len;
        }
        Ok(done)
    }

    fn drain(&mut self, len: u32) -> Result<(), Broken> {
        if len > MAX_DRAINED {
            return Err(Broken::TooLong(len));
        }
        let mut left = len as usize;
        while left > 0 {
            self.receive(1)?;
            let here = left.min(self.input.bytes().len());
            self.input.consume(here);
            left -= here;
        }
        Ok(())
    }

    /// Waits until `wanted` bytes are there, at most [`INPUT`].
    fn receive(&mut self, wanted: usize) -> io::Result<()> {
        debug_assert!(wanted <= INPUT);
        if self.input.bytes().len() < wanted {
            self.send()?;
            if !self.input.fill(&self.served.link, wanted)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn wait_for_room(&mut self, request: &Request) -> io::Result<()> {
        if self.workers.is_full(job::bytes(request)) { self.send() } else { Ok(()) }
    }

    fn later(&mut self, request: &Request, from: u32, payload: Vec<u8>) -> io::Result<()> {
        self.wait_for_room(request)?;
        self.workers.submit(Job { request: *request, from, payload })
    }
}
