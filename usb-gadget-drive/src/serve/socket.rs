// SPDX-License-Identifier: MIT OR Apache-2.0
//! A connected stream socket, whatever its family.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrAny, getpeername, recv, send,
    shutdown, sockopt,
};

/// How long a client may read nothing while there is something for it, before it is dropped.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// When a silent TCP peer is asked whether it is there, how often, and how many times.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// A connected stream socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    send_timeout: Duration,
    /// When `recv` gives up. However little comes at a time, it is not put off.
    deadline: Mutex<Option<Instant>>,
}

impl Socket {
    /// Takes a connected stream socket over.
    ///
    /// # Errors
    /// It is no socket.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Self::with_timeout(fd, SEND_TIMEOUT)
    }

    fn with_timeout(fd: OwnedFd, send_timeout: Duration) -> io::Result<Self> {
        let family = sockopt::socket_domain(&fd)?;
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, Some(send_timeout))?;
        // Its buffers stay as they are: megabytes on their way through a Unix socket leave the processor's cache before
        // they are read, which costs a third more than the changes of task that they spare.
        if family != AddressFamily::UNIX {
            let (idle, interval, count) = KEEPALIVE;
            sockopt::set_tcp_nodelay(&fd, true)?;
            sockopt::set_socket_keepalive(&fd, true)?;
            sockopt::set_tcp_keepidle(&fd, idle)?;
            sockopt::set_tcp_keepintvl(&fd, interval)?;
            sockopt::set_tcp_keepcnt(&fd, count)?;
        }
        Ok(Self { fd, send_timeout, deadline: Mutex::default() })
    }

    /// Where the other end is; none of a Unix socket.
    ///
    /// # Errors
    /// It is not connected any more.
    pub fn peer(&self) -> io::Result<Option<SocketAddr>> {
        let address: SocketAddrAny = match getpeername(&self.fd)? {
            Some(address) => address,
            None => return Ok(None),
        };
        Ok(SocketAddr::try_from(address).ok())
    }

    /// Until when `recv` may wait; none is for ever.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = deadline;
        Ok(sockopt::set_socket_timeout(&self.fd, sockopt::Timeout::Recv, None)?)
    }

    fn keep_deadline(&self) -> io::Result<()> {
        let deadline = *self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(deadline) = deadline else { return Ok(()) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // Less than a microsecond would be 0 to the kernel, which is for ever.
        let left = left.max(Duration::from_millis(1));
        Ok(sockopt::set_socket_timeout(&self.fd, sockopt::Timeout::Recv, Some(left))?)
    }

    /// Waits for bytes; 0 at the end.
    ///
    /// # Errors
    /// `TimedOut`, and the kernel's.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.keep_deadline()?;
        loop {
            match recv(&self.fd, &mut *buf, RecvFlags::empty()) {
                Ok((received, _)) => return Ok(received),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends all of `buf`.
    ///
    /// # Errors
    /// `TimedOut` when the peer read nothing for [`SEND_TIMEOUT`], and the kernel's.
    pub fn send_all(&self, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let begin = Instant::now();
            match send(&self.fd, buf, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    buf = &buf[sent..];
                    // A part fitted in before the wait, which was then in vain.
                    if !buf.is_empty()
                        && begin.elapsed() >= self.send_timeout
                        && !self.writable()?
                    {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether the peer has read enough for more to be sent.
    fn writable(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        Ok(poll(&mut fds, Some(&Timespec::default()))? > 0)
    }

    /// Ends both directions, for whichever threads are in `recv` or `send` too.
    pub fn cut(&self) {
        // It fails only if that has happened already.
        let _ = shutdown(&self.fd, Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn who_reads_nothing_is_waited_for_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let wait = Duration::from_millis(300);
        let socket = Socket::with_timeout(listener.accept().unwrap().0.into(), wait).unwrap();
        let begin = Instant::now();
        let error = loop {
            if let Err(error) = socket.send_all(&[0; 1 << 20]) {
                break error;
            }
        };
        // The kernel finds room for a little more after each wait, which is no reading.
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() < 2 * wait, "{:?}", begin.elapsed());
        drop(theirs);
    }

    #[test]
    fn a_deadline_is_not_put_off_by_a_trickle() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let socket = Socket::new(ours.into()).unwrap();
        socket.set_deadline(Some(Instant::now() + Duration::from_millis(50))).unwrap();
        let mut bytes = 0;
        let end = loop {
            theirs.write_all(b"x").unwrap();
            match socket.recv(&mut [0; 1]) {
                Ok(_) => bytes += 1,
                Err(error) => break error,
            }
        };
        assert!(bytes > 0 && end.kind() == io::ErrorKind::TimedOut, "{end}");
        socket.set_deadline(None).unwrap();
        assert_eq!(socket.recv(&mut [0; 1]).unwrap(), 1);
    }
}
