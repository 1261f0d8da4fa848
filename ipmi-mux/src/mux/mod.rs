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
mod jobs;
mod leases;
mod receivers;
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
pub use leases::Part;
pub use receivers::MAX_RECEIVERS;
pub use request::{Token, deadline_class};
pub use scheduler::Class;
pub use sequences::{AttachToken, MAX_RANGE_LEN, MAX_RANGES, Range};
pub use stats::Stats;
pub use trace::{MAX_TRACES, Msg, Trace, What};
pub use verdict::Origin;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel_abi::ipmi_devintf::{
    IPMI_ASYNC_EVENT_RECV_TYPE, IPMI_CMD_RECV_TYPE, IPMI_MAINTENANCE_MODE_AUTO,
    IPMI_MAINTENANCE_MODE_ON, IPMI_NUM_CHANNELS, IpmiTimingParms,
};
use nix::errno::Errno;

use crate::addr::{Addr, Kind};
use crate::devintf::{CommandSpec, Message, Receive};
use crate::policy::{Denied, Policy};
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
    /// How old a sensor's reading may be when another client gets it too; zero for never.
    pub sensor_age: Duration,
    /// How a command is answered that is reserved for others.
    pub reserved_code: ipmi::CompletionCode,
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
    /// For the log: a command that may have changed something was answered by the BMC.
    Audit(Audited),
    /// For the log: a command that the node's policy does not allow.
    Denied(HandleId, Owner, Denied),
    /// For the log: the BMC answers no more, or again.
    Breaker {
        /// Whether commands are refused now.
        open: bool,
    },
}

/// A command that may have changed the BMC's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// The handle that sent it.
    pub handle: HandleId,
    /// Who opened that.
    pub owner: Owner,
    /// Where it went.
    pub addr: Addr,
    /// Network function, as the caller gave it.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
    /// Data; may hold a password.
    pub data: Vec<u8>,
    /// Completion code; none where the answer was empty.
    pub code: Option<u8>,
}

/// Something that one handle or node has alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Who.
    pub holder: Holder,
    /// What, in words.
    pub what: String,
}

/// What holds for the handles of a node.
#[derive(Debug, Clone)]
pub struct NodeRules {
    /// What they may send, and whether they may reserve.
    pub policy: Arc<Policy>,
    /// Whether their requests go behind those of other nodes.
    pub background: bool,
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

    /// What holds for a node; without it nothing is held back.
    pub fn set_rules(&mut self, node: usize, rules: NodeRules) {
        self.nodes.insert(node, rules);
    }

    /// Reserves a command for a handle's virtual controller.
    ///
    /// # Errors
    /// `EPERM` where the node's policy does not let its handles reserve, or not this command, `EBUSY`
    /// where somebody else has it, `ENOSPC` with [`MAX_RESERVED`] reserved.
    pub fn reserve_command(&mut self, id: HandleId, netfn: u8, cmd: u8) -> Result<(), Errno> {
        self.may_take(id)?;
        let handle = self.handle(id)?;
        let (node, holder) = (handle.owner.node, Holder::Handle(handle.controller));
        if self.nodes.get(&node).is_some_and(|n| !n.policy.lists_command(netfn, cmd)) {
            return Err(Errno::EPERM);
        }
        self.exclusive.reserve(holder, netfn, cmd).map_err(|why| match why {
            Unavailable::Busy { .. } => Errno::EBUSY,
            Unavailable::Full => Errno::ENOSPC,
        })
    }

    /// Whether a handle may take for itself what others could use.
    fn may_take(&mut self, id: HandleId) -> Result<(), Errno> {
        let node = self.handle(id)?.owner.node;
        let may = self.nodes.get(&node).is_none_or(|n| n.policy.may_reserve());
        if may { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Gives a command back.
    ///
    /// # Errors
    /// `ENOENT` where the handle's virtual controller has not reserved it.
    pub fn release_command(&mut self, id: HandleId, netfn: u8, cmd: u8) -> Result<(), Errno> {
        let holder = Holder::Handle(self.handle(id)?.controller);
        if self.exclusive.release(holder, netfn, cmd) { Ok(()) } else { Err(Errno::ENOENT) }
    }

    /// Reserves commands for all handles of a node: all of them or, with an error, none.
    ///
    /// # Errors
    /// The command, and who has it.
    pub fn reserve_for_node(
        &mut self,
        node: usize,
        commands: &[(u8, u8)],
    ) -> Result<(), (u8, u8, Unavailable)> {
        for (netfn, cmd) in commands {
            if let Err(why) = self.exclusive.reserve(Holder::Node(node), *netfn, *cmd) {
                self.exclusive.release_all(Holder::Node(node));
                return Err((*netfn, *cmd, why));
            }
        }
        Ok(())
    }

    /// A node is gone, and the kernel will not tell of its handles: they are closed.
    pub fn close_node(&mut self, now: Instant, node: usize) {
        let of_node =
            |(id, handle): (&HandleId, &Handle)| (handle.owner.node == node).then_some(*id);
        let ids: Vec<HandleId> = self.handles.iter().filter_map(of_node).collect();
        for id in ids {
            self.close(now, id);
        }
        self.exclusive.release_all(Holder::Node(node));
        self.nodes.remove(&node);
    }

    /// Reserves sequence numbers; `token` is 128 random bits.
    ///
    /// # Errors
    /// `EINVAL` for a count of 0 or over [`MAX_RANGE_LEN`], `ENOSPC` with [`MAX_RANGES`] ranges.
    pub fn reserve_sequence(
        &mut self,
        id: HandleId,
        count: u32,
        token: AttachToken,
    ) -> Result<Range, Errno> {
        self.handle(id)?;
        self.sequences.reserve(id, count, token)
    }

    /// Gives a range back, by its first number.
    ///
    /// # Errors
    /// `ENOENT` where the handle has none that begins so.
    pub fn release_sequence(&mut self, id: HandleId, first: i64) -> Result<(), Errno> {
        self.sequences.release(id, first)
    }

    /// Makes a handle the virtual client of a range: it joins the virtual controller of the handle
    /// that reserved it, and what it held alone is given back.
    ///
    /// # Errors
    /// `ENOENT` for a token of no range, `EBUSY` where the range has a client, or the handle waits for
    /// answers: what it has asked was asked as another controller.
    pub fn attach(
        &mut self,
        now: Instant,
        id: HandleId,
        token: &AttachToken,
    ) -> Result<Range, Errno> {
        let handle = self.handle(id)?;
        let before = handle.controller;
        if !handle.pending.is_empty() {
            return Err(Errno::EBUSY);
        }
        let range = self.sequences.attach(id, token)?;
        let controller = self.handle(range.owner)?.controller;
        if controller != before {
            self.handle(id)?.controller = controller;
            *self.controllers.entry(controller).or_default() += 1;
            self.leave_controller(now, before);
            self.pump(now);
        }
        Ok(range)
    }

    fn handle(&mut self, id: HandleId) -> Result<&mut Handle, Errno> {
        // The kernel names only handles it opened and has not released.
        self.handles.get_mut(&id).ok_or(Errno::EBADF)
    }

    /// An event from the BMC: every handle that asked gets a copy.
    pub fn handle_event(&mut self, event: &Incoming) {
        self.stats.events += 1;
        let Self { handles, actions, stats, traces, .. } = self;
        for (id, handle) in handles.iter_mut().filter(|(_, h)| h.gets_events) {
            traces.push(*id, handle.owner, || What::Event(Msg::unsolicited(0, event)));
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
        self.traces.push(id, handle.owner, || What::Command(Msg::unsolicited(seq, command)));
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
    /// `EBUSY` where another handle has one of them, `ENOMEM` with [`MAX_RECEIVERS`] bookings, `EPERM` where
    /// the node's policy lets its handles take nothing for themselves.
    pub fn register(&mut self, id: HandleId, spec: CommandSpec) -> Result<(), Errno> {
        self.may_take(id)?;
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
    /// `EINVAL` for a mode that is none, `EPERM` where the node's policy lets its handles take nothing for
    /// themselves.
    pub fn set_maintenance_mode(&mut self, id: HandleId, mode: i32) -> Result<(), Errno> {
        self.may_take(id)?;
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

    /// What is held alone, and by whom; oldest holders first.
    #[must_use]
    pub fn held(&self) -> Vec<Held> {
        let by = |handle, what: String| Held { holder: Holder::Handle(handle), what };
        let commands = self.exclusive.all().map(|(netfn, cmd, holder)| {
            let name = ipmi::names::name(netfn, cmd).unwrap_or("vendor's command");
            Held { holder, what: format!("{netfn:02x}/{cmd:02x} {name}") }
        });
        let leases = self.leases.all().map(|((addr, part), holder)| {
            let direct = addr.kind() == Kind::SystemInterface;
            by(holder, if direct { part.to_string() } else { format!("{part} of {addr}") })
        });
        let ranges = self.sequences.all().map(|range| {
            let last = range.first + i64::from(range.count) - 1;
            let client = range.client.map(|HandleId(id)| format!(" for handle {id}"));
            by(
                range.owner,
                format!("message ids {} to {last}{}", range.first, client.unwrap_or_default()),
            )
        });
        let maintenance = self.maintenance.iter().map(|id| by(*id, "maintenance mode".to_owned()));
        let mut held: Vec<Held> = commands.chain(leases).chain(ranges).chain(maintenance).collect();
        held.sort();
        held
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
