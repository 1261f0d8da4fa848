// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's and udev's events as a bell: that something happened to a device. What there is, sysfs says.
//!
//! Netlink, group 1 from the kernel, which tells first of what goes; group 2 from udev, when its rules have run for what
//! came. Who else sends there can ring the bell and nothing more.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use kernel_abi::async_fd::watch_readable;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::unix::AsyncFd;

/// Both groups, as bits.
const GROUPS: u32 = 0b11;
/// Longest event, bytes: `UEVENT_BUFFER_SIZE` and a header.
const MAX_EVENT: usize = 8192;
/// What is listened for.
const SUBSYSTEMS: [&[u8]; 5] = [
    b"SUBSYSTEM=usb",
    b"SUBSYSTEM=tty",
    b"SUBSYSTEM=block",
    b"SUBSYSTEM=ipmi",
    // The nodes of `ipmi-mux`.
    b"SUBSYSTEM=cuse",
];

/// The bell.
#[derive(Debug)]
pub struct Uevents(AsyncFd<OwnedFd>);

impl Uevents {
    /// Subscribes.
    ///
    /// # Errors
    /// The socket's.
    pub fn new() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        Ok(Self(watch_readable(fd)?))
    }

    /// Returns when something happened to a device that may matter, or may have. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The socket's.
    pub async fn ring(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut buffer = [0; MAX_EVENT];
            match recv(self.0.get_ref().as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(len) if matters(&buffer[..len]) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::ENOBUFS) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn matters(event: &[u8]) -> bool {
    event.split(|b| *b == 0).any(|line| SUBSYSTEMS.contains(&line))
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_some_subsystems_matter() {
        assert!(super::matters(b"add@/devices/x\0ACTION=add\0SUBSYSTEM=usb\0"));
        assert!(!super::matters(b"add@/devices/x\0ACTION=add\0SUBSYSTEM=net\0"));
        assert!(!super::matters(b""));
    }
}
