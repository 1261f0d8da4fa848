// SPDX-License-Identifier: MIT OR Apache-2.0
//! A manager's peers: what it tells each, in messages of the group, and what it reads in each one's list of devices.

use std::collections::BTreeMap;
use std::time::Duration;

use group::core::Notice;
use group::shell::{Group, Received};
use group::wire::Life;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use super::core::{Event, Listed};
use super::order::{Incoming, Numbered, Outgoing, Taken};
use super::run::{Happened, Shell};
use crate::record::{Device, DeviceId, Machine};
use crate::wire::{Bounded, Peer};

/// Messages that wait to be given to the group, for one peer: all devices of a group, as hits of finders.
const MAX_TO_PEER: usize = 65_536;
/// After a message that was not sent, a peer is told all again.
const AGAIN: Duration = Duration::from_millis(300);
/// A peer that is told nothing new is told so, and sees whether it missed something.
const MARK: Duration = Duration::from_secs(1);
/// Whatever is missing, a peer is not asked for all more often.
const ASK: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct PeerConn {
    out: Option<mpsc::Sender<Peer>>,
    sending: Option<AbortHandle>,
    incoming: Incoming,
    asked: Option<Instant>,
}

impl Drop for PeerConn {
    fn drop(&mut self) {
        if let Some(sending) = &self.sending {
            sending.abort();
        }
    }
}

/// A peer's list, as far as it was looked at.
#[derive(Default)]
pub(super) struct PeerList {
    at: Option<Version>,
    /// By device, the version of its record.
    devices: BTreeMap<DeviceId, u64>,
}

/// Of a peer's list: of which of its lives, and in that.
type Version = (Life, u64);

/// What a look at a peer's list found.
#[derive(Debug)]
pub(super) struct Looked {
    at: Version,
    /// Records that are newer than this were looked at; all if it is 0.
    since: u64,
    /// Each with its version.
    records: Vec<(DeviceId, u64, Vec<u8>)>,
    /// How many devices there are in all.
    count: usize,
}

impl Shell {
    pub(super) fn received(&mut self, received: Received) {
        let peer = Machine(received.from);
        let numbered = match Numbered::decode(&received.bytes) {
            Ok(numbered) => numbered,
            Err(error) => return tracing::warn!(%peer, %error, "not understood"),
        };
        // It is here for itself already: it tells all again when it is here for us, or is asked.
        let Some(conn) = self.peers.get_mut(&peer) else { return };
        match conn.incoming.take(numbered) {
            Taken::Message(message) => self.tell(Event::Peer(peer, *message)),
            Taken::Nothing => {}
            Taken::Again => self.begin(peer),
            Taken::Gap => {
                if conn.asked.is_none_or(|asked| asked.elapsed() > ASK) {
                    conn.asked = Some(Instant::now());
                    tracing::debug!(%peer, "something is missing");
                    self.ask_again(peer);
                }
            }
        }
    }

    fn ask_again(&self, peer: Machine) {
        let group = self.group.clone();
        tokio::spawn(async move { group.send(&peer.0, Numbered::Again.encode()).await });
    }

    /// Tells a peer something, after what it was told before.
    pub(super) fn tell_peer(&mut self, peer: Machine, message: Peer) {
        let Some(conn) = self.peers.get_mut(&peer) else { return };
        if conn.out.as_ref().is_none_or(|out| out.try_send(message).is_ok()) {
            return;
        }
        tracing::warn!(%peer, "it does not keep up, and is told all again");
        conn.out = None;
        if let Some(sending) = conn.sending.take() {
            sending.abort();
        }
        let happened = self.happened.clone();
        tokio::spawn(async move {
            sleep(AGAIN).await;
            let _ = happened.send(Happened::Unsent(peer)).await;
        });
    }

    /// Tells a peer all from the beginning.
    pub(super) fn begin(&mut self, peer: Machine) {
        let (out, messages) = mpsc::channel(MAX_TO_PEER);
        let sending = send_all(self.group.clone(), peer.clone(), messages, self.happened.clone());
        let conn = self.peers.entry(peer.clone()).or_default();
        // What it was to be told before is told anew, and must not come in between.
        if let Some(old) = conn.sending.replace(tokio::spawn(sending).abort_handle()) {
            old.abort();
        }
        conn.out = Some(out);
        self.tell(Event::PeerHere(peer));
    }

    pub(super) fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::Here(name) => {
                let peer = Machine(name.clone());
                self.lists.remove(&peer);
                self.begin(peer.clone());
                // For it this machine may have been here all the time.
                self.ask_again(peer.clone());
                self.look_at(&peer, None);
            }
            Notice::Away(name, _) => {
                let peer = Machine(name);
                self.peers.remove(&peer);
                self.lists.remove(&peer);
                self.tell(Event::PeerAway(peer));
            }
            Notice::Records(name) => {
                let peer = Machine(name);
                self.look_at(&peer, self.lists.get(&peer).and_then(|list| list.at));
            }
            Notice::Manager(_) => {}
        }
    }

    pub(super) async fn look_at_all(&mut self) {
        let Ok(status) = self.group.status().await else { return };
        for member in status.members {
            let peer = Machine(member.name.clone());
            match (member.away.is_none(), self.peers.contains_key(&peer)) {
                (true, false) => self.noticed(Notice::Here(member.name)),
                (true, true) => self.noticed(Notice::Records(member.name)),
                (false, true) => {
                    self.peers.remove(&peer);
                    self.lists.remove(&peer);
                    self.tell(Event::PeerAway(peer));
                }
                (false, false) => {}
            }
        }
    }

    fn look_at(&self, peer: &Machine, since: Option<Version>) {
        tokio::spawn(look_at(self.group.clone(), peer.0.clone(), since, self.happened.clone()));
    }

    /// Finds what is different in a peer's list.
    pub(super) fn listed(&mut self, peer: Machine, looked: Looked) {
        if !self.peers.contains_key(&peer) {
            return;
        }
        let list = self.lists.entry(peer.clone()).or_default();
        let same_life = list.at.is_some_and(|(life, _)| life == looked.at.0);
        if !same_life && looked.since > 0 {
            // What that was to follow on is forgotten.
            return self.look_at(&peer, None);
        }
        if same_life && list.at.is_some_and(|at| at.1 > looked.at.1) {
            return;
        }
        let mut changes = vec![];
        let mut now = BTreeMap::new();
        for (id, version, bytes) in looked.records {
            if !same_life || list.devices.get(&id) != Some(&version) {
                match Device::decode(&bytes) {
                    Ok(device) if device.id == id => changes.push(Listed::Set(Box::new(device))),
                    _ => {
                        tracing::warn!(%peer, device = %id, "its record makes no sense");
                        continue;
                    }
                }
            }
            now.insert(id, version);
        }
        list.at = Some(looked.at);
        let is_something_gone = if looked.since == 0 {
            let gone = list.devices.keys().filter(|id| !now.contains_key(id));
            changes.extend(gone.map(|id| Listed::Gone(*id)));
            list.devices = now;
            false
        } else {
            list.devices.extend(now);
            list.devices.len() != looked.count
        };
        if is_something_gone {
            self.look_at(&peer, None);
        }
        self.tell(Event::List(peer, changes));
    }
}

async fn send_all(
    group: Group,
    peer: Machine,
    mut messages: mpsc::Receiver<Peer>,
    to: mpsc::Sender<Happened>,
) {
    let mut outgoing = Outgoing::default();
    loop {
        let numbered = match timeout(MARK, messages.recv()).await {
            Ok(Some(message)) => Some(outgoing.number(message)),
            Ok(None) => return,
            Err(_) => outgoing.mark(),
        };
        let Some(numbered) = numbered else { continue };
        if let Err(error) = group.send(&peer.0, numbered.encode()).await {
            tracing::debug!(%peer, %error, "not sent");
            sleep(AGAIN).await;
            // Unless somebody else took its place meanwhile.
            if !messages.is_closed() {
                let _ = to.send(Happened::Unsent(peer)).await;
            }
            return;
        }
    }
}

/// Looks at what is newer in a peer's list, or at all of it.
async fn look_at(
    group: Group,
    name: secure_link::Name,
    since: Option<Version>,
    to: mpsc::Sender<Happened>,
) {
    let peer = Machine(name.clone());
    let looked = group.look(move |core, _| {
        let records = core.records(&name).filter(|records| records.current)?;
        let life = core.life_of(&name)?;
        let since = since.filter(|(of, _)| *of == life).map_or(0, |(_, version)| version);
        // The group has records of its own among them.
        let id = |record: &group::wire::Record| record.key.as_str().parse::<DeviceId>().ok();
        let device = |record: &group::wire::Record| {
            Some((id(record)?, record.version, record.value.to_vec()))
        };
        let newer = records.iter().filter(|record| record.version > since);
        Some(Looked {
            at: (life, records.version().0),
            since,
            records: newer.filter_map(device).collect(),
            count: records.iter().filter_map(id).count(),
        })
    });
    if let Ok(Some(looked)) = looked.await {
        let _ = to.send(Happened::List(peer, looked)).await;
    }
}
