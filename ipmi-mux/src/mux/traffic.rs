// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way of a request through the core: accepted, settled, sent, answered. What comes back from the BMC is in
//! `replies`, what never does in `overdue`.

use std::time::Instant;

use ipmi::CompletionCode;
use kernel_abi::ipmi_devintf::{IPMI_RESPONSE_RECV_TYPE, IPMI_RESPONSE_RESPONSE_TYPE};
use nix::errno::Errno;

use super::request::{Asker, Place, Request, Sent, check_system_interface};
use super::trace::{Msg, What};
use super::verdict::{Origin, Verdict, Wire};
use super::{
    Action, Audited, Class, HandleId, Incoming, MAX_MESSAGES, Mux, Owner, Token, deadline_class,
};
use crate::addr::Kind;
use crate::command::{self, Effect};
use crate::devintf::{Message, Send};
use crate::policy;

impl Mux {
    /// Accepts a message from a handle; the checks are those of `i_ipmi_request`.
    ///
    /// # Errors
    /// `EINVAL` for what cannot be sent there, `EMSGSIZE`, `EBUSY` with [`MAX_MESSAGES`] of the handle
    /// unanswered or not yet received, `EAFNOSUPPORT` for a direct IPMB address.
    pub fn send(&mut self, now: Instant, id: HandleId, send: Send) -> Result<(), Errno> {
        let accepted = self.accept(id, &send);
        let request = match accepted {
            Ok((asker, controller)) => self.new_request(now, (id, controller), asker, send),
            Err(errno) => {
                if let Some(handle) = self.handles.get_mut(&id) {
                    handle.counters.refused += 1;
                    self.traces.push(id, handle.owner, || What::Refused(Msg::from(&send), errno));
                }
                return Err(errno);
            }
        };
        if let Some(handle) = self.handles.get(&id) {
            self.traces.push(id, handle.owner, || What::Request(Msg::from(&request.send)));
        }
        let (token, asker, class) = (request.token, request.sender, request.class);
        let asker = if let Asker::Handle(to) = request.asker { to } else { asker };
        let refused = self.refusal(&request);
        self.requests.insert(token, request);
        if let Some(code) = refused {
            self.answer_myself(now, token, code);
        } else if self.scheduler.is_waiting(asker) {
            self.scheduler.push(asker, class, token);
        } else {
            self.settle(now, token, false);
        }
        self.pump(now);
        Ok(())
    }

    /// With what a message is answered that its sender may not send.
    fn refusal(&mut self, request: &Request) -> Option<CompletionCode> {
        let owner = self.handles.get(&request.sender)?.owner;
        let denied = self.nodes.get(&owner.node).and_then(|n| n.policy.check(&request.send).err());
        if let Some(denied) = denied {
            self.stats.denied += 1;
            self.actions.push_back(Action::Denied(request.sender, owner, denied));
            return Some(CompletionCode::INSUFFICIENT_PRIVILEGE);
        }
        let for_others = |(netfn, cmd): (u8, u8)| {
            !self.exclusive.allows(request.controller, owner.node, netfn, cmd)
        };
        if request.is_direct()
            && policy::commands_for_bmc(&request.send).into_iter().any(for_others)
        {
            self.stats.reserved_refusals += 1;
            return Some(self.limits.reserved_code);
        }
        None
    }

    /// Checks a message; returns who gets the answer, and the sender's controller.
    fn accept(&mut self, id: HandleId, send: &Send) -> Result<(HandleId, HandleId), Errno> {
        let checked = match send.addr.kind() {
            Kind::SystemInterface => check_system_interface(send),
            _ => self.channels.check(send),
        };
        let handle = self.handle(id)?;
        let controller = handle.controller;
        if handle.messages() >= MAX_MESSAGES {
            return Err(Errno::EBUSY);
        }
        checked?;
        let routed = self.sequences.route(send.msgid);
        let to =
            routed.filter(|to| self.handles.get(to).is_some_and(|h| h.controller == controller));
        let to = to.unwrap_or(id);
        if to != id && self.handle(to)?.messages() >= MAX_MESSAGES {
            return Err(Errno::EBUSY);
        }
        Ok((to, controller))
    }

    fn new_request(
        &mut self,
        now: Instant,
        (id, controller): (HandleId, HandleId),
        to: HandleId,
        send: Send,
    ) -> Request {
        let token = self.new_token();
        let background =
            self.nodes.get(&self.handles[&id].owner.node).is_some_and(|n| n.background);
        let class = match (command::is_urgent(send.netfn, send.cmd), background) {
            (true, _) => Class::Urgent,
            (false, true) => Class::Background,
            (false, false) => Class::Normal,
        };
        let handle = self.handles.get_mut(&id).expect("accepted");
        handle.counters.sent += 1;
        let timing = send.timing.unwrap_or(handle.timing);
        let source = handle.source[usize::from(send.addr.channel())];
        let deadline = now + deadline_class(&self.limits, &send, timing);
        self.handles.get_mut(&to).expect("accepted").pending.insert(token);
        self.deadlines.insert((deadline, token));
        Request {
            token,
            asker: Asker::Handle(to),
            sender: id,
            controller,
            class,
            accepted: now,
            asked_after: self.handed_over,
            deadline,
            timing,
            source,
            send,
            place: Place::Waiting,
            replays: 0,
        }
    }

    pub(super) fn new_token(&mut self) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        token
    }

    /// Decides what becomes of a request that is in no queue, and does it. One for the BMC waits for
    /// its turn unless this is it.
    pub(super) fn settle(&mut self, now: Instant, token: Token, its_turn: bool) {
        let Some(request) = self.requests.remove(&token) else { return };
        let verdict = self.verdict(now, &request);
        let asker = request.asker;
        let class = request.class;
        self.requests.insert(token, request);
        if its_turn
            && !matches!(verdict, Verdict::Send(_))
            && let Asker::Handle(id) = asker
        {
            self.scheduler.charge(id, std::time::Duration::ZERO);
        }
        match verdict {
            Verdict::Answer(reply, origin) => self.conclude(now, token, &reply, origin),
            Verdict::Follow(leader) => self.follow(token, leader),
            Verdict::Wait(job) => self.park(now, token, job),
            Verdict::Send(wire) if its_turn => self.dispatch(now, token, wire),
            Verdict::Send(_) => match asker {
                Asker::Handle(id) => self.scheduler.put_back(id, class, token),
                _ => self.scheduler.put_back_own(token),
            },
        }
    }

    fn follow(&mut self, token: Token, leader: Token) {
        self.stats.shared += 1;
        self.request_mut(token).place = Place::Following(leader);
        match &mut self.request_mut(leader).place {
            Place::Sent(sent) => sent.followers.push(token),
            _ => unreachable!("only what is with the BMC is shared"),
        }
    }

    pub(super) fn request_mut(&mut self, token: Token) -> &mut Request {
        self.requests.get_mut(&token).expect("a live request is in the table")
    }

    /// Moves requests to the BMC while the window has room.
    pub(super) fn pump(&mut self, now: Instant) {
        while self.with_bmc < self.limits.window && self.blocked_until.is_none() {
            let Some(token) = self.scheduler.next() else { return };
            self.settle(now, token, true);
        }
    }

    fn dispatch(&mut self, now: Instant, token: Token, wire: Wire) {
        let request = self.requests.get_mut(&token).expect("a live request is in the table");
        let outgoing = request.outgoing(wire.data);
        let controller = request.controller;
        if is_change(&request.send) {
            self.cache.disturb(&request.send);
        }
        if let Some((key, _)) = &wire.read {
            self.cache.share(key.clone(), token);
        }
        self.handed_over += 1;
        let number = self.handed_over;
        let taken = wire.lease.filter(|key| self.leases.take(now, controller, *key, number));
        if self.with_bmc == 0 {
            self.silent_since = Some(now);
        }
        self.with_bmc += 1;
        self.stats.to_bmc += 1;
        let epoch = self.cache.epoch();
        let enables = wire.enables.map(|value| self.enables.sent(value));
        self.request_mut(token).place = Place::Sent(Box::new(Sent {
            at: now,
            number,
            epoch,
            generation: wire.generation,
            real: wire.real,
            read: wire.read,
            leased: taken,
            enables,
            followers: vec![],
        }));
        self.actions.push_back(Action::Send(outgoing));
    }

    /// Takes a request that is with the BMC out of the table, if it is one.
    pub(super) fn take_sent(&mut self, token: Token) -> Option<(Request, Box<Sent>)> {
        if !matches!(self.requests.get(&token)?.place, Place::Sent(_)) {
            return None;
        }
        let mut request = self.requests.remove(&token)?;
        let place = std::mem::replace(&mut request.place, Place::Waiting);
        let Place::Sent(sent) = place else { unreachable!("looked at above") };
        self.with_bmc -= 1;
        self.abandoned -= usize::from(request.asker == Asker::Nobody);
        if let Some((key, _)) = &sent.read {
            self.cache.unshare(key, token);
        }
        Some((request, sent))
    }

    /// A request that is in no queue has its answer.
    pub(super) fn conclude(
        &mut self,
        now: Instant,
        token: Token,
        reply: &Incoming,
        origin: Origin,
    ) {
        let Some(request) = self.requests.remove(&token) else { return };
        self.deadlines.remove(&(request.deadline, token));
        match request.asker {
            Asker::Handle(id) => self.answer(now, id, &request, reply, origin),
            Asker::Job(job) => self.finish_job(now, job, &reply.data, (now, 0)),
            Asker::Nobody => {}
        }
    }

    pub(super) fn answer(
        &mut self,
        now: Instant,
        id: HandleId,
        request: &Request,
        reply: &Incoming,
        origin: Origin,
    ) {
        let Incoming { addr, netfn, data, .. } = reply.clone();
        let was_sent = origin == Origin::Bmc || matches!(request.place, Place::Sent(_));
        if was_sent && let Some(sender) = self.handles.get(&request.sender) {
            let owner = sender.owner;
            self.audit(request, owner, data.first().copied());
        }
        let handle = self.handles.get_mut(&id).expect("a closed handle waits for nothing");
        self.traces.answer(now, id, handle.owner, origin, request, &data);
        handle.pending.remove(&request.token);
        handle.counters.answered += 1;
        let is_response = request.send.netfn & 1 != 0;
        let recv_type =
            if is_response { IPMI_RESPONSE_RESPONSE_TYPE } else { IPMI_RESPONSE_RECV_TYPE };
        let (msgid, cmd) = (request.send.msgid, request.send.cmd);
        handle.inbox.push_back(Message { recv_type, addr, msgid, netfn, cmd, data });
        self.actions.push_back(Action::Wake(id));
    }

    /// Writes down a command that may have changed something.
    pub(super) fn audit(&mut self, request: &Request, owner: Owner, code: Option<u8>) {
        if !is_change(&request.send) {
            return;
        }
        self.actions.push_back(Action::Audit(Audited {
            handle: request.sender,
            owner,
            addr: request.send.addr,
            netfn: request.send.netfn,
            cmd: request.send.cmd,
            data: request.send.data.clone(),
            code,
        }));
    }
}

pub(super) fn is_change(send: &Send) -> bool {
    command::effect(send.netfn, send.cmd, &send.data) == Effect::Change
}
