// SPDX-License-Identifier: MIT OR Apache-2.0
//! The daemon: starts everything, then runs the one loop that tells the core what happened and carries
//! out what it answers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use daemon_kit::control::{ControlServer, Policy};
use daemon_kit::metrics::{Metrics, MetricsServer};
use daemon_kit::notify::{self, Watchdog};
use daemon_kit::signals::{Signal, Signals};
use kernel_abi::cuse::{self, FUSE_POLL_SCHEDULE_NOTIFY, IoctlIn, Operation};
use nix::errno::Errno;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use zerocopy::IntoBytes;

use crate::audit::Audit;
use crate::back::devintf::{DeviceId, Devintf};
use crate::back::vm::Vm;
use crate::back::{self, Back, BackEvent};
use crate::config::{self, BmcAddress, Config, NodeSpec};
use crate::control::{
    self, BmcStatus, Client, HeldStatus, NodeStatus, Question, SharedStats, Status,
};
use crate::devintf::{Call, Delivery, Step, decode};
use crate::extension::Sequence;
use crate::front::{self, Node, NodeEvent};
use crate::hotplug::{Removal, Uevents};
use crate::mux::{
    Action, AttachToken, Channels, HandleId, Held, Holder, Limits, MAX_RESERVED, Mux, NodeRules,
    Owner, Range,
};
use crate::reserve::{self, Reservations};
use crate::takeover;
use crate::watch::publish::Publisher;

/// Requests of the kernel waiting for the main loop, at most; more wait in the kernel.
const MAX_NODE_EVENTS: usize = 256;
/// Rare events waiting for the main loop, at most.
const MAX_RARE: usize = 16;
/// Requests and answers served before the main loop looks after everything else, its watchdog too.
const MAX_IN_A_ROW: usize = 64;
/// Without systemd's watchdog the tick only refreshes what `/metrics` shows.
const TICK: Duration = Duration::from_secs(2);
/// `POLLIN | POLLRDNORM`, what the driver's poll gives.
const READABLE: u32 = 0x001 | 0x040;

/// How the daemon ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Somebody asked.
    Stopped,
    /// The BMC's device was removed. systemd starts the daemon again when it is back.
    Removed {
        /// Whether it was back already when we looked: then nobody will start us.
        back_again: bool,
    },
}

/// Runs until it is told to stop or the BMC is gone.
///
/// # Errors
/// What keeps it from starting, with the remedy.
pub async fn serve(config: Config) -> anyhow::Result<End> {
    let started = Instant::now();
    if let Some(number) = config.take_over {
        takeover::check_taken_over(number)?;
    }
    let signals = Signals::new().context("cannot handle signals")?;
    let uevents = Uevents::new().context("cannot listen to the kernel's uevents")?;
    std::fs::create_dir_all(&config.runtime_dir)
        .with_context(|| format!("cannot make {}", config.runtime_dir.display()))?;

    let (back_events, mut from_back) = mpsc::channel(back::MAX_EVENTS);
    let opened = open_back(&config, back_events).await?;
    let (questions, mut from_control) = mpsc::channel(control::MAX_QUESTIONS);
    let stats = SharedStats::default();
    let metrics = metrics(&stats);
    let router = control::router(questions).merge(Arc::clone(&metrics).routes());
    let server = ControlServer::bind(&config.control_socket(), router, Policy::system()).await?;
    let metrics_server = match config.metrics_listen {
        Some(listen) => Some(MetricsServer::bind(listen, metrics).await?),
        None => None,
    };
    let nodes = front::create(&config.nodes, &config.runtime_dir).await?;
    let (node_events, mut from_nodes) = mpsc::channel(MAX_NODE_EVENTS);
    for (index, node) in nodes.iter().enumerate() {
        tokio::spawn(node.reader(index, node_events.clone()));
    }
    let (reservation_events, mut from_reservations) = mpsc::channel(reserve::MAX_EVENTS);
    let (stop_control, control_stops) = oneshot::channel::<()>();
    let control = tokio::spawn(server.run(async { drop(control_stops.await) }));
    if let Some(server) = metrics_server {
        tokio::spawn(server.run());
    }

    let Opened { back, defaults, channels, device_id } = opened;
    let limits = Limits {
        deadline: config.deadline,
        long_deadline: config.long_deadline,
        window: back.window(),
        abandoned_for: back.abandoned_for(),
        sensor_age: config.sensor_age,
        reserved_code: config.reserved_code,
    };
    let reachable = matches!(back, Back::Devintf(_));
    let mut mux = Mux::new(limits, channels, defaults);
    for (index, node) in nodes.iter().enumerate() {
        let NodeSpec { policy, class, reserve, .. } = &node.spec;
        let background = *class == config::Class::Background;
        mux.set_rules(index, NodeRules { policy: Arc::clone(policy), background });
        mux.reserve_for_node(index, reserve).map_err(|_| {
            anyhow::anyhow!("more than {MAX_RESERVED} commands are reserved in `nodes`")
        })?;
    }
    let mut shell = Shell {
        mux,
        back,
        nodes: nodes.into_iter().enumerate().collect(),
        pollers: HashMap::new(),
        reservations: Reservations::new(reservation_events),
        node_events,
        reachable,
        audit: Audit::default(),
        publisher: Publisher::new(),
    };
    let watchdog = Watchdog::from_env();
    let every = watchdog.as_ref().map_or(TICK, Watchdog::interval);
    let (rare_events, mut from_rare) = mpsc::channel(MAX_RARE);
    tokio::spawn(report_rare(signals, uevents, device_name(&config), every, rare_events));

    tracing::info!(bmc = %config.bmc, nodes = shell.nodes.len(), "serving");
    notify::ready(&format!("{} on {} nodes", config.bmc, shell.nodes.len()));
    let mut alarm = std::pin::pin!(sleep_until(far_away().into()));
    // The alarm may ring too early, never too late: to set it for each request would cost more.
    let mut set_for = far_away();
    let mut in_a_row = 0;
    let end = loop {
        if let Some(at) = shell.mux.next_timeout().filter(|at| *at < set_for) {
            alarm.as_mut().reset(at.into());
            set_for = at;
        }
        tokio::select! {
            biased;
            Some(event) = from_back.recv(), if in_a_row < MAX_IN_A_ROW => {
                in_a_row += 1;
                if let Some(end) = shell.on_back(Instant::now(), event, &config) { break end }
            }
            Some(event) = from_nodes.recv(), if in_a_row < MAX_IN_A_ROW => {
                in_a_row += 1;
                shell.on_node(Instant::now(), event, &config.runtime_dir);
            }
            Some(event) = from_rare.recv() => match event {
                Rare::Signal(Signal::Stop) => break End::Stopped,
                Rare::Signal(Signal::Reload) => {
                    tracing::info!("the configuration is read at the start only");
                }
                Rare::Removal(removal) => {
                    if removal == Removal::Certain || shell.back.is_gone() {
                        break removed(&config);
                    }
                }
                Rare::Tick => if let Some(watchdog) = &watchdog { watchdog.kick() },
            },
            Some(event) = from_reservations.recv() => {
                shell.on_reservation(Instant::now(), event, &config.runtime_dir);
            }
            Some(question) = from_control.recv() => {
                let facts = Facts { config: &config, started, device_id: device_id.as_deref() };
                shell.on_question(question, &facts);
            }
            () = &mut alarm => {
                set_for = far_away();
                alarm.as_mut().reset(set_for.into());
                shell.mux.handle_timeout(Instant::now());
            }
            () = std::future::ready(()), if in_a_row >= MAX_IN_A_ROW => in_a_row = 0,
        }
        shell.carry_out(Instant::now());
        shell.publish();
        stats.set(shell.mux.stats());
    };
    notify::stopping();
    tracing::info!(?end, "stopping");
    // The nodes go first: callers get their error now, not when the last answer is written.
    drop(shell);
    drop((from_nodes, stop_control));
    let _ = control.await;
    Ok(end)
}

/// What happens now and then. It is looked after beside the main loop, which has enough to do with
/// looking whether there is another request.
enum Rare {
    Signal(Signal),
    Removal(Removal),
    Tick,
}

async fn report_rare(
    mut signals: Signals,
    uevents: Uevents,
    device_name: Option<String>,
    every: Duration,
    events: mpsc::Sender<Rare>,
) {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            signal = signals.next() => Rare::Signal(signal),
            heard = removal(&uevents, device_name.as_deref()) => Rare::Removal(heard),
            _ = tick.tick() => Rare::Tick,
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// Later than anything we wait for.
fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}

/// Name of the BMC's node as uevents have it, such as `ipmi0`; none for a simulator.
fn device_name(config: &Config) -> Option<String> {
    let BmcAddress::Device(path) = &config.bmc else { return None };
    if let Some(number) = config.take_over {
        // Nothing under /dev has the hardware's number and its name.
        return Some(format!("ipmi{number}"));
    }
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    Some(path.strip_prefix("/dev").unwrap_or(&path).to_string_lossy().into_owned())
}

async fn removal(uevents: &Uevents, name: Option<&str>) -> Removal {
    let Some(name) = name else { return std::future::pending().await };
    match uevents.removal(name).await {
        Ok(removal) => removal,
        Err(error) => {
            tracing::error!(%error, "cannot hear of the BMC's removal any more");
            std::future::pending().await
        }
    }
}

fn removed(config: &Config) -> End {
    let back_again = match (&config.bmc, config.take_over) {
        // Under its name is our own node.
        (_, Some(number)) => takeover::is_present(number),
        (BmcAddress::Device(path), None) => path.exists(),
        _ => false,
    };
    End::Removed { back_again }
}

struct Opened {
    back: Back,
    defaults: [(u8, u8); 16],
    channels: Channels,
    device_id: Option<DeviceId>,
}

async fn open_back(config: &Config, events: back::Events) -> anyhow::Result<Opened> {
    match &config.bmc {
        BmcAddress::Device(path) => {
            let devintf = Devintf::open(&config.hardware().unwrap_or_else(|| path.clone()))?;
            let (device_id, channels) = devintf.probe().await;
            if device_id.is_none() {
                tracing::warn!(device = %path.display(), "the BMC does not answer; serving all the same");
            }
            tokio::spawn(devintf.reader(events));
            let defaults = devintf.defaults();
            Ok(Opened { back: Back::Devintf(devintf), defaults, channels, device_id })
        }
        address => {
            let vm = Vm::new();
            tokio::spawn(vm.run(address.clone(), events));
            // As the driver's: the BMC's address, and the LUN of system software.
            let defaults = [(0x20, 2); 16];
            Ok(Opened { back: Back::Vm(vm), defaults, channels: Channels::NONE, device_id: None })
        }
    }
}

fn metrics(stats: &SharedStats) -> Arc<Metrics> {
    let mut metrics = Metrics::new("ipmi-mux", env!("CARGO_PKG_VERSION"));
    metrics.registry().register_collector(Box::new(stats.clone()));
    Arc::new(metrics)
}

/// What the core does not know and the status shows.
struct Facts<'a> {
    config: &'a Config,
    started: Instant,
    device_id: Option<&'a [u8]>,
}

struct Shell {
    mux: Mux,
    back: Back,
    /// By [`Owner::node`]: the configured ones first, then those of reservations.
    nodes: BTreeMap<usize, Node>,
    /// Node and kernel handle of whoever polls a handle.
    pollers: HashMap<HandleId, (usize, u64)>,
    reservations: Reservations,
    node_events: mpsc::Sender<NodeEvent>,
    reachable: bool,
    audit: Audit,
    publisher: Publisher,
}

impl Shell {
    fn on_back(&mut self, now: Instant, event: BackEvent, config: &Config) -> Option<End> {
        let bmc = &config.bmc;
        match event {
            BackEvent::Reply(token, reply) => self.mux.handle_reply(now, token, reply),
            BackEvent::Event(event) => self.mux.handle_event(&event),
            BackEvent::Command(seq, command) => {
                if !self.mux.handle_command(seq, &command) {
                    tracing::debug!(netfn = command.netfn, cmd = command.cmd, "unclaimed command");
                }
            }
            BackEvent::Reachable(reachable) => {
                self.reachable = reachable;
                if reachable {
                    tracing::info!(%bmc, "connected");
                } else {
                    tracing::warn!(%bmc, "connection lost; trying again");
                }
            }
            BackEvent::Gone(reason) => {
                tracing::warn!(%bmc, reason, "the BMC's device is gone");
                return Some(removed(config));
            }
        }
        None
    }

    fn on_reservation(&mut self, now: Instant, event: reserve::Event, runtime_dir: &Path) {
        match event {
            reserve::Event::Made(index, made) => {
                match self.reservations.made(index, made, &self.node_events) {
                    Some(node) => drop(self.nodes.insert(index, node)),
                    None => self.end_reservation(now, index, runtime_dir),
                }
            }
            reserve::Event::Ended(index) => self.end_reservation(now, index, runtime_dir),
        }
    }

    /// Before the node goes, so that whoever sees it gone finds the commands free.
    fn end_reservation(&mut self, now: Instant, index: usize, runtime_dir: &Path) {
        self.reservations.end(now, index, &mut self.mux, runtime_dir);
        self.pollers.retain(|_, (node, _)| *node != index);
        self.nodes.remove(&index);
    }

    fn on_node(&mut self, now: Instant, event: NodeEvent, runtime_dir: &Path) {
        let (index, bytes) = match event {
            NodeEvent::Request(index, bytes) => (index, bytes),
            NodeEvent::Gone(index, errno) => {
                let node = self.nodes.get(&index).map(|node| node.spec.name.as_str());
                tracing::error!(node, %errno, "the node was taken from us; restart to have it back");
                if self.reservations.has(index) {
                    self.end_reservation(now, index, runtime_dir);
                }
                return;
            }
        };
        // What a node asked before it went needs no answer.
        if !self.nodes.contains_key(&index) {
            return;
        }
        let request = match cuse::decode(&bytes) {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(%error, "the kernel sends what we do not understand");
                return;
            }
        };
        let unique = request.header.unique;
        let reply = match request.operation {
            Operation::Open(_) => {
                let header = request.header;
                let owner =
                    Owner { node: index, uid: header.uid, gid: header.gid, pid: header.pid };
                match self.mux.open(now, owner) {
                    Ok(HandleId(fh)) => cuse::reply_open(unique, fh),
                    Err(errno) => cuse::reply_error(unique, errno),
                }
            }
            Operation::Release(release) => {
                self.pollers.remove(&HandleId(release.fh));
                self.mux.close(now, HandleId(release.fh));
                self.audit.forget(HandleId(release.fh));
                self.publish();
                self.publisher.forget(HandleId(release.fh));
                cuse::reply_empty(unique)
            }
            Operation::Poll(poll) => {
                let id = HandleId(poll.fh);
                if poll.flags & FUSE_POLL_SCHEDULE_NOTIFY != 0 {
                    self.pollers.insert(id, (index, poll.kh));
                }
                cuse::reply_poll(unique, if self.mux.is_readable(id) { READABLE } else { 0 })
            }
            Operation::Ioctl(ioctl, data) => self.on_ioctl(now, unique, &ioctl, data),
            // Nothing waits in an ioctl: by now the interrupted call has its answer.
            Operation::Interrupt => return,
            // The driver has no read or write either.
            Operation::Other | Operation::Init(_) => cuse::reply_error(unique, Errno::EINVAL),
        };
        // Before the actions: an answer must not wake a poller who is not told of its poll yet.
        self.nodes[&index].reply(&reply);
    }

    fn on_ioctl(&mut self, now: Instant, unique: u64, ioctl: &IoctlIn, data: &[u8]) -> cuse::Reply {
        let result = match decode(ioctl, data) {
            Step::Fetch { input, output } => {
                return cuse::reply_ioctl_retry(unique, &input, &output);
            }
            Step::Fail(errno) => Err(errno),
            Step::Call(Call::Receive(receive)) => {
                match self.mux.receive(HandleId(ioctl.fh), &receive) {
                    Ok(Delivery::Fetch { input, output }) => {
                        return cuse::reply_ioctl_retry(unique, &input, &output);
                    }
                    Ok(Delivery::Deliver(result, bytes)) => {
                        return cuse::reply_ioctl(unique, result, &bytes);
                    }
                    Ok(Delivery::Fail(errno)) | Err(errno) => Err(errno),
                }
            }
            Step::Call(call) => self.on_call(now, HandleId(ioctl.fh), call),
        };
        match result {
            Ok(bytes) => cuse::reply_ioctl(unique, Ok(0), &bytes),
            Err(errno) => cuse::reply_ioctl(unique, Err(errno), &[]),
        }
    }

    /// Carries out a call; the bytes go back to the caller.
    fn on_call(&mut self, now: Instant, id: HandleId, call: Call) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![];
        match call {
            Call::Send(send) => self.mux.send(now, id, send)?,
            Call::SetGetsEvents(on) => self.mux.set_gets_events(id, on)?,
            Call::Register(spec) => {
                self.mux.register(id, spec)?;
                self.back.register(spec).inspect_err(|_| {
                    // The driver never had it, so the action that tells it is dropped there.
                    let _ = self.mux.unregister(id, spec);
                })?;
            }
            Call::Unregister(spec) => self.mux.unregister(id, spec)?,
            Call::SetMyAddress(channel, address) => self.mux.source(id, channel)?.0 = address,
            Call::GetMyAddress(channel, shape) => {
                bytes = shape.encode(channel, self.mux.source(id, channel)?.0);
            }
            Call::SetMyLun(channel, lun) => self.mux.source(id, channel)?.1 = lun & 3,
            Call::GetMyLun(channel, shape) => {
                bytes = shape.encode(channel, self.mux.source(id, channel)?.1);
            }
            Call::SetTiming(timing) => *self.mux.timing(id)? = timing,
            Call::GetTiming => bytes = self.mux.timing(id)?.as_bytes().to_vec(),
            Call::SetMaintenanceMode(mode) => self.mux.set_maintenance_mode(id, mode)?,
            Call::GetMaintenanceMode => {
                bytes = self.back.maintenance_mode()?.to_ne_bytes().to_vec();
            }
            Call::ReserveCommand(netfn, cmd) => self.mux.reserve_command(id, netfn, cmd)?,
            Call::ReleaseCommand(netfn, cmd) => self.mux.release_command(id, netfn, cmd)?,
            Call::ReserveSequence(count) => {
                let range = self.mux.reserve_sequence(id, count, random_token()?)?;
                bytes = sequence(&range).as_bytes().to_vec();
            }
            Call::ReleaseSequence(first) => self.mux.release_sequence(id, first.into())?,
            Call::Attach(token) => {
                bytes = sequence(&self.mux.attach(now, id, &token)?).as_bytes().to_vec();
            }
            Call::Receive(_) => unreachable!("receive is answered by on_ioctl"),
        }
        Ok(bytes)
    }

    fn carry_out(&mut self, now: Instant) {
        while let Some(action) = self.mux.next_action() {
            let done = match action {
                Action::Send(out) => {
                    if let Err(errno) = self.back.send(&out) {
                        self.mux.handle_refusal(now, out.token, errno);
                    }
                    Ok(())
                }
                Action::Wake(id) => {
                    let poller = self.pollers.remove(&id);
                    if let Some((node, kh)) =
                        poller.and_then(|(at, kh)| Some((self.nodes.get(&at)?, kh)))
                    {
                        node.reply(&cuse::notify_poll(kh));
                    }
                    Ok(())
                }
                Action::Forget(token) => {
                    self.back.forget(token);
                    Ok(())
                }
                Action::SetGetsEvents(on) => self.back.set_gets_events(on),
                // ENOENT: a registration that the driver had refused.
                Action::Unregister(spec) => match self.back.unregister(spec) {
                    Err(Errno::ENOENT) => Ok(()),
                    done => done,
                },
                Action::SetMaintenanceMode(mode) => self.back.set_maintenance_mode(mode),
                Action::Audit(audited) => {
                    let node = self.node_path(audited.owner.node);
                    self.audit.log(now, &audited, &node);
                    Ok(())
                }
                Action::Denied(id, owner, denied) => {
                    let node = self.node_path(owner.node);
                    self.audit.denied(id, owner, &node, denied);
                    Ok(())
                }
                Action::Breaker { open } => {
                    log_breaker(open);
                    Ok(())
                }
            };
            if let Err(errno) = done {
                tracing::warn!(%errno, "the driver refuses a setting");
            }
        }
    }

    fn on_question(&mut self, question: Question, facts: &Facts<'_>) {
        // An asker that went away in the meantime is no error.
        match question {
            Question::Status(answer) => drop(answer.send(self.status(facts))),
            Question::Clients(answer) => drop(answer.send(self.clients())),
            Question::Watch(answer) => {
                drop(answer.send(self.publisher.subscribe(&mut self.mux)));
            }
            Question::Reserve(ask) => {
                let major = self.nodes.values().next().map_or(0, |node| node.numbers.0);
                let Self { mux, nodes, reservations, .. } = self;
                reservations.ask(ask, mux, nodes, major, &facts.config.runtime_dir);
            }
        }
    }

    fn status(&self, facts: &Facts<'_>) -> Status {
        let mut handles: BTreeMap<usize, usize> = BTreeMap::new();
        for (_, info) in self.mux.handles() {
            *handles.entry(info.owner.node).or_default() += 1;
        }
        let counters = serde_json::to_value(self.mux.stats()).ok();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: facts.started.elapsed().as_secs(),
            bmc: bmc_status(facts, self.reachable),
            nodes: self
                .nodes
                .iter()
                .map(|(index, node)| NodeStatus {
                    path: node.path().display().to_string(),
                    device: format!("{}:{}", node.numbers.0, node.numbers.1),
                    group: node.spec.group.clone(),
                    mode: node.spec.mode.to_string(),
                    handles: handles.get(index).copied().unwrap_or(0),
                })
                .collect(),
            held: self.held(),
            watchers: self.publisher.watchers(),
            counters: counters.and_then(|c| c.as_object().cloned()).unwrap_or_default(),
        }
    }

    fn publish(&mut self) {
        let Self { mux, nodes, publisher, .. } = self;
        publisher.publish(mux, |node| {
            nodes.get(&node).map(|n| n.path().display().to_string()).unwrap_or_default()
        });
    }

    fn node_path(&self, node: usize) -> String {
        self.nodes.get(&node).map(|n| n.path().display().to_string()).unwrap_or_default()
    }

    fn held(&self) -> Vec<HeldStatus> {
        let owners: HashMap<HandleId, Owner> =
            self.mux.handles().map(|(id, info)| (id, info.owner)).collect();
        let shown = |Held { holder, what }: Held| {
            let (handle, owner) = match holder {
                Holder::Handle(id) => (Some(id.0), owners.get(&id)),
                Holder::Node(_) => (None, None),
            };
            let node = match holder {
                Holder::Node(node) => Some(node),
                Holder::Handle(_) => owner.map(|o| o.node),
            };
            HeldStatus {
                what,
                node: node.map(|node| self.node_path(node)).unwrap_or_default(),
                handle,
                uid: owner.map(|o| o.uid),
                pid: owner.map(|o| o.pid),
                command: owner.and_then(|o| process_name(o.pid)),
            }
        };
        self.mux.held().into_iter().map(shown).collect()
    }

    fn clients(&self) -> Vec<Client> {
        let client = |(HandleId(handle), info): (HandleId, crate::mux::Info)| Client {
            handle,
            controller: info.controller.0,
            node: self.node_path(info.owner.node),
            uid: info.owner.uid,
            pid: info.owner.pid,
            command: process_name(info.owner.pid),
            age_s: info.opened.elapsed().as_secs(),
            sent: info.sent,
            answered: info.answered,
            timeouts: info.timeouts,
            refused: info.refused,
            dropped: info.dropped,
            queued: info.queued,
            in_flight: info.in_flight,
            unread: info.unread,
            events: info.gets_events,
        };
        self.mux.handles().map(client).collect()
    }
}

/// Get Device ID, IPMI 2.0 table 20-2; offsets are those after the completion code.
fn bmc_status(facts: &Facts<'_>, reachable: bool) -> BmcStatus {
    let id = facts.device_id.filter(|id| id.len() >= 9);
    // They pass beside us only where the kernel's driver is what we use.
    let behind_driver = matches!(facts.config.bmc, BmcAddress::Device(_));
    let in_use = |module: &&str| behind_driver && Path::new("/sys/module").join(module).exists();
    BmcStatus {
        address: facts.config.bmc.to_string(),
        hardware_node: facts.config.hardware().map(|path| path.display().to_string()),
        reachable,
        firmware: id.map(|id| format!("{}.{:02x}", id[2] & 0x7f, id[3])),
        ipmi_version: id.map(|id| format!("{}.{}", id[4] & 0x0f, id[4] >> 4)),
        manufacturer: id.map(|id| u32::from_le_bytes([id[6], id[7], id[8], 0])),
        kernel_users: ["ipmi_watchdog", "ipmi_poweroff", "acpi_ipmi"]
            .into_iter()
            .filter(in_use)
            .map(str::to_owned)
            .collect(),
    }
}

fn process_name(pid: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

fn log_breaker(open: bool) {
    if open {
        tracing::warn!("the BMC does not answer: commands are refused until it does");
    } else {
        tracing::info!("the BMC answers again");
    }
}

fn random_token() -> Result<AttachToken, Errno> {
    let mut token = AttachToken::default();
    let mut source = std::fs::File::open("/dev/urandom").map_err(|_| Errno::EIO)?;
    std::io::Read::read_exact(&mut source, &mut token).map_err(|_| Errno::EIO)?;
    Ok(token)
}

fn sequence(range: &Range) -> Sequence {
    let first = i32::try_from(range.first).expect("reserved numbers fit a 32-bit long");
    Sequence { count: range.count, first, token: range.token }
}
