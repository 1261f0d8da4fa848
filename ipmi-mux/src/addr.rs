// SPDX-License-Identifier: MIT OR Apache-2.0
//! IPMI addresses as the kernel's interface carries them: `struct ipmi_addr` and its kin in
//! `linux/ipmi.h`, checked as `ipmi_validate_addr` in `ipmi_msghandler.c` checks them.

use kernel_abi::ipmi_devintf::{
    IPMI_BMC_CHANNEL, IPMI_IPMB_ADDR_TYPE, IPMI_IPMB_BROADCAST_ADDR_TYPE,
    IPMI_IPMB_DIRECT_ADDR_TYPE, IPMI_LAN_ADDR_TYPE, IPMI_SYSTEM_INTERFACE_ADDR_TYPE,
};
use nix::errno::Errno;

/// What an address leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The BMC itself, through its system interface.
    SystemInterface,
    /// A controller behind the BMC, on an IPMB.
    Ipmb,
    /// All controllers of an IPMB.
    IpmbBroadcast,
    /// A controller on an IPMB this machine sits on itself.
    IpmbDirect,
    /// A party on a LAN or serial channel of the BMC.
    Lan,
}

impl Kind {
    /// `ipmi_addr_length`: bytes of an address of this kind.
    #[must_use]
    pub const fn addr_len(self) -> usize {
        match self {
            Self::SystemInterface | Self::Ipmb | Self::IpmbBroadcast => 8,
            Self::IpmbDirect | Self::Lan => 12,
        }
    }
}

/// A valid address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Addr {
    kind: Kind,
    bytes: [u8; 12],
}

impl std::fmt::Debug for Addr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}({:02x?})", self.kind, &self.as_bytes()[4..])
    }
}

/// As people write it: `bmc`, `ipmb 0:82`.
impl std::fmt::Display for Addr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (channel, address) = (self.channel(), self.bytes[6]);
        match self.kind {
            Kind::SystemInterface => f.write_str("bmc")?,
            Kind::Ipmb => write!(f, "ipmb {channel}:{address:02x}")?,
            Kind::IpmbBroadcast => write!(f, "broadcast {channel}:{address:02x}")?,
            Kind::IpmbDirect => write!(f, "direct {channel}:{address:02x}")?,
            Kind::Lan => write!(f, "lan {channel}:{:02x}", self.bytes[9])?,
        }
        if self.lun() == 0 { Ok(()) } else { write!(f, " lun {}", self.lun()) }
    }
}

impl Addr {
    /// The BMC, LUN 0 to 3.
    #[must_use]
    pub fn system_interface(lun: u8) -> Self {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&IPMI_SYSTEM_INTERFACE_ADDR_TYPE.to_ne_bytes());
        bytes[4..6].copy_from_slice(&IPMI_BMC_CHANNEL.to_ne_bytes());
        bytes[6] = lun;
        Self { kind: Kind::SystemInterface, bytes }
    }

    /// Checks an address as a caller gave it.
    ///
    /// # Errors
    /// `EINVAL` for whatever the kernel refuses: too short, an unknown type, a channel out of range.
    pub fn parse(given: &[u8]) -> Result<Self, Errno> {
        if given.len() < Kind::SystemInterface.addr_len() {
            return Err(Errno::EINVAL);
        }
        let addr_type = i32::from_ne_bytes([given[0], given[1], given[2], given[3]]);
        let channel = i16::from_ne_bytes([given[4], given[5]]);
        let kind = match addr_type {
            IPMI_SYSTEM_INTERFACE_ADDR_TYPE => Kind::SystemInterface,
            IPMI_IPMB_ADDR_TYPE => Kind::Ipmb,
            IPMI_IPMB_BROADCAST_ADDR_TYPE => Kind::IpmbBroadcast,
            IPMI_IPMB_DIRECT_ADDR_TYPE => Kind::IpmbDirect,
            IPMI_LAN_ADDR_TYPE => Kind::Lan,
            _ => return Err(Errno::EINVAL),
        };
        let channel_fits = match kind {
            Kind::SystemInterface => channel == IPMI_BMC_CHANNEL,
            Kind::IpmbDirect => channel == 0,
            _ => (0..IPMI_BMC_CHANNEL).contains(&channel),
        };
        let Some(own) = given.get(..kind.addr_len()).filter(|_| channel_fits) else {
            return Err(Errno::EINVAL);
        };
        let direct_is_odd =
            kind == Kind::IpmbDirect && (own[6] & 1 != 0 || own[7] > 3 || own[8] > 3);
        if direct_is_odd {
            return Err(Errno::EINVAL);
        }
        let mut bytes = [0; 12];
        bytes[..own.len()].copy_from_slice(own);
        Ok(Self { kind, bytes })
    }

    /// What it leads to.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The channel, 0 to 15.
    #[must_use]
    pub fn channel(&self) -> u8 {
        self.bytes[4 + usize::from(cfg!(target_endian = "big"))]
    }

    /// The LUN it names, unchecked: callers give any byte. For a direct IPMB address the responder's.
    #[must_use]
    pub fn lun(&self) -> u8 {
        match self.kind {
            Kind::SystemInterface => self.bytes[6],
            Kind::Ipmb | Kind::IpmbBroadcast | Kind::IpmbDirect => self.bytes[7],
            Kind::Lan => self.bytes[10],
        }
    }

    /// The address as the interface carries it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.kind.addr_len()]
    }

    /// The address an answer to a message sent here comes from: the driver answers a broadcast as plain IPMB.
    #[must_use]
    pub fn of_answer(&self) -> Self {
        let mut answer = *self;
        if self.kind == Kind::IpmbBroadcast {
            answer.kind = Kind::Ipmb;
            answer.bytes[..4].copy_from_slice(&IPMI_IPMB_ADDR_TYPE.to_ne_bytes());
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(addr_type: i32, channel: i16, rest: &[u8]) -> Vec<u8> {
        [&addr_type.to_ne_bytes()[..], &channel.to_ne_bytes(), rest].concat()
    }

    #[test]
    fn a_system_interface_address_round_trips() {
        let given = bytes(0x0c, 15, &[2, 0]);
        let addr = Addr::parse(&given).unwrap();
        assert_eq!((addr.kind(), addr.channel(), addr.lun()), (Kind::SystemInterface, 15, 2));
        assert_eq!(addr.as_bytes(), given);
        assert_eq!(addr, Addr::system_interface(2));
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        for bad in [
            bytes(0x0c, 15, &[0]),                  // short
            bytes(0x0c, 0, &[0, 0]),                // the BMC is on channel 15 only
            bytes(0x01, 15, &[0x82, 0]),            // and nobody else is
            bytes(0x01, 16, &[0x82, 0]),            // no such channel
            bytes(0x01, -1, &[0x82, 0]),            // no such channel
            bytes(0x04, 1, &[0; 5]),                // a LAN address is 12 bytes long
            bytes(0x81, 0, &[0x83, 0, 0, 0, 0, 0]), // odd slave address
            bytes(0x81, 0, &[0x82, 4, 0, 0, 0, 0]), // LUN out of range
            bytes(0x81, 1, &[0x82, 0, 0, 0, 0, 0]), // direct is on channel 0
            bytes(0x55, 0, &[0; 8]),                // unknown type
            vec![],
        ] {
            assert_eq!(Addr::parse(&bad), Err(Errno::EINVAL), "{bad:02x?}");
        }
    }

    #[test]
    fn a_broadcast_is_answered_as_ipmb() {
        let addr = Addr::parse(&bytes(0x41, 0, &[0x82, 1])).unwrap();
        assert_eq!(addr.of_answer(), Addr::parse(&bytes(0x01, 0, &[0x82, 1])).unwrap());
    }

    #[test]
    fn longer_than_needed_is_cut() {
        let mut given = bytes(0x01, 0, &[0x82, 1]);
        given.extend([9; 32]);
        assert_eq!(Addr::parse(&given).unwrap().as_bytes().len(), 8);
    }
}
