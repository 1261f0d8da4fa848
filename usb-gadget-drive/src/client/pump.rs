// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread of one remote drive: the kernel's socket and the server's around the core ([`super::proxy`]).

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::{info, warn};

use self::peer::Peer;
use super::connect::{Connect, ConnectError, Connected, Stream};
use super::proxy::{Action, Cause, Notice, Proxy, Request as HostRequest};
use crate::nbd::MAX_PAYLOAD;
use crate::nbd::reply::{ReplyHeader, SimpleReply};
use crate::nbd::request::{Request, command};

/// Stack of a pump or a connector: neither recurses.
pub const STACK: usize = 256 << 10;

/// What the pump is told.
#[derive(Debug)]
enum Command {
    Dialed(Result<Connected, ConnectError>),
    Host(UnixStream),
    Stop,
}

/// What the pump tells.
#[derive(Debug)]
pub enum Event {
    /// The session ended: eject the drive. Until the pump is stopped, all is answered with errors.
    End(Cause),
    /// The kernel let go of the socket.
    HostGone,
    /// The connection to the server is back, or away for this reason.
    Link(Result<(), String>),
}

/// Takes what the pump tells; called by its thread, which waits for it.
pub type Tell = Box<dyn Fn(Event) + Send>;

/// Talks to a pump.
#[derive(Debug)]
pub struct Handle {
    commands: Sender<Command>,
    wake: UnixStream,
    thread: Option<thread::JoinHandle<()>>,
}

impl Handle {
    /// Gives it a new socket to the kernel.
    pub fn set_host(&self, host: UnixStream) {
        self.tell(Command::Host(host));
    }

    fn tell(&self, command: Command) {
        // A pump that is gone has nothing to be told.
        let _ = self.commands.send(command);
        let _ = (&self.wake).write(b"!");
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.tell(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic ends the process in a release; in a test it has been printed.
            let _ = thread.join();
        }
    }
}

/// Starts a pump for a session of the core. `host` is our end of the socket pair whose other end asks: the kernel's.
///
/// # Errors
/// Threads or sockets ran out.
pub fn start(
    name: &str,
    mut proxy: Proxy,
    host: UnixStream,
    link: Option<Box<dyn Stream>>,
    connect: Arc<dyn Connect>,
    tell: Tell,
) -> io::Result<Handle> {
    let (wake, woken) = UnixStream::pair()?;
    wake.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    host.set_nonblocking(true)?;
    if let Some(link) = &link {
        link.set_nonblocking(true)?;
    }
    let (commands, inbox) = mpsc::channel();
    let dialer = Dialer { connect, commands: commands.clone(), wake: wake.try_clone()? };
    let name = name.to_owned();
    let thread =
        thread::Builder::new().name(format!("pump {name}")).stack_size(STACK).spawn(move || {
            proxy.handle_time(Instant::now());
            let host = Some(Peer::new(host));
            let link = link.map(Peer::new);
            Pump { name, proxy, host, link, dialer, inbox, woken, tell }.run();
        })?;
    Ok(Handle { commands, wake, thread: Some(thread) })
}

/// Connects on threads of their own.
struct Dialer {
    connect: Arc<dyn Connect>,
    commands: Sender<Command>,
    wake: UnixStream,
}

impl Dialer {
    fn dial(&self) -> io::Result<()> {
        let (connect, commands, wake) =
            (Arc::clone(&self.connect), self.commands.clone(), self.wake.try_clone()?);
        thread::Builder::new().name("connect".into()).stack_size(STACK).spawn(move || {
            let _ = commands.send(Command::Dialed(connect.connect()));
            let _ = (&wake).write(b"!");
        })?;
        Ok(())
    }
}

type Host = Peer<UnixStream, Request>;
type Link = Peer<Box<dyn Stream>, SimpleReply>;

struct Pump {
    name: String,
    proxy: Proxy,
    host: Option<Host>,
    link: Option<Link>,
    dialer: Dialer,
    inbox: Receiver<Command>,
    woken: UnixStream,
    tell: Tell,
}

impl Pump {
    fn run(mut self) {
        loop {
            self.act();
            self.read_link();
            self.read_host();
            self.act();
            self.write();
            self.wait();
            self.proxy.handle_time(Instant::now());
            loop {
                match self.inbox.try_recv() {
                    Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return,
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Dialed(Ok(connected)) => match connected.stream.set_nonblocking(true) {
                Ok(()) => {
                    self.link = Some(Peer::new(connected.stream));
                    self.proxy.handle_connected(now, connected.export);
                }
                Err(error) => self.proxy.handle_refused(now, error.to_string()),
            },
            Command::Dialed(Err(error)) => self.proxy.handle_refused(now, error.to_string()),
            Command::Host(host) => {
                if let Err(error) = host.set_nonblocking(true) {
                    warn!(drive = self.name, %error, "a socket to the kernel cannot be used");
                    return;
                }
                self.host = Some(Peer::new(host));
            }
            Command::Stop => {}
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.proxy.next_action() {
            match action {
                Action::Send { tag, flags, command, offset, len, data } => {
                    let header = Request { flags, command, cookie: tag, offset, len };
                    if let Some(link) = &mut self.link {
                        link.push(&header.encode(), data);
                    }
                }
                Action::Reply { cookie, error, data } => {
                    if let Some(host) = &mut self.host {
                        host.push(&SimpleReply { error, cookie }.encode(), data);
                    }
                }
                Action::Hangup => {
                    if let Some(link) = self.link.take() {
                        link.stream.set_abort();
                    }
                }
                Action::Dial => {
                    if let Err(error) = self.dialer.dial() {
                        self.proxy.handle_refused(Instant::now(), error.to_string());
                    }
                }
                Action::End(cause) => {
                    (self.tell)(Event::End(cause));
                }
                Action::Notice(notice) => self.note(&notice),
            }
        }
    }

    fn note(&self, notice: &Notice) {
        let drive = &self.name;
        let link = match notice {
            Notice::Lost { why } | Notice::Waiting { why } | Notice::Failing { why } => {
                Err(why.clone())
            }
            Notice::Back { .. } => Ok(()),
        };
        (self.tell)(Event::Link(link));
        match notice {
            Notice::Lost { why } => {
                warn!(drive, why, "connection to the server lost; requests wait");
            }
            Notice::Waiting { why } => info!(drive, why, "the server is still away"),
            Notice::Failing { why } => warn!(drive, why, "requests fail until the server is back"),
            Notice::Back { away, replayed } => {
                let away = format!("{:.1} s", away.as_secs_f32());
                info!(drive, away, replayed, "connection to the server is back");
            }
        }
    }

    fn read_link(&mut self) {
        while let Some(link) = self.link.as_mut().filter(|link| link.readable || link.has_more()) {
            let proxy = &self.proxy;
            let next = link.next(SimpleReply::LEN, |bytes| reply_header(proxy, bytes));
            match next {
                Ok(None) => return,
                Ok(Some((reply, data))) => {
                    self.proxy.handle_reply(Instant::now(), reply.cookie, reply.error, data);
                    self.act();
                }
                Err(error) => {
                    self.link = None;
                    self.proxy.handle_lost(Instant::now(), lost(&error));
                    self.act();
                }
            }
        }
    }

    fn read_host(&mut self) {
        while self.proxy.wants_requests() {
            let Some(host) = self.host.as_mut().filter(|host| host.readable || host.has_more())
            else {
                return;
            };
            match host.next(Request::LEN, request_header) {
                Ok(None) => return,
                Ok(Some((header, _))) if header.command == command::DISC => {}
                Ok(Some((Request { flags, command, cookie, offset, len }, data))) => {
                    let data = Arc::new(data);
                    let request = HostRequest { cookie, flags, command, offset, len, data };
                    self.proxy.handle_request(Instant::now(), request);
                    self.act();
                }
                Err(_) => self.lose_host(),
            }
        }
    }

    fn lose_host(&mut self) {
        if self.host.take().is_some() {
            self.proxy.handle_host_gone();
            (self.tell)(Event::HostGone);
        }
    }

    fn write(&mut self) {
        if let Some(Err(error)) = self.link.as_mut().map(Peer::write) {
            self.link = None;
            self.proxy.handle_lost(Instant::now(), lost(&error));
            self.act();
        }
        if let Some(Err(_)) = self.host.as_mut().map(Peer::write) {
            self.lose_host();
        }
    }

    /// Waits until something can be done.
    fn wait(&mut self) {
        let wants = self.proxy.wants_requests();
        let host_has = self.host.as_ref().is_some_and(|host| wants && host.has_more());
        let timeout = if host_has {
            Some(Duration::ZERO)
        } else {
            self.proxy.next_time().map(|at| at.saturating_duration_since(Instant::now()))
        };
        let timeout = timeout.map(|t| Timespec {
            tv_sec: t.as_secs().cast_signed(),
            tv_nsec: t.subsec_nanos().into(),
        });
        let mut fds = vec![PollFd::new(&self.woken, PollFlags::IN)];
        // A socket that is asked for nothing would still wake us again and again once it is closed.
        let host_at = self.host.as_ref().filter(|host| wants || !host.is_idle()).map(|host| {
            fds.push(PollFd::new(&host.stream, host.flags(wants)));
            fds.len() - 1
        });
        let link_at = self.link.as_ref().map(|link| {
            fds.push(PollFd::from_borrowed_fd(link.stream.as_fd(), link.flags(true)));
            fds.len() - 1
        });
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return;
        }
        let awake = |at: usize| !fds[at].revents().difference(PollFlags::OUT).is_empty();
        let (host_ready, link_ready) = (host_at.is_some_and(awake), link_at.is_some_and(awake));
        let woken = awake(0);
        if let Some(host) = &mut self.host {
            host.readable |= host_ready;
        }
        if let Some(link) = &mut self.link {
            link.readable |= link_ready;
        }
        if woken {
            let mut drain = [0; 64];
            let _ = (&self.woken).read(&mut drain);
        }
    }
}

fn lost(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
        _ => error.to_string(),
    }
}

fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn request_header(bytes: &[u8; Request::LEN]) -> io::Result<(Request, usize)> {
    let request = Request::decode(bytes).map_err(invalid)?;
    if request.payload() > MAX_PAYLOAD {
        return Err(invalid("a payload of more than 32 MiB"));
    }
    Ok((request, request.payload() as usize))
}

fn reply_header(proxy: &Proxy, bytes: &[u8; Request::LEN]) -> io::Result<(SimpleReply, usize)> {
    let header = ReplyHeader::decode(&bytes[..SimpleReply::LEN]).map_err(invalid)?;
    let Some(ReplyHeader::Simple(reply)) = header else {
        return Err(invalid("the server sends structured replies that were not agreed on"));
    };
    let expected = proxy.expected(reply.cookie);
    let expected = expected.ok_or_else(|| invalid("the server answers what was not asked"))?;
    let len = if reply.error.is_none() { expected } else { 0 };
    Ok((reply, len as usize))
}

mod peer;
#[cfg(test)]
mod tests;
