// SPDX-License-Identifier: MIT OR Apache-2.0
//! `serve lmc`: the blade's end of the bus.

use std::sync::{Arc, Mutex};

use anyhow::Context;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use daemon_kit::control::{ControlServer, Policy};
use daemon_kit::metrics::Metrics;
use daemon_kit::notify::{self, Watchdog};
use daemon_kit::signals::{Signal, Signals};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::clock::{Clock, random};
use super::console::{Order, Said, WRITE_AHEAD};
use super::line::{Line, Told};
use super::metrics::{OfLmc, Server};
use super::uinput::Devices;
use super::vcs::{self, Wanted};
use super::{console, power};
use crate::config::Device;
use crate::config::lmc::Config;
use crate::core::lmc::{Action, Lmc};
use crate::core::mux::PORTS;
use crate::core::queue::PortCounts;
use crate::core::screen::Screen;
use crate::core::slave::Slave;
use crate::wire::{Addr, ConsoleSettings, Errors, Power, Sources};

/// `GET /v1/status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// The blade's slot.
    pub slot: u8,
    /// Its name.
    pub name: String,
    /// The segments, upper first, then those of the control bus.
    pub lines: Vec<LineStatus>,
    /// What of the blade is on the bus.
    pub sources: Sources,
    /// RMMs with a session, in words.
    pub rmms: Vec<String>,
    /// Which of them has the blade.
    pub coupled_by: Option<String>,
}

/// What came by a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Good frames.
    pub frames: u64,
    /// Bytes, whatever they were.
    pub bytes: u64,
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineStatus {
    /// `up`, `down`, `near`, `far`, `control-up`, `control-down`, `control`.
    pub name: String,
    /// Where it goes.
    pub place: String,
    /// Bits per second, if it is open.
    pub baud: Option<u32>,
    /// Why it is not open.
    pub error: Option<String>,
    /// What was sent.
    pub sent: PortCounts,
    /// What came.
    pub received: Received,
    /// What of it was no frame.
    pub errors: Errors,
}

type Answer = (Addr, u32, Result<bool, String>);

struct Daemon {
    clock: Clock,
    lmc: Lmc,
    slave: Slave,
    /// The bus's, then the control bus's.
    lines: Vec<Option<Line>>,
    told: mpsc::Receiver<(usize, Told)>,
    console: Option<mpsc::UnboundedSender<Order>>,
    said: mpsc::Receiver<Said>,
    console_room: usize,
    settings: Option<ConsoleSettings>,
    console_error: Option<String>,
    screens: mpsc::Receiver<Screen>,
    wanted: Option<Wanted>,
    devices: Option<Devices>,
    power: Option<std::path::PathBuf>,
    answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
    sources: Sources,
    status: Arc<Mutex<Status>>,
    figures: OfLmc,
}

/// Serves until a signal.
///
/// # Errors
/// What is wrong at the start.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot handle signals")?;
    let runtime_dir = config.runtime_dir.clone();
    std::fs::create_dir_all(&runtime_dir)
        .with_context(|| format!("cannot make {}", runtime_dir.display()))?;
    let status = Arc::new(Mutex::new(Status::default()));
    let mut metrics = Metrics::new("kvm-bus-lmc", env!("CARGO_PKG_VERSION"));
    let figures = OfLmc::new(&mut metrics);
    let metrics = Arc::new(metrics);
    let router = Router::new().route("/v1/status", get(show)).with_state(Arc::clone(&status));
    let router = router.merge(Arc::clone(&metrics).routes());
    let socket = runtime_dir.join("control.sock");
    let control = ControlServer::bind(&socket, router, Policy::system()).await?;
    let (stop_control, control_stops) = oneshot::channel::<()>();
    let control = tokio::spawn(control.run(async { drop(control_stops.await) }));
    let _metrics = Server::start(config.metrics_listen, &metrics).await?;
    let mut daemon = Daemon::new(config, status, figures)?;
    daemon.publish();
    notify::ready("on the bus");
    let watchdog = Watchdog::from_env();
    let every = watchdog.as_ref().map_or(std::time::Duration::from_secs(1), Watchdog::interval);
    let mut tick = tokio::time::interval(every.min(std::time::Duration::from_secs(1)));
    loop {
        let wake = daemon.clock.at(daemon.lmc.wake());
        tokio::select! {
            // What came is read before it is decided that nothing came.
            biased;
            signal = signals.next() => if signal == Signal::Stop { break },
            _ = tick.tick() => {
                daemon.publish();
                if let Some(watchdog) = &watchdog { watchdog.kick() }
            }
            Some((line, told)) = daemon.told.recv() => daemon.line(line, told),
            Some(said) = daemon.said.recv() => daemon.console(said),
            Some(screen) = daemon.screens.recv() => daemon.lmc.screen_is(daemon.clock.now(), screen),
            Some((rmm, id, done)) = daemon.answers.1.recv() => {
                daemon.lmc.power_done(daemon.clock.now(), rmm, id, done);
            }
            () = tokio::time::sleep_until(wake) => daemon.lmc.tick(daemon.clock.now()),
        }
        // A line that floods is not to keep everything else from happening.
        if daemon.clock.is_overdue(daemon.lmc.wake()) {
            daemon.lmc.tick(daemon.clock.now());
        }
        daemon.act();
        daemon.transmit();
    }
    notify::stopping();
    // The devices go with the daemon, and the kernel lets their keys go.
    drop((daemon, stop_control));
    let _ = control.await;
    Ok(())
}

async fn show(State(status): State<Arc<Mutex<Status>>>) -> Json<Status> {
    Json(status.lock().expect("no panic holds it").clone())
}

impl Daemon {
    fn new(config: Config, status: Arc<Mutex<Status>>, figures: OfLmc) -> anyhow::Result<Self> {
        let (tell, told) = Line::channel();
        let places = config.bus.into_iter().chain(config.control);
        let lines = places
            .enumerate()
            .map(|(number, place)| Some(Line::start(number, place?, tell.clone())));
        let mut sources = Sources::default();
        let (wanted, screens) = open_screen(&config.screen, &mut sources);
        let devices = open_devices(&config.keyboard, &config.name, &mut sources);
        let power = match config.power {
            Device::None => None,
            Device::Auto => power::find(),
            Device::Path(path) => Some(path),
        };
        sources.power = power.as_ref().map(|path| path.display().to_string());
        let (console, said) = match config.console {
            Some(console) => {
                sources.console = Some(console.path.display().to_string());
                let (orders, said) = console::start(console);
                (Some(orders), said)
            }
            None => (None, mpsc::channel(1).1),
        };
        let mut lmc = Lmc::new(config.addr, &config.name, random()?);
        lmc.set_sources(sources.clone(), None);
        Ok(Self {
            clock: Clock::start(),
            lmc,
            slave: Slave::new(config.addr),
            lines: lines.collect(),
            told,
            console,
            said,
            console_room: WRITE_AHEAD,
            settings: None,
            console_error: None,
            screens,
            wanted,
            devices,
            power,
            answers: mpsc::channel(8),
            sources,
            figures,
            status: {
                let mut first = status.lock().expect("no panic holds it");
                first.slot = config.addr.byte();
                first.name = config.name;
                first.version = env!("CARGO_PKG_VERSION").to_owned();
                drop(first);
                status
            },
        })
    }

    fn line(&mut self, number: usize, told: Told) {
        let (now, port) = (self.clock.now(), number % PORTS);
        let Some(line) = self.lines.get_mut(number).and_then(Option::as_mut) else { return };
        let was_up = line.baud.is_some();
        let bytes = line.heard(told);
        let is_up = line.baud.is_some();
        if number < PORTS {
            match bytes {
                Some(bytes) => self.lmc.receive(now, port, &bytes),
                None if was_up && !is_up => self.lmc.mux().cut(port),
                None if !was_up && is_up => {
                    let speeds = self.lines[..PORTS].iter().flatten().filter_map(|line| line.baud);
                    self.lmc.set_baud(speeds.min().unwrap_or(0));
                }
                None => {}
            }
        } else if let Some(bytes) = bytes {
            self.slave.receive(now, port, &bytes, &mut self.lmc);
        }
    }

    fn console(&mut self, said: Said) {
        let now = self.clock.now();
        match said {
            Said::Up(settings) => {
                tracing::info!(baud = settings.baud, "console is open");
                (self.settings, self.console_error) = (Some(settings), None);
                self.lmc.set_sources(self.sources.clone(), self.settings);
                self.lmc.console_takes(now, self.console_room);
            }
            Said::Down(why) => {
                // What it said stays, and what is typed waits: it keeps its settings.
                if self.console_error.as_ref() != Some(&why) {
                    tracing::warn!(%why, "console is not there; trying again");
                    self.console_error = Some(why);
                }
                self.lmc.console_takes(now, 0);
            }
            Said::Bytes(bytes) => {
                self.figures.said.inc_by(bytes.len() as u64);
                self.lmc.console_said(now, &bytes);
            }
            Said::Wrote(count) => {
                self.console_room = (self.console_room + count).min(WRITE_AHEAD);
                self.lmc.console_takes(now, self.console_room);
            }
        }
    }

    fn act(&mut self) {
        for action in self.lmc.actions() {
            match action {
                Action::Console(bytes) => {
                    self.figures.told.inc_by(bytes.len() as u64);
                    self.console_room = self.console_room.saturating_sub(bytes.len());
                    self.order(Order::Write(bytes));
                }
                Action::Break => {
                    self.figures.breaks.inc();
                    self.order(Order::Break);
                }
                Action::Line(settings) => self.order(Order::Set(settings)),
                Action::Keys(pressed) => {
                    let done = self.devices.as_mut().map(|devices| devices.keys(pressed));
                    if let Some(Err(error)) = done {
                        tracing::warn!(%error, "the kernel takes no keys");
                    }
                }
                Action::Pointer(pointer) => {
                    if let Some(Err(error)) = self.devices.as_mut().map(|d| d.pointer(pointer)) {
                        tracing::warn!(%error, "the kernel takes no pointer");
                    }
                }
                Action::Coupled(by) => {
                    self.figures.coupled(by.is_some());
                    match by {
                        Some(rmm) => tracing::info!(%rmm, "coupled"),
                        None => tracing::info!("coupled no more"),
                    }
                    if let Some(wanted) = &self.wanted {
                        wanted.set(by.is_some());
                    }
                }
                Action::Power { rmm, id, action } => self.power(rmm, id, action),
                Action::Session { rmm, up: true } => {
                    tracing::info!(%rmm, "session begins");
                }
                Action::Session { rmm, up: false } => tracing::info!(%rmm, "session has ended"),
            }
        }
    }

    fn order(&self, order: Order) {
        if let Some(console) = &self.console {
            let _ = console.send(order);
        }
    }

    fn power(&self, rmm: Addr, id: u32, action: Power) {
        let (path, answer) = (self.power.clone(), self.answers.0.clone());
        tokio::task::spawn_blocking(move || {
            let done = match path {
                Some(path) => power::order(&path, action),
                None => Err("the blade has no BMC here".to_owned()),
            };
            let _ = answer.blocking_send((rmm, id, done));
        });
    }

    fn transmit(&mut self) {
        let Self { lines, lmc, slave, .. } = self;
        for (number, line) in lines.iter_mut().enumerate() {
            let Some(line) = line else { continue };
            let port = number % PORTS;
            line.fill(
                || if number < PORTS { lmc.mux().next(port) } else { slave.mux().next(port) },
            );
        }
    }

    fn publish(&mut self) {
        const NAMES: [&str; 2 * PORTS] = ["up", "down", "control-up", "control-down"];
        let mut lines = vec![];
        for (number, line) in self.lines.iter().enumerate() {
            let Some(line) = line else { continue };
            let port = number % PORTS;
            let bus = number < PORTS;
            let frames =
                if bus { self.lmc.mux().received(port) } else { self.slave.mux().received(port) };
            lines.push(LineStatus {
                name: NAMES[number].to_owned(),
                place: line.place.to_string(),
                baud: line.baud,
                error: line.why.clone(),
                sent: if bus { self.lmc.mux().counts(port) } else { self.slave.mux().counts(port) },
                received: Received { frames, bytes: line.bytes },
                errors: if bus { self.lmc.errors(port) } else { Errors::default() },
            });
        }
        let console = self.settings.is_some() && self.console_error.is_none();
        self.figures.look(&lines, self.lmc.rmms().len(), console);
        let mut status = self.status.lock().expect("no panic holds it");
        status.lines = lines;
        status.sources.clone_from(&self.sources);
        status.rmms = self.lmc.rmms().iter().map(ToString::to_string).collect();
        status.coupled_by = self.lmc.coupled_by().map(|rmm| rmm.to_string());
    }
}

fn open_screen(screen: &Device, sources: &mut Sources) -> (Option<Wanted>, mpsc::Receiver<Screen>) {
    let path = match screen {
        Device::None => return (None, mpsc::channel(1).1),
        Device::Auto => "/dev/vcsa".into(),
        Device::Path(path) => path.clone(),
    };
    match vcs::start(&path) {
        Ok((wanted, screens)) => {
            sources.screen = Some(path.display().to_string());
            (Some(wanted), screens)
        }
        Err(error) => {
            tracing::warn!(screen = %path.display(), %error, "no text screen");
            (None, mpsc::channel(1).1)
        }
    }
}

fn open_devices(keyboard: &Device, name: &str, sources: &mut Sources) -> Option<Devices> {
    if *keyboard == Device::None {
        return None;
    }
    match Devices::new(name) {
        Ok(devices) => {
            sources.keyboard = Some("/dev/uinput".to_owned());
            Some(devices)
        }
        Err(error) => {
            tracing::warn!(%error, "no keyboard: is the module uinput loaded, and /dev/uinput for this user?");
            None
        }
    }
}
