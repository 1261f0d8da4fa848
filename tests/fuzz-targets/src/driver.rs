// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an ioctl comes to, looked up in the caller's memory at once and without any rounds:
//! `ipmi_devintf.c` in short, for comparison.
//!
//! In one thing it follows our decoder and not the driver: the pointers of a SEND are looked at
//! together. Where the one to the data is bad and the address is wrong as well, it fails with `EFAULT`.

use ipmi_mux::addr::Addr;
use ipmi_mux::devintf::{Call, CommandSpec, Message, Send, Shape};
use kernel_abi::ipmi_devintf::{
    CompatIpmiMsg, CompatIpmiRecv, CompatIpmiReq, CompatIpmiReqSettime, IPMI_ADDR_LEN,
    IPMI_CHAN_ALL, IPMI_MAX_MSG_LENGTH, IpmiChannelLunAddressSet, IpmiCmdspec, IpmiCmdspecChans,
    IpmiMsg, IpmiRecv, IpmiReq, IpmiReqSettime, IpmiTimingParms, ioctl,
};
use nix::errno::Errno;
use zerocopy::IntoBytes;

use crate::devintf::{Caller, End, Plan};

/// How the call of `plan` ends for a caller that holds still.
pub fn driver(caller: &Caller, plan: &Plan) -> End {
    let end = match (plan.cmd, plan.compat) {
        (ioctl::SEND_COMMAND, _) => caller.get(plan.arg).and_then(|r| send(caller, r, None)),
        (ioctl::SEND_COMMAND_SETTIME, _) => caller
            .get(plan.arg)
            .and_then(|r: IpmiReqSettime| send(caller, r.req, Some((r.retries, r.retry_time_ms)))),
        (ioctl::COMPAT_SEND_COMMAND, true) => {
            caller.get(plan.arg).and_then(|r: CompatIpmiReq| send(caller, native(r), None))
        }
        (ioctl::COMPAT_SEND_COMMAND_SETTIME, true) => {
            caller.get(plan.arg).and_then(|r: CompatIpmiReqSettime| {
                send(caller, native(r.req), Some((r.retries, r.retry_time_ms)))
            })
        }
        (ioctl::RECEIVE_MSG, _) => receive(caller, plan, false),
        (ioctl::RECEIVE_MSG_TRUNC, _) => receive(caller, plan, true),
        (ioctl::COMPAT_RECEIVE_MSG, true) => compat_receive(caller, plan, false),
        (ioctl::COMPAT_RECEIVE_MSG_TRUNC, true) => compat_receive(caller, plan, true),
        (cmd, _) => scalar(caller, cmd, plan.arg).map(End::Call),
    };
    end.unwrap_or_else(End::Fail)
}

fn native(r: CompatIpmiReq) -> IpmiReq {
    let CompatIpmiMsg { netfn, cmd, data_len, data } = r.msg;
    let msg = IpmiMsg { netfn, cmd, data_len, pad: 0, data: data.into() };
    IpmiReq { addr: r.addr.into(), addr_len: r.addr_len, pad: 0, msgid: r.msgid.into(), msg }
}

/// `handle_send_req`.
fn send(caller: &Caller, req: IpmiReq, timing: Option<(i32, u32)>) -> Result<End, Errno> {
    let addr_len = req.addr_len as usize;
    if addr_len > IPMI_ADDR_LEN || addr_len == 0 {
        return Err(Errno::EINVAL);
    }
    let data_len = if req.msg.data == 0 { 0 } else { usize::from(req.msg.data_len) };
    let addr = caller.read(req.addr, addr_len)?;
    let data = (data_len <= IPMI_MAX_MSG_LENGTH).then(|| caller.read(req.msg.data, data_len));
    let data = data.transpose()?;
    let addr = Addr::parse(&addr)?;
    Ok(End::Call(Call::Send(Send {
        addr,
        msgid: req.msgid,
        netfn: req.msg.netfn,
        cmd: req.msg.cmd,
        data: data.ok_or(Errno::EMSGSIZE)?,
        timing: timing.map(|(retries, retry_time_ms)| IpmiTimingParms { retries, retry_time_ms }),
    })))
}

/// `handle_recv`: the data that is delivered and whether it is all of it.
fn taken<'a>(
    caller: &Caller,
    message: &'a Message,
    truncate: bool,
    (addr, addr_room): (u64, u32),
    (data, data_room): (u64, u16),
) -> Result<(&'a [u8], Result<i32, Errno>), Errno> {
    let addr_len = message.addr.as_bytes().len();
    if (addr_room as usize) < addr_len {
        return Err(Errno::EINVAL);
    }
    caller.read(addr, addr_len)?;
    let fits = message.data.len() <= usize::from(data_room);
    if !fits && !truncate {
        return Err(Errno::EMSGSIZE);
    }
    let delivered = if fits { &message.data[..] } else { &message.data[..usize::from(data_room)] };
    caller.read(data, delivered.len())?;
    Ok((delivered, if fits { Ok(0) } else { Err(Errno::EMSGSIZE) }))
}

fn receive(caller: &Caller, plan: &Plan, truncate: bool) -> Result<End, Errno> {
    let Message { recv_type, addr, msgid, netfn, cmd, .. } = &plan.message;
    let asked: IpmiRecv = caller.get(plan.arg)?;
    let place = (asked.msg.data, asked.msg.data_len);
    let (data, result) =
        taken(caller, &plan.message, truncate, (asked.addr, asked.addr_len), place)?;
    let answer = IpmiRecv {
        recv_type: *recv_type,
        pad0: 0,
        addr: asked.addr,
        addr_len: addr.as_bytes().len() as u32,
        pad1: 0,
        msgid: *msgid,
        msg: IpmiMsg {
            netfn: *netfn,
            cmd: *cmd,
            data_len: data.len() as u16,
            pad: 0,
            data: asked.msg.data,
        },
    };
    Ok(End::Delivered(result, [answer.as_bytes(), addr.as_bytes(), data].concat()))
}

fn compat_receive(caller: &Caller, plan: &Plan, truncate: bool) -> Result<End, Errno> {
    let Message { recv_type, addr, msgid, netfn, cmd, .. } = &plan.message;
    let asked: CompatIpmiRecv = caller.get(plan.arg)?;
    let place = (asked.msg.data.into(), asked.msg.data_len);
    let (data, result) =
        taken(caller, &plan.message, truncate, (asked.addr.into(), asked.addr_len), place)?;
    let answer = CompatIpmiRecv {
        recv_type: *recv_type,
        addr: asked.addr,
        addr_len: addr.as_bytes().len() as u32,
        msgid: *msgid as i32,
        msg: CompatIpmiMsg {
            netfn: *netfn,
            cmd: *cmd,
            data_len: data.len() as u16,
            data: asked.msg.data,
        },
    };
    Ok(End::Delivered(result, [answer.as_bytes(), addr.as_bytes(), data].concat()))
}

fn scalar(caller: &Caller, cmd: u32, arg: u64) -> Result<Call, Errno> {
    let any_channel = || -> Result<CommandSpec, Errno> {
        let IpmiCmdspec { netfn, cmd } = caller.get(arg)?;
        Ok(CommandSpec { netfn, cmd, chans: IPMI_CHAN_ALL })
    };
    let channels = || -> Result<CommandSpec, Errno> {
        let IpmiCmdspecChans { netfn, cmd, chans } = caller.get(arg)?;
        Ok(CommandSpec { netfn: netfn as u8, cmd: cmd as u8, chans })
    };
    let set = || caller.get::<IpmiChannelLunAddressSet>(arg);
    let low_byte = || caller.get::<u32>(arg).map(|value| value as u8);
    Ok(match cmd {
        ioctl::REGISTER_FOR_CMD => Call::Register(any_channel()?),
        ioctl::UNREGISTER_FOR_CMD => Call::Unregister(any_channel()?),
        ioctl::REGISTER_FOR_CMD_CHANS => Call::Register(channels()?),
        ioctl::UNREGISTER_FOR_CMD_CHANS => Call::Unregister(channels()?),
        ioctl::SET_GETS_EVENTS => Call::SetGetsEvents(caller.get::<i32>(arg)? != 0),
        ioctl::SET_MY_ADDRESS => Call::SetMyAddress(0, low_byte()?),
        ioctl::SET_MY_LUN => Call::SetMyLun(0, low_byte()?),
        ioctl::SET_MY_CHANNEL_ADDRESS => set().map(|s| Call::SetMyAddress(s.channel, s.value))?,
        ioctl::SET_MY_CHANNEL_LUN => set().map(|s| Call::SetMyLun(s.channel, s.value))?,
        ioctl::GET_MY_CHANNEL_ADDRESS => {
            set().map(|s| Call::GetMyAddress(s.channel, Shape::Channel(s.pad)))?
        }
        ioctl::GET_MY_CHANNEL_LUN => {
            set().map(|s| Call::GetMyLun(s.channel, Shape::Channel(s.pad)))?
        }
        ioctl::SET_TIMING_PARMS => Call::SetTiming(caller.get(arg)?),
        ioctl::SET_MAINTENANCE_MODE => Call::SetMaintenanceMode(caller.get(arg)?),
        // Here the caller's memory is only written, which the kernel does after us.
        ioctl::GET_MY_ADDRESS => Call::GetMyAddress(0, Shape::Legacy),
        ioctl::GET_MY_LUN => Call::GetMyLun(0, Shape::Legacy),
        ioctl::GET_TIMING_PARMS => Call::GetTiming,
        ioctl::GET_MAINTENANCE_MODE => Call::GetMaintenanceMode,
        _ => return Err(Errno::ENOTTY),
    })
}
