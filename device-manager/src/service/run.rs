// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lease` and `attach`: one loop that tells [`super::core`] what happens, and does what that says, until a signal or until the
//! device is lost.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use daemon_kit::notify;
use daemon_kit::signals::{Signal, Signals};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::attach::Attached;
pub use super::core::NotHeld;
use super::core::{Action, ConnId, Event, Note, Over, Service};
use super::find::lease;
pub use super::find::{Finding, NotLeased, Wanted, client};
use crate::link::{Chain, Link, read_all, write_all};
use crate::trust::{Role, Trust};
use crate::unit::run::boot_clock;
use crate::wire::{FromHolder, Grant, ToHolder};

/// Things that happen and wait for the core.
const MAX_HAPPENED: usize = 64;
/// Messages that wait for the unit to read; one that reads none of so many is not there.
const MAX_TO_UNIT: usize = 16;
/// The manager answers within this time what needs no device.
const MANAGER: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which device.
    pub wanted: Wanted,
    /// Whether it appears here, not only is leased.
    pub attach: bool,
    /// Come back to it when it is lost, and wait for it before.
    pub keep: bool,
    /// Where a pseudo-terminal of a serial line, or the socket of a disk or a BMC, is to be found.
    pub link: Option<PathBuf>,
    /// Whether this process's group may connect to such a socket.
    pub group: bool,
    /// The manager's socket.
    pub socket: PathBuf,
    /// Keys and members below another root.
    pub root: Option<PathBuf>,
    /// The folder for whom it meets.
    pub state: PathBuf,
    /// The folder for sockets of disks and BMCs.
    pub runtime: PathBuf,
    /// Where a unit of this machine waits for holders.
    pub unit: PathBuf,
    /// The helper's socket.
    pub helper: PathBuf,
}

/// What tasks tell the loop.
pub(super) enum Happened {
    /// What the core is told as it is.
    Event(Event),
    /// There is no lease.
    NotLeased(NotLeased),
    /// The unit is reached, or not.
    Dialled(ConnId, Option<Box<Link>>),
}

struct UnitLink {
    out: mpsc::Sender<FromHolder>,
    reader: AbortHandle,
}

struct Shell {
    core: Service,
    options: Arc<Options>,
    trust: Trust,
    happened: mpsc::Sender<Happened>,
    links: BTreeMap<ConnId, UnitLink>,
    /// Dropped when a device that is used here is to be left.
    using: Option<oneshot::Sender<()>>,
    /// Why there was no lease the last time.
    refused: Option<NotLeased>,
}

/// Holds a device.
///
/// # Errors
/// Why it is not held, or not any more.
pub async fn run(options: Options) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.state).with_context(|| options.state.display().to_string())?;
    let trust = Trust::open(options.root.as_deref(), &options.state)?;
    let mut signals = Signals::new().context("cannot handle signals")?;
    if options.keep {
        notify::ready("looking for the device");
    }
    let (happened, mut happening) = mpsc::channel(MAX_HAPPENED);
    let core = Service::new(options.keep, boot_clock());
    let (options, links) = (Arc::new(options), BTreeMap::new());
    let mut shell = Shell { core, options, trust, happened, links, using: None, refused: None };
    loop {
        let wait = shell.core.next().saturating_sub(boot_clock());
        let over = tokio::select! {
            () = stop(&mut signals) => shell.tell(Event::Stop),
            Some(happened) = happening.recv() => shell.happened(happened),
            () = sleep(Duration::from_micros(wait.min(60_000_000))) => shell.tell(Event::Tick),
        };
        if let Some(over) = over {
            return shell.ended(over);
        }
    }
}

async fn stop(signals: &mut Signals) {
    while signals.next().await != Signal::Stop {}
}

/// Connects to the unit of a lease.
pub(super) async fn dial(trust: &Trust, local: &Path, grant: &Grant) -> Option<Link> {
    let (unit, roles) = (&grant.device.unit, (Role::Holder, Role::Unit));
    match Link::connect(trust, unit, roles, &grant.addresses, local).await {
        Ok(link) => Some(link),
        Err(error) => {
            tracing::debug!(%unit, error = %Chain(&error), "the unit is not reached");
            None
        }
    }
}

impl Shell {
    fn happened(&mut self, happened: Happened) -> Option<Over> {
        match happened {
            Happened::Event(event) => self.tell(event),
            Happened::NotLeased(error) => {
                let later = error.later();
                let error = self.refused.insert(error);
                let why = Chain(error).to_string();
                self.tell(Event::NotLeased { why, later })
            }
            Happened::Dialled(conn, None) => self.tell(Event::NotConnected(conn)),
            Happened::Dialled(conn, Some(link)) => {
                let Link { inbox, outbox, .. } = *link;
                let told = move |said: Option<ToHolder>| {
                    Happened::Event(match said {
                        Some(said) => Event::Said(conn, said),
                        None => Event::LinkEnded(conn),
                    })
                };
                let reading = read_all(inbox, told, self.happened.clone());
                let reader = tokio::spawn(reading).abort_handle();
                let (out, messages) = mpsc::channel(MAX_TO_UNIT);
                tokio::spawn(write_all(outbox, messages));
                self.links.insert(conn, UnitLink { out, reader });
                self.tell(Event::Connected(conn))
            }
        }
    }

    /// Why all is over, if it is.
    fn tell(&mut self, event: Event) -> Option<Over> {
        let mut actions = VecDeque::from(self.core.handle(boot_clock(), event));
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Look => self.look(),
                Action::Connect(conn, grant) => self.connect(conn, grant),
                Action::Send(conn, said) => {
                    let full =
                        self.links.get(&conn).is_some_and(|link| link.out.try_send(said).is_err());
                    if full {
                        self.close(conn);
                        actions.extend(self.core.handle(boot_clock(), Event::LinkEnded(conn)));
                    }
                }
                Action::Close(conn) => self.close(conn),
                Action::Use(grant) => self.use_it(grant),
                Action::Leave => self.using = None,
                Action::End(over) => return Some(over),
                Action::Note(note) => log(&note),
            }
        }
        None
    }

    fn ended(self, over: Over) -> anyhow::Result<()> {
        match over {
            Over::Stopped => Ok(()),
            Over::NotHeld(device, why) => Err(anyhow::Error::new(why).context(device.to_string())),
            Over::NotLeased { why, .. } => {
                Err(self.refused.map_or_else(|| anyhow::Error::msg(why), anyhow::Error::new))
            }
            Over::Lost(why) => Err(anyhow::Error::msg(why)),
        }
    }

    fn look(&self) {
        let (options, happened) = (Arc::clone(&self.options), self.happened.clone());
        tokio::spawn(async move {
            let client = client(&options.socket).with_timeout(MANAGER);
            let waits = |device, place| {
                // Where it is full, nobody reads it just now.
                let _ = happened.try_send(Happened::Event(Event::Waits(device, place)));
            };
            let leased = match lease(&client, &options.wanted, waits).await {
                Ok(grant) => Happened::Event(Event::Granted(Box::new(grant))),
                Err(error) => Happened::NotLeased(error),
            };
            let _ = happened.send(leased).await;
        });
    }

    fn connect(&self, conn: ConnId, grant: Box<Grant>) {
        let (options, happened) = (Arc::clone(&self.options), self.happened.clone());
        let trust = self.trust.clone();
        tokio::spawn(async move {
            let link = dial(&trust, &options.unit, &grant).await.map(Box::new);
            let _ = happened.send(Happened::Dialled(conn, link)).await;
        });
    }

    fn close(&mut self, conn: ConnId) {
        if let Some(link) = self.links.remove(&conn) {
            link.reader.abort();
        }
    }

    fn use_it(&mut self, grant: Box<Grant>) {
        let (options, happened) = (Arc::clone(&self.options), self.happened.clone());
        let trust = self.trust.clone();
        let (using, leave) = oneshot::channel();
        self.using = Some(using);
        tokio::spawn(async move {
            let attached = Attached { options, trust, grant, happened };
            let gone = attached.until(leave).await;
            let _ = attached.happened.send(Happened::Event(Event::Gone(gone))).await;
        });
    }
}

fn log(note: &Note) {
    match note {
        Note::Waits(device, place) => {
            tracing::info!(%device, place, "waits");
            println!("{device} is in use; place {place} in the queue");
        }
        Note::NotHeld(why, pause) => {
            tracing::warn!(why, again_in_ms = pause / 1000, "not held");
            notify::status(&format!("not held: {why}"));
        }
    }
}
