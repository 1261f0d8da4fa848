// SPDX-License-Identifier: MIT OR Apache-2.0
//! A BMC as a function of its own, at its unit: between clients that speak the VM serial protocol ([`ipmi::vm`]), as `ipmi-mux` at the
//! holder does, and one open file of the BMC's node, which all of them share.
//!
//! ```text
//!  request:  waits (at most [`MAX_WAITING`]) ──► is with the node (as many as its window) ──► answered: by the node, or C3 after [`LIMIT`]
//! ```
//!
//! What waits here can be taken back, and is when the lease ends; what is with the node cannot. Flags and events that the system's own
//! driver reads are answered here: who asked the BMC for them would take them from its machine.
//!
//! Knows no socket and no device: [`Desk`] is told what happens and when, and answers with what to do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use ipmi::vm::{Control, Frame, PROTOCOL_VERSION, VmRequest, VmResponse};
use ipmi::{CompletionCode, Lun, NetFn, Request};

/// Requests that wait for the node, of all clients together; more are answered with C0. `ipmi-mux` has eight at a time.
pub const MAX_WAITING: usize = 64;
/// Events that wait to be read; later ones are lost, as with a BMC, which keeps one.
pub const MAX_EVENTS: usize = 16;
/// Each request is answered within this time. The node itself is sooner: a driver gives a BMC up within 60 s, `ipmi-mux` a
/// long command by default likewise.
pub const LIMIT: Duration = Duration::from_secs(65);

// Of the App network function; IPMI 2.0, sections 22.1 and 22.3 to 22.8.
const SET_GLOBAL_ENABLES: u8 = 0x2e;
const CLEAR_MESSAGE_FLAGS: u8 = 0x30;
const GET_MESSAGE_FLAGS: u8 = 0x31;
const GET_MESSAGE: u8 = 0x33;
const READ_EVENT_MESSAGE_BUFFER: u8 = 0x35;
/// Event message buffer, in the global enables.
const EVENT_BUFFER_ENABLED: u8 = 1 << 2;
/// Event message buffer full, in the message flags.
const EVENT_BUFFER_FULL: u8 = 1 << 1;
/// Get Message and Read Event Message Buffer: nothing is there.
const EMPTY: CompletionCode = CompletionCode(0x80);

/// Names a client as long as the lease lasts.
pub type ClientNo = u64;

/// Names a request at the node: its message id.
pub type RequestId = i64;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Hand a request to the node; answered by [`Desk::answered`] or [`Desk::refused`].
    Send(RequestId, Request),
    /// Say something to a client.
    Tell(ClientNo, Vec<u8>),
    /// Have the node deliver events, from now on.
    Events,
}

#[derive(Debug)]
struct Asked {
    /// None when it is gone: its request is with the node still.
    client: Option<ClientNo>,
    seq: u8,
    request: Request,
    due: Instant,
}

/// One lease's clients, and their requests.
#[derive(Debug)]
pub struct Desk {
    window: usize,
    clients: BTreeSet<ClientNo>,
    waiting: VecDeque<Asked>,
    asked: BTreeMap<RequestId, Asked>,
    last: RequestId,
    events: VecDeque<Vec<u8>>,
    gets_events: bool,
    out: Vec<Action>,
}

impl Desk {
    /// Nobody is there; the node is handed `window` requests at a time.
    #[must_use]
    pub fn new(window: usize) -> Self {
        Self {
            window,
            clients: BTreeSet::new(),
            waiting: VecDeque::new(),
            asked: BTreeMap::new(),
            last: 0,
            events: VecDeque::new(),
            gets_events: false,
            out: vec![],
        }
    }

    /// When to be called at the latest, for [`Desk::tick`].
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.waiting.iter().chain(self.asked.values()).map(|asked| asked.due).min()
    }

    /// Requests that are with the node.
    #[must_use]
    pub fn with_node(&self) -> usize {
        self.asked.len()
    }

    /// A client is there: it is greeted.
    pub fn came(&mut self, client: ClientNo) -> Vec<Action> {
        self.clients.insert(client);
        self.out.push(Action::Tell(client, Control::Version(PROTOCOL_VERSION).encode()));
        if !self.events.is_empty() {
            self.out.push(Action::Tell(client, Control::AttentionInterrupt.encode()));
        }
        self.done()
    }

    /// It is gone: what it wants is not begun.
    pub fn left(&mut self, client: ClientNo) -> Vec<Action> {
        self.clients.remove(&client);
        self.waiting.retain(|asked| asked.client != Some(client));
        for asked in self.asked.values_mut().filter(|asked| asked.client == Some(client)) {
            asked.client = None;
        }
        self.done()
    }

    /// It says something. What is no request is nobody's business: a host tells of itself.
    pub fn said(&mut self, now: Instant, client: ClientNo, frame: Frame) -> Vec<Action> {
        if let (true, Frame::Message(body)) = (self.clients.contains(&client), frame) {
            match VmRequest::parse(&body) {
                Ok(VmRequest { seq, request }) => self.asks(now, client, seq, request),
                Err(error) => tracing::debug!(%error, "a message for a BMC is left out"),
            }
        }
        self.done()
    }

    fn asks(&mut self, now: Instant, client: ClientNo, seq: u8, request: Request) {
        let asked = Asked { client: Some(client), seq, request, due: now + LIMIT };
        if let Some((ccode, data)) = self.own_answer(&asked.request) {
            return self.answer(&asked, ccode, data);
        }
        if self.waiting.len() >= MAX_WAITING {
            return self.answer(&asked, CompletionCode::NODE_BUSY, vec![]);
        }
        let Request { netfn, cmd, data, .. } = &asked.request;
        let wants_events = (*netfn, *cmd) == (NetFn::APP, SET_GLOBAL_ENABLES)
            && data.first().is_some_and(|enables| enables & EVENT_BUFFER_ENABLED != 0);
        if wants_events && !self.gets_events {
            self.gets_events = true;
            self.out.push(Action::Events);
        }
        self.waiting.push_back(asked);
    }

    /// What is answered here.
    fn own_answer(&mut self, request: &Request) -> Option<(CompletionCode, Vec<u8>)> {
        if (request.netfn, request.lun) != (NetFn::APP, Lun::BMC) {
            return None;
        }
        let first = request.data.first().copied().unwrap_or(0);
        Some(match request.cmd {
            CLEAR_MESSAGE_FLAGS => {
                if first & EVENT_BUFFER_FULL != 0 {
                    self.events.clear();
                }
                (CompletionCode::OK, vec![])
            }
            GET_MESSAGE_FLAGS => {
                let flags = if self.events.is_empty() { 0 } else { EVENT_BUFFER_FULL };
                (CompletionCode::OK, vec![flags])
            }
            GET_MESSAGE => (EMPTY, vec![]),
            READ_EVENT_MESSAGE_BUFFER => match self.events.pop_front() {
                Some(event) => (CompletionCode::OK, event),
                None => (EMPTY, vec![]),
            },
            _ => return None,
        })
    }

    /// The node answers: network function and command of the response, and its data, completion code first.
    pub fn answered(&mut self, id: RequestId, (netfn, cmd): (u8, u8), data: &[u8]) -> Vec<Action> {
        let fits = |asked: &Asked| {
            (asked.request.netfn.response().get(), asked.request.cmd) == (netfn, cmd)
        };
        if self.asked.get(&id).is_some_and(fits)
            && let Some(asked) = self.asked.remove(&id)
        {
            match data.split_first() {
                Some((ccode, data)) => self.answer(&asked, CompletionCode(*ccode), data.to_vec()),
                None => self.answer(&asked, CompletionCode::UNSPECIFIED, vec![]),
            }
        }
        self.done()
    }

    /// The node does not take a request.
    pub fn refused(&mut self, id: RequestId, ccode: CompletionCode) -> Vec<Action> {
        if let Some(asked) = self.asked.remove(&id) {
            self.answer(&asked, ccode, vec![]);
        }
        self.done()
    }

    /// The node delivers an event, 16 bytes.
    pub fn event(&mut self, event: Vec<u8>) -> Vec<Action> {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
        let attention = Control::AttentionInterrupt.encode();
        let clients = self.clients.iter();
        self.out.extend(clients.map(|client| Action::Tell(*client, attention.clone())));
        self.done()
    }

    /// It is the time that [`Desk::next`] gave: what is overdue is answered.
    pub fn tick(&mut self, now: Instant) -> Vec<Action> {
        // In the order in which they came.
        while self.waiting.front().is_some_and(|asked| asked.due <= now)
            && let Some(asked) = self.waiting.pop_front()
        {
            self.answer(&asked, CompletionCode::TIMEOUT, vec![]);
        }
        let due = self.asked.iter().filter(|(_, asked)| asked.due <= now).map(|(id, _)| *id);
        for id in due.collect::<Vec<_>>() {
            if let Some(asked) = self.asked.remove(&id) {
                self.answer(&asked, CompletionCode::TIMEOUT, vec![]);
            }
        }
        self.done()
    }

    /// The lease is over: what waits is not begun any more, and nobody is told anything.
    pub fn end(&mut self) {
        self.waiting.clear();
        self.clients.clear();
        self.out.clear();
        for asked in self.asked.values_mut() {
            asked.client = None;
        }
    }

    fn answer(&mut self, asked: &Asked, ccode: CompletionCode, data: Vec<u8>) {
        let Some(client) = asked.client else { return };
        let wire = |ccode, data: Vec<u8>| {
            let response = asked.request.respond(ccode, data);
            VmResponse { seq: asked.seq, response }.encode()
        };
        let bytes = wire(ccode, data)
            .or_else(|_| wire(CompletionCode::CANNOT_RETURN_BYTES, vec![]))
            .expect("a response without data is short enough");
        self.out.push(Action::Tell(client, bytes));
    }

    /// Hands on what there is room for.
    fn done(&mut self) -> Vec<Action> {
        while self.asked.len() < self.window
            && let Some(asked) = self.waiting.pop_front()
        {
            self.last += 1;
            self.out.push(Action::Send(self.last, asked.request.clone()));
            self.asked.insert(self.last, asked);
        }
        std::mem::take(&mut self.out)
    }
}

#[cfg(test)]
mod tests;
