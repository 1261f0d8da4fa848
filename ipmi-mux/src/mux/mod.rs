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

mod breaker;
mod cache;
mod channels;
mod enables;
mod exclusive;
mod handle;
mod holdings;
mod inbox;
mod interface;
mod jobs;
mod leases;
mod overdue;
mod receivers;
mod replies;
mod repositories;
mod request;
mod scheduler;
mod sequences;
mod stats;
mod trace;
mod traffic;
mod verdict;

pub use channels::{Channels, Medium};
pub use exclusive::{Holder, MAX_RESERVED, Unavailable};
pub use handle::{EVENT_BACKLOG, HandleId, Info, MAX_MESSAGES, Owner};
pub use interface::{Action, Audited, Held, Incoming, Limits, NodeRules, Outgoing};
pub use leases::Part;
pub use receivers::MAX_RECEIVERS;
pub use request::{Token, deadline_class};
pub use scheduler::Class;
pub use sequences::{AttachToken, MAX_RANGE_LEN, MAX_RANGES, Range};
pub use stats::Stats;
pub use trace::{MAX_TRACES, Msg, Trace, What};
pub use verdict::Origin;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use kernel_abi::ipmi_devintf::{IPMI_MAINTENANCE_MODE_AUTO, IPMI_NUM_CHANNELS, IpmiTimingParms};
use nix::errno::Errno;

use breaker::Breaker;
use cache::Cache;
use enables::Enables;
use exclusive::Exclusive;
use handle::Handle;
use jobs::{Job, Owed};
use leases::Leases;
use receivers::Receivers;
use repositories::Repositories;
use request::{Asker, Place, Request};
use scheduler::Scheduler;
use sequences::Sequences;

/// Handles open at once, over all nodes. Each costs some 500 bytes and up to
/// [`MAX_MESSAGES`] messages of at most 300 bytes.
pub const MAX_HANDLES: usize = 4096;

/// How long to wait when the driver has no room for a request (its 64 IPMB sequence numbers are in use).
const BACK_OFF: Duration = Duration::from_millis(10);

/// The core of the daemon.
#[derive(Debug)]
pub struct Mux {
    limits: Limits,
    channels: Channels,
    /// Address and LUN per channel that a new handle starts with.
    defaults: [(u8, u8); IPMI_NUM_CHANNELS],
    /// Rules per node, by [`Owner::node`].
    nodes: BTreeMap<usize, NodeRules>,
    handles: HashMap<HandleId, Handle>,
    /// Handles of each virtual controller, by the handle it began with.
    controllers: HashMap<HandleId, usize>,
    /// Every request that is not answered, and those with the BMC that nobody waits for any more.
    requests: HashMap<Token, Request>,
    deadlines: BTreeSet<(Instant, Token)>,
    scheduler: Scheduler,
    /// What the mux asks for itself, and who waits for that.
    jobs: HashMap<Job, Vec<Token>>,
    repositories: Repositories,
    leases: Leases,
    exclusive: Exclusive,
    enables: Enables,
    cache: Cache,
    sequences: Sequences,
    breaker: Breaker,
    owed: Owed,
    /// Requests with the BMC, and those of them that nobody waits for.
    with_bmc: usize,
    abandoned: usize,
    /// How many were handed to it.
    handed_over: u64,
    /// When the BMC answered last.
    last_answer: Option<Instant>,
    /// Since when it has been silent, where it has something to answer.
    silent_since: Option<Instant>,
    receivers: Receivers,
    event_listeners: usize,
    maintenance: BTreeSet<HandleId>,
    blocked_until: Option<Instant>,
    next_handle: u64,
    next_token: u64,
    actions: VecDeque<Action>,
    stats: Stats,
    traces: trace::Traces,
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
            nodes: BTreeMap::new(),
            handles: HashMap::new(),
            controllers: HashMap::new(),
            requests: HashMap::new(),
            deadlines: BTreeSet::new(),
            scheduler: Scheduler::default(),
            jobs: HashMap::new(),
            repositories: Repositories::default(),
            leases: Leases::default(),
            exclusive: Exclusive::default(),
            enables: Enables::default(),
            cache: Cache::new(limits.sensor_age),
            sequences: Sequences::default(),
            breaker: Breaker::default(),
            owed: Owed::default(),
            with_bmc: 0,
            abandoned: 0,
            handed_over: 0,
            last_answer: None,
            silent_since: None,
            receivers: Receivers::default(),
            event_listeners: 0,
            maintenance: BTreeSet::new(),
            blocked_until: None,
            next_handle: 1,
            next_token: 1,
            actions: VecDeque::new(),
            stats: Stats::default(),
            traces: trace::Traces::default(),
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
        deadline
            .into_iter()
            .chain(self.blocked_until)
            .chain(self.owed.at)
            .chain(self.breaker.probe_at())
            .min()
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
        self.handles.insert(id, Handle::new(now, id, owner, self.defaults));
        self.controllers.insert(id, 1);
        Ok(id)
    }

    /// The handle is closed: what it waited for is dropped, what it held is given back.
    pub fn close(&mut self, now: Instant, id: HandleId) {
        let Some(handle) = self.handles.remove(&id) else { return };
        for token in &handle.pending {
            self.take_off(*token);
            let Some(request) = self.requests.remove(token) else { continue };
            let sent = matches!(request.place, Place::Sent(_));
            self.traces.unanswered(now, id, handle.owner, &request, sent);
            if sent {
                let sender = self.handles.get(&request.sender).map_or(handle.owner, |h| h.owner);
                self.audit(&request, sender, None);
                self.requests.insert(*token, request);
                self.abandon(now, *token);
            } else {
                self.deadlines.remove(&(request.deadline, *token));
            }
        }
        self.scheduler.forget(id);
        self.sequences.forget(id);
        self.leave_controller(now, handle.controller);
        for spec in self.receivers.remove_all(id) {
            self.actions.push_back(Action::Unregister(spec));
        }
        if handle.gets_events {
            self.event_listener_left();
        }
        if self.maintenance.remove(&id) && self.maintenance.is_empty() {
            self.actions.push_back(Action::SetMaintenanceMode(IPMI_MAINTENANCE_MODE_AUTO));
        }
        self.pump(now);
    }

    /// A handle leaves its virtual controller; with the last one goes what the controller held.
    fn leave_controller(&mut self, now: Instant, controller: HandleId) {
        let members = self.controllers.get_mut(&controller).expect("a handle's controller exists");
        *members -= 1;
        if *members > 0 {
            return;
        }
        self.controllers.remove(&controller);
        self.exclusive.release_all(Holder::Handle(controller));
        self.repositories.forget(controller);
        for key in self.leases.forget(controller) {
            self.start_job(now, Job::RollBack(key, controller));
        }
        if let Some(enables) = self.enables.forget(controller) {
            self.start_job(now, Job::RestoreEnables(enables));
        }
    }

    fn handle(&mut self, id: HandleId) -> Result<&mut Handle, Errno> {
        // The kernel names only handles it opened and has not released.
        self.handles.get_mut(&id).ok_or(Errno::EBADF)
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

    /// All handles, oldest first.
    pub fn handles(&self) -> impl Iterator<Item = (HandleId, Info)> {
        let mut in_flight: HashMap<HandleId, usize> = HashMap::new();
        for request in self.requests.values() {
            if let (Asker::Handle(id), Place::Sent(_)) = (request.asker, &request.place) {
                *in_flight.entry(id).or_default() += 1;
            }
        }
        let info = |id: &HandleId, h: &Handle| h.info(in_flight.get(id).copied().unwrap_or(0));
        let mut all: Vec<_> = self.handles.iter().map(|(id, h)| (*id, info(id, h))).collect();
        all.sort_by_key(|(id, _)| *id);
        all.into_iter()
    }

    /// What is there now, by name. All are zero when every handle is closed and the BMC has answered
    /// what it was asked, or had its time.
    #[must_use]
    pub fn left_over(&self) -> [(&'static str, usize); 11] {
        [
            ("requests", self.requests.len()),
            ("deadlines", self.deadlines.len()),
            ("jobs", self.jobs.len()),
            ("jobs to do again", self.owed.len()),
            ("queues", self.scheduler.len()),
            ("controllers", self.controllers.len()),
            ("reservations", self.repositories.reservations()),
            ("leases", self.leases.len()),
            ("global enables", self.enables.len()),
            ("sequence ranges", self.sequences.len()),
            ("shared reads", self.cache.shared()),
        ]
    }

    /// Counters and gauges.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            handles: self.handles.len(),
            queued: self.requests.len() - self.with_bmc,
            in_flight: self.with_bmc - self.abandoned,
            abandoned: self.abandoned,
            event_listeners: self.event_listeners,
            cached: self.cache.len(),
            reservations: self.repositories.reservations(),
            breaker_open: usize::from(self.breaker.is_open()),
            ..self.stats
        }
    }
}

#[cfg(test)]
mod tests;
