// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk or a BMC by itself at its holder: a Unix socket that speaks NBD, or the VM serial protocol, there as long as the lease is, and for
//! this user alone, or for its group as well.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use daemon_kit::notify;
use daemon_kit::signals::Signals;

use super::hold::Holding;
use super::run::{Options, Over, said, stop};
use crate::link::{Link, listen_local};
use crate::record::DeviceId;
use crate::streams::pump;
use crate::wire::{Carried, Grant};

/// Where the socket of a part is: at the same place each time that it is held.
#[must_use]
pub fn place(runtime: &Path, device: DeviceId, function: u8) -> PathBuf {
    runtime.join(format!("{device}-{function}.sock"))
}

/// Where clients find a part. It is gone with this.
struct Door {
    listener: tokio::net::UnixListener,
    path: PathBuf,
    link: Option<PathBuf>,
}

impl Door {
    /// Listens, for this user alone or for its group as well; with another name for it.
    fn open(path: PathBuf, group: bool, link: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        let listener = listen_local(&path).with_context(|| path.display().to_string())?;
        if group {
            std::fs::set_permissions(&path, Permissions::from_mode(0o660))
                .with_context(|| path.display().to_string())?;
        }
        let mut door = Self { listener, path, link: None };
        if let Some(link) = link {
            let _ = std::fs::remove_file(link);
            std::os::unix::fs::symlink(&door.path, link)
                .with_context(|| link.display().to_string())?;
            door.link = Some(link.to_owned());
        }
        Ok(door)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        for path in [Some(&self.path), self.link.as_ref()].into_iter().flatten() {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Lets clients at a part, until the lease or the connection is over.
pub(super) async fn hold(
    options: &Options,
    grant: &Grant,
    carried: &Carried,
    link: Link,
    mut holding: Holding,
    signals: &mut Signals,
) -> anyhow::Result<Over> {
    link.keep_alive().context("keep-alive")?;
    let path = place(&options.runtime, grant.device.id, grant.function);
    let door = match Door::open(path, options.group, options.link.as_deref()) {
        Ok(door) => door,
        Err(error) => {
            holding.release().await;
            return Err(error);
        }
    };
    let (device, unit, place) = (grant.device.id, &grant.device.unit, door.path.display());
    let what = match carried {
        Carried::Disk { size, read_only } => {
            let how = if *read_only { ", read-only" } else { "" };
            format!(
                "disk of {device} of {unit} is at nbd+unix:///?socket={place}, {size} bytes{how}"
            )
        }
        // As `ipmi-mux` wants it.
        _ => format!("BMC {device} of {unit} is at unix:{place}"),
    };
    let text = format!("{what}, lease {}", grant.no);
    println!("{text}");
    notify::ready(&text);
    let over = tokio::select! {
        ended = pump::listen(&door.listener, link) => {
            tracing::debug!(?ended, "a connection is over");
            None
        }
        why = holding.keep() => Some(Over::Lost(why.to_string())),
        () = stop(signals) => Some(Over::Stopped),
    };
    // Nobody comes any more, neither while it is asked why nor when it is given back.
    drop(door);
    let over = match over {
        Some(over) => over,
        None => Over::Lost(said(&mut holding).await),
    };
    holding.release().await;
    Ok(over)
}
