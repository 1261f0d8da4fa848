// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links over tokio's streams, as whole messages ([`Reader`], [`Writer`]) or as bytes ([`ByteStream`], for
//! protocols like HTTP).

#[cfg(test)]
mod tests;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf, split,
};
use tokio::time::timeout;

use crate::crypto::Secret;
use crate::handshake::{Dial, Door, HANDSHAKE_LIMIT, Handshake, Local, Progress};
pub use crate::link::{LinkError, MAX_MESSAGE};
use crate::opening::{LENGTH, MAX_HANDSHAKE_FRAME};
use crate::pieces::Incoming;
use crate::roster::Roster;
use crate::session::{MAX_CONTENT, OpenError, Opener, Piece, Sealer, Session};
use crate::wire::DecodeError;

/// Connects as `dial` says, over `stream`. The roster is as of now, and is asked when the other end is
/// known. What a refusal leads to, [`Dial::again`] knows.
///
/// # Errors
/// See [`LinkError`]; [`LinkError::Late`] after [`HANDSHAKE_LIMIT`].
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    local: Arc<Local>,
    dial: Dial,
    roster: impl Fn() -> Roster,
) -> Result<Session, LinkError> {
    let (handshake, first) = Handshake::initiate(local, dial, Secret::random()?);
    run(stream, handshake, first, roster).await
}

/// Waits on `stream` for the other end to connect. The caller has a place of its [`crate::gate::Gate`] for it.
///
/// # Errors
/// As [`connect`].
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    local: Arc<Local>,
    door: Door,
    roster: impl Fn() -> Roster,
) -> Result<Session, LinkError> {
    let handshake = Handshake::respond(local, door, Secret::random()?);
    run(stream, handshake, vec![], roster).await
}

async fn run<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    mut handshake: Handshake,
    first: Vec<u8>,
    roster: impl Fn() -> Roster,
) -> Result<Session, LinkError> {
    let steps = async {
        stream.write_all(&first).await?;
        loop {
            // No byte more than the frame: what comes behind it is the session's.
            let mut len = [0; LENGTH];
            stream.read_exact(&mut len).await.map_err(cut)?;
            let len = usize::from(u16::from_be_bytes(len));
            if len > MAX_HANDSHAKE_FRAME {
                let long = crate::HandshakeError::Malformed(DecodeError::Long);
                return Err(long.into());
            }
            let mut frame = vec![0; len];
            stream.read_exact(&mut frame).await.map_err(cut)?;
            match handshake.handle(&frame, &roster()) {
                Progress::Send(bytes) => stream.write_all(&bytes).await?,
                Progress::Done(bytes, session) => {
                    stream.write_all(&bytes).await?;
                    return Ok(*session);
                }
                Progress::Failed(bytes, error) => {
                    // The other end is told why, if it still listens.
                    let _ = stream.write_all(&bytes).await;
                    let _ = stream.shutdown().await;
                    return Err(error.into());
                }
            }
        }
    };
    timeout(HANDSHAKE_LIMIT, steps).await.unwrap_or(Err(LinkError::Late))
}

fn cut(error: io::Error) -> LinkError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => LinkError::Cut,
        _ => error.into(),
    }
}

/// What a frame brought.
enum Brought {
    /// A part of a message.
    Part,
    /// A message is whole.
    Message(Vec<u8>),
    /// The other end has said its last.
    End,
}

/// Puts messages together.
#[derive(Debug)]
struct Assembler {
    message: Vec<u8>,
    most: usize,
}

impl Assembler {
    fn new(most: usize) -> Self {
        Self { message: vec![], most }
    }

    fn take(&mut self, opener: &mut Opener, frame: &mut [u8]) -> Result<Brought, LinkError> {
        let (piece, content) = opener.open(frame)?;
        if self.message.len() + content.len() > self.most {
            return Err(LinkError::Long(self.most));
        }
        self.message.extend_from_slice(content);
        Ok(match piece {
            Piece::Part => Brought::Part,
            Piece::Last => Brought::Message(std::mem::take(&mut self.message)),
            // In the middle of a message there is no end.
            Piece::End if self.message.is_empty() => Brought::End,
            Piece::End => return Err(LinkError::Cut),
            Piece::Confirm => return Err(OpenError::Unknown.into()),
        })
    }
}

/// Messages from the other end.
#[derive(Debug)]
pub struct Reader<R> {
    stream: R,
    opener: Opener,
    incoming: Incoming,
    assembler: Assembler,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Of a session's opener, and the stream that its handshake was on. Messages have at most `most` bytes.
    pub fn new(stream: R, opener: Opener, most: usize) -> Self {
        let (incoming, assembler) = (Incoming::default(), Assembler::new(most));
        Self { stream, opener, incoming, assembler }
    }

    /// The next message; none when the other end has said its last. Nothing is lost when the future is
    /// dropped.
    ///
    /// # Errors
    /// See [`LinkError`]. The link is over then.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, LinkError> {
        loop {
            while let Some(frame) = self.incoming.frame() {
                match self.assembler.take(&mut self.opener, frame)? {
                    Brought::Part => {}
                    Brought::Message(message) => return Ok(Some(message)),
                    Brought::End => return Ok(None),
                }
            }
            match self.stream.read(self.incoming.room()).await? {
                0 => return Err(LinkError::Cut),
                len => self.incoming.filled(len),
            }
        }
    }
}

/// Messages to the other end.
#[derive(Debug)]
pub struct Writer<W> {
    stream: W,
    sealer: Sealer,
    outgoing: Vec<u8>,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Of a session's sealer, and the stream that its handshake was on.
    pub fn new(stream: W, sealer: Sealer) -> Self {
        Self { stream, sealer, outgoing: vec![] }
    }

    /// Sends a message. If the future is dropped, part of it may be sent, and the link is of no more use.
    ///
    /// # Errors
    /// The connection's.
    pub async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.outgoing.clear();
        self.sealer.seal_message(message, &mut self.outgoing);
        self.stream.write_all(&self.outgoing).await?;
        self.stream.flush().await
    }

    /// Says that this was the last, and closes this direction.
    ///
    /// # Errors
    /// The connection's.
    pub async fn end(mut self) -> io::Result<()> {
        self.outgoing.clear();
        self.sealer.seal(Piece::End, &[], &mut self.outgoing);
        self.stream.write_all(&self.outgoing).await?;
        self.stream.shutdown().await
    }
}

/// Both directions of a stream for messages of at most [`MAX_MESSAGE`].
pub fn messages<S: AsyncRead + AsyncWrite>(
    stream: S,
    opener: Opener,
    sealer: Sealer,
) -> (Reader<ReadHalf<S>>, Writer<WriteHalf<S>>) {
    let (read, write) = split(stream);
    (Reader::new(read, opener, MAX_MESSAGE), Writer::new(write, sealer))
}

/// A link as a stream of bytes. Its end is sealed: a connection that is cut is an error, `UnexpectedEof`.
#[derive(Debug)]
pub struct ByteStream<S> {
    stream: S,
    opener: Opener,
    sealer: Sealer,
    incoming: Incoming,
    /// Opened, and not read from `at` on.
    opened: Vec<u8>,
    at: usize,
    /// Sealed, and not sent from `sent` on.
    outgoing: Vec<u8>,
    sent: usize,
    ended: bool,
}

impl<S> ByteStream<S> {
    /// Of a session's halves, and the stream that its handshake was on.
    pub fn new(stream: S, opener: Opener, sealer: Sealer) -> Self {
        let (opened, outgoing) = (vec![], vec![]);
        let incoming = Incoming::default();
        Self { stream, opener, sealer, incoming, opened, at: 0, outgoing, sent: 0, ended: false }
    }

    /// Opens the next frame that is here; false if there is none.
    fn open_next(&mut self) -> io::Result<bool> {
        let Some(frame) = self.incoming.frame() else { return Ok(false) };
        match self.opener.open(frame).map_err(LinkError::Open)? {
            (Piece::Part | Piece::Last, content) => {
                self.opened.clear();
                self.opened.extend_from_slice(content);
                self.at = 0;
            }
            (Piece::End, _) => {}
            (Piece::Confirm, _) => return Err(LinkError::Open(OpenError::Unknown).into()),
        }
        Ok(true)
    }
}

impl<S: AsyncWrite + Unpin> ByteStream<S> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.outgoing.len() {
            let rest = &self.outgoing[self.sent..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                len => self.sent += len,
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ByteStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.at == this.opened.len() {
            if this.open_next()? {
                continue;
            }
            if this.opener.is_over() {
                return Poll::Ready(Ok(()));
            }
            let mut room = ReadBuf::new(this.incoming.room());
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut room))?;
            match room.filled().len() {
                0 => return Poll::Ready(Err(LinkError::Cut.into())),
                len => this.incoming.filled(len),
            }
        }
        let len = buf.remaining().min(this.opened.len() - this.at);
        buf.put_slice(&this.opened[this.at..this.at + len]);
        this.at += len;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ByteStream<S> {
    /// Takes at most one frame, and only when the one before is sent.
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let this = &mut *self;
        let len = buf.len().min(MAX_CONTENT);
        this.sealer.seal(Piece::Last, &buf[..len], &mut this.outgoing);
        // It is taken, whether or not it can be sent at once.
        if let Poll::Ready(Err(error)) = this.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.ended {
            this.sealer.seal(Piece::End, &[], &mut this.outgoing);
            this.ended = true;
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
