// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ioctls of `/dev/ipmiN` as a CUSE server sees them: bytes in, calls out.
//!
//! An ioctl with pointers arrives several times. First without any user memory; we name what we want
//! to see ([`Step::Fetch`]) and the kernel asks again with it. [`decode`] says each time what is next. It
//! keeps nothing between the rounds, since the caller may change its memory in between: what no longer
//! fits is asked for again.
//!
//! Each check stands in the order of `ipmi_devintf.c`, so that a wrong call fails with the errno that
//! the kernel's driver gives. Callers of 32 bits have numbers and layouts of their own.

use kernel_abi::cuse::{FUSE_IOCTL_COMPAT, IoctlIn, IoctlIovec};
use kernel_abi::ipmi_devintf::{
    CompatIpmiMsg, CompatIpmiRecv, CompatIpmiReq, CompatIpmiReqSettime, IPMI_ADDR_LEN,
    IPMI_CHAN_ALL, IPMI_MAX_MSG_LENGTH, IpmiChannelLunAddressSet, IpmiCmdspec, IpmiCmdspecChans,
    IpmiMsg, IpmiRecv, IpmiReq, IpmiReqSettime, IpmiTimingParms, ioctl,
};
use nix::errno::Errno;
use zerocopy::{FromBytes, IntoBytes};

use crate::addr::Addr;
use crate::extension::{self, Sequence};

/// What to do with an ioctl request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask again with this memory of the caller copied in, and with room to write to `output`.
    Fetch {
        /// What to copy in.
        input: Vec<IoctlIovec>,
        /// Where the result will go.
        output: Vec<IoctlIovec>,
    },
    /// The call fails.
    Fail(Errno),
    /// The call is whole.
    Call(Call),
}

/// A whole ioctl.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `SEND_COMMAND`, `SEND_COMMAND_SETTIME`.
    Send(Send),
    /// `RECEIVE_MSG`, `RECEIVE_MSG_TRUNC`.
    Receive(Receive),
    /// `REGISTER_FOR_CMD`, with or without channels.
    Register(CommandSpec),
    /// `UNREGISTER_FOR_CMD`, with or without channels.
    Unregister(CommandSpec),
    /// `SET_GETS_EVENTS_CMD`.
    SetGetsEvents(bool),
    /// `SET_MY_ADDRESS`, `SET_MY_CHANNEL_ADDRESS`; a channel the BMC cannot have is still in here.
    SetMyAddress(u16, u8),
    /// `GET_MY_ADDRESS`, `GET_MY_CHANNEL_ADDRESS`.
    GetMyAddress(u16, Shape),
    /// `SET_MY_LUN`, `SET_MY_CHANNEL_LUN`.
    SetMyLun(u16, u8),
    /// `GET_MY_LUN`, `GET_MY_CHANNEL_LUN`.
    GetMyLun(u16, Shape),
    /// `SET_TIMING_PARMS`.
    SetTiming(IpmiTimingParms),
    /// `GET_TIMING_PARMS`: answer with [`IpmiTimingParms`].
    GetTiming,
    /// `SET_MAINTENANCE_MODE`.
    SetMaintenanceMode(i32),
    /// `GET_MAINTENANCE_MODE`: answer with an `i32`.
    GetMaintenanceMode,
    /// `IPMI_MUX_RESERVE_COMMAND`: network function and command.
    ReserveCommand(u8, u8),
    /// `IPMI_MUX_RELEASE_COMMAND`.
    ReleaseCommand(u8, u8),
    /// `IPMI_MUX_RESERVE_SEQUENCE`: how many; answer with [`Sequence`].
    ReserveSequence(u32),
    /// `IPMI_MUX_RELEASE_SEQUENCE`: the first number.
    ReleaseSequence(i32),
    /// `IPMI_MUX_ATTACH`: the token; answer with [`Sequence`].
    Attach([u8; 16]),
}

/// How a value is given back: alone (legacy) or in the structure it was asked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// An `unsigned int`.
    Legacy,
    /// A `struct ipmi_channel_lun_address_set` with this last byte.
    Channel(u8),
}

impl Shape {
    /// The bytes that go back to the caller.
    #[must_use]
    pub fn encode(self, channel: u16, value: u8) -> Vec<u8> {
        match self {
            Self::Legacy => u32::from(value).to_ne_bytes().to_vec(),
            Self::Channel(pad) => {
                IpmiChannelLunAddressSet { channel, value, pad }.as_bytes().to_vec()
            }
        }
    }
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    /// Where to.
    pub addr: Addr,
    /// Comes back with the answer.
    pub msgid: i64,
    /// Network function, any byte.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
    /// At most [`IPMI_MAX_MSG_LENGTH`] bytes.
    pub data: Vec<u8>,
    /// Retries of a bridged message; `None` for the handle's own.
    pub timing: Option<IpmiTimingParms>,
}

/// Which commands of other controllers a handle wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandSpec {
    /// Network function.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
    /// Channels, a bit each.
    pub chans: u32,
}

/// A wish to receive: where the caller wants what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receive {
    /// `RECEIVE_MSG_TRUNC`: cut a message that does not fit, instead of keeping it.
    pub truncate: bool,
    compat: bool,
    arg: u64,
    addr: u64,
    addr_len: u32,
    data: u64,
    data_len: u16,
    in_size: u32,
    out_size: u32,
}

/// A message for a caller, `struct ipmi_recv` with its address and data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `IPMI_*_RECV_TYPE`.
    pub recv_type: i32,
    /// Where it came from.
    pub addr: Addr,
    /// The message id of the request it answers.
    pub msgid: i64,
    /// Network function.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
    /// At most [`IPMI_MAX_MSG_LENGTH`] bytes; starts with the completion code where it is an answer.
    pub data: Vec<u8>,
}

/// How a [`Receive`] ends for the message at the head of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Ask again with this memory.
    Fetch {
        /// What to copy in.
        input: Vec<IoctlIovec>,
        /// Where the result will go.
        output: Vec<IoctlIovec>,
    },
    /// The call fails and the message stays.
    Fail(Errno),
    /// The message is taken; these bytes go to the caller and the call ends so.
    Deliver(Result<i32, Errno>, Vec<u8>),
}

impl Receive {
    /// Lays out `message` for this caller; checks in the order of `handle_recv`.
    #[must_use]
    pub fn deliver(&self, message: &Message) -> Delivery {
        let addr = message.addr.as_bytes();
        if (self.addr_len as usize) < addr.len() {
            return Delivery::Fail(Errno::EINVAL);
        }
        let room = usize::from(self.data_len);
        let fits = message.data.len() <= room;
        let data = &message.data[..message.data.len().min(room)];
        let header = self.header(message, addr.len(), data.len());
        // All that will be written is copied in first, so that a bad pointer is found before the message
        // is taken. The driver writes the address before it looks at the room for the data.
        let mut places = vec![iovec(self.arg, header.len()), iovec(self.addr, addr.len())];
        if !fits && !self.truncate {
            if self.in_size as usize == header.len() + addr.len() {
                return Delivery::Fail(Errno::EMSGSIZE);
            }
            return Delivery::Fetch { input: places.clone(), output: places };
        }
        if !data.is_empty() {
            places.push(iovec(self.data, data.len()));
        }
        let total = header.len() + addr.len() + data.len();
        if self.in_size as usize != total || self.out_size as usize != total {
            return Delivery::Fetch { input: places.clone(), output: places };
        }
        let result = if fits { Ok(0) } else { Err(Errno::EMSGSIZE) };
        Delivery::Deliver(result, [&header, addr, data].concat())
    }

    fn header(&self, message: &Message, addr_len: usize, data_len: usize) -> Vec<u8> {
        let (netfn, cmd) = (message.netfn, message.cmd);
        // Both lengths are bounded by an address and a message.
        let (addr_len, data_len) = (addr_len as u32, data_len as u16);
        if self.compat {
            let msg = CompatIpmiMsg { netfn, cmd, data_len, data: self.data as u32 };
            CompatIpmiRecv {
                recv_type: message.recv_type,
                addr: self.addr as u32,
                addr_len,
                // As the kernel does it: a 32-bit caller gave 32 bits.
                msgid: message.msgid as i32,
                msg,
            }
            .as_bytes()
            .to_vec()
        } else {
            let msg = IpmiMsg { netfn, cmd, data_len, pad: 0, data: self.data };
            IpmiRecv {
                recv_type: message.recv_type,
                pad0: 0,
                addr: self.addr,
                addr_len,
                pad1: 0,
                msgid: message.msgid,
                msg,
            }
            .as_bytes()
            .to_vec()
        }
    }
}

const fn iovec(base: u64, len: usize) -> IoctlIovec {
    IoctlIovec { base, len: len as u64 }
}

/// Says what is next for an ioctl that came with `data` of the caller's memory.
#[must_use]
pub fn decode(request: &IoctlIn, data: &[u8]) -> Step {
    let compat = request.flags & FUSE_IOCTL_COMPAT != 0;
    decode_whole(request, data, compat).unwrap_or_else(|step| step)
}

/// `Err` is a step that ends the decoding early; it reads well with `?`.
fn decode_whole(request: &IoctlIn, data: &[u8], compat: bool) -> Result<Step, Step> {
    let call = match (request.cmd, compat) {
        (ioctl::SEND_COMMAND, _) => {
            let req: IpmiReq = argument(request, data)?;
            return Ok(send(request, data, size_of::<IpmiReq>(), req, None));
        }
        (ioctl::SEND_COMMAND_SETTIME, _) => {
            let r: IpmiReqSettime = argument(request, data)?;
            let timing = IpmiTimingParms { retries: r.retries, retry_time_ms: r.retry_time_ms };
            return Ok(send(request, data, size_of::<IpmiReqSettime>(), r.req, Some(timing)));
        }
        (ioctl::COMPAT_SEND_COMMAND, true) => {
            let req: CompatIpmiReq = argument(request, data)?;
            return Ok(send(request, data, size_of::<CompatIpmiReq>(), widen(req), None));
        }
        (ioctl::COMPAT_SEND_COMMAND_SETTIME, true) => {
            let r: CompatIpmiReqSettime = argument(request, data)?;
            let timing = IpmiTimingParms { retries: r.retries, retry_time_ms: r.retry_time_ms };
            let size = size_of::<CompatIpmiReqSettime>();
            return Ok(send(request, data, size, widen(r.req), Some(timing)));
        }
        (ioctl::RECEIVE_MSG | ioctl::RECEIVE_MSG_TRUNC, _) => {
            let r: IpmiRecv = argument(request, data)?;
            let truncate = request.cmd == ioctl::RECEIVE_MSG_TRUNC;
            receive(request, truncate, false, (r.addr, r.addr_len), (r.msg.data, r.msg.data_len))
        }
        (ioctl::COMPAT_RECEIVE_MSG | ioctl::COMPAT_RECEIVE_MSG_TRUNC, true) => {
            let r: CompatIpmiRecv = argument(request, data)?;
            let truncate = request.cmd == ioctl::COMPAT_RECEIVE_MSG_TRUNC;
            let to = (r.msg.data.into(), r.msg.data_len);
            receive(request, truncate, true, (r.addr.into(), r.addr_len), to)
        }
        (cmd, _) => scalar(cmd, request, data)?,
    };
    Ok(Step::Call(call))
}

/// The ioctls whose argument holds no pointer; they are the same for callers of 32 bits.
fn scalar(cmd: u32, request: &IoctlIn, data: &[u8]) -> Result<Call, Step> {
    Ok(match cmd {
        ioctl::REGISTER_FOR_CMD => Call::Register(all_channels(argument(request, data)?)),
        ioctl::UNREGISTER_FOR_CMD => Call::Unregister(all_channels(argument(request, data)?)),
        ioctl::REGISTER_FOR_CMD_CHANS => Call::Register(some_channels(argument(request, data)?)),
        ioctl::UNREGISTER_FOR_CMD_CHANS => {
            Call::Unregister(some_channels(argument(request, data)?))
        }
        ioctl::SET_GETS_EVENTS => Call::SetGetsEvents(argument::<i32>(request, data)? != 0),
        // The legacy calls take an unsigned int, of which the driver looks at the low 8 bits.
        ioctl::SET_MY_ADDRESS => Call::SetMyAddress(0, argument::<u32>(request, data)? as u8),
        ioctl::SET_MY_LUN => Call::SetMyLun(0, argument::<u32>(request, data)? as u8),
        ioctl::SET_MY_CHANNEL_ADDRESS => {
            let set: IpmiChannelLunAddressSet = argument(request, data)?;
            Call::SetMyAddress(set.channel, set.value)
        }
        ioctl::SET_MY_CHANNEL_LUN => {
            let set: IpmiChannelLunAddressSet = argument(request, data)?;
            Call::SetMyLun(set.channel, set.value)
        }
        ioctl::GET_MY_ADDRESS => {
            result_only(request, 4)?;
            Call::GetMyAddress(0, Shape::Legacy)
        }
        ioctl::GET_MY_LUN => {
            result_only(request, 4)?;
            Call::GetMyLun(0, Shape::Legacy)
        }
        ioctl::GET_MY_CHANNEL_ADDRESS => {
            let set: IpmiChannelLunAddressSet = argument_and_result(request, data)?;
            Call::GetMyAddress(set.channel, Shape::Channel(set.pad))
        }
        ioctl::GET_MY_CHANNEL_LUN => {
            let set: IpmiChannelLunAddressSet = argument_and_result(request, data)?;
            Call::GetMyLun(set.channel, Shape::Channel(set.pad))
        }
        ioctl::SET_TIMING_PARMS => Call::SetTiming(argument(request, data)?),
        ioctl::GET_TIMING_PARMS => {
            result_only(request, size_of::<IpmiTimingParms>())?;
            Call::GetTiming
        }
        ioctl::SET_MAINTENANCE_MODE => Call::SetMaintenanceMode(argument(request, data)?),
        ioctl::GET_MAINTENANCE_MODE => {
            result_only(request, 4)?;
            Call::GetMaintenanceMode
        }
        _ => extended(cmd, request, data)?,
    })
}

/// Ours, which the kernel's driver does not have.
fn extended(cmd: u32, request: &IoctlIn, data: &[u8]) -> Result<Call, Step> {
    Ok(match cmd {
        extension::ioctl::RESERVE_COMMAND => {
            let spec: IpmiCmdspec = argument(request, data)?;
            Call::ReserveCommand(spec.netfn, spec.cmd)
        }
        extension::ioctl::RELEASE_COMMAND => {
            let spec: IpmiCmdspec = argument(request, data)?;
            Call::ReleaseCommand(spec.netfn, spec.cmd)
        }
        extension::ioctl::RESERVE_SEQUENCE => {
            let sequence: Sequence = argument_and_result(request, data)?;
            Call::ReserveSequence(sequence.count)
        }
        extension::ioctl::RELEASE_SEQUENCE => {
            let sequence: Sequence = argument(request, data)?;
            Call::ReleaseSequence(sequence.first)
        }
        extension::ioctl::ATTACH => {
            let sequence: Sequence = argument_and_result(request, data)?;
            Call::Attach(sequence.token)
        }
        _ => return Err(Step::Fail(Errno::ENOTTY)),
    })
}

/// The structure the ioctl's argument points to, once it came along.
fn argument<T: FromBytes>(request: &IoctlIn, data: &[u8]) -> Result<T, Step> {
    match T::read_from_prefix(data) {
        Ok((value, _)) => Ok(value),
        Err(_) => {
            Err(Step::Fetch { input: vec![iovec(request.arg, size_of::<T>())], output: vec![] })
        }
    }
}

/// As [`argument`], for a call that also writes the structure back.
fn argument_and_result<T: FromBytes>(request: &IoctlIn, data: &[u8]) -> Result<T, Step> {
    let place = vec![iovec(request.arg, size_of::<T>())];
    let fetch = || Step::Fetch { input: place.clone(), output: place.clone() };
    result_only(request, size_of::<T>()).map_err(|_| fetch())?;
    T::read_from_prefix(data).map(|(value, _)| value).map_err(|_| fetch())
}

/// Makes sure that the result has its place in the caller's memory.
fn result_only(request: &IoctlIn, len: usize) -> Result<(), Step> {
    if request.out_size as usize == len {
        return Ok(());
    }
    Err(Step::Fetch { input: vec![], output: vec![iovec(request.arg, len)] })
}

fn all_channels(spec: IpmiCmdspec) -> CommandSpec {
    CommandSpec { netfn: spec.netfn, cmd: spec.cmd, chans: IPMI_CHAN_ALL }
}

fn some_channels(spec: IpmiCmdspecChans) -> CommandSpec {
    // The driver's own function takes unsigned chars: the rest of the integers is lost there too.
    CommandSpec { netfn: spec.netfn as u8, cmd: spec.cmd as u8, chans: spec.chans }
}

fn widen(req: CompatIpmiReq) -> IpmiReq {
    IpmiReq {
        addr: req.addr.into(),
        addr_len: req.addr_len,
        pad: 0,
        msgid: req.msgid.into(),
        msg: IpmiMsg {
            netfn: req.msg.netfn,
            cmd: req.msg.cmd,
            data_len: req.msg.data_len,
            pad: 0,
            data: req.msg.data.into(),
        },
    }
}

/// `handle_send_req`: `size` bytes of `data` were the request; address and message data may follow.
fn send(
    request: &IoctlIn,
    data: &[u8],
    size: usize,
    req: IpmiReq,
    timing: Option<IpmiTimingParms>,
) -> Step {
    let addr_len = req.addr_len as usize;
    if addr_len > IPMI_ADDR_LEN || addr_len == 0 {
        return Step::Fail(Errno::EINVAL);
    }
    // A null pointer means no data, whatever the length says.
    let data_len = if req.msg.data == 0 { 0 } else { usize::from(req.msg.data_len) };
    let too_long = data_len > IPMI_MAX_MSG_LENGTH;
    // The address is judged before the length of the data: it is all we need of a message that is too long.
    let fetched = if too_long { 0 } else { data_len };
    if data.len() != size + addr_len + fetched {
        let mut input = vec![iovec(request.arg, size), iovec(req.addr, addr_len)];
        if fetched > 0 {
            input.push(iovec(req.msg.data, fetched));
        }
        return Step::Fetch { input, output: vec![] };
    }
    let (addr, payload) = data[size..].split_at(addr_len);
    match Addr::parse(addr) {
        Err(errno) => Step::Fail(errno),
        Ok(_) if too_long => Step::Fail(Errno::EMSGSIZE),
        Ok(addr) => Step::Call(Call::Send(Send {
            addr,
            msgid: req.msgid,
            netfn: req.msg.netfn,
            cmd: req.msg.cmd,
            data: payload.to_vec(),
            timing,
        })),
    }
}

fn receive(
    request: &IoctlIn,
    truncate: bool,
    compat: bool,
    (addr, addr_len): (u64, u32),
    (data, data_len): (u64, u16),
) -> Call {
    Call::Receive(Receive {
        truncate,
        compat,
        arg: request.arg,
        addr,
        addr_len,
        data,
        data_len,
        in_size: request.in_size,
        out_size: request.out_size,
    })
}

#[cfg(test)]
mod tests;
