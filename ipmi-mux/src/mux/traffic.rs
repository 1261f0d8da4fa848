// SPDX-License-Identifier: MIT OR Apache-2.0
//! The way of a request through the core: accepted, settled, sent, answered.

use std::time::Instant;

use ipmi::{CompletionCode, NetFn};
use kernel_abi::ipmi_devintf::{IPMI_RESPONSE_RECV_TYPE, IPMI_RESPONSE_RESPONSE_TYPE};
use nix::errno::Errno;

use super::enables::Setting;
use super::jobs::Job;
use super::leases::{Taken, Wish};
use super::repositories::{self, Role};
use super::request::{Asker, Place, Request, Sent, check_system_interface};
use super::trace::{Msg, What};
use super::verdict::{Origin, Verdict, Wire, own_answer};
use super::{
    Action, Audited, BACK_OFF, Class, HandleId, Incoming, MAX_MESSAGES, Mux, Owner, Token,
    deadline_class,
};
use crate::addr::Kind;
use crate::command::{self, Effect};
use crate::devintf::{Message, Send};
use crate::policy;

/// How often a request is sent again because its reservation was cancelled, before its handle is told.
const MAX_REPLAYS: u8 = 4;

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

    fn request_mut(&mut self, token: Token) -> &mut Request {
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
    fn take_sent(&mut self, token: Token) -> Option<(Request, Box<Sent>)> {
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

    /// The BMC answered; `data` starts with the completion code.
    pub fn handle_reply(&mut self, now: Instant, token: Token, reply: Incoming) {
        let timed_out = reply.data.first() == Some(&CompletionCode::TIMEOUT.0);
        let Some((request, sent)) = self.take_sent(token) else {
            self.stats.late_replies += 1;
            if !timed_out {
                self.bmc_answered(0);
            }
            self.heard(now, timed_out);
            return;
        };
        match (request.is_direct(), timed_out) {
            (true, true) => self.bmc_failed(now, sent.number),
            (true, false) => self.bmc_answered(sent.number),
            (false, _) => {}
        }
        self.deadlines.remove(&(request.deadline, token));
        self.charge(now, &request, &sent);
        self.learn(now, &request, &sent, &reply);
        let cancelled = reply.data.first() == Some(&CompletionCode::RESERVATION_CANCELLED.0);
        let again = sent.real.is_some() && cancelled;
        match request.asker {
            Asker::Job(job) => self.finish_job(now, job, &reply.data, sent.moment()),
            Asker::Handle(_) if again && request.replays < MAX_REPLAYS => {
                self.replay(now, request, sent.real);
            }
            Asker::Handle(id) => {
                self.answer(now, id, &request, &reply, Origin::Bmc);
            }
            Asker::Nobody => self.stats.late_replies += 1,
        }
        for follower in sent.followers {
            if again {
                self.request_mut(follower).place = Place::Waiting;
                self.settle(now, follower, false);
            } else {
                self.conclude(now, follower, &reply, Origin::Shared);
            }
        }
        self.heard(now, timed_out);
        self.pump(now);
    }

    /// Sends a request again whose reservation `real` was cancelled.
    fn replay(&mut self, now: Instant, mut request: Request, real: Option<u16>) {
        self.stats.replays += 1;
        let repository = repositories::role(&request.send).map(|(key, ..)| key);
        let repository = repository.and_then(|key| self.repositories.get(&key));
        // Where we have another by now it was we who cancelled it, for another client.
        let by_others = repository.is_none_or(|r| !r.has_real_beside(real));
        request.replays += u8::from(by_others);
        // Another token: the answer to the first may come twice.
        let before = std::mem::replace(&mut request.token, self.new_token());
        let token = request.token;
        if let Asker::Handle(id) = request.asker
            && let Some(handle) = self.handles.get_mut(&id)
        {
            handle.pending.remove(&before);
            handle.pending.insert(token);
        }
        self.deadlines.insert((request.deadline, token));
        self.requests.insert(token, request);
        self.settle(now, token, false);
    }

    /// The flow pays for the time since the BMC could begin with this request.
    fn charge(&mut self, now: Instant, request: &Request, sent: &Sent) {
        if let Asker::Handle(id) = request.asker {
            let began = self.last_answer.map_or(sent.at, |last| last.max(sent.at));
            self.scheduler.charge(id, now.saturating_duration_since(began));
        }
    }

    /// Takes to heart what an answer tells of the BMC.
    fn learn(&mut self, now: Instant, request: &Request, sent: &Sent, reply: &Incoming) {
        let ok = reply.data.first() == Some(&0);
        let send = &request.send;
        if is_change(send) {
            self.cache.disturb(send);
        }
        let mut generation = sent.generation;
        if let Some((key, role, changes)) = repositories::role(send)
            && let Some(repository) = self.repositories.get_mut(&key)
        {
            if role == Role::Info && ok {
                repository.learn(&reply.data[1..], sent.moment());
                generation = Some(repository.generation());
            }
            if changes && ok {
                repository.changed_by(Some(request.controller));
            }
            if let Some(real) = sent.real.filter(|_| !ok && is_cancelled(&reply.data)) {
                repository.cancelled(real);
                self.cache.drop_repository(send.addr);
            }
        }
        if let Some((key, keep)) = &sent.read
            && (generation.is_some() || *keep != command::Keep::Repository)
        {
            let sent = (sent.at, sent.epoch);
            self.cache.store(key.clone(), *keep, sent, generation.unwrap_or(0), reply);
        }
        let timed_out = reply.data.first() == Some(&CompletionCode::TIMEOUT.0);
        self.learn_of_lease(request, sent, ok, timed_out);
        if let Some(setting) = sent.enables {
            self.learn_of_enables(now, request, setting, ok);
        }
        if upsets_everything(send) {
            self.distrust();
        }
    }

    fn learn_of_lease(&mut self, request: &Request, sent: &Sent, ok: bool, timed_out: bool) {
        if let Some(key) = sent.leased {
            let how = match (ok, timed_out) {
                (true, _) => Taken::Done,
                (_, true) => Taken::Unknown,
                _ => Taken::Failed,
            };
            self.leases.taken(request.controller, key, sent.number, how);
            if ok && self.leases.holder(key) == Some(request.controller) {
                self.owed.roll_backs.retain(|(part, _), _| *part != key);
            }
        } else if let Some(Wish::GiveBack(part)) = Wish::of(&request.send).filter(|_| ok) {
            let key = (request.send.addr, part);
            self.leases.give_back(request.controller, key, sent.number);
        }
    }

    fn learn_of_enables(&mut self, now: Instant, request: &Request, setting: Setting, ok: bool) {
        let own = matches!(request.asker, Asker::Job(_));
        if ok {
            let is_there = !own && self.controllers.contains_key(&request.controller);
            let value = request.send.data.first().filter(|_| is_there);
            self.enables.took(setting, value.map(|value| (request.controller, *value)));
        } else {
            self.enables.failed(setting);
        }
        // Of the mux's own that is seen to when the job ends.
        if !own {
            self.restore_enables(now);
        }
    }

    /// The BMC was reset or its firmware touched: nothing we know of it is certain.
    fn distrust(&mut self) {
        self.repositories.distrust_all();
        self.cache.clear();
        self.enables.distrust();
    }

    /// The back end did not take a request. `EAGAIN` and `EBUSY`: it is tried again; anything else
    /// is answered with completion code FF.
    pub fn handle_refusal(&mut self, now: Instant, token: Token, errno: Errno) {
        let Some((request, sent)) = self.take_sent(token) else { return };
        if let Asker::Handle(id) = request.asker {
            self.scheduler.charge(id, std::time::Duration::ZERO);
        }
        if let Some(key) = sent.leased {
            self.leases.taken(request.controller, key, sent.number, Taken::Failed);
        }
        if let Some(setting) = sent.enables {
            self.enables.refused(setting);
        }
        let (asker, class) = (request.asker, request.class);
        if matches!(errno, Errno::EAGAIN | Errno::EBUSY) && asker != Asker::Nobody {
            self.stats.to_bmc -= 1;
            self.blocked_until = Some(now + BACK_OFF);
            self.requests.insert(token, request);
            // In its old place: of several that are refused the first must stay the first.
            match asker {
                Asker::Handle(id) => self.scheduler.put_back(id, class, token),
                _ => self.scheduler.put_back_own(token),
            }
        } else {
            self.deadlines.remove(&(request.deadline, token));
            self.stats.refused_by_back_end += u64::from(asker != Asker::Nobody);
            let reply = own_answer(&request, &[CompletionCode::UNSPECIFIED.0]);
            match asker {
                Asker::Handle(id) => self.answer(now, id, &request, &reply, Origin::Mux),
                Asker::Job(job) => self.finish_job(now, job, &reply.data, (now, 0)),
                Asker::Nobody => {}
            }
        }
        self.settle_followers(now, sent.followers);
        self.pump(now);
    }

    fn settle_followers(&mut self, now: Instant, followers: Vec<Token>) {
        for follower in followers {
            self.request_mut(follower).place = Place::Waiting;
            self.settle(now, follower, false);
        }
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
        if self.owed.at.is_some_and(|at| at <= now) {
            self.pay_back(now);
        }
        if self.breaker.probe_at().is_some_and(|at| at <= now) {
            self.breaker.asked(now);
            self.start_job(now, Job::Probe);
        }
        self.pump(now);
    }

    fn expire(&mut self, now: Instant, token: Token) {
        let Some(request) = self.requests.get(&token) else { return };
        let (asker, direct) = (request.asker, request.is_direct());
        let number = if let Place::Sent(sent) = &request.place { Some(sent.number) } else { None };
        let is_sent = number.is_some();
        if is_sent && asker == Asker::Nobody {
            if let Some((request, sent)) = self.take_sent(token) {
                self.stats.never_answered += 1;
                self.actions.push_back(Action::Forget(token));
                if let Some(key) = sent.leased {
                    self.leases.taken(request.controller, key, sent.number, Taken::Unknown);
                }
                if let Some(setting) = sent.enables {
                    self.learn_of_enables(now, &request, setting, false);
                }
                self.settle_followers(now, sent.followers);
            }
            return;
        }
        self.stats.timeouts += u64::from(matches!(asker, Asker::Handle(_)));
        if let Asker::Handle(id) = asker
            && let Some(handle) = self.handles.get_mut(&id)
        {
            handle.counters.timeouts += 1;
        }
        let long = command::takes_long(request.send.netfn, request.send.cmd);
        if matches!(&request.place, Place::Sent(sent) if sent.enables.is_some()) {
            self.enables.in_doubt();
        }
        self.answer_myself(now, token, CompletionCode::TIMEOUT);
        self.restore_enables(now);
        // One that came to the BMC just before its deadline tells nothing of it.
        let silent = self.silent_since.map(|since| now.saturating_duration_since(since));
        let is_silent = silent.is_some_and(|silent| silent >= self.limits.deadline / 2);
        if let Some(number) = number.filter(|_| direct && !long && is_silent) {
            self.bmc_failed(now, number);
        }
    }

    /// Answers a request in the BMC's stead, wherever it is; one that is with the BMC is abandoned there.
    pub(super) fn answer_myself(&mut self, now: Instant, token: Token, code: CompletionCode) {
        let Some(request) = self.requests.get(&token) else { return };
        let reply = own_answer(request, &[code.0]);
        if !matches!(request.place, Place::Sent(_)) {
            self.take_off(token);
            self.conclude(now, token, &reply, Origin::Mux);
            return;
        }
        let asker = request.asker;
        if let Asker::Handle(id) = asker {
            let request = self.requests.remove(&token).expect("looked at above");
            self.answer(now, id, &request, &reply, Origin::Mux);
            self.requests.insert(token, request);
        }
        self.abandon(now, token);
        if let Asker::Job(job) = asker {
            self.finish_job(now, job, &reply.data, (now, 0));
        }
    }

    /// Takes a request out of where it waits.
    pub(super) fn take_off(&mut self, token: Token) {
        let Some(request) = self.requests.get(&token) else { return };
        let (asker, class) = (request.asker, request.class);
        match (&request.place, asker) {
            (Place::Waiting, Asker::Handle(id)) => self.scheduler.remove(id, token),
            (Place::Waiting, _) => self.scheduler.remove_own(token),
            (Place::Parked(job), asker) => {
                if let Some(waiting) = self.jobs.get_mut(job) {
                    waiting.retain(|other| *other != token);
                }
                if let Asker::Handle(id) = asker {
                    self.scheduler.set_blocked(id, class, false);
                }
            }
            (Place::Following(leader), _) => {
                let leader = *leader;
                if let Place::Sent(sent) = &mut self.request_mut(leader).place {
                    sent.followers.retain(|other| *other != token);
                }
            }
            (Place::Sent(_), _) => {}
        }
    }

    /// Nobody waits for this request any more, but the BMC still has it.
    pub(super) fn abandon(&mut self, now: Instant, token: Token) {
        let abandoned_for = self.limits.abandoned_for;
        let request = self.request_mut(token);
        let (before, asker) = (request.deadline, request.asker);
        request.asker = Asker::Nobody;
        request.deadline = now + abandoned_for;
        self.abandoned += 1;
        let request = self.request_mut(token);
        let Place::Sent(sent) = &request.place else { unreachable!("only what was sent") };
        let began = sent.at;
        let read = sent.read.clone();
        // Whether it took effect is not known.
        let changed = repositories::role(&request.send).filter(|(.., changes)| *changes);
        self.deadlines.remove(&(before, token));
        self.deadlines.insert((now + abandoned_for, token));
        if let Asker::Handle(id) = asker {
            self.scheduler.charge(id, now.saturating_duration_since(began));
        }
        if let Some((key, _)) = read {
            self.cache.unshare(&key, token);
        }
        if let Some(repository) = changed.and_then(|(key, ..)| self.repositories.get_mut(&key)) {
            repository.changed_by(None);
        }
    }

    /// A request that is in no queue has its answer.
    fn conclude(&mut self, now: Instant, token: Token, reply: &Incoming, origin: Origin) {
        let Some(request) = self.requests.remove(&token) else { return };
        self.deadlines.remove(&(request.deadline, token));
        match request.asker {
            Asker::Handle(id) => self.answer(now, id, &request, reply, origin),
            Asker::Job(job) => self.finish_job(now, job, &reply.data, (now, 0)),
            Asker::Nobody => {}
        }
    }

    fn answer(
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

    /// Something came back; a time-out is the interface's word that the BMC said nothing.
    fn heard(&mut self, now: Instant, timed_out: bool) {
        self.last_answer = Some(now);
        if !timed_out {
            self.silent_since = Some(now);
        }
    }

    /// The BMC answered the command of this number.
    fn bmc_answered(&mut self, number: u64) {
        if self.breaker.heard(number) {
            self.actions.push_back(Action::Breaker { open: false });
        }
    }

    /// The BMC did not answer the command of this number.
    fn bmc_failed(&mut self, now: Instant, number: u64) {
        if self.breaker.failed(now, number) {
            self.stats.breaker_openings += 1;
            self.actions.push_back(Action::Breaker { open: true });
            self.fail_waiting(now);
        }
    }

    /// Nobody waits for a BMC that does not answer: what can be answered without it is, the rest gets a
    /// time-out.
    fn fail_waiting(&mut self, now: Instant) {
        let is_waiting = |r: &&Request| matches!(r.place, Place::Waiting);
        let mut waiting: Vec<Token> =
            self.requests.values().filter(is_waiting).map(|r| r.token).collect();
        waiting.sort_unstable();
        for token in waiting {
            self.take_off(token);
            self.settle(now, token, false);
        }
    }
}

fn is_change(send: &Send) -> bool {
    command::effect(send.netfn, send.cmd, &send.data) == Effect::Change
}

fn is_cancelled(data: &[u8]) -> bool {
    data.first() == Some(&CompletionCode::RESERVATION_CANCELLED.0)
}

/// Cold and warm reset, and whatever the firmware's commands do.
fn upsets_everything(send: &Send) -> bool {
    match NetFn::new(send.netfn & 0x3f) {
        Some(NetFn::APP) => matches!(send.cmd, 0x02 | 0x03),
        Some(NetFn::FIRMWARE) => true,
        _ => false,
    }
}
