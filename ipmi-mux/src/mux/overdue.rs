// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deadlines, and requests that end without the BMC.

use std::time::Instant;

use ipmi::CompletionCode;

use super::jobs::Job;
use super::leases::Taken;
use super::repositories;
use super::request::{Asker, Place};
use super::verdict::{Origin, own_answer};
use super::{Action, Mux, Token};
use crate::command;

impl Mux {
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
}
