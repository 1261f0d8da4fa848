// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tells the core what happened, and carries out what it answers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Instant;

use kernel_abi::cuse::{self, FUSE_POLL_SCHEDULE_NOTIFY, IoctlIn, Operation};
use nix::errno::Errno;
use tokio::sync::mpsc;
use zerocopy::IntoBytes;

use crate::audit::Audit;
use crate::back::{Back, BackEvent};
use crate::config::Config;
use crate::devintf::{Call, Delivery, Step, decode};
use crate::extension::Sequence;
use crate::front::{Node, NodeEvent};
use crate::mux::{Action, AttachToken, HandleId, Mux, Owner, Range};
use crate::reserve::{self, Reservations};
use crate::watch::publish::Publisher;

/// `POLLIN | POLLRDNORM`, what the driver's poll gives.
const READABLE: u32 = 0x001 | 0x040;

pub(super) struct Shell {
    pub mux: Mux,
    pub back: Back,
    /// By [`Owner::node`]: the configured ones first, then those of reservations.
    pub nodes: BTreeMap<usize, Node>,
    /// Node and kernel handle of whoever polls a handle.
    pub pollers: HashMap<HandleId, (usize, u64)>,
    pub reservations: Reservations,
    pub node_events: mpsc::Sender<NodeEvent>,
    pub reachable: bool,
    pub audit: Audit,
    pub publisher: Publisher,
}

impl Shell {
    /// Closes everything but the way to the BMC.
    pub(super) fn into_back(self) -> Back {
        self.back
    }

    /// Returns whether the BMC's device is gone.
    pub(super) fn on_back(&mut self, now: Instant, event: BackEvent, config: &Config) -> bool {
        let bmc = &config.bmc;
        match event {
            BackEvent::Reply(token, reply) => self.mux.handle_reply(now, token, reply),
            BackEvent::Event(event) => self.mux.handle_event(&event),
            BackEvent::Command(seq, command) => {
                if !self.mux.handle_command(seq, &command) {
                    tracing::debug!(netfn = command.netfn, cmd = command.cmd, "unclaimed command");
                }
            }
            BackEvent::Reachable(reachable) => {
                self.reachable = reachable;
                if reachable {
                    tracing::info!(%bmc, "connected");
                } else {
                    tracing::warn!(%bmc, "connection lost; trying again");
                }
            }
            BackEvent::Gone(reason) => {
                tracing::warn!(%bmc, reason, "the BMC's device is gone");
                return true;
            }
        }
        false
    }

    pub(super) fn on_reservation(
        &mut self,
        now: Instant,
        event: reserve::Event,
        runtime_dir: &Path,
    ) {
        match event {
            reserve::Event::Made(index, made) => {
                match self.reservations.made(index, made, &self.node_events) {
                    Some(node) => drop(self.nodes.insert(index, node)),
                    None => self.end_reservation(now, index, runtime_dir),
                }
            }
            reserve::Event::Ended(index) => self.end_reservation(now, index, runtime_dir),
        }
    }

    /// Before the node goes, so that whoever sees it gone finds the commands free.
    fn end_reservation(&mut self, now: Instant, index: usize, runtime_dir: &Path) {
        self.reservations.end(now, index, &mut self.mux, runtime_dir);
        self.pollers.retain(|_, (node, _)| *node != index);
        self.nodes.remove(&index);
    }

    pub(super) fn on_node(&mut self, now: Instant, event: NodeEvent, runtime_dir: &Path) {
        let (index, bytes) = match event {
            NodeEvent::Request(index, bytes) => (index, bytes),
            NodeEvent::Gone(index, errno) => {
                let node = self.nodes.get(&index).map(|node| node.spec.name.as_str());
                tracing::error!(node, %errno, "the node was taken from us; restart to have it back");
                if self.reservations.has(index) {
                    self.end_reservation(now, index, runtime_dir);
                }
                return;
            }
        };
        // What a node asked before it went needs no answer.
        if !self.nodes.contains_key(&index) {
            return;
        }
        let request = match cuse::decode(&bytes) {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(%error, "the kernel sends what we do not understand");
                return;
            }
        };
        let unique = request.header.unique;
        let reply = match request.operation {
            Operation::Open(_) => {
                let header = request.header;
                let owner =
                    Owner { node: index, uid: header.uid, gid: header.gid, pid: header.pid };
                match self.mux.open(now, owner) {
                    Ok(HandleId(fh)) => cuse::reply_open(unique, fh),
                    Err(errno) => cuse::reply_error(unique, errno),
                }
            }
            Operation::Release(release) => {
                self.pollers.remove(&HandleId(release.fh));
                self.mux.close(now, HandleId(release.fh));
                self.audit.forget(HandleId(release.fh));
                self.publish();
                self.publisher.forget(HandleId(release.fh));
                cuse::reply_empty(unique)
            }
            Operation::Poll(poll) => {
                let id = HandleId(poll.fh);
                if poll.flags & FUSE_POLL_SCHEDULE_NOTIFY != 0 {
                    self.pollers.insert(id, (index, poll.kh));
                }
                cuse::reply_poll(unique, if self.mux.is_readable(id) { READABLE } else { 0 })
            }
            Operation::Ioctl(ioctl, data) => self.on_ioctl(now, unique, &ioctl, data),
            // Nothing waits in an ioctl: by now the interrupted call has its answer.
            Operation::Interrupt => return,
            // The driver has no read or write either.
            Operation::Other | Operation::Init(_) => cuse::reply_error(unique, Errno::EINVAL),
        };
        // Before the actions: an answer must not wake a poller who is not told of its poll yet.
        self.nodes[&index].reply(&reply);
    }

    fn on_ioctl(&mut self, now: Instant, unique: u64, ioctl: &IoctlIn, data: &[u8]) -> cuse::Reply {
        let result = match decode(ioctl, data) {
            Step::Fetch { input, output } => {
                return cuse::reply_ioctl_retry(unique, &input, &output);
            }
            Step::Fail(errno) => Err(errno),
            Step::Call(Call::Receive(receive)) => {
                match self.mux.receive(HandleId(ioctl.fh), &receive) {
                    Ok(Delivery::Fetch { input, output }) => {
                        return cuse::reply_ioctl_retry(unique, &input, &output);
                    }
                    Ok(Delivery::Deliver(result, bytes)) => {
                        return cuse::reply_ioctl(unique, result, &bytes);
                    }
                    Ok(Delivery::Fail(errno)) | Err(errno) => Err(errno),
                }
            }
            Step::Call(call) => self.on_call(now, HandleId(ioctl.fh), call),
        };
        match result {
            Ok(bytes) => cuse::reply_ioctl(unique, Ok(0), &bytes),
            Err(errno) => cuse::reply_ioctl(unique, Err(errno), &[]),
        }
    }

    /// Carries out a call; the bytes go back to the caller.
    fn on_call(&mut self, now: Instant, id: HandleId, call: Call) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![];
        match call {
            Call::Send(send) => self.mux.send(now, id, send)?,
            Call::SetGetsEvents(on) => self.mux.set_gets_events(id, on)?,
            Call::Register(spec) => {
                self.mux.register(id, spec)?;
                self.back.register(spec).inspect_err(|_| {
                    // The driver never had it, so the action that tells it is dropped there.
                    let _ = self.mux.unregister(id, spec);
                })?;
            }
            Call::Unregister(spec) => self.mux.unregister(id, spec)?,
            Call::SetMyAddress(channel, address) => self.mux.source(id, channel)?.0 = address,
            Call::GetMyAddress(channel, shape) => {
                bytes = shape.encode(channel, self.mux.source(id, channel)?.0);
            }
            Call::SetMyLun(channel, lun) => self.mux.source(id, channel)?.1 = lun & 3,
            Call::GetMyLun(channel, shape) => {
                bytes = shape.encode(channel, self.mux.source(id, channel)?.1);
            }
            Call::SetTiming(timing) => *self.mux.timing(id)? = timing,
            Call::GetTiming => bytes = self.mux.timing(id)?.as_bytes().to_vec(),
            Call::SetMaintenanceMode(mode) => self.mux.set_maintenance_mode(id, mode)?,
            Call::GetMaintenanceMode => {
                bytes = self.back.maintenance_mode()?.to_ne_bytes().to_vec();
            }
            Call::ReserveCommand(netfn, cmd) => self.mux.reserve_command(id, netfn, cmd)?,
            Call::ReleaseCommand(netfn, cmd) => self.mux.release_command(id, netfn, cmd)?,
            Call::ReserveSequence(count) => {
                let range = self.mux.reserve_sequence(id, count, random_token()?)?;
                bytes = sequence(&range).as_bytes().to_vec();
            }
            Call::ReleaseSequence(first) => self.mux.release_sequence(id, first.into())?,
            Call::Attach(token) => {
                bytes = sequence(&self.mux.attach(now, id, &token)?).as_bytes().to_vec();
            }
            Call::Receive(_) => unreachable!("receive is answered by on_ioctl"),
        }
        Ok(bytes)
    }

    pub(super) fn carry_out(&mut self, now: Instant) {
        while let Some(action) = self.mux.next_action() {
            let done = match action {
                Action::Send(out) => {
                    if let Err(errno) = self.back.send(&out) {
                        self.mux.handle_refusal(now, out.token, errno);
                    }
                    Ok(())
                }
                Action::Wake(id) => {
                    let poller = self.pollers.remove(&id);
                    if let Some((node, kh)) =
                        poller.and_then(|(at, kh)| Some((self.nodes.get(&at)?, kh)))
                    {
                        node.reply(&cuse::notify_poll(kh));
                    }
                    Ok(())
                }
                Action::Forget(token) => {
                    self.back.forget(token);
                    Ok(())
                }
                Action::SetGetsEvents(on) => self.back.set_gets_events(on),
                // ENOENT: a registration that the driver had refused.
                Action::Unregister(spec) => match self.back.unregister(spec) {
                    Err(Errno::ENOENT) => Ok(()),
                    done => done,
                },
                Action::SetMaintenanceMode(mode) => self.back.set_maintenance_mode(mode),
                Action::Audit(audited) => {
                    let node = self.node_path(audited.owner.node);
                    self.audit.log(now, &audited, &node);
                    Ok(())
                }
                Action::Denied(id, owner, denied) => {
                    let node = self.node_path(owner.node);
                    self.audit.denied(id, owner, &node, denied);
                    Ok(())
                }
                Action::Breaker { open } => {
                    log_breaker(open);
                    Ok(())
                }
            };
            if let Err(errno) = done {
                tracing::warn!(%errno, "the driver refuses a setting");
            }
        }
    }
}

fn log_breaker(open: bool) {
    if open {
        tracing::warn!("the BMC does not answer: commands are refused until it does");
    } else {
        tracing::info!("the BMC answers again");
    }
}

fn random_token() -> Result<AttachToken, Errno> {
    let mut token = AttachToken::default();
    let mut source = std::fs::File::open("/dev/urandom").map_err(|_| Errno::EIO)?;
    std::io::Read::read_exact(&mut source, &mut token).map_err(|_| Errno::EIO)?;
    Ok(token)
}

fn sequence(range: &Range) -> Sequence {
    let first = i32::try_from(range.first).expect("reserved numbers fit a 32-bit long");
    Sequence { count: range.count, first, token: range.token }
}
