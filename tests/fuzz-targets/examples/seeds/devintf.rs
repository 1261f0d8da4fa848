// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls as a caller's memory holds them, and requests as the kernel sends them.

use fuzz_targets::{COMMANDS, devintf};
use kernel_abi::cuse::{CuseInitIn, InHeader, IoctlIn, OpenIn, PollIn, ReleaseIn};
use kernel_abi::ipmi_devintf::{
    CompatIpmiMsg, CompatIpmiRecv, CompatIpmiReq, CompatIpmiReqSettime, IpmiChannelLunAddressSet,
    IpmiCmdspec, IpmiCmdspecChans, IpmiMsg, IpmiRecv, IpmiReq, IpmiReqSettime, IpmiTimingParms,
    ioctl,
};
use zerocopy::IntoBytes;

use crate::seed;

/// Where the pieces of a call lie in the caller's memory, as `devintf` reads an input.
const ARG: u64 = 0x1000;
const ADDR: u64 = 0x1080;
const DATA: u64 = 0x1100;
/// Nothing is mapped here.
const NOWHERE: u64 = 0x10;

/// Bits of the first byte.
const NATIVE: u8 = 0;
const COMPAT: u8 = 1;
const HOSTILE: u8 = 2;

const BMC: [u8; 12] = [0x0c, 0, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0];
const IPMB: [u8; 12] = [0x01, 0, 0, 0, 0, 0, 0x82, 0, 0, 0, 0, 0];
const LAN: [u8; 12] = [0x04, 0, 0, 0, 1, 0, 4, 1, 0x81, 0x81, 0, 0];

/// A call with a structure, an address and data, while a message of 20 bytes waits.
fn call(mode: u8, command: u32, structure: &[u8], addr: &[u8]) -> Vec<u8> {
    let mut bytes = vec![mode];
    match COMMANDS.iter().position(|known| *known == command) {
        Some(index) => bytes.push(index as u8),
        None => {
            bytes.push(0xff);
            bytes.extend(command.to_le_bytes());
        }
    }
    bytes.extend(ARG.to_le_bytes());
    // Another thread of the caller makes its address longer and shorter in turn.
    bytes.extend([8, 0, 4]);
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(BMC);
    bytes.extend(77u64.to_le_bytes());
    bytes.extend([7, 1, 20, 0]);
    let mut memory = [0; 0x110];
    memory[..structure.len()].copy_from_slice(structure);
    memory[0x80..][..addr.len()].copy_from_slice(addr);
    memory[0x100..].copy_from_slice(&[7; 16]);
    bytes.extend(memory);
    bytes
}

fn msg(data: u64, data_len: u16) -> IpmiMsg {
    IpmiMsg { netfn: 6, cmd: 1, data_len, pad: 0, data }
}

fn req(addr_len: u32, msg: IpmiMsg) -> IpmiReq {
    IpmiReq { addr: ADDR, addr_len, pad: 0, msgid: -5, msg }
}

fn recv(addr_len: u32, data_len: u16) -> IpmiRecv {
    let msg = msg(DATA, data_len);
    IpmiRecv { recv_type: 0, pad0: 0, addr: ADDR, addr_len, pad1: 0, msgid: 0, msg }
}

pub fn write() {
    let seed =
        |name: &str, wanted: &str, bytes: Vec<u8>| seed(devintf, "devintf", name, wanted, &bytes);
    let send = |req: IpmiReq, addr: &[u8]| call(NATIVE, ioctl::SEND_COMMAND, req.as_bytes(), addr);
    seed("send", "send", send(req(8, msg(DATA, 3)), &BMC));
    seed("send-without-data", "send", send(req(8, msg(0, 300)), &BMC));
    seed("send-ipmb", "send", send(req(8, msg(DATA, 272)), &IPMB));
    seed("send-lan", "send", send(req(40, msg(DATA, 2)), &LAN));
    seed("send-long-address", "EINVAL", send(req(41, msg(DATA, 1)), &BMC));
    seed("send-short-address", "EINVAL", send(req(7, msg(DATA, 1)), &BMC));
    seed("send-too-long", "EMSGSIZE", send(req(8, msg(DATA, 273)), &BMC));
    seed("send-bad-pointer", "EFAULT", send(req(8, msg(NOWHERE, 4)), &BMC));
    let timed = IpmiReqSettime { req: req(8, msg(DATA, 3)), retries: 2, retry_time_ms: 500 };
    let bytes = call(NATIVE, ioctl::SEND_COMMAND_SETTIME, timed.as_bytes(), &IPMB);
    seed("send-settime", "send with timing", bytes);
    let mut disturbed = send(req(8, msg(DATA, 3)), &BMC);
    disturbed[0] = HOSTILE;
    seed("send-hostile", "unsettled", disturbed);

    let compat_msg = CompatIpmiMsg { netfn: 6, cmd: 1, data_len: 200, data: DATA as u32 };
    let small = CompatIpmiReq { addr: ADDR as u32, addr_len: 8, msgid: -9, msg: compat_msg };
    let bytes = call(COMPAT, ioctl::COMPAT_SEND_COMMAND, small.as_bytes(), &BMC);
    seed("compat-send", "send", bytes);
    let timed = CompatIpmiReqSettime { req: small, retries: -1, retry_time_ms: 0 };
    let bytes = call(COMPAT, ioctl::COMPAT_SEND_COMMAND_SETTIME, timed.as_bytes(), &BMC);
    seed("compat-send-settime", "send with timing", bytes.clone());
    seed("compat-send-of-64-bits", "ENOTTY", [&[NATIVE], &bytes[1..]].concat());

    let receive = |mode, cmd, recv: IpmiRecv| call(mode, cmd, recv.as_bytes(), &[]);
    let (whole, cut) = (ioctl::RECEIVE_MSG, ioctl::RECEIVE_MSG_TRUNC);
    seed("receive", "delivered", receive(NATIVE, whole, recv(40, 272)));
    seed("receive-no-room", "EMSGSIZE", receive(NATIVE, whole, recv(40, 19)));
    seed("receive-no-address", "EINVAL", receive(NATIVE, whole, recv(7, 272)));
    seed("receive-trunc", "delivered in part", receive(NATIVE, cut, recv(40, 4)));
    seed("receive-nothing", "delivered in part", receive(NATIVE, cut, recv(8, 0)));
    seed("receive-hostile", "unsettled", receive(HOSTILE, cut, recv(40, 272)));
    // The address is written before the room for the data is looked at.
    let nowhere = IpmiRecv { addr: NOWHERE, ..recv(40, 19) };
    seed("receive-no-room-nowhere", "EFAULT", receive(NATIVE, whole, nowhere));
    let nowhere = IpmiRecv { addr: NOWHERE, ..recv(40, 272) };
    seed("receive-bad-pointer", "EFAULT", receive(NATIVE, whole, nowhere));
    let small =
        CompatIpmiRecv { recv_type: 0, addr: ADDR as u32, addr_len: 40, msgid: 0, msg: compat_msg };
    let bytes = call(COMPAT, ioctl::COMPAT_RECEIVE_MSG, small.as_bytes(), &[]);
    seed("compat-receive", "delivered", bytes);
    let bytes = call(COMPAT, ioctl::COMPAT_RECEIVE_MSG_TRUNC, small.as_bytes(), &[]);
    seed("compat-receive-trunc", "delivered", bytes);

    scalar_seeds(&seed);
    request_seeds(&seed);
}

fn scalar_seeds(seed: &impl Fn(&str, &str, Vec<u8>)) {
    let set = IpmiChannelLunAddressSet { channel: 3, value: 0x24, pad: 9 };
    let spec = IpmiCmdspec { netfn: 6, cmd: 1 };
    let chans = IpmiCmdspecChans { netfn: 6, cmd: 1, chans: 3 };
    let timing = IpmiTimingParms { retries: 3, retry_time_ms: 250 };
    let one = 1u32.to_ne_bytes();
    let cases: [(&str, &str, u32, &[u8]); 17] = [
        ("register", "register", ioctl::REGISTER_FOR_CMD, spec.as_bytes()),
        ("unregister", "unregister", ioctl::UNREGISTER_FOR_CMD, spec.as_bytes()),
        ("register-chans", "register", ioctl::REGISTER_FOR_CMD_CHANS, chans.as_bytes()),
        ("unregister-chans", "unregister", ioctl::UNREGISTER_FOR_CMD_CHANS, chans.as_bytes()),
        ("set-events", "set events", ioctl::SET_GETS_EVENTS, &one),
        ("set-address", "set address", ioctl::SET_MY_ADDRESS, &one),
        ("get-address", "get address", ioctl::GET_MY_ADDRESS, &one),
        ("set-lun", "set LUN", ioctl::SET_MY_LUN, &one),
        ("get-lun", "get LUN", ioctl::GET_MY_LUN, &one),
        ("set-channel-address", "set address", ioctl::SET_MY_CHANNEL_ADDRESS, set.as_bytes()),
        ("get-channel-address", "get address", ioctl::GET_MY_CHANNEL_ADDRESS, set.as_bytes()),
        ("set-channel-lun", "set LUN", ioctl::SET_MY_CHANNEL_LUN, set.as_bytes()),
        ("get-channel-lun", "get LUN", ioctl::GET_MY_CHANNEL_LUN, set.as_bytes()),
        ("set-timing", "set timing", ioctl::SET_TIMING_PARMS, timing.as_bytes()),
        ("get-timing", "get timing", ioctl::GET_TIMING_PARMS, &[]),
        ("set-maintenance", "set maintenance", ioctl::SET_MAINTENANCE_MODE, &one),
        ("get-maintenance", "get maintenance", ioctl::GET_MAINTENANCE_MODE, &[]),
    ];
    for (name, wanted, cmd, structure) in cases {
        seed(name, wanted, call(NATIVE, cmd, structure, &[]));
    }
    seed("unknown", "ENOTTY", call(NATIVE, 0x5401, &[], &[]));
}

/// Requests as read from `/dev/cuse`.
fn request_seeds(seed: &impl Fn(&str, &str, Vec<u8>)) {
    let request = |opcode, body: &[u8]| {
        let header = InHeader {
            len: (size_of::<InHeader>() + body.len()) as u32,
            opcode,
            unique: 2,
            nodeid: 0,
            uid: 0,
            gid: 0,
            pid: 42,
            extlen_padding: 0,
        };
        [&[0xff], header.as_bytes(), body].concat()
    };
    let init = CuseInitIn { major: 7, minor: 38, unused: 0, flags: 1 };
    seed("request-init", "init", request(4096, &[init.as_bytes(), b"ipmi/1"].concat()));
    seed("request-init-nameless", "init refused", request(4096, init.as_bytes()));
    seed("request-open", "open", request(14, OpenIn { flags: 2, open_flags: 0 }.as_bytes()));
    let release = ReleaseIn { fh: 1, flags: 2, release_flags: 0, lock_owner: 0 };
    seed("request-release", "release", request(18, release.as_bytes()));
    seed(
        "request-poll",
        "poll",
        request(40, PollIn { fh: 1, kh: 1, flags: 1, events: 1 }.as_bytes()),
    );
    seed("request-interrupt", "interrupt", request(36, &1u64.to_ne_bytes()));
    seed("request-read", "other", request(15, &[0; 40]));
    let memory = recv(40, 272);
    let ioctl = IoctlIn {
        fh: 1,
        flags: 2,
        cmd: ioctl::RECEIVE_MSG_TRUNC,
        arg: ARG,
        in_size: size_of::<IpmiRecv>() as u32,
        out_size: 0,
    };
    let whole = request(39, &[ioctl.as_bytes(), memory.as_bytes()].concat());
    seed("request-ioctl", "ioctl", whole.clone());
    // As much memory as a delivery has, but no room for one.
    let memory = [recv(40, 4).as_bytes(), &BMC].concat();
    let roomless = IoctlIn { in_size: memory.len() as u32, ..ioctl };
    seed("request-no-room", "ioctl", request(39, &[roomless.as_bytes(), &memory].concat()));
    seed("request-cut", "malformed", whole[..whole.len() - 1].to_vec());
    let ioctl = IoctlIn { in_size: 9999, ..ioctl };
    seed("loose-ioctl", "loose", [&[0xfe], ioctl.as_bytes(), memory.as_bytes()].concat());
}
