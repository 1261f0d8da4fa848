// SPDX-License-Identifier: MIT OR Apache-2.0
//! `serve lmc`: the blade's end of the bus.

mod status;

use std::sync::{Arc, Mutex};

use anyhow::Context;
use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use daemon_kit::control::{ControlServer, Policy};
use daemon_kit::metrics::Metrics;
use daemon_kit::notify::{self, Watchdog};
use daemon_kit::signals::{Signal, Signals};
use tokio::sync::{mpsc, oneshot};

use super::clock::{Clock, random};
use super::console::{Order, Said, WRITE_AHEAD};
use super::line::{Line, Told};
use super::metrics::{OfLmc, Server};
use super::uinput::Keyboard;
use super::vcs::{self, Wanted};
use super::{console, power};
use crate::config::Device;
use crate::config::lmc::{Config, Console};
use crate::core::lmc::{Action, Lmc};
use crate::core::mux::PORTS;
use crate::core::screen::Screen;
use crate::core::slave::Slave;
use crate::wire::{Addr, ConsoleSettings, Power, Sources};
pub use status::{LineStatus, Received, Status};

/// Most bytes of the words for one source: four of them and a console's place fit in a message.
const MOST_WORDS: usize = 230;

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
    /// The console's device, and how the configuration sets it.
    configured: Option<(String, ConsoleSettings)>,
    console_error: Option<String>,
    screens: mpsc::Receiver<Screen>,
    wanted: Option<Wanted>,
    devices: Keyboard,
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
                daemon.look_for_keyboard();
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
        let mut devices = Keyboard::new(config.keyboard != Device::None, &config.name);
        sources.keyboard = devices.look().map(str::to_owned);
        let power = match config.power {
            Device::None => None,
            Device::Auto => power::find(),
            Device::Path(path) => Some(path),
        };
        sources.power = power.as_ref().map(|path| words(&path.display().to_string()));
        let place = |console: &Console| (console.path.display().to_string(), console.settings);
        let configured = config.console.as_ref().map(place);
        let (console, said) = match config.console {
            Some(console) => {
                sources.console = Some(words(&format!("{}, not open yet", console.path.display())));
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
            configured,
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
                self.console_is("");
                self.lmc.console_takes(now, self.console_room);
            }
            Said::Down(why) => {
                // What it said stays, and what is typed waits: it keeps its settings.
                if self.console_error.as_ref() != Some(&why) {
                    tracing::warn!(%why, "console is not there; trying again");
                    self.console_is(&why);
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

    /// Tells where the console is, and why it is not open if it is not: whoever asks for it is to know.
    fn console_is(&mut self, why: &str) {
        let place = self.configured.as_ref().map_or("", |(place, _)| place);
        let not_open = if why.is_empty() { "" } else { ", not open: " };
        self.sources.console = Some(words(&format!("{place}{not_open}{why}")));
        self.lmc.set_sources(self.sources.clone(), self.settings);
    }

    /// The module may be loaded, and the right given, after this daemon has started.
    fn look_for_keyboard(&mut self) {
        if let Some(place) = self.devices.look() {
            self.sources.keyboard = Some(place.to_owned());
            self.lmc.set_sources(self.sources.clone(), self.settings);
        }
    }

    /// Nobody is left who has set the line otherwise.
    fn set_back(&self) {
        if let Some((_, configured)) = self.configured
            && self.settings.is_some_and(|settings| settings != configured)
        {
            self.order(Order::Set(configured));
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
                    if let Err(error) = self.devices.keys(pressed) {
                        tracing::warn!(%error, "the kernel takes no keys");
                    }
                }
                Action::Pointer(pointer) => {
                    if let Err(error) = self.devices.pointer(pointer) {
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
                Action::Session { rmm, up: false } => {
                    tracing::info!(%rmm, "session has ended");
                    if self.lmc.rmms().is_empty() {
                        self.set_back();
                    }
                }
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
}

fn words(text: &str) -> String {
    let end = (0..=text.len().min(MOST_WORDS)).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}

fn open_screen(screen: &Device, sources: &mut Sources) -> (Option<Wanted>, mpsc::Receiver<Screen>) {
    let path = match screen {
        Device::None => return (None, mpsc::channel(1).1),
        Device::Auto => "/dev/vcsa".into(),
        Device::Path(path) => path.clone(),
    };
    match vcs::start(&path) {
        Ok((wanted, screens)) => {
            sources.screen = Some(words(&path.display().to_string()));
            (Some(wanted), screens)
        }
        Err(error) => {
            tracing::warn!(screen = %path.display(), %error, "no text screen");
            (None, mpsc::channel(1).1)
        }
    }
}
