// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections, the queue and the one command that is being served; no clock, no I/O.
//!
//! The controller serves one request at a time and takes the service time for each, whichever
//! connection it came from. Faults are applied to the replies. The caller passes bytes and time in
//! and carries out the [`Output`]s.

mod control;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ipmi::vm::{Capabilities, Control, Decoder, Frame, PROTOCOL_VERSION, VmRequest};
use ipmi::{CompletionCode, Response};

use crate::fault::{self, Faults, Hit, Kind};
use crate::journal::{Entry, Journal};
use crate::model::{Action, Bmc, Config, Handled, Power};

/// Requests that wait while one is served; more are answered with C0 (node busy).
pub const MAX_QUEUE: usize = 1_024;
/// Replies that go out later than usual; more are dropped.
pub const MAX_LATE: usize = 10_000;

/// A connection of the VM protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// What the caller does.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Output {
    /// Sends bytes on a connection; nothing happens if it is gone.
    Send {
        /// Which.
        peer: PeerId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Appends an entry to the log file, if there is one.
    Log(Entry),
    /// Ends, once the control command that asked for it is answered.
    Quit,
}

#[derive(Debug)]
struct Peer {
    decoder: Decoder,
    capabilities: Capabilities,
}

#[derive(Debug)]
struct Job {
    peer: PeerId,
    request: VmRequest,
}

/// The simulator without its sockets.
#[derive(Debug)]
pub struct Engine {
    bmc: Bmc,
    faults: Faults,
    journal: Journal,
    service_time: Duration,
    reset_time: Duration,
    peers: BTreeMap<PeerId, Peer>,
    queue: VecDeque<Job>,
    /// When the request at the head of the queue is done.
    done: Option<Duration>,
    /// Replies that go out later, by time and order.
    late: BTreeMap<(Duration, u64), (PeerId, Vec<u8>)>,
    late_order: u64,
    /// Bytes and messages from hosts that made no sense.
    bad_frames: u64,
    /// Requests refused and late replies dropped for want of room.
    overflows: u64,
    outputs: Vec<Output>,
}

impl Engine {
    /// A simulator that takes `service_time` for each command.
    pub fn new(config: Config, service_time: Duration) -> Self {
        Self {
            reset_time: config.reset_time,
            bmc: Bmc::new(config),
            faults: Faults::default(),
            journal: Journal::default(),
            service_time,
            peers: BTreeMap::new(),
            queue: VecDeque::new(),
            done: None,
            late: BTreeMap::new(),
            late_order: 0,
            bad_frames: 0,
            overflows: 0,
            outputs: Vec::new(),
        }
    }

    /// A host connected.
    pub fn connected(&mut self, now: Duration, peer: PeerId) -> Vec<Output> {
        let capabilities = Capabilities::default();
        self.peers.insert(peer, Peer { decoder: Decoder::new(), capabilities });
        self.send(peer, Control::Version(PROTOCOL_VERSION).encode());
        self.advance(now)
    }

    /// A host is gone. Its requests are still carried out.
    pub fn disconnected(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// Bytes came from a host.
    pub fn received(&mut self, now: Duration, peer: PeerId, mut bytes: &[u8]) -> Vec<Output> {
        let mut next = |peers: &mut BTreeMap<PeerId, Peer>| {
            peers.get_mut(&peer)?.decoder.next_frame(&mut bytes)
        };
        while let Some(frame) = next(&mut self.peers) {
            match frame {
                Ok(Frame::Message(body)) => match VmRequest::parse(&body) {
                    Ok(request) => self.enqueue(now, Job { peer, request }),
                    Err(_) => self.bad_frames += 1,
                },
                Ok(Frame::Control(control)) => self.host_control(now, peer, control),
                Err(_) => self.bad_frames += 1,
            }
        }
        self.advance(now)
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Duration) -> Vec<Output> {
        self.advance(now)
    }

    /// When [`Engine::handle_timeout`] has something to do.
    pub fn next_timeout(&self, now: Duration) -> Duration {
        let late = self.late.first_key_value().map(|((due, _), _)| *due);
        let bmc = self.bmc.next_timeout(now);
        [self.done, late].into_iter().flatten().fold(bmc, Duration::min)
    }

    fn send(&mut self, peer: PeerId, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.outputs.push(Output::Send { peer, bytes });
        }
    }

    fn enqueue(&mut self, now: Duration, job: Job) {
        if self.queue.len() == MAX_QUEUE {
            self.overflows += 1;
            let VmRequest { seq, request } = job.request;
            let busy = request.respond(CompletionCode::NODE_BUSY, []);
            for (_, bytes) in fault::replies(None, seq, busy) {
                self.send(job.peer, bytes);
            }
            return;
        }
        self.queue.push_back(job);
        if self.done.is_none() {
            self.done = Some(now + self.service_time);
        }
    }

    fn host_control(&mut self, now: Duration, peer: PeerId, control: Control) {
        match control {
            Control::Capabilities(capabilities) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.capabilities = capabilities;
                }
                self.tell_state(peer);
            }
            Control::Reset => {
                let ((), handled) = self.bmc.outside(now, Bmc::host_was_reset);
                self.carry_out(now, None, handled);
                // The host's interface has forgotten whether its interrupts are on.
                self.tell_state(peer);
            }
            // There is one version; the rest is for hosts.
            _ => {}
        }
    }

    fn tell_state(&mut self, peer: PeerId) {
        for action in self.bmc.interface_state() {
            self.tell(peer, action);
        }
    }

    /// Serves what is due by `now` and hands out all outputs.
    fn advance(&mut self, now: Duration) -> Vec<Output> {
        while self.done.is_some_and(|done| done <= now) {
            self.done = None;
            if let Some(job) = self.queue.pop_front() {
                self.serve(now, job);
            }
            if !self.queue.is_empty() {
                self.done = Some(now + self.service_time);
            }
        }
        let handled = self.bmc.handle_timeout(now);
        self.carry_out(now, None, handled);
        while let Some(first) = self.late.first_entry()
            && first.key().0 <= now
        {
            let (peer, bytes) = first.remove();
            self.send(peer, bytes);
        }
        std::mem::take(&mut self.outputs)
    }

    fn serve(&mut self, now: Duration, job: Job) {
        let Job { peer, request: VmRequest { seq, request } } = job;
        self.journal.count(request.command());
        let hit = self.faults.strike(request.command());
        if hit.is_some_and(|hit| !hit.kind.executes()) {
            // Its completion code is the fault's own, if it is answered at all.
            self.reply(
                now,
                peer,
                seq,
                hit,
                Duration::ZERO,
                request.respond(CompletionCode::OK, []),
            );
            return;
        }
        let mut handled = self.bmc.handle(now, &request);
        if let Some(response) = handled.response.take() {
            self.journal.count_code(response.ccode);
            self.reply(now, peer, seq, hit, handled.delay, response);
        }
        self.carry_out(now, Some((peer.0, &request)), handled);
    }

    fn reply(
        &mut self,
        now: Duration,
        peer: PeerId,
        seq: u8,
        hit: Option<Hit>,
        delay: Duration,
        response: Response,
    ) {
        for (by, bytes) in fault::replies(hit, seq, response) {
            let delay = delay + by;
            // Even a delay of nothing keeps the second of two replies after the first.
            if delay.is_zero() && hit.is_none_or(|hit| hit.kind != Kind::Late) {
                self.send(peer, bytes);
            } else if self.late.len() < MAX_LATE {
                self.late_order += 1;
                self.late.insert((now + delay, self.late_order), (peer, bytes));
            } else {
                self.overflows += 1;
            }
        }
    }

    /// Journal and actions of what the model did.
    fn carry_out(
        &mut self,
        now: Duration,
        request: Option<(u64, &ipmi::Request)>,
        handled: Handled,
    ) {
        if !handled.notes.is_empty() {
            let entry = Entry::new(now, request, handled.notes);
            self.journal.push(entry.clone());
            self.outputs.push(Output::Log(entry));
        }
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for action in handled.actions {
            for peer in &peers {
                self.tell(*peer, action);
            }
        }
    }

    /// Sends what an action means, if the host can do it.
    fn tell(&mut self, peer: PeerId, action: Action) {
        let (control, needed) = match action {
            Action::Attention { set: false, .. } => {
                (Control::ClearAttention, Capabilities::ATTENTION)
            }
            Action::Attention { interrupt: false, .. } => {
                (Control::Attention, Capabilities::ATTENTION)
            }
            Action::Attention { .. } => (Control::AttentionInterrupt, Capabilities::ATTENTION),
            Action::Interrupts(true) => (Control::EnableInterrupt, Capabilities::INTERRUPT),
            Action::Interrupts(false) => (Control::DisableInterrupt, Capabilities::INTERRUPT),
            Action::Power(Power::Off) => (Control::PowerOff, Capabilities::POWER),
            Action::Power(Power::Reset) => (Control::Reset, Capabilities::RESET),
            Action::Power(Power::Nmi) => (Control::SendNmi, Capabilities::NMI),
            Action::Power(Power::SoftOff) => {
                (Control::GracefulShutdown, Capabilities::GRACEFUL_SHUTDOWN)
            }
            // Nothing in the protocol starts a machine.
            Action::Power(Power::On) => return,
        };
        if self.peers.get(&peer).is_some_and(|peer| peer.capabilities.has(needed)) {
            self.send(peer, control.encode());
        }
    }
}

#[cfg(test)]
mod tests;
