// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages between the parts of `device-manager`: sealed by a session of `secure-link` between machines, and as they are
//! over a Unix socket on one machine, which has no second key to prove.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use secure_link::stream::{self, LinkError, Reader, Writer};
use secure_link::{Gate, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::ktls;
use crate::record::Machine;
use crate::trust::{Role, Trust, TrustError};
use crate::wire::{Bounded, MAX_MESSAGE, WireError};

/// A write that takes longer ends a link: its buffers are full, and the other end does not read.
const WRITE: Duration = Duration::from_secs(3);
/// Bytes of a frame's length on a Unix socket.
const LENGTH: usize = 4;

/// Why a link is over.
#[derive(Debug, thiserror::Error)]
pub enum Over {
    /// The connection's.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The session's.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The other end said what it may not.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It does not read.
    #[error("the other end does not read")]
    Full,
}

/// The keys of a session for what is carried behind it, initiator's direction first.
#[derive(Debug, Clone)]
pub struct DataKeys {
    /// From who connected.
    pub initiator: secure_link::Secret,
    /// To who connected.
    pub responder: secure_link::Secret,
    /// Whether this end connected.
    pub is_initiator: bool,
}

impl DataKeys {
    fn new(session: &Session) -> Self {
        Self {
            initiator: session.export("device data", b"initiator"),
            responder: session.export("device data", b"responder"),
            is_initiator: session.initiator,
        }
    }
}

/// Both directions, and what is needed to hand the connection on.
#[derive(Debug)]
pub struct Link {
    /// The other machine.
    pub machine: Machine,
    /// From it.
    pub inbox: Inbox,
    /// To it.
    pub outbox: Outbox,
    /// The connection itself.
    pub raw: Raw,
}

/// A connection that outlives its link.
#[derive(Debug)]
pub struct Raw {
    /// The socket.
    pub fd: OwnedFd,
    /// None on one machine.
    pub keys: Option<DataKeys>,
}

/// Messages from the other end.
#[derive(Debug)]
pub enum Inbox {
    /// Sealed.
    Secure(Box<Reader<ReadHalf<TcpStream>>>),
    /// As they are, and what was read of the next.
    Local(ReadHalf<UnixStream>, Vec<u8>),
}

/// Messages to the other end.
#[derive(Debug)]
pub enum Outbox {
    /// Sealed.
    Secure(Box<Writer<WriteHalf<TcpStream>>>),
    /// As they are.
    Local(WriteHalf<UnixStream>),
}

impl Inbox {
    /// The next message; none when the other end has said its last. Nothing is lost when the future is dropped. What a later
    /// release says is left out.
    ///
    /// # Errors
    /// See [`Over`].
    pub async fn next<M: Bounded>(&mut self) -> Result<Option<M>, Over> {
        loop {
            let bytes = match self {
                Self::Secure(reader) => match reader.next().await {
                    Ok(Some(bytes)) => bytes,
                    Ok(None) | Err(LinkError::Cut) => return Ok(None),
                    Err(error) => return Err(error.into()),
                },
                Self::Local(stream, buffer) => match frame(stream, buffer).await? {
                    Some(bytes) => bytes,
                    None => return Ok(None),
                },
            };
            match M::decode(&bytes) {
                Ok(message) => return Ok(Some(message)),
                Err(WireError::Malformed) => {
                    tracing::debug!("a message of a later release is left out");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

async fn frame(
    stream: &mut ReadHalf<UnixStream>,
    buffer: &mut Vec<u8>,
) -> Result<Option<Vec<u8>>, Over> {
    loop {
        if let Some((head, rest)) = buffer.split_first_chunk::<LENGTH>() {
            let len = u32::from_be_bytes(*head) as usize;
            if len > MAX_MESSAGE {
                return Err(WireError::Long.into());
            }
            if rest.len() >= len {
                let next = buffer.split_off(LENGTH + len);
                let mut whole = std::mem::replace(buffer, next);
                return Ok(Some(whole.split_off(LENGTH)));
            }
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

impl Outbox {
    /// Sends a message.
    ///
    /// # Errors
    /// See [`Over`]: the link is of no more use then.
    pub async fn send<M: Bounded>(&mut self, message: &M) -> Result<(), Over> {
        let bytes = message.encode();
        let write = async {
            match self {
                Self::Secure(writer) => writer.send(&bytes).await,
                Self::Local(stream) => {
                    let len = u32::try_from(bytes.len()).expect("messages are far below 4 GiB");
                    stream.write_all(&[&len.to_be_bytes()[..], &bytes].concat()).await
                }
            }
        };
        Ok(timeout(WRITE, write).await.map_err(|_| Over::Full)??)
    }
}

impl Link {
    /// Of a session.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn secure(machine: Machine, stream: TcpStream, session: Session) -> io::Result<Self> {
        let raw =
            Raw { fd: stream.as_fd().try_clone_to_owned()?, keys: Some(DataKeys::new(&session)) };
        let (reader, writer) = stream::messages(stream, session.opener, session.sealer);
        let (inbox, outbox) = (Inbox::Secure(Box::new(reader)), Outbox::Secure(Box::new(writer)));
        Ok(Self { machine, inbox, outbox, raw })
    }

    /// Of two processes of this machine.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn local(machine: Machine, stream: UnixStream) -> io::Result<Self> {
        let raw = Raw { fd: stream.as_fd().try_clone_to_owned()?, keys: None };
        let (read, write) = tokio::io::split(stream);
        Ok(Self { machine, inbox: Inbox::Local(read, vec![]), outbox: Outbox::Local(write), raw })
    }

    /// Connects to a part of another machine, or by `local` to one of this machine.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub async fn connect(
        trust: &Trust,
        machine: &Machine,
        roles: (Role, Role),
        addresses: &[SocketAddr],
        local: &Path,
    ) -> Result<Self, TrustError> {
        if *machine == trust.name()? {
            let stream = UnixStream::connect(local).await?;
            return Ok(Self::local(machine.clone(), stream)?);
        }
        let (stream, session) = trust.connect(addresses, machine, roles).await?;
        Ok(Self::secure(machine.clone(), stream, session)?)
    }

    /// Has a connection between machines be noticed as dead by the kernel itself; see [`ktls::keep_alive`].
    ///
    /// # Errors
    /// Those of the socket.
    pub fn keep_alive(&self) -> io::Result<()> {
        if self.raw.keys.is_some() { ktls::keep_alive(&self.raw.fd) } else { Ok(()) }
    }

    /// The connection alone. Nothing that was sent is on its way.
    #[must_use]
    pub fn into_raw(self) -> Raw {
        self.raw
    }
}

/// Binds a Unix socket that only this user and root may use.
///
/// # Errors
/// The system's.
pub(crate) fn listen_local(path: &Path) -> io::Result<tokio::net::UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = tokio::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Most links that wait to be looked at.
const MAX_WAITING: usize = 32;
/// Pause after a failed accept, as when descriptors run out.
pub(crate) const PAUSE: Duration = Duration::from_millis(200);

/// Accepts links over TCP and from this machine, for ever, in tasks of this runtime.
///
/// # Errors
/// A socket cannot be made.
pub async fn listen(
    trust: &Trust,
    addresses: &[SocketAddr],
    local: &Path,
    (role, from): (Role, Role),
) -> anyhow::Result<mpsc::Receiver<Link>> {
    let (links, came) = mpsc::channel(MAX_WAITING);
    let gate = Arc::new(Mutex::new(Gate::default()));
    for address in addresses {
        let listener = TcpListener::bind(address).await.with_context(|| address.to_string())?;
        let (trust, links, gate) = (trust.clone(), links.clone(), Arc::clone(&gate));
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, source)) => {
                        let mut places = gate.lock().unwrap_or_else(PoisonError::into_inner);
                        // Who is known is known by key, not by address.
                        let Some(place) = places.enter(Instant::now(), source.ip(), true) else {
                            continue;
                        };
                        drop(places);
                        let (trust, links, gate) =
                            (trust.clone(), links.clone(), Arc::clone(&gate));
                        tokio::spawn(async move {
                            let met = meet(&trust, stream, (role, from)).await;
                            gate.lock().unwrap_or_else(PoisonError::into_inner).leave(place);
                            match met {
                                Ok(link) => drop(links.send(link).await),
                                Err(error) => {
                                    tracing::warn!(%source, error = %Chain(&error), "not let in");
                                }
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        });
    }
    let listener = listen_local(local).with_context(|| local.display().to_string())?;
    let trust = trust.clone();
    tokio::spawn(async move {
        loop {
            let met = match listener.accept().await {
                Ok((stream, _)) => {
                    trust.name().map_err(io::Error::other).and_then(|own| Link::local(own, stream))
                }
                Err(error) => Err(error),
            };
            match met {
                Ok(link) => drop(links.send(link).await),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    });
    Ok(came)
}

async fn meet(
    trust: &Trust,
    mut stream: TcpStream,
    roles: (Role, Role),
) -> Result<Link, TrustError> {
    let (machine, session) = trust.accept(&mut stream, roles.0, roles.1).await?;
    Ok(Link::secure(machine, stream, session)?)
}

/// An error with all that led to it, in one line.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// Tells of each message that comes, and at last that none does any more.
pub async fn read_all<M: Bounded, T>(
    mut inbox: Inbox,
    told: impl Fn(Option<M>) -> T,
    to: mpsc::Sender<T>,
) {
    loop {
        let message = inbox.next().await.unwrap_or_else(|error| {
            tracing::debug!(error = %Chain(&error), "a link is over");
            None
        });
        let is_last = message.is_none();
        if to.send(told(message)).await.is_err() || is_last {
            return;
        }
    }
}

/// Sends what comes through a channel, until that or the link ends.
pub async fn write_all<M: Bounded>(mut outbox: Outbox, mut messages: mpsc::Receiver<M>) {
    while let Some(message) = messages.recv().await {
        if let Err(error) = outbox.send(&message).await {
            tracing::debug!(error = %Chain(&error), "a link is over");
            return;
        }
    }
}
