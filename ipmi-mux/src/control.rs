// SPDX-License-Identifier: MIT OR Apache-2.0
//! The control interface: what `status`, `clients` and Prometheus ask the daemon.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use daemon_kit::control::{ApiError, CHANGE_GROUP, Connection, Lines, Peer, Role};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::mux::Stats;
use crate::reserve::{self, ReserveRequest};
use crate::watch::publish::{self, Records};

/// Questions waiting for the main loop, at most.
pub const MAX_QUESTIONS: usize = 16;

/// A question to the main loop with the place for its answer.
#[derive(Debug)]
pub enum Question {
    /// `GET /v1/status`.
    Status(oneshot::Sender<Status>),
    /// `GET /v1/clients`.
    Clients(oneshot::Sender<Vec<Client>>),
    /// `POST /v1/reserve`.
    Reserve(reserve::Ask),
    /// `GET /v1/watch`.
    Watch(oneshot::Sender<Records>),
}

/// The state of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// The BMC.
    pub bmc: BmcStatus,
    /// The nodes in the order of the configuration.
    pub nodes: Vec<NodeStatus>,
    /// What is held alone, and by whom.
    pub held: Vec<HeldStatus>,
    /// How many watch what passes.
    pub watchers: usize,
    /// Counters and gauges, see ipmi-mux(8).
    pub counters: serde_json::Map<String, serde_json::Value>,
}

/// What is known of the BMC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcStatus {
    /// How it is reached.
    pub address: String,
    /// Path of the hardware's node while the kernel's name is taken over.
    pub hardware_node: Option<String>,
    /// Whether it can be reached; a BMC behind the kernel's node can while the node is there.
    pub reachable: bool,
    /// Firmware revision, such as `1.20`, where it told.
    pub firmware: Option<String>,
    /// IPMI version, such as `2.0`, where it told.
    pub ipmi_version: Option<String>,
    /// IANA number of the manufacturer, where it told.
    pub manufacturer: Option<u32>,
    /// Other users of the kernel's interface that pass beside us, such as `ipmi_watchdog`.
    pub kernel_users: Vec<String>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its path.
    pub path: String,
    /// Major and minor number.
    pub device: String,
    /// Group, by name.
    pub group: String,
    /// Permissions, octal.
    pub mode: String,
    /// Handles open.
    pub handles: usize,
}

/// Something that one handle, or the handles of one node, have alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldStatus {
    /// What, such as `watchdog`.
    pub what: String,
    /// Path of the node.
    pub node: String,
    /// The handle; none where it is all of the node's.
    pub handle: Option<u64>,
    /// Who opened the handle.
    pub uid: Option<u32>,
    /// Process or thread id at the open.
    pub pid: Option<u32>,
    /// Name of that process, while it is there.
    pub command: Option<String>,
}

/// A handle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Its number; never used twice while the daemon runs.
    pub handle: u64,
    /// The virtual controller it belongs to: the handle itself, or the one it attached to.
    pub controller: u64,
    /// Path of the node it opened.
    pub node: String,
    /// User id at the open.
    pub uid: u32,
    /// Process or thread id at the open.
    pub pid: u32,
    /// Name of that process, while it is there.
    pub command: Option<String>,
    /// Seconds since the open.
    pub age_s: u64,
    /// Messages accepted.
    pub sent: u64,
    /// Answers given, time-outs among them.
    pub answered: u64,
    /// Answers that were a time-out of ours.
    pub timeouts: u64,
    /// Messages refused with an errno.
    pub refused: u64,
    /// Events and commands dropped because it did not receive.
    pub dropped: u64,
    /// Messages that wait for their turn.
    pub queued: usize,
    /// Messages with the BMC.
    pub in_flight: usize,
    /// Messages it has not received.
    pub unread: usize,
    /// Whether it asked for events.
    pub events: bool,
}

/// The routes; questions go to the main loop.
pub fn router(questions: mpsc::Sender<Question>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/clients", get(clients))
        .route("/v1/reserve", post(reserve))
        .route("/v1/watch", get(watch))
        .with_state(questions)
}

type Questions = State<mpsc::Sender<Question>>;

async fn status(State(questions): Questions) -> Result<Json<Status>, ApiError> {
    ask(&questions, Question::Status).await.map(Json)
}

async fn clients(State(questions): Questions) -> Result<Json<Vec<Client>>, ApiError> {
    ask(&questions, Question::Clients).await.map(Json)
}

/// What passes may hold secrets that we do not know of: not for those who may only read.
async fn watch(peer: Peer, State(questions): Questions) -> Result<Lines, ApiError> {
    if peer.role != Role::Changer {
        return Err(ApiError::forbidden(format!("user {} may not watch what passes", peer.uid))
            .with_remedy(format!("join group {CHANGE_GROUP}")));
    }
    let records = ask(&questions, Question::Watch).await?;
    let (chunks, body) = mpsc::channel(publish::CHUNKS);
    tokio::spawn(publish::forward(records, chunks));
    Ok(Lines::from(body))
}

async fn reserve(
    State(questions): Questions,
    peer: Peer,
    connection: Connection,
    Json(request): Json<ReserveRequest>,
) -> Result<Lines, ApiError> {
    let (answer, answered) = oneshot::channel();
    let ask = reserve::Ask::new(&request, peer, connection, answer)?;
    questions.send(Question::Reserve(ask)).await.map_err(|_| stopping())?;
    answered.await.map_err(|_| stopping())?
}

fn stopping() -> ApiError {
    ApiError::busy("ipmi-mux is stopping")
}

async fn ask<T>(
    questions: &mpsc::Sender<Question>,
    question: impl FnOnce(oneshot::Sender<T>) -> Question,
) -> Result<T, ApiError> {
    let (answer, answered) = oneshot::channel();
    questions.send(question(answer)).await.map_err(|_| stopping())?;
    answered.await.map_err(|_| stopping())
}

/// The core's counters for Prometheus; the main loop keeps them fresh.
#[derive(Debug, Clone, Default)]
pub struct SharedStats(Arc<Mutex<Stats>>);

impl SharedStats {
    /// Publishes new values.
    pub fn set(&self, stats: Stats) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    fn get(&self) -> Stats {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for SharedStats {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let s = self.get();
        let gauges = [
            ("handles", "Handles open", s.handles),
            ("requests_queued", "Requests that wait for their turn", s.queued),
            ("requests_in_flight", "Requests with the BMC", s.in_flight),
            ("requests_abandoned", "Requests with the BMC that nobody waits for", s.abandoned),
            ("event_listeners", "Handles that asked for events", s.event_listeners),
            ("answers_cached", "Answers kept for other clients", s.cached),
            ("reservations", "Reservations of record stores that handles have", s.reservations),
            ("breaker_open", "Whether commands are refused for a BMC that hangs", s.breaker_open),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        let counters = [
            ("opens", "Handles opened", s.opens),
            ("opens_refused", "Opens refused for too many handles", s.opens_refused),
            ("requests", "Requests handed to the BMC", s.to_bmc),
            ("timeouts", "Requests answered with C3 at their deadline", s.timeouts),
            ("late_replies", "Answers that came when nobody waited", s.late_replies),
            ("never_answered", "Requests given up that the BMC never answered", s.never_answered),
            ("back_end_refusals", "Requests the back end would not take", s.refused_by_back_end),
            ("cache_hits", "Requests answered from the cache", s.cache_hits),
            ("shared", "Requests that got the answer of an identical one", s.shared),
            ("replays", "Requests repeated with a new reservation", s.replays),
            ("reservations_void", "Requests with a void reservation", s.reservations_void),
            ("denied", "Messages that the node's policy does not allow", s.denied),
            ("reserved_refusals", "Commands reserved for others", s.reserved_refusals),
            ("lease_refusals", "Requests refused for another's lease", s.lease_refusals),
            ("breaker_refusals", "Requests refused while the BMC hung", s.breaker_refusals),
            ("breaker_openings", "How often the BMC stopped answering", s.breaker_openings),
            ("events", "Events from the BMC", s.events),
            ("events_dropped", "Events dropped for handles that did not receive", s.events_dropped),
            ("commands", "Commands of other controllers given to a handle", s.commands),
            (
                "commands_unclaimed",
                "Commands of other controllers nobody wanted",
                s.commands_unclaimed,
            ),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}
