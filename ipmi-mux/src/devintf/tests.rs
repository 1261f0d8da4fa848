// SPDX-License-Identifier: MIT OR Apache-2.0
//! Plays the kernel's part: copies the caller's memory as asked, and asks again.

use std::collections::BTreeMap;

use super::*;

const ARG: u64 = 0x1000;
const ADDR: u64 = 0x2000;
const DATA: u64 = 0x3000;

/// A caller's memory: pieces by address.
#[derive(Default, Clone)]
struct Caller(BTreeMap<u64, Vec<u8>>);

impl Caller {
    fn with(mut self, at: u64, bytes: &[u8]) -> Self {
        self.0.insert(at, bytes.to_vec());
        self
    }

    fn read(&self, place: IoctlIovec) -> Option<&[u8]> {
        if place.len == 0 {
            return Some(&[]);
        }
        self.0.get(&place.base)?.get(..place.len as usize)
    }

    /// `fuse_do_ioctl`: rounds until the call is whole; returns how many requests it took.
    fn ioctl(&self, cmd: u32, flags: u32) -> (Step, usize) {
        let mut request = IoctlIn { fh: 1, flags, cmd, arg: ARG, in_size: 0, out_size: 0 };
        let mut data = vec![];
        for round in 1..=5 {
            let Step::Fetch { input, output } = decode(&request, &data) else {
                return (decode(&request, &data), round);
            };
            data.clear();
            for place in &input {
                match self.read(*place) {
                    Some(bytes) => data.extend_from_slice(bytes),
                    None => return (Step::Fail(Errno::EFAULT), round),
                }
            }
            request.in_size = data.len() as u32;
            request.out_size = output.iter().map(|o| o.len as u32).sum();
        }
        panic!("the call never becomes whole");
    }
}

fn msg(data: u64, data_len: u16) -> IpmiMsg {
    IpmiMsg { netfn: 6, cmd: 1, data_len, pad: 0, data }
}

fn req(addr_len: u32, msg: IpmiMsg) -> IpmiReq {
    IpmiReq { addr: ADDR, addr_len, pad: 0, msgid: -5, msg }
}

fn sender(req: IpmiReq) -> Caller {
    Caller::default()
        .with(ARG, req.as_bytes())
        .with(ADDR, Addr::system_interface(0).as_bytes())
        .with(DATA, &[7; 300])
}

fn sent(step: Step) -> Send {
    match step {
        Step::Call(Call::Send(send)) => send,
        other => panic!("not a send: {other:?}"),
    }
}

#[test]
fn a_send_takes_three_requests() {
    let (step, requests) = sender(req(8, msg(DATA, 3))).ioctl(ioctl::SEND_COMMAND, 2);
    let send = sent(step);
    assert_eq!((send.msgid, send.netfn, send.cmd, &send.data[..]), (-5, 6, 1, &[7, 7, 7][..]));
    assert_eq!((send.timing, requests), (None, 3));
}

#[test]
fn a_send_without_data_has_none_whatever_its_length_says() {
    let (step, _) = sender(req(8, msg(0, 300))).ioctl(ioctl::SEND_COMMAND, 2);
    assert!(sent(step).data.is_empty());
}

#[test]
fn wrong_sends_fail_as_in_the_driver() {
    let run = |caller: Caller| caller.ioctl(ioctl::SEND_COMMAND, 2).0;
    let fail = Step::Fail;
    assert_eq!(run(Caller::default()), fail(Errno::EFAULT), "bad argument");
    assert_eq!(run(sender(req(41, msg(DATA, 1)))), fail(Errno::EINVAL), "address too long");
    assert_eq!(run(sender(req(0, msg(DATA, 1)))), fail(Errno::EINVAL), "no address");
    assert_eq!(run(sender(req(7, msg(DATA, 1)))), fail(Errno::EINVAL), "address too short");
    assert_eq!(run(sender(req(8, msg(DATA, 273)))), fail(Errno::EMSGSIZE), "data too long");
    assert_eq!(run(sender(req(8, msg(0x9000, 4)))), fail(Errno::EFAULT), "bad data pointer");
    assert_eq!(run(sender(req(7, msg(DATA, 273)))), fail(Errno::EINVAL), "the address comes first");
    let nowhere = IpmiReq { addr: 0x9000, ..req(8, msg(DATA, 273)) };
    assert_eq!(run(sender(nowhere)), fail(Errno::EFAULT), "and its pointer before that");
}

#[test]
fn a_send_of_32_bits_has_its_own_layout() {
    let compat = CompatIpmiReqSettime {
        req: CompatIpmiReq {
            addr: ADDR as u32,
            addr_len: 8,
            msgid: -9,
            msg: CompatIpmiMsg { netfn: 6, cmd: 1, data_len: 2, data: DATA as u32 },
        },
        retries: 2,
        retry_time_ms: 500,
    };
    let caller = sender(req(8, msg(DATA, 2))).with(ARG, compat.as_bytes());
    let send = sent(caller.ioctl(ioctl::COMPAT_SEND_COMMAND_SETTIME, 0xb).0);
    assert_eq!((send.msgid, send.data.len()), (-9, 2));
    assert_eq!(send.timing, Some(IpmiTimingParms { retries: 2, retry_time_ms: 500 }));
    // The kernel knows the small numbers only where the caller is small.
    let native = caller.ioctl(ioctl::COMPAT_SEND_COMMAND_SETTIME, 2).0;
    assert_eq!(native, Step::Fail(Errno::ENOTTY));
}

fn answer(data: &[u8]) -> Message {
    Message {
        recv_type: 1,
        addr: Addr::system_interface(0),
        msgid: 77,
        netfn: 7,
        cmd: 1,
        data: data.to_vec(),
    }
}

fn recv(addr_len: u32, data_len: u16) -> IpmiRecv {
    IpmiRecv {
        recv_type: 0,
        pad0: 0,
        addr: ADDR,
        addr_len,
        pad1: 0,
        msgid: 0,
        msg: IpmiMsg { netfn: 0, cmd: 0, data_len, pad: 0, data: DATA },
    }
}

/// Receives `message` into `caller`'s buffers; as the kernel does it, in rounds.
fn take(caller: &Caller, cmd: u32, flags: u32, message: &Message) -> (Delivery, usize) {
    let mut request = IoctlIn { fh: 1, flags, cmd, arg: ARG, in_size: 0, out_size: 0 };
    let mut data = vec![];
    for round in 1..=5 {
        let (input, output) = match decode(&request, &data) {
            Step::Fetch { input, output } => (input, output),
            Step::Call(Call::Receive(receive)) => match receive.deliver(message) {
                Delivery::Fetch { input, output } => (input, output),
                end => return (end, round),
            },
            other => panic!("not a receive: {other:?}"),
        };
        data.clear();
        for place in &input {
            match caller.read(*place) {
                Some(bytes) => data.extend_from_slice(bytes),
                None => return (Delivery::Fail(Errno::EFAULT), round),
            }
        }
        request.in_size = data.len() as u32;
        request.out_size = output.iter().map(|o| o.len as u32).sum();
    }
    panic!("the message is never delivered");
}

fn receiver(recv: IpmiRecv) -> Caller {
    Caller::default().with(ARG, recv.as_bytes()).with(ADDR, &[0; 40]).with(DATA, &[0; 272])
}

#[test]
fn a_receive_takes_three_requests_and_fills_all_three_places() {
    let (end, requests) =
        take(&receiver(recv(40, 272)), ioctl::RECEIVE_MSG, 2, &answer(&[0, 1, 2]));
    let Delivery::Deliver(Ok(0), bytes) = end else { panic!("{end:?}") };
    let (header, rest) = IpmiRecv::read_from_prefix(&bytes).unwrap();
    assert_eq!((header.recv_type, header.msgid, header.addr_len), (1, 77, 8));
    assert_eq!((header.msg.netfn, header.msg.data_len, header.msg.data), (7, 3, DATA));
    assert_eq!(rest, [Addr::system_interface(0).as_bytes(), &[0, 1, 2]].concat());
    assert_eq!(requests, 3);
}

#[test]
fn wrong_receives_fail_as_in_the_driver_and_keep_the_message() {
    let long = answer(&[1; 20]);
    let run = |caller: Caller, cmd| take(&caller, cmd, 2, &long).0;
    assert_eq!(
        run(receiver(recv(7, 272)), ioctl::RECEIVE_MSG),
        Delivery::Fail(Errno::EINVAL),
        "no room for the address"
    );
    assert_eq!(
        run(receiver(recv(40, 19)), ioctl::RECEIVE_MSG),
        Delivery::Fail(Errno::EMSGSIZE),
        "no room for the data"
    );
    let nowhere = IpmiRecv { addr: 0x9000, ..recv(40, 19) };
    assert_eq!(
        run(receiver(nowhere), ioctl::RECEIVE_MSG),
        Delivery::Fail(Errno::EFAULT),
        "the address is written before the room for the data is looked at"
    );
    let mut nowhere = recv(40, 272);
    nowhere.msg.data = 0x9000;
    assert_eq!(
        run(receiver(nowhere), ioctl::RECEIVE_MSG),
        Delivery::Fail(Errno::EFAULT),
        "a bad data pointer is found before the message is taken"
    );
}

#[test]
fn a_truncating_receive_delivers_what_fits_and_says_so() {
    let (end, _) =
        take(&receiver(recv(40, 4)), ioctl::RECEIVE_MSG_TRUNC, 2, &answer(&[1, 2, 3, 4, 5, 6]));
    let Delivery::Deliver(Err(Errno::EMSGSIZE), bytes) = end else { panic!("{end:?}") };
    assert!(bytes.ends_with(&[1, 2, 3, 4]));
    let (header, _) = IpmiRecv::read_from_prefix(&bytes).unwrap();
    assert_eq!(header.msg.data_len, 4);
}

#[test]
fn a_receive_of_32_bits_has_its_own_layout() {
    let compat = CompatIpmiRecv {
        recv_type: 0,
        addr: ADDR as u32,
        addr_len: 40,
        msgid: 0,
        msg: CompatIpmiMsg { netfn: 0, cmd: 0, data_len: 272, data: DATA as u32 },
    };
    let caller = receiver(recv(40, 272)).with(ARG, compat.as_bytes());
    let (end, _) = take(&caller, ioctl::COMPAT_RECEIVE_MSG_TRUNC, 0xb, &answer(&[0, 9]));
    let Delivery::Deliver(Ok(0), bytes) = end else { panic!("{end:?}") };
    let (header, _) = CompatIpmiRecv::read_from_prefix(&bytes).unwrap();
    assert_eq!((header.msgid, header.msg.data_len, header.msg.data), (77, 2, DATA as u32));
}

#[test]
fn scalars_come_in_two_requests() {
    let set = IpmiChannelLunAddressSet { channel: 3, value: 0x24, pad: 9 };
    let caller = Caller::default().with(ARG, set.as_bytes());
    let call = |cmd| match caller.ioctl(cmd, 2) {
        (Step::Call(call), 2) => call,
        other => panic!("{other:?}"),
    };
    assert_eq!(call(ioctl::SET_MY_CHANNEL_ADDRESS), Call::SetMyAddress(3, 0x24));
    assert_eq!(call(ioctl::GET_MY_CHANNEL_LUN), Call::GetMyLun(3, Shape::Channel(9)));
    assert_eq!(call(ioctl::GET_MY_ADDRESS), Call::GetMyAddress(0, Shape::Legacy));
    assert_eq!(call(ioctl::GET_MAINTENANCE_MODE), Call::GetMaintenanceMode);
    let spec = CommandSpec { netfn: 3, cmd: 0, chans: IPMI_CHAN_ALL };
    assert_eq!(call(ioctl::REGISTER_FOR_CMD), Call::Register(spec));
    assert_eq!(caller.ioctl(0x1234, 2), (Step::Fail(Errno::ENOTTY), 1));
}
