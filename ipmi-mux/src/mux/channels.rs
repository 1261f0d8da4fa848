// SPDX-License-Identifier: MIT OR Apache-2.0
//! What lies behind each channel of the BMC: `i_ipmi_req_ipmb` and `i_ipmi_req_lan` refuse an address
//! that its channel's medium cannot have.

use kernel_abi::ipmi_devintf::{IPMI_MAX_MSG_LENGTH, IPMI_NUM_CHANNELS};
use nix::errno::Errno;

use crate::addr::Kind;
use crate::devintf::Send;

/// Medium of a channel, as far as it decides anything (IPMI 2.0 table 6-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Medium {
    /// Unused, or one that the driver does not bridge to.
    #[default]
    None,
    /// An IPMB.
    Ipmb,
    /// 802.3 LAN, or asynchronous serial: addressed alike.
    LanOrSerial,
}

impl Medium {
    /// From the channel medium type of Get Channel Info (IPMI 2.0 section 22.24).
    #[must_use]
    pub fn from_type(medium_type: u8) -> Self {
        match medium_type & 0x7f {
            0x01 => Self::Ipmb,
            0x04 | 0x05 => Self::LanOrSerial,
            _ => Self::None,
        }
    }
}

/// Medium per channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels(pub [Medium; IPMI_NUM_CHANNELS]);

impl Default for Channels {
    /// What the driver assumes of a BMC that cannot tell: an IPMB on channel 0, nothing else.
    fn default() -> Self {
        let mut channels = [Medium::None; IPMI_NUM_CHANNELS];
        channels[0] = Medium::Ipmb;
        Self(channels)
    }
}

impl Channels {
    /// A BMC reached without bridging.
    pub const NONE: Self = Self([Medium::None; IPMI_NUM_CHANNELS]);

    /// Checks a message to an address behind the BMC.
    pub(super) fn check(&self, send: &Send) -> Result<(), Errno> {
        let (kind, len) = (send.addr.kind(), send.data.len());
        // Bytes around the data in the Send Message request: headers, checksums, a broadcast's zero.
        let (medium, overhead) = match kind {
            Kind::SystemInterface => return Ok(()),
            Kind::IpmbDirect => return Err(Errno::EAFNOSUPPORT),
            Kind::Ipmb => (Medium::Ipmb, 10),
            Kind::IpmbBroadcast => (Medium::Ipmb, 11),
            Kind::Lan => (Medium::LanOrSerial, 12),
        };
        if self.0[usize::from(send.addr.channel())] != medium {
            return Err(Errno::EINVAL);
        }
        if len + overhead > IPMI_MAX_MSG_LENGTH {
            return Err(Errno::EMSGSIZE);
        }
        if send.addr.lun() > 3 {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }
}
