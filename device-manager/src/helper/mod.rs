// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part that is root: a few writes to sysfs, the opening of disks, HID devices and BMCs, and `/dev/uhid`, asked for over a Unix socket
//! by the parts that speak with the network, which are not root. It looks at each device itself, and at the configuration, before it does what it is asked.

pub mod bmc;
pub mod disk;
pub mod hid;
pub mod server;
pub mod usbip;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::{IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg,
    sendmsg, socket_with, sockopt,
};
use serde::{Deserialize, Serialize};

use crate::hid::About;
use usbip::{Exported, Identity};

/// Where it listens.
pub const SOCKET: &str = "/run/midplane/device-manager-helper.sock";
/// Most bytes of a request or an answer: a report descriptor of 4 KiB is told number by number.
const MAX: usize = 24 * 1024;
/// Most descriptors that come with a message: a HID device with all that the kernel made of it.
pub(crate) const MAX_FDS: usize = 17;
/// It gives up its own waits before that.
const LIMIT: Duration = Duration::from_secs(25);

/// What is asked of it; `Export`, `Import` and `MakeHid` come with a socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Give a device away over the socket.
    Export {
        /// The kernel's name of its port.
        bus_id: String,
        /// What it is to be.
        identity: Identity,
    },
    /// Cut what was given away, and take it back.
    GiveBack(String),
    /// Attach what comes over the socket, if it is that.
    Import {
        /// As its unit says.
        exported: Exported,
        /// What it is to be.
        identity: Identity,
    },
    /// Detach a port.
    Detach(u32),
    /// Open a disk of a device, for who asks alone.
    Open {
        /// The kernel's name of its port.
        bus_id: String,
        /// What it is to be.
        identity: Identity,
        /// The disk's node.
        node: String,
        /// Whether it is to be opened for reading alone.
        read_only: bool,
    },
    /// Open a HID device of a device, and grab what the kernel made of it. `/dev/hidrawN` comes first.
    OpenHid {
        /// The kernel's name of its port.
        bus_id: String,
        /// What it is to be.
        identity: Identity,
        /// Its node.
        node: String,
    },
    /// Open the node of a BMC.
    OpenBmc {
        /// The node.
        node: String,
        /// What it is to be, as [`Found::descriptors`](crate::record::Found::descriptors).
        descriptors: u64,
    },
    /// Make a HID device, of which the socket tells by messages of [`crate::hid`]; it goes with the socket.
    MakeHid {
        /// What it is, as its unit says.
        about: About,
        /// What it is to be.
        identity: Identity,
        /// The types of what was leased, as [`Found::types`](crate::record::Found::types).
        types: Vec<String>,
    },
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It was done.
    Done,
    /// It is given away.
    Exported(Exported),
    /// It is attached: the port, and the local name.
    Imported(u32, String),
    /// It is open, and comes with this.
    Opened {
        /// Whether it can only be read.
        read_only: bool,
    },
    /// It is made, and has these words for where it is (`HID_PHYS`).
    Made(String),
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// It cannot be asked.
    #[error("the helper does not answer on {}; see: systemctl status device-manager-helper.socket", path.display())]
    Io {
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It says why.
    #[error("{0}")]
    Refused(String),
}

/// Asks it.
#[derive(Debug, Clone)]
pub struct Helper {
    path: Arc<PathBuf>,
}

impl Helper {
    /// At its usual place, or another.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self { path: Arc::new(path) }
    }

    /// Asks, and waits for the answer in a thread of its own.
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn ask(
        &self,
        request: Request,
        socket: Option<OwnedFd>,
    ) -> Result<Answer, HelperError> {
        Ok(self.put(request, socket).await?.0)
    }

    /// Asks for something that comes as descriptors.
    ///
    /// # Errors
    /// See [`HelperError`].
    pub async fn ask_for(&self, request: Request) -> Result<(Answer, Vec<OwnedFd>), HelperError> {
        self.put(request, None).await
    }

    async fn put(
        &self,
        request: Request,
        socket: Option<OwnedFd>,
    ) -> Result<(Answer, Vec<OwnedFd>), HelperError> {
        let path = Arc::clone(&self.path);
        let asked = tokio::task::spawn_blocking(move || {
            let sockets: Vec<BorrowedFd<'_>> = socket.iter().map(AsFd::as_fd).collect();
            ask(&path, &request, &sockets)
        });
        let io = |source| HelperError::Io { path: PathBuf::clone(&self.path), source };
        let answer = asked.await.map_err(|error| io(io::Error::other(error)))?;
        let (answer, fds) = answer.map_err(io)?;
        Ok((answer.map_err(HelperError::Refused)?, fds))
    }
}

/// What it says, and what comes with that.
type Said = (Result<Answer, String>, Vec<OwnedFd>);

fn ask(path: &std::path::Path, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<Said> {
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(LIMIT))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    send(socket.as_fd(), &serde_json::to_vec(request)?, fds)?;
    let (bytes, fds) = receive(socket.as_fd())?;
    Ok((serde_json::from_slice(&bytes)?, fds))
}

/// Sends one message, perhaps with descriptors, at most [`MAX_FDS`].
///
/// # Errors
/// The socket's.
pub(crate) fn send(to: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message, and the descriptors that came with it.
///
/// # Errors
/// The socket's; the end of it too.
pub(crate) fn receive(from: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut all = vec![];
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            all.extend(fds);
        }
    }
    bytes.truncate(got.bytes);
    Ok((bytes, all))
}
