// SPDX-License-Identifier: MIT OR Apache-2.0
//! A unit as it runs: one loop that tells [`super::core`] what happens, and does what that says.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use daemon_kit::notify::{self, Watchdog};
use daemon_kit::signals::{Signal, Signals};
use group::list::{List, Watched};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::carry::{Carrier, How};
use super::core::{Action, ConnId, Event, Micros, Note, Options, Stored, Unit};
use super::disk::Disk;
use super::inventory::Inventory;
use super::uevents::Uevents;
use crate::config::Config;
use crate::helper::usbip::Usbip;
use crate::helper::{Helper, Request};
use crate::link::{Chain, Inbox, Link, listen, read_all, write_all};
use crate::record::{Machine, WHOLE};
use crate::trust::{Role, Trust};
use crate::wire::{Carried, FromHolder, FromUnit, ToHolder, ToUnit};

/// Things that happen and wait for the core.
const MAX_HAPPENED: usize = 1024;
/// Messages that wait for a manager to read: all devices of a unit, twice.
const MAX_TO_MANAGER: usize = 2 * crate::record::MAX_DEVICES + 64;
/// Messages that wait for a holder to read; it gets one for each that it sends.
const MAX_TO_HOLDER: usize = 16;
/// Most connections of holders.
const MAX_HOLDERS: usize = 1024;
/// Events come in bursts: sysfs is looked at when it has been quiet for so long.
const QUIET: Duration = Duration::from_millis(30);
/// What no event tells of, such as what is mounted, is looked at so often.
const LOOK: Duration = Duration::from_secs(2);
/// Between two looks at data paths that the kernel carries.
const WATCH: Duration = Duration::from_millis(100);
/// A data path that is lost may be so because its device is: that is known this much later.
const WHY: Duration = Duration::from_millis(100);
/// A holder says at once what it comes for.
const FIRST: Duration = Duration::from_secs(5);

/// Where a unit's things are.
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
    /// What does not.
    pub runtime: PathBuf,
    /// Where a manager of this machine waits for it.
    pub manager: PathBuf,
    /// The helper's socket.
    pub helper: PathBuf,
}

/// What tasks tell the loop.
#[derive(Debug)]
pub enum Happened {
    /// A manager is reached, or not.
    Dialled(Machine, Option<Box<Link>>),
    /// It says something.
    Said(ConnId, ToUnit),
    /// Its link is over.
    Ended(ConnId),
    /// A holder says something for the first time, or again.
    First(Box<Link>, FromHolder),
    /// See there.
    Came(ConnId, Machine, FromHolder),
    /// A holder's connection is over.
    Hung(ConnId),
    /// See [`Event::Carries`].
    Carries(u64, Result<Carried, String>),
    /// See [`Event::Cut`].
    Cut(u64),
    /// A lease's data are carried no more, though nobody asked for that.
    Lost(u64),
}

struct ManagerLink {
    out: mpsc::Sender<FromUnit>,
    reader: AbortHandle,
}

enum HolderConn {
    /// Over which a lease is renewed.
    Control { out: mpsc::Sender<ToHolder>, reader: AbortHandle },
    /// That is to carry data, and whether the kernel at its other end has no TLS.
    Data(Box<Link>, bool),
}

struct Shell {
    core: Unit,
    config: Config,
    paths: Paths,
    trust: Trust,
    own: Machine,
    disk: Disk,
    carrier: Carrier,
    devices: Inventory,
    happened: mpsc::Sender<Happened>,
    members: BTreeMap<Machine, Vec<IpAddr>>,
    list: Watched,
    links: BTreeMap<ConnId, ManagerLink>,
    holders: BTreeMap<ConnId, HolderConn>,
    /// Leases whose data path was lost, and when it is found out why.
    lost: (Vec<u64>, Option<Instant>),
    next: ConnId,
}

/// Microseconds since this machine's boot, suspended time counted.
#[must_use]
pub fn boot_clock() -> Micros {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or(0) * 1_000_000 + nanos.unwrap_or(0) / 1000
}

/// Microseconds since 1970 by this machine's clock.
#[must_use]
pub fn wall_clock() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Runs a unit until a signal.
///
/// # Errors
/// What is wrong at the start.
pub async fn run(paths: Paths) -> anyhow::Result<()> {
    let config = Config::load(paths.config.as_deref())?;
    for folder in [&paths.state, &paths.runtime] {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let trust = Trust::open(paths.root.as_deref(), &paths.state)?;
    let own = trust.name()?;
    let list = List::load(&paths.list)?;
    let addresses = reached_at(&config, &list, &own).await;
    let any = [SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), config.leases_port)];
    let bind: Vec<SocketAddr> = if addresses.is_empty() { any.to_vec() } else { addresses.clone() };
    let roles = (Role::Unit, Role::Holder);
    let doors = listen(&trust, &bind, &paths.runtime.join("holders.sock"), roles).await?;
    let disk = Disk::new(&paths.state, &paths.runtime);
    let helper = Helper::at(paths.helper.clone());
    let sys = PathBuf::from("/sys");
    let (happened, happening) = mpsc::channel(MAX_HAPPENED);
    let mut carrier = Carrier::new(helper.clone(), &sys, config.insecure, happened.clone());
    let mut kept = disk.kept();
    let usbip = Usbip::new(&sys);
    take_up(&mut kept.leases, &usbip, &helper, &mut carrier).await;
    let mut secret = [0; 32];
    let mut step = [0];
    for random in [&mut secret[..], &mut step] {
        getrandom::fill(random).context("the system gives no random numbers")?;
    }
    let options = Options {
        own: own.clone(),
        epoch: disk.next_epoch(step[0])?,
        secret,
        ttl: config.ttl,
        quarantine: config.quarantine,
        addresses,
    };
    let core = Unit::new(options, kept, boot_clock(), wall_clock());
    let list = Watched::new(&paths.list);
    let members = BTreeMap::new();
    let devices = Inventory::new(&sys, own.clone());
    let (links, holders) = (BTreeMap::new(), BTreeMap::new());
    let mut shell = Shell {
        core,
        config,
        paths,
        trust,
        own,
        disk,
        carrier,
        devices,
        happened,
        members,
        list,
        links,
        holders,
        lost: (vec![], None),
        next: 1,
    };
    shell.inventory();
    shell.read_list().await;
    tracing::info!(unit = %shell.own, epoch = shell.core.epoch(), "ready");
    notify::ready("a unit");
    shell.serve(happening, doors).await
}

/// What the life before left: what flows goes on, what was on its way to somebody or on its way back is given back.
async fn take_up(leases: &mut [Stored], usbip: &Usbip, helper: &Helper, carrier: &mut Carrier) {
    for lease in leases.iter_mut() {
        // What the process carried itself went with it.
        lease.over |= lease.info.in_use && lease.function != WHOLE;
        lease.info.in_use &= !lease.over && usbip.is_used(&lease.found.path);
    }
    let flows = |port: &str| leases.iter().any(|l| l.info.in_use && l.found.path == port);
    for lease in leases.iter() {
        let port = lease.found.path.clone();
        if lease.info.in_use {
            carrier.restored(lease.info.no, &port);
        } else if lease.found.has_whole() && !flows(&port) {
            let _ = helper.ask(Request::GiveBack(port), None).await;
        }
    }
}

/// Where holders reach this unit: as configured, or at all of its addresses in the group's list.
async fn reached_at(config: &Config, list: &List, own: &Machine) -> Vec<SocketAddr> {
    let own = list.resolve().await.into_iter().find(|member| member.name == own.0);
    let listed = own.map(|member| member.addresses).unwrap_or_default().into_iter().flatten();
    let all: Vec<IpAddr> =
        if config.addresses.is_empty() { listed.collect() } else { config.addresses.clone() };
    let most = crate::wire::MAX_ADDRESSES;
    all.into_iter().take(most).map(|ip| SocketAddr::new(ip, config.leases_port)).collect()
}

impl Shell {
    async fn serve(
        &mut self,
        mut happening: mpsc::Receiver<Happened>,
        mut doors: mpsc::Receiver<Link>,
    ) -> anyhow::Result<()> {
        let mut signals = Signals::new().context("cannot handle signals")?;
        let uevents = Uevents::new().context("kernel events")?;
        let watchdog = Watchdog::from_env();
        let mut kick = interval(watchdog.as_ref().map_or(LOOK, Watchdog::interval));
        let mut look = interval(LOOK);
        let mut watch = interval(WATCH);
        for timer in [&mut look, &mut watch] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut rung: Option<Instant> = None;
        loop {
            let wait = self.core.next().saturating_sub(boot_clock());
            let tick = sleep(Duration::from_micros(wait.min(60_000_000)));
            let at = async |at: Option<Instant>| match at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            };
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop => break,
                    _ => self.read_list().await,
                },
                Some(happened) = happening.recv() => self.happened(happened),
                Some(link) = doors.recv() => self.came(link),
                rang = uevents.ring() => {
                    rang.context("kernel events")?;
                    // Not put off for ever by a device that comes and goes all the time.
                    rung.get_or_insert_with(|| Instant::now() + QUIET);
                }
                () = at(rung) => { rung = None; self.inventory(); }
                () = at(self.lost.1) => self.cut_lost(),
                _ = look.tick() => { self.inventory(); self.read_list().await; }
                _ = watch.tick() => for no in self.carrier.lost() { self.lost(no); },
                _ = kick.tick() => if let Some(watchdog) = &watchdog { watchdog.kick() },
                () = tick => self.tell(Event::Tick),
            }
        }
        // Leases and data paths stay: the next life finds them.
        notify::stopping();
        Ok(())
    }

    fn inventory(&mut self) {
        let found = self.devices.scan(&self.config.offer);
        self.tell(Event::Inventory(found));
    }

    fn lost(&mut self, no: u64) {
        self.lost.0.push(no);
        self.lost.1.get_or_insert_with(|| Instant::now() + WHY);
    }

    /// What was lost is cut. If the device is gone, its lease has ended for that reason first.
    fn cut_lost(&mut self) {
        let (lost, _) = std::mem::take(&mut self.lost);
        self.inventory();
        for no in lost {
            if self.carrier.has(no) {
                self.carrier.cut(no);
            }
        }
    }

    /// Who may be this unit's manager, and where each is.
    async fn read_list(&mut self) {
        let list = match self.list.changed() {
            Ok(Some(list)) => list,
            Ok(None) => return,
            Err(error) => return tracing::warn!(%error, "the group's list stays as it was"),
        };
        let resolved = list.resolve().await.into_iter();
        let members =
            resolved.map(|m| (Machine(m.name), m.addresses.into_iter().flatten().collect()));
        self.members = members.collect();
        let mut managers: Vec<Machine> = self.members.keys().cloned().collect();
        // Each unit has an order of its own, so that the managers share the units.
        let weight = |manager: &Machine| {
            let digest = Sha256::digest(format!("{} {manager}", self.own));
            std::array::from_fn::<u8, 8, _>(|i| digest[i])
        };
        let preferred = |manager: &Machine| self.config.managers.iter().position(|m| m == manager);
        managers.sort_by_key(|manager| (preferred(manager).unwrap_or(usize::MAX), weight(manager)));
        self.tell(Event::Managers(managers));
    }

    fn happened(&mut self, happened: Happened) {
        match happened {
            Happened::Dialled(manager, None) => self.tell(Event::NotConnected(manager)),
            Happened::Dialled(manager, Some(link)) => {
                let conn = self.number();
                let Link { inbox, outbox, .. } = *link;
                let told = move |said: Option<ToUnit>| match said {
                    Some(message) => Happened::Said(conn, message),
                    None => Happened::Ended(conn),
                };
                let reading = read_all(inbox, told, self.happened.clone());
                let reader = tokio::spawn(reading).abort_handle();
                let (out, messages) = mpsc::channel(MAX_TO_MANAGER);
                tokio::spawn(write_all(outbox, messages));
                self.links.insert(conn, ManagerLink { out, reader });
                self.tell(Event::Connected(manager, conn));
            }
            Happened::Said(conn, message) => self.tell(Event::Said(conn, message)),
            Happened::Ended(conn) => self.tell(Event::LinkEnded(conn)),
            Happened::First(link, said) => self.first(link, said),
            Happened::Came(conn, machine, said) => self.tell(Event::Came(conn, machine, said)),
            Happened::Hung(conn) => {
                self.holders.remove(&conn);
                self.tell(Event::ConnEnded(conn));
            }
            Happened::Carries(no, result) => {
                if result.is_ok() {
                    self.carrier.carries(no);
                }
                self.tell(Event::Carries(no, result));
            }
            Happened::Cut(no) => self.tell(Event::Cut(no)),
            Happened::Lost(no) => self.lost(no),
        }
    }

    fn number(&mut self) -> ConnId {
        self.next += 1;
        self.next
    }

    /// A holder came: it says what for.
    fn came(&mut self, mut link: Link) {
        if self.holders.len() >= MAX_HOLDERS {
            return tracing::warn!(machine = %link.machine, "too many holders are connected");
        }
        let happened = self.happened.clone();
        tokio::spawn(async move {
            let first = tokio::time::timeout(FIRST, link.inbox.next::<FromHolder>()).await;
            if let Ok(Ok(Some(said))) = first {
                let _ = happened.send(Happened::First(Box::new(link), said)).await;
            }
        });
    }

    fn first(&mut self, link: Box<Link>, said: FromHolder) {
        let (conn, machine) = (self.number(), link.machine.clone());
        if let FromHolder::Data { .. } | FromHolder::Framed { .. } = said {
            let framed = matches!(said, FromHolder::Framed { .. });
            self.holders.insert(conn, HolderConn::Data(link, framed));
        } else {
            let Link { inbox, outbox, .. } = *link;
            let reading = read_holder(conn, machine.clone(), inbox, self.happened.clone());
            let reader = tokio::spawn(reading).abort_handle();
            let (out, messages) = mpsc::channel(MAX_TO_HOLDER);
            tokio::spawn(write_all(outbox, messages));
            self.holders.insert(conn, HolderConn::Control { out, reader });
        }
        self.tell(Event::Came(conn, machine, said));
    }

    fn tell(&mut self, event: Event) {
        let mut actions = std::collections::VecDeque::from(self.core.handle(boot_clock(), event));
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Connect(manager) => self.dial(manager),
                Action::Send(conn, message) => {
                    let full = self
                        .links
                        .get(&conn)
                        .is_some_and(|link| link.out.try_send(message).is_err());
                    if full {
                        self.close(conn);
                        actions.extend(self.core.handle(boot_clock(), Event::LinkEnded(conn)));
                    }
                }
                Action::Close(conn) => self.close(conn),
                Action::Answer(conn, message) => match self.holders.get_mut(&conn) {
                    Some(HolderConn::Control { out, .. }) => {
                        let full = out.try_send(message).is_err();
                        full.then(|| self.hang(conn));
                    }
                    Some(HolderConn::Data(..)) => self.turn_away(conn, message),
                    None => {}
                },
                Action::Hang(conn) => self.hang(conn),
                Action::Carry { no, conn, found, function, read_only } => {
                    if let Some(HolderConn::Data(link, framed)) = self.holders.remove(&conn) {
                        let how = How { function, read_only, framed };
                        self.carrier.carry(no, *link, &found, how);
                    }
                }
                Action::Cut(no) => self.carrier.cut(no),
                Action::Store(kept) => {
                    if let Err(error) = self.disk.keep(&kept) {
                        tracing::error!(error = %Chain(&error), "leases are not remembered: they will end with this process");
                    }
                }
                Action::Raise(epoch) => match self.disk.set_epoch(epoch) {
                    Ok(()) => {
                        tracing::warn!(
                            epoch,
                            "this machine's disk was set back; its unit begins anew"
                        );
                        actions.extend(self.core.handle(boot_clock(), Event::Raised(epoch)));
                    }
                    Err(error) => {
                        tracing::error!(error = %Chain(&error), "no epoch, so no manager");
                    }
                },
                Action::Note(note) => log(&note),
            }
        }
    }

    /// Who came for data and may not have any is told why.
    fn turn_away(&mut self, conn: ConnId, message: ToHolder) {
        if let Some(HolderConn::Data(mut link, _)) = self.holders.remove(&conn) {
            tokio::spawn(async move { link.outbox.send(&message).await });
        }
    }

    fn hang(&mut self, conn: ConnId) {
        if let Some(HolderConn::Control { reader, .. }) = self.holders.remove(&conn) {
            reader.abort();
        }
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(link) = self.links.remove(&conn) {
            link.reader.abort();
        }
    }

    fn dial(&mut self, manager: Machine) {
        let (trust, happened) = (self.trust.clone(), self.happened.clone());
        let port = self.config.units_port;
        let addresses: Vec<SocketAddr> = self
            .members
            .get(&manager)
            .into_iter()
            .flatten()
            .map(|ip| SocketAddr::new(*ip, port))
            .collect();
        let local = self.paths.manager.clone();
        tokio::spawn(async move {
            let roles = (Role::Unit, Role::Manager);
            let link = match Link::connect(&trust, &manager, roles, &addresses, &local).await {
                Ok(link) => Some(Box::new(link)),
                Err(error) => {
                    tracing::debug!(%manager, error = %Chain(&error), "not reached");
                    None
                }
            };
            let _ = happened.send(Happened::Dialled(manager, link)).await;
        });
    }
}

async fn read_holder(conn: ConnId, machine: Machine, mut inbox: Inbox, to: mpsc::Sender<Happened>) {
    while let Ok(Some(said)) = inbox.next::<FromHolder>().await {
        // Only what came first may open something.
        if matches!(said, FromHolder::Renew | FromHolder::Release)
            && to.send(Happened::Came(conn, machine.clone(), said)).await.is_err()
        {
            return;
        }
    }
    let _ = to.send(Happened::Hung(conn)).await;
}

fn log(note: &Note) {
    match note {
        Note::With(manager) => tracing::info!(%manager, "with a manager"),
        Note::Without(manager, why) => tracing::warn!(%manager, why, "without a manager"),
        Note::Granted(lease, device, holder) => tracing::info!(lease, %device, %holder, "leased"),
        Note::Ended(lease, device, holder, why) => {
            tracing::info!(lease, %device, %holder, why, "lease ended");
        }
        Note::Plugged(device) => tracing::info!(%device, "plugged in"),
        Note::Unplugged(device) => tracing::info!(%device, "unplugged"),
        Note::Wrong(what) => tracing::warn!(what, "refused"),
    }
}
