// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bytes of one connection, in clear or by TLS: received by one thread, sent by several.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::{ServerConfig, ServerConnection};

use super::socket::Socket;

/// Most of a TLS stream that is received at a time, bytes.
const CIPHERED: usize = 128 << 10;
/// Most that is encrypted before it is sent, bytes. Below the limit of rustls' own buffer.
const SEALED: usize = 64 << 10;

/// Either kind of connection.
pub struct Link {
    socket: Arc<Socket>,
    tls: Option<Mutex<ServerConnection>>,
    /// Held while something is sent, so that replies do not mix; what was encrypted. Taken before `tls`.
    sending: Mutex<Vec<u8>>,
}

/// What the receiving thread has of TLS and has not looked at.
#[derive(Default)]
pub struct Ciphered {
    buf: Vec<u8>,
    start: usize,
    end: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done in there that another thread would trip over.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tls_error(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Link {
    /// In clear.
    #[must_use]
    pub fn plain(socket: Arc<Socket>) -> Self {
        Self { socket, tls: None, sending: Mutex::default() }
    }

    /// Makes TLS of it, and waits for the client's part of that; says what certificate it has.
    ///
    /// # Errors
    /// The client has none that is good, or the connection's.
    pub fn start_tls(
        &mut self,
        config: Arc<ServerConfig>,
        ciphered: &mut Ciphered,
    ) -> io::Result<Vec<u8>> {
        let mut tls = ServerConnection::new(config).map_err(tls_error)?;
        while tls.is_handshaking() {
            while tls.wants_write() {
                let mut out = vec![];
                tls.write_tls(&mut out)?;
                self.socket.send_all(&out)?;
            }
            if !tls.is_handshaking() {
                break;
            }
            if let Err(error) = ciphered.feed(&self.socket, &mut tls) {
                // The client is told what was wrong.
                let mut out = vec![];
                if tls.write_tls(&mut out).is_ok() {
                    let _ = self.socket.send_all(&out);
                }
                return Err(error);
            }
        }
        let mut out = vec![];
        while tls.wants_write() {
            tls.write_tls(&mut out)?;
        }
        self.socket.send_all(&out)?;
        let certificate = tls.peer_certificates().and_then(|chain| chain.first());
        let certificate = certificate.map(|der| der.as_ref().to_vec()).unwrap_or_default();
        self.tls = Some(Mutex::new(tls));
        Ok(certificate)
    }

    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// Waits for bytes; 0 at the end.
    ///
    /// # Errors
    /// Those of the socket, and of TLS.
    pub fn recv(&self, buf: &mut [u8], ciphered: &mut Ciphered) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return self.socket.recv(buf) };
        loop {
            let mut tls = lock(tls);
            match tls.reader().read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            if ciphered.is_empty() {
                drop(tls);
                if !ciphered.receive(&self.socket)? {
                    return Ok(0);
                }
                continue;
            }
            ciphered.decipher(&mut tls)?;
            let answers = tls.wants_write();
            drop(tls);
            if answers {
                self.send_all(&[])?;
            }
        }
    }

    /// Sends all of `buf`, with nothing of another thread in between.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn send_all(&self, mut buf: &[u8]) -> io::Result<()> {
        let mut sealed = lock(&self.sending);
        let Some(tls) = &self.tls else { return self.socket.send_all(buf) };
        loop {
            sealed.clear();
            let mut tls = lock(tls);
            let taken = tls.writer().write(&buf[..buf.len().min(SEALED)])?;
            buf = &buf[taken..];
            while tls.wants_write() {
                tls.write_tls(&mut *sealed)?;
            }
            drop(tls);
            self.socket.send_all(&sealed)?;
            if buf.is_empty() {
                return Ok(());
            }
        }
    }
}

impl Ciphered {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// False at the end.
    fn receive(&mut self, socket: &Socket) -> io::Result<bool> {
        self.buf.resize(CIPHERED, 0);
        (self.start, self.end) = (0, socket.recv(&mut self.buf)?);
        Ok(self.end > 0)
    }

    fn decipher(&mut self, tls: &mut ServerConnection) -> io::Result<()> {
        let mut rest = &self.buf[self.start..self.end];
        tls.read_tls(&mut rest)?;
        self.start = self.end - rest.len();
        tls.process_new_packets().map_err(tls_error)?;
        Ok(())
    }

    fn feed(&mut self, socket: &Socket, tls: &mut ServerConnection) -> io::Result<()> {
        if self.is_empty() && !self.receive(socket)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.decipher(tls)
    }
}
