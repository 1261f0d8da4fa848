// SPDX-License-Identifier: MIT OR Apache-2.0
//! Waiting for a descriptor of our own to become readable, or useless.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor, which must be non-blocking, with the current Tokio reactor.
///
/// # Errors
/// `EPERM` where the file cannot be polled.
///
/// # Panics
/// Outside a Tokio runtime with I/O.
pub fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd, Interest::READABLE)
}

/// The same for reading and writing.
///
/// # Errors
/// See [`watch_readable`].
///
/// # Panics
/// See [`watch_readable`].
pub fn watch_both(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd, Interest::READABLE | Interest::WRITABLE)
}

/// The same for errors alone, such as that a pipe has lost its reader. The descriptor may block.
///
/// # Errors
/// See [`watch_readable`].
///
/// # Panics
/// See [`watch_readable`].
pub fn watch_errors(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    register(fd, Interest::ERROR)
}

fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is valid and open, owns its descriptor alone and gives the same number each
    // time; the `AsyncFd` owns it from here on and closes it only when it has deregistered it.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}
