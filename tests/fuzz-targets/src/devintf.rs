// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ioctl decoder: once with whole requests of any content, once driven as the kernel drives it.
//!
//! The input starts with a byte that chooses: [`RAW`], [`LOOSE`], or else bits [`COMPAT`] and
//! [`HOSTILE`] of a call as [`Plan::take`] reads it.

use ipmi_mux::addr::Addr;
use ipmi_mux::devintf::{Call, Delivery, Message, Receive, Shape, Step, decode};
use ipmi_mux::extension;
use kernel_abi::cuse::{self, FUSE_IOCTL_COMPAT, IoctlIn, IoctlIovec, Operation};
use kernel_abi::ipmi_devintf::{
    IPMI_ADDR_LEN, IPMI_MAX_MSG_LENGTH, IpmiReqSettime, IpmiTimingParms, ioctl,
};
use nix::errno::Errno;
use zerocopy::{FromBytes, IntoBytes};

use crate::Reached;
use crate::driver::driver;
use crate::input::Input;

/// The rest is a request as read from `/dev/cuse`.
const RAW: u8 = 0xff;
/// The rest is a `struct fuse_ioctl_in` and memory whose size it need not tell truly.
const LOOSE: u8 = 0xfe;
/// The caller has 32 bits.
const COMPAT: u8 = 1;
/// Another thread of the caller changes its memory and takes messages meanwhile.
const HOSTILE: u8 = 2;

/// `FUSE_IOCTL_UNRESTRICTED`.
const UNRESTRICTED: u32 = 2;

/// Requests that a call may take: one bare, one with its structure, one with all it points to.
const MAX_REQUESTS: usize = 3;
/// Rounds until a caller that keeps changing its memory is left alone.
const MAX_HOSTILE_REQUESTS: usize = 8;
/// Memory of the caller we ever need at once, bytes: the largest structure, an address, the data.
const MAX_FETCH: u64 = (size_of::<IpmiReqSettime>() + IPMI_ADDR_LEN + IPMI_MAX_MSG_LENGTH) as u64;

/// The ioctls by index; any other index means a number in the next four bytes.
pub const COMMANDS: [u32; 30] = [
    ioctl::SEND_COMMAND,
    ioctl::SEND_COMMAND_SETTIME,
    ioctl::RECEIVE_MSG,
    ioctl::RECEIVE_MSG_TRUNC,
    ioctl::COMPAT_SEND_COMMAND,
    ioctl::COMPAT_SEND_COMMAND_SETTIME,
    ioctl::COMPAT_RECEIVE_MSG,
    ioctl::COMPAT_RECEIVE_MSG_TRUNC,
    ioctl::REGISTER_FOR_CMD,
    ioctl::UNREGISTER_FOR_CMD,
    ioctl::REGISTER_FOR_CMD_CHANS,
    ioctl::UNREGISTER_FOR_CMD_CHANS,
    ioctl::SET_GETS_EVENTS,
    ioctl::SET_MY_ADDRESS,
    ioctl::GET_MY_ADDRESS,
    ioctl::SET_MY_LUN,
    ioctl::GET_MY_LUN,
    ioctl::SET_MY_CHANNEL_ADDRESS,
    ioctl::GET_MY_CHANNEL_ADDRESS,
    ioctl::SET_MY_CHANNEL_LUN,
    ioctl::GET_MY_CHANNEL_LUN,
    ioctl::SET_TIMING_PARMS,
    ioctl::GET_TIMING_PARMS,
    ioctl::SET_MAINTENANCE_MODE,
    ioctl::GET_MAINTENANCE_MODE,
    extension::ioctl::RESERVE_COMMAND,
    extension::ioctl::RELEASE_COMMAND,
    extension::ioctl::RESERVE_SEQUENCE,
    extension::ioctl::RELEASE_SEQUENCE,
    extension::ioctl::ATTACH,
];

/// Decodes requests and ioctls of any content.
///
/// # Panics
/// Where the decoder asks for more than it can need, never comes to an end for a caller that holds
/// still, ends otherwise than the kernel's driver, or delivers a message in another size than it
/// asked room for.
pub fn devintf(data: &[u8]) -> Reached {
    let mut input = Input::new(data);
    let reached = match input.u8() {
        RAW => raw(input.rest()),
        LOOSE => IoctlIn::read_from_prefix(input.rest()).map_or("short", |(request, memory)| {
            once(&request, memory);
            "loose"
        }),
        mode => {
            let (mut plan, mut caller) = Plan::take(mode, &mut input);
            let expected = (mode & HOSTILE == 0).then(|| driver(&caller, &plan));
            let end = drive(&mut caller, &mut plan);
            if let Some(expected) = expected {
                assert_eq!(end, expected, "not what the driver does: {plan:x?}");
            }
            end.name()
        }
    };
    Reached::from([reached])
}

fn raw(bytes: &[u8]) -> &'static str {
    let Ok(request) = cuse::decode(bytes) else { return "malformed" };
    assert_eq!(request.header.len as usize, bytes.len());
    match request.operation {
        Operation::Init(init) => {
            let fixed = size_of::<cuse::InHeader>() + size_of::<cuse::CuseInitIn>();
            let name = String::from_utf8_lossy(&bytes[fixed..]);
            match cuse::reply_init(request.header.unique, init, &name, 1, 2) {
                Ok(reply) => assert_framed(&reply),
                Err(_) => return "init refused",
            }
            "init"
        }
        Operation::Open(_) => "open",
        Operation::Release(_) => "release",
        Operation::Ioctl(ioctl, memory) => {
            assert_eq!(ioctl.in_size as usize, memory.len());
            once(&ioctl, memory);
            "ioctl"
        }
        Operation::Poll(_) => "poll",
        Operation::Interrupt => "interrupt",
        Operation::Other => "other",
    }
}

/// A request that stands alone: whatever it says, what we ask for and what we deliver is bounded.
fn once(request: &IoctlIn, memory: &[u8]) {
    let message = Message {
        recv_type: 1,
        addr: Addr::system_interface(0),
        msgid: 1,
        netfn: 7,
        cmd: 1,
        data: vec![0; memory.len().min(IPMI_MAX_MSG_LENGTH)],
    };
    match decode(request, memory) {
        Step::Fetch { input, output } => check_fetch(&input, &output),
        Step::Call(Call::Receive(receive)) => match receive.deliver(&message) {
            Delivery::Fetch { input, output } => check_fetch(&input, &output),
            Delivery::Deliver(_, bytes) => assert_eq!(bytes.len(), request.out_size as usize),
            Delivery::Fail(_) => {}
        },
        Step::Call(call) => check_answer(&call, request.out_size),
        Step::Fail(_) => {}
    }
}

/// A caller's memory: the same few bytes over and over in its half of the address space, but for
/// the first page, which is never mapped. So any pointer a fuzzer invents leads somewhere.
pub struct Caller {
    bytes: [u8; Self::WINDOW],
    end: u64,
}

impl Caller {
    const WINDOW: usize = 1024;
    const START: u64 = 0x1000;

    fn readable(&self, place: IoctlIovec) -> bool {
        let end = place.base.checked_add(place.len);
        place.len == 0 || place.base >= Self::START && end.is_some_and(|end| end <= self.end)
    }

    /// `copy_from_user`.
    pub fn read(&self, base: u64, len: usize) -> Result<Vec<u8>, Errno> {
        let place = IoctlIovec { base, len: len as u64 };
        if !self.readable(place) {
            return Err(Errno::EFAULT);
        }
        let at = base as usize % Self::WINDOW;
        Ok(self.bytes.iter().cycle().skip(at).take(len).copied().collect())
    }

    /// A structure at `base`.
    pub fn get<T: FromBytes>(&self, base: u64) -> Result<T, Errno> {
        let bytes = self.read(base, size_of::<T>())?;
        Ok(T::read_from_bytes(&bytes).expect("as many bytes as the structure has"))
    }
}

/// The call that is made, and the message that waits.
#[derive(Debug)]
pub struct Plan {
    pub compat: bool,
    pub cmd: u32,
    pub arg: u64,
    pub message: Message,
    hostile: bool,
    /// Where another thread writes between the requests, and what it changes there.
    disturbance: (u16, u8),
}

impl Plan {
    /// Command, argument, disturbance, message, memory.
    fn take(mode: u8, input: &mut Input<'_>) -> (Self, Caller) {
        let compat = mode & COMPAT != 0;
        let index = usize::from(input.u8());
        let cmd = COMMANDS.get(index).copied().unwrap_or_else(|| input.u32());
        let arg = input.u64();
        let disturbance = (input.u16(), input.u8());
        let recv_type = input.u32().cast_signed();
        let addr = input.take::<12>();
        let mut message = Message {
            recv_type,
            addr: Addr::parse(&addr).unwrap_or_else(|_| Addr::system_interface(addr[6])),
            msgid: input.u64().cast_signed(),
            netfn: input.u8(),
            cmd: input.u8(),
            data: vec![0; usize::from(input.u16()) % (IPMI_MAX_MSG_LENGTH + 1)],
        };
        for (value, byte) in (1..=u8::MAX).cycle().zip(&mut message.data) {
            *byte = value;
        }
        let end = if compat { 1 << 32 } else { 0x7fff_ffff_f000 };
        let caller = Caller { bytes: input.take(), end };
        // A 32-bit caller's argument is widened by the kernel.
        let arg = if compat { arg & u64::from(u32::MAX) } else { arg };
        let hostile = mode & HOSTILE != 0;
        (Self { compat, cmd, arg, message, hostile, disturbance }, caller)
    }

    fn disturb(&mut self, caller: &mut Caller) {
        if self.hostile {
            let (at, change) = self.disturbance;
            caller.bytes[usize::from(at) % Caller::WINDOW] ^= change;
            self.message.data.pop();
        }
    }
}

/// How a call ends.
#[derive(Debug, PartialEq)]
pub enum End {
    Fail(Errno),
    Call(Call),
    Delivered(Result<i32, Errno>, Vec<u8>),
    /// A caller that would not hold still.
    Unsettled,
}

impl End {
    fn name(&self) -> &'static str {
        match self {
            Self::Fail(Errno::EFAULT) => "EFAULT",
            Self::Fail(Errno::EINVAL) => "EINVAL",
            Self::Fail(Errno::EMSGSIZE) => "EMSGSIZE",
            Self::Fail(Errno::ENOTTY) => "ENOTTY",
            Self::Fail(errno) => panic!("the driver never fails with {errno} here"),
            Self::Delivered(Ok(_), _) => "delivered",
            Self::Delivered(Err(_), _) => "delivered in part",
            Self::Unsettled => "unsettled",
            Self::Call(call) => match call {
                Call::Send(send) if send.timing.is_some() => "send with timing",
                Call::Send(_) => "send",
                Call::Receive(_) => panic!("a receive ends as delivered"),
                Call::Register(_) => "register",
                Call::Unregister(_) => "unregister",
                Call::SetGetsEvents(_) => "set events",
                Call::SetMyAddress(..) => "set address",
                Call::GetMyAddress(..) => "get address",
                Call::SetMyLun(..) => "set LUN",
                Call::GetMyLun(..) => "get LUN",
                Call::SetTiming(_) => "set timing",
                Call::GetTiming => "get timing",
                Call::SetMaintenanceMode(_) => "set maintenance",
                Call::GetMaintenanceMode => "get maintenance",
                Call::ReserveCommand(..) => "reserve command",
                Call::ReleaseCommand(..) => "release command",
                Call::ReserveSequence(_) => "reserve sequence",
                Call::ReleaseSequence(_) => "release sequence",
                Call::Attach(_) => "attach",
            },
        }
    }
}

/// `fuse_do_ioctl`: copies in what is asked for, and asks again.
fn drive(caller: &mut Caller, plan: &mut Plan) -> End {
    let flags = UNRESTRICTED | if plan.compat { FUSE_IOCTL_COMPAT } else { 0 };
    let mut request =
        IoctlIn { fh: 1, flags, cmd: plan.cmd, arg: plan.arg, in_size: 0, out_size: 0 };
    let mut data = vec![];
    let most = if plan.hostile { MAX_HOSTILE_REQUESTS } else { MAX_REQUESTS };
    for _ in 0..most {
        let (input, output) = match step(&request, &data, &plan.message) {
            Ok(places) => places,
            Err(end) => return end,
        };
        check_fetch(&input, &output);
        data.clear();
        for place in &input {
            match caller.read(place.base, place.len as usize) {
                Ok(bytes) => data.extend(bytes),
                Err(errno) => return End::Fail(errno),
            }
        }
        request.in_size = data.len() as u32;
        request.out_size = total(&output) as u32;
        plan.disturb(caller);
    }
    assert!(plan.hostile, "the caller holds still and the call never becomes whole: {plan:x?}");
    End::Unsettled
}

type Places = (Vec<IoctlIovec>, Vec<IoctlIovec>);

fn step(request: &IoctlIn, data: &[u8], message: &Message) -> Result<Places, End> {
    match decode(request, data) {
        Step::Fetch { input, output } => Ok((input, output)),
        Step::Fail(errno) => Err(End::Fail(errno)),
        Step::Call(Call::Receive(receive)) => deliver(&receive, request, message),
        Step::Call(call) => {
            check_answer(&call, request.out_size);
            Err(End::Call(call))
        }
    }
}

fn deliver(receive: &Receive, request: &IoctlIn, message: &Message) -> Result<Places, End> {
    match receive.deliver(message) {
        Delivery::Fetch { input, output } => {
            assert_eq!(input, output, "what is written is what was found to be there");
            Ok((input, output))
        }
        Delivery::Fail(errno) => Err(End::Fail(errno)),
        Delivery::Deliver(result, bytes) => {
            // With more than `out_size` the kernel fails the call, and the message is lost.
            assert_eq!(bytes.len(), request.out_size as usize);
            Err(End::Delivered(result, bytes))
        }
    }
}

fn total(places: &[IoctlIovec]) -> u64 {
    places.iter().fold(0, |sum, place| sum.saturating_add(place.len))
}

fn check_fetch(input: &[IoctlIovec], output: &[IoctlIovec]) {
    for places in [input, output] {
        assert!(places.len() <= 3 && total(places) <= MAX_FETCH, "asks for {places:x?}");
    }
    assert_framed(&cuse::reply_ioctl_retry(1, input, output));
}

/// What a call answers with must fill the room that was asked for.
fn check_answer(call: &Call, room: u32) {
    let len = match call {
        Call::GetMyAddress(channel, shape) | Call::GetMyLun(channel, shape) => {
            let bytes = shape.encode(*channel, 0x20);
            match shape {
                Shape::Legacy => assert_eq!(bytes, 0x20u32.as_bytes()),
                Shape::Channel(pad) => assert_eq!(bytes[2..], [0x20, *pad]),
            }
            bytes.len()
        }
        Call::GetTiming => size_of::<IpmiTimingParms>(),
        Call::GetMaintenanceMode => size_of::<i32>(),
        Call::ReserveSequence(_) | Call::Attach(_) => size_of::<extension::Sequence>(),
        _ => return,
    };
    assert_eq!(len, room as usize, "{call:?}");
}

/// A reply says its own length first.
fn assert_framed(reply: &[u8]) {
    assert_eq!(reply[..4], (reply.len() as u32).to_ne_bytes());
}
