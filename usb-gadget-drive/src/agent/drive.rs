// SPDX-License-Identifier: MIT OR Apache-2.0
//! The thread of one drive: connects, attaches, inserts; ejects when a session has ended, and begins anew. Plainly
//! sequential. While it waits inside the kernel for an insertion or ejection the pump goes on answering.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use gadget::{Gadget, Insert, LunError, LunId};
use kernel_abi::nbd_netlink::NbdError;
use tracing::{error, info, warn};

use super::attach::{self, Device, Label};
use super::spec::{Place, Spec};
use super::stop::Stop;
use crate::client::connect::{Connect, ConnectError};
use crate::client::proxy::{Cause, Proxy};
use crate::client::pump;
use crate::client::tls::Manager;

/// First and longest pause before a drive that ended is tried again.
const MIN_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// A session that lasted so long begins with the shortest pause again.
const GOOD_SESSION: Duration = Duration::from_secs(60);
/// How long whoever inserts waits for a server that does not answer: it may be busy. Less than the limit of an insertion.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often is looked whether the host has ejected a drive, as an installer does when it is done.
const LOOK: Duration = Duration::from_secs(1);
/// How often somebody who waits looks whether he is to stop.
const TICK: Duration = Duration::from_millis(100);

/// Why there is no session, or no more.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("cannot connect: {0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Nbd(#[from] NbdError),
    #[error("{0}")]
    Lun(#[from] LunError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Cause(Cause),
    #[error("the kernel gave the device up")]
    Kernel,
    #[error("the host ejected it")]
    Host,
    #[error("it is to end")]
    Stop,
}

impl Ended {
    /// The server said nothing, neither yes nor no.
    fn is_silence(&self) -> bool {
        use io::ErrorKind::{TimedOut, WouldBlock};
        matches!(self, Self::Connect(ConnectError::Io(e)) if matches!(e.kind(), TimedOut | WouldBlock))
    }
}

/// One drive in its LUN.
pub struct Drive {
    /// Our gadget.
    pub gadget: Arc<Gadget>,
    /// Where the drive is inserted.
    pub lun: LunId,
    /// What it is.
    pub spec: Spec,
    /// When to end.
    pub stop: Stop,
    /// Where shares are.
    pub manager: Option<Manager>,
    /// Is told what becomes of it.
    pub report: Report,
}

/// Takes what becomes of a drive.
pub type Report = Box<dyn Fn(State) + Send>;

/// What a drive is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The host sees it.
    Inserted,
    /// The host sees it, and waits for the server, for this reason.
    Held(String),
    /// It is ejected, for this reason; tried again until told to stop.
    Away(String),
    /// The host ejected it, and it stays so.
    Ejected,
}

impl std::fmt::Debug for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drive")
            .field("lun", &self.lun)
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

impl Drive {
    /// Presents the drive until told to stop.
    pub fn run(self) {
        match (&self.spec.place, self.spec.connect(self.manager.as_ref())) {
            (Place::File(path), _) => self.local(path.clone()),
            (_, Some(connect)) => self.remote(&connect),
            (_, None) => {}
        }
    }

    fn local(&self, file: PathBuf) {
        let mut told = false;
        let mut pause = MIN_PAUSE;
        let insert = Insert { file, read_only: self.spec.read_only, no_fua: false };
        while !self.stop.is_set() {
            match self.insert(&insert) {
                Ok(()) => {
                    (self.report)(State::Inserted);
                    return self.watch();
                }
                Err(error) if !told => {
                    (self.report)(State::Away(error.to_string()));
                    warn!(lun = %self.lun, drive = %self.spec, %error, "not inserted; trying on");
                }
                Err(_) => {}
            }
            told = true;
            self.stop.wait(pause);
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Waits until the host ejects it, or the end.
    fn watch(&self) {
        while !self.stop.is_set() {
            if self.is_empty() {
                info!(lun = %self.lun, drive = %self.spec, "the host ejected it");
                return (self.report)(State::Ejected);
            }
            self.stop.wait(LOOK);
        }
    }

    fn is_empty(&self) -> bool {
        self.gadget.is_empty(self.lun).unwrap_or(false)
    }

    fn remote(&self, connect: &Arc<dyn Connect>) {
        let (lun, drive) = (self.lun, &self.spec);
        let mut pause = MIN_PAUSE;
        let mut told = String::new();
        let since = Instant::now();
        let mut adopted = self.adopt(connect);
        loop {
            let begun = Instant::now();
            let ended = match adopted.take() {
                Some(session) => session.run(self),
                None => Session::begin(self, connect)
                    .map_or_else(|ended| ended, |session| session.run(self)),
            };
            if self.stop.is_set() {
                return;
            }
            if matches!(ended, Ended::Host) {
                return (self.report)(State::Ejected);
            }
            if begun.elapsed() >= GOOD_SESSION {
                (pause, told) = (MIN_PAUSE, String::new());
            }
            if !matches!(ended, Ended::Connect(_)) {
                // Nothing of it is left, and what it was granted may be over.
                connect.begin_anew();
            }
            let cause = ended.to_string();
            if !(ended.is_silence() && since.elapsed() < PATIENCE) {
                (self.report)(State::Away(cause.clone()));
            }
            if cause != told {
                warn!(%lun, %drive, cause, "not inserted; trying on");
                told = cause;
            }
            self.stop.wait(pause);
            pause = (pause * 2).min(if matches!(ended, Ended::Connect(_)) {
                MIN_PAUSE * 2
            } else {
                MAX_PAUSE
            });
        }
    }

    /// Goes on with what an agent before us left in the LUN, if it is the same drive; or empties it.
    fn adopt(&self, connect: &Arc<dyn Connect>) -> Option<Session> {
        let (lun, drive) = (self.lun, &self.spec);
        let file = self.gadget.lun(lun).ok()?.file?;
        let device = Device::of_path(&file);
        let label = device.and_then(Device::label);
        if let (Some(device), Some(label)) = (device, &label)
            && label.spec == drive.to_string()
        {
            match Session::take_over(connect, device, label, drive) {
                Ok(session) => {
                    (self.report)(State::Inserted);
                    info!(%lun, %drive, device = device.index, "taken over");
                    return Some(session);
                }
                Err(error) => warn!(%lun, %drive, %error, "cannot be taken over; beginning anew"),
            }
        }
        self.empty();
        if let (Some(device), Some(_)) = (device, label) {
            detach(device);
        }
        None
    }

    /// Inserts what is not inserted yet.
    fn insert(&self, insert: &Insert) -> Result<(), LunError> {
        let (lun, drive) = (self.lun, &self.spec);
        let there = self.gadget.lun(lun)?;
        if let Some(file) = there.file {
            let same = insert.file.canonicalize().is_ok_and(|wanted| wanted == file);
            if same && there.read_only == insert.read_only {
                info!(%lun, %drive, "is inserted already");
                return Ok(());
            }
            self.gadget.force_eject(lun)?;
        }
        let state = self.gadget.insert(lun, drive.kind, insert)?;
        info!(%lun, %drive, kind = %state.kind, read_only = state.read_only, "inserted");
        Ok(())
    }

    fn empty(&self) {
        if let Err(error) = self.gadget.force_eject(self.lun) {
            error!(lun = %self.lun, %error, "cannot be ejected");
        }
    }
}

/// A remote drive between its attachment and its end. The pump runs as long as this is.
struct Session {
    name: String,
    pump: pump::Handle,
    events: Receiver<pump::Event>,
    device: Device,
    label: Label,
    /// Not yet inserted.
    fresh: bool,
}

impl Session {
    fn begin(drive: &Drive, connect: &Arc<dyn Connect>) -> Result<Self, Ended> {
        let connected = connect.connect()?;
        let label = Label::new(connected.export, &drive.spec.granted(connected.claim));
        let (ours, kernel) = UnixStream::pair()?;
        let proxy = Proxy::connected(connected.export);
        let name = drive.spec.to_string();
        let link = Some(connected.stream);
        let (tell, events) = channel();
        let pump = pump::start(&name, proxy, ours, link, Arc::clone(connect), tell)?;
        let device = attach::attach(&kernel, &label, connected.block)?;
        Ok(Self { name, pump, events, device, label, fresh: true })
    }

    fn take_over(
        connect: &Arc<dyn Connect>,
        device: Device,
        label: &Label,
        spec: &Spec,
    ) -> Result<Self, Ended> {
        let (ours, kernel) = UnixStream::pair()?;
        let proxy = Proxy::disconnected(Instant::now(), label.export);
        let name = spec.to_string();
        let (tell, events) = channel();
        let pump = pump::start(&name, proxy, ours, None, Arc::clone(connect), tell)?;
        device.take_over(&kernel, label)?;
        Ok(Self { name, pump, events, device, label: label.clone(), fresh: false })
    }

    /// Inserts the drive, waits for the session's end and ejects it.
    fn run(self, drive: &Drive) -> Ended {
        let lun = drive.lun;
        let ended = self.serve(drive).map_or_else(|ended| ended, |never| match never {});
        let in_order = matches!(ended, Ended::Stop | Ended::Host);
        if in_order {
            info!(%lun, drive = self.name, cause = %ended, "ejected");
        } else {
            error!(%lun, drive = self.name, cause = %ended, "ejected by force");
        }
        // What is dirty is written by the ejection, to the server or to nowhere.
        drive.empty();
        if in_order
            && let Err(error) = File::open(self.device.path()).and_then(|device| device.sync_all())
        {
            error!(%lun, drive = self.name, %error, "the server could not flush it");
        }
        detach(self.device);
        ended
    }

    fn serve(&self, drive: &Drive) -> Result<std::convert::Infallible, Ended> {
        if self.fresh {
            let read_only = drive.spec.read_only || self.label.export.is_read_only();
            drive.insert(&Insert { file: self.device.path(), read_only, no_fua: false })?;
            (drive.report)(State::Inserted);
        }
        let mut looked = Instant::now();
        loop {
            match self.events.recv_timeout(TICK) {
                Ok(pump::Event::End(cause)) => return Err(Ended::Cause(cause)),
                Ok(pump::Event::HostGone) => self.renew()?,
                Ok(pump::Event::Link(Ok(()))) => (drive.report)(State::Inserted),
                Ok(pump::Event::Link(Err(why))) => (drive.report)(State::Held(why)),
                Err(RecvTimeoutError::Timeout) if drive.stop.is_set() => return Err(Ended::Stop),
                Err(RecvTimeoutError::Timeout) if looked.elapsed() >= LOOK => {
                    looked = Instant::now();
                    if drive.is_empty() {
                        return Err(Ended::Host);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Ended::Kernel),
            }
        }
    }

    /// The kernel took us for dead, perhaps since we were stopped.
    fn renew(&self) -> Result<(), Ended> {
        let (ours, kernel) = UnixStream::pair()?;
        self.pump.set_host(ours);
        self.device.take_over(&kernel, &self.label).map_err(|_| Ended::Kernel)?;
        warn!(drive = self.name, "the kernel had given up waiting for us; going on");
        Ok(())
    }
}

fn channel() -> (pump::Tell, Receiver<pump::Event>) {
    let (sender, events) = mpsc::channel();
    let tell = move |event| {
        // A session that is over has nothing to be told.
        let _ = sender.send(event);
    };
    (Box::new(tell), events)
}

fn detach(device: Device) {
    if let Err(error) = device.detach() {
        error!(device = device.index, %error, "cannot be detached");
    }
}
