// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands reserved for one program, on a node made for it: `POST /v1/reserve` and the verb.
//!
//! A reservation is as long as the connection that asked for it. The node is made beside the main loop,
//! since udev may take its time; the commands are reserved from the start.

mod command;
pub mod verb;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use daemon_kit::config::Mode;
use daemon_kit::control::{ApiError, Connection, LineSender, Lines, Peer, lines};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::config::{Class, MAX_NODES, NodeSpec};
use crate::front::{self, FrontError, Node, NodeEvent};
use crate::mux::{Holder, Mux, Unavailable};
use crate::policy::Policy;
pub use command::{CommandCode, UnknownCommand};

/// Events waiting for the main loop, at most: two for each reservation, of which the control socket's 40
/// connections for changes allow as many.
pub const MAX_EVENTS: usize = 80;
/// Index and minor number of the first temporary node: above all configured ones. Neither is used
/// twice, so that nothing that is late, of the kernel's or of udev's, is taken for the next node's.
const FIRST_INDEX: usize = MAX_NODES;
/// Minor numbers have 20 bits: `MINORBITS` in `linux/include/linux/kdev_t.h`.
const MINORS: usize = 1 << 20;

/// The body of `POST /v1/reserve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReserveRequest {
    /// The commands, as [`CommandCode`] reads them.
    pub commands: Vec<String>,
}

/// The first and only line of the answer, which stays open as long as the reservation lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Path of the node.
    pub node: String,
    /// Its number, as in `/dev/ipmi/N`.
    pub number: u32,
}

/// A request to the main loop with the place for its answer.
#[derive(Debug)]
pub struct Ask {
    /// What to reserve.
    pub commands: Vec<CommandCode>,
    /// For whom.
    pub peer: Peer,
    /// How long.
    pub connection: Connection,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Lines, ApiError>>,
}

impl Ask {
    /// Checks a request.
    ///
    /// # Errors
    /// Status 400 with what to write instead.
    pub fn new(
        request: &ReserveRequest,
        peer: Peer,
        connection: Connection,
        answer: oneshot::Sender<Result<Lines, ApiError>>,
    ) -> Result<Self, ApiError> {
        let commands: Result<Vec<_>, _> =
            request.commands.iter().map(|text| text.parse()).collect();
        let commands =
            commands.map_err(|e: UnknownCommand| ApiError::bad_request(e.to_string()))?;
        if commands.is_empty() {
            let error = ApiError::bad_request("there is no command to reserve");
            return Err(error.with_remedy("name one in `commands`, such as \"00/02\""));
        }
        Ok(Self { commands, peer, connection, answer })
    }
}

/// What the task of a reservation reports.
#[derive(Debug)]
pub enum Event {
    /// The node is there, or cannot be made.
    Made(usize, Result<Node, FrontError>),
    /// The connection has ended.
    Ended(usize),
}

#[derive(Debug)]
struct Reservation {
    name: String,
    number: u32,
    peer: Peer,
    /// Until the node is there.
    answer: Option<oneshot::Sender<Result<Lines, ApiError>>>,
    /// Keeps the asker's stream open.
    stream: Option<LineSender>,
    /// Ends with the reservation: the one that makes the node and waits for the connection's end, and
    /// the node's reader.
    tasks: Vec<AbortHandle>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The reservations by the index of their node.
#[derive(Debug)]
pub struct Reservations {
    live: BTreeMap<usize, Reservation>,
    next: usize,
    events: mpsc::Sender<Event>,
}

impl Reservations {
    /// None yet; their tasks report to `events`.
    #[must_use]
    pub fn new(events: mpsc::Sender<Event>) -> Self {
        Self { live: BTreeMap::new(), next: FIRST_INDEX, events }
    }

    /// Reserves, and begins to make the node. `major` is that of all nodes.
    pub fn ask(
        &mut self,
        ask: Ask,
        mux: &mut Mux,
        nodes: &BTreeMap<usize, Node>,
        major: u32,
        runtime_dir: &Path,
    ) {
        let index = self.next;
        let commands: Vec<(u8, u8)> = ask.commands.iter().map(|c| (c.netfn, c.cmd)).collect();
        if let Err((netfn, cmd, why)) = mux.reserve_for_node(index, &commands) {
            let refusal = self.refusal(CommandCode { netfn, cmd }, why, mux, nodes);
            // An asker that went away is no error.
            drop(ask.answer.send(Err(refusal)));
            return;
        }
        self.next += 1;
        let number = self.free_number(nodes);
        let name = format!("ipmi/{number}");
        let spec = NodeSpec {
            name: name.clone(),
            owner: ask.peer.uid.to_string(),
            group: "root".to_owned(),
            mode: Mode::new(0o600),
            policy: Arc::new(Policy::full()),
            class: Class::Normal,
            reserve: vec![],
        };
        let minor = FIRST_INDEX + (index - FIRST_INDEX) % (MINORS - FIRST_INDEX);
        let numbers = (major, u32::try_from(minor).expect("20 bits"));
        let closed = ask.connection.closed();
        let (events, runtime_dir) = (self.events.clone(), runtime_dir.to_owned());
        let task = tokio::spawn(async move {
            tokio::pin!(closed);
            let made = tokio::select! {
                made = front::create_one(&spec, &runtime_dir, numbers) => Some(made),
                () = &mut closed => None,
            };
            if let Some(made) = made {
                let failed = made.is_err();
                if events.send(Event::Made(index, made)).await.is_err() || failed {
                    return;
                }
                closed.await;
            }
            let _ = events.send(Event::Ended(index)).await;
        });
        let (answer, peer) = (Some(ask.answer), ask.peer);
        let tasks = vec![task.abort_handle()];
        let reservation = Reservation { name, number, peer, answer, stream: None, tasks };
        self.live.insert(index, reservation);
    }

    /// Takes over a node that was made. Returns it where the reservation lives still; an error has ended
    /// it.
    pub fn made(
        &mut self,
        index: usize,
        made: Result<Node, FrontError>,
        node_events: &mpsc::Sender<NodeEvent>,
    ) -> Option<Node> {
        let reservation = self.live.get_mut(&index)?;
        let answer = reservation.answer.take()?;
        let node = match made {
            Ok(node) => node,
            Err(error) => {
                tracing::warn!(node = reservation.name, %error, "no node for a reservation");
                drop(answer.send(Err(ApiError::internal(error.to_string()))));
                return None;
            }
        };
        let (sender, stream) = lines(1);
        let granted =
            Granted { node: node.path().display().to_string(), number: reservation.number };
        // It has room for one line; and if the asker is gone, the task says so.
        let _ = sender.send(&granted);
        let _ = answer.send(Ok(stream));
        reservation.stream = Some(sender);
        reservation
            .tasks
            .push(tokio::spawn(node.reader(index, node_events.clone())).abort_handle());
        let Peer { uid, pid, .. } = reservation.peer;
        tracing::debug!(node = reservation.name, uid, pid, "reserved");
        Some(node)
    }

    /// Ends a reservation: its commands are free, its handles closed. The caller drops the node.
    pub fn end(&mut self, now: Instant, index: usize, mux: &mut Mux, runtime_dir: &Path) {
        let Some(reservation) = self.live.remove(&index) else { return };
        mux.close_node(now, index);
        front::forget(&reservation.name, runtime_dir);
    }

    /// Whether a node is that of a reservation.
    #[must_use]
    pub fn has(&self, index: usize) -> bool {
        self.live.contains_key(&index)
    }

    /// User and process that a node was made for.
    #[must_use]
    pub fn asker(&self, index: usize) -> Option<(u32, Option<u32>)> {
        let Peer { uid, pid, .. } = self.live.get(&index)?.peer;
        Some((uid, pid.and_then(|pid| pid.try_into().ok())))
    }

    fn refusal(
        &self,
        command: CommandCode,
        why: Unavailable,
        mux: &Mux,
        nodes: &BTreeMap<usize, Node>,
    ) -> ApiError {
        match why {
            Unavailable::Full => ApiError::busy("too many commands are reserved")
                .with_remedy("try again when another reservation has ended"),
            Unavailable::Busy { holder } => {
                let who = self.who(holder, mux, nodes);
                ApiError::busy(format!("command {command} is reserved by {who}"))
                    .with_remedy("try again when that has ended")
            }
        }
    }

    fn who(&self, holder: Holder, mux: &Mux, nodes: &BTreeMap<usize, Node>) -> String {
        match holder {
            Holder::Node(index) => match self.live.get(&index) {
                Some(Reservation { name, peer: Peer { uid, pid, .. }, .. }) => {
                    let pid = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
                    format!("/dev/{name} (pid {pid}, uid {uid})")
                }
                None => format!("node {index}"),
            },
            Holder::Handle(id) => match mux.handles().find(|(other, _)| *other == id) {
                Some((_, info)) => {
                    let node = nodes.get(&info.owner.node).map(Node::path).unwrap_or_default();
                    let (pid, uid) = (info.owner.pid, info.owner.uid);
                    format!("{} (pid {pid}, uid {uid})", node.display())
                }
                None => format!("handle {}", id.0),
            },
        }
    }

    /// The lowest number that is no node's. Not 0: `ipmitool -d N` looks for `/dev/ipmiN` first, and
    /// without a number for N = 0.
    fn free_number(&self, nodes: &BTreeMap<usize, Node>) -> u32 {
        let taken = |number: u32| {
            let name = format!("ipmi/{number}");
            nodes.values().any(|node| node.spec.name == name)
                || self.live.values().any(|other| other.number == number)
                || front::is_taken(&name)
                || front::is_taken(&format!("ipmi{number}"))
        };
        (1..).find(|number| !taken(*number)).expect("nodes are bounded, numbers are not")
    }
}
