// SPDX-License-Identifier: MIT OR Apache-2.0
//! A HID device by itself at its holder: one that the helper makes, there as long as the lease is. Reports go through here, between
//! the helper and the unit, as they come.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use daemon_kit::notify;
use daemon_kit::signals::Signals;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::time::{Instant, sleep};

use super::hold::Holding;
use super::run::{Options, Over, said, stop};
use crate::helper::usbip::Identity;
use crate::helper::{Answer, Helper, Request};
use crate::hid::{About, FromDevice, MAX_REPORT, ToDevice};
use crate::link::Link;
use crate::serial::{read, write};
use crate::unit::inventory::nodes_of_hid;
use crate::wire::{Bounded, Grant};

/// A driver has made what programs use within this time: it may have to be loaded.
const NODES: Duration = Duration::from_secs(10);
/// Between two looks at sysfs.
const LOOK: Duration = Duration::from_millis(20);

/// Has a device appear here, until the lease or the connection is over.
pub(super) async fn hold(
    options: &Options,
    grant: &Grant,
    about: About,
    link: Link,
    mut holding: Holding,
    signals: &mut Signals,
) -> anyhow::Result<Over> {
    link.keep_alive().context("keep-alive")?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let found = &grant.device.found;
    let (identity, types) = (Identity::of(found), found.types.clone());
    let request = Request::MakeHid { about, identity, types };
    let phys = match Helper::at(options.helper.clone()).ask(request, Some(theirs)).await {
        Ok(Answer::Made(phys)) => phys,
        other => {
            holding.release().await;
            other?;
            anyhow::bail!("the helper answers something else");
        }
    };
    let over = {
        let keep = holding.keep();
        tokio::select! {
            ended = relay(ours, link) => {
                tracing::debug!(?ended, "a HID device's connection is over");
                None
            }
            why = keep => Some(Over::Lost(why.to_string())),
            () = stop(signals) => Some(Over::Stopped),
            error = announce(grant, &phys) => Some(Over::Lost(error)),
        }
    };
    let over = match over {
        Some(over) => over,
        None => Over::Lost(said(&mut holding).await),
    };
    holding.release().await;
    Ok(over)
}

/// Says what programs can use, once it is there; returns only if that does not come.
async fn announce(grant: &Grant, phys: &str) -> String {
    let end = Instant::now() + NODES;
    let nodes = loop {
        let nodes = nodes_of_hid(Path::new("/sys"), phys);
        // It is made last.
        if nodes.iter().any(|node| node.starts_with("/dev/hidraw")) {
            break nodes.join(", ");
        }
        if Instant::now() > end {
            return "the kernel makes no input device of it".to_owned();
        }
        sleep(LOOK).await;
    };
    let (device, unit, no) = (grant.device.id, &grant.device.unit, grant.no);
    let text = format!("{device} of {unit} is at {nodes}, lease {no}");
    println!("{text}");
    tracing::info!(%device, %unit, nodes, lease = no, "attached");
    notify::ready(&text);
    std::future::pending().await
}

/// Moves messages until either end is gone. Who is slow is waited for, each way by itself; the unit waits for 3 s.
pub(crate) async fn relay(socket: OwnedFd, link: Link) -> io::Result<()> {
    let socket = kernel_abi::async_fd::watch_both(socket)?;
    let Link { mut inbox, mut outbox, .. } = link;
    let there = async {
        let mut buffer = vec![0; MAX_REPORT + 64];
        loop {
            match read(&socket, &mut buffer).await? {
                0 => return Ok(()),
                len => {
                    let said = ToDevice::decode(&buffer[..len]).map_err(io::Error::other)?;
                    outbox.send(&said).await.map_err(io::Error::other)?;
                }
            }
        }
    };
    let here = async {
        while let Some(said) = inbox.next::<FromDevice>().await.map_err(io::Error::other)? {
            write(&socket, &said.encode()).await?;
        }
        Ok(())
    };
    tokio::select! {
        ended = there => ended,
        ended = here => ended,
    }
}
