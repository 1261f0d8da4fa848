// SPDX-License-Identifier: MIT OR Apache-2.0
//! A drive of another NBD server.
//!
//! Requests go over a socket pair to a pump ([`crate::client::pump`]), as the kernel's do at a blade: it connects anew
//! when the server is restarted, sends again what was lost by that, and answers with errors when it stays away. After
//! a failed write all is answered with errors until the source is opened again.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use super::{Abilities, Source, Zeroing};
use crate::client::connect::{Connect, ConnectError, MAX_REQUEST};
use crate::client::proxy::{Export, Proxy};
use crate::client::pump::{self, STACK};
use crate::nbd::ErrorCode;
use crate::nbd::reply::{ReplyHeader, SimpleReply};
use crate::nbd::request::{Request, command, flag};

/// How long a request waits while the server is away. Less than [`crate::client::proxy::HOLD`]: a blade is to hear
/// that the server behind ours is away, and not to take ours for dead.
pub const HOLD: Duration = Duration::from_secs(4);

/// Why another server's drive cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The server.
    #[error("cannot open {uri}")]
    Connect {
        /// What was to be opened.
        uri: String,
        /// Why not.
        source: ConnectError,
    },
    /// It would have to be writable.
    #[error("cannot open {uri}: it is read-only there; set mode = \"read-only\" or \"private\"")]
    ReadOnly {
        /// What was to be opened.
        uri: String,
    },
    /// Threads or sockets ran out.
    #[error("cannot open {uri}")]
    Io {
        /// What was to be opened.
        uri: String,
        /// Why not.
        source: io::Error,
    },
}

/// An open drive of another server.
#[derive(Debug)]
pub struct RemoteSource {
    export: Export,
    writable: bool,
    asked: Arc<Asked>,
    socket: UnixStream,
    trouble: Arc<Mutex<Option<String>>>,
    /// Ends after the sockets are shut.
    _pump: pump::Handle,
}

/// What was asked and not yet taken.
#[derive(Debug, Default)]
struct Asked {
    state: Mutex<State>,
    answered: Condvar,
    /// Whole requests, one after the other.
    sending: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    waiting: HashMap<u64, Slot>,
    /// The pump is no more.
    ended: bool,
}

#[derive(Debug)]
enum Slot {
    /// Bytes that come with the answer, if it is a good one.
    Waits(u32),
    Answered(Result<Vec<u8>, ErrorCode>),
}

impl RemoteSource {
    /// Connects; blocks for at most [`crate::client::connect::ATTEMPT`]. `uri` is for messages.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(uri: &str, connect: Arc<dyn Connect>, writable: bool) -> Result<Self, OpenError> {
        let connected = connect
            .connect()
            .map_err(|source| OpenError::Connect { uri: uri.to_owned(), source })?;
        let export = connected.export;
        if writable && export.is_read_only() {
            return Err(OpenError::ReadOnly { uri: uri.to_owned() });
        }
        let failed = |source| OpenError::Io { uri: uri.to_owned(), source };
        let (socket, host) = UnixStream::pair().map_err(failed)?;
        let trouble = Arc::new(Mutex::new(None));
        let known = Arc::clone(&trouble);
        let name = uri.to_owned();
        let tell = move |event| {
            let now = match event {
                pump::Event::Link(Ok(())) => None,
                pump::Event::Link(Err(why)) => Some(why),
                pump::Event::HostGone => return,
                pump::Event::End(cause) => {
                    tracing::error!(source = name, %cause, "eject this drive everywhere, and insert it again");
                    Some(cause.to_string())
                }
            };
            *known.lock().unwrap_or_else(PoisonError::into_inner) = now;
        };
        let proxy = Proxy::connected(export).with_hold(HOLD);
        let pump = pump::start(uri, proxy, host, Some(connected.stream), connect, Box::new(tell))
            .map_err(failed)?;
        let asked = Arc::new(Asked::default());
        let (answers, to_whom) = (socket.try_clone().map_err(failed)?, Arc::clone(&asked));
        thread::Builder::new()
            .name("remote source".to_owned())
            .stack_size(STACK)
            .spawn(move || to_whom.take_answers(answers))
            .map_err(failed)?;
        Ok(Self { export, writable, asked, socket, trouble, _pump: pump })
    }

    fn ask(&self, command: u16, flags: u16, offset: u64, what: Asks) -> io::Result<u64> {
        let (len, comes, payload) = match what {
            Asks::Nothing => (0, 0, &[][..]),
            Asks::Bytes(len) => (len, len, &[][..]),
            Asks::ToWrite(payload) => {
                (u32::try_from(payload.len()).expect("at most MAX_REQUEST"), 0, payload)
            }
        };
        let cookie = {
            let mut state = self.asked.lock();
            if state.ended {
                return Err(Errno::IO.into());
            }
            state.last += 1;
            let cookie = state.last;
            state.waiting.insert(cookie, Slot::Waits(comes));
            cookie
        };
        let header = Request { flags, command, cookie, offset, len }.encode();
        let _whole = self.asked.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = (&self.socket).write_all(&header).and_then(|()| {
            if payload.is_empty() { Ok(()) } else { (&self.socket).write_all(payload) }
        });
        if let Err(error) = sent {
            self.asked.lock().waiting.remove(&cookie);
            return Err(error);
        }
        Ok(cookie)
    }

    /// Asks piece by piece, all before the first answer is waited for. `answered` gets what comes with the answer
    /// and where it lies in the range.
    fn in_pieces<'a>(
        &self,
        len: usize,
        ask: impl Fn(usize, u32) -> io::Result<u64>,
        mut answered: impl FnMut(usize, Vec<u8>) + 'a,
    ) -> io::Result<()> {
        let mut cookies = vec![];
        let mut failed = Ok(());
        for from in (0..len).step_by(MAX_REQUEST as usize) {
            let piece = (len - from).min(MAX_REQUEST as usize);
            match ask(from, u32::try_from(piece).expect("at most MAX_REQUEST")) {
                Ok(cookie) => cookies.push((from, cookie)),
                Err(error) => {
                    failed = Err(error);
                    break;
                }
            }
        }
        // Each that was asked is waited for: nothing of a failed write may come later.
        for (from, cookie) in cookies {
            match self.asked.answer(cookie) {
                Ok(bytes) => answered(from, bytes),
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(Errno::ROFS.into()) }
    }

    fn write_pieces(&self, buf: &[u8], offset: u64, flags: u16) -> io::Result<()> {
        let ask = |from: usize, len: u32| {
            let payload = Asks::ToWrite(&buf[from..from + len as usize]);
            self.ask(command::WRITE, flags, offset + from as u64, payload)
        };
        self.in_pieces(buf.len(), ask, |_, _| ())
    }
}

enum Asks<'a> {
    Nothing,
    Bytes(u32),
    ToWrite(&'a [u8]),
}

impl Asked {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, cookie: u64) -> io::Result<Vec<u8>> {
        let mut state = self.lock();
        loop {
            match state.waiting.get(&cookie) {
                Some(Slot::Waits(_)) if !state.ended => {
                    let woken = self.answered.wait(state);
                    state = woken.unwrap_or_else(PoisonError::into_inner);
                }
                _ => break,
            }
        }
        match state.waiting.remove(&cookie) {
            Some(Slot::Answered(Ok(bytes))) => Ok(bytes),
            Some(Slot::Answered(Err(code))) => Err(io::Error::from(code)),
            _ => Err(Errno::IO.into()),
        }
    }

    fn take_answers(&self, mut socket: UnixStream) {
        while self.take_answer(&mut socket).is_ok() {}
        self.lock().ended = true;
        self.answered.notify_all();
    }

    fn take_answer(&self, socket: &mut UnixStream) -> io::Result<()> {
        let mut header = [0; SimpleReply::LEN];
        socket.read_exact(&mut header)?;
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let Ok(Some(ReplyHeader::Simple(reply))) = ReplyHeader::decode(&header) else {
            return Err(invalid());
        };
        let comes = match self.lock().waiting.get(&reply.cookie) {
            Some(Slot::Waits(len)) => *len,
            _ => return Err(invalid()),
        };
        let answer = match reply.error {
            Some(code) => Err(code),
            None => {
                let mut bytes = vec![0; comes as usize];
                socket.read_exact(&mut bytes)?;
                Ok(bytes)
            }
        };
        self.lock().waiting.insert(reply.cookie, Slot::Answered(answer));
        self.answered.notify_all();
        Ok(())
    }
}

impl Drop for RemoteSource {
    fn drop(&mut self) {
        // Whoever dropped it waits for nothing; the thread that takes answers ends by this.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Source for RemoteSource {
    fn size(&self) -> u64 {
        self.export.size
    }

    fn abilities(&self) -> Abilities {
        Abilities { write: self.writable, ..Abilities::default() }
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let ask = |from: usize, len: u32| {
            self.ask(command::READ, 0, offset + from as u64, Asks::Bytes(len))
        };
        self.in_pieces(buf.len(), ask, |from, bytes| {
            buf[from..from + bytes.len()].copy_from_slice(&bytes);
        })
    }

    fn write_at(&self, buf: &[u8], offset: u64, fua: bool) -> io::Result<()> {
        self.check_writable()?;
        // A server without FUA has a flush, or nothing to be flushed.
        let by_flag = fua && self.export.can_fua();
        self.write_pieces(buf, offset, if by_flag { flag::FUA } else { 0 })?;
        if fua && !by_flag { self.flush() } else { Ok(()) }
    }

    fn flush(&self) -> io::Result<()> {
        if !self.writable || !self.export.can_flush() {
            return Ok(());
        }
        let cookie = self.ask(command::FLUSH, 0, 0, Asks::Nothing)?;
        self.asked.answer(cookie).map(drop)
    }

    fn trim(&self, _offset: u64, _len: u64, _fua: bool) -> io::Result<()> {
        // It is no more than a hint.
        self.check_writable()
    }

    fn zero(&self, offset: u64, len: u64, how: Zeroing, fua: bool) -> io::Result<()> {
        self.check_writable()?;
        if how.fast {
            return Err(Errno::OPNOTSUPP.into());
        }
        let zeroes = vec![0; MAX_REQUEST as usize];
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let piece = (end - at).min(u64::from(MAX_REQUEST));
            self.write_at(&zeroes[..piece as usize], at, false)?;
            at += piece;
        }
        if fua { self.flush() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
