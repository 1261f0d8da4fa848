// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's NBD client, driven over generic netlink: which sockets `/dev/nbdN` speaks the transmission phase of
//! NBD on, how big it is, and how long it waits.
//!
//! Follows `linux/nbd-netlink.h` and `drivers/block/nbd.c` (6.1). The kernel handles a command while it is sent, so
//! no call here waits longer than the command itself takes. Needs `CAP_SYS_ADMIN`.
//!
//! What the driver does on its own: a request that is unanswered for `timeout` makes its socket dead; requests then
//! wait for [`Control::reconfigure`] for at most `dead_conn_timeout`, without a way to interrupt them, and fail with
//! `EIO` after that, from when on the device must be connected anew. A request in flight on a socket that ends is
//! sent again only when its own `timeout` is over, and with no `timeout` never.

pub mod wire;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

pub use wire::DeviceStatus;
use wire::{Attributes, Body, Genlmsghdr, Messages};

/// Longest backend identifier, bytes. The kernel sets no limit; it is shown in sysfs, which has a page.
pub const MAX_IDENTIFIER: usize = 1024;
/// Most sockets of one device. More serve no purpose, the kernel has no limit.
pub const MAX_SOCKETS: usize = 16;
/// Largest datagram we receive, bytes: `NLMSG_GOODSIZE` is a page, and STATUS lists its devices in one.
const MAX_DATAGRAM: usize = 64 * 1024;
/// The kernel has answered before a request's `send` returns; this is for the case that it never does, seconds.
const ANSWER_LIMIT: i64 = 10;

/// Why the driver did not do it.
#[derive(Debug, thiserror::Error)]
pub enum NbdError {
    /// The family is not there.
    #[error("the kernel's nbd driver is not loaded (modprobe nbd)")]
    NoDriver,
    /// The device is in use, or a socket is to be replaced and none is dead.
    #[error("{what}: in use")]
    Busy {
        /// The command and the device.
        what: String,
    },
    /// Not permitted.
    #[error("{what}: CAP_SYS_ADMIN is needed")]
    NotPermitted {
        /// The command and the device.
        what: String,
    },
    /// The driver refused for another reason.
    #[error("{what}: {errno}")]
    Refused {
        /// The command and the device.
        what: String,
        /// Its reason: `EINVAL` for a device that is not connected or of another identifier, `ENOSPC` where no
        /// socket is dead.
        errno: Errno,
    },
    /// The answer is not what the header describes.
    #[error("{what}: the kernel's answer is malformed")]
    Malformed {
        /// The command and the device.
        what: String,
    },
    /// The netlink socket failed.
    #[error("generic netlink: {0}")]
    Socket(#[from] Errno),
}

/// What a device is to be.
#[derive(Debug)]
pub struct Connect<'a> {
    /// N of `/dev/nbdN`; none for any that is free.
    pub index: Option<u32>,
    /// Bytes; what is beyond a multiple of 512 is cut off.
    pub size: u64,
    /// Bytes: a power of 2 of 512 up to the page size.
    pub block_size: u64,
    /// How long a request may take, seconds; see the module's head.
    pub timeout: u64,
    /// How long requests wait for a new socket, seconds.
    pub dead_conn_timeout: u64,
    /// `NBD_FLAG_*`, the transmission flags of the NBD protocol.
    pub server_flags: u64,
    /// `NBD_CFLAG_*`.
    pub client_flags: u64,
    /// Connected stream sockets, TCP or Unix, at most [`MAX_SOCKETS`].
    pub sockets: &'a [BorrowedFd<'a>],
    /// Guards [`Control::reconfigure`] against sockets of another drive; at most [`MAX_IDENTIFIER`] bytes, no NUL.
    pub identifier: Option<&'a str>,
}

/// The control channel of the driver.
#[derive(Debug)]
pub struct Control {
    socket: OwnedFd,
    family: u16,
    group: Option<u32>,
    seq: u32,
}

impl Control {
    /// Finds the driver.
    ///
    /// # Errors
    /// [`NbdError::NoDriver`], or the socket's.
    pub fn open() -> Result<Self, NbdError> {
        let mut control =
            Self { socket: open_socket()?, family: wire::GENL_ID_CTRL, group: None, seq: 0 };
        let body = Body::default().string(wire::CTRL_ATTR_FAMILY_NAME, wire::FAMILY);
        let mut found = None;
        let asked =
            control.command("find the family", wire::CTRL_CMD_GETFAMILY, body, |_, attributes| {
                found = wire::family(attributes);
            });
        match asked {
            Err(NbdError::Refused { errno: Errno::ENOENT, .. }) => return Err(NbdError::NoDriver),
            other => other?,
        }
        let malformed = || NbdError::Malformed { what: "find the family".into() };
        (control.family, control.group) = found.ok_or_else(malformed)?;
        Ok(control)
    }

    /// Connects a device and returns its index.
    ///
    /// # Errors
    /// [`NbdError`]; `Busy` where `index` is in use.
    pub fn connect(&mut self, connect: &Connect<'_>) -> Result<u32, NbdError> {
        let what = match connect.index {
            Some(index) => format!("connect nbd{index}"),
            None => "connect an nbd device".to_owned(),
        };
        let mut body = Body::default();
        if let Some(index) = connect.index {
            body = body.u32(wire::NBD_ATTR_INDEX, index);
        }
        body = body
            .u64(wire::NBD_ATTR_SIZE_BYTES, connect.size & !511)
            .u64(wire::NBD_ATTR_BLOCK_SIZE_BYTES, connect.block_size)
            .u64(wire::NBD_ATTR_TIMEOUT, connect.timeout)
            .u64(wire::NBD_ATTR_SERVER_FLAGS, connect.server_flags)
            .u64(wire::NBD_ATTR_CLIENT_FLAGS, connect.client_flags)
            .u64(wire::NBD_ATTR_DEAD_CONN_TIMEOUT, connect.dead_conn_timeout);
        let body = with_sockets(body, &what, connect.sockets, connect.identifier)?;
        let mut index = None;
        self.command(&what, wire::NBD_CMD_CONNECT, body, |_, attributes| {
            index = attributes.u32(wire::NBD_ATTR_INDEX);
        })?;
        index.or(connect.index).ok_or(NbdError::Malformed { what })
    }

    /// Gives a device a new socket for each dead one.
    ///
    /// # Errors
    /// [`NbdError`]; `EINVAL` where the device is not connected any more or `identifier` is not its own, `ENOSPC`
    /// where none of its sockets is dead.
    pub fn reconfigure(
        &mut self,
        index: u32,
        sockets: &[BorrowedFd<'_>],
        identifier: Option<&str>,
    ) -> Result<(), NbdError> {
        let what = format!("reconfigure nbd{index}");
        let body = Body::default().u32(wire::NBD_ATTR_INDEX, index);
        let body = with_sockets(body, &what, sockets, identifier)?;
        self.command(&what, wire::NBD_CMD_RECONFIGURE, body, |_, _| {})
    }

    /// Disconnects a device. Requests that wait for a socket fail.
    ///
    /// # Errors
    /// [`NbdError`]; a device that is not connected is none.
    pub fn disconnect(&mut self, index: u32) -> Result<(), NbdError> {
        let body = Body::default().u32(wire::NBD_ATTR_INDEX, index);
        self.command(&format!("disconnect nbd{index}"), wire::NBD_CMD_DISCONNECT, body, |_, _| {})
    }

    /// The devices there are, or one of them.
    ///
    /// # Errors
    /// [`NbdError`].
    pub fn status(&mut self, index: Option<u32>) -> Result<Vec<DeviceStatus>, NbdError> {
        let mut body = Body::default();
        if let Some(index) = index {
            body = body.u32(wire::NBD_ATTR_INDEX, index);
        }
        let mut devices = Vec::new();
        self.command("status of nbd", wire::NBD_CMD_STATUS, body, |_, attributes| {
            devices.extend(wire::devices(attributes));
        })?;
        Ok(devices)
    }

    /// Listens for devices that lost a socket.
    ///
    /// # Errors
    /// The socket's, or `Malformed` where the driver has no such group.
    pub fn dead_links(&self) -> Result<DeadLinks, NbdError> {
        let group =
            self.group.ok_or_else(|| NbdError::Malformed { what: "find the group".into() })?;
        let socket = open_socket()?;
        join(&socket, group)?;
        Ok(DeadLinks { socket, family: self.family })
    }

    /// Sends a command and hands what comes back before its acknowledgement to `answer`.
    fn command(
        &mut self,
        what: &str,
        cmd: u8,
        body: Body,
        mut answer: impl FnMut(Genlmsghdr, Attributes<'_>),
    ) -> Result<(), NbdError> {
        self.seq = self.seq.wrapping_add(1);
        let request = body.request(self.family, self.seq, cmd, wire::VERSION);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut datagram = vec![0; MAX_DATAGRAM];
        loop {
            let len = receive(&self.socket, &mut datagram)?;
            for message in Messages(&datagram[..len]).filter(|m| m.header.nlmsg_seq == self.seq) {
                if let Some(errno) = message.errno() {
                    return refused(what, errno);
                }
                if message.header.nlmsg_type == self.family
                    && let Some((header, attributes)) = message.generic()
                {
                    answer(header, attributes);
                }
            }
        }
    }
}

fn refused(what: &str, errno: i32) -> Result<(), NbdError> {
    let what = what.to_owned();
    match Errno::from_raw(errno) {
        _ if errno == 0 => Ok(()),
        Errno::EBUSY => Err(NbdError::Busy { what }),
        Errno::EPERM => Err(NbdError::NotPermitted { what }),
        errno => Err(NbdError::Refused { what, errno }),
    }
}

fn with_sockets(
    body: Body,
    what: &str,
    sockets: &[BorrowedFd<'_>],
    identifier: Option<&str>,
) -> Result<Body, NbdError> {
    let bad = |errno| NbdError::Refused { what: what.to_owned(), errno };
    if sockets.is_empty() || sockets.len() > MAX_SOCKETS {
        return Err(bad(Errno::E2BIG));
    }
    let numbers: Vec<_> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    let body = body.sockets(&numbers);
    match identifier {
        Some(id) if id.len() > MAX_IDENTIFIER || id.contains('\0') => Err(bad(Errno::ENAMETOOLONG)),
        Some(id) => Ok(body.string(wire::NBD_ATTR_BACKEND_IDENTIFIER, id)),
        None => Ok(body),
    }
}

fn open_socket() -> Result<OwnedFd, Errno> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkGeneric,
    )?;
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_LIMIT, 0))?;
    Ok(netlink)
}

/// One datagram; what did not fit into `buffer` is an error, since a cut list looks like a whole one.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
            Err(Errno::EINTR) => {}
            Ok(len) if len > buffer.len() => return Err(Errno::EMSGSIZE),
            other => return other,
        }
    }
}

fn join(socket: &OwnedFd, group: u32) -> Result<(), Errno> {
    let value: libc::c_int = group.cast_signed();
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("4 bytes");
    // SAFETY: the kernel reads `len` bytes from `value`, which is that long and outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_ADD_MEMBERSHIP,
            (&raw const value).cast(),
            len,
        )
    };
    Errno::result(result).map(drop)
}

/// Notices of devices that lost a socket.
#[derive(Debug)]
pub struct DeadLinks {
    socket: OwnedFd,
    family: u16,
}

impl DeadLinks {
    /// The device that lost a socket next; none where nothing came for some seconds.
    ///
    /// # Errors
    /// The socket's; `ENOBUFS` where notices were lost, after which it goes on.
    pub fn wait(&mut self) -> io::Result<Option<u32>> {
        let mut datagram = vec![0; MAX_DATAGRAM];
        let len = match receive(&self.socket, &mut datagram) {
            Ok(len) => len,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        Ok(dead_link(self.family, &datagram[..len]))
    }
}

impl AsFd for DeadLinks {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn dead_link(family: u16, datagram: &[u8]) -> Option<u32> {
    let mut ours = Messages(datagram).filter(|m| m.header.nlmsg_type == family);
    ours.find_map(|message| {
        let (header, attributes) = message.generic()?;
        (header.cmd == wire::NBD_CMD_LINK_DEAD).then(|| attributes.u32(wire::NBD_ATTR_INDEX))?
    })
}

#[cfg(test)]
mod tests;
