// SPDX-License-Identifier: MIT OR Apache-2.0
//! The world: what happens when, and who is told.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use group::core::records::Change;
use group::core::{Action, Event, LinkId, Notice, Over};
use group::wire::{Beat, Class, Message, Micros};
use seeds::{Failure, Figures, Rng};

use crate::checks::Checks;
use crate::faults::{self, Fault};
use crate::network::{Link, NETWORKS, Network};
use crate::node::{Node, list, name, number};

/// How long a world lives.
pub const END: Micros = 62_000_000;
/// The last fault is over.
pub const CALM: Micros = 50_000_000;
/// Beats that somebody remembers, to send them again.
const REMEMBERED: usize = 64;

/// What happens by itself.
pub enum Happens {
    /// A machine's timer.
    Timer(usize),
    /// A beat arrives: from, to, its session.
    Beat(usize, usize, LinkId, usize, Box<Beat>),
    /// Something arrives at an end of a link.
    Flow(LinkId, usize),
    /// One asks another to connect.
    Ask(usize, usize),
    /// A connection succeeds, or not.
    Connected(usize, usize),
    /// A knock comes to its end.
    Knocked(usize, usize),
    /// A link's end is heard of at its other end.
    Ended(LinkId, usize),
    /// A push was written.
    Written(usize, usize, LinkId),
    /// The disk has synced an epoch, for this life.
    Synced(usize, u64, Micros),
    /// A machine observes something.
    Observe(usize),
    /// A fault begins, or ends.
    Fault(Fault),
    /// Somebody sends an old beat again.
    Replay,
    /// Everything is looked at.
    Look,
}

struct Scheduled(Micros, u64, Happens);

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.1 == other.1
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// All of it.
pub struct World {
    pub now: Micros,
    pub rng: Rng,
    pub nodes: Vec<Node>,
    pub network: Network,
    pub checks: Checks,
    pub figures: Figures,
    queue: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
    /// Of the first network; with whether each has not been let through yet.
    remembered: Vec<(usize, usize, LinkId, Beat, bool)>,
    log: Option<Vec<String>>,
}

impl World {
    /// Lives through a seed.
    pub fn run(seed: u64, logging: bool) -> Result<Figures, Failure> {
        let mut rng = Rng::new(seed);
        let count = 8 + rng.index(2);
        let nodes = (0..count).map(|_| Node::new(&mut rng)).collect();
        let mut world = Self {
            now: 0,
            nodes,
            network: Network::new(count),
            checks: Checks::new(count),
            figures: Figures::new(),
            queue: BinaryHeap::new(),
            order: 0,
            remembered: vec![],
            log: logging.then(Vec::new),
            rng,
        };
        world.begin();
        let lived = world.live().and_then(|()| world.end());
        match lived {
            Ok(()) => Ok(world.figures),
            Err(what) => Err(Failure { what, log: world.log.unwrap_or_default() }),
        }
    }

    fn begin(&mut self) {
        for of in 0..self.nodes.len() {
            // Most at about the same time.
            let at = self.rng.below(3_000_000);
            self.plan(at, Happens::Fault(Fault::Start(of)));
            self.plan(at + 1, Happens::Observe(of));
        }
        for (at, fault) in faults::plan(&mut self.rng, self.nodes.len()) {
            self.plan(at, Happens::Fault(fault));
        }
        self.plan(0, Happens::Look);
        self.plan(0, Happens::Replay);
    }

    fn live(&mut self) -> Result<(), String> {
        while let Some(Reverse(Scheduled(at, _, what))) = self.queue.pop() {
            if at > END {
                break;
            }
            self.now = at;
            self.happen(what)?;
        }
        Ok(())
    }

    /// Something will happen after so many microseconds.
    pub fn plan(&mut self, after: Micros, what: Happens) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled(self.now + after, self.order, what)));
    }

    /// Writes down what happens.
    pub fn log(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(log) = &mut self.log {
            log.push(format!("{:>10.4} {}", now as f64 / 1e6, line()));
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.figures.entry(what).or_default() += 1;
    }

    /// Puts off what happens to a machine that stands still. Returns whether it does.
    fn put_off(&mut self, of: usize, what: Happens) -> Option<Happens> {
        let node = &self.nodes[of];
        if node.core.is_some() && self.now < node.stalled {
            let after = node.stalled - self.now;
            self.plan(after, what);
            return None;
        }
        Some(what)
    }

    fn happen(&mut self, what: Happens) -> Result<(), String> {
        let of = match &what {
            Happens::Timer(of) | Happens::Observe(of) => Some(*of),
            Happens::Beat(_, to, ..) | Happens::Ask(_, to) => Some(*to),
            Happens::Connected(from, _) | Happens::Knocked(from, _) => Some(*from),
            Happens::Written(of, ..) | Happens::Synced(of, ..) => Some(*of),
            Happens::Flow(id, end) | Happens::Ended(id, end) => {
                self.network.links.get(id).map(|link| link.ends[*end])
            }
            _ => None,
        };
        let what = match of {
            Some(of) => match self.put_off(of, what) {
                Some(what) => what,
                None => return Ok(()),
            },
            None => what,
        };
        match what {
            Happens::Timer(of) => {
                if self.nodes[of].timer <= self.now {
                    self.tell(of, Event::Tick)?;
                }
            }
            Happens::Beat(from, to, id, network, beat) => {
                if self.nodes[to].sessions.get(&from) == Some(&id) {
                    self.tell(to, Event::Beat(name(from), network, *beat))?;
                }
            }
            Happens::Flow(id, end) => self.flow(id, end)?,
            Happens::Ask(from, to) => self.tell(to, Event::Asked(name(from)))?,
            Happens::Connected(from, to) => self.connected(from, to)?,
            Happens::Knocked(from, to) => {
                let refused = self.nodes[to].machine && self.nodes[to].core.is_none();
                if refused && self.network.between(from, to).is_some() {
                    self.tell(from, Event::NotLinked { peer: name(to), refused })?;
                }
            }
            Happens::Ended(id, end) => self.ended(id, end)?,
            Happens::Written(of, to, id) => self.tell(of, Event::Sent(name(to), id))?,
            Happens::Synced(of, epoch, started) => {
                let node = &mut self.nodes[of];
                if node.core.is_some() && node.started == started {
                    node.disk = node.disk.max(epoch);
                    self.tell(of, Event::Persisted(epoch))?;
                }
            }
            Happens::Observe(of) => self.observe(of)?,
            Happens::Fault(fault) => faults::happen(self, fault)?,
            Happens::Replay => self.replay(),
            Happens::Look => {
                self.look()?;
                self.plan(200_000, Happens::Look);
            }
        }
        Ok(())
    }

    /// Tells a machine's program, and does what it says.
    pub fn tell(&mut self, of: usize, event: Event) -> Result<(), String> {
        let now = self.nodes[of].clock(self.now);
        let Some(core) = &mut self.nodes[of].core else { return Ok(()) };
        let from = match &event {
            Event::Message(peer, ..) => Some(number(peer)),
            _ => None,
        };
        let actions = core.handle(now, event);
        if let Some(peer) = from {
            self.life(of, peer)?;
        }
        self.act(of, actions)
    }

    fn act(&mut self, of: usize, actions: Vec<Action>) -> Result<(), String> {
        for action in actions {
            self.check_action(of, &action)?;
            match action {
                Action::Connect(to) => self.connect(of, number(&to), false),
                Action::Knock(to) => self.connect(of, number(&to), true),
                Action::Ask(to) => {
                    let to = number(&to);
                    let there = (0..NETWORKS).any(|network| self.network.open(of, to, network));
                    if there && !self.rng.permille(self.network.loss) {
                        let delay = self.network.delay(&mut self.rng);
                        self.plan(delay, Happens::Ask(of, to));
                    }
                }
                Action::Send(to, id, message) => self.send(of, number(&to), id, message),
                Action::Beat(to, over, beat) => self.beat(of, number(&to), over, &beat),
                Action::Close(peer, id) => {
                    self.close(of, id);
                    self.forget(of, number(&peer));
                }
                Action::Persist(epoch) => {
                    self.nodes[of].written = epoch;
                    let after = 1000 + self.rng.below(50_000);
                    let started = self.nodes[of].started;
                    self.plan(after, Happens::Synced(of, epoch, started));
                }
                Action::Tell(notice) => {
                    if let Notice::Away(peer, _) = &notice {
                        self.forget(of, number(peer));
                    }
                    self.log(|| format!("{of}: {notice:?}"));
                    self.noticed(of, &notice)?;
                }
            }
        }
        let node = &mut self.nodes[of];
        if let Some(core) = &node.core {
            let at = core.next().saturating_sub(node.boot).max(self.now);
            if at != node.timer && at <= END {
                node.timer = at;
                // Timers are never early, and a little late.
                let late = self.rng.below(500);
                let after = at - self.now + late;
                self.plan(after, Happens::Timer(of));
            }
        }
        Ok(())
    }

    /// Beats of a member that is away are sealed as long as its link is there.
    fn forget(&mut self, of: usize, peer: usize) {
        let Some(id) = self.nodes[of].sessions.get(&peer) else { return };
        let open = |link: &Link| link.open[usize::from(link.ends[0] != of)];
        if !self.network.links.get(id).is_some_and(open) {
            self.nodes[of].sessions.remove(&peer);
        }
    }

    fn beat(&mut self, from: usize, to: usize, over: Over, beat: &Beat) {
        let Some(&id) = self.nodes[from].sessions.get(&to) else { return };
        let mut held_back = true;
        self.count(match over {
            Over::All => "beats over all networks",
            Over::One(_) => "beats over one network",
        });
        for network in (0..NETWORKS).filter(|at| [Over::All, Over::One(*at)].contains(&over)) {
            if !self.network.open(from, to, network) || self.rng.permille(self.network.loss) {
                continue;
            }
            held_back = false;
            self.reached(from, to);
            let copies = 1 + usize::from(self.rng.permille(self.network.twice));
            for _ in 0..copies {
                let delay = self.network.delay(&mut self.rng);
                let beat = Box::new(beat.clone());
                self.plan(delay, Happens::Beat(from, to, id, network, beat));
            }
        }
        // Who can send again can also hold back: such beats are new when they come.
        if self.rng.permille(if held_back { 200 } else { 20 }) {
            if self.remembered.len() == REMEMBERED {
                let at = self.rng.index(REMEMBERED);
                self.remembered.swap_remove(at);
            }
            self.remembered.push((from, to, id, beat.clone(), held_back));
        }
    }

    /// Somebody on the first network sends again what was sent, also for those who are dead.
    fn replay(&mut self) {
        if self.now > CALM {
            return;
        }
        if !self.remembered.is_empty() {
            let at = self.rng.index(self.remembered.len());
            let (from, to, id, beat, held_back) = &mut self.remembered[at];
            let (from, to, id, beat) = (*from, *to, *id, Box::new(beat.clone()));
            if std::mem::take(held_back) {
                self.reached(from, to);
                self.count("beats held back for a while");
            }
            self.plan(10, Happens::Beat(from, to, id, 0, beat));
            self.count("beats sent again");
        }
        let after = self.rng.between(1_000, 30_000);
        self.plan(after, Happens::Replay);
    }

    fn connect(&mut self, from: usize, to: usize, knock: bool) {
        let after = 3 * self.network.delay(&mut self.rng);
        let what = if knock { Happens::Knocked(from, to) } else { Happens::Connected(from, to) };
        // Who does not answer is given up after a second.
        let after = if self.network.between(from, to).is_some() { after } else { 1_000_000 };
        self.plan(after, what);
    }

    fn connected(&mut self, from: usize, to: usize) -> Result<(), String> {
        let reached = self.network.between(from, to).filter(|_| self.nodes[to].machine);
        let Some(network) = reached.filter(|_| self.nodes[to].awake(self.now)) else {
            let refused = reached.is_some() && self.nodes[to].core.is_none();
            return self.tell(from, Event::NotLinked { peer: name(to), refused });
        };
        let id = self.network.next_link;
        self.network.next_link += 1;
        let link =
            Link { ends: [from, to], open: [true, true], flows: Default::default(), network };
        self.network.links.insert(id, link);
        for (one, other) in [(from, to), (to, from)] {
            self.nodes[one].sessions.insert(other, id);
            self.tell(one, Event::Linked(name(other), id))?;
        }
        Ok(())
    }

    fn send(&mut self, of: usize, to: usize, id: LinkId, message: Message) {
        let pushed = matches!(message, Message::Push(_));
        let Some(link) = self.network.links.get_mut(&id) else { return };
        let end = usize::from(link.ends[0] != of);
        if link.open[end] {
            link.flows[end].push_back(message);
            let delay = self.network.delay(&mut self.rng);
            self.plan(delay, Happens::Flow(id, 1 - end));
            if pushed {
                self.plan(delay / 2, Happens::Written(of, to, id));
            }
        }
    }

    /// What is on its way to this end arrives, in its order; over a path that is cut, later.
    fn flow(&mut self, id: LinkId, end: usize) -> Result<(), String> {
        let Some(link) = self.network.links.get(&id) else { return Ok(()) };
        let (to, from) = (link.ends[end], link.ends[1 - end]);
        if !link.open[end] || self.nodes[to].core.is_none() {
            return Ok(());
        }
        if !self.network.both(from, to, link.network) {
            // TCP sends it again.
            self.plan(200_000, Happens::Flow(id, end));
            return Ok(());
        }
        let flow = self.network.links.get_mut(&id).map(|link| &mut link.flows[1 - end]);
        let Some(message) = flow.and_then(std::collections::VecDeque::pop_front) else {
            return Ok(());
        };
        // As on the wire.
        let message = Message::decode(&message.encode()).map_err(|error| error.to_string())?;
        self.tell(to, Event::Message(name(from), id, message))
    }

    /// An end gives a link up; the other hears of it if packets get there.
    pub fn close(&mut self, of: usize, id: LinkId) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        let end = usize::from(link.ends[0] != of);
        if std::mem::replace(&mut link.open[end], false) {
            let delay = self.network.delay(&mut self.rng);
            // Behind what it said before.
            self.plan(3_000 + delay, Happens::Ended(id, 1 - end));
        }
    }

    fn ended(&mut self, id: LinkId, end: usize) -> Result<(), String> {
        let Some(link) = self.network.links.get(&id).filter(|link| link.open[end]) else {
            return Ok(());
        };
        let (of, other) = (link.ends[end], link.ends[1 - end]);
        if !self.network.both(of, other, link.network) || !self.nodes[other].machine {
            self.plan(200_000, Happens::Ended(id, end));
            return Ok(());
        }
        if let Some(link) = self.network.links.get_mut(&id) {
            link.open[end] = false;
        }
        self.tell(of, Event::LinkEnded(name(other), id))
    }

    fn observe(&mut self, of: usize) -> Result<(), String> {
        let now = self.nodes[of].clock(self.now);
        let mut changes = vec![];
        for _ in 0..self.rng.between(1, 4) {
            let key = format!("sensor {}", self.rng.below(12)).parse().expect("a key");
            let long = if self.rng.permille(20) { 30_000 } else { 8 };
            let value = self.rng.next().to_le_bytes().repeat(long / 8).into();
            changes.push(match self.rng.below(6) {
                0 => Change::Remove(key),
                _ => Change::Set(key, Class::Dynamic, value),
            });
        }
        if let Some(core) = &mut self.nodes[of].core {
            let actions = core.change(now, changes).map_err(|error| error.to_string())?;
            self.act(of, actions)?;
        }
        let after = self.rng.between(100_000, 3_000_000);
        if self.now + after < CALM + 8_000_000 {
            self.plan(after, Happens::Observe(of));
        }
        Ok(())
    }

    /// Starts a machine's program.
    pub fn start(&mut self, of: usize) -> Result<(), String> {
        if self.nodes[of].core.is_some() {
            return Ok(());
        }
        self.nodes[of].start(self.now, of, &mut self.rng);
        self.log(|| format!("{of} starts"));
        self.tell(of, Event::List(list(self.nodes.len())))
    }

    /// Its program ends: the kernel ends its links, unless the machine is lost too.
    pub fn kill(&mut self, of: usize, machine: bool) {
        if self.nodes[of].core.take().is_some() {
            self.checks.there[of] = self.now;
        }
        self.nodes[of].machine = machine;
        let links = self.network.links.iter();
        let ids: Vec<LinkId> =
            links.filter(|(_, l)| l.ends.contains(&of)).map(|(id, _)| *id).collect();
        for id in ids {
            if machine {
                self.close(of, id);
            } else if let Some(link) = self.network.links.get_mut(&id) {
                let end = usize::from(link.ends[0] != of);
                link.open[end] = false;
            }
        }
        for other in 0..self.nodes.len() {
            self.network.spoil(self.now, of, other);
        }
    }

    fn end(&mut self) -> Result<(), String> {
        self.check_whole()?;
        let mut sums: BTreeMap<&'static str, u64> = BTreeMap::new();
        for node in &self.nodes {
            let Some(core) = &node.core else { continue };
            let counters = core.status(node.clock(self.now)).counters;
            for (what, count) in [
                ("elections", counters.elections),
                ("gaps repaired", counters.repaired),
                ("stale lives refused", counters.stale),
                ("repeated beats refused", counters.repeated),
                ("stalls noticed", counters.stalls),
                ("members lost", counters.went),
            ] {
                *sums.entry(what).or_default() += count;
            }
        }
        for (what, count) in sums {
            *self.figures.entry(what).or_default() += count;
        }
        Ok(())
    }
}
