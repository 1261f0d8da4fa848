// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way to the management module: STARTTLS with the blade's certificate.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::connect::{ATTEMPT, Connect, ConnectError, Connected, Stream, dial, go, greet, left};
use crate::arbiter::{Access, Claim, ShareName};
use crate::cert::{CLIENT_CERT, CLIENT_KEY};
use crate::link::export_name::ExportName;
use crate::nbd::option::{OptionReply, opt, push_option, rep};
use crate::serve::tls::{CA_CERT, TlsError};

/// Reads [`CA_CERT`], [`CLIENT_CERT`] and [`CLIENT_KEY`] from a folder.
///
/// # Errors
/// See [`TlsError`].
pub fn load(dir: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    let unfit = |source| TlsError::Config { dir: dir.to_owned(), source };
    let read = |file: &str| {
        let path = dir.join(file);
        let read = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect);
        read.map_err(|source| TlsError::File { path, source })
    };
    let mut roots = RootCertStore::empty();
    let authority: Vec<CertificateDer<'static>> = read(CA_CERT)?;
    for root in authority {
        roots.add(root).map_err(|error| unfit(error.into()))?;
    }
    let chain: Vec<CertificateDer<'static>> = read(CLIENT_CERT)?;
    let path = dir.join(CLIENT_KEY);
    let key =
        PrivateKeyDer::from_pem_file(&path).map_err(|source| TlsError::File { path, source })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(chain, key))
        .map_err(|error| unfit(error.into()))?;
    Ok(Arc::new(config))
}

/// A management module, or another server that is known by its certificate.
#[derive(Debug, Clone)]
pub struct Manager {
    /// Host and port of its NBD server.
    pub nbd: String,
    /// The name in its certificate.
    pub name: ServerName<'static>,
    /// With the blade's certificate.
    pub tls: Arc<ClientConfig>,
}

/// A share of a management module.
#[derive(Debug)]
pub struct Share {
    /// Whose.
    pub manager: Manager,
    /// Which.
    pub share: ShareName,
    /// How.
    pub access: Access,
    /// What to say of the past; after the first time, what was granted then.
    pub claim: Mutex<Claim>,
}

/// An export of any server with TLS.
#[derive(Debug)]
pub struct Secured {
    /// Whose.
    pub server: Manager,
    /// Its name.
    pub export: String,
}

impl Connect for Secured {
    fn connect(&self) -> Result<Connected, ConnectError> {
        let deadline = Instant::now() + ATTEMPT;
        go(Box::new(self.server.secure(deadline)?), &self.export, deadline)
    }
}

impl Connect for Share {
    fn connect(&self) -> Result<Connected, ConnectError> {
        let deadline = Instant::now() + ATTEMPT;
        let stream = self.manager.secure(deadline)?;
        let claim = *self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        let (share, access) = (self.share.clone(), Some(self.access));
        let export = ExportName { share, access, claim }.to_string();
        let connected = go(Box::new(stream), &export, deadline)?;
        if let Some(granted) = connected.claim {
            *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = granted;
        }
        Ok(connected)
    }

    fn begin_anew(&self) {
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = Claim::New;
    }
}

impl Manager {
    /// Connects and makes it secret; each knows who the other is.
    fn secure(&self, deadline: Instant) -> Result<TlsStream, ConnectError> {
        let mut socket = dial(&self.nbd, deadline)?;
        Stream::set_timeout(&socket, left(deadline)?)?;
        greet(&mut socket)?;
        let mut out = vec![];
        push_option(&mut out, opt::STARTTLS, b"");
        socket.write_all(&out)?;
        let mut header = [0; OptionReply::LEN];
        socket.read_exact(&mut header)?;
        let reply = OptionReply::decode(&header)?;
        if (reply.option, reply.kind, reply.len) != (opt::STARTTLS, rep::ACK, 0) {
            return Err(io::Error::other("the server has no TLS").into());
        }
        let tls = ClientConnection::new(Arc::clone(&self.tls), self.name.clone());
        let mut stream = TlsStream { tls: tls.map_err(io::Error::other)?, socket };
        while stream.tls.is_handshaking() {
            Stream::set_timeout(&stream.socket, left(deadline)?)?;
            stream.tls.complete_io(&mut stream.socket)?;
        }
        Ok(stream)
    }
}

/// TLS over a socket that may be non-blocking.
struct TlsStream {
    tls: ClientConnection,
    socket: TcpStream,
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl TlsStream {
    /// Sends what is ciphered; what the socket has no room for stays.
    fn send(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Read for TlsStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            if self.tls.read_tls(&mut self.socket)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.tls.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

impl Write for TlsStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // What was taken before is sent first, or the buffer would grow.
        self.send()?;
        let taken = self.tls.writer().write(buf)?;
        match self.send() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl AsFd for TlsStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Stream for TlsStream {
    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        self.socket.set_nonblocking(on)
    }

    fn set_timeout(&self, limit: Duration) -> io::Result<()> {
        Stream::set_timeout(&self.socket, limit)
    }

    fn set_abort(&self) {
        self.socket.set_abort();
    }

    fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }
}
