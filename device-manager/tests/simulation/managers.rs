// SPDX-License-Identifier: MIT OR Apache-2.0
//! Managers: their programs, and what they tell one another.

use std::collections::BTreeMap;

use device_manager::manager::core::{Action, Event, Listed, Manager, Note, Options};
use device_manager::manager::order::{Incoming, Numbered, Outgoing, Taken};
use device_manager::policy::Policy;
use device_manager::record::{Device, DeviceId, Machine};
use device_manager::unit::core::Micros;
use device_manager::wire::Peer;
use group::core::Replication;

use crate::world::{Due, SECOND, STORM, World};

pub struct ManagerSide {
    pub name: Machine,
    pub core: Option<Manager>,
    pub life: u64,
    pub own: bool,
    /// What it published, and to whom it is linked, by which session.
    pub list: BTreeMap<DeviceId, Device>,
    pub met: BTreeMap<usize, u64>,
    pub outgoing: BTreeMap<usize, Outgoing>,
    incoming: BTreeMap<usize, Incoming>,
}

impl ManagerSide {
    pub fn new(at: usize, own: bool) -> Self {
        Self {
            name: format!("m{at}").parse().expect("it is good"),
            core: None,
            life: 0,
            own,
            list: BTreeMap::new(),
            met: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
        }
    }
}

impl World {
    /// In order for each pair and kind.
    fn in_order(&mut self, pair: (usize, usize, bool)) -> Micros {
        let at = (self.now + self.delay()).max(self.last.get(&pair).copied().unwrap_or(0) + 1);
        self.last.insert(pair, at);
        at
    }

    pub fn start_manager(&mut self, at: usize) {
        let side = &mut self.managers[at];
        side.life += 1;
        let replication = if side.own { Replication::Own } else { Replication::All };
        let options = Options { own: side.name.clone(), replication };
        side.core = Some(Manager::new(options, Policy::default()));
        let life = side.life;
        self.after(self.now, Due::ManagerTick(at, life));
        for other in 0..self.managers.len() {
            if other != at && self.managers[other].core.is_some() {
                let when = self.now + self.rng.between(1_000, 300_000);
                self.after(when, Due::Meet(at, other));
            }
        }
    }

    pub fn kill_manager(&mut self, at: usize) {
        self.note(|| format!("m{at} is killed"));
        self.managers[at].core = None;
        self.managers[at].list.clear();
        for other in 0..self.managers.len() {
            if self.managers[at].met.contains_key(&other) {
                let when = self.now + self.rng.between(10_000, 400_000);
                self.after(when, Due::Part(at, other));
            }
        }
        for (no, link) in self.links.clone() {
            if link.manager == at && link.up {
                self.end_link(no);
            }
        }
        for service in 0..self.services.len() {
            self.manager_gone(service, at);
        }
    }

    pub fn reaches(&self, one: usize, two: usize) -> bool {
        !self.parted.contains(&(one.min(two), one.max(two)))
    }

    pub fn meet(&mut self, one: usize, two: usize) {
        let alive = self.managers[one].core.is_some() && self.managers[two].core.is_some();
        if !alive || !self.reaches(one, two) || self.managers[one].met.contains_key(&two) {
            return;
        }
        self.next += 1;
        let session = self.next;
        for (here, there) in [(one, two), (two, one)] {
            let side = &mut self.managers[here];
            side.met.insert(there, session);
            side.outgoing.insert(there, Outgoing::default());
            side.incoming.insert(there, Incoming::default());
        }
        for (here, there) in [(one, two), (two, one)] {
            let name = self.managers[there].name.clone();
            self.manager(here, Event::PeerHere(name));
            self.after(self.now + SECOND, Due::Mark(here, there, session));
            for device in self.managers[there].list.values().cloned().collect::<Vec<_>>() {
                self.list(there, here, Listed::Set(Box::new(device)));
            }
        }
    }

    pub fn part(&mut self, one: usize, two: usize) {
        for (here, there) in [(one, two), (two, one)] {
            if self.managers[here].met.remove(&there).is_some()
                && self.managers[here].core.is_some()
            {
                let name = self.managers[there].name.clone();
                self.manager(here, Event::PeerAway(name));
            }
        }
        // If they live and reach one another they meet again.
        let when = self.now + self.rng.between(10_000, SECOND);
        self.after(when, Due::Meet(one, two));
    }

    pub fn send(&mut self, from: usize, to: usize, message: Numbered) {
        let Some(session) = self.managers[from].met.get(&to).copied() else { return };
        // A link that ended, and was made again.
        let lossy = self.lossy.is_some_and(|(one, two, until)| {
            self.now < until && (one.min(two), one.max(two)) == (from.min(to), from.max(to))
        });
        if lossy || (self.now < STORM && self.rng.permille(4)) {
            return self.count("messages between managers lost");
        }
        let when = self.in_order((from, to, false));
        self.after(when, Due::ToPeer { from, to, session, message: Box::new(message) });
    }

    pub fn received(&mut self, from: usize, to: usize, message: Numbered) {
        let peer = self.managers[from].name.clone();
        match self.managers[to].incoming.entry(from).or_default().take(message) {
            Taken::Message(message) => self.manager(to, Event::Peer(peer, *message)),
            Taken::Nothing => {}
            Taken::Gap => self.send(to, from, Numbered::Again),
            Taken::Again => {
                self.managers[to].outgoing.insert(from, Outgoing::default());
                self.manager(to, Event::PeerHere(peer));
            }
        }
    }

    fn list(&mut self, from: usize, to: usize, change: Listed) {
        let Some(session) = self.managers[from].met.get(&to).copied() else { return };
        if !self.managers[to].own {
            let at = self.in_order((from, to, true));
            self.after(at, Due::List { from, to, session, change });
        }
    }

    pub fn manager(&mut self, at: usize, event: Event) {
        let now = self.now;
        self.note(|| format!("m{at} <- {event:?}"));
        let Some(core) = &mut self.managers[at].core else { return };
        for action in core.handle(now, event) {
            self.note(|| format!("    m{at} {action:?}"));
            match action {
                Action::ToUnit(no, message) => {
                    self.over_link(no, 1, |no| Due::ToUnit(no, Box::new(message)));
                }
                Action::Close(no) => self.end_link(no),
                Action::ToPeer(name, message) => {
                    let to =
                        self.managers.iter().position(|m| m.name == name).expect("it is there");
                    if matches!(message, Peer::Find(..)) {
                        self.count("finders forwarded");
                    }
                    let numbered =
                        self.managers[at].outgoing.entry(to).or_default().number(message);
                    self.send(at, to, numbered);
                }
                Action::Publish(device) => {
                    self.managers[at].list.insert(device.id, (*device).clone());
                    for to in self.managers[at].met.keys().copied().collect::<Vec<_>>() {
                        self.list(at, to, Listed::Set(device.clone()));
                    }
                }
                Action::Unpublish(id) => {
                    self.managers[at].list.remove(&id);
                    for to in self.managers[at].met.keys().copied().collect::<Vec<_>>() {
                        self.list(at, to, Listed::Gone(id));
                    }
                }
                Action::Tell(no, report) => self.told(at, no, &report),
                Action::Answer(no, answer) => self.answered(at, no, answer),
                Action::Waits(no, _) => self.waits(at, no),
                Action::Note(Note::GaveUp(..)) => {
                    self.count("given up to a newer claim");
                }
                Action::Note(Note::Wrong(what)) => {
                    if what.starts_with("unit ") {
                        self.broken = Some(format!("m{at}: {what}"));
                    }
                }
                Action::Note(_) => {}
            }
        }
    }
}
