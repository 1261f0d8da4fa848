// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links: who connects, when, and what the end of a link means.
//!
//! Of two members the one with the lower address connects; the other asks it to. So there is one link between
//! two, whichever came first.

use secure_link::Name;

use super::peer::{Link, LinkId, Peer, Rank, Why};
use super::timing::{CONNECT, PROBE};
use super::{Action, Core, Listed, Replication};
use crate::wire::{Message, Micros, Welcome};

impl Core {
    pub(super) fn list(&mut self, now: Micros, list: Vec<Listed>) {
        let listed = |name: &Name| list.iter().any(|listed| listed.name == *name);
        let gone: Vec<Name> = self.peers.keys().filter(|name| !listed(name)).cloned().collect();
        for name in gone {
            self.remove(now, &name, Why::Left);
            self.peers.remove(&name);
        }
        self.rank = None;
        for Listed { name, address } in list {
            let rank = Rank(address, name.clone());
            if name == self.options.own {
                self.rank = Some(rank);
            } else if let Some(peer) = self.peers.get_mut(&name) {
                peer.rank = rank;
            } else {
                self.peers.insert(name.clone(), Peer::new(name, rank, now));
            }
        }
    }

    /// Does what is due with each peer: attempts at links, probes, and removal of the silent.
    pub(super) fn look_at_peers(&mut self, now: Micros) {
        let (mut suspects, mut silent) = (vec![], vec![]);
        for (name, peer) in &mut self.peers {
            match peer.link {
                _ if self.left => {}
                Link::None { attempt_at } if now >= attempt_at => {
                    attempt(self.rank.as_ref(), peer, now, &mut self.out);
                }
                // The shell's own limits passed long ago.
                Link::Connecting { since } if now >= since + CONNECT => peer.back_off(now),
                _ if peer.given_up_at().is_some_and(|at| now >= at) => silent.push(name.clone()),
                _ => {}
            }
            let Some(here) = peer.here_mut() else { continue };
            if now >= here.dead_at() {
                silent.push(name.clone());
            } else if now >= here.suspect_at() && now >= here.probed + PROBE {
                here.probed = now;
                suspects.push(name.clone());
            }
        }
        for name in silent {
            self.remove(now, &name, Why::Silent);
        }
        for name in suspects {
            self.send_beat(now, &name, true);
        }
    }

    pub(super) fn linked(&mut self, now: Micros, name: &Name, id: LinkId) {
        let part = self.part_besides(now, name);
        let Some(peer) = self.peers.get_mut(name) else {
            self.out.push(Action::Close(name.clone(), id));
            return;
        };
        if let Link::Up { id: old, .. } = peer.link {
            self.out.push(Action::Close(name.clone(), old));
        }
        peer.link = Link::Up { id, since: now, welcomed: false };
        (peer.attempts, peer.pushing) = (0, false);
        let welcome = Welcome {
            life: self.life,
            yours: peer.life,
            have: peer.mirror.as_ref().and_then(super::records::Mirror::have),
            wants: self.options.replication == Replication::All,
            manager: self.manager.clone(),
            part,
        };
        self.out.push(Action::Send(name.clone(), id, Message::Welcome(welcome)));
    }

    pub(super) fn link_ended(&mut self, now: Micros, name: &Name, id: LinkId) {
        let Some(peer) = self.peers.get_mut(name).filter(|peer| peer.link_id() == Some(id)) else {
            return;
        };
        peer.pushing = false;
        if peer.here().is_none() {
            peer.back_off(now);
            return;
        }
        // It is asked at once what became of it. If its machine refuses, its program is gone; if not, its beats
        // decide.
        peer.link = Link::None { attempt_at: now };
        attempt(self.rank.as_ref(), peer, now, &mut self.out);
    }

    pub(super) fn not_linked(&mut self, now: Micros, name: &Name, refused: bool) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        if matches!(peer.link, Link::Connecting { .. }) {
            peer.back_off(now);
        }
        let linked = peer.link_id().is_some();
        if refused && !linked && peer.here().is_some() {
            self.remove(now, name, Why::Refused);
        }
    }

    pub(super) fn asked(&mut self, now: Micros, name: &Name) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        // Who asks is known only when it is connected to; until then it can bring this attempt forward,
        // and no more.
        if let Link::None { attempt_at } = peer.link {
            let soon = now + super::timing::RETRY / 2;
            let at = if peer.attempts <= 1 { now } else { soon };
            peer.link = Link::None { attempt_at: attempt_at.min(at) };
        }
    }

    pub(super) fn heard(&mut self, now: Micros, name: &Name, id: LinkId) {
        let Some(peer) = self.peers.get_mut(name).filter(|peer| peer.link_id() == Some(id)) else {
            return;
        };
        if let Some(here) = peer.here_mut() {
            here.heard = here.heard.max(now);
        }
    }
}

/// Connects, or asks to be connected to.
fn attempt(own: Option<&Rank>, peer: &mut Peer, now: Micros, out: &mut Vec<Action>) {
    let Some(own) = own else {
        // Who is not in its own list takes no part until it is.
        peer.back_off(now);
        return;
    };
    if *own < peer.rank {
        peer.link = Link::Connecting { since: now };
        out.push(Action::Connect(peer.name.clone()));
    } else {
        peer.back_off(now);
        out.push(Action::Ask(peer.name.clone()));
        if peer.here().is_some() {
            out.push(Action::Knock(peer.name.clone()));
        }
    }
}
