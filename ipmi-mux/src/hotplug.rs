// SPDX-License-Identifier: MIT OR Apache-2.0
//! Learns from the kernel that the BMC's device is gone. An open file of it tells nothing: the driver
//! keeps it, and only fails what is sent later.
//!
//! Kernel uevents come as datagrams on a netlink socket: `ACTION@DEVPATH` and `KEY=VALUE` lines, each
//! ended by a NUL (`linux/lib/kobject_uevent.c`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use kernel_abi::async_fd::watch_readable;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket,
};
use tokio::io::unix::AsyncFd;

/// Multicast group of the kernel's own events; udev's are in group 2.
const KERNEL_EVENTS: u32 = 1;
/// Longest uevent, bytes: `UEVENT_BUFFER_SIZE` and the header line.
const MAX_EVENT: usize = 8192;

/// A subscription to kernel uevents.
#[derive(Debug)]
pub struct Uevents(AsyncFd<OwnedFd>);

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The device was removed.
    Certain,
    /// Events were lost: look at the device.
    Possible,
}

impl Uevents {
    /// Subscribes.
    ///
    /// # Errors
    /// The socket's errors.
    pub fn new() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_EVENTS))?;
        Ok(Self(watch_readable(fd)?))
    }

    /// Returns when the node `/dev/NAME` of subsystem `ipmi` was removed, or when it may have been.
    /// Nothing is lost where the future is dropped before.
    ///
    /// # Errors
    /// The socket's errors.
    pub async fn removal(&self, name: &str) -> io::Result<Removal> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut buffer = [0u8; MAX_EVENT];
            match recvfrom::<NetlinkAddr>(self.0.get_ref().as_raw_fd(), &mut buffer) {
                // Port 0 is the kernel; other processes may send to this group as well.
                Ok((len, Some(from))) if from.pid() == 0 => {
                    if is_removal(&buffer[..len], name) {
                        return Ok(Removal::Certain);
                    }
                }
                Ok(_) => {}
                Err(nix::errno::Errno::EAGAIN) => ready.clear_ready(),
                Err(nix::errno::Errno::ENOBUFS) => return Ok(Removal::Possible),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn is_removal(event: &[u8], name: &str) -> bool {
    let mut wanted =
        [("ACTION", "remove", false), ("SUBSYSTEM", "ipmi", false), ("DEVNAME", name, false)];
    for line in event.split(|b| *b == 0) {
        for (key, value, seen) in &mut wanted {
            let pair = line.strip_prefix(key.as_bytes()).and_then(|l| l.strip_prefix(b"="));
            *seen |= pair == Some(value.as_bytes());
        }
    }
    wanted.iter().all(|(.., seen)| *seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    // As sent by Linux 6.1 when ipmi_si is unbound.
    const REMOVE: &[u8] = b"remove@/devices/platform/IPI0001:00/ipmi/ipmi0\0ACTION=remove\0\
        DEVPATH=/devices/platform/IPI0001:00/ipmi/ipmi0\0SUBSYSTEM=ipmi\0MAJOR=246\0MINOR=0\0\
        DEVNAME=ipmi0\0SEQNUM=1893\0";

    #[test]
    fn only_the_removal_of_our_device_counts() {
        assert!(is_removal(REMOVE, "ipmi0"));
        assert!(!is_removal(REMOVE, "ipmi1"));
        assert!(!is_removal(REMOVE, "ipmi"));
        let add = String::from_utf8(REMOVE.to_vec()).unwrap().replace("remove", "add");
        assert!(!is_removal(add.as_bytes(), "ipmi0"));
        let other = String::from_utf8(REMOVE.to_vec()).unwrap().replace("=ipmi\0", "=tty\0");
        assert!(!is_removal(other.as_bytes(), "ipmi0"));
        assert!(!is_removal(b"", "ipmi0"));
    }
}
