// SPDX-License-Identifier: MIT OR Apache-2.0
//! The daemon: starts everything, then runs the one loop that tells the core what happened and carries
//! out what it answers.

mod shell;
mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use daemon_kit::control::{ControlServer, Policy};
use daemon_kit::metrics::{Metrics, MetricsServer};
use daemon_kit::notify::{self, Watchdog};
use daemon_kit::signals::{Signal, Signals};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use crate::audit::Audit;
use crate::back::devintf::{DeviceId, Devintf};
use crate::back::vm::Vm;
use crate::back::{self, Back};
use crate::config::{self, BmcAddress, Config, NodeSpec};
use crate::control::{self, SharedStats};
use crate::front;
use crate::hotplug::{Removal, Uevents};
use crate::mux::{Channels, Limits, MAX_RESERVED, Mux, NodeRules};
use crate::reserve::{self, Reservations};
use crate::takeover;
use crate::watch::publish::Publisher;
use shell::Shell;
use status::Facts;

/// Requests of the kernel waiting for the main loop, at most; more wait in the kernel.
const MAX_NODE_EVENTS: usize = 256;
/// Rare events waiting for the main loop, at most.
const MAX_RARE: usize = 16;
/// Requests and answers served before the main loop looks after everything else, its watchdog too.
const MAX_IN_A_ROW: usize = 64;
/// Without systemd's watchdog the tick only refreshes what `/metrics` shows.
const TICK: Duration = Duration::from_secs(2);

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
    let is_removed = loop {
        if let Some(at) = shell.mux.next_timeout().filter(|at| *at < set_for) {
            alarm.as_mut().reset(at.into());
            set_for = at;
        }
        tokio::select! {
            biased;
            Some(event) = from_back.recv(), if in_a_row < MAX_IN_A_ROW => {
                in_a_row += 1;
                if shell.on_back(Instant::now(), event, &config) { break true }
            }
            Some(event) = from_nodes.recv(), if in_a_row < MAX_IN_A_ROW => {
                in_a_row += 1;
                shell.on_node(Instant::now(), event, &config.runtime_dir);
            }
            Some(event) = from_rare.recv() => match event {
                Rare::Signal(Signal::Stop) => break false,
                Rare::Signal(Signal::Reload) => {
                    tracing::info!("the configuration is read at the start only");
                }
                Rare::Removal(removal) => {
                    if removal == Removal::Certain || shell.back.is_gone() {
                        break true;
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
    tracing::info!(is_removed, "stopping");
    // The nodes go first: callers get their error now, not when the last answer is written.
    let back = shell.into_back();
    drop((from_nodes, stop_control));
    let _ = control.await;
    back.until_closable().await;
    Ok(if is_removed { removed(&config) } else { End::Stopped })
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
