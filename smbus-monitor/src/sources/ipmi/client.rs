// SPDX-License-Identifier: MIT OR Apache-2.0
//! Questions to a BMC through `/dev/ipmiN`, the kernel's or ipmi-mux's: one at a time, each with a limit.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipmi::fru::Inventory;
use kernel_abi::ipmi_devintf::{
    self as abi, IPMI_BMC_CHANNEL, IPMI_IPMB_ADDR_TYPE, IPMI_RESPONSE_RECV_TYPE,
    IPMI_SYSTEM_INTERFACE_ADDR_TYPE, IpmiTimingParms, Outgoing,
};
use nix::errno::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Longest time for an answer. The driver tries for 5 s and more; a BMC that is well answers in milliseconds.
pub const LIMIT: Duration = Duration::from_secs(3);
/// The BMC's own address.
pub const BMC: u8 = 0x20;
/// Bytes of a FRU that are read at a time; every BMC can do that.
const FRU_PART: u8 = 16;
/// Most bytes of a FRU.
const MAX_FRU: u16 = 4096;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum IpmiError {
    /// The node cannot be opened.
    #[error("{}: {source}", path.display())]
    Open {
        /// The node.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The driver refuses.
    #[error("the BMC's driver: {0}")]
    Driver(io::Error),
    /// Nothing came in time.
    #[error("the BMC does not answer within {} s", LIMIT.as_secs())]
    Late,
    /// The BMC refuses, with this completion code.
    #[error("the BMC refuses with completion code {0:02x}")]
    Code(u8),
    /// The answer is shorter than it must be.
    #[error("the BMC's answer is too short")]
    Short,
    /// An inventory makes no sense.
    #[error(transparent)]
    Fru(#[from] ipmi::fru::FruError),
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    file: File,
    last: i64,
}

/// Whom to ask: an address on the IPMB, and which of its logical units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whom {
    /// 8-bit slave address; [`BMC`] is asked by the system interface.
    pub owner: u8,
    /// Channel of the IPMB.
    pub channel: u8,
    /// Logical unit.
    pub lun: u8,
}

impl Whom {
    /// The BMC.
    pub const BMC: Self = Self { owner: BMC, channel: 0, lun: 0 };

    /// `struct ipmi_system_interface_addr`, `struct ipmi_ipmb_addr`.
    fn address(self) -> [u8; 8] {
        let (kind, channel) = match self.owner {
            BMC => (IPMI_SYSTEM_INTERFACE_ADDR_TYPE, IPMI_BMC_CHANNEL),
            _ => (IPMI_IPMB_ADDR_TYPE, self.channel.into()),
        };
        let (kind, channel) = (kind.to_ne_bytes(), channel.to_ne_bytes());
        let tail = if self.owner == BMC { [self.lun, 0] } else { [self.owner, self.lun] };
        [kind[0], kind[1], kind[2], kind[3], channel[0], channel[1], tail[0], tail[1]]
    }
}

impl Client {
    /// Opens a node.
    ///
    /// # Errors
    /// [`IpmiError::Open`].
    pub fn open(path: &Path) -> Result<Self, IpmiError> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|source| IpmiError::Open { path: path.to_owned(), source })?;
        Ok(Self { file, last: 0 })
    }

    /// Asks, and waits. What follows the completion code is the answer.
    ///
    /// # Errors
    /// [`IpmiError`].
    pub fn ask(
        &mut self,
        whom: Whom,
        netfn: u8,
        cmd: u8,
        data: &[u8],
    ) -> Result<Vec<u8>, IpmiError> {
        let driver = |errno: Errno| IpmiError::Driver(io::Error::from(errno));
        self.last += 1;
        // The driver tries bridged messages again by itself; our own limit is what counts.
        let timing = IpmiTimingParms { retries: -1, retry_time_ms: 0 };
        let addr = whom.address();
        abi::send(&self.file, Outgoing { addr: &addr, msgid: self.last, netfn, cmd, data, timing })
            .map_err(driver)?;
        let end = Instant::now() + LIMIT;
        loop {
            self.wait(end)?;
            let answer = match abi::receive(&self.file) {
                Ok(answer) => answer,
                Err(Errno::EAGAIN) => continue,
                Err(errno) => return Err(driver(errno)),
            };
            // An older question's answer comes late, and events may be there for whoever asked for them.
            if answer.recv_type != IPMI_RESPONSE_RECV_TYPE || answer.msgid != self.last {
                continue;
            }
            return match answer.data.split_first() {
                None => Err(IpmiError::Short),
                Some((0, rest)) => Ok(rest.to_vec()),
                Some((code, _)) => Err(IpmiError::Code(*code)),
            };
        }
    }

    fn wait(&self, end: Instant) -> Result<(), IpmiError> {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
            tv_nsec: left.subsec_nanos().into(),
        };
        let fd = self.file.as_fd();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => Err(IpmiError::Late),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(IpmiError::Driver(error.into())),
        }
    }

    /// The inventory of the BMC's first FRU device (IPMI 2.0, 34.1 and 34.2).
    ///
    /// # Errors
    /// [`IpmiError`].
    pub fn inventory(&mut self) -> Result<Inventory, IpmiError> {
        let info = self.ask(Whom::BMC, 0x0a, 0x10, &[0])?;
        let [low, high, access, ..] = info[..] else { return Err(IpmiError::Short) };
        // Bit 0: in words of two bytes, of which offset and count are counted then.
        let words = u16::from(access & 1);
        let size = u16::from_le_bytes([low, high]).min(MAX_FRU);
        let mut bytes = vec![];
        while bytes.len() < usize::from(size) {
            let at = bytes.len() as u16;
            let count = u16::from(FRU_PART).min(size - at);
            let [low, high] = (at >> words).to_le_bytes();
            let count = (count >> words).max(1) as u8;
            let answer = self.ask(Whom::BMC, 0x0a, 0x11, &[0, low, high, count])?;
            match answer.split_first() {
                Some((_, part)) if !part.is_empty() => bytes.extend(part),
                _ => return Err(IpmiError::Short),
            }
        }
        Ok(Inventory::decode(&bytes)?)
    }

    /// Whether the machine has power (28.2).
    ///
    /// # Errors
    /// [`IpmiError`].
    pub fn has_power(&mut self) -> Result<bool, IpmiError> {
        let state = self.ask(Whom::BMC, 0x00, 0x01, &[])?;
        state.first().map(|state| state & 1 == 1).ok_or(IpmiError::Short)
    }

    /// Chassis Control (28.3): 0 off, 1 on, 2 cycle, 3 reset, 5 an orderly end by the system.
    ///
    /// # Errors
    /// [`IpmiError`].
    pub fn chassis(&mut self, what: u8) -> Result<(), IpmiError> {
        self.ask(Whom::BMC, 0x00, 0x02, &[what]).map(drop)
    }
}
