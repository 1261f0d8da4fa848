// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links for threads: a [`Channel`] reads and writes as the socket below does, which may be non-blocking.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::crypto::Secret;
use crate::handshake::{Dial, Door, HANDSHAKE_LIMIT, Handshake, Local, Progress};
pub use crate::link::{LinkError, MAX_MESSAGE};
use crate::opening::{LENGTH, MAX_HANDSHAKE_FRAME};
use crate::pieces::Incoming;
use crate::roster::Roster;
use crate::session::{MAX_CONTENT, OpenError, Opener, Piece, Sealer, Session};
use crate::wire::DecodeError;

/// A socket whose waiting can be limited.
pub trait Socket: Read + Write {
    /// How long a read or a write may wait; for ever if none.
    ///
    /// # Errors
    /// The socket's.
    fn limit(&self, limit: Option<Duration>) -> io::Result<()>;
}

macro_rules! limited {
    ($($socket:ty),*) => { $(
        impl Socket for $socket {
            fn limit(&self, limit: Option<Duration>) -> io::Result<()> {
                self.set_read_timeout(limit)?;
                self.set_write_timeout(limit)
            }
        }
    )* };
}

limited!(TcpStream, UnixStream);

/// Connects as `dial` says, over `socket`, which must be a blocking one. Then it waits for ever.
///
/// # Errors
/// See [`LinkError`]; [`LinkError::Late`] after [`HANDSHAKE_LIMIT`].
pub fn connect(
    socket: &mut impl Socket,
    local: Arc<Local>,
    dial: Dial,
    roster: impl Fn() -> Roster,
) -> Result<Session, LinkError> {
    let (handshake, first) = Handshake::initiate(local, dial, Secret::random()?);
    run(socket, handshake, &first, roster)
}

/// Waits on `socket`, which must be a blocking one, for the other end to connect. Then it waits for ever.
///
/// # Errors
/// As [`connect`].
pub fn accept(
    socket: &mut impl Socket,
    local: Arc<Local>,
    door: Door,
    roster: impl Fn() -> Roster,
) -> Result<Session, LinkError> {
    let handshake = Handshake::respond(local, door, Secret::random()?);
    run(socket, handshake, &[], roster)
}

fn run(
    socket: &mut impl Socket,
    mut handshake: Handshake,
    first: &[u8],
    roster: impl Fn() -> Roster,
) -> Result<Session, LinkError> {
    let deadline = Instant::now() + HANDSHAKE_LIMIT;
    send(socket, first, deadline)?;
    let session = loop {
        // No byte more than the frame: what comes behind it is the session's.
        let mut len = [0; LENGTH];
        receive(socket, &mut len, deadline)?;
        let len = usize::from(u16::from_be_bytes(len));
        if len > MAX_HANDSHAKE_FRAME {
            return Err(crate::HandshakeError::Malformed(DecodeError::Long).into());
        }
        let mut frame = vec![0; len];
        receive(socket, &mut frame, deadline)?;
        match handshake.handle(&frame, &roster()) {
            Progress::Send(bytes) => send(socket, &bytes, deadline)?,
            Progress::Done(bytes, session) => {
                send(socket, &bytes, deadline)?;
                break session;
            }
            Progress::Failed(bytes, error) => {
                // The other end is told why, if it still listens.
                let _ = send(socket, &bytes, deadline);
                return Err(error.into());
            }
        }
    };
    socket.limit(None)?;
    Ok(*session)
}

/// Limits the next call to what is left.
fn limit(socket: &impl Socket, deadline: Instant) -> Result<(), LinkError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(LinkError::Late);
    }
    Ok(socket.limit(Some(left))?)
}

fn late(error: io::Error) -> LinkError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => LinkError::Late,
        _ => error.into(),
    }
}

fn receive(
    socket: &mut impl Socket,
    mut bytes: &mut [u8],
    deadline: Instant,
) -> Result<(), LinkError> {
    while !bytes.is_empty() {
        // For each piece anew: one byte now and then must not make it last for ever.
        limit(socket, deadline)?;
        match socket.read(bytes) {
            Ok(0) => return Err(LinkError::Cut),
            Ok(len) => bytes = &mut bytes[len..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(late(error)),
        }
    }
    Ok(())
}

fn send(socket: &mut impl Socket, bytes: &[u8], deadline: Instant) -> Result<(), LinkError> {
    limit(socket, deadline)?;
    socket.write_all(bytes).map_err(late)
}

/// A link as a stream of bytes. Its end is sealed: a connection that is cut is an error, `UnexpectedEof`.
///
/// For one thread each direction, use a session's [`Opener`] and [`Sealer`] as they are, or a [`Channel`]
/// for each with a clone of the socket: [`Channel::halves`].
#[derive(Debug)]
pub struct Channel<R, W> {
    /// Received from.
    pub input: Input<R>,
    /// Sent to.
    pub output: Output<W>,
}

impl<R, W> Channel<R, W> {
    /// Of a session's halves, and the socket that its handshake was on, twice.
    pub fn new(read: R, write: W, opener: Opener, sealer: Sealer) -> Self {
        let input =
            Input { socket: read, opener, incoming: Incoming::default(), opened: vec![], at: 0 };
        let output = Output { socket: write, sealer, outgoing: vec![], sent: 0, ended: false };
        Self { input, output }
    }

    /// For two threads.
    pub fn halves(self) -> (Input<R>, Output<W>) {
        (self.input, self.output)
    }
}

/// The direction from the other end.
#[derive(Debug)]
pub struct Input<R> {
    socket: R,
    opener: Opener,
    incoming: Incoming,
    /// Opened, and not read from `at` on.
    opened: Vec<u8>,
    at: usize,
}

impl<R: Read> Read for Input<R> {
    /// `WouldBlock` where the socket says so; nothing is lost then.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.opened.len() {
            let Some(frame) = self.incoming.frame() else {
                if self.opener.is_over() {
                    return Ok(0);
                }
                match self.socket.read(self.incoming.room())? {
                    0 => return Err(LinkError::Cut.into()),
                    len => self.incoming.filled(len),
                }
                continue;
            };
            match self.opener.open(frame).map_err(LinkError::Open)? {
                (Piece::Part | Piece::Last, content) => {
                    self.opened.clear();
                    self.opened.extend_from_slice(content);
                    self.at = 0;
                }
                (Piece::End, _) => {}
                (Piece::Confirm, _) => return Err(LinkError::Open(OpenError::Unknown).into()),
            }
        }
        let len = buf.len().min(self.opened.len() - self.at);
        buf[..len].copy_from_slice(&self.opened[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

/// The direction to the other end.
#[derive(Debug)]
pub struct Output<W> {
    socket: W,
    sealer: Sealer,
    /// Sealed, and not sent from `sent` on; at most one frame, and the end.
    outgoing: Vec<u8>,
    sent: usize,
    ended: bool,
}

impl<W: Write> Output<W> {
    /// Whether something that was taken is not sent yet: with a non-blocking socket, [`Write::flush`] is to be
    /// called when it has room.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.sent < self.outgoing.len()
    }

    /// Says that this was the last. Closing the socket is left to the caller.
    ///
    /// # Errors
    /// The socket's; after `WouldBlock` flush it.
    pub fn end(&mut self) -> io::Result<()> {
        if !self.ended {
            self.sealer.seal(Piece::End, &[], &mut self.outgoing);
            self.ended = true;
        }
        self.flush()
    }

    fn send(&mut self) -> io::Result<()> {
        while self.sent < self.outgoing.len() {
            match self.socket.write(&self.outgoing[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        Ok(())
    }
}

impl<W: Write> Write for Output<W> {
    /// Takes at most one frame, and only when the one before is sent.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.send()?;
        let len = buf.len().min(MAX_CONTENT);
        self.sealer.seal(Piece::Last, &buf[..len], &mut self.outgoing);
        match self.send() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(len),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()?;
        self.socket.flush()
    }
}

impl<R: Read, W> Read for Channel<R, W> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.input.read(buf)
    }
}

impl<R, W: Write> Write for Channel<R, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.output.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::GroupKey;
    use crate::{Name, Newcomers, NodeKey, ProgramKeyring, Versions};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn local(which: u8) -> Arc<Local> {
        let group = GroupKey::new(Secret::new(&[200; 32]));
        Arc::new(Local {
            node: NodeKey::new(Secret::new(&[which; 32])),
            keys: ProgramKeyring { send: group.program(&name("drive")), also: None },
            group: name("rack-1"),
            program: name("drive"),
            versions: Versions::SPOKEN,
            name: name(&format!("blade-{which}")),
            addresses: vec![],
            note: vec![],
            newcomers: Newcomers::Admit,
        })
    }

    fn linked() -> [(UnixStream, Session); 2] {
        let (mut one, mut two) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || {
            let door = Door { role: name("server"), from: vec![name("agent")], endpoints: None };
            let session = accept(&mut two, local(2), door, Roster::default).unwrap();
            (two, session)
        });
        let dial = Dial::new(&local(1), name("agent"), name("server"));
        let session = connect(&mut one, local(1), dial, Roster::default).unwrap();
        [(one, session), server.join().unwrap()]
    }

    fn channel((socket, session): (UnixStream, Session)) -> Channel<UnixStream, UnixStream> {
        let read = socket.try_clone().unwrap();
        Channel::new(read, socket, session.opener, session.sealer)
    }

    #[test]
    fn bytes_go_both_ways_in_threads() {
        let [one, two] = linked();
        assert_eq!((one.1.peer.role.as_str(), two.1.peer.role.as_str()), ("server", "agent"));
        let text: Vec<u8> = (0..300_000u32).map(|at| (at % 253) as u8).collect();
        let echo = std::thread::spawn(move || {
            let mut two = channel(two);
            let mut all = vec![];
            two.read_to_end(&mut all).unwrap();
            two.write_all(&all).unwrap();
            two.output.end().unwrap();
        });
        let mut one = channel(one);
        one.write_all(&text).unwrap();
        one.output.end().unwrap();
        let mut back = vec![];
        one.read_to_end(&mut back).unwrap();
        assert!(back == text);
        echo.join().unwrap();
    }

    #[test]
    fn a_socket_that_does_not_block_loses_nothing() {
        let [one, two] = linked();
        one.0.set_nonblocking(true).unwrap();
        two.0.set_nonblocking(true).unwrap();
        let (mut one, mut two) = (channel(one), channel(two));
        let text: Vec<u8> = (0..800_000u32).map(|at| (at % 253) as u8).collect();
        let (mut given, mut all, mut blocked) = (0, vec![], 0);
        let mut buf = vec![0; 10_000];
        while all.len() < text.len() {
            match one.write(&text[given..]) {
                Ok(len) => {
                    given += len;
                    blocked += usize::from(one.output.wants_write());
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            if given == text.len() {
                let _ = one.flush();
            }
            while given == text.len() || one.output.wants_write() {
                match two.read(&mut buf) {
                    Ok(len) => all.extend_from_slice(&buf[..len]),
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        break;
                    }
                }
            }
        }
        assert!(all == text && blocked > 0);
    }

    #[test]
    fn a_connection_that_is_cut_is_no_end() {
        let [one, two] = linked();
        drop(one);
        let error = channel(two).read(&mut [0; 9]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
