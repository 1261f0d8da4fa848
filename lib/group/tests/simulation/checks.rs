// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold, whatever happens.

use std::collections::BTreeMap;

use group::core::{Action, Notice, Redirect, Why, timing};
use group::wire::{Message, Micros};

use crate::network::NETWORKS;
use crate::node::{name, number};
use crate::world::World;

/// Two that reach each other do not both go on as the manager for longer, and nobody is sent in a circle for longer:
/// as long as it takes to notice, and a beat lost.
const AGREED: Micros = 1_000_000;
/// Who is gone is known to be gone: beat, patience, grace; twice the first if beats were lost.
const NOTICED: Micros = 1_000_000;

/// Since when something has been so that must not stay so.
pub struct Checks {
    both_active: BTreeMap<(usize, usize), Micros>,
    circle: Vec<Option<Micros>>,
    /// Since when each has been the manager by its own word.
    active: Vec<Option<Micros>>,
    /// When each was last there.
    pub there: Vec<Micros>,
    /// When packets last got from one to another, by the first times the count plus the second.
    reached: Vec<Micros>,
}

impl Checks {
    pub fn new(count: usize) -> Self {
        Self {
            both_active: BTreeMap::new(),
            circle: vec![None; count],
            active: vec![None; count],
            there: vec![0; count],
            reached: vec![0; count * count],
        }
    }
}

impl World {
    fn is_active(&self, of: usize) -> bool {
        let node = &self.nodes[of];
        let core = node.core.as_ref().filter(|_| node.awake(self.now));
        core.is_some_and(|core| core.manager() == Some(&name(of)))
    }

    /// Packets get from one to another.
    pub fn reached(&mut self, from: usize, to: usize) {
        self.checks.reached[from * self.nodes.len() + to] = self.now;
    }

    /// What is said must be on disk.
    pub fn check_action(&self, of: usize, action: &Action) -> Result<(), String> {
        let epoch = match action {
            Action::Beat(_, _, beat) => beat.epoch,
            Action::Send(_, _, Message::Welcome(welcome)) => welcome.life.epoch,
            Action::Send(_, _, Message::Push(push)) => push.life.epoch,
            _ => return Ok(()),
        };
        let disk = self.nodes[of].disk;
        if epoch > disk {
            return Err(format!("{of} tells epoch {epoch}, on its disk is {disk}"));
        }
        Ok(())
    }

    /// A member noticed something: it must be true, or may have looked so.
    pub fn noticed(&mut self, of: usize, notice: &Notice) -> Result<(), String> {
        match notice {
            Notice::Away(peer, why @ (Why::Silent | Why::Refused)) => {
                let peer = number(peer);
                let (one, two) = (&self.nodes[of], &self.nodes[peer]);
                let calm = self.now.saturating_sub(timing::STALL + NOTICED);
                let up = |node: &crate::node::Node| node.awake(self.now) && node.woke <= calm;
                // Of five datagrams two are lost at most: probes find out who is there all the same.
                let good = self.network.open_since(of, peer).is_some_and(|since| since <= calm);
                if up(one) && up(two) && good {
                    return Err(format!("{of} removes {peer} ({why:?}), which is there"));
                }
            }
            Notice::Away(_, Why::Misbehaved) => return Err(format!("{of}: {notice:?}")),
            Notice::Here(peer) => self.came(of, number(peer))?,
            Notice::Manager(Some(manager)) if number(manager) == of => self.promoted(of)?,
            Notice::Records(peer) => self.records(of, number(peer))?,
            _ => {}
        }
        Ok(())
    }

    /// Who comes hears this member. That it is heard says less: its beat may have been held back.
    fn came(&self, of: usize, peer: usize) -> Result<(), String> {
        let reached = self.checks.reached[of * self.nodes.len() + peer];
        if reached + NOTICED < self.now {
            return Err(format!("{of} takes {peer} for here, which it has not reached for long"));
        }
        Ok(())
    }

    /// Who has just come to a manager does not take its place.
    fn promoted(&mut self, of: usize) -> Result<(), String> {
        let started = self.nodes[of].started;
        let soon = self.now < started + timing::HOLD_DOWN;
        let others = 0..self.nodes.len();
        let settled = |other: &usize| {
            let good = self.network.good_since(of, *other).is_some_and(|since| since < started);
            let core = self.nodes[*other].core.as_ref();
            let sees = core.is_some_and(|core| {
                let status = core.status(self.nodes[*other].clock(self.now));
                status.members.iter().any(|member| member.name == name(of) && member.away.is_none())
            });
            // Who says so and was so before it came, with both seeing each other for a while.
            *other != of
                && good
                && sees
                && self.is_active(*other)
                && self.checks.active[*other].is_some_and(|since| since + 500_000 < started)
        };
        if soon && let Some(other) = others.into_iter().find(settled) {
            return Err(format!("{of} takes {other}'s place as soon as it comes"));
        }
        Ok(())
    }

    /// What is known of a peer never goes back to an earlier life of it, whatever it says.
    pub fn life(&mut self, of: usize, peer: usize) -> Result<(), String> {
        let Some(core) = &self.nodes[of].core else { return Ok(()) };
        let Some(life) = core.life_of(&name(peer)) else { return Ok(()) };
        let before = self.nodes[of].lives.insert(peer, life.epoch).unwrap_or(0);
        if life.epoch < before {
            return Err(format!("{of} believes {peer}'s life {} after {before}", life.epoch));
        }
        Ok(())
    }

    /// Records follow their owner's.
    fn records(&mut self, of: usize, peer: usize) -> Result<(), String> {
        let Some(core) = &self.nodes[of].core else { return Ok(()) };
        let Some((records, epoch)) = core.records(&name(peer)).zip(core.life_of(&name(peer)))
        else {
            return Ok(());
        };
        let copy = records.version();
        if let Some(owner) = &self.nodes[peer].core
            && owner.life() == epoch
            && let Some(own) = owner.records(&name(peer))
            && own.version().0 == copy.0
            && records.current
            && own.version().1 != copy.1
        {
            return Err(format!("{of} has other records of {peer} than it has itself"));
        }
        Ok(())
    }

    /// Now and then.
    pub fn look(&mut self) -> Result<(), String> {
        let count = self.nodes.len();
        for of in 0..count {
            let since = self.checks.active[of].unwrap_or(self.now);
            self.checks.active[of] = self.is_active(of).then_some(since);
            if self.nodes[of].core.is_some() {
                self.checks.there[of] = self.now;
            }
            for to in 0..count {
                if (0..NETWORKS).any(|network| self.network.open(of, to, network)) {
                    self.reached(of, to);
                }
            }
        }
        for one in 0..count {
            for two in one + 1..count {
                self.look_at_managers(one, two)?;
            }
            self.look_at_redirects(one)?;
            self.look_at_the_gone(one)?;
        }
        Ok(())
    }

    fn look_at_managers(&mut self, one: usize, two: usize) -> Result<(), String> {
        let good = self.network.good_since(one, two).is_some_and(|since| since < self.now);
        let woke = self.nodes[one].woke.max(self.nodes[two].woke);
        if !(good && self.is_active(one) && self.is_active(two)) {
            self.checks.both_active.remove(&(one, two));
            return Ok(());
        }
        let since = *self.checks.both_active.entry((one, two)).or_insert(self.now);
        let good = self.network.good_since(one, two).unwrap_or(self.now);
        // From when on they could have met: two seconds between attempts, and a quarter.
        let met = good.max(woke) + 3_500_000;
        if self.now > since + AGREED && self.now > met + AGREED {
            return Err(format!("{one} and {two} are both the manager, since {since}"));
        }
        Ok(())
    }

    fn look_at_redirects(&mut self, of: usize) -> Result<(), String> {
        let mut at = of;
        for _ in 0..=self.nodes.len() {
            let node = &self.nodes[at];
            let core = node.core.as_ref().filter(|_| node.awake(self.now));
            match core.map(group::core::Core::redirect) {
                Some(Redirect::To(to)) => at = number(to),
                _ => {
                    self.checks.circle[of] = None;
                    return Ok(());
                }
            }
        }
        let since = *self.checks.circle[of].get_or_insert(self.now);
        if self.now > since + AGREED {
            return Err(format!("who asks {of} for the manager is sent in a circle"));
        }
        Ok(())
    }

    /// Who is dead or cut off is not here, even if somebody sends its beats again.
    fn look_at_the_gone(&mut self, of: usize) -> Result<(), String> {
        let node = &self.nodes[of];
        let Some(core) = node.core.as_ref().filter(|_| node.awake(self.now)) else { return Ok(()) };
        let calm = self.now.saturating_sub(NOTICED);
        if node.woke > calm {
            return Ok(());
        }
        for member in core.status(node.clock(self.now)).members {
            let peer = number(&member.name);
            let dead = self.nodes[peer].core.is_none() && self.checks.there[peer] < calm;
            if dead && member.away.is_none() {
                return Err(format!("{of} still sees {peer}, which is gone"));
            }
            // Either way is enough: both know that they have lost each other.
            let count = self.nodes.len();
            let cut = |path: usize| self.checks.reached[path] < calm;
            if [of * count + peer, peer * count + of].into_iter().any(cut) && member.away.is_none()
            {
                return Err(format!("{of} still sees {peer}, which it does not reach"));
            }
        }
        Ok(())
    }

    /// After the last fault and a while, everybody sees everybody, and all is as if nothing had happened.
    pub fn check_whole(&self) -> Result<(), String> {
        let manager = name(0);
        let mut times = vec![];
        for (of, node) in self.nodes.iter().enumerate() {
            let clock = node.clock(self.now);
            let core = node.core.as_ref().ok_or("not all run")?;
            let status = core.status(clock);
            if status.sees != self.nodes.len() {
                return Err(format!("{of} sees {} at the end: {:#?}", status.sees, status.members));
            }
            if status.manager.as_ref() != Some(&manager) {
                return Err(format!("{of} has {:?} for its manager at the end", status.manager));
            }
            if of != 0 && core.redirect() != Redirect::To(&manager) {
                return Err(format!("{of} does not know the manager's word"));
            }
            times.push((status.time, status.time_error.ok_or("no time")?));
            for (peer, owner) in self.nodes.iter().enumerate() {
                let (own, copy) = (&owner.core, core.records(&name(peer)));
                let own = own.as_ref().and_then(|core| core.records(&name(peer)));
                let equal = own.zip(copy).is_some_and(|(own, copy)| {
                    copy.current && own.version() == copy.version() && own.iter().eq(copy.iter())
                });
                if !equal {
                    return Err(format!("{of} does not have all of {peer}'s records at the end"));
                }
            }
        }
        for (of, (time, error)) in times.iter().enumerate() {
            let apart = times[0].0.abs_diff(*time);
            if apart > error + times[0].1 + 1000 {
                return Err(format!("{of}'s time is {apart} us off, not {error}"));
            }
        }
        Ok(())
    }
}
