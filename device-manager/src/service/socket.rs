// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk or a BMC by itself at its holder: a Unix socket that speaks NBD, or the VM serial protocol, there as long as the lease is, and for
//! this user alone, or for its group as well.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::attach::{Attached, Leave, Removed, named};
use super::core::Gone;
use crate::link::{Link, listen_local};
use crate::record::DeviceId;
use crate::streams::pump;
use crate::wire::Carried;

/// Where the socket of a part is: at the same place each time that it is held.
#[must_use]
pub fn place(runtime: &Path, device: DeviceId, function: u8) -> PathBuf {
    runtime.join(format!("{device}-{function}.sock"))
}

/// Where clients find a part. It is gone with this.
struct Door {
    listener: tokio::net::UnixListener,
    path: Removed,
    _named: Option<Removed>,
}

impl Door {
    /// Listens, for this user alone or for its group as well; with another name for it.
    fn open(path: PathBuf, group: bool, link: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        let listener = listen_local(&path).with_context(|| path.display().to_string())?;
        let path = Removed(path);
        if group {
            std::fs::set_permissions(&path.0, Permissions::from_mode(0o660))
                .with_context(|| path.0.display().to_string())?;
        }
        let named = link.map(|link| named(link, &path.0)).transpose()?;
        Ok(Self { listener, path, _named: named })
    }
}

/// Lets clients at a part, until the connection is lost or it is to be left.
pub(super) async fn hold(
    attached: &Attached,
    carried: &Carried,
    link: Link,
    leave: Leave,
) -> anyhow::Result<Gone> {
    link.keep_alive().context("keep-alive")?;
    let (options, grant) = (&attached.options, &attached.grant);
    let path = place(&options.runtime, grant.device.id, grant.function);
    let door = Door::open(path, options.group, options.link.as_deref())?;
    let (device, unit, place) = (grant.device.id, &grant.device.unit, door.path.0.display());
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
    attached.is_there(&format!("{what}, lease {}", grant.no)).await;
    Ok(tokio::select! {
        ended = pump::listen(&door.listener, link) => {
            tracing::debug!(?ended, "a connection is over");
            Gone::Lost
        }
        _ = leave => Gone::Left,
    })
}
