// SPDX-License-Identifier: MIT OR Apache-2.0
//! `console` and `screen`: this terminal at a console of a blade, or at its screen.

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, bail};
use daemon_kit::table::printable;
use kernel_abi::async_fd;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Stdin};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::AttachArgs;
use crate::attach::{Attach, Attached, Kind, MAX_DATA, MAX_LINE, Mode, Packets, What, packet};

/// A connection to the daemon that is attached.
#[derive(Debug)]
pub struct Session {
    stream: UnixStream,
    /// What it is attached to.
    pub attached: Attached,
}

impl Session {
    /// Attaches.
    ///
    /// # Errors
    /// The daemon cannot be reached, or refuses.
    pub async fn open(socket: &Path, attach: &Attach) -> anyhow::Result<Self> {
        let mut stream = UnixStream::connect(socket).await.with_context(|| {
            format!(
                "cannot connect to {}; does kvm-bus-rmm run, and are you in group midplane?",
                socket.display()
            )
        })?;
        let mut line = serde_json::to_vec(attach)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = vec![];
        loop {
            match stream.read_u8().await.context("the daemon gave no answer")? {
                b'\n' => break,
                _ if answer.len() > MAX_LINE => bail!("the daemon's answer makes no sense"),
                byte => answer.push(byte),
            }
        }
        let attached: Attached = serde_json::from_slice(&answer)?;
        match attached.error {
            Some(error) => bail!("{}", printable(&error)),
            None => Ok(Self { stream, attached }),
        }
    }

    /// The connection, for reading and writing packets.
    #[must_use]
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }
}

/// Sits there until the end.
///
/// # Errors
/// As [`Session::open`], and that the connection broke.
pub async fn sit(what: What, blade: Option<String>, args: &AttachArgs) -> anyhow::Result<()> {
    let mode = match (args.spy, args.force) {
        (true, _) => Mode::Spy,
        (_, true) => Mode::Force,
        _ => Mode::Write,
    };
    let user = std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned());
    let attach =
        Attach { what, blade, mode, read_only: false, who: user, replay: 20, size: size() };
    let session = Session::open(&args.socket, &attach).await?;
    let Attached { blade, writes, .. } = &session.attached;
    let place = match what {
        What::Console => "console",
        What::Screen => "screen",
    };
    let blade = printable(blade.as_deref().unwrap_or("nobody")).into_owned();
    let how = if *writes { "" } else { ", only looking" };
    notice(what, &format!("{place} of {blade}{how}; ^Ec. ends, ^Ec? tells more"));
    let raw = Raw::enter()?;
    let done = relay(session.stream, what).await;
    drop(raw);
    if what == What::Screen {
        print!("\x1b[0m\x1b[999;1H");
    }
    let end = done?;
    eprintln!("[{}]", printable(&end));
    Ok(())
}

async fn relay(mut stream: UnixStream, what: What) -> anyhow::Result<String> {
    let mut packets = Packets::default();
    let (mut buffer, mut typed) = ([0; MAX_DATA], [0; MAX_DATA]);
    let mut input = Input::new();
    let mut resized = signal(SignalKind::window_change())?;
    let mut open = true;
    loop {
        tokio::select! {
            count = stream.read(&mut buffer) => {
                match count? {
                    0 => return Ok("the daemon has ended the session".to_owned()),
                    count => packets.push(&buffer[..count]),
                }
                let mut out = io::stdout();
                while let Some((kind, data)) = packets.take()? {
                    match kind {
                        Kind::Data => out.write_all(&data)?,
                        Kind::Notice => notice(what, &String::from_utf8_lossy(&data)),
                        Kind::End => return Ok(String::from_utf8_lossy(&data).into_owned()),
                        Kind::Size => {}
                    }
                }
                out.flush()?;
            }
            count = input.read(&mut typed), if open => match count? {
                // What a script has typed is still to have its answer.
                0 => open = false,
                count => stream.write_all(&packet(Kind::Data, &typed[..count])).await?,
            },
            _ = resized.recv() => {
                let (columns, rows) = size();
                stream.write_all(&packet(Kind::Size, &[columns, rows])).await?;
            }
        }
    }
}

/// Words of ours: in a console's stream in brackets, at a screen on the last line.
fn notice(what: What, text: &str) {
    let text = printable(text);
    match what {
        What::Console => eprint!("[{text}]\r\n"),
        What::Screen => eprint!("\x1b7\x1b[999;1H\x1b[0;7m {text} \x1b[0m\x1b8"),
    }
}

/// Columns and rows of this terminal, as far as a screen has them; zeros if there is none.
fn size() -> (u8, u8) {
    let Ok(size) = rustix::termios::tcgetwinsize(io::stdout()) else { return (0, 0) };
    let small = |n: u16| u8::try_from(n).unwrap_or(u8::MAX);
    (small(size.ws_col), small(size.ws_row))
}

/// What is typed. A thread that waits for it, as tokio has it, costs two turns of the scheduler for each key.
enum Input {
    Here(AsyncFd<OwnedFd>),
    /// A file, of which epoll(7) knows nothing.
    ByThread(Stdin),
}

impl Input {
    fn new() -> Self {
        let own = io::stdin().as_fd().try_clone_to_owned();
        // Read only when poll(2) says that there is something, it need not be non-blocking.
        let here = own.and_then(async_fd::watch_readable);
        here.map_or_else(|_| Self::ByThread(tokio::io::stdin()), Self::Here)
    }

    /// None at the end. Cancel safe.
    async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let fd = match self {
            Self::ByThread(stdin) => return stdin.read(buffer).await,
            Self::Here(fd) => fd,
        };
        loop {
            let mut ready = fd.readable().await?;
            // It is not set to non-blocking, as that would be so for all who have the terminal.
            if is_ready(fd.get_ref().as_fd())? {
                return Ok(nix::unistd::read(fd.get_ref(), buffer)?);
            }
            ready.clear_ready();
        }
    }
}

fn is_ready(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO)? > 0)
}

/// The terminal in raw mode, until it is dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> io::Result<Self> {
        let input = io::stdin();
        if !input.is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(input.as_fd())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(input.as_fd(), SetArg::TCSANOW, &raw)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, before);
        }
    }
}
