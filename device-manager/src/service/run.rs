// SPDX-License-Identifier: MIT OR Apache-2.0
//! `lease` and `attach`: hold a device until a signal, and with `--keep` come back to it whenever it is lost.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use daemon_kit::notify;
use daemon_kit::signals::{Signal, Signals};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::find::lease;
pub use super::find::{Finding, NotLeased, Wanted, client};
use super::hold::Holding;
pub use super::hold::NotHeld;
use super::{hid, socket};
use crate::helper::usbip::{Exported, Identity, Usbip};
use crate::helper::{Answer, Helper, Request};
use crate::link::Link;
use crate::trust::Trust;
use crate::wire::{Carried, Grant};
use crate::{frames, ktls, serial};

/// Pauses between attempts: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(10));
/// A device that was there for so long is tried again at once.
const STEADY: Duration = Duration::from_secs(10);
/// Between two looks at the port of an attached device.
const WATCH: Duration = Duration::from_millis(100);

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

/// Why a device is not held any more.
pub(super) enum Over {
    /// By a signal.
    Stopped,
    /// It may come back.
    Lost(String),
}

/// Holds a device.
///
/// # Errors
/// Why it is not held, or not any more.
pub async fn run(options: Options) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.state).with_context(|| options.state.display().to_string())?;
    let trust = Trust::open(options.root.as_deref(), &options.state)?;
    let mut signals = Signals::new().context("cannot handle signals")?;
    let mut pause = PAUSE.0;
    if options.keep {
        notify::ready("looking for the device");
    }
    loop {
        let begun = Instant::now();
        let why = match once(&options, &trust, &mut signals).await {
            Ok(Over::Stopped) => return Ok(()),
            Ok(Over::Lost(why)) if options.keep => why,
            Ok(Over::Lost(why)) => anyhow::bail!("{why}"),
            Err(error) if options.keep && may_come(&error) => format!("{error:#}"),
            Err(error) => return Err(error),
        };
        if begun.elapsed() > STEADY {
            pause = PAUSE.0;
        }
        tracing::warn!(why, again_in_ms = pause.as_millis() as u64, "not held");
        notify::status(&format!("not held: {why}"));
        tokio::select! {
            () = sleep(pause) => {}
            () = stop(&mut signals) => return Ok(()),
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

fn may_come(error: &anyhow::Error) -> bool {
    error.downcast_ref::<NotLeased>().is_none_or(NotLeased::later)
}

pub(super) async fn stop(signals: &mut Signals) {
    while signals.next().await != Signal::Stop {}
}

async fn once(options: &Options, trust: &Trust, signals: &mut Signals) -> anyhow::Result<Over> {
    let client = client(&options.socket).with_timeout(Duration::from_secs(10));
    let waits = |device, place| {
        tracing::info!(%device, place, "waits");
        println!("{device} is in use; place {place} in the queue");
    };
    let grant = tokio::select! {
        grant = lease(&client, &options.wanted, waits) => grant?,
        () = stop(signals) => return Ok(Over::Stopped),
    };
    let holding = Holding::open(trust.clone(), options.unit.clone(), grant.clone()).await;
    let mut holding = holding.with_context(|| grant.device.id.to_string())?;
    if !options.attach {
        println!("{} is leased, lease {}", grant.device.id, grant.no);
        notify::ready("leased");
        return Ok(tokio::select! {
            why = holding.keep() => Over::Lost(why.to_string()),
            () = stop(signals) => { holding.release().await; Over::Stopped }
        });
    }
    let (carried, link) = match holding.data().await {
        Ok(data) => data,
        Err(why) => {
            holding.release().await;
            return Err(anyhow::Error::new(why).context(grant.device.id.to_string()));
        }
    };
    match carried {
        Carried::Usbip { devid, speed, sealed } => {
            let fd = hand_over(link, sealed).await?;
            let exported = Exported { devid, speed };
            usb(options, &grant, exported, fd, holding, signals).await
        }
        Carried::Framed { devid, speed } => {
            let (fd, ours) = frames::pair().context("a socket pair")?;
            tracing::info!(
                "without the kernel's TLS, the module `tls`, on both machines this process carries the data"
            );
            // It ends with the kernel's end, which is closed when the device is detached.
            tokio::spawn(frames::pump(ours, link));
            let exported = Exported { devid, speed };
            usb(options, &grant, exported, fd, holding, signals).await
        }
        Carried::Serial => tty(options, &grant, link, holding, signals).await,
        Carried::Disk { .. } | Carried::Ipmi => {
            socket::hold(options, &grant, &carried, link, holding, signals).await
        }
        Carried::Hid(about) => hid::hold(options, &grant, about, link, holding, signals).await,
    }
}

/// The link's connection, for the kernel.
async fn hand_over(link: Link, sealed: bool) -> anyhow::Result<OwnedFd> {
    let raw = link.into_raw();
    if raw.keys.is_some() {
        ktls::keep_alive(&raw.fd)?;
        if !sealed {
            tracing::warn!("data are carried in clear, as the unit's configuration says");
        }
    }
    match raw.keys.filter(|_| sealed) {
        Some(keys) => {
            ktls::seal(raw.fd, keys).await.context("the kernel's TLS, by the module `tls`")
        }
        None => Ok(raw.fd),
    }
}

async fn usb(
    options: &Options,
    grant: &Grant,
    exported: Exported,
    fd: OwnedFd,
    mut holding: Holding,
    signals: &mut Signals,
) -> anyhow::Result<Over> {
    let helper = Helper::at(options.helper.clone());
    let request = Request::Import { exported, identity: Identity::of(&grant.device.found) };
    let imported = tokio::select! {
        imported = helper.ask(request, Some(fd)) => imported,
        why = holding.keep() => {
            return Err(anyhow::Error::new(why).context(grant.device.id.to_string()));
        }
    };
    let (port, bus_id) = match imported {
        Ok(Answer::Imported(port, bus_id)) => (port, bus_id),
        Ok(_) => anyhow::bail!("the helper answers something else"),
        Err(error) => {
            holding.release().await;
            return Err(error.into());
        }
    };
    let text = format!(
        "{} of {} is attached as {bus_id}, lease {}",
        grant.device.id, grant.device.unit, grant.no
    );
    println!("{text}");
    tracing::info!(device = %grant.device.id, unit = %grant.device.unit, port, bus_id, lease = grant.no, "attached");
    notify::ready(&text);
    let mut watch = interval(WATCH);
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let usbip = Usbip::new(Path::new("/sys"));
    let over = {
        // One future for all the time: what it is at, such as coming back to a unit that was away, takes longer than a tick.
        let keep = holding.keep();
        tokio::pin!(keep);
        loop {
            tokio::select! {
                why = &mut keep => break Some(Over::Lost(why.to_string())),
                () = stop(signals) => break Some(Over::Stopped),
                _ = watch.tick() => if !usbip.is_admitted(port, &bus_id) {
                    break None;
                },
            }
        }
    };
    let over = match over {
        Some(over) => over,
        None => Over::Lost(said(&mut holding).await),
    };
    // First nothing uses it any more, then it is given back.
    if let Err(error) = helper.ask(Request::Detach(port), None).await {
        tracing::warn!(%error, port, "not detached");
    }
    holding.release().await;
    Ok(over)
}

/// The port is empty: the unit may be about to say why.
pub(super) async fn said(holding: &mut Holding) -> String {
    match tokio::time::timeout(Duration::from_millis(500), holding.keep()).await {
        Ok(NotHeld::Ended(why)) => why,
        _ => "its data connection was lost".to_owned(),
    }
}

/// A pseudo-terminal stands for the line.
async fn tty(
    options: &Options,
    grant: &Grant,
    link: Link,
    mut holding: Holding,
    signals: &mut Signals,
) -> anyhow::Result<Over> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, vec![])?.into_string()?;
    // Held open, so that a program that closes it does not end it.
    let kept = std::fs::OpenOptions::new().read(true).write(true).open(&name)?;
    serial::raw(&kept)?;
    rustix::io::ioctl_fionbio(&master, true)?;
    if let Some(path) = &options.link {
        let _ = std::fs::remove_file(path);
        std::os::unix::fs::symlink(&name, path).with_context(|| path.display().to_string())?;
    }
    let text =
        format!("{} of {} is at {name}, lease {}", grant.device.id, grant.device.unit, grant.no);
    println!("{text}");
    notify::ready(&text);
    let over = tokio::select! {
        ended = serial::pump(master, link) => match ended {
            Ok(()) => Over::Lost(said(&mut holding).await),
            Err(error) => Over::Lost(error.to_string()),
        },
        why = holding.keep() => Over::Lost(why.to_string()),
        () = stop(signals) => Over::Stopped,
    };
    if let Some(path) = &options.link {
        let _ = std::fs::remove_file(path);
    }
    holding.release().await;
    drop(kept);
    Ok(over)
}
