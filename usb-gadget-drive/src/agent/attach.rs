// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/dev/nbdN` for a session: attached, taken over from an agent that is gone, detached.
//!
//! The time limits hang together. A host resets the device when its thread is stuck for 8 to 10 s. The agent answers
//! within 5 s ([`crate::client::proxy::HOLD`]); the kernel takes an agent that has not answered for [`TIMEOUT`] for dead and
//! waits [`DEAD_CONN_TIMEOUT`] for its successor. systemd starts that within 200 ms. A request that was in flight
//! when the agent died is sent again only when its own time is over.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use kernel_abi::nbd_netlink::{Connect, Control, NbdError};
use tracing::debug;

use super::spec::Spec;
use crate::client::connect::MAX_REQUEST;
use crate::client::proxy::Export;

/// How long the kernel waits for an answer, seconds.
pub const TIMEOUT: u64 = 6;
/// How long requests wait for another agent, seconds.
pub const DEAD_CONN_TIMEOUT: u64 = 3;
/// Requests the kernel sends at a time. With [`MAX_REQUEST`] 4 MiB: what a line of 1 MB/s carries within
/// [`crate::client::proxy::HOLD`], so that a slow line is not taken for a dead one.
const QUEUE: u32 = 16;
/// What our devices are known by in sysfs, and the version of what follows.
const MARK: &str = "midplane1";
/// The kernel notices the end of a socket at once, but not before we can ask.
const TAKE_OVER_TRIES: u32 = 100;
const TAKE_OVER_PAUSE: Duration = Duration::from_millis(20);

/// An attached device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// N of `/dev/nbdN`.
    pub index: u32,
}

impl Device {
    /// The node.
    #[must_use]
    pub fn path(self) -> PathBuf {
        PathBuf::from(format!("/dev/nbd{}", self.index))
    }

    /// The device whose node this is.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        let index = path.to_str()?.strip_prefix("/dev/nbd")?.parse().ok()?;
        Some(Self { index })
    }

    fn sysfs(self) -> PathBuf {
        PathBuf::from(format!("/sys/block/nbd{}", self.index))
    }

    /// What the agent that attached it wrote on it; none if it was no agent of ours.
    #[must_use]
    pub fn label(self) -> Option<Label> {
        Label::decode(fs::read_to_string(self.sysfs().join("backend")).ok()?.trim_end())
    }
}

/// What is needed to go on with a device, kept by the kernel as its "backend identifier".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// What the kernel was told.
    pub export: Export,
    /// Where it comes from, as [`Spec`] writes it.
    pub spec: String,
}

impl Label {
    /// For an export of a drive.
    #[must_use]
    pub fn new(export: Export, spec: &Spec) -> Self {
        Self { export, spec: spec.to_string() }
    }

    fn encode(&self) -> String {
        format!("{MARK} {} {:#x} {}", self.export.size, self.export.flags, self.spec)
    }

    fn decode(text: &str) -> Option<Self> {
        let mut words = text.splitn(4, ' ');
        words.next().filter(|mark| *mark == MARK)?;
        let size = words.next()?.parse().ok()?;
        let flags = u16::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
        Some(Self { export: Export { size, flags }, spec: words.next()?.to_owned() })
    }
}

/// Attaches any free device to the kernel's end of a socket pair. Our end must be served already.
///
/// # Errors
/// [`NbdError`].
pub fn attach(kernel: &UnixStream, label: &Label, block: u32) -> Result<Device, NbdError> {
    let index = Control::open()?.connect(&Connect {
        index: None,
        size: label.export.size,
        block_size: block.into(),
        timeout: TIMEOUT,
        dead_conn_timeout: DEAD_CONN_TIMEOUT,
        server_flags: label.export.flags.into(),
        client_flags: 0,
        sockets: &[kernel.as_fd()],
        identifier: Some(&label.encode()),
    })?;
    let device = Device { index };
    device.tune();
    Ok(device)
}

impl Device {
    /// Bounds what the kernel asks and holds back. A kernel that lacks one of these does without it.
    fn tune(self) {
        let kib = (MAX_REQUEST / 1024).to_string();
        let queue = QUEUE.to_string();
        let settings = [
            ("queue/max_sectors_kb", kib.as_str()),
            ("queue/nr_requests", queue.as_str()),
            // The gadget's one thread reads 16 KiB at a time for a host that reads on: what comes next is fetched
            // meanwhile.
            ("queue/read_ahead_kb", "1024"),
            // What the host wrote must soon be on its way: a flush that takes long looks like a hang to the host.
            ("bdi/max_ratio", "1"),
            ("bdi/strict_limit", "1"),
        ];
        for (attribute, value) in settings {
            if let Err(error) = fs::write(self.sysfs().join(attribute), value) {
                debug!(device = self.index, attribute, %error, "not set");
            }
        }
    }

    /// Gives the device a new socket in place of one that is dead.
    ///
    /// # Errors
    /// [`NbdError`]; the device cannot be used any more then.
    pub fn take_over(self, kernel: &UnixStream, label: &Label) -> Result<(), NbdError> {
        let mut control = Control::open()?;
        for _ in 1..TAKE_OVER_TRIES {
            match control.reconfigure(self.index, &[kernel.as_fd()], Some(&label.encode())) {
                Err(NbdError::Refused { errno, .. })
                    if io::Error::from(errno).kind() == io::ErrorKind::StorageFull =>
                {
                    thread::sleep(TAKE_OVER_PAUSE);
                }
                other => return other,
            }
        }
        control.reconfigure(self.index, &[kernel.as_fd()], Some(&label.encode()))
    }

    /// Detaches it; requests that wait in it fail.
    ///
    /// # Errors
    /// [`NbdError`].
    pub fn detach(self) -> Result<(), NbdError> {
        Control::open()?.disconnect(self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_back() {
        let label =
            Label { export: Export { size: 1 << 40, flags: 0xd }, spec: "unix:/a b:c:ro".into() };
        assert_eq!(label.encode(), "midplane1 1099511627776 0xd unix:/a b:c:ro");
        assert_eq!(Label::decode(&label.encode()), Some(label));
        for text in ["", "midplane1", "midplane1 1 2 x", "other 1 0x2 x", "midplane1 -1 0x2 x"] {
            assert_eq!(Label::decode(text), None, "{text}");
        }
    }

    #[test]
    fn nodes_have_their_numbers() {
        assert_eq!(Device::of_path(Path::new("/dev/nbd12")), Some(Device { index: 12 }));
        for path in ["/dev/nbd", "/dev/nbd1p2", "/dev/sda", "/dev/nbd-1", ""] {
            assert_eq!(Device::of_path(Path::new(path)), None);
        }
    }
}
