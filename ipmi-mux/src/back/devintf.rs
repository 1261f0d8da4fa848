// SPDX-License-Identifier: MIT OR Apache-2.0
//! The BMC behind the kernel's own node, `/dev/ipmiN`.
//!
//! One open file serves all handles. Our own address and LUN belong to the interface, not to the
//! file (`intf->addrinfo` in `ipmi_msghandler.c`), and the driver takes them when a message is
//! sent: so a handle's own are set around its send.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kernel_abi::async_fd::watch_readable;
use kernel_abi::ipmi_devintf::{
    self as abi, IPMI_ASYNC_EVENT_RECV_TYPE, IPMI_CMD_RECV_TYPE, IPMI_NUM_CHANNELS,
    IPMI_RESPONSE_RECV_TYPE, IPMI_RESPONSE_RESPONSE_TYPE, Interface, IpmiCmdspecChans,
    IpmiTimingParms,
};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use super::{BackEvent, Events};
use crate::addr::{Addr, Kind};
use crate::devintf::CommandSpec;
use crate::mux::{Channels, Incoming, Medium, Outgoing, Token};

/// The driver works on one request at a time; a second one waits with it so that it never idles.
/// More would only move our queue, which is fair, into its queue, which is not.
pub const WINDOW: usize = 2;

/// A request that was given up stays in the driver's queue; it answers within this time or never.
pub const ABANDONED_FOR: Duration = Duration::from_secs(60);

/// A BMC that does not answer a question of ours at the start in this time is left alone.
const PROBE_LIMIT: Duration = Duration::from_secs(6);

/// How long to keep the file open for a driver that is going. It is through in milliseconds, but for the
/// command it may be at, and that waits for the BMC.
const GOING_LIMIT: Duration = Duration::from_secs(3);
const GOING_PAUSE: Duration = Duration::from_millis(10);

/// Bits of the message id that are the sequence number on the wire when a response is sent.
const SEQ_BITS: u32 = 6;

/// The kernel's node cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such node.
    #[error("{}: no such device; is the BMC's driver loaded? (modprobe ipmi_si ipmi_devintf)", path.display())]
    Missing {
        /// The node.
        path: PathBuf,
    },
    /// The driver has its 30 users.
    #[error(
        "{}: all users of the driver are taken; stop some, or raise max_users of module ipmi_msghandler",
        path.display()
    )]
    Busy {
        /// The node.
        path: PathBuf,
    },
    /// Anything else.
    #[error("{}: {errno}", path.display())]
    Other {
        /// The node.
        path: PathBuf,
        /// What `open(2)` says.
        errno: Errno,
    },
}

/// The open node.
#[derive(Debug)]
pub struct Devintf {
    file: Arc<AsyncFd<OwnedFd>>,
    /// The interface's own address and LUN per channel.
    defaults: [(u8, u8); IPMI_NUM_CHANNELS],
    interface: Option<Interface>,
}

/// What the BMC says of itself (Get Device ID, IPMI 2.0 section 20.1): the data after the completion code.
pub type DeviceId = Vec<u8>;

impl Devintf {
    /// Opens the node.
    ///
    /// # Errors
    /// [`OpenError`] with the remedy.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let path = path.to_owned();
        let fd = match nix::fcntl::open(&path, flags, nix::sys::stat::Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => {
                return Err(OpenError::Missing { path });
            }
            Err(Errno::EBUSY) => return Err(OpenError::Busy { path }),
            Err(errno) => return Err(OpenError::Other { path, errno }),
        };
        let other = |errno| OpenError::Other { path: path.clone(), errno };
        let mut defaults = [(0, 0); IPMI_NUM_CHANNELS];
        for (channel, default) in (0u16..).zip(&mut defaults) {
            let address = abi::my_address(&fd, channel).map_err(other)?;
            *default = (address, abi::my_lun(&fd, channel).map_err(other)?);
        }
        let interface = Interface::of(&fd);
        let file = watch_readable(fd).map_err(|_| other(Errno::EPERM))?;
        Ok(Self { file: Arc::new(file), defaults, interface })
    }

    /// The interface's own address and LUN per channel.
    #[must_use]
    pub fn defaults(&self) -> [(u8, u8); IPMI_NUM_CHANNELS] {
        self.defaults
    }

    /// Asks the BMC who it is and what its channels are, before anybody else uses the file.
    pub async fn probe(&self) -> (Option<DeviceId>, Channels) {
        let device_id = self.ask(0x01, &[]).await.filter(|d| d.len() > 1 && d[0] == 0);
        if device_id.is_none() {
            return (None, Channels::default());
        }
        let mut channels = Channels::NONE;
        for channel in 0..IPMI_NUM_CHANNELS as u8 - 1 {
            // Get Channel Info, IPMI 2.0 section 22.24.
            match self.ask(0x42, &[channel]).await.as_deref() {
                Some([0, _, medium, ..]) => {
                    channels.0[usize::from(channel)] = Medium::from_type(*medium);
                }
                // IPMI 1.0 has no such command: an IPMB on channel 0, as the driver assumes too.
                Some([0xc1, ..]) if channel == 0 => return (tail(device_id), Channels::default()),
                _ => {}
            }
        }
        (tail(device_id), channels)
    }

    /// Sends an App command and waits for its answer, completion code first.
    async fn ask(&self, cmd: u8, data: &[u8]) -> Option<Vec<u8>> {
        let addr = Addr::system_interface(0);
        let msgid = -1 - i64::from(cmd);
        let message = abi::Outgoing {
            addr: addr.as_bytes(),
            msgid,
            netfn: 0x06,
            cmd,
            data,
            timing: IpmiTimingParms { retries: -1, retry_time_ms: 0 },
        };
        abi::send(self.file.get_ref(), message).ok()?;
        let answer = async {
            loop {
                let mut ready = self.file.readable().await.ok()?;
                match abi::receive(self.file.get_ref()) {
                    Ok(got) if got.msgid == msgid => return Some(got.data),
                    Ok(_) => {}
                    Err(Errno::EAGAIN) => ready.clear_ready(),
                    Err(_) => return None,
                }
            }
        };
        timeout(PROBE_LIMIT, answer).await.ok().flatten()
    }

    /// Reports what the driver delivers, until it fails. Runs beside the main loop.
    pub fn reader(&self, events: Events) -> impl Future<Output = ()> + use<> {
        let file = Arc::clone(&self.file);
        async move {
            let reason = loop {
                let mut ready = match file.readable().await {
                    Ok(ready) => ready,
                    Err(error) => break error.to_string(),
                };
                let event = match abi::receive(file.get_ref()) {
                    Ok(got) => translate(got),
                    Err(Errno::EAGAIN) => {
                        ready.clear_ready();
                        continue;
                    }
                    Err(errno) => break errno.to_string(),
                };
                if let Some(event) = event
                    && events.send(event).await.is_err()
                {
                    return;
                }
            };
            let _ = events.send(BackEvent::Gone(reason)).await;
        }
    }

    /// Whether the driver has cut this file off.
    pub(super) fn is_gone(&self) -> bool {
        abi::my_address(self.file.get_ref(), 0) == Err(Errno::ENODEV)
    }

    /// Returns when the file can be closed: at once, unless the driver is going.
    pub(super) async fn until_closable(&self) {
        let Some(interface) = &self.interface else { return };
        let gone = async {
            while interface.is_going() {
                sleep(GOING_PAUSE).await;
            }
        };
        // Later it is not at the open files any more.
        let _ = timeout(GOING_LIMIT, gone).await;
    }

    pub(super) fn send(&mut self, out: &Outgoing) -> Result<(), Errno> {
        let fd = self.file.get_ref();
        let channel = u16::from(out.addr.channel());
        let default = self.defaults[usize::from(channel)];
        let own_source = out.addr.kind() != Kind::SystemInterface && out.source != default;
        if own_source {
            set_source(fd, channel, out.source)?;
        }
        let token = i64::try_from(out.token.0).map_err(|_| Errno::EOVERFLOW)?;
        let sent = abi::send(
            fd,
            abi::Outgoing {
                addr: out.addr.as_bytes(),
                msgid: token << SEQ_BITS | out.msgid & ((1 << SEQ_BITS) - 1),
                netfn: out.netfn,
                cmd: out.cmd,
                data: &out.data,
                timing: out.timing,
            },
        );
        if own_source {
            set_source(fd, channel, default)?;
        }
        sent
    }

    pub(super) fn set_gets_events(&self, on: bool) -> Result<(), Errno> {
        abi::set_gets_events(self.file.get_ref(), on)
    }

    pub(super) fn register(&self, spec: CommandSpec) -> Result<(), Errno> {
        abi::register_for_cmd(self.file.get_ref(), raw(spec))
    }

    pub(super) fn unregister(&self, spec: CommandSpec) -> Result<(), Errno> {
        abi::unregister_for_cmd(self.file.get_ref(), raw(spec))
    }

    pub(super) fn maintenance_mode(&self) -> Result<i32, Errno> {
        abi::maintenance_mode(self.file.get_ref())
    }

    pub(super) fn set_maintenance_mode(&self, mode: i32) -> Result<(), Errno> {
        abi::set_maintenance_mode(self.file.get_ref(), mode)
    }
}

fn set_source(fd: impl AsFd, channel: u16, (address, lun): (u8, u8)) -> Result<(), Errno> {
    abi::set_my_address(&fd, channel, address)?;
    abi::set_my_lun(&fd, channel, lun)
}

fn raw(spec: CommandSpec) -> IpmiCmdspecChans {
    IpmiCmdspecChans { netfn: spec.netfn.into(), cmd: spec.cmd.into(), chans: spec.chans }
}

fn tail(data: Option<Vec<u8>>) -> Option<DeviceId> {
    data.map(|d| d[1..].to_vec())
}

/// What a message of the driver means to us; `None` for what nobody can have asked for.
fn translate(got: abi::Incoming) -> Option<BackEvent> {
    let abi::Incoming { recv_type, addr, msgid, netfn, cmd, data } = got;
    let addr = Addr::parse(&addr).ok()?;
    let incoming = Incoming { addr, netfn, cmd, data };
    match recv_type {
        IPMI_RESPONSE_RECV_TYPE | IPMI_RESPONSE_RESPONSE_TYPE => {
            let token = u64::try_from(msgid >> SEQ_BITS).ok()?;
            Some(BackEvent::Reply(Token(token), incoming))
        }
        IPMI_ASYNC_EVENT_RECV_TYPE => Some(BackEvent::Event(incoming)),
        IPMI_CMD_RECV_TYPE => Some(BackEvent::Command(msgid, incoming)),
        _ => None,
    }
}
