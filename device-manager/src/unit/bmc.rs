// SPDX-License-Identifier: MIT OR Apache-2.0
//! A BMC as a function of its own, at the unit: [`crate::bmc`] between the holder's clients and the node, which the helper opens.
//!
//! When the lease ends, nothing that waits here is begun any more. With the kernel's own node there is at most one request beyond that, as
//! its driver takes nothing back; `ipmi-mux` drops what waits when its file is closed.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::time::{Duration, Instant};

use ipmi::vm::{Decoder, Frame};
use ipmi::{CompletionCode, Request};
use kernel_abi::ipmi_devintf as abi;
use nix::errno::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::run::Happened;
use crate::bmc::{Action, ClientNo, Desk, RequestId};
use crate::helper::{Answer, Helper, Request as Wish};
use crate::link::Link;
use crate::record::Found;
use crate::streams::{MAX_STREAMS, pump};
use crate::wire::{Carried, ToHolder};

/// Requests with the kernel's driver at a time: it takes none back, and works on one at a time.
const DRIVER_WINDOW: usize = 1;
/// And with `ipmi-mux`: one that takes long does not stop the others.
const MUX_WINDOW: usize = 8;
/// What the kernel's driver is at when the lease ends is waited for, as long as a KCS interface gives a BMC.
const LAST: Duration = Duration::from_secs(5);
/// A driver that is going is through with its open files within this time, and looked at so often.
const GOING: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(10));
/// Messages of clients that wait for the desk.
const MAX_SAID: usize = 32;
/// Messages for a client that it does not read; it is left alone then.
const MAX_TOLD: usize = 256;

/// Which BMC is carried, for which lease.
pub struct Task {
    /// The lease.
    pub no: u64,
    /// The BMC.
    pub found: Found,
}

/// The open node.
struct Node {
    file: AsyncFd<OwnedFd>,
    /// None for a node of `ipmi-mux`.
    interface: Option<abi::Interface>,
}

/// `struct ipmi_system_interface_addr`, with its padding.
fn address(lun: u8) -> [u8; 8] {
    let mut address = [0; 8];
    address[..4].copy_from_slice(&abi::IPMI_SYSTEM_INTERFACE_ADDR_TYPE.to_ne_bytes());
    address[4..6].copy_from_slice(&abi::IPMI_BMC_CHANNEL.to_ne_bytes());
    address[6] = lun;
    address
}

impl Node {
    fn new(file: OwnedFd) -> io::Result<Self> {
        let interface = abi::Interface::of(&file);
        Ok(Self { file: kernel_abi::async_fd::watch_readable(file)?, interface })
    }

    fn window(&self) -> usize {
        if self.interface.is_some() { DRIVER_WINDOW } else { MUX_WINDOW }
    }

    /// Hands a request over; a completion code if it is not taken.
    fn send(&self, msgid: RequestId, request: &Request) -> Result<(), CompletionCode> {
        let addr = address(request.lun.get());
        let message = abi::Outgoing {
            addr: &addr,
            msgid,
            netfn: request.netfn.get(),
            cmd: request.cmd,
            data: &request.data,
            timing: abi::IpmiTimingParms { retries: -1, retry_time_ms: 0 },
        };
        abi::send(self.file.get_ref(), message).map_err(|errno| match errno {
            Errno::EAGAIN | Errno::EBUSY => CompletionCode::NODE_BUSY,
            Errno::EMSGSIZE => CompletionCode::DATA_LENGTH_INVALID,
            _ => CompletionCode::UNSPECIFIED,
        })
    }

    /// The next thing that it delivers. Nothing is lost when the future is dropped.
    async fn next(&self) -> io::Result<abi::Incoming> {
        loop {
            let mut ready = self.file.readable().await?;
            match abi::receive(self.file.get_ref()) {
                Ok(incoming) => return Ok(incoming),
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits until the node is at nothing more that cannot be taken back, and can be closed.
    async fn close(self, desk: &mut Desk) {
        let Some(interface) = &self.interface else { return };
        let last = async {
            while desk.with_node() > 0
                && let Ok(incoming) = self.next().await
            {
                let _ = deliver(desk, incoming);
            }
        };
        if timeout(LAST, last).await.is_err() {
            tracing::warn!("a BMC does not answer what it was asked last");
        }
        let going = async {
            while interface.is_going() {
                sleep(GOING.1).await;
            }
        };
        let _ = timeout(GOING.0, going).await;
    }
}

fn deliver(desk: &mut Desk, incoming: abi::Incoming) -> Vec<Action> {
    let abi::Incoming { recv_type, msgid, netfn, cmd, data, .. } = incoming;
    match recv_type {
        abi::IPMI_RESPONSE_RECV_TYPE => desk.answered(msgid, (netfn, cmd), &data),
        abi::IPMI_ASYNC_EVENT_RECV_TYPE => desk.event(data),
        _ => vec![],
    }
}

/// Opens a BMC and carries it over a holder's connection until that ends, the node does, or `stop`. Nothing of it is begun any more when
/// it returns.
pub async fn carry(
    task: Task,
    helper: Helper,
    link: Link,
    happened: mpsc::Sender<Happened>,
    stop: oneshot::Receiver<()>,
) {
    let no = task.no;
    let node = match open(task, &helper).await {
        Ok(node) => node,
        Err(why) => return drop(happened.send(Happened::Carries(no, Err(why))).await),
    };
    let mut desk = Desk::new(node.window());
    tokio::select! {
        // What came at the same time as the end came too late.
        biased;
        _ = stop => {}
        ended = serve(&mut desk, &node, link, no, &happened) => {
            tracing::debug!(?ended, lease = no, "a BMC's connection is over");
            let _ = happened.send(Happened::Lost(no)).await;
        }
    }
    desk.end();
    node.close(&mut desk).await;
}

async fn open(task: Task, helper: &Helper) -> Result<Node, String> {
    let Found { path: node, descriptors, .. } = task.found;
    let wish = Wish::OpenBmc { node: node.clone(), descriptors };
    let (answer, mut fds) = helper.ask_for(wish).await.map_err(|error| error.to_string())?;
    match (answer, fds.pop()) {
        (Answer::Done, Some(fd)) => Node::new(fd).map_err(|error| format!("{node}: {error}")),
        _ => Err("the helper answers something else".to_owned()),
    }
}

async fn serve(
    desk: &mut Desk,
    node: &Node,
    mut link: Link,
    no: u64,
    happened: &mpsc::Sender<Happened>,
) -> io::Result<()> {
    link.keep_alive()?;
    link.outbox.send(&ToHolder::Go(Carried::Ipmi)).await.map_err(io::Error::other)?;
    let _ = happened.send(Happened::Carries(no, Ok(Carried::Ipmi))).await;
    let (clients, coming) = mpsc::channel(MAX_STREAMS);
    let begin = |socket: OwnedFd| {
        let socket = StdStream::from(socket);
        socket.set_nonblocking(true)?;
        clients.try_send(UnixStream::from_std(socket)?).map_err(io::Error::other)
    };
    tokio::select! {
        ended = pump::serve(link, &begin) => ended,
        ended = attend(desk, node, coming) => ended,
    }
}

/// What clients tell: who, and what; nothing when it is gone.
type Said = (ClientNo, Option<Frame>);

/// Attends to clients until the node fails.
async fn attend(
    desk: &mut Desk,
    node: &Node,
    mut coming: mpsc::Receiver<UnixStream>,
) -> io::Result<()> {
    let (say, mut said) = mpsc::channel::<Said>(MAX_SAID);
    let mut told: BTreeMap<ClientNo, mpsc::Sender<Vec<u8>>> = BTreeMap::new();
    // They end with this.
    let mut tasks = JoinSet::new();
    let mut last = 0;
    loop {
        let due = desk.next();
        let overdue = async {
            match due {
                Some(due) => sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        let mut actions = tokio::select! {
            incoming = node.next() => deliver(desk, incoming?),
            Some(socket) = coming.recv() => {
                last += 1;
                let (tell, messages) = mpsc::channel(MAX_TOLD);
                told.insert(last, tell);
                tasks.spawn(client(last, socket, say.clone(), messages));
                desk.came(last)
            }
            Some((no, frame)) = said.recv() => match frame {
                Some(frame) => desk.said(Instant::now(), no, frame),
                None => {
                    told.remove(&no);
                    desk.left(no)
                }
            },
            Some(_) = tasks.join_next() => vec![],
            () = overdue => desk.tick(Instant::now()),
        };
        while !actions.is_empty() {
            let mut more = vec![];
            for action in actions {
                more.extend(carry_out(desk, node, &mut told, action));
            }
            actions = more;
        }
    }
}

fn carry_out(
    desk: &mut Desk,
    node: &Node,
    told: &mut BTreeMap<ClientNo, mpsc::Sender<Vec<u8>>>,
    action: Action,
) -> Vec<Action> {
    match action {
        Action::Send(id, request) => match node.send(id, &request) {
            Ok(()) => vec![],
            Err(ccode) => desk.refused(id, ccode),
        },
        Action::Tell(no, bytes) => {
            let full = told.get(&no).is_some_and(|client| client.try_send(bytes).is_err());
            if !full {
                return vec![];
            }
            tracing::debug!(client = no, "a client of a BMC does not read");
            told.remove(&no);
            desk.left(no)
        }
        Action::Events => {
            if let Err(error) = abi::set_gets_events(node.file.get_ref(), true) {
                tracing::debug!(%error, "a BMC's events are not to be had");
            }
            vec![]
        }
    }
}

/// Hands on what a client says, and tells it what it is told, until it ends or nobody tells it anything any more.
async fn client(
    no: ClientNo,
    mut socket: UnixStream,
    say: mpsc::Sender<Said>,
    mut messages: mpsc::Receiver<Vec<u8>>,
) {
    let (mut read, mut write) = socket.split();
    let hear = async {
        let (mut decoder, mut buffer) = (Decoder::new(), [0; 1024]);
        while let Ok(len @ 1..) = read.read(&mut buffer).await {
            let mut input = &buffer[..len];
            while let Some(frame) = decoder.next_frame(&mut input) {
                match frame {
                    Ok(frame) => drop(say.send((no, Some(frame))).await),
                    Err(error) => tracing::debug!(%error, "a frame for a BMC is left out"),
                }
            }
        }
    };
    let tell = async {
        while let Some(bytes) = messages.recv().await {
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = hear => {}
        () = tell => {}
    }
    let _ = say.send((no, None)).await;
}
