// SPDX-License-Identifier: MIT OR Apache-2.0
//! The helper itself: a thread for each request, and no more than a few at a time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
    sockopt,
};

use super::usbip::Usbip;
use super::{Answer, Request, bmc, disk, hid, receive, send};
use crate::config::Config;
use crate::pattern::Pattern;
use crate::record::{Device, DeviceId, Found, Function, Machine, Stamp};
use crate::unit::inventory::{kept_keyboard, withheld};

/// Most requests at a time: each device of a busy unit changes hands at once.
const MAX_THREADS: usize = 64;
/// Who connects says at once what it wants.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where it works.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its socket, if systemd does not give it one.
    pub socket: PathBuf,
    /// The configuration, if another than the usual.
    pub config: Option<PathBuf>,
    /// Usually `/sys`.
    pub sys: PathBuf,
}

/// Serves for ever.
///
/// # Errors
/// The socket cannot be made.
pub fn serve(options: Options) -> anyhow::Result<()> {
    let mut given = kernel_abi::listen_fds::take()?;
    let listener = match given.pop() {
        Some(listener) => listener,
        None => own(&options.socket)?,
    };
    daemon_kit::notify::ready("ready");
    let busy = Arc::new(AtomicUsize::new(0));
    let options = Arc::new(options);
    loop {
        let client = match accept_with(&listener, SocketFlags::CLOEXEC) {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                std::thread::sleep(Duration::from_millis(200));
                continue;
            }
        };
        if busy.fetch_add(1, Ordering::SeqCst) >= MAX_THREADS {
            busy.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (busy, options) = (Arc::clone(&busy), Arc::clone(&options));
        std::thread::spawn(move || {
            if let Err(error) = answer(&client, &options) {
                tracing::debug!(%error, "a request is not answered");
            }
            busy.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

fn own(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listen(&socket, 16)?;
    Ok(socket)
}

fn answer(client: &OwnedFd, options: &Options) -> io::Result<()> {
    sockopt::set_socket_timeout(client, sockopt::Timeout::Recv, Some(PATIENCE))?;
    let (bytes, mut fds) = receive(client.as_fd())?;
    let request: Request = serde_json::from_slice(&bytes)?;
    tracing::debug!(?request, "asked");
    let mut beside = Beside::default();
    let answer = act(&request, fds.pop(), options, &mut beside);
    if let Err(error) = &answer {
        tracing::warn!(?request, error, "not done");
    }
    let opened: Vec<_> = beside.opened.iter().map(AsFd::as_fd).collect();
    send(client.as_fd(), &serde_json::to_vec(&answer)?, &opened)?;
    if let Some(made) = beside.made {
        std::thread::spawn(move || made.carry());
    }
    Ok(())
}

/// What an answer comes with.
#[derive(Default)]
struct Beside {
    opened: Vec<OwnedFd>,
    made: Option<hid::Made>,
}

fn act(
    request: &Request,
    fd: Option<OwnedFd>,
    options: &Options,
    beside: &mut Beside,
) -> Result<Answer, String> {
    let usbip = Usbip::new(&options.sys);
    let text = |error: &dyn std::error::Error| match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let socket = || fd.ok_or_else(|| "a socket is missing".to_owned());
    match request {
        Request::Export { bus_id, identity } => {
            let config = load(options)?;
            let check = |path: &Path, found: &Found| {
                keep(path, found, &config.offer.never, &config.offer.named)
            };
            let exported = usbip.export(bus_id, identity, socket()?.as_fd(), check);
            exported.map(Answer::Exported).map_err(|error| text(&error))
        }
        Request::GiveBack(bus_id) => {
            usbip.give_back(bus_id).map(|()| Answer::Done).map_err(|error| text(&error))
        }
        Request::Import { exported, identity } => {
            let imported = usbip.import(*exported, identity, socket()?.as_fd());
            imported.map(|(port, id)| Answer::Imported(port, id)).map_err(|error| text(&error))
        }
        Request::Detach(port) => {
            usbip.detach(*port).map(|()| Answer::Done).map_err(|error| text(&error))
        }
        Request::Open { bus_id, identity, node, read_only } => {
            let config = load(options)?;
            let check = |found: &Found| never(found, &config.offer.never);
            let disk = disk::open(&usbip, bus_id, identity, (node, *read_only), check);
            let (file, read_only) = disk.map_err(|error| text(&error))?;
            beside.opened = vec![file.into()];
            Ok(Answer::Opened { read_only })
        }
        Request::OpenHid { bus_id, identity, node } => {
            let config = load(options)?;
            let check = |found: &Found| {
                let keyboard = || kept_keyboard(found).filter(|_| !named(found, &config));
                never(found, &config.offer.never).or_else(keyboard)
            };
            let opened = hid::open(&usbip, bus_id, identity, node, check);
            beside.opened = opened.map_err(|error| text(&error))?;
            Ok(Answer::Done)
        }
        Request::OpenBmc { node, descriptors } => {
            let offer = load(options)?.offer;
            let check = |found: &Found| never(found, &offer.never);
            let opened = bmc::open(&options.sys, (node, *descriptors), &offer, check);
            beside.opened = vec![opened.map_err(|error| text(&error))?];
            Ok(Answer::Done)
        }
        Request::MakeHid { about, identity, types } => {
            let made = hid::Made::new(about, identity, types, socket()?);
            let made = made.map_err(|error| text(&error))?;
            let phys = made.phys();
            beside.made = Some(made);
            Ok(Answer::Made(phys))
        }
    }
}

fn load(options: &Options) -> Result<Config, String> {
    Config::load(options.config.as_deref()).map_err(|error| error.to_string())
}

/// As patterns see it.
fn shown(found: &Found) -> Device {
    let unit: Machine = "localhost".parse().expect("it is a name");
    Device {
        id: DeviceId::new(&unit, &found.key),
        unit,
        gen_no: 0,
        found: found.clone(),
        functions: vec![Function::new("whole", None)],
        stamp: Stamp { epoch: 0, seq: 0, at: 0 },
    }
}

fn fits(device: &Device, patterns: &[Pattern]) -> bool {
    patterns.iter().any(|pattern| pattern.fits(device))
}

fn named(found: &Found, config: &Config) -> bool {
    fits(&shown(found), &config.offer.named)
}

fn never(found: &Found, patterns: &[Pattern]) -> Option<String> {
    let is_kept = fits(&shown(found), patterns);
    is_kept.then(|| "it is never given away, by the unit's configuration".to_owned())
}

/// Why a device stays with its machine, whoever asks.
fn keep(path: &Path, found: &Found, patterns: &[Pattern], named: &[Pattern]) -> Option<String> {
    never(found, patterns).or_else(|| withheld(path, found).filter(|_| !fits(&shown(found), named)))
}
