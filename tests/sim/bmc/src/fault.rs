// SPDX-License-Identifier: MIT OR Apache-2.0
//! What goes wrong with replies, on command.
//!
//! A fault strikes requests in the order they are served: the first fault in the list whose filter
//! fits is used, and used up when it was ordered a number of times.

use std::fmt;
use std::time::Duration;

use ipmi::vm::{END_OF_MESSAGE, VmResponse};
use ipmi::{Command, CompletionCode, NetFn, Response};

/// Faults that wait at a time.
pub const MAX_FAULTS: usize = 64;

/// The kinds of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Not carried out, answered with a completion code (C0 for "busy").
    Code(CompletionCode),
    /// Carried out, no reply.
    Lost,
    /// Carried out, the reply comes later; other requests are served meanwhile.
    Late,
    /// Carried out, the reply comes twice.
    Duplicate,
    /// Carried out, the reply has a wrong checksum.
    Damaged,
    /// Carried out, a reply with another sequence number comes first and the right one later; with
    /// no time between them the right one never comes. QEMU's KCS then waits for ever: it drops the
    /// wrong reply, but no longer watches the time.
    WrongSeq,
    /// Carried out, the reply is for another command.
    WrongCommand,
    /// Carried out, the reply lacks the second half of its data.
    Truncated,
    /// Not carried out, no reply.
    Hang,
}

impl Kind {
    /// The kind with this name; `code` carries its number as `code:d5`.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "busy" => Self::Code(CompletionCode::NODE_BUSY),
            "lost" => Self::Lost,
            "late" => Self::Late,
            "duplicate" => Self::Duplicate,
            "damaged" => Self::Damaged,
            "wrong-seq" => Self::WrongSeq,
            "wrong-command" => Self::WrongCommand,
            "truncated" => Self::Truncated,
            "hang" => Self::Hang,
            name => {
                let code = name.strip_prefix("code:")?;
                Self::Code(CompletionCode(u8::from_str_radix(code, 16).ok()?))
            }
        })
    }

    /// Whether the request is carried out.
    pub fn executes(self) -> bool {
        !matches!(self, Self::Code(_) | Self::Hang)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Code(CompletionCode::NODE_BUSY) => "busy",
            Self::Code(code) => return write!(f, "code:{:02x}", code.0),
            Self::Lost => "lost",
            Self::Late => "late",
            Self::Duplicate => "duplicate",
            Self::Damaged => "damaged",
            Self::WrongSeq => "wrong-seq",
            Self::WrongCommand => "wrong-command",
            Self::Truncated => "truncated",
            Self::Hang => "hang",
        })
    }
}

/// Which requests a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Network function of the request.
    pub netfn: NetFn,
    /// Command; `None` for all of the network function.
    pub cmd: Option<u8>,
}

impl Filter {
    fn fits(self, command: Command) -> bool {
        self.netfn == command.netfn && self.cmd.is_none_or(|cmd| cmd == command.cmd)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cmd {
            Some(cmd) => write!(f, "{:02x}/{cmd:02x}", self.netfn.get()),
            None => write!(f, "{:02x}/*", self.netfn.get()),
        }
    }
}

/// A fault that waits for its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What happens.
    pub kind: Kind,
    /// How often it still happens; `None` for ever.
    pub left: Option<u32>,
    /// To which requests; `None` for all.
    pub filter: Option<Filter>,
    /// How much later a late reply comes, or the second of two.
    pub by: Duration,
}

/// A fault that strikes one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// What happens.
    pub kind: Kind,
    /// See [`Fault::by`].
    pub by: Duration,
}

/// The faults that wait, in order.
#[derive(Debug, Default)]
pub struct Faults {
    list: Vec<Fault>,
}

impl Faults {
    /// Appends a fault. Whether there was room.
    #[must_use]
    pub fn add(&mut self, fault: Fault) -> bool {
        let room = self.list.len() < MAX_FAULTS;
        if room && fault.left != Some(0) {
            self.list.push(fault);
        }
        room
    }

    /// Removes all.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// Those that wait.
    pub fn list(&self) -> &[Fault] {
        &self.list
    }

    /// The fault for this request, if any.
    pub fn strike(&mut self, command: Command) -> Option<Hit> {
        let at = self.list.iter().position(|f| f.filter.is_none_or(|f| f.fits(command)))?;
        let fault = &mut self.list[at];
        let hit = Hit { kind: fault.kind, by: fault.by };
        if let Some(left) = &mut fault.left {
            *left -= 1;
            if *left == 0 {
                self.list.remove(at);
            }
        }
        Some(hit)
    }
}

/// A response that is too long for the protocol becomes an error without data.
fn encode(seq: u8, response: Response) -> Vec<u8> {
    let short = Response {
        ccode: CompletionCode::CANNOT_RETURN_BYTES,
        data: Vec::new(),
        ..response.clone()
    };
    let wire = VmResponse { seq, response }.encode();
    wire.or_else(|_| VmResponse { seq, response: short }.encode()).unwrap_or_default()
}

/// The bytes that go out for a response, each with how much later than usual.
pub fn replies(hit: Option<Hit>, seq: u8, response: Response) -> Vec<(Duration, Vec<u8>)> {
    let at_once = |bytes| vec![(Duration::ZERO, bytes)];
    let Some(Hit { kind, by }) = hit else {
        return at_once(encode(seq, response));
    };
    match kind {
        Kind::Code(ccode) => at_once(encode(seq, Response { ccode, data: Vec::new(), ..response })),
        Kind::Lost | Kind::Hang => Vec::new(),
        Kind::Late => vec![(by, encode(seq, response))],
        Kind::Duplicate => {
            let bytes = encode(seq, response);
            vec![(Duration::ZERO, bytes.clone()), (by, bytes)]
        }
        Kind::Damaged => at_once(damage(encode(seq, response))),
        Kind::WrongSeq => {
            let mut replies = at_once(encode(seq.wrapping_add(1), response.clone()));
            if !by.is_zero() {
                replies.push((by, encode(seq, response)));
            }
            replies
        }
        Kind::WrongCommand => {
            let cmd = response.cmd.wrapping_add(1);
            at_once(encode(seq, Response { cmd, ..response }))
        }
        Kind::Truncated => {
            let data = response.data[..response.data.len() / 2].to_vec();
            at_once(encode(seq, Response { data, ..response }))
        }
    }
}

/// Spoils the checksum, which is the byte (or the escaped byte) before the end.
fn damage(mut wire: Vec<u8>) -> Vec<u8> {
    wire.pop();
    if let Some(sum) = wire.last_mut() {
        // Bit 2 turns no byte into a framing byte: 0xa4, 0xa5 and 0xae become 0xa0, 0xa1 and 0xaa,
        // so those get bit 6 instead.
        *sum ^= if matches!(*sum, 0xa4 | 0xa5 | 0xae) { 0x40 } else { 0x04 };
    }
    wire.push(END_OF_MESSAGE);
    wire
}

#[cfg(test)]
mod tests {
    use ipmi::Request;
    use ipmi::vm::{Decoder, Frame, FrameError};

    use super::*;

    fn fault(kind: Kind, left: Option<u32>, filter: Option<Filter>) -> Fault {
        Fault { kind, left, filter, by: Duration::from_millis(10) }
    }

    fn decode(mut wire: &[u8]) -> Vec<Result<VmResponse, FrameError>> {
        let mut decoder = Decoder::new();
        std::iter::from_fn(|| decoder.next_frame(&mut wire))
            .map(|frame| match frame? {
                Frame::Message(body) => Ok(VmResponse::parse(&body).unwrap()),
                Frame::Control(control) => panic!("{control:?}"),
            })
            .collect()
    }

    #[test]
    fn faults_are_used_up_in_order_and_by_filter() {
        let app = |cmd| Command::new(NetFn::APP, cmd);
        let mut faults = Faults::default();
        let filter = Filter { netfn: NetFn::APP, cmd: Some(0x25) };
        assert!(faults.add(fault(Kind::Lost, Some(2), Some(filter))));
        let all = Filter { netfn: NetFn::APP, cmd: None };
        assert!(faults.add(fault(Kind::Damaged, None, Some(all))));
        assert_eq!(faults.strike(Command::new(NetFn::STORAGE, 0x25)), None);
        let kinds: Vec<_> = [0x25, 0x01, 0x25, 0x25]
            .map(|cmd| faults.strike(app(cmd)).map(|hit| hit.kind))
            .into_iter()
            .collect();
        let (lost, damaged) = (Some(Kind::Lost), Some(Kind::Damaged));
        assert_eq!(kinds, [lost, damaged, lost, damaged]);
        faults.clear();
        assert_eq!(faults.strike(app(0x25)), None);
    }

    #[test]
    fn the_list_is_bounded() {
        let mut faults = Faults::default();
        for _ in 0..MAX_FAULTS {
            assert!(faults.add(fault(Kind::Lost, Some(1), None)));
        }
        assert!(!faults.add(fault(Kind::Lost, Some(1), None)));
    }

    #[test]
    fn what_goes_out() {
        let request = Request::new(NetFn::APP, 0x01, []);
        let response = request.respond(CompletionCode::OK, [1, 2, 3, 4]);
        let good = VmResponse { seq: 9, response: response.clone() };
        let out = |kind| {
            let hit = Hit { kind, by: Duration::from_millis(10) };
            let replies = replies(Some(hit), 9, response.clone());
            replies.iter().map(|(by, wire)| (by.as_millis(), decode(wire))).collect::<Vec<_>>()
        };
        assert_eq!(out(Kind::Lost), []);
        assert_eq!(out(Kind::Late), [(10, vec![Ok(good.clone())])]);
        let twice = [(0, vec![Ok(good.clone())]), (10, vec![Ok(good.clone())])];
        assert_eq!(out(Kind::Duplicate), twice);
        assert_eq!(out(Kind::Damaged), [(0, vec![Err(FrameError::Checksum { len: 9 })])]);
        let other = VmResponse { seq: 10, ..good.clone() };
        let both = [(0, vec![Ok(other)]), (10, vec![Ok(good.clone())])];
        assert_eq!(out(Kind::WrongSeq), both);
        let hit = Hit { kind: Kind::WrongSeq, by: Duration::ZERO };
        assert_eq!(replies(Some(hit), 9, response.clone()).len(), 1);
        let Ok(wrong) = &out(Kind::WrongCommand)[0].1[0] else { panic!() };
        assert_eq!((wrong.seq, wrong.response.cmd), (9, 2));
        let Ok(short) = &out(Kind::Truncated)[0].1[0] else { panic!() };
        assert_eq!(short.response.data, [1, 2]);
        let Ok(busy) = &out(Kind::Code(CompletionCode(0xc0)))[0].1[0] else { panic!() };
        assert_eq!((busy.response.ccode.0, busy.response.data.len()), (0xc0, 0));
    }

    #[test]
    fn damage_is_seen_whatever_the_checksum() {
        for seq in 0..=255 {
            let response = Request::new(NetFn::APP, 0x01, []).respond(CompletionCode::OK, []);
            let wire = damage(encode(seq, response));
            assert_eq!(decode(&wire), [Err(FrameError::Checksum { len: 5 })], "seq {seq}");
        }
    }

    #[test]
    fn names_go_both_ways() {
        for name in [
            "busy",
            "lost",
            "late",
            "duplicate",
            "damaged",
            "wrong-seq",
            "wrong-command",
            "truncated",
            "hang",
            "code:d5",
        ] {
            assert_eq!(Kind::from_name(name).unwrap().to_string(), name);
        }
        assert_eq!(Kind::from_name("code:zz"), None);
        assert_eq!(Kind::from_name("flood"), None);
    }
}
