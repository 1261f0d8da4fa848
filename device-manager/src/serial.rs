// SPDX-License-Identifier: MIT OR Apache-2.0
//! Serial lines as functions of their own: at the unit the line is opened raw, at the holder a pseudo-terminal stands for it, and
//! bytes go between them in sealed messages. Speed and modem lines are not carried: the speed is what the unit sets.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

use crate::link::Link;
use crate::wire::{Bounded, Carried, ToHolder};

/// Most bytes of one message: what a line of 1 Mbit/s brings in 40 ms.
pub const MAX_CHUNK: usize = 4096;

/// Bytes of a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk(pub Vec<u8>);

impl Bounded for Chunk {
    fn is_bounded(&self) -> bool {
        self.0.len() <= MAX_CHUNK
    }
}

/// Opens a line, raw, for this process alone.
///
/// # Errors
/// The system's.
pub fn open(node: &Path) -> io::Result<File> {
    let flags = (rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK).bits();
    let line = OpenOptions::new().read(true).write(true).custom_flags(flags as i32).open(node)?;
    rustix::termios::ioctl_tiocexcl(&line)?;
    raw(&line)?;
    Ok(line)
}

/// Nothing is echoed, translated or held back.
///
/// # Errors
/// The system's.
pub fn raw(line: &impl std::os::fd::AsFd) -> io::Result<()> {
    let mut settings = tcgetattr(line)?;
    settings.make_raw();
    tcsetattr(line, OptionalActions::Now, &settings)?;
    Ok(())
}

/// At the unit: tells the holder to begin, and moves bytes until either end is gone.
pub async fn serve(line: File, mut link: Link) {
    if link.outbox.send(&ToHolder::Go(Carried::Serial)).await.is_ok()
        && let Err(error) = pump(line.into(), link).await
    {
        tracing::debug!(%error, "a serial line's connection is over");
    }
}

/// Moves bytes until either end is gone.
///
/// # Errors
/// Why it ended.
pub async fn pump(line: OwnedFd, mut link: Link) -> io::Result<()> {
    link.keep_alive()?;
    let line = kernel_abi::async_fd::watch_both(line)?;
    let mut buffer = vec![0; MAX_CHUNK];
    loop {
        tokio::select! {
            read = read(&line, &mut buffer) => match read? {
                0 => return Ok(()),
                len => link.outbox.send(&Chunk(buffer[..len].to_vec())).await.map_err(io::Error::other)?,
            },
            chunk = link.inbox.next::<Chunk>() => match chunk.map_err(io::Error::other)? {
                Some(Chunk(bytes)) => write(&line, &bytes).await?,
                None => return Ok(()),
            },
        }
    }
}

/// What is there, when there is something.
///
/// # Errors
/// The system's.
pub(crate) async fn read(line: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        let mut ready = line.readable().await?;
        match rustix::io::read(line.get_ref(), &mut *buffer) {
            Ok(len) => return Ok(len),
            Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
    }
}

/// All of it.
///
/// # Errors
/// The system's.
pub(crate) async fn write(line: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = line.writable().await?;
        match rustix::io::write(line.get_ref(), bytes) {
            Ok(len) => bytes = &bytes[len..],
            Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
