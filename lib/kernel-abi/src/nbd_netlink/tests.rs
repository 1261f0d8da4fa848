// SPDX-License-Identifier: MIT OR Apache-2.0

use super::wire::*;
use super::*;
use zerocopy::IntoBytes;

/// RECONFIGURE of nbd3 with socket 9, as a Linux 6.1 kernel on a little-endian machine accepts it.
#[cfg(target_endian = "little")]
#[rustfmt::skip]
const RECONFIGURE: &[u8] = &[
    0x3c, 0, 0, 0, 0x1c, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, // nlmsghdr: 60 bytes, family 28, REQUEST|ACK
    3, 1, 0, 0, // RECONFIGURE, version 1
    8, 0, 1, 0, 3, 0, 0, 0, // INDEX
    0x10, 0, 7, 0x80, 0x0c, 0, 1, 0x80, 8, 0, 1, 0, 9, 0, 0, 0, // SOCKETS { ITEM { FD } }
    0x0f, 0, 0x0a, 0, b'm', b'i', b'd', b'p', b'l', b'a', b'n', b'e', b':', b'x', 0, 0, // BACKEND_IDENTIFIER
];

#[cfg(target_endian = "little")]
#[test]
fn a_request_is_what_the_kernel_takes() {
    let body = Body::default()
        .u32(NBD_ATTR_INDEX, 3)
        .sockets(&[9])
        .string(NBD_ATTR_BACKEND_IDENTIFIER, "midplane:x");
    assert_eq!(body.request(0x1c, 1, NBD_CMD_RECONFIGURE, VERSION), RECONFIGURE);
}

#[cfg(target_endian = "little")]
#[test]
fn what_was_made_is_read_back() {
    let message = Messages(RECONFIGURE).next().unwrap();
    let (header, attributes) = message.generic().unwrap();
    assert_eq!(header, Genlmsghdr { cmd: NBD_CMD_RECONFIGURE, version: 1, reserved: 0 });
    assert_eq!(attributes.u32(NBD_ATTR_INDEX), Some(3));
    let item = attributes.nested(NBD_ATTR_SOCKETS).nested(NBD_SOCK_ITEM);
    assert_eq!(item.u32(NBD_SOCK_FD), Some(9));
    assert_eq!(attributes.get(NBD_ATTR_BACKEND_IDENTIFIER), Some(&b"midplane:x\0"[..]));
    assert_eq!(attributes.u32(NBD_ATTR_BACKEND_IDENTIFIER), None, "not a number");
}

/// The answer to GETFAMILY of a Linux 6.1 kernel on a little-endian machine, without its netlink header.
#[cfg(target_endian = "little")]
#[rustfmt::skip]
const FAMILY_ANSWER: &[u8] = &[
    1, 2, 0, 0, // CTRL_CMD_NEWFAMILY, version 2
    8, 0, 2, 0, b'n', b'b', b'd', 0, // FAMILY_NAME
    6, 0, 1, 0, 0x20, 0, 0, 0, // FAMILY_ID and padding
    8, 0, 3, 0, 1, 0, 0, 0, // VERSION
    8, 0, 4, 0, 0, 0, 0, 0, // HDRSIZE
    8, 0, 5, 0, 10, 0, 0, 0, // MAXATTR
    0x54, 0, 6, 0, // OPS
    0x14, 0, 1, 0, 8, 0, 1, 0, 1, 0, 0, 0, 8, 0, 2, 0, 10, 0, 0, 0,
    0x14, 0, 2, 0, 8, 0, 1, 0, 2, 0, 0, 0, 8, 0, 2, 0, 10, 0, 0, 0,
    0x14, 0, 3, 0, 8, 0, 1, 0, 3, 0, 0, 0, 8, 0, 2, 0, 10, 0, 0, 0,
    0x14, 0, 4, 0, 8, 0, 1, 0, 5, 0, 0, 0, 8, 0, 2, 0, 10, 0, 0, 0,
    0x24, 0, 7, 0, 0x20, 0, 1, 0, // MCAST_GROUPS { group
    8, 0, 2, 0, 9, 0, 0, 0, // GRP_ID
    0x11, 0, 1, 0, b'n', b'b', b'd', b'_', b'm', b'c', b'_', b'g', b'r', b'o', b'u', b'p', 0, 0, 0, 0,
];

#[cfg(target_endian = "little")]
#[test]
fn a_kernel_tells_its_family() {
    let header = Nlmsghdr {
        nlmsg_len: 180,
        nlmsg_type: GENL_ID_CTRL,
        nlmsg_flags: 0,
        nlmsg_seq: 1,
        nlmsg_pid: 312,
    };
    let datagram = [header.as_bytes(), FAMILY_ANSWER].concat();
    assert_eq!(datagram.len(), 180);
    let (_, attributes) = Messages(&datagram).next().unwrap().generic().unwrap();
    assert_eq!(family(attributes), Some((0x20, Some(9))));
}

/// A nested attribute that is not marked as one, as the kernel's lists are.
fn list(kind: u16, items: &[Vec<u8>]) -> Vec<u8> {
    let data = items.concat();
    let mut out = u16::try_from(4 + data.len()).unwrap().to_ne_bytes().to_vec();
    out.extend(kind.to_ne_bytes());
    out.extend(data);
    out.resize(out.len().div_ceil(4) * 4, 0);
    out
}

#[test]
fn the_family_and_its_group_are_found() {
    let group = |name: &[u8], id: u32| {
        list(
            1,
            &[
                list(CTRL_ATTR_MCAST_GRP_ID, &[id.to_ne_bytes().to_vec()]),
                list(CTRL_ATTR_MCAST_GRP_NAME, &[name.to_vec()]),
            ],
        )
    };
    let id = list(CTRL_ATTR_FAMILY_ID, &[0x1c_u16.to_ne_bytes().to_vec()]);
    let groups = list(CTRL_ATTR_MCAST_GROUPS, &[group(b"other\0", 5), group(b"nbd_mc_group\0", 6)]);
    assert_eq!(family(Attributes(&[id.clone(), groups].concat())), Some((0x1c, Some(6))));
    assert_eq!(family(Attributes(&id)), Some((0x1c, None)));
    assert_eq!(family(Attributes(&[])), None);
}

#[test]
fn devices_are_listed() {
    let device = |index: u32, connected: u8| {
        list(
            NBD_DEVICE_ITEM,
            &[list(1, &[index.to_ne_bytes().to_vec()]), list(2, &[vec![connected]])],
        )
    };
    let bytes =
        list(NBD_ATTR_DEVICE_LIST, &[device(0, 0), device(7, 1), list(NBD_DEVICE_ITEM, &[])]);
    let expected =
        [(0, false), (7, true)].map(|(index, connected)| DeviceStatus { index, connected });
    assert_eq!(devices(Attributes(&bytes)), expected);
}

#[test]
fn a_dead_link_is_told_by_its_index() {
    let message =
        |family, cmd| Body::default().u32(NBD_ATTR_INDEX, 4).request(family, 0, cmd, VERSION);
    let both = [message(9, NBD_CMD_LINK_DEAD), message(0x1c, NBD_CMD_LINK_DEAD)].concat();
    assert_eq!(dead_link(0x1c, &both), Some(4));
    assert_eq!(dead_link(0x1c, &message(0x1c, NBD_CMD_STATUS)), None);
}

#[test]
fn an_error_says_which() {
    let header = [&36_u32.to_ne_bytes()[..], &NLMSG_ERROR.to_ne_bytes(), &[0; 10]].concat();
    let bytes = [&header[..], &(-16_i32).to_ne_bytes(), &[0; 16]].concat();
    let errno = Messages(&bytes).next().unwrap().errno().unwrap();
    assert!(
        matches!(refused("connect nbd1", errno), Err(NbdError::Busy { what }) if what == "connect nbd1")
    );
    assert!(refused("x", 0).is_ok());
    assert!(matches!(refused("x", 28), Err(NbdError::Refused { errno: Errno::ENOSPC, .. })));
}

#[test]
fn whatever_comes_is_read_without_harm() {
    // Lengths that are too small, too large, or end between two fields.
    for len in [0_u32, 3, 15, 17, 19, 20, 21, 23, 24, 1000, u32::MAX] {
        let mut bytes = [0xff; 64];
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        for end in 0..bytes.len() {
            for message in Messages(&bytes[..end]) {
                let _ = (
                    message.errno(),
                    message.generic().map(|(_, a)| (devices(a), family(a), a.count())),
                );
            }
            let attributes = Attributes(&bytes[..end]);
            let _ = (devices(attributes), family(attributes), attributes.count());
        }
    }
    let empty_forever = [4_u8, 0, 0, 0, 0, 0];
    assert!(Attributes(&empty_forever).count() < 3, "an attribute always takes bytes away");
}

#[test]
fn too_many_sockets_are_refused_before_they_are_sent() {
    let null = std::fs::File::open("/dev/null").unwrap();
    let sockets = vec![null.as_fd(); MAX_SOCKETS + 1];
    assert!(with_sockets(Body::default(), "x", &sockets, None).is_err());
    assert!(with_sockets(Body::default(), "x", &[], None).is_err());
    assert!(with_sockets(Body::default(), "x", &sockets[..1], Some("a\0b")).is_err());
    assert!(with_sockets(Body::default(), "x", &sockets[..1], Some("ab")).is_ok());
}
