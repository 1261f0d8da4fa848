// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records: how they get from their owner to everybody.
//!
//! A member pushes what is new over its links, one push at a time to each peer: who reads slowly gets fewer and
//! larger pushes, and holds up nobody. A new link goes on from what the peer has.

use secure_link::Name;

use super::peer::{Link, LinkId, Why};
use super::records::Mirror;
use super::{Action, Core, Notice};
use crate::wire::{Life, Message, Micros, Push, Welcome};

impl Core {
    pub(super) fn said(&mut self, now: Micros, name: &Name, id: LinkId, message: Message) {
        self.heard(now, name, id);
        let Some(peer) = self.peers.get_mut(name).filter(|peer| peer.link_id() == Some(id)) else {
            return;
        };
        let welcomed = peer.welcomed().is_some();
        match message {
            Message::Welcome(welcome) => self.welcome(now, name, &welcome),
            Message::Push(push) => self.follow(now, name, push),
            Message::Again if welcomed => {
                peer.sent = None;
                self.push(name);
            }
            Message::Leaving => self.remove(now, name, Why::Left),
            // Before it has welcomed, nothing is acted on; the rest is the shell's.
            _ => {}
        }
    }

    fn welcome(&mut self, now: Micros, name: &Name, welcome: &Welcome) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        if peer.life.is_some_and(|known| older(welcome.life, known)) {
            // It has been told what is known, raises its epoch and welcomes again.
            self.counters.stale += 1;
            return;
        }
        let again = peer.welcomed().is_some();
        if let Link::Up { welcomed, .. } = &mut peer.link {
            *welcomed = true;
        }
        if peer.life != Some(welcome.life) {
            peer.life = Some(welcome.life);
            peer.beats = Default::default();
            peer.offset = super::clock::Offset::default();
            let mirror = peer.mirror.take();
            peer.mirror = Some(match mirror {
                Some(mirror) => mirror.renewed(welcome.life),
                None => Mirror::new(welcome.life),
            });
        }
        peer.wants = welcome.wants;
        peer.sent = welcome.have.filter(|have| have.0 == self.life).map(|have| have.1);
        if peer.sent.is_some_and(|sent| sent < self.records.version()) {
            self.counters.repaired += 1;
        }
        if !again {
            self.give_way(now, name, welcome.manager.as_ref(), welcome.part);
        }
        if let Some(yours) = welcome.yours.filter(|yours| older(self.life, *yours)) {
            self.raise(yours.epoch);
        }
        self.push(name);
        // Its answer says whether it hears us.
        self.send_beat(now, name, true);
    }

    /// A later life of this member is known, which its disk does not remember: it begins another.
    fn raise(&mut self, known: u64) {
        let epoch = known.saturating_add(1);
        if self.raising.is_none_or(|raising| raising < epoch) {
            self.raising = Some(epoch);
            self.out.push(Action::Persist(epoch));
        }
    }

    pub(super) fn persisted(&mut self, epoch: u64) {
        if self.raising != Some(epoch) {
            return;
        }
        self.raising = None;
        self.life.epoch = epoch;
        for (name, peer) in &mut self.peers {
            let Link::Up { id, .. } = peer.link else { continue };
            peer.sent = None;
            let welcome = Welcome {
                life: self.life,
                yours: peer.life,
                have: peer.mirror.as_ref().and_then(Mirror::have),
                wants: self.options.replication == super::Replication::All,
                manager: None,
                part: 0,
            };
            self.out.push(Action::Send(name.clone(), id, Message::Welcome(welcome)));
        }
        self.push_all();
    }

    fn follow(&mut self, now: Micros, name: &Name, push: Push) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let Some((id, mirror)) = peer.welcomed().zip(peer.mirror.as_mut()) else { return };
        if push.life != mirror.life() {
            self.counters.stale += 1;
            return;
        }
        match mirror.follow(push) {
            Ok(()) => {
                peer.behind = None;
                self.out.push(Action::Tell(Notice::Records(name.clone())));
            }
            Err(super::records::Wrong::Gap) => {
                self.counters.repaired += 1;
                self.out.push(Action::Send(name.clone(), id, Message::Again));
            }
            Err(_) => self.remove(now, name, Why::Misbehaved),
        }
    }

    pub(super) fn push_all(&mut self) {
        for name in self.peers.keys().cloned().collect::<Vec<_>>() {
            self.push(&name);
        }
    }

    /// Sends a peer what it does not have, unless the last push is still on its way.
    pub(super) fn push(&mut self, name: &Name) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        let Some(id) = peer.welcomed().filter(|_| peer.wants && !peer.pushing) else { return };
        if self.raising.is_some() {
            return;
        }
        let Some(push) = self.records.push(self.life, peer.sent) else { return };
        (peer.sent, peer.pushing) = (Some(push.to), true);
        self.out.push(Action::Send(name.clone(), id, Message::Push(push)));
    }

    pub(super) fn pushed(&mut self, name: &Name, id: LinkId) {
        if let Some(peer) = self.peers.get_mut(name).filter(|peer| peer.link_id() == Some(id)) {
            peer.pushing = false;
            self.push(name);
        }
    }
}

/// Whether a life cannot be the member's newest when another is known: its epoch is lower, or was
/// used before.
fn older(life: Life, known: Life) -> bool {
    life.epoch < known.epoch || (life.epoch == known.epoch && life.nonce != known.nonce)
}

#[cfg(test)]
mod tests {
    use super::super::election::Standing;
    use super::super::timing::{ALONE, BEAT, HOLD_DOWN, SETTLED};
    use super::super::{Event, Listed, Options, Replication};
    use super::*;
    use crate::wire::{Beat, Echo, Flags};

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// A manager without any other of its group of five.
    fn alone() -> Core {
        let own = name("blade1");
        let life = Life { epoch: 1, nonce: 1 };
        let options = Options { own, life, replication: Replication::All, leads: true };
        let mut core = Core::new(options, 0, 0);
        let listed = |number: u8| Listed {
            name: name(&format!("blade{number}")),
            address: [10, 0, 0, number].into(),
        };
        let _ = core.handle(0, Event::List((1..=5).map(listed).collect()));
        let _ = core.handle(ALONE, Event::Tick);
        let _ = core.handle(2 * ALONE, Event::Tick);
        assert_eq!(core.manager, Some(name("blade1")), "it is alone");
        core
    }

    #[test]
    fn who_knows_no_list_yet_is_not_the_manager_of_nobody() {
        let life = Life { epoch: 1, nonce: 1 };
        let own = name("blade1");
        let options =
            Options { own: own.clone(), life, replication: Replication::All, leads: true };
        let mut core = Core::new(options, 0, 0);
        let _ = core.handle(0, Event::Tick);
        assert_eq!((core.manager.clone(), core.eligibility.eligible()), (None, false));
        let alone = vec![Listed { name: own.clone(), address: [10, 0, 0, 1].into() }];
        let _ = core.handle(1, Event::List(alone));
        assert_eq!(core.manager, Some(own), "nobody is missing");
    }

    fn welcome(manager: Option<Name>, part: u8) -> Welcome {
        let life = Life { epoch: 1, nonce: 2 };
        Welcome { life, yours: None, have: None, wants: true, manager, part }
    }

    /// It meets one whose part has `part` members and another manager.
    fn meets(part: u8) -> Standing {
        let (mut core, now) = (alone(), 3 * ALONE);
        let _ = core.handle(now, Event::Linked(name("blade2"), 1));
        let welcome = Message::Welcome(welcome(Some(name("blade2")), part));
        let _ = core.handle(now, Event::Message(name("blade2"), 1, welcome));
        core.eligibility.standing().1
    }

    fn beat(now: Micros, manager: &str, part: u8) -> Beat {
        Beat {
            sent: now,
            epoch: 1,
            echo: Some(Echo { sent: now, arrived: now }),
            probe: false,
            interval: 100,
            flags: Flags::default(),
            manager: Some(name(manager)),
            part,
            version: 0,
            hash: 0,
            have: 0,
            time: 0,
            time_error: None,
        }
    }

    /// Another one comes, by itself.
    fn comes(core: &mut Core, now: Micros, other: &Name) {
        let _ = core.handle(now, Event::Linked(other.clone(), 1));
        let welcome = Message::Welcome(welcome(None, 1));
        let _ = core.handle(now, Event::Message(other.clone(), 1, welcome));
        let _ = core.handle(now, Event::Beat(other.clone(), 0, beat(now, "blade1", 2)));
        assert!(core.peers[other].here().is_some(), "it answers");
    }

    /// The same after both heard nothing of each other for so short a time that their link stayed.
    fn hears_again(part: u8) -> (Standing, Micros) {
        let mut core = alone();
        let blade2 = name("blade2");
        let mut now = 3 * ALONE;
        comes(&mut core, now, &blade2);
        while core.peers[&blade2].here().is_some() {
            now += BEAT / 2;
            let _ = core.handle(now, Event::Tick);
        }
        assert!(core.peers[&blade2].lingers(), "its link is there still");
        let again = Event::Beat(blade2.clone(), 0, beat(now, "blade2", part));
        let _ = core.handle(now, again);
        assert!(core.peers[&blade2].here().is_some(), "it is here without another link");
        (core.eligibility.standing().1, now)
    }

    /// Two parts meet: each member of the other's that is met first would make this one larger, and all would wait for all.
    #[test]
    fn who_has_just_come_counts_for_no_part() {
        let (mut core, now) = (alone(), 3 * ALONE);
        let blade3 = name("blade3");
        comes(&mut core, now, &blade3);
        let hears = |core: &mut Core, at| {
            let heard = Event::Beat(blade3.clone(), 0, beat(at, "blade1", 2));
            let actions = [core.handle(at, heard), core.handle(at, Event::Tick)].concat();
            let told = actions.into_iter().filter_map(|action| match action {
                Action::Beat(_, _, beat) => Some(beat.part),
                _ => None,
            });
            told.collect::<Vec<_>>()
        };
        let soon = (now + BEAT..now + SETTLED).step_by(BEAT as usize);
        let told: Vec<_> = soon.flat_map(|at| hears(&mut core, at)).collect();
        assert!(told.len() > 3 && told.iter().all(|part| *part == 1), "{told:?}");
        assert_eq!(core.sees(), 2);
        let (now, mut soon) = (now + SETTLED, core.clone());
        assert_eq!(core.part_besides(now, &name("blade2")), 2, "it has been here for a while");
        let _ = soon.handle(now - 1, Event::Linked(name("blade2"), 2));
        let other = Message::Welcome(welcome(Some(name("blade2")), 2));
        let _ = soon.handle(now - 1, Event::Message(name("blade2"), 2, other));
        assert_eq!(soon.eligibility.standing().1, Standing::Waiting(Some(now - 1 + HOLD_DOWN)));
    }

    #[test]
    fn the_larger_part_of_a_group_keeps_its_manager_for_a_while() {
        assert_eq!(meets(4), Standing::Waiting(Some(3 * ALONE + HOLD_DOWN)));
        assert_eq!(meets(1), Standing::Eligible, "of two as large as one another the first stays");
        let (standing, now) = hears_again(5);
        assert_eq!(standing, Standing::Waiting(Some(now + HOLD_DOWN)));
        assert_eq!(hears_again(2).0, Standing::Eligible, "it counts two with this member");
    }
}
