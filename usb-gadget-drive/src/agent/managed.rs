// SPDX-License-Identifier: MIT OR Apache-2.0
//! The drives that there are: those of the blade's own, and those that the management module orders.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gadget::{Gadget, LunError, LunId};
use tokio::sync::watch;

use super::drive::{Drive, Report, State};
use super::spec::{Place, Spec};
use super::stop::Stop;
use crate::arbiter::{self, Access, ShareName};
use crate::client::pump::STACK;
use crate::client::tls::Manager;
use crate::link::export_name::ExportName;
use crate::link::message::{self, Claim, DriveState, Failure, Kind, Order, short};

/// An insertion that was not done in this time is undone. Less than the manager waits for.
const INSERT_LIMIT: Duration = Duration::from_secs(15);

/// Who looks at a medium that is new to it, as udev does, has it open for a moment.
const PROBING: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(100);

/// All drives of a gadget.
#[derive(Debug)]
pub struct Drives {
    gadget: Arc<Gadget>,
    manager: Option<Manager>,
    running: Mutex<BTreeMap<LunId, Running>>,
    told: watch::Sender<Vec<message::Drive>>,
}

#[derive(Debug)]
struct Running {
    name: String,
    spec: Spec,
    stop: Stop,
    state: State,
    thread: Option<JoinHandle<()>>,
}

impl Drives {
    /// None yet. The receiver has the drives as they change.
    #[must_use]
    pub fn new(
        gadget: Arc<Gadget>,
        manager: Option<Manager>,
    ) -> (Arc<Self>, watch::Receiver<Vec<message::Drive>>) {
        let (told, receiver) = watch::channel(vec![]);
        (Arc::new(Self { gadget, manager, running: Mutex::default(), told }), receiver)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<LunId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        let drives = self.lock().iter().map(|(lun, running)| running.show(*lun)).collect();
        self.told.send_replace(drives);
    }

    /// Starts a drive in a LUN that has none.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn start(
        self: &Arc<Self>,
        lun: LunId,
        name: String,
        spec: Spec,
        watch: Option<mpsc::Sender<State>>,
    ) -> io::Result<()> {
        let stop = Stop::default();
        // In the table before its thread reports.
        self.lock().insert(lun, Running::new(name, &spec, &stop));
        self.launch(lun, spec, stop, watch)
    }

    /// Starts the thread of a drive that is in the table.
    fn launch(
        self: &Arc<Self>,
        lun: LunId,
        spec: Spec,
        stop: Stop,
        watch: Option<mpsc::Sender<State>>,
    ) -> io::Result<()> {
        let drives = Arc::downgrade(self);
        let report: Report = Box::new(move |state: State| {
            if let Some(drives) = drives.upgrade() {
                if let Some(running) = drives.lock().get_mut(&lun) {
                    running.state = state.clone();
                }
                drives.tell();
            }
            if let Some(watch) = &watch {
                let _ = watch.send(state);
            }
        });
        let drive = Drive {
            gadget: Arc::clone(&self.gadget),
            lun,
            spec,
            stop,
            manager: self.manager.clone(),
            report,
        };
        let thread = thread::Builder::new().name(format!("drive {lun}")).stack_size(STACK);
        match thread.spawn(move || drive.run()) {
            Ok(thread) => {
                if let Some(running) = self.lock().get_mut(&lun) {
                    running.thread = Some(thread);
                }
                Ok(())
            }
            Err(error) => {
                self.lock().remove(&lun);
                Err(error)
            }
        }
    }

    /// Does what the manager says. Blocks until it is done.
    ///
    /// # Errors
    /// Why it was not done.
    pub fn obey(self: &Arc<Self>, order: Order) -> Result<(), Failure> {
        let done = match order {
            Order::Insert { share, kind, writable, claim, lun } => {
                self.insert(&share, kind, writable, claim, lun)
            }
            Order::Eject { share, forced } => self.eject(&share, forced),
        };
        self.tell();
        done
    }

    fn insert(
        self: &Arc<Self>,
        share: &ShareName,
        kind: Kind,
        writable: bool,
        claim: Claim,
        wanted: Option<u8>,
    ) -> Result<(), Failure> {
        let access = if writable { Access::Write } else { Access::Read };
        let claim = match claim {
            Claim::New => arbiter::Claim::New,
            Claim::Epoch(epoch) => arbiter::Claim::Epoch(epoch),
        };
        if let Some((lun, there)) = self.find(share) {
            let is_same = there.spec_kind() == kind && there.is_writable() == writable;
            match there.state {
                State::Ejected => self.end(lun),
                State::Inserted | State::Held(_) if is_same => return Ok(()),
                _ => {
                    return Err(failed(format!(
                        "share {share} is there in another way, or waits for its source; eject it first"
                    )));
                }
            }
        }
        let export = ExportName { share: share.clone(), access: Some(access), claim };
        let kind = if kind == Kind::Cd { gadget::Kind::Cd } else { gadget::Kind::Disk };
        let spec = Spec { place: Place::Share(export), kind, read_only: !writable };
        let stop = Stop::default();
        let lun = {
            // Found and taken at once: orders come at the same time.
            let mut running = self.lock();
            if running.values().any(|other| other.is_share(share)) {
                return Err(failed(format!("share {share} is being inserted already")));
            }
            let lun = self.free(&running, kind, wanted).ok_or_else(|| {
                failed(format!("all places for drives of kind {kind} are taken; eject one first"))
            })?;
            running.insert(lun, Running::new(share.to_string(), &spec, &stop));
            lun
        };
        let (report, reports) = mpsc::channel();
        let started = self.launch(lun, spec, stop, Some(report));
        started.map_err(|error| failed(format!("cannot start another thread: {error}")))?;
        let reason = match reports.recv_timeout(INSERT_LIMIT) {
            Ok(State::Inserted | State::Held(_)) => return Ok(()),
            Ok(State::Away(reason)) => reason,
            Ok(State::Ejected) => "the host ejected it at once".to_owned(),
            Err(RecvTimeoutError::Timeout) => {
                format!("it takes over {} s to connect and insert", INSERT_LIMIT.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => "the drive's thread ended".to_owned(),
        };
        self.end(lun);
        Err(failed(reason))
    }

    fn eject(self: &Arc<Self>, share: &ShareName, forced: bool) -> Result<(), Failure> {
        let Some((lun, _)) = self.find(share) else { return Ok(()) };
        let is_inserted = self.gadget.lun(lun).is_ok_and(|state| state.file.is_some());
        if is_inserted && !forced {
            self.let_go(lun)?;
        }
        self.end(lun);
        Ok(())
    }

    /// Has the host let go; what is dirty is written before this returns.
    fn let_go(&self, lun: LunId) -> Result<(), Failure> {
        let end = Instant::now() + PROBING;
        loop {
            let Err(error) = self.gadget.eject(lun) else { return Ok(()) };
            let is_busy = matches!(error, LunError::HostHolds { .. });
            if !is_busy || Instant::now() >= end {
                return Err(Failure { is_busy, reason: short(&error.to_string()) });
            }
            thread::sleep(AGAIN);
        }
    }

    /// Stops a drive, which is ejected by force if it is still inserted, and waits for its end.
    fn end(&self, lun: LunId) {
        let thread = {
            let mut running = self.lock();
            let Some(running) = running.get_mut(&lun) else { return };
            running.stop.set();
            running.thread.take()
        };
        if let Some(thread) = thread {
            // A panic has been printed.
            let _ = thread.join();
            self.lock().remove(&lun);
            return;
        }
        // Somebody else waits for it.
        while self.lock().get(&lun).is_some_and(|running| running.thread.is_none()) {
            thread::sleep(AGAIN);
        }
    }

    /// Stops all.
    pub fn end_all(&self) {
        self.lock().values().for_each(|running| running.stop.set());
        let luns: Vec<LunId> = self.lock().keys().copied().collect();
        luns.into_iter().for_each(|lun| self.end(lun));
    }

    fn find(&self, share: &ShareName) -> Option<(LunId, Shown)> {
        let running = self.lock();
        let found = running.iter().find(|(_, running)| running.is_share(share));
        found.map(|(lun, running)| {
            (*lun, Shown { spec: running.spec.clone(), state: running.state.clone() })
        })
    }

    /// A place without a drive: the wanted one if it is of that kind, or any.
    fn free(
        &self,
        taken: &BTreeMap<LunId, Running>,
        kind: gadget::Kind,
        wanted: Option<u8>,
    ) -> Option<LunId> {
        let layout = self.gadget.layout();
        let mut free: Vec<LunId> =
            layout.of_kind(kind).filter(|lun| !taken.contains_key(lun)).collect();
        free.sort_by_key(|lun| Some(number(*lun)) != wanted);
        free.first().copied()
    }

    /// Whether a LUN has a drive.
    #[must_use]
    pub fn has(&self, lun: LunId) -> bool {
        self.lock().contains_key(&lun)
    }
}

struct Shown {
    spec: Spec,
    state: State,
}

impl Shown {
    fn spec_kind(&self) -> Kind {
        message_kind(self.spec.kind)
    }

    fn is_writable(&self) -> bool {
        !self.spec.read_only
    }
}

impl Running {
    fn new(name: String, spec: &Spec, stop: &Stop) -> Self {
        let (spec, stop) = (spec.clone(), stop.clone());
        let state = State::Away("it is being connected".to_owned());
        Self { name, spec, stop, state, thread: None }
    }

    fn is_remote(&self) -> bool {
        matches!(self.spec.place, Place::Share(_))
    }

    fn is_share(&self, share: &ShareName) -> bool {
        self.is_remote() && self.name == share.as_str()
    }

    fn show(&self, lun: LunId) -> message::Drive {
        let (state, reason) = match &self.state {
            State::Inserted => (DriveState::Inserted, None),
            State::Held(reason) => (DriveState::Held, Some(short(reason))),
            State::Away(reason) => (DriveState::Away, Some(short(reason))),
            State::Ejected => (DriveState::Ejected, Some("by the host".to_owned())),
        };
        message::Drive {
            name: short(&self.name),
            local: !self.is_remote(),
            kind: message_kind(self.spec.kind),
            writable: !self.spec.read_only,
            lun: number(lun),
            state,
            reason,
        }
    }
}

fn message_kind(kind: gadget::Kind) -> Kind {
    if kind == gadget::Kind::Cd { Kind::Cd } else { Kind::Disk }
}

/// As messages name it.
fn number(lun: LunId) -> u8 {
    lun.function * gadget::MAX_LUNS + lun.lun
}

fn failed(reason: impl Into<String>) -> Failure {
    Failure { is_busy: false, reason: short(&reason.into()) }
}
