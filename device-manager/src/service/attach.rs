// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a leased device is used as at its holder, from when the unit holds it for us until it is lost or to be left: all of it by the
//! kernel's USB/IP, or one of its functions.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use daemon_kit::notify;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::core::{ANSWER, Event, Gone, NotHeld};
use super::run::{Happened, Options, dial};
use super::{hid, socket};
use crate::helper::usbip::{Exported, Identity, Usbip};
use crate::helper::{Answer, Helper, Request};
use crate::link::Link;
use crate::trust::Trust;
use crate::wire::{Carried, FromHolder, Grant, ToHolder};
use crate::{frames, ktls, serial};

/// Between two looks at the port of an attached device.
const WATCH: Duration = Duration::from_millis(100);

/// Says, or is dropped, when a device is to be left.
pub(super) type Leave = oneshot::Receiver<()>;

/// A leased device.
pub(super) struct Attached {
    pub options: Arc<Options>,
    pub trust: Trust,
    pub grant: Box<Grant>,
    pub happened: mpsc::Sender<Happened>,
}

impl Attached {
    /// Uses it until it is lost or to be left. Nothing of it is left behind.
    pub async fn until(&self, mut leave: Leave) -> Gone {
        if !self.options.attach {
            println!("{} is leased, lease {}", self.grant.device.id, self.grant.no);
            notify::ready("leased");
            self.used().await;
            let _ = leave.await;
            return Gone::Left;
        }
        let data = tokio::select! {
            data = self.data() => data,
            _ = &mut leave => return Gone::Left,
        };
        let (carried, link) = match data {
            Ok(data) => data,
            Err(gone) => return gone,
        };
        self.carried(carried, link, leave)
            .await
            .unwrap_or_else(|error| Gone::Failed(format!("{error:#}")))
    }

    /// A connection that carries the device's data from here on.
    async fn data(&self) -> Result<(Carried, Link), Gone> {
        let not_carried = |why: String| Gone::NotCarried(NotHeld::Ended(why));
        let link = dial(&self.trust, &self.options.unit, &self.grant).await;
        let mut link = link.ok_or_else(|| not_carried("the unit is not reached".to_owned()))?;
        let (no, token) = (self.grant.no, self.grant.token.clone());
        let data = match ktls::is_there() {
            true => FromHolder::Data { no, token },
            false => FromHolder::Framed { no, token },
        };
        link.outbox.send(&data).await.map_err(|error| not_carried(error.to_string()))?;
        match timeout(Duration::from_micros(ANSWER), link.inbox.next::<ToHolder>()).await {
            Ok(Ok(Some(ToHolder::Go(carried)))) => Ok((carried, link)),
            Ok(Ok(Some(ToHolder::Ended(why)))) => Err(not_carried(why)),
            Ok(Ok(None)) | Err(_) => Err(Gone::Silent),
            Ok(Ok(Some(ToHolder::Good(_))) | Err(_)) => Err(Gone::NotCarried(NotHeld::Nonsense)),
        }
    }

    async fn carried(&self, carried: Carried, link: Link, leave: Leave) -> anyhow::Result<Gone> {
        match carried {
            Carried::Usbip { devid, speed, sealed } => {
                let fd = hand_over(link, sealed).await?;
                self.usb(Exported { devid, speed }, fd, leave).await
            }
            Carried::Framed { devid, speed } => {
                let (fd, ours) = frames::pair().context("a socket pair")?;
                tracing::info!(
                    "without the kernel's TLS, the module `tls`, on both machines this process carries the data"
                );
                // It ends with the kernel's end, which is closed when the device is detached.
                frames::carry(self.grant.device.id.to_string(), ours, link);
                self.usb(Exported { devid, speed }, fd, leave).await
            }
            Carried::Serial => self.tty(link, leave).await,
            Carried::Disk { .. } | Carried::Ipmi => socket::hold(self, &carried, link, leave).await,
            Carried::Hid(about) => hid::hold(self, about, link, leave).await,
        }
    }

    /// The device is there: for who started this, for systemd, and for the core.
    pub async fn is_there(&self, text: &str) {
        println!("{text}");
        notify::ready(text);
        self.used().await;
    }

    async fn used(&self) {
        let _ = self.happened.send(Happened::Event(Event::Used)).await;
    }

    async fn usb(&self, exported: Exported, fd: OwnedFd, mut leave: Leave) -> anyhow::Result<Gone> {
        if self.options.link.is_some() {
            anyhow::bail!("--link is for a part, by --function: all of a device has no one node");
        }
        let grant = &self.grant;
        let helper = Helper::at(self.options.helper.clone());
        let request = Request::Import { exported, identity: Identity::of(&grant.device.found) };
        // However long it takes: what is imported is to be detached.
        let Answer::Imported(port, bus_id) = helper.ask(request, Some(fd)).await? else {
            anyhow::bail!("the helper answers something else");
        };
        let (device, unit) = (grant.device.id, &grant.device.unit);
        tracing::info!(%device, %unit, port, bus_id, lease = grant.no, "attached");
        self.is_there(&format!("{device} of {unit} is attached as {bus_id}, lease {}", grant.no))
            .await;
        let mut watch = interval(WATCH);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let usbip = Usbip::new(Path::new("/sys"));
        let gone = loop {
            tokio::select! {
                _ = &mut leave => break Gone::Left,
                _ = watch.tick() => if !usbip.is_admitted(port, &bus_id) {
                    break Gone::Lost;
                },
            }
        };
        if let Err(error) = helper.ask(Request::Detach(port), None).await {
            tracing::warn!(%error, port, "not detached");
        }
        Ok(gone)
    }

    /// A pseudo-terminal stands for the line.
    async fn tty(&self, link: Link, leave: Leave) -> anyhow::Result<Gone> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, vec![])?.into_string()?;
        // Held open, so that a program that closes it does not end it.
        let kept = std::fs::OpenOptions::new().read(true).write(true).open(&name)?;
        serial::raw(&kept)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        let _named = self.options.link.as_deref().map(|path| named(path, &name)).transpose()?;
        let (device, unit, no) = (self.grant.device.id, &self.grant.device.unit, self.grant.no);
        self.is_there(&format!("{device} of {unit} is at {name}, lease {no}")).await;
        Ok(tokio::select! {
            ended = serial::pump(master, link) => match ended {
                Ok(()) => Gone::Lost,
                Err(error) => Gone::Failed(error.to_string()),
            },
            _ = leave => Gone::Left,
        })
    }
}

/// A file that goes with this.
pub(super) struct Removed(pub PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Another name for what is there for as long as the lease is.
pub(super) fn named(path: &Path, what: impl AsRef<Path>) -> anyhow::Result<Removed> {
    // One that was left by who was killed; nothing else is taken away.
    if path.is_symlink() {
        let _ = std::fs::remove_file(path);
    }
    std::os::unix::fs::symlink(what, path).with_context(|| path.display().to_string())?;
    Ok(Removed(path.to_owned()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_replaces_that_of_an_earlier_life_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (path, file) = (dir.path().join("name"), dir.path().join("file"));
        std::os::unix::fs::symlink("/nowhere", &path).unwrap();
        let first = named(&path, "/dev/pts/7").unwrap();
        assert_eq!(std::fs::read_link(&path).unwrap(), Path::new("/dev/pts/7"));
        drop(first);
        assert!(!path.is_symlink());
        std::fs::write(&file, "mine").unwrap();
        assert!(named(&file, "/dev/pts/7").is_err_and(|e| e.to_string().contains("file")));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    }
}
