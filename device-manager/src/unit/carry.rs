// SPDX-License-Identifier: MIT OR Apache-2.0
//! What carries a lease's data: the kernel's USB/IP for a whole device, a task of ours for a part of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};

use super::run::Happened;
use super::{bmc, hid};
use crate::helper::usbip::{Exported, Identity, Usbip};
use crate::helper::{Helper, Request};
use crate::link::{Link, Outbox};
use crate::record::{DISK, Found, HID, IPMI, WHOLE};
use crate::wire::{Carried, ToHolder};
use crate::{disk, frames, ktls, serial};

/// How a lease is to be carried.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// Which part of the device, by its place.
    pub function: u8,
    /// Whether nothing may be written.
    pub read_only: bool,
    /// Whether the holder's kernel has no TLS.
    pub framed: bool,
}

/// All of a unit's.
#[derive(Debug)]
pub struct Carrier {
    helper: Helper,
    sys: PathBuf,
    insecure: bool,
    happened: mpsc::Sender<Happened>,
    paths: BTreeMap<u64, DataPath>,
}

#[derive(Debug)]
enum DataPath {
    /// The kernel has it; whether its status is looked at.
    Usb { bus_id: String, watched: bool },
    /// A task has it.
    Task(AbortHandle),
    /// A task that is told to stop, and waited for: it may be at the device.
    Waited { stop: oneshot::Sender<()>, task: JoinHandle<()> },
}

impl Carrier {
    /// Carries nothing yet.
    #[must_use]
    pub fn new(
        helper: Helper,
        sys: &Path,
        insecure: bool,
        happened: mpsc::Sender<Happened>,
    ) -> Self {
        Self { helper, sys: sys.to_owned(), insecure, happened, paths: BTreeMap::new() }
    }

    /// A lease of the life before, which the kernel carries still.
    pub fn restored(&mut self, no: u64, bus_id: &str) {
        self.paths.insert(no, DataPath::Usb { bus_id: bus_id.to_owned(), watched: true });
    }

    /// Hands a holder's connection to a device, or to a part of it.
    pub fn carry(&mut self, no: u64, link: Link, found: &Found, how: How) {
        let How { function, read_only, framed } = how;
        if function == WHOLE {
            let path = DataPath::Usb { bus_id: found.path.clone(), watched: false };
            self.paths.insert(no, path);
            let (helper, usbip) = (self.helper.clone(), self.sys.clone());
            let sealing = match self.insecure {
                true => Sealing::None,
                false if framed || !ktls::is_there() => Sealing::Frames,
                false => Sealing::Kernel,
            };
            let (found, happened) = (found.clone(), self.happened.clone());
            tokio::spawn(async move {
                let result = export(&helper, &usbip, sealing, link, &found).await;
                let _ = happened.send(Happened::Carries(no, result)).await;
            });
            return;
        }
        let happened = self.happened.clone();
        let part = found.parts.get(usize::from(function) - 1).cloned();
        if let Some((kind, node)) =
            part.as_ref().filter(|(kind, _)| [DISK, HID, IPMI].contains(&kind.as_str()))
        {
            let (found, node, helper) = (found.clone(), node.clone(), self.helper.clone());
            let (stop, stopped) = oneshot::channel();
            let task = match kind.as_str() {
                DISK => {
                    let task = disk::Task { no, found, node, read_only };
                    tokio::spawn(disk::carry(task, helper, link, happened, stopped))
                }
                HID => {
                    let task = hid::Task { no, found, node };
                    tokio::spawn(hid::carry(task, helper, link, happened, stopped))
                }
                _ => {
                    let task = bmc::Task { no, found };
                    tokio::spawn(bmc::carry(task, helper, link, happened, stopped))
                }
            };
            self.paths.insert(no, DataPath::Waited { stop, task });
            return;
        }
        let node = part.map(|part| part.1);
        let task = tokio::spawn(async move {
            let opened = match node {
                Some(node) => {
                    serial::open(Path::new(&node)).map_err(|error| format!("{node}: {error}"))
                }
                None => Err("it has no such function any more".to_owned()),
            };
            match opened {
                Ok(line) => {
                    let _ = happened.send(Happened::Carries(no, Ok(Carried::Serial))).await;
                    serial::serve(line, link).await;
                    let _ = happened.send(Happened::Lost(no)).await;
                }
                Err(why) => drop(happened.send(Happened::Carries(no, Err(why))).await),
            }
        });
        self.paths.insert(no, DataPath::Task(task.abort_handle()));
    }

    /// From now on the end of a data path is noticed.
    pub fn carries(&mut self, no: u64) {
        if let Some(DataPath::Usb { watched, .. }) = self.paths.get_mut(&no) {
            *watched = true;
        }
    }

    /// Leases whose data the kernel carries no more, though nobody asked for that.
    #[must_use]
    pub fn lost(&mut self) -> Vec<u64> {
        let usbip = Usbip::new(&self.sys);
        let mut lost = vec![];
        for (no, path) in &mut self.paths {
            if let DataPath::Usb { bus_id, watched } = path
                && *watched
                && !usbip.is_used(bus_id)
            {
                *watched = false;
                lost.push(*no);
            }
        }
        lost
    }

    /// Whether a lease has a data path that was not cut yet.
    #[must_use]
    pub fn has(&self, no: u64) -> bool {
        self.paths.contains_key(&no)
    }

    /// Cuts a lease's data path, and says when that is done.
    pub fn cut(&mut self, no: u64) {
        let (helper, happened) = (self.helper.clone(), self.happened.clone());
        match self.paths.remove(&no) {
            Some(DataPath::Usb { bus_id, .. }) => {
                // Another lease may have the port by now, by way of another device in it.
                let taken = self.paths.values().any(
                    |path| matches!(path, DataPath::Usb { bus_id: other, .. } if *other == bus_id),
                );
                tokio::spawn(async move {
                    if !taken
                        && let Err(error) =
                            helper.ask(Request::GiveBack(bus_id.clone()), None).await
                    {
                        tracing::warn!(device = bus_id, %error, "it is not given back");
                    }
                    let _ = happened.send(Happened::Cut(no)).await;
                });
            }
            Some(DataPath::Waited { stop, task }) => {
                drop(stop);
                tokio::spawn(async move {
                    // A panic of it has been reported.
                    let _ = task.await;
                    let _ = happened.send(Happened::Cut(no)).await;
                });
            }
            path => {
                if let Some(DataPath::Task(task)) = path {
                    task.abort();
                }
                tokio::spawn(async move { happened.send(Happened::Cut(no)).await });
            }
        }
    }
}

/// `busnum << 16 | devnum` and speed, before it is given away: the holder is told while the connection is ours.
fn look(sys: &Path, bus_id: &str) -> Option<Exported> {
    Usbip::new(sys).look(bus_id)
}

/// How USB/IP between machines is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sealing {
    None,
    /// By the kernel's TLS.
    Kernel,
    /// In [`frames`].
    Frames,
}

async fn export(
    helper: &Helper,
    sys: &Path,
    sealing: Sealing,
    mut link: Link,
    found: &Found,
) -> Result<Carried, String> {
    let gone = || "the device is gone".to_owned();
    let Exported { devid, speed } = look(sys, &found.path).ok_or_else(gone)?;
    let request = Request::Export { bus_id: found.path.clone(), identity: Identity::of(found) };
    // Between two processes of one machine nobody listens.
    if sealing == Sealing::Frames && link.raw.keys.is_some() {
        let carried = Carried::Framed { devid, speed };
        go(&mut link.outbox, &carried).await?;
        let (kernel, ours) = frames::pair().map_err(|error| format!("a socket pair: {error}"))?;
        helper.ask(request, Some(kernel)).await.map_err(|error| error.to_string())?;
        // It ends with the kernel's end, which whoever cuts the device closes.
        frames::carry(found.path.clone(), ours, link);
        return Ok(carried);
    }
    let keys = link.raw.keys.clone().filter(|_| sealing == Sealing::Kernel);
    let carried = Carried::Usbip { devid, speed, sealed: keys.is_some() };
    go(&mut link.outbox, &carried).await?;
    let raw = link.into_raw();
    if raw.keys.is_some() {
        ktls::keep_alive(&raw.fd).map_err(|error| format!("keep-alive: {error}"))?;
    }
    let sealed;
    if let Some(keys) = &keys {
        let hint = "the kernel's TLS, by the module `tls`";
        sealed =
            ktls::seal(raw.fd, keys.clone()).await.map_err(|error| format!("{hint}: {error}"))?;
    } else {
        sealed = raw.fd;
    }
    helper.ask(request, Some(sealed)).await.map_err(|error| error.to_string())?;
    Ok(carried)
}

async fn go(outbox: &mut Outbox, carried: &Carried) -> Result<(), String> {
    let sent = outbox.send(&ToHolder::Go(carried.clone())).await;
    sent.map_err(|error| format!("the holder is not told: {error}"))
}
