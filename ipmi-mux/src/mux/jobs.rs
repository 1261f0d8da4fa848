// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the mux asks the BMC for itself, and the requests that wait for the answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ipmi::{CompletionCode, NetFn};

use super::request::{Asker, Moment, Place, Request};
use super::scheduler::Class;
use super::{HandleId, Mux, Token, leases, repositories};
use crate::addr::Addr;
use crate::devintf::Send;

/// A question or a command of the mux's own. Each is there once at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Job {
    /// Take the real reservation.
    Reserve(repositories::Key),
    /// Read the info of a repository.
    Info(repositories::Key),
    /// Read the global enables.
    Enables,
    /// Set them to what those who are there need.
    RestoreEnables(u8),
    /// Say "set complete" for this holder, which is gone.
    RollBack(leases::Key, HandleId),
    /// See whether the BMC answers again.
    Probe,
}

impl Job {
    /// The command; `None` where there is nothing to do.
    fn send(self) -> Option<Send> {
        let bmc = Addr::system_interface(0);
        let app = NetFn::APP.get();
        let (addr, netfn, cmd, data) = match self {
            Self::Reserve(key) => {
                let (netfn, _, reserve) = key.kind.commands();
                (key.addr, netfn, reserve, vec![])
            }
            Self::Info(key) => {
                let (netfn, info, _) = key.kind.commands();
                (key.addr, netfn, info, vec![])
            }
            Self::Enables => (bmc, app, 0x2f, vec![]),
            Self::RestoreEnables(value) => (bmc, app, 0x2e, vec![value]),
            Self::RollBack((addr, part), _) => {
                let (netfn, cmd, data) = leases::roll_back(part)?;
                (addr, netfn, cmd, data)
            }
            Self::Probe => (bmc, app, 0x01, vec![]),
        };
        Some(Send { addr, msgid: 0, netfn, cmd, data, timing: None })
    }
}

/// How often a job that must be done is tried again, [`AGAIN_AFTER`] each: a minute.
const MAX_TRIES: u8 = 120;
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What the mux must do and could not: the BMC was busy or did not answer.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// Parts and their holders that are gone, and how often we tried.
    pub roll_backs: BTreeMap<(leases::Key, HandleId), u8>,
    /// The global enables are not what they must be; how often we tried.
    enables: Option<u8>,
    /// When to try again.
    pub at: Option<Instant>,
}

impl Owed {
    pub fn len(&self) -> usize {
        self.roll_backs.len() + usize::from(self.enables.is_some())
    }

    fn is_tried(&mut self, job: Job) -> bool {
        let tries = match job {
            Job::RollBack(key, holder) => self.roll_backs.entry((key, holder)).or_default(),
            _ => self.enables.get_or_insert_default(),
        };
        *tries += 1;
        *tries <= MAX_TRIES
    }

    fn done(&mut self, job: Job) {
        match job {
            Job::RollBack(key, holder) => drop(self.roll_backs.remove(&(key, holder))),
            _ => self.enables = None,
        }
    }
}

/// The handle number that no handle has: the mux's own requests.
pub(super) const OWN: HandleId = HandleId(0);

impl Mux {
    /// Sees to it that the job is on its way.
    pub(super) fn start_job(&mut self, now: Instant, job: Job) {
        if self.jobs.contains_key(&job) {
            return;
        }
        let Some(send) = job.send() else { return };
        self.jobs.insert(job, vec![]);
        let token = self.new_token();
        let timing = super::handle::DEFAULT_TIMING;
        let deadline = now + super::deadline_class(&self.limits, &send, timing);
        let request = Request {
            token,
            asker: Asker::Job(job),
            sender: OWN,
            controller: OWN,
            class: Class::Urgent,
            accepted: now,
            asked_after: self.handed_over,
            deadline,
            timing,
            source: self.defaults[usize::from(send.addr.channel())],
            send,
            place: Place::Waiting,
            replays: 0,
        };
        self.deadlines.insert((deadline, token));
        self.requests.insert(token, request);
        self.scheduler.push_own(token);
    }

    /// A job has its answer, completion code first; those who wait for it go on.
    pub(super) fn finish_job(&mut self, now: Instant, job: Job, data: &[u8], sent: Moment) {
        let waiting = self.jobs.remove(&job).unwrap_or_default();
        let code = data.first().map_or(CompletionCode::UNSPECIFIED, |code| CompletionCode(*code));
        let failed = match (job, data) {
            (Job::Reserve(key), [0, low, high, ..]) => {
                if let Some(repository) = self.repositories.get_mut(&key) {
                    repository.reserved(u16::from_le_bytes([*low, *high]), sent);
                }
                false
            }
            // What the info says was learnt when it came, see `learn`.
            (Job::Info(_), [0, ..]) => false,
            // It does not come, which may be different next time.
            (Job::Info(_), [0xc0 | 0xc3 | 0xff, ..]) => true,
            (Job::Info(key), _) => {
                if let Some(repository) = self.repositories.get_mut(&key) {
                    repository.learn(&[], sent);
                }
                false
            }
            (Job::Enables, [0, value, ..]) => {
                self.enables.learn(*value);
                false
            }
            (Job::RestoreEnables(_) | Job::RollBack(..), [0xc0 | 0xc3 | 0xff, ..]) => {
                if self.owed.is_tried(job) {
                    self.owed.at = Some(now + AGAIN_AFTER);
                } else {
                    self.owed.done(job);
                }
                false
            }
            (Job::RestoreEnables(_) | Job::RollBack(..), _) => {
                self.owed.done(job);
                // Somebody may have come or gone meanwhile.
                self.restore_enables(now);
                false
            }
            (Job::Probe, _) => false,
            _ => true,
        };
        if failed {
            let code = if code.is_ok() { CompletionCode::UNSPECIFIED } else { code };
            self.unpark(&waiting);
            for token in waiting {
                self.answer_myself(now, token, code);
            }
        } else {
            self.resume(now, waiting);
        }
    }

    /// Sees to it that the BMC has the global enables that it must have.
    pub(super) fn restore_enables(&mut self, now: Instant) {
        if let Some(left) = self.enables.unsettled() {
            self.start_job(now, Job::RestoreEnables(left));
        }
    }

    /// Tries again what must be done. A part that somebody has taken since is left alone.
    pub(super) fn pay_back(&mut self, now: Instant) {
        self.owed.at = None;
        if self.breaker.is_open() {
            self.owed.at = (self.owed.len() > 0).then_some(now + AGAIN_AFTER);
            return;
        }
        for (key, holder) in self.owed.roll_backs.keys().copied().collect::<Vec<_>>() {
            if self.leases.holder(key).is_none() {
                self.start_job(now, Job::RollBack(key, holder));
            } else {
                self.owed.at = Some(now + AGAIN_AFTER);
            }
        }
        match self.enables.unsettled() {
            Some(_) if self.owed.enables.is_some() => self.restore_enables(now),
            _ => self.owed.enables = None,
        }
    }

    /// Requests go on where they stood.
    pub(super) fn resume(&mut self, now: Instant, tokens: Vec<Token>) {
        self.unpark(&tokens);
        for token in tokens {
            self.settle(now, token, false);
        }
    }

    fn unpark(&mut self, tokens: &[Token]) {
        for token in tokens {
            let Some(request) = self.requests.get_mut(token) else { continue };
            request.place = Place::Waiting;
            if let Asker::Handle(id) = request.asker {
                self.scheduler.set_blocked(id, request.class, false);
            }
        }
    }

    /// A request waits for a job.
    pub(super) fn park(&mut self, now: Instant, token: Token, job: Job) {
        self.start_job(now, job);
        let request = self.requests.get_mut(&token).expect("who parks a request has it");
        request.place = Place::Parked(job);
        if let Asker::Handle(id) = request.asker {
            self.scheduler.set_blocked(id, request.class, true);
        }
        self.jobs.entry(job).or_default().push(token);
    }
}
