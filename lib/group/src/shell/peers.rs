// SPDX-License-Identifier: MIT OR Apache-2.0
//! The task with the core: its links, sessions and datagrams.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secure_link::{DatagramId, Name, Session};
use tokio::net::TcpStream;
use tracing::{debug, info, warn};

use super::identity::{Written, ask, asks, is_at};
use super::link::{self, Link};
use super::run::{Member, Peer, Unanswered};
use super::{Happened, SendError};
use crate::core::{Event, LinkId, Over};
use crate::wire::{Beat, MAX_PROGRAM, Message};

/// Complaints about one member are this far apart.
const COMPLAIN: Duration = Duration::from_secs(60);

/// Somebody whose key is not on disk yet: its connection, and whether this end made it.
pub(super) type Newcomer = (TcpStream, Session, bool);

impl Member {
    pub(super) fn forget_session(&mut self, name: &Name) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        if let Some((_, opener)) = peer.datagrams.take() {
            self.sessions.remove(&opener.id());
        }
    }

    pub(super) fn paths(&self, peer: &Peer) -> Vec<link::Path> {
        let own = self.peers.get(&self.identity.local.name);
        let from = |at: usize| own.and_then(|own| own.addresses.get(at).copied().flatten());
        let to = peer.addresses.iter().enumerate();
        to.filter_map(|(at, ip)| Some((from(at), SocketAddr::new((*ip)?, self.options.port))))
            .collect()
    }

    pub(super) fn connect(&mut self, name: Name) {
        let Some(peer) = self.peers.get(&name) else { return };
        let (paths, expect) = (self.paths(peer), self.identity.node(&name));
        let (local, roster) = (Arc::clone(&self.identity.local), Arc::clone(&self.identity.roster));
        if let Some(peer) = self.peers.get_mut(&name) {
            peer.connecting = true;
        }
        let to = self.outlets.happened.clone();
        tokio::spawn(async move {
            let connected = link::connect(paths, local, expect, roster).await;
            let _ = to.send(Happened::Connected(name, connected.map(Box::new))).await;
        });
    }

    pub(super) fn knock(&mut self, name: Name) {
        let Some(peer) = self.peers.get(&name) else { return };
        let (paths, to) = (self.paths(peer), self.outlets.happened.clone());
        tokio::spawn(async move {
            let refused = matches!(link::reach(&paths).await, Err(link::NoLink::Refused));
            let _ = to.send(Happened::Knocked(name, refused)).await;
        });
    }

    pub(super) fn ask(&self, name: &Name) {
        let Some(peer) = self.peers.get(name) else { return };
        let datagram = ask(&self.identity.local.name);
        for (network, address) in peer.addresses.iter().enumerate() {
            if let Some(address) = address {
                self.sockets.send(network, *address, &datagram);
            }
        }
    }

    pub(super) fn send(&mut self, name: &Name, id: LinkId, message: &Message) {
        let link = self.peers.get(name).and_then(|peer| peer.link.as_ref());
        let Some(link) = link.filter(|link| link.id == id) else { return };
        if let Err(error) = link.send(message) {
            // What the core says is not left out: the two begin anew.
            warn!(member = %name, %error, "the link is ended");
            self.over(name.clone(), id);
        }
    }

    pub(super) fn beat(&mut self, name: &Name, over: Over, beat: &Beat) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let Some((sealer, _)) = &mut peer.datagrams else { return };
        let bytes = beat.encode();
        for (network, address) in peer.addresses.iter().enumerate() {
            if let Some(address) = address
                && [Over::All, Over::One(network)].contains(&over)
            {
                self.sockets.send(network, *address, &sealer.seal(&bytes));
            }
        }
    }

    pub(super) fn close(&mut self, name: &Name, id: LinkId) {
        if let Some(peer) = self.peers.get_mut(name)
            && peer.link.as_ref().is_some_and(|link| link.id == id)
        {
            (peer.link, peer.admitted, peer.dialled) = (None, None, None);
            self.forget_session(name);
            self.fail_calls(id);
        }
    }

    pub(super) fn fail_calls(&mut self, id: LinkId) {
        let calls = std::mem::take(&mut self.calls).into_iter();
        let (failed, left): (BTreeMap<_, _>, _) = calls.partition(|(_, call)| call.link == id);
        self.calls = left;
        for Unanswered { to, answer, .. } in failed.into_values() {
            let _ = answer.send(Err(SendError::Away(to.to_string())));
        }
    }

    pub(super) fn over(&mut self, name: Name, id: LinkId) {
        self.close(&name, id);
        self.tell(Event::LinkEnded(name, id));
    }

    pub(super) fn connected(
        &mut self,
        name: Name,
        connected: Result<Box<(TcpStream, Session)>, link::NoLink>,
    ) {
        let Some(peer) = self.peers.get_mut(&name) else { return };
        peer.connecting = false;
        match connected {
            Ok(session) if session.1.peer.hello.name == name => self.linked(*session, true),
            Ok(session) => {
                let found = &session.1.peer.hello.name;
                warn!(member = %name, %found, "another member is at its address; check the group's list");
                self.tell(Event::NotLinked { peer: name, refused: false });
            }
            Err(error) => {
                let refused = matches!(error, link::NoLink::Refused);
                let quiet = refused || matches!(error, link::NoLink::Silent);
                let again = peer.complained.is_none_or(|at| at.elapsed() >= COMPLAIN);
                if !quiet && again {
                    peer.complained = Some(Instant::now());
                    let error = &error as &dyn std::error::Error;
                    warn!(member = %name, error, "no link; trying on");
                }
                self.tell(Event::NotLinked { peer: name, refused });
            }
        }
    }

    pub(super) fn came(&mut self, stream: TcpStream, from: SocketAddr) {
        let ip = from.ip().to_canonical();
        let known = self.peers.values().any(|peer| is_at(from, &peer.addresses));
        let Some(place) = self.gate.enter(Instant::now(), ip, known) else {
            debug!(%from, "too many connections that say nothing: one more was closed");
            return;
        };
        let (local, roster) = (Arc::clone(&self.identity.local), Arc::clone(&self.identity.roster));
        let to = self.outlets.happened.clone();
        tokio::spawn(async move {
            let accepted = link::accept(stream, local, roster).await;
            if let Err(error) = &accepted {
                debug!(%from, error = error as &dyn std::error::Error, "a connection came to nothing");
            }
            let accepted = accepted.ok().map(Box::new);
            let _ = to.send(Happened::Accepted(place, accepted)).await;
        });
    }

    /// A connection has ended in a session; somebody new waits until it is on disk.
    pub(super) fn linked(&mut self, (stream, session): (TcpStream, Session), dialled: bool) {
        let name = &session.peer.hello.name;
        if !session.peer.is_new || !self.peers.contains_key(name) {
            self.join((stream, session), dialled);
        } else if let Err(error) = self.identity.judge(&session.peer) {
            warn!(member = %name, %error, "a new member was turned away");
        } else {
            self.newcomers.retain(|other| other.1.peer.hello.name != *name);
            self.newcomers.push((stream, session, dialled));
            self.pin();
        }
    }

    /// Writes those to disk who wait for it, all at once.
    fn pin(&mut self) {
        if self.pinning || self.newcomers.is_empty() {
            return;
        }
        self.pinning = true;
        let newcomers = std::mem::take(&mut self.newcomers);
        let peers = newcomers.iter().map(|(_, session, _)| session.peer.clone()).collect();
        let (write, to) = (self.identity.to_disk(peers), self.outlets.happened.clone());
        tokio::spawn(async move {
            let written = tokio::task::spawn_blocking(write).await.unwrap_or_else(|_| Ok(vec![]));
            let _ = to.send(Happened::Pinned(newcomers, written)).await;
        });
    }

    pub(super) fn pinned(&mut self, newcomers: Vec<Newcomer>, written: Written) {
        self.pinning = false;
        let written = written.unwrap_or_else(|error| {
            let error = &error as &dyn std::error::Error;
            warn!(error, "new members were turned away");
            vec![]
        });
        for ((stream, session, dialled), word) in newcomers.into_iter().zip(written) {
            let (name, node) = (&session.peer.hello.name, session.peer.id());
            match word.and_then(|()| self.identity.pin(&session.peer)) {
                Ok(()) => {
                    info!(member = %name, %node, "a new member, let in by the group key, is pinned");
                    self.join((stream, session), dialled);
                }
                Err(error) => warn!(member = %name, %error, "a new member was turned away"),
            }
        }
        self.pin();
    }

    fn join(&mut self, (stream, session): (TcpStream, Session), dialled: bool) {
        let (node, admitted_by) = (session.peer.id(), session.peer.admitted_by);
        let name = session.peer.hello.name.clone();
        let id = self.next_link;
        self.next_link += 1;
        // It may have been shut out, or taken off the list, since it was let in.
        if !self.identity.stands(node, admitted_by) || !self.peers.contains_key(&name) {
            info!(member = %name, "a member that is not in the list, or is shut out, was turned away");
            return;
        }
        self.forget_session(&name);
        let Some(peer) = self.peers.get_mut(&name) else { return };
        if let Some(old) = peer.link.take() {
            self.fail_calls(old.id);
        }
        let Some(peer) = self.peers.get_mut(&name) else { return };
        let halves = (session.opener, session.sealer);
        peer.link = Some(Link::new((&name, node), id, stream, halves, &self.outlets));
        peer.admitted = Some((node, admitted_by));
        peer.dialled = dialled.then(Instant::now);
        self.sessions.insert(session.datagram_opener.id(), name.clone());
        peer.datagrams = Some((session.datagram_sealer, session.datagram_opener));
        self.tell(Event::Linked(name, id));
    }

    pub(super) fn datagram(&mut self, network: usize, from: SocketAddr, mut bytes: Vec<u8>) {
        if let Some(name) = asks(&bytes) {
            let there = self.peers.get(&name).is_some_and(|peer| is_at(from, &peer.addresses));
            if there {
                self.tell(Event::Asked(name));
            }
            return;
        }
        let session = DatagramId::of(&bytes).and_then(|id| self.sessions.get(&id)).cloned();
        let Some(name) = session else { return };
        let Some(peer) = self.peers.get_mut(&name) else { return };
        let Some((_, opener)) = &mut peer.datagrams else { return };
        let beat = opener.open(&mut bytes).ok().and_then(|content| Beat::decode(content).ok());
        if let Some(beat) = beat {
            self.tell(Event::Beat(name, network, beat));
        }
    }

    pub(super) fn to_program(
        &self,
        name: &Name,
        message: impl FnOnce() -> Message,
    ) -> Result<LinkId, SendError> {
        let link = self.peers.get(name).and_then(|peer| peer.link.as_ref());
        let link = link.ok_or_else(|| SendError::Away(name.to_string()))?;
        let message = message();
        if let Message::Program(bytes) | Message::Call(_, _, bytes) = &message
            && bytes.len() > MAX_PROGRAM
        {
            return Err(SendError::Long);
        }
        link.send(&message)?;
        Ok(link.id)
    }

    /// Ends the links of those who would not be let in any more.
    pub(super) fn shut_out(&mut self) {
        let mut out = vec![];
        for (name, peer) in &self.peers {
            if let Some((node, key)) = peer.admitted
                && !self.identity.stands(node, key)
            {
                out.push(name.clone());
            }
        }
        for name in out {
            info!(member = %name, "shut out, or let in by a key that is accepted no more");
            self.forget_session(&name);
            self.tell(Event::Revoked(name));
        }
    }
}
