// SPDX-License-Identifier: MIT OR Apache-2.0
//! Netlink messages as bytes: headers, attributes, and what the family `nbd` puts in them.
//!
//! Follows `linux/netlink.h`, `linux/genetlink.h` and `linux/nbd-netlink.h`. All integers are in host byte order;
//! attributes are aligned to 4 bytes. Whatever was received is only ever read through [`Attributes`], which ends
//! at the first attribute that does not fit.

use std::os::fd::RawFd;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `NLMSG_ERROR`: an acknowledgement, or why not.
pub const NLMSG_ERROR: u16 = 2;
/// `GENL_ID_CTRL`: the family that knows the families.
pub const GENL_ID_CTRL: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLA_F_NESTED: u16 = 1 << 15;
/// `NLA_TYPE_MASK`: without the two flags.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// `CTRL_CMD_GETFAMILY`.
pub const CTRL_CMD_GETFAMILY: u8 = 3;
/// `CTRL_ATTR_FAMILY_ID`.
pub const CTRL_ATTR_FAMILY_ID: u16 = 1;
/// `CTRL_ATTR_FAMILY_NAME`.
pub const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// `CTRL_ATTR_MCAST_GROUPS`.
pub const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
/// `CTRL_ATTR_MCAST_GRP_NAME`.
pub const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
/// `CTRL_ATTR_MCAST_GRP_ID`.
pub const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

/// Name of the family and of its multicast group, `NBD_GENL_FAMILY_NAME`, `NBD_GENL_MCAST_GROUP_NAME`.
pub const FAMILY: &str = "nbd";
/// See [`FAMILY`].
pub const GROUP: &str = "nbd_mc_group";
/// `NBD_GENL_VERSION`.
pub const VERSION: u8 = 1;

/// `NBD_CMD_CONNECT`.
pub const NBD_CMD_CONNECT: u8 = 1;
/// `NBD_CMD_DISCONNECT`.
pub const NBD_CMD_DISCONNECT: u8 = 2;
/// `NBD_CMD_RECONFIGURE`.
pub const NBD_CMD_RECONFIGURE: u8 = 3;
/// `NBD_CMD_LINK_DEAD`.
pub const NBD_CMD_LINK_DEAD: u8 = 4;
/// `NBD_CMD_STATUS`.
pub const NBD_CMD_STATUS: u8 = 5;

/// `NBD_ATTR_INDEX`, u32.
pub const NBD_ATTR_INDEX: u16 = 1;
/// `NBD_ATTR_SIZE_BYTES`, u64.
pub const NBD_ATTR_SIZE_BYTES: u16 = 2;
/// `NBD_ATTR_BLOCK_SIZE_BYTES`, u64.
pub const NBD_ATTR_BLOCK_SIZE_BYTES: u16 = 3;
/// `NBD_ATTR_TIMEOUT`, u64, seconds.
pub const NBD_ATTR_TIMEOUT: u16 = 4;
/// `NBD_ATTR_SERVER_FLAGS`, u64.
pub const NBD_ATTR_SERVER_FLAGS: u16 = 5;
/// `NBD_ATTR_CLIENT_FLAGS`, u64.
pub const NBD_ATTR_CLIENT_FLAGS: u16 = 6;
/// `NBD_ATTR_SOCKETS`, nested [`NBD_SOCK_ITEM`]s.
pub const NBD_ATTR_SOCKETS: u16 = 7;
/// `NBD_ATTR_DEAD_CONN_TIMEOUT`, u64, seconds.
pub const NBD_ATTR_DEAD_CONN_TIMEOUT: u16 = 8;
/// `NBD_ATTR_DEVICE_LIST`, nested [`NBD_DEVICE_ITEM`]s.
pub const NBD_ATTR_DEVICE_LIST: u16 = 9;
/// `NBD_ATTR_BACKEND_IDENTIFIER`, string.
pub const NBD_ATTR_BACKEND_IDENTIFIER: u16 = 10;
/// `NBD_SOCK_ITEM`.
pub const NBD_SOCK_ITEM: u16 = 1;
/// `NBD_SOCK_FD`, u32.
pub const NBD_SOCK_FD: u16 = 1;
/// `NBD_DEVICE_ITEM`.
pub const NBD_DEVICE_ITEM: u16 = 1;
/// `NBD_DEVICE_INDEX`, u32.
pub const NBD_DEVICE_INDEX: u16 = 1;
/// `NBD_DEVICE_CONNECTED`, u8.
pub const NBD_DEVICE_CONNECTED: u16 = 2;

/// `struct nlmsghdr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Nlmsghdr {
    /// Length with this header, bytes.
    pub nlmsg_len: u32,
    /// A family's number, or `NLMSG_*`.
    pub nlmsg_type: u16,
    /// `NLM_F_*`.
    pub nlmsg_flags: u16,
    /// Of the request.
    pub nlmsg_seq: u32,
    /// Of the receiver; 0 is the kernel.
    pub nlmsg_pid: u32,
}

/// `struct genlmsghdr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Genlmsghdr {
    /// The family's command.
    pub cmd: u8,
    /// The family's version.
    pub version: u8,
    /// Zero.
    pub reserved: u16,
}

/// `struct nlattr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Nlattr {
    /// Length with this header and without the padding, bytes.
    pub nla_len: u16,
    /// Type and two flags.
    pub nla_type: u16,
}

const _: () = assert!(size_of::<Nlmsghdr>() == 16);
const _: () = assert!(size_of::<Genlmsghdr>() == 4);
const _: () = assert!(size_of::<Nlattr>() == 4);

const fn aligned(len: usize) -> usize {
    (len + 3) & !3
}

/// Attributes of a message that is being made.
#[derive(Debug, Default)]
pub struct Body(Vec<u8>);

impl Body {
    fn attribute(mut self, kind: u16, data: &[u8]) -> Self {
        let header = Nlattr {
            nla_len: u16::try_from(size_of::<Nlattr>() + data.len())
                .expect("callers bound strings and lists"),
            nla_type: kind,
        };
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(aligned(self.0.len()), 0);
        self
    }

    /// A number of 32 bits.
    #[must_use]
    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// A number of 64 bits.
    #[must_use]
    pub fn u64(self, kind: u16, value: u64) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// A string with its terminator. The caller bounds its length.
    #[must_use]
    pub fn string(self, kind: u16, value: &str) -> Self {
        self.attribute(kind, &[value.as_bytes(), b"\0"].concat())
    }

    /// The sockets of a device, [`NBD_ATTR_SOCKETS`].
    #[must_use]
    pub fn sockets(self, sockets: &[RawFd]) -> Self {
        let list = sockets.iter().fold(Self::default(), |list, fd| {
            let item = Self::default().attribute(NBD_SOCK_FD, &fd.to_ne_bytes());
            list.attribute(NBD_SOCK_ITEM | NLA_F_NESTED, &item.0)
        });
        self.attribute(NBD_ATTR_SOCKETS | NLA_F_NESTED, &list.0)
    }

    /// The whole message, to be acknowledged.
    #[must_use]
    pub fn request(self, family: u16, seq: u32, cmd: u8, version: u8) -> Vec<u8> {
        let genl = Genlmsghdr { cmd, version, reserved: 0 };
        let len = size_of::<Nlmsghdr>() + size_of::<Genlmsghdr>() + self.0.len();
        let header = Nlmsghdr {
            nlmsg_len: u32::try_from(len).expect("attributes are bounded by 64 KiB each"),
            nlmsg_type: family,
            nlmsg_flags: NLM_F_REQUEST | NLM_F_ACK,
            nlmsg_seq: seq,
            nlmsg_pid: 0,
        };
        [header.as_bytes(), genl.as_bytes(), &self.0].concat()
    }
}

/// One message of those in a datagram.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Its header.
    pub header: Nlmsghdr,
    /// What follows the header.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The error number of an [`NLMSG_ERROR`], positive; 0 is an acknowledgement.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        let (code, _) = i32::read_from_prefix(self.body).ok()?;
        (self.header.nlmsg_type == NLMSG_ERROR).then(|| code.saturating_neg())
    }

    /// The command and attributes of a message of a generic family.
    #[must_use]
    pub fn generic(&self) -> Option<(Genlmsghdr, Attributes<'a>)> {
        let (header, rest) = Genlmsghdr::read_from_prefix(self.body).ok()?;
        Some((header, Attributes(rest)))
    }
}

/// The messages of a datagram; ends at the first that does not fit.
#[derive(Debug, Clone, Copy)]
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let (header, _) = Nlmsghdr::read_from_prefix(self.0).ok()?;
        let len = usize::try_from(header.nlmsg_len).ok()?;
        let body = self.0.get(size_of::<Nlmsghdr>()..len)?;
        self.0 = self.0.get(aligned(len)..).unwrap_or_default();
        Some(Message { header, body })
    }
}

/// The attributes of a message or of a nested attribute; ends at the first that does not fit.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, _) = Nlattr::read_from_prefix(self.0).ok()?;
        let len = usize::from(header.nla_len);
        let data = self.0.get(size_of::<Nlattr>()..len)?;
        self.0 = self.0.get(aligned(len)..).unwrap_or_default();
        Some((header.nla_type & NLA_TYPE_MASK, data))
    }
}

impl<'a> Attributes<'a> {
    /// The first attribute of a kind.
    #[must_use]
    pub fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(k, _)| *k == kind).map(|(_, data)| data)
    }

    /// The first of a kind as a number of 16 bits.
    #[must_use]
    pub fn u16(self, kind: u16) -> Option<u16> {
        Some(u16::from_ne_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// The first of a kind as a number of 32 bits.
    #[must_use]
    pub fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.get(kind)?.try_into().ok()?))
    }

    /// The attributes nested in the first of a kind.
    #[must_use]
    pub fn nested(self, kind: u16) -> Attributes<'a> {
        Attributes(self.get(kind).unwrap_or_default())
    }
}

/// A device as [`NBD_CMD_STATUS`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceStatus {
    /// N of `/dev/nbdN`.
    pub index: u32,
    /// Sockets are attached to it.
    pub connected: bool,
}

/// The devices in the answer to [`NBD_CMD_STATUS`].
#[must_use]
pub fn devices(attributes: Attributes<'_>) -> Vec<DeviceStatus> {
    let items =
        attributes.nested(NBD_ATTR_DEVICE_LIST).filter(|(kind, _)| *kind == NBD_DEVICE_ITEM);
    items
        .filter_map(|(_, item)| {
            let item = Attributes(item);
            let connected = item.get(NBD_DEVICE_CONNECTED)?.first()? != &0;
            Some(DeviceStatus { index: item.u32(NBD_DEVICE_INDEX)?, connected })
        })
        .collect()
}

/// The family's number and that of its multicast group, from the answer to [`CTRL_CMD_GETFAMILY`].
#[must_use]
pub fn family(attributes: Attributes<'_>) -> Option<(u16, Option<u32>)> {
    let mut groups = attributes.nested(CTRL_ATTR_MCAST_GROUPS);
    let name: &[u8] = &[GROUP.as_bytes(), b"\0"].concat();
    let group = groups.find_map(|(_, group)| {
        let group = Attributes(group);
        (group.get(CTRL_ATTR_MCAST_GRP_NAME)? == name).then(|| group.u32(CTRL_ATTR_MCAST_GRP_ID))?
    });
    Some((attributes.u16(CTRL_ATTR_FAMILY_ID)?, group))
}
