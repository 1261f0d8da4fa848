// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the back end says to a request: an answer or a refusal, and what is learnt from it.

use std::time::{Duration, Instant};

use ipmi::{CompletionCode, NetFn};
use nix::errno::Errno;

use super::enables::Setting;
use super::leases::{Taken, Wish};
use super::repositories::{self, Role};
use super::request::{Asker, Place, Request, Sent};
use super::traffic::is_change;
use super::verdict::{Origin, own_answer};
use super::{Action, BACK_OFF, Incoming, Mux, Token};
use crate::command;
use crate::devintf::Send;

/// How often a request is sent again because its reservation was cancelled, before its handle is told.
const MAX_REPLAYS: u8 = 4;

impl Mux {
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

    pub(super) fn learn_of_enables(
        &mut self,
        now: Instant,
        request: &Request,
        setting: Setting,
        ok: bool,
    ) {
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
            self.scheduler.charge(id, Duration::ZERO);
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

    pub(super) fn settle_followers(&mut self, now: Instant, followers: Vec<Token>) {
        for follower in followers {
            self.request_mut(follower).place = Place::Waiting;
            self.settle(now, follower, false);
        }
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
    pub(super) fn bmc_failed(&mut self, now: Instant, number: u64) {
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
