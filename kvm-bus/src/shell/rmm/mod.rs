// SPDX-License-Identifier: MIT OR Apache-2.0
//! `serve rmm`: the operator's end of the bus.

mod act;
pub mod control;
mod doors;
mod event;
mod keyboard;
mod state;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use daemon_kit::control::{ControlServer, Policy};
use daemon_kit::metrics::Metrics;
use daemon_kit::notify::{self, Watchdog};
use daemon_kit::signals::{Signal, Signals};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::clock::{Clock, random};
use super::hub::{Hub, Newcomer, Viewer};
use super::line::{Line, Told};
use super::log::Log;
use super::metrics::{OfRmm, Server};
use crate::attach::{Attached, Mode};
use crate::config::rmm::Config;
use crate::core::hotkey::HotKeys;
use crate::core::mux::PORTS;
use crate::core::rmm::Rmm;
use crate::wire::{Addr, ConsoleSettings, Power};
pub use status::{BladeStatus, Status};

/// Requests that wait for the loop.
const REQUESTS: usize = 64;
/// Between two looks at what is not told by an event: pending input, screens that were skipped.
const LOOK: Duration = Duration::from_millis(20);
/// Between two notes of where consoles stand.
const NOTE: Duration = Duration::from_secs(1);
/// How long a choice may take before whoever asked is told.
const CHOICE_LIMIT: Duration = Duration::from_secs(10);
/// How long a BMC's answer may take.
const POWER_LIMIT: Duration = Duration::from_secs(20);

/// An answer in words.
pub type Outcome = Result<String, String>;

/// What doors, verbs and the keyboard ask of the loop.
#[derive(Debug)]
pub enum Request {
    /// What there is.
    Status(oneshot::Sender<Status>),
    /// Couple a blade, or none.
    Select(Option<String>, oneshot::Sender<Outcome>),
    /// Order a blade's BMC.
    Power(String, Power, oneshot::Sender<Result<bool, String>>),
    /// A new viewer: the blade by name, and lines of the past.
    Attach(Box<Newcomer>, Option<String>, usize, oneshot::Sender<Result<(u64, Attached), String>>),
    /// A viewer typed; it is told when more is taken.
    Typed(u64, Vec<u8>, oneshot::Sender<()>),
    /// A viewer's terminal has another size.
    Size(u64, u8, u8),
    /// A viewer's program sets its console's line.
    Line(u64, ConsoleSettings),
    /// A viewer's program holds its console at break.
    Break(u64),
    /// A viewer is gone.
    Gone(u64),
    /// A key of the operator's keyboard.
    Key(u16, bool),
    /// The operator's keyboard is gone.
    NoKeyboard,
}

/// Who waits for a choice.
struct Waiting {
    target: Option<Addr>,
    until: Instant,
    answer: oneshot::Sender<Outcome>,
}

struct Daemon {
    config: Config,
    clock: Clock,
    rmm: Rmm,
    /// The bus's two, then the control bus's.
    lines: Vec<Option<Line>>,
    told: mpsc::Receiver<(usize, Told)>,
    requests: mpsc::Receiver<Request>,
    door: mpsc::Sender<Request>,
    hub: Hub,
    logs: BTreeMap<Addr, Log>,
    stands: state::Stands,
    hot_keys: HotKeys,
    waiting: Vec<Waiting>,
    powers: BTreeMap<u32, (Instant, oneshot::Sender<Result<bool, String>>)>,
    next_power: u32,
    telnets: BTreeMap<Addr, tokio::task::JoinHandle<()>>,
    screen_dirty: bool,
    noted_at: Instant,
    figures: OfRmm,
}

/// Serves until a signal.
///
/// # Errors
/// What is wrong at the start.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot handle signals")?;
    for dir in [&config.runtime_dir, &config.state_dir] {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let (door, requests) = mpsc::channel(REQUESTS);
    let mut metrics = Metrics::new("kvm-bus-rmm", env!("CARGO_PKG_VERSION"));
    let figures = OfRmm::new(&mut metrics);
    let metrics = Arc::new(metrics);
    let router = control::router(door.clone(), config.logs.clone());
    let router = router.merge(Arc::clone(&metrics).routes());
    let control = ControlServer::bind(&config.control_socket(), router, Policy::system()).await?;
    let (stop_control, control_stops) = oneshot::channel::<()>();
    let control = tokio::spawn(control.run(async { drop(control_stops.await) }));
    doors::listen(&config.console_socket(), door.clone())
        .with_context(|| config.console_socket().display().to_string())?;
    if let Some(path) = config.keyboard.clone() {
        keyboard::start(path, door.clone())?;
    }
    let _metrics = Server::start(config.metrics_listen, &metrics).await?;
    let mut daemon = Daemon::new(config, door, requests, figures)?;
    notify::ready("on the bus");
    let watchdog = Watchdog::from_env();
    let mut kicked = Instant::now();
    loop {
        let wake = daemon.clock.at(daemon.rmm.wake()).min(Instant::now() + daemon.look());
        tokio::select! {
            // What came is read before it is decided that nothing came.
            biased;
            signal = signals.next() => if signal == Signal::Stop { break },
            Some((line, told)) = daemon.told.recv() => daemon.line(line, told),
            Some(request) = daemon.requests.recv() => daemon.request(request),
            () = tokio::time::sleep_until(wake) => daemon.tick(),
        }
        // A line that floods is not to keep everything else from happening.
        if daemon.clock.is_overdue(daemon.rmm.wake()) {
            daemon.tick();
        }
        daemon.act();
        daemon.transmit();
        if let Some(watchdog) = watchdog.as_ref().filter(|w| kicked.elapsed() >= w.interval()) {
            watchdog.kick();
            kicked = Instant::now();
        }
    }
    notify::stopping();
    daemon.end();
    drop((daemon, stop_control));
    let _ = control.await;
    Ok(())
}

impl Daemon {
    fn new(
        config: Config,
        door: mpsc::Sender<Request>,
        requests: mpsc::Receiver<Request>,
        figures: OfRmm,
    ) -> anyhow::Result<Self> {
        let epoch = state::next_epoch(&config.state_dir)?;
        let stands = state::Stands::load(&config.state_dir);
        let mut rmm = Rmm::new(config.addr, epoch, random()?, config.control.is_some());
        for (addr, life, end) in stands.all() {
            rmm.console_known(addr, life, end);
        }
        let (tell, told) = Line::channel();
        let places = config.bus.clone().into_iter().chain([config.control.clone()]);
        let lines = places
            .enumerate()
            .map(|(number, place)| Some(Line::start(number, place?, tell.clone())))
            .collect();
        Ok(Self {
            clock: Clock::start(),
            rmm,
            lines,
            told,
            requests,
            door,
            hub: Hub::default(),
            logs: BTreeMap::new(),
            stands,
            hot_keys: HotKeys::new(&config.hot_keys),
            waiting: vec![],
            powers: BTreeMap::new(),
            next_power: 0,
            telnets: BTreeMap::new(),
            screen_dirty: false,
            noted_at: Instant::now(),
            figures,
            config,
        })
    }

    /// How soon to look again, whatever the core says.
    fn look(&self) -> Duration {
        let busy = self.screen_dirty || self.hub.viewers.values().any(|v| v.pending.is_some());
        if busy { LOOK } else { NOTE }
    }

    fn line(&mut self, number: usize, told: Told) {
        let now = self.clock.now();
        let Some(line) = self.lines.get_mut(number).and_then(Option::as_mut) else { return };
        let was_up = line.baud.is_some();
        let bytes = line.heard(told);
        let cut = was_up && line.baud.is_none();
        match bytes {
            Some(bytes) if number < PORTS => self.rmm.receive(now, number, &bytes),
            Some(bytes) => self.rmm.receive_control(now, 0, &bytes),
            None if cut && number < PORTS => self.rmm.mux().cut(number),
            None => {}
        }
    }

    fn transmit(&mut self) {
        let Self { lines, rmm, .. } = self;
        for (number, line) in lines.iter_mut().enumerate() {
            let Some(line) = line else { continue };
            line.fill(|| {
                if number < PORTS { rmm.mux().next(number) } else { rmm.control_mux()?.next(0) }
            });
        }
    }

    fn tick(&mut self) {
        self.rmm.tick(self.clock.now());
        let now = Instant::now();
        for waiting in self.waiting.extract_if(.., |waiting| waiting.until <= now) {
            let _ = waiting.answer.send(Err("the blade was not coupled in time".to_owned()));
        }
        self.powers.retain(|_, (until, answer)| *until > now && !answer.is_closed());
        if self.noted_at.elapsed() >= NOTE {
            self.noted_at = now;
            self.stands.store();
            self.look_at_figures();
            let gone: Vec<_> =
                self.hub.viewers.iter().filter(|(_, v)| v.is_gone()).map(|(id, _)| *id).collect();
            gone.into_iter().for_each(|id| self.gone(id));
        }
    }

    fn end(&mut self) {
        self.rmm.release_keys(self.clock.now());
        self.transmit();
        self.stands.store();
        for log in self.logs.values_mut() {
            log.note("the log ends: the RMM stops");
        }
    }

    /// A blade by name or slot.
    fn find(&self, text: &str) -> Result<Addr, String> {
        let by_name = self.rmm.blades().find(|addr| self.rmm.name(*addr) == Some(text));
        let by_slot = || {
            let addr = Addr::blade(text.parse().ok()?)?;
            self.rmm.name(addr).map(|_| addr)
        };
        by_name.or_else(by_slot).ok_or_else(|| {
            let known: Vec<_> = self.rmm.blades().filter_map(|addr| self.rmm.name(addr)).collect();
            format!("there is no blade {text}; there are: {}", known.join(", "))
        })
    }

    fn name(&self, addr: Addr) -> String {
        self.rmm.name(addr).map_or_else(|| addr.to_string(), str::to_owned)
    }

    fn gone(&mut self, id: u64) {
        let Some(viewer) = self.hub.viewers.remove(&id) else { return };
        self.set_back(&viewer);
        if viewer.writes && viewer.what == crate::attach::What::Screen {
            // Whoever held a key there holds it no more.
            self.rmm.release_keys(self.clock.now());
        }
        if viewer.writes {
            let same =
                |other: &&mut Viewer| other.what == viewer.what && other.blade == viewer.blade;
            for other in self.hub.viewers.values_mut().filter(same) {
                other.notice(format!("{} has left the keyboard; ^Eca takes it", viewer.who));
            }
        }
    }

    fn set_mode(&mut self, id: u64, mode: Mode) {
        self.hub.set_mode(id, mode);
        if let Some(viewer) = self.hub.viewers.get_mut(&id) {
            let text = if viewer.writes { "you write" } else { "you only look" };
            viewer.notice(text);
        }
    }
}
