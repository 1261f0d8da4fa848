// SPDX-License-Identifier: MIT OR Apache-2.0
//! A HID device by itself at its holder: one that the helper makes, there as long as the lease is. Reports go through here, between
//! the helper and the unit, as they come.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::time::{Instant, sleep};

use super::attach::{Attached, Leave, named};
use super::core::Gone;
use crate::helper::usbip::Identity;
use crate::helper::{Answer, Helper, Request};
use crate::hid::{About, FromDevice, MAX_REPORT, ToDevice};
use crate::link::Link;
use crate::serial::{read, write};
use crate::unit::inventory::nodes_of_hid;
use crate::wire::Bounded;

/// A driver has made what programs use within this time: it may have to be loaded.
const NODES: Duration = Duration::from_secs(10);
/// Between two looks at sysfs.
const LOOK: Duration = Duration::from_millis(20);

/// Has a device appear here, until it is lost or to be left.
pub(super) async fn hold(
    attached: &Attached,
    about: About,
    link: Link,
    leave: Leave,
) -> anyhow::Result<Gone> {
    link.keep_alive().context("keep-alive")?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let found = &attached.grant.device.found;
    let (identity, types) = (Identity::of(found), found.types.clone());
    let helper = Helper::at(attached.options.helper.clone());
    let made = helper.ask(Request::MakeHid { about, identity, types }, Some(theirs)).await?;
    let Answer::Made(phys) = made else {
        anyhow::bail!("the helper answers something else");
    };
    Ok(tokio::select! {
        ended = relay(ours, link) => {
            tracing::debug!(?ended, "a HID device's connection is over");
            Gone::Lost
        }
        _ = leave => Gone::Left,
        error = announce(attached, &phys) => Gone::Failed(error),
    })
}

/// Says what programs can use, once it is there; returns only if that does not come.
async fn announce(attached: &Attached, phys: &str) -> String {
    let end = Instant::now() + NODES;
    let nodes = loop {
        let nodes = nodes_of_hid(Path::new("/sys"), phys);
        // It is made last.
        if nodes.iter().any(|node| node.starts_with("/dev/hidraw")) {
            break nodes;
        }
        if Instant::now() > end {
            return "the kernel makes no input device of it".to_owned();
        }
        sleep(LOOK).await;
    };
    let link = attached.options.link.as_deref();
    let _named = match link.map(|link| named(link, &nodes[0])).transpose() {
        Ok(named) => named,
        Err(error) => return format!("{error:#}"),
    };
    let (grant, nodes) = (&attached.grant, nodes.join(", "));
    let (device, unit, no) = (grant.device.id, &grant.device.unit, grant.no);
    tracing::info!(%device, %unit, nodes, lease = no, "attached");
    attached.is_there(&format!("{device} of {unit} is at {nodes}, lease {no}")).await;
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
