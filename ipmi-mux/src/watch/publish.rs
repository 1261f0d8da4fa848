// SPDX-License-Identifier: MIT OR Apache-2.0
//! The daemon's side: traces of the core become records, and records reach all watchers. A watcher that
//! does not keep up loses records and is told how many; nobody waits for it.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc};

use super::{Kind, Message, Origin, Record, Who, secrets};
use crate::addr::Kind as AddrKind;
use crate::mux::{self, HandleId, Msg, Mux, Trace, What};

/// Records kept for watchers that are behind, all together. A record is some 300 bytes and at most 1,600,
/// so this costs 1.6 MB at worst; it is a tenth of a second of the fastest traffic.
pub const BACKLOG: usize = 1024;
/// Chunks on their way to a watcher.
pub const CHUNKS: usize = 2;
/// A chunk is sent when it has that many bytes: many records for one write.
const CHUNK: usize = 16 * 1024;

/// The records of one watcher.
pub type Records = broadcast::Receiver<Bytes>;

/// Hands records to the watchers.
#[derive(Debug, Default)]
pub struct Publisher {
    watchers: Option<broadcast::Sender<Bytes>>,
    /// Handles seen since somebody watches.
    known: HashMap<HandleId, Who>,
}

impl Publisher {
    /// Without watchers.
    #[must_use]
    pub fn new() -> Self {
        Self { watchers: None, known: HashMap::new() }
    }

    /// A new watcher: it gets what passes from now on.
    pub fn subscribe(&mut self, mux: &mut Mux) -> Records {
        mux.set_watched(true);
        self.watchers.get_or_insert_with(|| broadcast::channel(BACKLOG).0).subscribe()
    }

    /// How many watch.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.watchers.as_ref().map_or(0, broadcast::Sender::receiver_count)
    }

    /// Hands out what has passed; to be called after every event, and before [`Publisher::forget`].
    /// `path` gives that of a node, by [`mux::Owner::node`].
    pub fn publish(&mut self, mux: &mut Mux, path: impl Fn(usize) -> String) {
        let Some(watchers) = &self.watchers else { return };
        if watchers.receiver_count() == 0 {
            self.watchers = None;
            self.known.clear();
            mux.set_watched(false);
            return;
        }
        while let Some(trace) = mux.next_trace() {
            let line = line(&record(now_us(), &path, &mut self.known, trace));
            // None left: the next call sees it.
            let _ = watchers.send(line.into());
        }
    }

    /// A handle is closed.
    pub fn forget(&mut self, id: HandleId) {
        self.known.remove(&id);
    }
}

/// Moves records to a watcher until it leaves or the daemon stops.
pub async fn forward(mut records: Records, chunks: mpsc::Sender<Bytes>) {
    loop {
        let next = tokio::select! {
            () = chunks.closed() => return,
            next = records.recv() => next,
        };
        let mut chunk = match next {
            Ok(line) => line.to_vec(),
            Err(RecvError::Lagged(missed)) => missed_line(missed),
            Err(RecvError::Closed) => return,
        };
        while chunk.len() < CHUNK {
            match records.try_recv() {
                Ok(line) => chunk.extend_from_slice(&line),
                Err(TryRecvError::Lagged(missed)) => chunk.extend(missed_line(missed)),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if chunks.send(chunk.into()).await.is_err() {
            return;
        }
    }
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn missed_line(missed: u64) -> Vec<u8> {
    line(&Record { missed: Some(missed), ..Record::new(now_us(), Kind::Missed) })
}

fn line(record: &Record) -> Vec<u8> {
    let mut line = serde_json::to_vec(record).expect("records are JSON");
    line.push(b'\n');
    line
}

fn record(
    time_us: u64,
    path: &impl Fn(usize) -> String,
    known: &mut HashMap<HandleId, Who>,
    trace: Trace,
) -> Record {
    let who = trace
        .handle
        .zip(trace.owner)
        .map(|(id, owner)| known.entry(id).or_insert_with(|| who(id, owner, path)).clone());
    let us = |took: std::time::Duration| u64::try_from(took.as_micros()).ok();
    let record = |kind, message| Record { who: who.clone(), message, ..Record::new(time_us, kind) };
    match trace.what {
        What::Request(sent) => record(Kind::Request, Some(message(sent, None))),
        What::Refused(sent, errno) => {
            let errno = Some(format!("{errno:?}"));
            Record { errno, ..record(Kind::Refused, Some(message(sent, None))) }
        }
        What::Answer { request, answer, origin, took } => {
            let origin = Some(match origin {
                mux::Origin::Bmc => Origin::Bmc,
                mux::Origin::Shared => Origin::Shared,
                mux::Origin::Cache => Origin::Cache,
                mux::Origin::Mux => Origin::Mux,
            });
            let message = message(request, Some(answer));
            Record { took_us: us(took), origin, ..record(Kind::Answer, Some(message)) }
        }
        What::Unanswered { request, sent, after } => {
            let message = message(request, None);
            Record {
                took_us: us(after),
                sent: Some(sent),
                ..record(Kind::Unanswered, Some(message))
            }
        }
        What::Event(mut event) => {
            let answer = std::mem::take(&mut event.data);
            let message = Message { request: None, ..message(event, Some(answer)) };
            record(Kind::Event, Some(message))
        }
        What::Command(command) => record(Kind::Command, Some(message(command, None))),
        What::Missed(missed) => Record { missed: Some(missed), ..record(Kind::Missed, None) },
    }
}

fn who(HandleId(handle): HandleId, owner: mux::Owner, path: impl Fn(usize) -> String) -> Who {
    let process = std::fs::read_to_string(format!("/proc/{}/comm", owner.pid));
    Who {
        handle,
        node: path(owner.node),
        uid: owner.uid,
        pid: owner.pid,
        process: process.ok().map(|name| name.trim_end().to_owned()),
    }
}

fn message(sent: Msg, mut answer: Option<Vec<u8>>) -> Message {
    let Msg { msgid, addr, netfn, cmd, data: mut request } = sent;
    let blanked =
        secrets::blank(netfn, cmd, &mut request, answer.as_deref_mut().unwrap_or_default());
    let bytes = addr.as_bytes();
    let target = match addr.kind() {
        AddrKind::SystemInterface => None,
        AddrKind::Ipmb | AddrKind::IpmbBroadcast | AddrKind::IpmbDirect => Some(bytes[6]),
        // struct ipmi_lan_addr: remote_SWID.
        AddrKind::Lan => Some(bytes[8]),
    };
    Message {
        msgid,
        channel: addr.channel(),
        target,
        lun: addr.lun(),
        netfn: netfn & 0x3f,
        cmd,
        request: Some(request),
        answer,
        blanked,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn path(node: usize) -> String {
        format!("/dev/ipmi/{}", node + 1)
    }
    use crate::addr::Addr;
    use crate::devintf::Send;
    use crate::mux::{Channels, Incoming, Limits, Owner};

    fn mux() -> (Mux, HandleId) {
        let second = std::time::Duration::from_secs(1);
        let limits = Limits {
            deadline: second,
            long_deadline: second,
            window: 2,
            abandoned_for: second,
            sensor_age: second,
            reserved_code: ipmi::CompletionCode::INSUFFICIENT_PRIVILEGE,
        };
        let mut mux = Mux::new(limits, Channels::default(), [(0x20, 2); 16]);
        let owner = Owner { node: 1, uid: 1, gid: 1, pid: std::process::id() };
        let id = mux.open(Instant::now(), owner).unwrap();
        (mux, id)
    }

    fn publisher() -> Publisher {
        Publisher::new()
    }

    fn event(mux: &mut Mux) {
        let addr = Addr::system_interface(0);
        mux.handle_event(&Incoming { addr, netfn: 7, cmd: 0x35, data: vec![2; 16] });
    }

    fn records(chunk: &[u8]) -> Vec<Record> {
        let text = std::str::from_utf8(chunk).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_password_does_not_leave_the_daemon() {
        let (mut mux, id) = mux();
        let mut publisher = publisher();
        let mut watcher = publisher.subscribe(&mut mux);
        let addr = Addr::system_interface(0);
        let data = [&[2, 2][..], b"sesame"].concat();
        let send = Send { addr, msgid: 9, netfn: 6, cmd: 0x47, data, timing: None };
        mux.send(Instant::now(), id, send).unwrap();
        publisher.publish(&mut mux, path);
        let record = &records(&watcher.try_recv().unwrap())[0];
        let who = record.who.as_ref().unwrap();
        assert_eq!((who.node.as_str(), who.pid), ("/dev/ipmi/2", std::process::id()));
        assert!(who.process.is_some());
        let message = record.message.as_ref().unwrap();
        assert_eq!(message.request.as_deref(), Some(&[2, 2, 0, 0, 0, 0, 0, 0][..]));
        assert!(message.blanked);
    }

    #[tokio::test]
    async fn a_watcher_that_stalls_is_told_what_it_missed_and_the_last_one_ends_the_traces() {
        let (mut mux, id) = mux();
        mux.set_gets_events(id, true).unwrap();
        let mut publisher = publisher();
        event(&mut mux);
        publisher.publish(&mut mux, path);
        let (chunks, mut received) = mpsc::channel(CHUNKS);
        let forwarder = tokio::spawn(forward(publisher.subscribe(&mut mux), chunks));
        for _ in 0..BACKLOG + 5 {
            event(&mut mux);
            publisher.publish(&mut mux, path);
        }
        let (mut seen, mut missed) = (0, 0);
        while seen + missed < BACKLOG as u64 + 5 {
            for record in records(&received.recv().await.unwrap()) {
                match record.kind {
                    Kind::Missed => missed += record.missed.unwrap(),
                    _ => seen += 1,
                }
            }
        }
        assert_eq!((seen, missed), (BACKLOG as u64, 5));
        drop(received);
        forwarder.await.unwrap();
        assert_eq!(publisher.watchers(), 0);
        publisher.publish(&mut mux, path);
        event(&mut mux);
        assert_eq!(mux.next_trace(), None);
    }

    #[tokio::test]
    async fn the_stream_ends_with_the_daemon() {
        let (mut mux, _) = mux();
        let mut publisher = publisher();
        let (chunks, mut received) = mpsc::channel(CHUNKS);
        let forwarder = tokio::spawn(forward(publisher.subscribe(&mut mux), chunks));
        drop(publisher);
        forwarder.await.unwrap();
        assert_eq!(received.recv().await, None);
    }
}
