// SPDX-License-Identifier: MIT OR Apache-2.0
//! How to get to a server: one trait for all transports, and those in clear.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::proxy::Export;
use crate::arbiter::Claim;
use crate::link::export_name::claim_of;
use crate::link::message::MAX_REASON;
use crate::nbd::option::{self, Info, InfoRequest, OptionReply, handshake, info, opt, rep};
use crate::nbd::{BadMagic, MAX_PAYLOAD};

/// How long one attempt may take from the first packet to the export. Less than [`super::proxy::HOLD`], so that a
/// second one may still save the day.
pub const ATTEMPT: Duration = Duration::from_secs(3);
/// How long a server may take to accept a connection: what is sent again after a loss comes a second later, and then
/// a new attempt is sooner than the next repetition.
const ACCEPT: Duration = Duration::from_secs(1);
/// A peer that has confirmed nothing for so long, in milliseconds, is taken for lost. TCP itself would send again after
/// ever longer times: a network that was away for 3 s would be tried again after 6 s, and [`super::proxy::HOLD`] be over.
const UNCONFIRMED: u32 = 2000;
/// Longest reply to an option that is read, bytes: texts of servers are shorter by far.
const MAX_OPTION_REPLY: u32 = 64 << 10;
/// Most replies to our one option: a server has few kinds of information.
const MAX_OPTION_REPLIES: usize = 64;
/// Longest request the kernel makes ([`super::attach`]); a server must take it whole.
pub const MAX_REQUEST: u32 = 256 << 10;
/// Largest block size that the kernel's devices can have everywhere, bytes.
const MAX_BLOCK: u32 = 4096;

/// A connection. Non-blocking, it must be read until there is nothing before it is polled again.
pub trait Stream: Read + Write + AsFd + Send + fmt::Debug {
    /// As of the sockets of `std`.
    ///
    /// # Errors
    /// The socket's.
    fn set_nonblocking(&self, on: bool) -> io::Result<()>;

    /// Limits each read and write that blocks.
    ///
    /// # Errors
    /// The socket's.
    fn set_timeout(&self, limit: Duration) -> io::Result<()>;

    /// Whether it has bytes to send that it has taken already.
    fn wants_write(&self) -> bool {
        false
    }

    /// Makes its closing drop what is not yet sent: a late write must not come after what replaced it.
    fn set_abort(&self);
}

impl<S: Stream + ?Sized> Stream for Box<S> {
    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        (**self).set_nonblocking(on)
    }

    fn set_timeout(&self, limit: Duration) -> io::Result<()> {
        (**self).set_timeout(limit)
    }

    fn wants_write(&self) -> bool {
        (**self).wants_write()
    }

    fn set_abort(&self) {
        (**self).set_abort();
    }
}

impl Stream for UnixStream {
    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        Self::set_nonblocking(self, on)
    }

    fn set_timeout(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }

    fn set_abort(&self) {}
}

impl Stream for TcpStream {
    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        Self::set_nonblocking(self, on)
    }

    fn set_timeout(&self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }

    fn set_abort(&self) {
        // A socket that cannot do this is closed all the same.
        let _ = sockopt::set_socket_linger(self, Some(Duration::ZERO));
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The transport.
    #[error(transparent)]
    Io(io::Error),
    /// It is no NBD server.
    #[error(transparent)]
    Magic(#[from] BadMagic),
    /// The server is older than the protocol we speak.
    #[error("the server does not speak the fixed newstyle protocol")]
    Old,
    /// The server does not give us the export.
    #[error("the server refuses export `{export}`: {reason}")]
    Refused {
        /// Its name.
        export: String,
        /// By the protocol's number and the server's text.
        reason: String,
    },
    /// What it says makes no sense.
    #[error("the server's description of the export is malformed")]
    Malformed,
    /// It wants blocks that the kernel cannot make.
    #[error(
        "the export wants blocks of {min} to {max} bytes; the kernel asks for 512 or 4096 up to {MAX_REQUEST}"
    )]
    BlockSize {
        /// Smallest.
        min: u32,
        /// Longest request.
        max: u32,
    },
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        let kind = error.kind();
        Self::Io(match kind {
            // What a socket's time limit is called.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                io::Error::new(kind, "the server does not answer")
            }
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(kind, "the server closed the connection")
            }
            _ => error,
        })
    }
}

/// What was agreed on.
#[derive(Debug)]
pub struct Connected {
    /// Where requests are sent.
    pub stream: Box<dyn Stream>,
    /// The export.
    pub export: Export,
    /// Block size for the kernel's device, bytes: 512 to 4096.
    pub block: u32,
    /// What was granted, where that is said.
    pub claim: Option<Claim>,
}

/// A server and an export of it. What secures a transport is done in here.
pub trait Connect: Send + Sync + fmt::Debug {
    /// Connects, and chooses the export; blocks for at most about [`ATTEMPT`].
    ///
    /// # Errors
    /// [`ConnectError`].
    fn connect(&self) -> Result<Connected, ConnectError>;

    /// Forgets what was granted: what the next connection is for has nothing left of what was before.
    fn begin_anew(&self) {}
}

/// A Unix socket.
#[derive(Debug)]
pub struct Unix {
    /// Its path.
    pub path: PathBuf,
    /// Name of the export.
    pub export: String,
}

impl Connect for Unix {
    fn connect(&self) -> Result<Connected, ConnectError> {
        let deadline = Instant::now() + ATTEMPT;
        choose(Box::new(UnixStream::connect(&self.path)?), &self.export, deadline)
    }
}

/// TCP in clear.
#[derive(Debug)]
pub struct Tcp {
    /// Host and port.
    pub address: String,
    /// Name of the export.
    pub export: String,
}

impl Connect for Tcp {
    fn connect(&self) -> Result<Connected, ConnectError> {
        let deadline = Instant::now() + ATTEMPT;
        choose(Box::new(dial(&self.address, deadline)?), &self.export, deadline)
    }
}

/// Tries the addresses of a host, `HOST:PORT`, one after the other.
pub(super) fn dial(address: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{address}: no such host"));
    for address in address.to_socket_addrs()? {
        match dial_address(&address, deadline) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connects, without delay for requests; a dead peer is noticed, though nothing is asked of it.
fn dial_address(address: &SocketAddr, deadline: Instant) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, left(deadline)?.min(ACCEPT))?;
    stream.set_nodelay(true)?;
    sockopt::set_tcp_user_timeout(&stream, UNCONFIRMED)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, Duration::from_secs(1))?;
    sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(1))?;
    Ok(stream)
}

pub(super) fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The negotiation from the server's greeting on; plainly sequential.
fn choose(
    mut stream: Box<dyn Stream>,
    export: &str,
    deadline: Instant,
) -> Result<Connected, ConnectError> {
    stream.set_timeout(left(deadline)?)?;
    greet(&mut stream)?;
    go(stream, export, deadline)
}

/// Reads the server's greeting and answers it.
pub(super) fn greet(stream: &mut impl Stream) -> Result<(), ConnectError> {
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting)?;
    let offered = option::decode_greeting(&greeting)?;
    if offered & handshake::FIXED_NEWSTYLE == 0 {
        return Err(ConnectError::Old);
    }
    let flags = offered & (handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES);
    Ok(stream.write_all(&u32::from(flags).to_be_bytes())?)
}

/// Chooses the export on a stream that was greeted.
pub(super) fn go(
    mut stream: Box<dyn Stream>,
    export: &str,
    deadline: Instant,
) -> Result<Connected, ConnectError> {
    stream.set_timeout(left(deadline)?)?;
    let mut out = vec![];
    let request = InfoRequest { name: export, infos: vec![info::BLOCK_SIZE, info::DESCRIPTION] };
    option::push_option(&mut out, opt::GO, &request.encode());
    stream.write_all(&out)?;

    let (mut size_and_flags, mut block, mut claim) = (None, (1, MAX_PAYLOAD), None);
    for _ in 0..MAX_OPTION_REPLIES {
        stream.set_timeout(left(deadline)?)?;
        let mut header = [0; OptionReply::LEN];
        stream.read_exact(&mut header)?;
        let reply = OptionReply::decode(&header)?;
        if reply.len > MAX_OPTION_REPLY || reply.option != opt::GO {
            return Err(ConnectError::Malformed);
        }
        let mut body = vec![0; reply.len as usize];
        stream.read_exact(&mut body)?;
        match reply.kind {
            rep::INFO => match Info::decode(&body) {
                Some(Info::Export { size, flags }) => size_and_flags = Some((size, flags)),
                Some(Info::BlockSize { min, max, .. }) => block = (min, max),
                Some(Info::Description(text)) => claim = claim_of(&text),
                Some(_) => {}
                None => return Err(ConnectError::Malformed),
            },
            rep::ACK => {
                let (size, flags) = size_and_flags.ok_or(ConnectError::Malformed)?;
                let (min, max) = block;
                if min > MAX_BLOCK || max < MAX_REQUEST || !min.is_power_of_two() {
                    return Err(ConnectError::BlockSize { min, max });
                }
                let (export, block) = (Export::new(size, flags), min.max(512));
                return Ok(Connected { stream, export, block, claim });
            }
            kind => {
                let text = String::from_utf8_lossy(&body);
                let text = text.chars().map(|c| if c.is_control() { ' ' } else { c });
                let text: String = text.take(MAX_REASON).collect();
                let reason = match (kind, text.is_empty()) {
                    (rep::ERR_POLICY, false) => text,
                    (_, true) => reason(kind).to_owned(),
                    (_, false) => format!("{} ({text})", reason(kind)),
                };
                return Err(ConnectError::Refused { export: export.to_owned(), reason });
            }
        }
    }
    Err(ConnectError::Malformed)
}

fn reason(kind: u32) -> &'static str {
    match kind {
        rep::ERR_UNKNOWN => "there is none of that name",
        rep::ERR_POLICY => "not for us, or not now",
        rep::ERR_TLS_REQD => "TLS is needed",
        rep::ERR_SHUTDOWN => "it is being taken away",
        rep::ERR_PLATFORM => "it cannot be opened",
        rep::ERR_BLOCK_SIZE_REQD => "it wants other block sizes",
        rep::ERR_UNSUP => "the server is too old",
        _ => "no reason that we know",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nbd::flags;
    use crate::nbd::option::push_reply;

    /// Serves one negotiation with these replies and gives back what the client sent.
    fn against(replies: Vec<u8>) -> (Result<Connected, ConnectError>, Vec<u8>) {
        let (client, mut server) = UnixStream::pair().unwrap();
        server.write_all(&option::greeting()).unwrap();
        server.write_all(&replies).unwrap();
        let result = choose(Box::new(client), "disk", Instant::now() + ATTEMPT);
        let mut sent = vec![0; 4 + 16 + 4 + 4 + 2 + 2];
        server.read_exact(&mut sent).unwrap();
        (result, sent)
    }

    fn replies(infos: &[Info], last: u32) -> Vec<u8> {
        let mut out = vec![];
        infos.iter().for_each(|info| push_reply(&mut out, opt::GO, rep::INFO, &info.encode()));
        push_reply(&mut out, opt::GO, last, b"");
        out
    }

    #[test]
    fn an_export_is_chosen() {
        let wire = flags::HAS_FLAGS | flags::SEND_FLUSH | flags::SEND_TRIM | flags::CAN_MULTI_CONN;
        let infos = [
            Info::Export { size: 1 << 30, flags: wire },
            Info::BlockSize { min: 4096, preferred: 4096, max: MAX_PAYLOAD },
            Info::Other(9),
        ];
        let (result, sent) = against(replies(&infos, rep::ACK));
        let connected = result.unwrap();
        assert_eq!(
            connected.export,
            Export::new(1 << 30, flags::SEND_FLUSH),
            "what the kernel is not told of is no change"
        );
        assert_eq!(connected.block, 4096);
        assert_eq!(sent[..4], 3_u32.to_be_bytes());
        assert_eq!(sent[20..24 + 4], [0, 0, 0, 4, b'd', b'i', b's', b'k']);
    }

    #[test]
    fn refusals_say_why() {
        let (result, _) = against(replies(&[], rep::ERR_UNKNOWN));
        assert!(result.unwrap_err().to_string().contains("there is none of that name"));
        let (result, _) = against(replies(&[], rep::ACK));
        assert!(matches!(result, Err(ConnectError::Malformed)));
        let blocks = Info::BlockSize { min: 1 << 16, preferred: 1 << 16, max: MAX_PAYLOAD };
        let (result, _) = against(replies(&[Info::Export { size: 1, flags: 1 }, blocks], rep::ACK));
        assert!(matches!(result, Err(ConnectError::BlockSize { min: 65536, .. })));
        let mut long = vec![];
        long.extend(option::REPLY_MAGIC.to_be_bytes());
        long.extend([0, 0, 0, 7, 0, 0, 0, 3, 0xff, 0xff, 0xff, 0xff]);
        assert!(matches!(against(long).0, Err(ConnectError::Malformed)));
    }

    #[test]
    fn a_server_that_says_nothing_is_given_up() {
        let (client, _server) = UnixStream::pair().unwrap();
        let deadline = Instant::now() + Duration::from_millis(30);
        assert!(matches!(choose(Box::new(client), "", deadline), Err(ConnectError::Io(_))));
    }
}
