// SPDX-License-Identifier: MIT OR Apache-2.0
//! USB/IP between two kernels of which one has no TLS: each speaks in clear over a socket pair of its own machine, and what it says goes
//! between the machines in sealed frames of the lease's link. A process stands at either end for as long as that lasts: data end
//! with the unit's process then, and with the holder's.

use std::io;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::link::{Inbox, Link, Outbox};
use crate::streams::{Bytes, MAX_DATA};
use crate::wire::Bounded;

/// Bytes, as they follow one another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk(pub Bytes);

impl Bounded for Chunk {
    fn is_bounded(&self) -> bool {
        self.0.0.len() <= MAX_DATA
    }
}

/// The kernel's end of a socket pair, and ours.
///
/// # Errors
/// The system's.
pub fn pair() -> io::Result<(OwnedFd, UnixStream)> {
    let (kernel, ours) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((kernel.into(), UnixStream::from_std(ours)?))
}

/// Moves bytes in a task of its own until either end is gone. `device` is for the log.
pub fn carry(device: String, kernel: UnixStream, link: Link) {
    tokio::spawn(async move {
        match pump(kernel, link).await {
            Ok(()) => tracing::debug!(device, "its data flow no more"),
            Err(error) => tracing::info!(device, %error, "its data connection is lost"),
        }
    });
}

/// Moves bytes in both directions until either end is gone; each waits for nothing but its own receiver.
async fn pump(kernel: UnixStream, link: Link) -> io::Result<()> {
    link.keep_alive()?;
    let Link { inbox, outbox, .. } = link;
    let (from, to) = kernel.into_split();
    tokio::select! {
        ended = receive(inbox, to) => ended,
        ended = send(from, outbox) => ended,
    }
}

async fn receive(mut inbox: Inbox, mut to: OwnedWriteHalf) -> io::Result<()> {
    while let Some(Chunk(Bytes(bytes))) = inbox.next().await.map_err(io::Error::other)? {
        to.write_all(&bytes).await?;
    }
    Ok(())
}

async fn send(mut from: OwnedReadHalf, mut outbox: Outbox) -> io::Result<()> {
    let mut buffer = vec![0; MAX_DATA];
    loop {
        let len = from.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        let chunk = Chunk(Bytes(buffer[..len].to_vec()));
        outbox.send(&chunk).await.map_err(io::Error::other)?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream as Plain;

    use super::*;
    use crate::record::Machine;
    use crate::wire::WireError;

    fn links() -> (Link, Link) {
        let (one, two) = UnixStream::pair().unwrap();
        let name = || "a".parse::<Machine>().unwrap();
        (Link::local(name(), one).unwrap(), Link::local(name(), two).unwrap())
    }

    #[test]
    fn golden_bytes_and_bounds() {
        let chunk = |len| Chunk(Bytes(vec![7; len]));
        assert_eq!(chunk(2).encode(), [1, 2, 7, 7]);
        assert_eq!(Chunk::decode(&chunk(MAX_DATA).encode()), Ok(chunk(MAX_DATA)));
        assert_eq!(Chunk::decode(&chunk(MAX_DATA + 1).encode()), Err(WireError::Long));
    }

    /// Both say 8 MiB, and read nothing before all of their own is said.
    fn says_then_hears(kernel: OwnedFd, byte: u8) {
        let mut kernel = Plain::from(kernel);
        let mut writing = kernel.try_clone().unwrap();
        let said = std::thread::spawn(move || writing.write_all(&vec![byte; 8 << 20]));
        let mut heard = vec![0; 8 << 20];
        kernel.read_exact(&mut heard).unwrap();
        said.join().unwrap().unwrap();
        assert!(heard.iter().all(|heard| *heard == 1 - byte));
    }

    #[tokio::test]
    async fn both_directions_flow_at_once_and_the_end_is_told() {
        let (one, two) = links();
        let ((a, ours), (b, theirs)) = (pair().unwrap(), pair().unwrap());
        let one = tokio::spawn(pump(ours, one));
        let two = tokio::spawn(pump(theirs, two));
        let watched = Plain::from(b.try_clone().unwrap());
        let a = tokio::task::spawn_blocking(move || says_then_hears(a, 0));
        let b = tokio::task::spawn_blocking(move || says_then_hears(b, 1));
        b.await.unwrap();
        // Its end is closed with this, and so is the other's.
        a.await.unwrap();
        one.await.unwrap().unwrap();
        two.await.unwrap().unwrap();
        assert_eq!((&watched).read(&mut [0; 1]).unwrap(), 0);
    }
}
