// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's side of the VM serial protocol: sequence numbers, and the part that the kernel's driver
//! plays elsewhere, which is to fetch events when the BMC asks for attention. Bytes in, bytes out.

use std::collections::{HashMap, VecDeque};

use ipmi::vm::{Capabilities, Control, Decoder, Frame, PROTOCOL_VERSION, VmRequest, VmResponse};
use ipmi::{Lun, NetFn, Request, Response};
use nix::errno::Errno;

use super::BackEvent;
use crate::addr::{Addr, Kind};
use crate::mux::{Incoming, Outgoing, Token};

/// Requests without an answer, at most. A sequence number is a byte; a reply that is lost keeps its
/// number taken until [`VmLink::forget`] or the connection's end.
const MAX_PENDING: usize = 64;

/// From one sequence number to the next. Odd, so that all 256 come round; far, so that a reply under a
/// number that is a little off meets nobody else's request.
const SEQ_STEP: u8 = 37;

const GET_MESSAGE_FLAGS: u8 = 0x31;
const READ_EVENT_MESSAGE_BUFFER: u8 = 0x35;
const SET_GLOBAL_ENABLES: u8 = 0x2e;
const GET_GLOBAL_ENABLES: u8 = 0x2f;
/// Event message buffer full, in the message flags (IPMI 2.0 section 22.4).
const EVENT_BUFFER_FULL: u8 = 1 << 1;
/// Event message buffer and its interrupt, in the global enables (IPMI 2.0 section 22.1).
const EVENT_ENABLES: u8 = 1 << 2 | 1 << 1;

/// Whose answer a sequence number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asker {
    Core(Token),
    /// Ourselves, after an attention or to switch events on.
    Link,
}

/// One connection to the BMC.
#[derive(Debug)]
pub(super) struct VmLink {
    decoder: Decoder,
    pending: HashMap<u8, (Asker, NetFn, u8)>,
    next_seq: u8,
    events: bool,
    /// Bytes for the BMC.
    pub output: Vec<u8>,
    /// Reports for the main loop.
    pub reports: VecDeque<BackEvent>,
}

impl VmLink {
    /// A fresh connection: says hello.
    pub fn new(events: bool) -> Self {
        let mut link = Self {
            decoder: Decoder::new(),
            pending: HashMap::new(),
            next_seq: 0,
            events,
            output: Control::Version(PROTOCOL_VERSION).encode(),
            reports: VecDeque::new(),
        };
        let can = Capabilities::INTERRUPT.with(Capabilities::ATTENTION);
        link.output.extend(Control::Capabilities(can).encode());
        link.set_events(events);
        link
    }

    /// Sends a request of the core.
    ///
    /// # Errors
    /// `EAGAIN` with [`MAX_PENDING`] unanswered; `EINVAL` for what this way does not reach.
    pub fn send(&mut self, out: &Outgoing) -> Result<(), Errno> {
        let netfn = NetFn::new(out.netfn).filter(|n| !n.is_response());
        let reaches = out.addr.kind() == Kind::SystemInterface;
        let parts = netfn.zip(Lun::new(out.addr.lun())).filter(|_| reaches);
        let (netfn, lun) = parts.ok_or(Errno::EINVAL)?;
        let request = Request { netfn, lun, cmd: out.cmd, data: out.data.clone() };
        self.ask(Asker::Core(out.token), request)
    }

    /// The core does not wait for this one any more.
    pub fn forget(&mut self, token: Token) {
        self.pending.retain(|_, (asker, ..)| *asker != Asker::Core(token));
    }

    /// Switches the fetching of events; what waits in the BMC comes at once.
    pub fn set_events(&mut self, on: bool) {
        self.events = on;
        if on {
            self.ask_ourselves(GET_GLOBAL_ENABLES, vec![]);
            self.ask_ourselves(GET_MESSAGE_FLAGS, vec![]);
        }
    }

    fn ask_ourselves(&mut self, cmd: u8, data: Vec<u8>) {
        // Where there is no room the next attention brings us back here.
        let _ = self.ask(Asker::Link, Request::new(NetFn::APP, cmd, data));
    }

    fn ask(&mut self, asker: Asker, request: Request) -> Result<(), Errno> {
        if self.pending.len() >= MAX_PENDING {
            return Err(Errno::EAGAIN);
        }
        while self.pending.contains_key(&self.next_seq) {
            self.next_seq = self.next_seq.wrapping_add(SEQ_STEP);
        }
        let seq = self.next_seq;
        self.next_seq = seq.wrapping_add(SEQ_STEP);
        let (netfn, cmd) = (request.netfn, request.cmd);
        let bytes = VmRequest { seq, request }.encode().map_err(|_| Errno::EMSGSIZE)?;
        self.pending.insert(seq, (asker, netfn, cmd));
        self.output.extend(bytes);
        Ok(())
    }

    /// Takes bytes from the BMC. Damaged frames are dropped: their request runs into its deadline.
    pub fn handle_input(&mut self, mut input: &[u8]) {
        while let Some(frame) = self.decoder.next_frame(&mut input) {
            match frame {
                Ok(Frame::Control(Control::Attention | Control::AttentionInterrupt)) => {
                    if self.events {
                        self.ask_ourselves(GET_MESSAGE_FLAGS, vec![]);
                    }
                }
                Ok(Frame::Control(_)) => {}
                Ok(Frame::Message(body)) => match VmResponse::parse(&body) {
                    Ok(answer) => self.handle_answer(answer),
                    Err(error) => tracing::debug!(%error, "message of the BMC dropped"),
                },
                Err(error) => tracing::debug!(%error, "frame of the BMC dropped"),
            }
        }
    }

    fn handle_answer(&mut self, answer: VmResponse) {
        let VmResponse { seq, response } = answer;
        // A reply to something else under this number is a late one: the number stays taken.
        let matches = |(_, netfn, cmd): &(Asker, NetFn, u8)| {
            (netfn.response(), *cmd) == (response.netfn, response.cmd)
        };
        if !self.pending.get(&seq).is_some_and(matches) {
            tracing::debug!(seq, command = %response.command(), "late or double reply dropped");
            return;
        }
        match self.pending.remove(&seq) {
            Some((Asker::Core(token), ..)) => {
                let report = BackEvent::Reply(token, incoming(&response));
                self.reports.push_back(report);
            }
            Some((Asker::Link, ..)) => self.handle_own(&response),
            None => {}
        }
    }

    /// Answers to what we asked ourselves: the driver's part.
    fn handle_own(&mut self, response: &Response) {
        if !response.ccode.is_ok() {
            return;
        }
        let first = response.data.first().copied().unwrap_or(0);
        match response.cmd {
            GET_GLOBAL_ENABLES if first & EVENT_ENABLES != EVENT_ENABLES => {
                self.ask_ourselves(SET_GLOBAL_ENABLES, vec![first | EVENT_ENABLES]);
            }
            GET_MESSAGE_FLAGS if first & EVENT_BUFFER_FULL != 0 => {
                self.ask_ourselves(READ_EVENT_MESSAGE_BUFFER, vec![]);
            }
            READ_EVENT_MESSAGE_BUFFER => {
                // The driver delivers it as the answer it is, without the completion code.
                let event = Incoming { data: response.data.clone(), ..incoming(response) };
                self.reports.push_back(BackEvent::Event(event));
                self.ask_ourselves(GET_MESSAGE_FLAGS, vec![]);
            }
            _ => {}
        }
    }
}

/// A response as the kernel's driver delivers it: completion code first.
fn incoming(response: &Response) -> Incoming {
    let data = [&[response.ccode.0], &response.data[..]].concat();
    let addr = Addr::system_interface(response.lun.get());
    Incoming { addr, netfn: response.netfn.get(), cmd: response.cmd, data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipmi::CompletionCode;
    use kernel_abi::ipmi_devintf::IpmiTimingParms;

    fn outgoing(token: u64, addr: Addr) -> Outgoing {
        Outgoing {
            token: Token(token),
            msgid: 0,
            addr,
            source: (0x20, 2),
            netfn: 6,
            cmd: 1,
            data: vec![],
            timing: IpmiTimingParms { retries: -1, retry_time_ms: 0 },
        }
    }

    /// What the link has sent, as the BMC sees it.
    fn sent(link: &mut VmLink) -> Vec<VmRequest> {
        let bytes = std::mem::take(&mut link.output);
        let (mut decoder, mut input) = (Decoder::new(), &bytes[..]);
        let mut requests = vec![];
        while let Some(frame) = decoder.next_frame(&mut input) {
            if let Ok(Frame::Message(body)) = frame {
                requests.push(VmRequest::parse(&body).unwrap());
            }
        }
        requests
    }

    fn answer(link: &mut VmLink, to: &VmRequest, data: &[u8]) {
        let response = to.request.respond(CompletionCode::OK, data);
        link.handle_input(&VmResponse { seq: to.seq, response }.encode().unwrap());
    }

    #[test]
    fn a_reply_is_matched_once_and_by_its_command() {
        let mut link = VmLink::new(false);
        link.send(&outgoing(5, Addr::system_interface(1))).unwrap();
        let request = sent(&mut link).remove(0);
        assert_eq!(request.request.lun.get(), 1);
        let other = VmRequest { request: Request { cmd: 2, ..request.request.clone() }, ..request };
        answer(&mut link, &other, &[]);
        assert!(link.reports.is_empty(), "the answer to another command is not ours");
        answer(&mut link, &request, &[7]);
        answer(&mut link, &request, &[8]);
        assert_eq!(link.reports.len(), 1);
        let Some(BackEvent::Reply(Token(5), got)) = link.reports.pop_front() else { panic!() };
        assert_eq!(got.data, [0, 7]);
    }

    #[test]
    fn a_reply_one_number_off_meets_no_other_request() {
        let mut link = VmLink::new(false);
        for token in 0..8 {
            link.send(&outgoing(token, Addr::system_interface(0))).unwrap();
        }
        for request in sent(&mut link) {
            for off in [1, 255] {
                let seq = request.seq.wrapping_add(off);
                answer(&mut link, &VmRequest { seq, ..request.clone() }, &[]);
            }
        }
        assert!(link.reports.is_empty());
    }

    #[test]
    fn attention_fetches_all_events() {
        let mut link = VmLink::new(true);
        let start = sent(&mut link);
        let commands: Vec<u8> = start.iter().map(|r| r.request.cmd).collect();
        assert_eq!(commands, [GET_GLOBAL_ENABLES, GET_MESSAGE_FLAGS]);
        answer(&mut link, &start[0], &[0x08]);
        answer(&mut link, &start[1], &[0]);
        let enable = sent(&mut link).remove(0);
        assert_eq!(
            (enable.request.cmd, &enable.request.data[..]),
            (SET_GLOBAL_ENABLES, &[0x0e][..])
        );
        answer(&mut link, &enable, &[]);
        link.handle_input(&Control::AttentionInterrupt.encode());
        for event in [1u8, 2] {
            let flags = sent(&mut link).remove(0);
            answer(&mut link, &flags, &[EVENT_BUFFER_FULL]);
            let read = sent(&mut link).remove(0);
            assert_eq!(read.request.cmd, READ_EVENT_MESSAGE_BUFFER);
            answer(&mut link, &read, &[event; 16]);
        }
        let flags = sent(&mut link).remove(0);
        answer(&mut link, &flags, &[0]);
        assert!(sent(&mut link).is_empty());
        let events: Vec<_> = link.reports.drain(..).collect();
        let BackEvent::Event(first) = &events[0] else { panic!() };
        assert_eq!((events.len(), first.netfn, first.cmd, first.data.len()), (2, 7, 0x35, 16));
    }

    #[test]
    fn unanswered_requests_are_bounded_and_can_be_forgotten() {
        let mut link = VmLink::new(false);
        for token in 0..MAX_PENDING as u64 {
            link.send(&outgoing(token, Addr::system_interface(0))).unwrap();
        }
        assert_eq!(link.send(&outgoing(99, Addr::system_interface(0))), Err(Errno::EAGAIN));
        link.forget(Token(3));
        link.send(&outgoing(99, Addr::system_interface(0))).unwrap();
        let sent = sent(&mut link);
        answer(&mut link, &sent[3], &[1]);
        assert!(link.reports.is_empty(), "a forgotten request's reply goes to nobody");
    }
}
