// SPDX-License-Identifier: MIT OR Apache-2.0
//! `usb-gadget-drive agent`: the gadget, a thread for each drive, and one that watches the host.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use daemon_kit::config::ConfigError;
use daemon_kit::notify::{self, Watchdog};
use daemon_kit::signals::{Signal, Signals};
use gadget::{Gadget, GadgetError, Identity, Kind, Layout, LayoutError, LunId, UsbState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::args::AgentArgs;
use super::attach::Device;
use super::config::{Config, LocalDrive, ManagerConfig};
use super::managed::Drives;
use super::spec::{Place, Spec};
use super::stop::Stop;
use super::usb::Usb;
use crate::client::pump::STACK;
use crate::client::tls::{self, Manager};
use crate::link::agent::Ordered;
use crate::link::{self, message};
use crate::serve::tls::TlsError;

/// How often the controller's state is looked at where it does not tell of changes.
const LOOK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Without systemd's watchdog there is nothing to do on time.
const IDLE: Duration = Duration::from_secs(3600);
/// Between two looks at least: states come in bursts.
const BREATH: Duration = Duration::from_millis(200);

/// Why the agent did not start, or did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The layout.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The gadget.
    #[error(transparent)]
    Gadget(#[from] GadgetError),
    /// Too many.
    #[error("there are {wanted} drives of kind {kind}, but the layout has {room} luns for them")]
    NoRoom {
        /// Disk or CD.
        kind: Kind,
        /// Drives.
        wanted: usize,
        /// LUNs.
        room: usize,
    },
    /// Twice the same.
    #[error("{spec} is given twice; a drive is in one lun at a time")]
    Twice {
        /// The drive.
        spec: Spec,
    },
    /// Another agent runs.
    #[error("another agent serves {udc}; stop it first")]
    Running {
        /// The controller.
        udc: String,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The blade's certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The machine.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Runs until a signal says stop.
///
/// # Errors
/// [`AgentError`].
pub async fn run(args: &AgentArgs) -> Result<(), AgentError> {
    let config = if args.drives.is_empty() || args.config.is_some() {
        Config::load(args.config.as_deref())?
    } else {
        Config::default()
    };
    let manager = config.manager.as_ref().map(manager).transpose()?;
    let own = config.drives.into_iter().map(|drive| (drive.name.to_string(), spec_of(drive)));
    let given = args.drives.iter().map(|spec| (spec.to_string(), spec.clone()));
    let layout = Layout::new(args.functions, args.disks, args.cds)?;
    let layout = if args.no_input { layout.without_input() } else { layout };
    let places = places(layout, own.chain(given))?;
    let _alone = alone(&args.udc)?;
    let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let identity = Identity::from_seed(&format!("{} {}", machine.trim(), args.udc));
    let gadget = Arc::new(Gadget::open(&args.udc, layout, &identity)?);
    info!(udc = args.udc, adopted = gadget.was_adopted(), luns = layout.all().count(), "gadget");
    let mut signals = Signals::new()?;

    let (drives, told) = Drives::new(Arc::clone(&gadget), manager.clone());
    for (lun, name, spec) in places {
        drives.start(lun, name, spec, None)?;
    }
    if manager.is_some() {
        adopt(&gadget, &drives)?;
    }
    empty_unused(&gadget, &drives);
    gadget.bind()?;
    let stop = Stop::default();
    let watched = (Arc::clone(&gadget), stop.clone());
    let watcher = thread::Builder::new().name("usb".into()).stack_size(STACK);
    let watcher = watcher.spawn(move || watch(&watched.0, &watched.1))?;
    if let Some((config, manager)) = config.manager.zip(manager) {
        let (orders, ordered) = mpsc::channel(link::MAX_WAITING);
        let Manager { name, tls, .. } = manager;
        let manager = link::agent::Manager { address: config.address, name, tls };
        tokio::spawn(link::agent::keep(manager, args.udc.clone(), told, orders));
        tokio::spawn(obey(Arc::clone(&drives), ordered));
    }

    notify::ready("serving");
    let watchdog = Watchdog::from_env();
    let mut tick = tokio::time::interval(watchdog.as_ref().map_or(IDLE, Watchdog::interval));
    loop {
        tokio::select! {
            signal = signals.next() => if signal == Signal::Stop { break },
            _ = tick.tick() => if let Some(watchdog) = &watchdog { watchdog.kick() },
        }
    }
    notify::stopping();
    stop.set();
    let ending = Arc::clone(&drives);
    let ended = tokio::task::spawn_blocking(move || {
        ending.end_all();
        // A panic has been printed.
        let _ = watcher.join();
    });
    let _ = ended.await;
    if args.remove {
        gadget.remove()?;
    }
    Ok(())
}

fn manager(config: &ManagerConfig) -> Result<Manager, TlsError> {
    let tls = tls::load(&config.tls)?;
    Ok(Manager { nbd: config.nbd.clone(), name: config.name.clone(), tls })
}

fn spec_of(drive: LocalDrive) -> Spec {
    let is_cd = drive.kind == message::Kind::Cd;
    let kind = if is_cd { Kind::Cd } else { Kind::Disk };
    Spec { place: Place::File(drive.path), kind, read_only: !drive.writable }
}

/// Carries the manager's orders out, each in a thread: a host may take its time with one.
async fn obey(drives: Arc<Drives>, mut ordered: mpsc::Receiver<Ordered>) {
    while let Some(Ordered { what, answer }) = ordered.recv().await {
        info!(order = ?what, "ordered");
        let drives = Arc::clone(&drives);
        tokio::task::spawn_blocking(move || answer.send(drives.obey(what)));
    }
}

/// Goes on with the shares that an agent before us had inserted.
fn adopt(gadget: &Gadget, drives: &Arc<Drives>) -> Result<(), AgentError> {
    for lun in gadget.layout().all().filter(|lun| !drives.has(*lun)) {
        let Some(file) = gadget.lun(lun).ok().and_then(|state| state.file) else { continue };
        let label = Device::of_path(&file).and_then(Device::label);
        let spec = label.and_then(|label| label.spec.parse::<Spec>().ok());
        let Some(spec) = spec.filter(|spec| matches!(spec.place, Place::Share(_))) else {
            continue;
        };
        if let Place::Share(export) = &spec.place {
            drives.start(lun, export.share.to_string(), spec.clone(), None)?;
        }
    }
    Ok(())
}

/// Which drive is in which LUN.
fn places(
    layout: Layout,
    drives: impl Iterator<Item = (String, Spec)>,
) -> Result<Vec<(LunId, String, Spec)>, AgentError> {
    let drives: Vec<(String, Spec)> = drives.collect();
    for kind in [Kind::Disk, Kind::Cd] {
        let wanted = drives.iter().filter(|(_, spec)| spec.kind == kind).count();
        let room = layout.of_kind(kind).count();
        if wanted > room {
            return Err(AgentError::NoRoom { kind, wanted, room });
        }
    }
    let mut seen = HashSet::new();
    let (mut disks, mut cds) = (layout.of_kind(Kind::Disk), layout.of_kind(Kind::Cd));
    let mut places = vec![];
    for (name, spec) in drives {
        if !seen.insert(spec.to_string()) {
            return Err(AgentError::Twice { spec });
        }
        let lun = if spec.kind == Kind::Disk { disks.next() } else { cds.next() };
        places.push((lun.expect("there is room for each"), name, spec));
    }
    Ok(places)
}

/// Two agents would take each other's devices over for ever. The name goes with the process, however it ends.
fn alone(udc: &str) -> Result<UnixListener, AgentError> {
    let name = SocketAddr::from_abstract_name(format!("midplane/usb-gadget-drive/{udc}"))?;
    UnixListener::bind_addr(&name).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => AgentError::Running { udc: udc.to_owned() },
        _ => error.into(),
    })
}

/// LUNs in which an agent before us left a drive that is not wanted any more.
fn empty_unused(gadget: &Gadget, drives: &Drives) {
    for lun in gadget.layout().all().filter(|lun| !drives.has(*lun)) {
        let Some(file) = gadget.lun(lun).ok().and_then(|state| state.file) else { continue };
        warn!(%lun, file = %file.display(), "ejected: it is not wanted any more");
        if let Err(error) = gadget.force_eject(lun) {
            error!(%lun, %error, "cannot be ejected");
        }
        if let Some(device) = Device::of_path(&file).filter(|device| device.label().is_some())
            && let Err(error) = device.detach()
        {
            error!(%lun, %error, "cannot be detached");
        }
    }
}

/// Plugs the gadget in again when the host gave it up.
fn watch(gadget: &Gadget, stop: &Stop) {
    let mut usb = Usb::default();
    let mut last = None;
    // sysfs tells of a change by POLLPRI once the attribute has been read through this descriptor.
    let mut attribute = File::open(gadget.udc().state_path()).ok();
    while !stop.is_set() {
        let state = gadget.udc().state().unwrap_or(UsbState::Unknown);
        if last.replace(state) != Some(state) {
            info!(udc = gadget.udc().name(), %state, "usb");
        }
        let in_use = matches!(state, UsbState::Configured | UsbState::Suspended);
        if usb.handle_state(Instant::now(), in_use) {
            warn!(udc = gadget.udc().name(), %state, "the host has lost the device; plugging it in again");
            if let Err(error) = gadget.rebind() {
                error!(udc = gadget.udc().name(), %error, "cannot be bound again");
            }
        }
        stop.wait(BREATH);
        if let Some(file) = &mut attribute {
            let mut text = String::new();
            if file.read_to_string(&mut text).is_err() {
                attribute = None;
                continue;
            }
            let _ = poll(&mut [PollFd::new(file, PollFlags::PRI)], Some(&LOOK));
            let _ = io::Seek::rewind(file);
        } else {
            stop.wait(Duration::from_secs(1));
        }
    }
}
