// SPDX-License-Identifier: MIT OR Apache-2.0
//! The core: handles, their requests, and whose turn it is. No clock, no descriptor, no task.
//!
//! The shell tells it what happened (`open`, `send`, `handle_reply`, …) and then carries out what
//! [`Mux::next_action`] yields until it yields nothing. Time is passed in and must not go back.
//!
//! What it promises:
//! * every accepted send is answered exactly once: by the BMC, or with completion code C3 when its
//!   deadline passes, or with FF where the back end refuses it;
//! * an answer goes to the handle and with the message id of its own request, late and double ones to nobody;
//! * handles take turns: one that floods waits behind its own requests, not in front of others';
//! * at most [`Limits::window`] requests are with the BMC at a time.

mod channels;
mod handle;
mod receivers;
mod request;
mod stats;

pub use channels::{Channels, Medium};
pub use handle::{EVENT_BACKLOG, HandleId, Info, MAX_MESSAGES, Owner};
pub use receivers::MAX_RECEIVERS;
pub use request::{Token, deadline_class};
pub use stats::Stats;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use kernel_abi::ipmi_devintf::{
    IPMI_ASYNC_EVENT_RECV_TYPE, IPMI_CMD_RECV_TYPE, IPMI_MAINTENANCE_MODE_AUTO,
    IPMI_MAINTENANCE_MODE_ON, IPMI_NUM_CHANNELS, IPMI_RESPONSE_RECV_TYPE,
    IPMI_RESPONSE_RESPONSE_TYPE, IpmiTimingParms,
};
use nix::errno::Errno;

use crate::addr::{Addr, Kind};
use crate::devintf::{CommandSpec, Message, Receive, Send};
use handle::Handle;
use receivers::Receivers;
use request::{Request, check_system_interface};

/// Handles open at once, over all nodes. Each costs some 500 bytes and up to
/// [`MAX_MESSAGES`] messages of at most 300 bytes.
pub const MAX_HANDLES: usize = 4096;

/// How long to wait when the driver has no room for a request (its 64 IPMB sequence numbers are in use).
const BACK_OFF: Duration = Duration::from_millis(10);

/// What the operator sets.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From a send to its answer at the latest.
    pub deadline: Duration,
    /// The same for commands that are known to take long: erasing, resets, firmware.
    pub long_deadline: Duration,
    /// Requests with the BMC at a time.
    pub window: usize,
    /// How long a request that was given up still counts as being with the BMC: zero where the back
    /// end can drop it.
    pub abandoned_for: Duration,
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Hand this to the BMC; then tell `handle_reply` or `handle_refusal` with its token.
    Send(Outgoing),
    /// This handle has something to receive: wake who polls it.
    Wake(HandleId),
    /// Whether the back end should deliver events.
    SetGetsEvents(bool),
    /// Nobody waits for this request any more, and the BMC had time enough.
    Forget(Token),
    /// Ask the back end for that command no more.
    Unregister(CommandSpec),
    /// The interface's maintenance mode, `IPMI_MAINTENANCE_MODE_*`.
    SetMaintenanceMode(i32),
}

/// A request on its way to the BMC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Names it in `handle_reply`.
    pub token: Token,
    /// The caller's message id. For a response its low 6 bits are the sequence number on the wire.
    pub msgid: i64,
    /// Where to.
    pub addr: Addr,
    /// Our own address and LUN on that channel, as the handle has set them.
    pub source: (u8, u8),
    /// Network function, as the caller gave it.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
    /// Data.
    pub data: Vec<u8>,
    /// Retries of a bridged message.
    pub timing: IpmiTimingParms,
}

/// Something the back end received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Where from.
    pub addr: Addr,
    /// Network function.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
    /// Data; of an answer the completion code comes first.
    pub data: Vec<u8>,
}

/// The core of the daemon.
#[derive(Debug)]
pub struct Mux {
    limits: Limits,
    channels: Channels,
    /// Address and LUN per channel that a new handle starts with.
    defaults: [(u8, u8); IPMI_NUM_CHANNELS],
    handles: HashMap<HandleId, Handle>,
    /// Handles with a queued request, each once, in the order of their turns.
    turns: VecDeque<HandleId>,
    /// Requests with the BMC, among them those nobody waits for any more.
    sent: HashMap<Token, Request>,
    deadlines: BTreeSet<(Instant, Token)>,
    /// Handle of each queued request, to find it when its deadline passes.
    queued: BTreeMap<Token, HandleId>,
    receivers: Receivers,
    event_listeners: usize,
    maintenance: BTreeSet<HandleId>,
    blocked_until: Option<Instant>,
    next_handle: u64,
    next_token: u64,
    actions: VecDeque<Action>,
    stats: Stats,
}

impl Mux {
    /// A core with no handle. `defaults` are the interface's own address and LUN per channel.
    #[must_use]
    pub fn new(
        limits: Limits,
        channels: Channels,
        defaults: [(u8, u8); IPMI_NUM_CHANNELS],
    ) -> Self {
        Self {
            limits,
            channels,
            defaults,
            handles: HashMap::new(),
            turns: VecDeque::new(),
            sent: HashMap::new(),
            deadlines: BTreeSet::new(),
            queued: BTreeMap::new(),
            receivers: Receivers::default(),
            event_listeners: 0,
            maintenance: BTreeSet::new(),
            blocked_until: None,
            next_handle: 1,
            next_token: 1,
            actions: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// What the shell is to do next, in order.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When `handle_timeout` is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        deadline.into_iter().chain(self.blocked_until).min()
    }

    /// A new handle on a node.
    ///
    /// # Errors
    /// `EBUSY` with [`MAX_HANDLES`] open, as the kernel answers with its 30 users.
    pub fn open(&mut self, now: Instant, owner: Owner) -> Result<HandleId, Errno> {
        if self.handles.len() >= MAX_HANDLES {
            self.stats.opens_refused += 1;
            return Err(Errno::EBUSY);
        }
        let id = HandleId(self.next_handle);
        self.next_handle += 1;
        self.stats.opens += 1;
        self.handles.insert(id, Handle::new(now, owner, self.defaults));
        Ok(id)
    }

    /// The handle is closed: what it waited for is dropped, what it held is given back.
    pub fn close(&mut self, now: Instant, id: HandleId) {
        let Some(handle) = self.handles.remove(&id) else { return };
        for request in handle.queue {
            self.queued.remove(&request.token);
            self.deadlines.remove(&(request.deadline, request.token));
        }
        self.turns.retain(|turn| *turn != id);
        let orphans: Vec<Token> =
            self.sent.iter().filter(|(_, r)| r.handle == Some(id)).map(|(t, _)| *t).collect();
        for token in orphans {
            self.abandon(now, token);
        }
        for spec in self.receivers.remove_all(id) {
            self.actions.push_back(Action::Unregister(spec));
        }
        if handle.gets_events {
            self.event_listener_left();
        }
        if self.maintenance.remove(&id) && self.maintenance.is_empty() {
            self.actions.push_back(Action::SetMaintenanceMode(IPMI_MAINTENANCE_MODE_AUTO));
        }
    }

    fn handle(&mut self, id: HandleId) -> Result<&mut Handle, Errno> {
        // The kernel names only handles it opened and has not released.
        self.handles.get_mut(&id).ok_or(Errno::EBADF)
    }

    /// Accepts a message from a handle; the checks are those of `i_ipmi_request`.
    ///
    /// # Errors
    /// `EINVAL` for what cannot be sent there, `EMSGSIZE`, `EBUSY` with [`MAX_MESSAGES`] of the handle
    /// unanswered or not yet received, `EAFNOSUPPORT` for a direct IPMB address.
    pub fn send(&mut self, now: Instant, id: HandleId, send: Send) -> Result<(), Errno> {
        let checked = match send.addr.kind() {
            Kind::SystemInterface => check_system_interface(&send),
            _ => self.channels.check(&send),
        };
        let defaults = self.limits;
        let token = Token(self.next_token);
        let handle = self.handle(id)?;
        if handle.messages() >= MAX_MESSAGES {
            handle.counters.refused += 1;
            return Err(Errno::EBUSY);
        }
        checked.inspect_err(|_| handle.counters.refused += 1)?;
        let timing = send.timing.unwrap_or(handle.timing);
        let deadline = now + deadline_class(&defaults, &send, timing);
        handle.counters.sent += 1;
        let first = handle.queue.is_empty();
        handle.queue.push_back(Request {
            token,
            handle: Some(id),
            deadline,
            timing,
            source: handle.source[usize::from(send.addr.channel())],
            send,
        });
        self.next_token += 1;
        self.queued.insert(token, id);
        self.deadlines.insert((deadline, token));
        if first {
            self.turns.push_back(id);
        }
        self.pump();
        Ok(())
    }

    /// Moves requests to the BMC while the window has room, one of each handle in turn.
    fn pump(&mut self) {
        while self.sent.len() < self.limits.window && self.blocked_until.is_none() {
            let Some(id) = self.turns.pop_front() else { return };
            let handle = self.handles.get_mut(&id).expect("a closed handle has no turn");
            let request = handle.queue.pop_front().expect("a handle without requests has no turn");
            handle.in_flight += 1;
            if !handle.queue.is_empty() {
                self.turns.push_back(id);
            }
            self.queued.remove(&request.token);
            self.stats.to_bmc += 1;
            self.actions.push_back(Action::Send(request.outgoing()));
            self.sent.insert(request.token, request);
        }
    }

    /// The BMC answered; `data` starts with the completion code.
    pub fn handle_reply(&mut self, _now: Instant, token: Token, reply: Incoming) {
        let Some(request) = self.sent.remove(&token) else {
            self.stats.late_replies += 1;
            return;
        };
        self.deadlines.remove(&(request.deadline, token));
        match request.handle {
            Some(id) => self.answer(id, &request, reply.addr, reply.netfn, reply.data),
            None => self.stats.late_replies += 1,
        }
        self.pump();
    }

    /// The back end did not take a request. `EAGAIN` and `EBUSY`: it is tried again; anything else
    /// is answered with completion code FF.
    pub fn handle_refusal(&mut self, now: Instant, token: Token, errno: Errno) {
        let Some(request) = self.sent.remove(&token) else { return };
        let again = matches!(errno, Errno::EAGAIN | Errno::EBUSY);
        match request.handle {
            Some(id) if again => {
                let handle = self.handles.get_mut(&id).expect("a closed handle owns no request");
                handle.in_flight -= 1;
                self.turns.retain(|turn| *turn != id);
                self.turns.push_front(id);
                self.queued.insert(token, id);
                // In its old place: of several that are refused the first must stay the first.
                let place = handle.queue.partition_point(|r| r.token < token);
                handle.queue.insert(place, request);
                self.stats.to_bmc -= 1;
                self.blocked_until = Some(now + BACK_OFF);
            }
            owner => {
                self.deadlines.remove(&(request.deadline, token));
                if let Some(id) = owner {
                    self.stats.refused_by_back_end += 1;
                    self.answer_with(id, &request, ipmi::CompletionCode::UNSPECIFIED);
                }
            }
        }
        self.pump();
    }

    /// Something passed its deadline, or a pause is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.blocked_until.is_some_and(|until| until <= now) {
            self.blocked_until = None;
        }
        while let Some((at, token)) = self.deadlines.first().copied() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            self.expire(now, token);
        }
        self.pump();
    }

    fn expire(&mut self, now: Instant, token: Token) {
        if let Some(id) = self.queued.remove(&token) {
            let handle = self.handles.get_mut(&id).expect("a closed handle has no queue");
            let at = handle.queue.iter().position(|r| r.token == token);
            let request = at.and_then(|at| handle.queue.remove(at)).expect("queued means queued");
            handle.in_flight += 1;
            if handle.queue.is_empty() {
                self.turns.retain(|turn| *turn != id);
            }
            self.time_out(id, &request);
            return;
        }
        let Some(request) = self.sent.get_mut(&token) else { return };
        match request.handle {
            Some(id) => {
                let request = request.clone();
                self.time_out(id, &request);
                self.abandon(now, token);
            }
            None => {
                self.sent.remove(&token);
                self.stats.never_answered += 1;
                self.actions.push_back(Action::Forget(token));
            }
        }
    }

    fn time_out(&mut self, id: HandleId, request: &Request) {
        self.stats.timeouts += 1;
        let handle = self.handles.get_mut(&id).expect("a closed handle owns no request");
        handle.counters.timeouts += 1;
        self.answer_with(id, request, ipmi::CompletionCode::TIMEOUT);
    }

    /// Nobody waits for this request any more, but the BMC still has it.
    fn abandon(&mut self, now: Instant, token: Token) {
        let request = self.sent.get_mut(&token).expect("only what was sent is abandoned");
        self.deadlines.remove(&(request.deadline, token));
        request.handle = None;
        request.deadline = now + self.limits.abandoned_for;
        self.deadlines.insert((request.deadline, token));
    }

    /// Answers a request in the BMC's stead.
    fn answer_with(&mut self, id: HandleId, request: &Request, code: ipmi::CompletionCode) {
        let netfn = request.send.netfn | 1;
        self.answer(id, request, request.send.addr.of_answer(), netfn, vec![code.0]);
    }

    fn answer(&mut self, id: HandleId, request: &Request, addr: Addr, netfn: u8, data: Vec<u8>) {
        let handle = self.handles.get_mut(&id).expect("a closed handle owns no request");
        handle.in_flight -= 1;
        handle.counters.answered += 1;
        let is_response = request.send.netfn & 1 != 0;
        let recv_type =
            if is_response { IPMI_RESPONSE_RESPONSE_TYPE } else { IPMI_RESPONSE_RECV_TYPE };
        let (msgid, cmd) = (request.send.msgid, request.send.cmd);
        handle.inbox.push_back(Message { recv_type, addr, msgid, netfn, cmd, data });
        self.actions.push_back(Action::Wake(id));
    }

    /// An event from the BMC: every handle that asked gets a copy.
    pub fn handle_event(&mut self, event: &Incoming) {
        self.stats.events += 1;
        let Self { handles, actions, stats, .. } = self;
        for (id, handle) in handles.iter_mut().filter(|(_, h)| h.gets_events) {
            let message = unsolicited(IPMI_ASYNC_EVENT_RECV_TYPE, 0, event);
            stats.events_dropped += u64::from(handle.push_unsolicited(message));
            actions.push_back(Action::Wake(*id));
        }
    }

    /// A command from another controller, with its sequence number: the handle that registered for it
    /// gets it. Returns whether one had.
    pub fn handle_command(&mut self, seq: i64, command: &Incoming) -> bool {
        let (netfn, cmd) = (command.netfn, command.cmd);
        let receiver = self.receivers.find(netfn, cmd, command.addr.channel());
        let Some((id, handle)) = receiver.and_then(|id| Some((id, self.handles.get_mut(&id)?)))
        else {
            self.stats.commands_unclaimed += 1;
            return false;
        };
        self.stats.commands += 1;
        let dropped = handle.push_unsolicited(unsolicited(IPMI_CMD_RECV_TYPE, seq, command));
        self.stats.events_dropped += u64::from(dropped);
        self.actions.push_back(Action::Wake(id));
        true
    }

    /// The message a handle would receive next.
    ///
    /// # Errors
    /// `EAGAIN` where there is none.
    pub fn peek(&mut self, id: HandleId) -> Result<&Message, Errno> {
        self.handle(id)?.inbox.front().ok_or(Errno::EAGAIN)
    }

    /// Takes the message that [`Mux::peek`] showed.
    pub fn take(&mut self, id: HandleId) {
        if let Ok(handle) = self.handle(id) {
            handle.take();
        }
    }

    /// Lays out the next message for a caller; it is taken when it is delivered.
    ///
    /// # Errors
    /// `EAGAIN` where there is none.
    pub fn receive(
        &mut self,
        id: HandleId,
        receive: &Receive,
    ) -> Result<crate::devintf::Delivery, Errno> {
        let delivery = receive.deliver(self.peek(id)?);
        if matches!(delivery, crate::devintf::Delivery::Deliver(..)) {
            self.take(id);
        }
        Ok(delivery)
    }

    /// Whether a handle has something to receive.
    #[must_use]
    pub fn is_readable(&self, id: HandleId) -> bool {
        self.handles.get(&id).is_some_and(|h| !h.inbox.is_empty())
    }

    /// Turns events on or off for a handle.
    ///
    /// # Errors
    /// `EBADF` for an unknown handle.
    pub fn set_gets_events(&mut self, id: HandleId, on: bool) -> Result<(), Errno> {
        let handle = self.handle(id)?;
        let was = std::mem::replace(&mut handle.gets_events, on);
        match (was, on) {
            (false, true) => {
                self.event_listeners += 1;
                if self.event_listeners == 1 {
                    self.actions.push_back(Action::SetGetsEvents(true));
                }
            }
            (true, false) => self.event_listener_left(),
            _ => {}
        }
        Ok(())
    }

    fn event_listener_left(&mut self) {
        self.event_listeners -= 1;
        if self.event_listeners == 0 {
            self.actions.push_back(Action::SetGetsEvents(false));
        }
    }

    /// Books commands of other controllers for a handle. The shell then asks the back end, and takes
    /// the booking back with [`Mux::unregister`] where that refuses.
    ///
    /// # Errors
    /// `EBUSY` where another handle has one of them, `ENOMEM` with [`MAX_RECEIVERS`] bookings.
    pub fn register(&mut self, id: HandleId, spec: CommandSpec) -> Result<(), Errno> {
        self.handle(id)?;
        self.receivers.add(id, spec)
    }

    /// Takes bookings of a handle back.
    ///
    /// # Errors
    /// `ENOENT` where the handle has none of them.
    pub fn unregister(&mut self, id: HandleId, spec: CommandSpec) -> Result<(), Errno> {
        self.handle(id)?;
        for gone in self.receivers.remove(id, spec)? {
            self.actions.push_back(Action::Unregister(gone));
        }
        Ok(())
    }

    /// Address and LUN of a handle on a channel.
    ///
    /// # Errors
    /// `EINVAL` for a channel over 15.
    pub fn source(&mut self, id: HandleId, channel: u16) -> Result<&mut (u8, u8), Errno> {
        self.handle(id)?.source.get_mut(usize::from(channel)).ok_or(Errno::EINVAL)
    }

    /// The timing a handle uses where a send names none.
    ///
    /// # Errors
    /// `EBADF` for an unknown handle.
    pub fn timing(&mut self, id: HandleId) -> Result<&mut IpmiTimingParms, Errno> {
        Ok(&mut self.handle(id)?.timing)
    }

    /// Sets the interface's maintenance mode. While a handle holds it on, it is on; it goes back to
    /// automatic when the last such handle sets it otherwise or closes.
    ///
    /// # Errors
    /// `EINVAL` for a mode that is none.
    pub fn set_maintenance_mode(&mut self, id: HandleId, mode: i32) -> Result<(), Errno> {
        self.handle(id)?;
        let set = match mode {
            IPMI_MAINTENANCE_MODE_ON => {
                self.maintenance.insert(id);
                IPMI_MAINTENANCE_MODE_ON
            }
            IPMI_MAINTENANCE_MODE_AUTO | kernel_abi::ipmi_devintf::IPMI_MAINTENANCE_MODE_OFF => {
                self.maintenance.remove(&id);
                if !self.maintenance.is_empty() {
                    return Ok(());
                }
                mode
            }
            _ => return Err(Errno::EINVAL),
        };
        self.actions.push_back(Action::SetMaintenanceMode(set));
        Ok(())
    }

    /// All handles, oldest first.
    pub fn handles(&self) -> impl Iterator<Item = (HandleId, Info)> {
        let mut all: Vec<_> = self.handles.iter().map(|(id, h)| (*id, h.info())).collect();
        all.sort_by_key(|(id, _)| *id);
        all.into_iter()
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            handles: self.handles.len(),
            queued: self.queued.len(),
            in_flight: self.sent.values().filter(|r| r.handle.is_some()).count(),
            abandoned: self.sent.values().filter(|r| r.handle.is_none()).count(),
            event_listeners: self.event_listeners,
            ..self.stats
        }
    }
}

fn unsolicited(recv_type: i32, msgid: i64, from: &Incoming) -> Message {
    Message {
        recv_type,
        addr: from.addr,
        msgid,
        netfn: from.netfn,
        cmd: from.cmd,
        data: from.data.clone(),
    }
}

#[cfg(test)]
mod tests;
