// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients of a leased BMC say, of any content and in any order, and what its node makes of that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use device_manager::bmc::{Action, ClientNo, Desk, LIMIT, MAX_EVENTS, MAX_WAITING, RequestId};
use ipmi::vm::{Decoder, Frame, VmRequest, VmResponse};
use ipmi::{CompletionCode, Request};

use crate::Reached;
use crate::input::Input;

/// Longest piece of what a client says.
const MAX: usize = 600;
/// Clients of an input.
const CLIENTS: u8 = 4;

struct World {
    desk: Desk,
    window: usize,
    now: Instant,
    clients: BTreeMap<ClientNo, Client>,
    /// With the node.
    asked: BTreeMap<RequestId, Request>,
    last: RequestId,
    is_over: bool,
}

#[derive(Default)]
struct Client {
    decoder: Decoder,
    /// Requests that were not answered yet, by sequence number, network function of the answer, and command.
    open: Vec<(u8, u8, u8)>,
}

impl World {
    fn new(window: usize) -> Self {
        let (clients, asked) = (BTreeMap::new(), BTreeMap::new());
        let desk = Desk::new(window);
        Self { desk, window, now: Instant::now(), clients, asked, last: 0, is_over: false }
    }

    fn does(&mut self, actions: Vec<Action>, reached: &mut Reached) {
        for action in actions {
            match action {
                Action::Send(id, request) => {
                    assert!(!self.is_over, "a request is begun after the end");
                    assert!(id > self.last, "an id is used twice");
                    self.last = id;
                    self.asked.insert(id, request);
                    reached.insert("sent");
                }
                Action::Tell(client, bytes) => self.told(client, &bytes, reached),
                Action::Events => drop(reached.insert("events are wanted")),
            }
        }
        assert!(self.desk.with_node() <= self.window, "the node has more than its window");
    }

    fn told(&mut self, client: ClientNo, bytes: &[u8], reached: &mut Reached) {
        assert!(!self.is_over, "a client is told something after the end");
        let client = self.clients.get_mut(&client).expect("who is told is there");
        let (mut decoder, mut input) = (Decoder::new(), bytes);
        match decoder.next_frame(&mut input).expect("it is whole").expect("it is sound") {
            Frame::Control(_) => drop(reached.insert("a control")),
            Frame::Message(body) => {
                let VmResponse { seq, response } = VmResponse::parse(&body).expect("an answer");
                let is_it = (seq, response.netfn.get(), response.cmd);
                let at = client.open.iter().position(|open| *open == is_it);
                client.open.remove(at.expect("each request is answered once, and nothing else"));
                reached.insert(match response.ccode {
                    CompletionCode::NODE_BUSY => "too many",
                    CompletionCode::TIMEOUT => "overdue",
                    _ => "answered",
                });
            }
        }
        assert!(input.is_empty(), "one frame at a time");
    }

    fn says(&mut self, no: ClientNo, mut bytes: &[u8], reached: &mut Reached) {
        loop {
            let Some(client) = self.clients.get_mut(&no) else { return };
            let Some(frame) = client.decoder.next_frame(&mut bytes) else { return };
            let Ok(frame) = frame else { continue };
            if let Frame::Message(body) = &frame
                && let Ok(VmRequest { seq, request }) = VmRequest::parse(body)
            {
                client.open.push((seq, request.netfn.response().get(), request.cmd));
            }
            let actions = self.desk.said(self.now, no, frame);
            self.does(actions, reached);
        }
    }

    /// The node says something of the first that it has, or, if that is `wrong`, of none.
    fn node(&mut self, what: u8, data: &[u8], reached: &mut Reached) {
        let first = self.asked.first_key_value().map(|(id, request)| (*id, request.clone()));
        let actions = match (first, what) {
            (Some((id, _)), 1) => {
                self.asked.remove(&id);
                self.desk.refused(id, CompletionCode::DATA_LENGTH_INVALID)
            }
            (Some((id, request)), 0) => {
                self.asked.remove(&id);
                self.desk.answered(id, (request.netfn.response().get(), request.cmd), data)
            }
            (Some((id, request)), 2) => {
                let answer = (request.netfn.get(), request.cmd);
                self.desk.answered(id, answer, data)
            }
            _ => self.desk.answered(self.last + 1, (7, 1), data),
        };
        self.does(actions, reached);
    }

    /// All that was asked by who is here still is answered by now.
    fn finish(mut self, reached: &mut Reached) {
        for _ in 0..=MAX_WAITING {
            self.now += LIMIT;
            let actions = self.desk.tick(self.now);
            self.does(actions, reached);
        }
        assert!(self.desk.next().is_none() && self.desk.with_node() == 0, "nothing is left");
        let open = self.clients.values().any(|client| !client.open.is_empty());
        assert!(self.is_over || !open, "a request is not answered");
    }
}

/// Entries of four bytes: what is done, who does it, and how many bytes of it follow.
///
/// # Panics
/// Where a request is answered twice or never, the node has more than its window, or anything is begun after the end.
pub fn device_bmc(data: &[u8]) -> Reached {
    let mut reached = Reached::new();
    let mut input = Input::new(data);
    let mut world = World::new(1 + usize::from(input.u8() % 8));
    let mut events = BTreeSet::new();
    while !input.rest().is_empty() {
        let (what, who) = (input.u8(), input.u8() % CLIENTS);
        let no = ClientNo::from(who);
        let len = usize::from(input.u16()).min(MAX);
        let bytes = input.bytes(len);
        match what % 8 {
            0 if !world.is_over && !world.clients.contains_key(&no) => {
                world.clients.insert(no, Client::default());
                let actions = world.desk.came(no);
                world.does(actions, &mut reached);
            }
            1 => {
                world.clients.remove(&no);
                let actions = world.desk.left(no);
                world.does(actions, &mut reached);
                reached.insert("a client goes");
            }
            2 | 3 => world.says(no, bytes, &mut reached),
            4 => world.node(who, bytes, &mut reached),
            5 => {
                events.insert(bytes.to_vec());
                let actions = world.desk.event(bytes[..bytes.len().min(16)].to_vec());
                world.does(actions, &mut reached);
                if events.len() > MAX_EVENTS {
                    reached.insert("too many events");
                }
            }
            6 => {
                world.now += Duration::from_millis(len as u64 * 500);
                let actions = world.desk.tick(world.now);
                world.does(actions, &mut reached);
            }
            7 if who == 3 => {
                world.desk.end();
                world.is_over = true;
                reached.insert("the end");
            }
            _ => {}
        }
    }
    world.finish(&mut reached);
    reached
}
