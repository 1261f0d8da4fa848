// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ioctl interface of `/dev/ipmiN`, both sides of it: the numbers and layouts that a server of the
//! same interface must decode, and safe calls for a program that uses the kernel's node.
//!
//! Follows `linux/include/uapi/linux/ipmi.h` and `linux/drivers/char/ipmi/ipmi_devintf.c`. All integers
//! are in host byte order; pointers are kept as `u64`. The direction bits of the numbers are wrong in
//! the kernel's header (SEND is `_IOR` and reads from the caller) and are part of the interface now.

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use nix::errno::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `IPMI_MAX_MSG_LENGTH` (`linux/ipmi_msgdefs.h`): longest data of a message, bytes.
pub const IPMI_MAX_MSG_LENGTH: usize = 272;
/// `sizeof(struct ipmi_addr)`: longest address, bytes.
pub const IPMI_ADDR_LEN: usize = 40;
/// `IPMI_NUM_CHANNELS`.
pub const IPMI_NUM_CHANNELS: usize = 16;
/// `IPMI_BMC_CHANNEL`: the channel number of the system interface.
pub const IPMI_BMC_CHANNEL: i16 = 0xf;
/// `IPMI_CHAN_ALL`.
pub const IPMI_CHAN_ALL: u32 = !0;

/// `IPMI_SYSTEM_INTERFACE_ADDR_TYPE`.
pub const IPMI_SYSTEM_INTERFACE_ADDR_TYPE: i32 = 0x0c;
/// `IPMI_IPMB_ADDR_TYPE`.
pub const IPMI_IPMB_ADDR_TYPE: i32 = 0x01;
/// `IPMI_IPMB_BROADCAST_ADDR_TYPE`.
pub const IPMI_IPMB_BROADCAST_ADDR_TYPE: i32 = 0x41;
/// `IPMI_IPMB_DIRECT_ADDR_TYPE`.
pub const IPMI_IPMB_DIRECT_ADDR_TYPE: i32 = 0x81;
/// `IPMI_LAN_ADDR_TYPE`.
pub const IPMI_LAN_ADDR_TYPE: i32 = 0x04;

/// `IPMI_RESPONSE_RECV_TYPE`: the answer to a command; its data starts with the completion code.
pub const IPMI_RESPONSE_RECV_TYPE: i32 = 1;
/// `IPMI_ASYNC_EVENT_RECV_TYPE`: an event; no completion code.
pub const IPMI_ASYNC_EVENT_RECV_TYPE: i32 = 2;
/// `IPMI_CMD_RECV_TYPE`: a command from another controller; no completion code.
pub const IPMI_CMD_RECV_TYPE: i32 = 3;
/// `IPMI_RESPONSE_RESPONSE_TYPE`: how the sending of a response went.
pub const IPMI_RESPONSE_RESPONSE_TYPE: i32 = 4;
/// `IPMI_OEM_RECV_TYPE`.
pub const IPMI_OEM_RECV_TYPE: i32 = 5;

/// `IPMI_MAINTENANCE_MODE_AUTO`.
pub const IPMI_MAINTENANCE_MODE_AUTO: i32 = 0;
/// `IPMI_MAINTENANCE_MODE_OFF`.
pub const IPMI_MAINTENANCE_MODE_OFF: i32 = 1;
/// `IPMI_MAINTENANCE_MODE_ON`.
pub const IPMI_MAINTENANCE_MODE_ON: i32 = 2;

/// `struct ipmi_msg`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IpmiMsg {
    /// Network function.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
    /// Length of the data, bytes.
    pub data_len: u16,
    /// Padding.
    pub pad: u32,
    /// Where the data is.
    pub data: u64,
}

/// `struct ipmi_req`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IpmiReq {
    /// Where the address is.
    pub addr: u64,
    /// Length of the address, bytes.
    pub addr_len: u32,
    /// Padding.
    pub pad: u32,
    /// Given back in the answer; for a response, its sequence number.
    pub msgid: i64,
    /// The message.
    pub msg: IpmiMsg,
}

/// `struct ipmi_req_settime`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IpmiReqSettime {
    /// The request.
    pub req: IpmiReq,
    /// Retries of a bridged message, -1 for the driver's default.
    pub retries: i32,
    /// Time between them, milliseconds; 0 for the driver's default.
    pub retry_time_ms: u32,
}

/// `struct ipmi_recv`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IpmiRecv {
    /// What it is, `IPMI_*_RECV_TYPE`.
    pub recv_type: i32,
    /// Padding.
    pub pad0: u32,
    /// Where the address goes.
    pub addr: u64,
    /// Room for the address, then its length, bytes.
    pub addr_len: u32,
    /// Padding.
    pub pad1: u32,
    /// The message id of the request.
    pub msgid: i64,
    /// Where the data goes.
    pub msg: IpmiMsg,
}

/// `struct compat_ipmi_msg`: what a 32-bit caller passes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CompatIpmiMsg {
    /// Network function.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
    /// Length of the data, bytes.
    pub data_len: u16,
    /// Where the data is.
    pub data: u32,
}

/// `struct compat_ipmi_req`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CompatIpmiReq {
    /// Where the address is.
    pub addr: u32,
    /// Length of the address, bytes.
    pub addr_len: u32,
    /// Given back in the answer.
    pub msgid: i32,
    /// The message.
    pub msg: CompatIpmiMsg,
}

/// `struct compat_ipmi_req_settime`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CompatIpmiReqSettime {
    /// The request.
    pub req: CompatIpmiReq,
    /// Retries of a bridged message, -1 for the driver's default.
    pub retries: i32,
    /// Time between them, milliseconds; 0 for the driver's default.
    pub retry_time_ms: u32,
}

/// `struct compat_ipmi_recv`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct CompatIpmiRecv {
    /// What it is, `IPMI_*_RECV_TYPE`.
    pub recv_type: i32,
    /// Where the address goes.
    pub addr: u32,
    /// Room for the address, then its length, bytes.
    pub addr_len: u32,
    /// The message id of the request.
    pub msgid: i32,
    /// Where the data goes.
    pub msg: CompatIpmiMsg,
}

/// `struct ipmi_cmdspec`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IpmiCmdspec {
    /// Network function.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
}

/// `struct ipmi_cmdspec_chans`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IpmiCmdspecChans {
    /// Network function; the kernel looks at the low 8 bits.
    pub netfn: u32,
    /// Command; the kernel looks at the low 8 bits.
    pub cmd: u32,
    /// Channels, a bit each.
    pub chans: u32,
}

/// `struct ipmi_channel_lun_address_set`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IpmiChannelLunAddressSet {
    /// Channel number.
    pub channel: u16,
    /// Slave address or LUN.
    pub value: u8,
    /// Padding.
    pub pad: u8,
}

/// `struct ipmi_timing_parms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct IpmiTimingParms {
    /// Retries of a bridged message, -1 for the driver's default.
    pub retries: i32,
    /// Time between them, milliseconds; 0 for the driver's default.
    pub retry_time_ms: u32,
}

/// An interface of the driver in sysfs, by one of its open files.
#[derive(Debug)]
pub struct Interface {
    /// Its node, which goes first when the driver is unbound.
    node: PathBuf,
    /// Its link to the BMC, which goes when the driver has let go of all open files.
    bmc: PathBuf,
}

impl Interface {
    /// The one that a file is open at; none if the node is not the driver's own.
    pub fn of(fd: impl AsFd) -> Option<Self> {
        let device = nix::sys::stat::fstat(fd).ok()?.st_rdev;
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let node = PathBuf::from(format!("/sys/dev/char/{major}:{minor}"));
        let bmc = node.join("device").canonicalize().ok()?.join("bmc");
        Some(Self { node, bmc })
    }

    /// Whether the driver is at letting go of its open files, none of which may be closed meanwhile.
    ///
    /// `ipmi_unregister_smi` goes through them without holding them, up to Linux 6.15 at least. One that is closed then is
    /// freed under its hands: the kernel oopses, or the unbinding hangs. It is through in milliseconds, but for the command
    /// it may be at, and that waits for the BMC.
    pub fn is_going(&self) -> bool {
        !self.node.exists() && self.bmc.is_symlink()
    }
}

const IOC_WRITE: u32 = 1;
const IOC_READ: u32 = 2;

/// `_IOC(dir, 'i', nr, size)` as on amd64, arm64 and every other architecture that takes `asm-generic/ioctl.h`.
const fn ioc(dir: u32, nr: u32, size: usize) -> u32 {
    dir << 30 | (size as u32) << 16 | (b'i' as u32) << 8 | nr
}

/// The ioctl numbers, `IPMICTL_*`. Names as in `linux/ipmi.h`.
pub mod ioctl {
    #![allow(missing_docs, reason = "the names are the kernel's")]
    use super::*;

    pub const SEND_COMMAND: u32 = ioc(IOC_READ, 13, size_of::<IpmiReq>());
    pub const SEND_COMMAND_SETTIME: u32 = ioc(IOC_READ, 21, size_of::<IpmiReqSettime>());
    pub const RECEIVE_MSG: u32 = ioc(IOC_READ | IOC_WRITE, 12, size_of::<IpmiRecv>());
    pub const RECEIVE_MSG_TRUNC: u32 = ioc(IOC_READ | IOC_WRITE, 11, size_of::<IpmiRecv>());
    pub const REGISTER_FOR_CMD: u32 = ioc(IOC_READ, 14, size_of::<IpmiCmdspec>());
    pub const UNREGISTER_FOR_CMD: u32 = ioc(IOC_READ, 15, size_of::<IpmiCmdspec>());
    pub const REGISTER_FOR_CMD_CHANS: u32 = ioc(IOC_READ, 28, size_of::<IpmiCmdspecChans>());
    pub const UNREGISTER_FOR_CMD_CHANS: u32 = ioc(IOC_READ, 29, size_of::<IpmiCmdspecChans>());
    pub const SET_GETS_EVENTS: u32 = ioc(IOC_READ, 16, 4);
    pub const SET_MY_ADDRESS: u32 = ioc(IOC_READ, 17, 4);
    pub const GET_MY_ADDRESS: u32 = ioc(IOC_READ, 18, 4);
    pub const SET_MY_LUN: u32 = ioc(IOC_READ, 19, 4);
    pub const GET_MY_LUN: u32 = ioc(IOC_READ, 20, 4);
    pub const SET_TIMING_PARMS: u32 = ioc(IOC_READ, 22, size_of::<IpmiTimingParms>());
    pub const GET_TIMING_PARMS: u32 = ioc(IOC_READ, 23, size_of::<IpmiTimingParms>());
    pub const SET_MY_CHANNEL_ADDRESS: u32 =
        ioc(IOC_READ, 24, size_of::<IpmiChannelLunAddressSet>());
    pub const GET_MY_CHANNEL_ADDRESS: u32 =
        ioc(IOC_READ, 25, size_of::<IpmiChannelLunAddressSet>());
    pub const SET_MY_CHANNEL_LUN: u32 = ioc(IOC_READ, 26, size_of::<IpmiChannelLunAddressSet>());
    pub const GET_MY_CHANNEL_LUN: u32 = ioc(IOC_READ, 27, size_of::<IpmiChannelLunAddressSet>());
    pub const GET_MAINTENANCE_MODE: u32 = ioc(IOC_READ, 30, 4);
    pub const SET_MAINTENANCE_MODE: u32 = ioc(IOC_WRITE, 31, 4);

    pub const COMPAT_SEND_COMMAND: u32 = ioc(IOC_READ, 13, size_of::<CompatIpmiReq>());
    pub const COMPAT_SEND_COMMAND_SETTIME: u32 =
        ioc(IOC_READ, 21, size_of::<CompatIpmiReqSettime>());
    pub const COMPAT_RECEIVE_MSG: u32 = ioc(IOC_READ | IOC_WRITE, 12, size_of::<CompatIpmiRecv>());
    pub const COMPAT_RECEIVE_MSG_TRUNC: u32 =
        ioc(IOC_READ | IOC_WRITE, 11, size_of::<CompatIpmiRecv>());
}

// The kernel's own numbers on a 64-bit machine, as seen on the wire.
const _: () = assert!(ioctl::SEND_COMMAND == 0x8028_690d);
const _: () = assert!(ioctl::SEND_COMMAND_SETTIME == 0x8030_6915);
const _: () = assert!(ioctl::RECEIVE_MSG_TRUNC == 0xc030_690b);
const _: () = assert!(ioctl::COMPAT_SEND_COMMAND == 0x8014_690d);
const _: () = assert!(ioctl::COMPAT_RECEIVE_MSG_TRUNC == 0xc018_690b);

fn call(fd: impl AsFd, request: u32, arg: *mut libc::c_void) -> Result<(), Errno> {
    // SAFETY: every caller below passes a pointer to a live, initialised value of the layout that
    // `request` takes (checked against the kernel header in tests/headers.rs), whose inner pointers
    // and lengths describe live buffers. The kernel keeps none of them after the call.
    let rc = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::c_ulong::from(request), arg) };
    Errno::result(rc).map(drop)
}

/// A message for [`send`].
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// `struct ipmi_addr` and its kin, at most [`IPMI_ADDR_LEN`] bytes.
    pub addr: &'a [u8],
    /// Comes back with the answer.
    pub msgid: i64,
    /// Network function.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
    /// At most [`IPMI_MAX_MSG_LENGTH`] bytes.
    pub data: &'a [u8],
    /// Retries of a bridged message.
    pub timing: IpmiTimingParms,
}

/// `IPMICTL_SEND_COMMAND_SETTIME`: hands a message to the driver; it never waits for the BMC.
///
/// # Errors
/// The driver's: `EBUSY` with 100 messages of this file unanswered, `EAGAIN` with all IPMB sequence
/// numbers in use, `EINVAL` for an address it cannot reach, `EMSGSIZE`, `ENODEV` once the BMC is gone.
pub fn send(fd: impl AsFd, message: Outgoing<'_>) -> Result<(), Errno> {
    let addr_len = u32::try_from(message.addr.len()).map_err(|_| Errno::EINVAL)?;
    let data_len = u16::try_from(message.data.len()).map_err(|_| Errno::EMSGSIZE)?;
    let mut req = IpmiReqSettime {
        req: IpmiReq {
            addr: message.addr.as_ptr() as u64,
            addr_len,
            pad: 0,
            msgid: message.msgid,
            msg: IpmiMsg {
                netfn: message.netfn,
                cmd: message.cmd,
                data_len,
                pad: 0,
                data: message.data.as_ptr() as u64,
            },
        },
        retries: message.timing.retries,
        retry_time_ms: message.timing.retry_time_ms,
    };
    call(fd, ioctl::SEND_COMMAND_SETTIME, (&raw mut req).cast())
}

/// What [`receive`] took from the driver's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// `IPMI_*_RECV_TYPE`.
    pub recv_type: i32,
    /// The address it came from.
    pub addr: Vec<u8>,
    /// The message id of the request, or the sequence number of a command.
    pub msgid: i64,
    /// Network function.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
    /// At most [`IPMI_MAX_MSG_LENGTH`] bytes; a longer message is cut off there.
    pub data: Vec<u8>,
}

/// `IPMICTL_RECEIVE_MSG_TRUNC`: takes the next message; it never waits.
///
/// # Errors
/// `EAGAIN` where there is none, `ENODEV` once the BMC is gone.
pub fn receive(fd: impl AsFd) -> Result<Incoming, Errno> {
    let mut addr = [0u8; IPMI_ADDR_LEN];
    let mut data = [0u8; IPMI_MAX_MSG_LENGTH];
    let mut recv = IpmiRecv {
        recv_type: 0,
        pad0: 0,
        addr: addr.as_mut_ptr() as u64,
        addr_len: IPMI_ADDR_LEN as u32,
        pad1: 0,
        msgid: 0,
        msg: IpmiMsg {
            netfn: 0,
            cmd: 0,
            data_len: IPMI_MAX_MSG_LENGTH as u16,
            pad: 0,
            data: data.as_mut_ptr() as u64,
        },
    };
    match call(fd, ioctl::RECEIVE_MSG_TRUNC, (&raw mut recv).cast()) {
        // Cut off at our buffer, which is the longest message there is: the message is still whole enough to deliver.
        Ok(()) | Err(Errno::EMSGSIZE) => {}
        Err(errno) => return Err(errno),
    }
    let addr_len = (recv.addr_len as usize).min(addr.len());
    let data_len = usize::from(recv.msg.data_len).min(data.len());
    Ok(Incoming {
        recv_type: recv.recv_type,
        addr: addr[..addr_len].to_vec(),
        msgid: recv.msgid,
        netfn: recv.msg.netfn,
        cmd: recv.msg.cmd,
        data: data[..data_len].to_vec(),
    })
}

/// `IPMICTL_SET_GETS_EVENTS_CMD`: whether this file receives events.
///
/// # Errors
/// `ENODEV` once the BMC is gone.
pub fn set_gets_events(fd: impl AsFd, on: bool) -> Result<(), Errno> {
    let mut value = i32::from(on);
    call(fd, ioctl::SET_GETS_EVENTS, (&raw mut value).cast())
}

/// `IPMICTL_REGISTER_FOR_CMD_CHANS`: this file receives that command from the given channels.
///
/// # Errors
/// `EBUSY` where another user of the interface has it.
pub fn register_for_cmd(fd: impl AsFd, mut spec: IpmiCmdspecChans) -> Result<(), Errno> {
    call(fd, ioctl::REGISTER_FOR_CMD_CHANS, (&raw mut spec).cast())
}

/// `IPMICTL_UNREGISTER_FOR_CMD_CHANS`.
///
/// # Errors
/// `ENOENT` where this file has no such registration.
pub fn unregister_for_cmd(fd: impl AsFd, mut spec: IpmiCmdspecChans) -> Result<(), Errno> {
    call(fd, ioctl::UNREGISTER_FOR_CMD_CHANS, (&raw mut spec).cast())
}

/// `IPMICTL_GET_MY_CHANNEL_ADDRESS_CMD`: our slave address (8-bit form) on a channel. One per
/// interface, not per file, in kernels as of 6.1.
///
/// # Errors
/// `EINVAL` for a channel over 15.
pub fn my_address(fd: impl AsFd, channel: u16) -> Result<u8, Errno> {
    let mut set = IpmiChannelLunAddressSet { channel, value: 0, pad: 0 };
    call(fd, ioctl::GET_MY_CHANNEL_ADDRESS, (&raw mut set).cast())?;
    Ok(set.value)
}

/// `IPMICTL_GET_MY_CHANNEL_LUN_CMD`: our LUN on a channel. One per interface, as the address.
///
/// # Errors
/// `EINVAL` for a channel over 15.
pub fn my_lun(fd: impl AsFd, channel: u16) -> Result<u8, Errno> {
    let mut set = IpmiChannelLunAddressSet { channel, value: 0, pad: 0 };
    call(fd, ioctl::GET_MY_CHANNEL_LUN, (&raw mut set).cast())?;
    Ok(set.value)
}

/// `IPMICTL_SET_MY_CHANNEL_ADDRESS_CMD`. Changes it for every user of the interface.
///
/// # Errors
/// `EINVAL` for a channel over 15.
pub fn set_my_address(fd: impl AsFd, channel: u16, value: u8) -> Result<(), Errno> {
    let mut set = IpmiChannelLunAddressSet { channel, value, pad: 0 };
    call(fd, ioctl::SET_MY_CHANNEL_ADDRESS, (&raw mut set).cast())
}

/// `IPMICTL_SET_MY_CHANNEL_LUN_CMD`. Changes it for every user of the interface.
///
/// # Errors
/// `EINVAL` for a channel over 15.
pub fn set_my_lun(fd: impl AsFd, channel: u16, value: u8) -> Result<(), Errno> {
    let mut set = IpmiChannelLunAddressSet { channel, value, pad: 0 };
    call(fd, ioctl::SET_MY_CHANNEL_LUN, (&raw mut set).cast())
}

/// `IPMICTL_GET_MAINTENANCE_MODE_CMD`.
///
/// # Errors
/// `ENODEV` once the BMC is gone.
pub fn maintenance_mode(fd: impl AsFd) -> Result<i32, Errno> {
    let mut mode = 0i32;
    call(fd, ioctl::GET_MAINTENANCE_MODE, (&raw mut mode).cast())?;
    Ok(mode)
}

/// `IPMICTL_SET_MAINTENANCE_MODE_CMD`. Changes it for every user of the interface.
///
/// # Errors
/// `EINVAL` for a mode that is none.
pub fn set_maintenance_mode(fd: impl AsFd, mut mode: i32) -> Result<(), Errno> {
    call(fd, ioctl::SET_MAINTENANCE_MODE, (&raw mut mode).cast())
}
