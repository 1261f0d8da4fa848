// SPDX-License-Identifier: MIT OR Apache-2.0
//! What becomes of a request: who answers it, and with what the BMC gets to see.

use std::time::Instant;

use ipmi::{CompletionCode, NetFn};

use super::cache::{self, Found};
use super::jobs::Job;
use super::leases::{self, Wish};
use super::repositories::{self, Role};
use super::request::{Asker, Request};
use super::{Incoming, Mux, Token, handle};
use crate::command::{self, Effect, Keep};

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The BMC, for this request.
    Bmc,
    /// The BMC, for an identical read that was on its way.
    Shared,
    /// The BMC, a moment ago.
    Cache,
    /// The mux: refused, timed out, or the handle's own state.
    Mux,
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is answered now.
    Answer(Incoming, Origin),
    /// It gets the answer of this one.
    Follow(Token),
    /// It has to wait for this.
    Wait(Job),
    /// It goes to the BMC.
    Send(Wire),
}

/// What the BMC gets and what is remembered of it.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// In place of the request's own data.
    pub data: Option<Vec<u8>>,
    pub real: Option<u16>,
    pub read: Option<(cache::Key, Keep)>,
    pub generation: Option<u64>,
    pub lease: Option<leases::Key>,
    /// The global enables that it sets.
    pub enables: Option<u8>,
}

impl Mux {
    /// Decides; `request` is out of the table meanwhile.
    pub(super) fn verdict(&mut self, now: Instant, request: &Request) -> Verdict {
        let mut wire = Wire::default();
        if matches!(request.asker, Asker::Job(_)) {
            return self.verdict_on_own(request, wire);
        }
        let myself = |data: &[u8]| Verdict::Answer(own_answer(request, data), Origin::Mux);
        let code = |code: CompletionCode| myself(&[code.0]);
        if let Some(data) = self.handles_own_state(request) {
            return myself(&data);
        }
        match self.enables_verdict(request) {
            Some(Ok(all)) => {
                wire.data = Some(vec![all]);
                wire.enables = Some(all);
            }
            Some(Err(verdict)) => return verdict,
            None => {}
        }
        if let Some(wish) = Wish::of(&request.send) {
            let key = (request.send.addr, wish.part());
            if !self.leases.allows(now, request.controller, key) {
                self.stats.lease_refusals += 1;
                return code(CompletionCode::NOT_IN_THIS_STATE);
            }
            // "Set complete" for a holder that is gone must not end what the next one begins.
            let rolls_back = |job: &&Job| matches!(job, Job::RollBack(of, _) if *of == key);
            if let Some(job) = self.jobs.keys().find(rolls_back) {
                return Verdict::Wait(*job);
            }
            wire.lease = matches!(wish, Wish::Take(_)).then_some(key);
        }
        let role = repositories::role(&request.send);
        let mut carries = false;
        if let Some((key, role, _)) = role {
            let Some(repository) = self.repositories.entry(now, key) else {
                return code(CompletionCode::NODE_BUSY);
            };
            match role {
                Role::Reserve if !request.send.data.is_empty() => {
                    return code(CompletionCode::DATA_LENGTH_INVALID);
                }
                Role::Reserve if repository.serves(key.kind, request.asked_after, now) => {
                    let [low, high] = repository.hand_out(request.controller).to_le_bytes();
                    return myself(&[0, low, high]);
                }
                Role::Reserve => {
                    return Verdict::Wait(repository.next_step(key, request.asked_after));
                }
                Role::Reserved { optional } => {
                    let id = repositories::reservation(&request.send.data);
                    let good = repository.is_good(request.controller, id);
                    // Where there is none and one is needed, the BMC shall say so.
                    carries = id != 0 || optional;
                    if id != 0 && good {
                        // The real one is put in below, when it is clear that the BMC is asked.
                        wire.real = repository.real();
                    } else if id != 0 && optional {
                        wire.data = Some(with_reservation(&request.send.data, 0));
                    } else if id != 0 {
                        self.stats.reservations_void += 1;
                        return code(CompletionCode::RESERVATION_CANCELLED);
                    }
                }
                Role::Info | Role::None => {}
            }
        }
        if let Effect::Read(keep) =
            command::effect(request.send.netfn, request.send.cmd, &request.send.data)
            && let Some(verdict) = self.read_verdict(now, request, keep, carries, &mut wire)
        {
            return verdict;
        }
        if self.breaker.is_open() {
            self.stats.breaker_refusals += 1;
            return code(CompletionCode::TIMEOUT);
        }
        if let Some((key, Role::Reserved { .. }, _)) = role
            && repositories::reservation(&request.send.data) != 0
            && wire.data.is_none()
        {
            let Some(real) = wire.real else {
                let repository = self.repositories.get(&key).expect("made known above");
                let step = if repository.has_real() { Job::Info(key) } else { Job::Reserve(key) };
                return Verdict::Wait(step);
            };
            wire.data = Some(with_reservation(&request.send.data, real));
        }
        Verdict::Send(wire)
    }

    fn verdict_on_own(&mut self, request: &Request, mut wire: Wire) -> Verdict {
        if self.breaker.is_open() && request.asker != Asker::Job(Job::Probe) {
            let data = [CompletionCode::TIMEOUT.0];
            return Verdict::Answer(own_answer(request, &data), Origin::Mux);
        }
        if let Effect::Read(keep) =
            command::effect(request.send.netfn, request.send.cmd, &request.send.data)
        {
            let key = cache::Key::new(&request.send, request.source, false);
            wire.generation = self.known_generation(request);
            wire.read = Some((key, keep));
        }
        if let Asker::Job(Job::RestoreEnables(value)) = request.asker {
            wire.enables = Some(value);
        }
        Verdict::Send(wire)
    }

    /// A read may be answered from the cache or by one that is on its way.
    fn read_verdict(
        &mut self,
        now: Instant,
        request: &Request,
        keep: Keep,
        carries_reservation: bool,
        wire: &mut Wire,
    ) -> Option<Verdict> {
        let key = cache::Key::new(&request.send, request.source, carries_reservation);
        let repository = repositories::role(&request.send).map(|(key, ..)| key);
        let known = repository.and_then(|key| self.repositories.get(&key));
        let generation = known.map_or(0, repositories::Repository::generation);
        match self.cache.find(now, &key, generation) {
            Found::Fresh(reply) => {
                self.stats.cache_hits += 1;
                return Some(Verdict::Answer(reply.clone(), Origin::Cache));
            }
            Found::IfUnchanged(reply) if known.is_some_and(|r| r.is_checked(now)) => {
                self.stats.cache_hits += 1;
                return Some(Verdict::Answer(reply.clone(), Origin::Cache));
            }
            Found::IfUnchanged(_) => {
                let role = repositories::role(&request.send).map(|(_, role, _)| role);
                if let Some(repository) = repository
                    && role != Some(Role::Info)
                    && !self.breaker.is_open()
                {
                    return Some(Verdict::Wait(Job::Info(repository)));
                }
            }
            Found::Nothing => {}
        }
        if let Some(leader) = self.cache.on_its_way(&key) {
            return Some(Verdict::Follow(leader));
        }
        wire.generation = self.known_generation(request);
        wire.read = Some((key, keep));
        None
    }

    /// Of the repository a request reads, where its info was read: only then can a change be told.
    fn known_generation(&self, request: &Request) -> Option<u64> {
        let (key, ..) = repositories::role(&request.send)?;
        let repository = self.repositories.get(&key)?;
        repository.has_stamp().then(|| repository.generation())
    }

    /// Message flags (IPMI 2.0 sections 22.3 and 22.4) are those of the handle's own queue: the real ones
    /// belong to the driver, and who clears them takes everybody's events.
    fn handles_own_state(&mut self, request: &Request) -> Option<Vec<u8>> {
        let own = request.is_direct() && request.send.netfn & 0x3f == NetFn::APP.get();
        // Its sender may be gone, where another gets the answer.
        let id = match request.asker {
            Asker::Handle(to) if !self.handles.contains_key(&request.sender) => to,
            _ => request.sender,
        };
        let handle = self.handles.get_mut(&id).filter(|_| own)?;
        match (request.send.cmd, &request.send.data[..]) {
            (0x31, []) => Some(vec![0, handle.message_flags()]),
            (0x30, [flags]) => {
                handle.clear_flags(*flags);
                Some(vec![0])
            }
            _ => None,
        }
    }

    fn enables_verdict(&mut self, request: &Request) -> Option<Result<u8, Verdict>> {
        if !request.is_direct() || request.send.netfn & 0x3f != NetFn::APP.get() {
            return None;
        }
        let myself = |data: &[u8]| Verdict::Answer(own_answer(request, data), Origin::Mux);
        match (request.send.cmd, &request.send.data[..]) {
            (0x2f, []) => {
                let seen = self.enables.seen_by(request.controller)?;
                Some(Err(myself(&[0, seen])))
            }
            (0x2e, [value]) => match self.enables.wanted(request.controller, *value) {
                None => Some(Err(Verdict::Wait(Job::Enables))),
                // Even if it has them already, as far as we know: it may have been reset.
                Some(all) => Some(Ok(all)),
            },
            _ => None,
        }
    }
}

/// The answer to a request in the BMC's stead, completion code first.
pub(super) fn own_answer(request: &Request, data: &[u8]) -> Incoming {
    Incoming {
        addr: request.send.addr.of_answer(),
        netfn: request.send.netfn | 1,
        cmd: request.send.cmd,
        data: data.to_vec(),
    }
}

fn with_reservation(data: &[u8], id: u16) -> Vec<u8> {
    let mut data = data.to_vec();
    data[..2].copy_from_slice(&id.to_le_bytes());
    data
}

impl handle::Handle {
    /// Bit 1: an event waits; bit 0: a command of another controller does.
    fn message_flags(&self) -> u8 {
        let (events, commands) = self.unsolicited_kinds();
        u8::from(events) << 1 | u8::from(commands)
    }

    fn clear_flags(&mut self, flags: u8) {
        self.drop_unsolicited(flags & 0b10 != 0, flags & 0b01 != 0);
    }
}

impl repositories::Repository {
    /// What has to be asked before a client that asked after the command of serial number `asked` can have a
    /// reservation.
    fn next_step(&self, key: repositories::Key, asked: u64) -> Job {
        if self.has_real_since(asked) { Job::Info(key) } else { Job::Reserve(key) }
    }
}
