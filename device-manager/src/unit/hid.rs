// SPDX-License-Identifier: MIT OR Apache-2.0
//! HID devices as functions of their own, at the unit: input reports go to the holder, and what that asks of the device is done, one
//! after another. As long as that lasts nothing of the device reaches this machine's own input: its input devices are grabbed.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use kernel_abi::hid as kernel;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use super::run::Happened;
use crate::helper::usbip::Identity;
use crate::helper::{Answer, Helper, Request};
use crate::hid::{About, FromDevice, Kind, Layout, MAX_NAME, MAX_REPORT, ToDevice};
use crate::link::{Inbox, Link, write_all};
use crate::record::{Found, cut};
use crate::serial::read;
use crate::streams::Bytes;
use crate::wire::{Carried, ToHolder};

/// Reports that wait to be sent; the kernel keeps 64 more, and drops the oldest of those.
const MAX_OUT: usize = 8;
/// Requests that wait for the device, beside those in the connection.
const MAX_ASKED: usize = 4;

/// Which device is carried, for which lease.
pub struct Task {
    /// The lease.
    pub no: u64,
    /// The device.
    pub found: Found,
    /// Its part, by its node.
    pub node: String,
}

/// A device that is open, with what keeps its input devices for us.
struct Open {
    hidraw: AsyncFd<OwnedFd>,
    /// The same, for calls that wait for the device.
    device: File,
    grabs: Vec<OwnedFd>,
    about: About,
}

/// Opens a device and carries it over a holder's connection until that ends, the device does, or `stop`. It is this machine's again
/// when this returns.
pub async fn carry(
    task: Task,
    helper: Helper,
    link: Link,
    happened: mpsc::Sender<Happened>,
    stop: oneshot::Receiver<()>,
) {
    let no = task.no;
    let Open { hidraw, device, grabs, about } = match open(task, &helper).await {
        Ok(opened) => opened,
        Err(why) => return drop(happened.send(Happened::Carries(no, Err(why))).await),
    };
    let (out, messages) = mpsc::channel(MAX_OUT);
    let (ask, asked) = mpsc::channel(MAX_ASKED);
    let answers = out.clone();
    let layout = Layout::of(&about.descriptor.0);
    let worker = tokio::task::spawn_blocking(move || work(device, layout, asked, &answers));
    let carried = Carried::Hid(about);
    tokio::select! {
        _ = stop => {}
        ended = serve(&hidraw, link, carried, (no, &happened), (out, messages, ask)) => {
            tracing::debug!(?ended, lease = no, "a HID device's connection is over");
            let _ = happened.send(Happened::Lost(no)).await;
        }
    }
    // What the device is asked just now is over within the 5 s that the kernel gives it.
    if let Err(error) = worker.await {
        tracing::error!(%error, "a HID device's requests");
    }
    drop((hidraw, grabs));
}

async fn open(task: Task, helper: &Helper) -> Result<Open, String> {
    let Task { found, node, .. } = task;
    let (bus_id, identity) = (found.path.clone(), Identity::of(&found));
    let request = Request::OpenHid { bus_id, identity, node: node.clone() };
    let (answer, mut grabs) = helper.ask_for(request).await.map_err(|error| error.to_string())?;
    if answer != Answer::Done || grabs.is_empty() {
        return Err("the helper answers something else".to_owned());
    }
    let hidraw = grabs.remove(0);
    let open = |hidraw: OwnedFd, grabs| {
        let kernel::HidrawDevinfo { bustype, vendor, product } = kernel::info(hidraw.as_fd())?;
        let mut name = kernel::name(hidraw.as_fd())?;
        while name.len() > MAX_NAME {
            name.pop();
        }
        let about = About {
            name: cut(&name),
            bus: u16::try_from(bustype).unwrap_or(0),
            vendor: vendor.cast_unsigned(),
            product: product.cast_unsigned(),
            descriptor: Bytes(kernel::descriptor(hidraw.as_fd())?),
        };
        let device = File::from(hidraw.try_clone()?);
        let hidraw = kernel_abi::async_fd::watch_readable(hidraw)?;
        Ok(Open { hidraw, device, grabs, about })
    };
    open(hidraw, grabs).map_err(|error: io::Error| format!("{node}: {error}"))
}

type Channels = (mpsc::Sender<FromDevice>, mpsc::Receiver<FromDevice>, mpsc::Sender<ToDevice>);

async fn serve(
    hidraw: &AsyncFd<OwnedFd>,
    mut link: Link,
    carried: Carried,
    (no, happened): (u64, &mpsc::Sender<Happened>),
    (out, messages, ask): Channels,
) -> io::Result<()> {
    link.keep_alive()?;
    link.outbox.send(&ToHolder::Go(carried.clone())).await.map_err(io::Error::other)?;
    let _ = happened.send(Happened::Carries(no, Ok(carried))).await;
    let Link { inbox, outbox, .. } = link;
    tokio::select! {
        () = write_all(outbox, messages) => Ok(()),
        ended = inputs(hidraw, &out) => ended,
        ended = requests(inbox, &ask) => ended,
    }
}

/// From the device to the holder. Where that is slow, the kernel drops reports.
async fn inputs(hidraw: &AsyncFd<OwnedFd>, out: &mpsc::Sender<FromDevice>) -> io::Result<()> {
    let mut buffer = vec![0; MAX_REPORT + 1];
    loop {
        let len = read(hidraw, &mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        if len > MAX_REPORT {
            return Err(io::Error::other("a report is longer than /dev/uhid takes"));
        }
        let input = FromDevice::Input(Bytes(buffer[..len].to_vec()));
        out.send(input).await.map_err(io::Error::other)?;
    }
}

async fn requests(mut inbox: Inbox, ask: &mpsc::Sender<ToDevice>) -> io::Result<()> {
    while let Some(request) = inbox.next().await.map_err(io::Error::other)? {
        ask.send(request).await.map_err(io::Error::other)?;
    }
    Ok(())
}

/// Does what the device is asked for, as long as there is somebody to ask. Each may take 5 s.
fn work(
    mut device: File,
    layout: Layout,
    mut asked: mpsc::Receiver<ToDevice>,
    answers: &mpsc::Sender<FromDevice>,
) {
    // What waits when the connection ends is not begun: the device is free when the one under way is over.
    while let Some(request) = asked.blocking_recv().filter(|_| !answers.is_closed()) {
        let answer = match request {
            ToDevice::Output(Bytes(report)) => {
                if let Err(error) = device.write(&layout.for_hidraw(Kind::Output, report)) {
                    tracing::debug!(%error, "an output report");
                }
                continue;
            }
            ToDevice::Get(id, kind, number) => {
                let mut report = vec![0; MAX_REPORT];
                report[0] = number;
                let len = kernel::get_report(device.as_fd(), kind.into(), &mut report);
                FromDevice::Got(id, len.ok().map(|len| Bytes(report[..len].to_vec())))
            }
            ToDevice::Set(id, kind, _, Bytes(report)) => {
                let report = layout.for_hidraw(kind, report);
                let done = kernel::set_report(device.as_fd(), kind.into(), &report);
                FromDevice::Set(id, done.is_ok())
            }
        };
        if answers.blocking_send(answer).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use tokio::net::UnixStream;

    use super::*;
    use crate::service::hid::relay;
    use crate::wire::Bounded;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    fn links() -> (Link, Link) {
        let (one, two) = UnixStream::pair().unwrap();
        let name = || "a".parse().unwrap();
        (Link::local(name(), one).unwrap(), Link::local(name(), two).unwrap())
    }

    async fn next(fd: &AsyncFd<OwnedFd>) -> Vec<u8> {
        let mut buffer = vec![0; 2 * MAX_REPORT];
        let len = read(fd, &mut buffer).await.unwrap();
        buffer.truncate(len);
        buffer
    }

    /// A socket stands for `/dev/hidrawN`, and another for the helper at the holder.
    #[tokio::test]
    async fn reports_go_both_ways_until_one_is_too_long() {
        let ((hidraw, device), (ours, helper)) = (pair(), pair());
        let watch = |fd| kernel_abi::async_fd::watch_both(fd).unwrap();
        let (device, helper) = (watch(device), watch(helper));
        let file = File::from(hidraw.try_clone().unwrap());
        let hidraw = kernel_abi::async_fd::watch_readable(hidraw).unwrap();
        let (mut holder, unit) = links();
        let (out, messages) = mpsc::channel(MAX_OUT);
        let (ask, asked) = mpsc::channel(MAX_ASKED);
        let answers = out.clone();
        let worker =
            tokio::task::spawn_blocking(move || work(file, Layout::default(), asked, &answers));
        let about = About {
            name: "Keys".to_owned(),
            bus: 3,
            vendor: 1,
            product: 2,
            descriptor: Bytes(vec![5]),
        };
        let go = Carried::Hid(about);
        let (happened, _happening) = mpsc::channel(1);
        let trial = async {
            let told = holder.inbox.next::<ToHolder>().await.unwrap();
            assert_eq!(told, Some(ToHolder::Go(go.clone())));
            let reports = async {
                for report in [&[1_u8, 2][..], &[7; MAX_REPORT]] {
                    crate::serial::write(&device, report).await.unwrap();
                    let told = FromDevice::decode(&next(&helper).await);
                    assert_eq!(told, Ok(FromDevice::Input(Bytes(report.to_vec()))));
                }
                let lights = ToDevice::Output(Bytes(vec![2])).encode();
                crate::serial::write(&helper, &lights).await.unwrap();
                assert_eq!(next(&device).await, [0, 2]);
                // It is no HID device: what it is asked for it does not have.
                for (request, answer) in [
                    (ToDevice::Get(8, Kind::Feature, 1), FromDevice::Got(8, None)),
                    (ToDevice::Set(9, Kind::Feature, 1, Bytes(vec![1])), FromDevice::Set(9, false)),
                ] {
                    crate::serial::write(&helper, &request.encode()).await.unwrap();
                    assert_eq!(FromDevice::decode(&next(&helper).await), Ok(answer));
                }
                crate::serial::write(&device, &[7; MAX_REPORT + 1]).await.unwrap();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                ended = relay(ours, holder) => ended.unwrap(),
                () = reports => {}
            }
        };
        let carrying = serve(&hidraw, unit, go.clone(), (1, &happened), (out, messages, ask));
        let (ended, ()) = tokio::join!(carrying, trial);
        assert!(ended.unwrap_err().to_string().contains("longer"));
        worker.await.unwrap();
    }

    #[test]
    fn what_waits_when_the_connection_ends_is_not_begun() {
        for (ended, written) in [(true, 0), (false, 2)] {
            let device = tempfile::tempfile().unwrap();
            let (answers, messages) = mpsc::channel(MAX_OUT);
            let (ask, asked) = mpsc::channel(MAX_ASKED);
            for _ in 0..2 {
                ask.try_send(ToDevice::Output(Bytes(vec![7]))).unwrap();
            }
            drop(ask);
            // Dropped now, or when all is done.
            let messages = (!ended).then_some(messages);
            // One byte a report: its number stands in it.
            let layout = Layout::of(&[0x85, 7]);
            work(device.try_clone().unwrap(), layout, asked, &answers);
            assert_eq!(device.metadata().unwrap().len(), written, "ended: {ended}");
            drop(messages);
        }
    }
}
