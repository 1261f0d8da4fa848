// SPDX-License-Identifier: MIT OR Apache-2.0
//! A manager as it runs: one loop that tells [`super::core`] what happens, and does what that says.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use daemon_kit::control::{ControlServer, Policy as Access};
use daemon_kit::metrics::Metrics;
use daemon_kit::notify::{self, Watchdog};
use daemon_kit::signals::{Signal, Signals};
use group::core::records::Change;
use group::list::List;
use group::shell::{Group, Incoming as FromGroup};
use group::wire::Class;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{interval, sleep};

use super::control::{self, Asked};
use super::core::{Action, Event, Manager, Note, Options, Report};
use super::metrics::Figures;
use super::peers::{Looked, PeerConn, PeerList};
use crate::config::Config;
use crate::link::{Chain, Inbox, Link, listen, write_all};
use crate::manager::api::{Known, Leased, Line};
use crate::record::{Device, DeviceId, Machine};
use crate::trust::{Role, Trust};
use crate::unit::core::ConnId;
use crate::unit::run::boot_clock;
use crate::wire::{Bounded, FinderNo, FromUnit, RequestNo, ToUnit};

/// Things that happen and wait for the core.
const MAX_HAPPENED: usize = 1024;
/// Messages that wait for a unit to read.
const MAX_TO_UNIT: usize = 256;
/// How often the group's clock is looked at.
const CLOCK: Duration = Duration::from_secs(1);

/// Where a manager's things are.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The configuration, if another than the usual.
    pub config: Option<PathBuf>,
    /// Keys and members below another root.
    pub root: Option<PathBuf>,
    /// The group's list.
    pub list: PathBuf,
    /// What outlives the machine's restart.
    pub state: PathBuf,
    /// Sockets.
    pub runtime: PathBuf,
}

pub(super) enum Happened {
    Said(ConnId, FromUnit),
    Ended(ConnId),
    /// A peer did not get what it was told.
    Unsent(Machine),
    /// A peer's list, as it is now; none if that is not known.
    List(Machine, Looked),
    /// The group's clock minus ours.
    Clock(i64, u64),
}

struct UnitConn {
    out: mpsc::Sender<ToUnit>,
    reader: AbortHandle,
}

pub(super) struct Shell {
    core: Manager,
    paths: Paths,
    pub(super) group: Group,
    pub(super) happened: mpsc::Sender<Happened>,
    units: BTreeMap<ConnId, UnitConn>,
    pub(super) peers: BTreeMap<Machine, PeerConn>,
    /// What is known of each peer's list.
    pub(super) lists: BTreeMap<Machine, PeerList>,
    publish: mpsc::Sender<Vec<Change>>,
    finders: BTreeMap<FinderNo, mpsc::Sender<Line>>,
    clients: BTreeMap<RequestNo, mpsc::Sender<Leased>>,
    next: u64,
    figures: Figures,
}

/// Runs a manager until a signal.
///
/// # Errors
/// What is wrong at the start.
pub async fn run(paths: Paths) -> anyhow::Result<()> {
    let config = Config::load(paths.config.as_deref())?;
    for folder in [&paths.state, &paths.runtime] {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let trust = Trust::open(paths.root.as_deref(), &paths.state.join("units"))?;
    std::fs::create_dir_all(paths.state.join("units"))?;
    let own = trust.name()?;
    let options = group::shell::Options {
        program: trust.program().clone(),
        port: config.port,
        list: paths.list.clone(),
        state: paths.state.clone(),
        store: trust.store().clone(),
        node: trust.node().clone(),
        replication: config.replication,
        leads: true,
    };
    let (group, incoming) = Group::start(options).await?;
    let list = List::load(&paths.list)?.resolve().await;
    let member = list.into_iter().find(|member| member.name == own.0);
    let listed = member.map(|member| member.addresses).unwrap_or_default().into_iter().flatten();
    let mut bind: Vec<SocketAddr> =
        listed.map(|ip| SocketAddr::new(ip, config.units_port)).collect();
    if bind.is_empty() {
        bind.push(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), config.units_port));
    }
    let doors =
        listen(&trust, &bind, &paths.runtime.join("units.sock"), (Role::Manager, Role::Unit))
            .await?;
    let (ask, asked) = mpsc::channel(MAX_HAPPENED);
    let mut metrics = Metrics::new("device-manager", env!("CARGO_PKG_VERSION"));
    let figures = Figures::new(&mut metrics);
    let router = control::routes(ask, group.clone()).merge(Arc::new(metrics).routes());
    let socket = paths.runtime.join("control.sock");
    let server = ControlServer::bind(&socket, router, Access::system()).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(server.run(async { drop(stopped.await) }));
    let (happened, happening) = mpsc::channel(MAX_HAPPENED);
    let options = Options { own: own.clone(), replication: config.replication };
    let (publish, changes) = mpsc::channel(MAX_HAPPENED);
    tokio::spawn(publish_all(group.clone(), changes));
    tokio::spawn(keep_clock(group.clone(), happened.clone()));
    let mut shell = Shell {
        core: Manager::new(options, config.policy),
        paths,
        group: group.clone(),
        happened,
        units: BTreeMap::new(),
        peers: BTreeMap::new(),
        lists: BTreeMap::new(),
        publish,
        finders: BTreeMap::new(),
        clients: BTreeMap::new(),
        next: 0,
        figures,
    };
    tracing::info!(manager = %own, "ready");
    notify::ready("a manager");
    shell.serve(happening, doors, incoming, asked).await?;
    notify::stopping();
    drop(stop);
    let _ = server.await;
    group.leave().await;
    Ok(())
}

impl Shell {
    async fn serve(
        &mut self,
        mut happening: mpsc::Receiver<Happened>,
        mut doors: mpsc::Receiver<Link>,
        mut incoming: FromGroup,
        mut asked: mpsc::Receiver<Asked>,
    ) -> anyhow::Result<()> {
        let mut signals = Signals::new().context("cannot handle signals")?;
        let watchdog = Watchdog::from_env();
        let mut kick = interval(watchdog.as_ref().map_or(CLOCK, Watchdog::interval));
        loop {
            let wait = self.core.next().saturating_sub(boot_clock());
            let tick = sleep(Duration::from_micros(wait.min(60_000_000)));
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop => return Ok(()),
                    _ => self.reload().await,
                },
                Some(happened) = happening.recv() => self.happened(happened),
                Some(link) = doors.recv() => self.unit_came(link),
                notice = incoming.notices.recv() => match notice {
                    Ok(notice) => self.noticed(notice),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.look_at_all().await,
                    Err(broadcast::error::RecvError::Closed) => anyhow::bail!("the group's task has ended"),
                },
                Some(received) = incoming.messages.recv() => self.received(received),
                Some(asked) = asked.recv() => self.asked(asked),
                _ = kick.tick() => if let Some(watchdog) = &watchdog { watchdog.kick() },
                () = tick => self.tell(Event::Tick),
            }
        }
    }

    /// Reads policy and the group's list again. What else is in the configuration takes a restart.
    async fn reload(&mut self) {
        match Config::load(self.paths.config.as_deref()) {
            Ok(config) => self.tell(Event::Policy(config.policy)),
            Err(error) => tracing::warn!(%error, "the policy stays as it was"),
        }
        let _ = self.group.reload().await;
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn happened(&mut self, happened: Happened) {
        match happened {
            Happened::Said(conn, message) => self.tell(Event::Unit(conn, message)),
            Happened::Ended(conn) => {
                self.units.remove(&conn);
                self.tell(Event::UnitLeft(conn));
            }
            Happened::Unsent(peer) => {
                // If it is here still, it is told all again, and asked again.
                if self.peers.contains_key(&peer) {
                    self.begin(peer);
                }
            }
            Happened::List(peer, all) => self.listed(peer, all),
            Happened::Clock(offset, error) => {
                self.core.set_clock(offset, error);
                self.figures.look(&self.core);
            }
        }
    }

    fn unit_came(&mut self, link: Link) {
        let conn = self.number();
        let Link { machine, inbox, outbox, .. } = link;
        let reader = tokio::spawn(read_unit(conn, inbox, self.happened.clone())).abort_handle();
        let (out, messages) = mpsc::channel(MAX_TO_UNIT);
        tokio::spawn(write_all(outbox, messages));
        self.units.insert(conn, UnitConn { out, reader });
        self.tell(Event::UnitCame(conn, machine));
    }

    fn asked(&mut self, asked: Asked) {
        match asked {
            Asked::Look(look) => look(&self.core),
            Asked::Find { pattern, scope, lines, number } => {
                let no = self.number();
                let _ = number.send(no);
                self.finders.insert(no, lines);
                self.tell(Event::Find(no, pattern, scope));
                if let Some(lines) = self.finders.get(&no) {
                    let _ = lines.try_send(Line::Complete);
                }
            }
            Asked::Unfind(no) => {
                self.finders.remove(&no);
                self.tell(Event::Unfind(no));
            }
            Asked::Lease { ask, out, number } => {
                let no = self.number();
                let _ = number.send(no);
                self.clients.insert(no, out);
                let since_ms = self.group.clock().now_ms();
                self.tell(Event::Ask(no, super::core::Ask { since_ms, ..ask }));
            }
            Asked::Cancel(no) => {
                if self.clients.remove(&no).is_some() {
                    self.tell(Event::Cancel(no));
                }
            }
            Asked::End { no, unit, by, force } => self.tell(Event::End { no, unit, by, force }),
        }
    }

    pub(super) fn tell(&mut self, event: Event) {
        let mut changes = vec![];
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.core.handle(boot_clock(), event) {
                self.figures.note(&action);
                match action {
                    Action::ToUnit(conn, message) => {
                        let full = self
                            .units
                            .get(&conn)
                            .is_some_and(|unit| unit.out.try_send(message).is_err());
                        if full {
                            self.close(conn);
                            events.push_back(Event::UnitLeft(conn));
                        }
                    }
                    Action::Close(conn) => self.close(conn),
                    Action::ToPeer(peer, message) => self.tell_peer(peer, message),
                    Action::Publish(device) => {
                        let value = device.encode().into();
                        changes.push(Change::Set(key(device.id), Class::Dynamic, value));
                    }
                    Action::Unpublish(id) => changes.push(Change::Remove(key(id))),
                    Action::Tell(no, report) => self.report(no, report),
                    Action::Answer(no, answer) => {
                        if let Some(client) = self.clients.remove(&no) {
                            let _ = client.try_send(control::leased(answer));
                        }
                    }
                    Action::Waits(no, place) => {
                        if let Some(client) = self.clients.get(&no) {
                            let _ = client.try_send(Leased::Waits(place));
                        }
                    }
                    Action::Note(note) => log(&note),
                }
            }
        }
        if !changes.is_empty() && self.publish.try_send(changes).is_err() {
            tracing::error!("the group does not take records: others will not know of changes");
        }
    }

    fn report(&mut self, no: FinderNo, report: Report) {
        let Some(lines) = self.finders.get(&no) else { return };
        let known = |device: Box<Device>, manager| Box::new(Known { device: *device, manager });
        let line = match report {
            Report::Match(device, manager) => Line::Match(known(device, manager)),
            Report::Changed(device, manager) => Line::Changed(known(device, manager)),
            Report::Gone(id) => Line::Gone(id),
        };
        if lines.try_send(line).is_err() {
            // A service that does not read loses its finder, and sees that.
            self.finders.remove(&no);
        }
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(unit) = self.units.remove(&conn) {
            unit.reader.abort();
        }
    }
}

fn key(id: DeviceId) -> group::wire::Key {
    id.to_string().parse().expect("it is short and has no control characters")
}

async fn read_unit(conn: ConnId, mut inbox: Inbox, to: mpsc::Sender<Happened>) {
    loop {
        let happened = match inbox.next::<FromUnit>().await {
            Ok(Some(message)) => Happened::Said(conn, message),
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "a unit's link is over");
                break;
            }
        };
        if to.send(happened).await.is_err() {
            return;
        }
    }
    let _ = to.send(Happened::Ended(conn)).await;
}

async fn publish_all(group: Group, mut changes: mpsc::Receiver<Vec<Change>>) {
    while let Some(mut all) = changes.recv().await {
        while let Ok(more) = changes.try_recv() {
            all.extend(more);
        }
        if let Err(error) = group.change(all).await {
            tracing::error!(%error, "others will not know of changes");
        }
    }
}

async fn keep_clock(group: Group, to: mpsc::Sender<Happened>) {
    let mut look = interval(CLOCK);
    loop {
        look.tick().await;
        let Ok(status) = group.status().await else { return };
        let now = i64::try_from(boot_clock()).unwrap_or(i64::MAX);
        let offset = status.time.saturating_sub(now);
        let clock = Happened::Clock(offset, status.time_error.unwrap_or(0));
        if to.send(clock).await.is_err() {
            return;
        }
    }
}

fn log(note: &Note) {
    match note {
        Note::Unit(unit) => tracing::info!(%unit, "a unit is here"),
        Note::UnitGone(unit, why) => tracing::warn!(%unit, why, "a unit is gone"),
        Note::GaveUp(unit, manager) => {
            tracing::info!(%unit, %manager, "another manager has the unit");
        }
        Note::Denied(holder, device, why) => tracing::warn!(%holder, %device, why, "denied"),
        Note::Wrong(what) => tracing::warn!(what, "refused"),
    }
}
