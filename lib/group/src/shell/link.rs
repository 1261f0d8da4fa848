// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections: made, accepted, read and written, each in tasks of its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use secure_link::stream::{self, LinkError, MAX_MESSAGE, Reader, Writer};
use secure_link::{
    Dial, Door, Endpoints, HandshakeError, Local, Name, NodeId, Opener, Roster, Sealer, Session,
};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::{Call, Happened, Received};
use crate::core::LinkId;
use crate::wire::{Channel, Message, WireError};

/// Who does not read is given up.
const END: Duration = Duration::from_secs(1);
/// A first packet that was lost is sent again by the kernel after a second, which is too late here. So there are several first
/// packets, each from a new socket, with so long for the answer.
const ATTEMPTS: [Duration; 3] =
    [Duration::from_millis(150), Duration::from_millis(300), Duration::from_millis(550)];
/// When one address refuses, the others have so long to do better.
const REFUSED: Duration = Duration::from_millis(100);
/// What is sent and not acknowledged for so long ends the connection; beats tell sooner, this frees the socket.
const USER_TIMEOUT: u32 = 5_000;
/// Most messages that wait for a member to read.
const MAX_WAITING: usize = 256;
/// Most bytes of them.
const MAX_WAITING_BYTES: usize = 4 << 20;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoLink {
    /// Its machine says that nothing listens.
    #[error("the port is refused: the program does not run there")]
    Refused,
    /// No address answers.
    #[error("no answer")]
    Silent,
    /// It is not let in, or does not let us in.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The system's.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A place to connect to: this end's address on that network, and the other's.
pub(super) type Path = (Option<IpAddr>, SocketAddr);

/// A machine that does not answer is given up after a second: on a management network a connection takes a millisecond.
async fn dial_one(path: Path) -> io::Result<TcpStream> {
    for limit in ATTEMPTS {
        match timeout(limit, dial_once(path)).await {
            // Nothing came back.
            Err(_) => {}
            Ok(done) => return done,
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

async fn dial_once((from, to): Path) -> io::Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    // From the address that the other has in its list.
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_tcp_user_timeout(&stream, USER_TIMEOUT)?;
    Ok(stream)
}

/// Connects over whichever network answers first.
pub(super) async fn reach(paths: &[Path]) -> Result<TcpStream, NoLink> {
    let mut attempts: JoinSet<_> = paths.iter().map(|path| dial_one(*path)).collect();
    let mut failed = None;
    let all = async {
        while let Some(attempt) = attempts.join_next().await {
            match attempt.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(stream) => return Some(Some(stream)),
                Err(error) => match error.kind() {
                    io::ErrorKind::ConnectionRefused => return Some(None),
                    // A machine that is off looks like that.
                    io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => {}
                    _ => failed = Some(error),
                },
            }
        }
        None
    };
    let refused = match all.await {
        Some(Some(stream)) => return Ok(stream),
        answer => answer.is_some(),
    };
    let better = async {
        while let Some(attempt) = attempts.join_next().await {
            if let Ok(Ok(stream)) = attempt {
                return Some(stream);
            }
        }
        None
    };
    match timeout(REFUSED, better).await {
        Ok(Some(stream)) => Ok(stream),
        _ if refused => Err(NoLink::Refused),
        _ => Err(failed.map_or(NoLink::Silent, NoLink::Io)),
    }
}

/// Connects to a member, and finds out that it is that one.
pub(super) async fn connect(
    paths: Vec<Path>,
    local: Arc<Local>,
    expect: Option<NodeId>,
    roster: Arc<Roster>,
) -> Result<(TcpStream, Session), NoLink> {
    let role = local.program.clone();
    let mut dial = Dial { expect, ..Dial::new(&local, role.clone(), role) };
    loop {
        let mut stream = reach(&paths).await?;
        dial.endpoints = Some(Endpoints {
            initiator: canonical(stream.local_addr()?),
            responder: canonical(stream.peer_addr()?),
        });
        let roster = || Roster::clone(&roster);
        match stream::connect(&mut stream, Arc::clone(&local), dial.clone(), roster).await {
            Ok(session) => return Ok((stream, session)),
            Err(LinkError::Handshake(HandshakeError::RefusedThere { refusal, proved })) => {
                // With another key or version it may be let in.
                let again = dial.again(&local, refusal);
                let refused = HandshakeError::RefusedThere { refusal, proved };
                dial = again.ok_or(LinkError::Handshake(refused))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Finds out who has connected.
pub(super) async fn accept(
    mut stream: TcpStream,
    local: Arc<Local>,
    roster: Arc<Roster>,
) -> Result<(TcpStream, Session), NoLink> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_tcp_user_timeout(&stream, USER_TIMEOUT).map_err(io::Error::from)?;
    let endpoints = Some(Endpoints {
        initiator: canonical(stream.peer_addr()?),
        responder: canonical(stream.local_addr()?),
    });
    let role = local.program.clone();
    let door = Door { role: role.clone(), from: vec![role], endpoints };
    let session = stream::accept(&mut stream, local, door, || Roster::clone(&roster)).await?;
    Ok((stream, session))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A link that is there.
#[derive(Debug)]
pub(super) struct Link {
    pub id: LinkId,
    out: mpsc::Sender<(Vec<u8>, bool)>,
    waiting: Arc<AtomicUsize>,
    reader: AbortHandle,
}

/// The member does not read what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the member does not read what it is sent")]
pub struct Full;

impl Link {
    /// Begins to read and write.
    pub fn new(
        (name, node): (&Name, NodeId),
        id: LinkId,
        stream: TcpStream,
        (opener, sealer): (Opener, Sealer),
        to: &Outlets,
    ) -> Self {
        let (read, write) = stream.into_split();
        let reader = Reader::new(read, opener, MAX_MESSAGE);
        let writer = Writer::new(write, sealer);
        let (out, messages) = mpsc::channel(MAX_WAITING);
        let waiting = Arc::new(AtomicUsize::new(0));
        let writing =
            write_all(name.clone(), id, writer, messages, Arc::clone(&waiting), to.clone());
        tokio::spawn(writing);
        let reading = read_all((name.clone(), node), id, reader, to.clone());
        let reader = tokio::spawn(reading).abort_handle();
        Self { id, out, waiting, reader }
    }

    /// Sends a message some time.
    ///
    /// # Errors
    /// Too much waits already; nothing is sent.
    pub fn send(&self, message: &Message) -> Result<(), Full> {
        let (bytes, push) = (message.encode(), matches!(message, Message::Push(_)));
        if self.waiting.load(Ordering::Relaxed) + bytes.len() > MAX_WAITING_BYTES {
            return Err(Full);
        }
        self.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        self.out.try_send((bytes, push)).map_err(|_| Full)
    }
}

impl Drop for Link {
    /// What waits is still written, then the other end is told that this was all.
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Where tasks tell what happens.
#[derive(Debug, Clone)]
pub(super) struct Outlets {
    pub happened: mpsc::Sender<Happened>,
    pub messages: mpsc::Sender<Received>,
    pub calls: mpsc::Sender<Call>,
    pub settings: mpsc::Sender<Call>,
}

async fn write_all(
    name: Name,
    id: LinkId,
    mut writer: Writer<OwnedWriteHalf>,
    mut messages: mpsc::Receiver<(Vec<u8>, bool)>,
    waiting: Arc<AtomicUsize>,
    to: Outlets,
) {
    while let Some((bytes, push)) = messages.recv().await {
        if let Err(error) = writer.send(&bytes).await {
            let over = Happened::Over(name, id, error.to_string());
            let _ = to.happened.send(over).await;
            return;
        }
        waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
        if push {
            let _ = to.happened.send(Happened::Written(name.clone(), id)).await;
        }
    }
    let _ = timeout(END, writer.end()).await;
}

async fn read_all(
    (name, node): (Name, NodeId),
    id: LinkId,
    mut reader: Reader<OwnedReadHalf>,
    to: Outlets,
) {
    let why = loop {
        let bytes = match reader.next().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break "the member ended it".to_owned(),
            Err(error) => break error.to_string(),
        };
        let told = match Message::decode(&bytes) {
            // Said by a later release, to others than this one.
            Err(WireError::Kind(_)) => continue,
            Err(error) => break format!("a message makes no sense: {error}"),
            Ok(Message::Program(bytes)) => {
                let _ = to.happened.send(Happened::Heard(name.clone(), id)).await;
                // The program reads in its own time; meanwhile nothing more is read from this member.
                to.messages.send(Received { from: name.clone(), bytes }).await.is_ok()
            }
            Ok(Message::Call(number, channel, bytes)) => {
                let _ = to.happened.send(Happened::Heard(name.clone(), id)).await;
                let back = to.happened.clone();
                let call = Call { from: name.clone(), node, bytes, link: id, number, to: back };
                match channel {
                    Channel::Settings => to.settings.send(call).await.is_ok(),
                    Channel::Program => to.calls.send(call).await.is_ok(),
                }
            }
            Ok(message) => {
                to.happened.send(Happened::Said(name.clone(), id, Box::new(message))).await.is_ok()
            }
        };
        if !told {
            return;
        }
    };
    let _ = to.happened.send(Happened::Over(name, id, why)).await;
}
