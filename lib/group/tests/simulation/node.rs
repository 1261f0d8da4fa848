// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine: its program, its disk, its clock.

use std::collections::BTreeMap;

use group::core::{Core, LinkId, Listed, Options, Replication};
use group::wire::{Life, Micros};
use seeds::Rng;

/// A machine.
pub struct Node {
    /// What runs on it; none if it is dead.
    pub core: Option<Core>,
    /// Whether its kernel answers: a program that was killed is refused, a lost machine is silent.
    pub machine: bool,
    /// The epoch that is on disk.
    pub disk: u64,
    /// The epoch that was written, and is on disk when it is synced.
    pub written: u64,
    /// An old image of the disk.
    pub image: u64,
    /// Its clock minus the world's; another with each boot.
    pub boot: Micros,
    /// It stands still until then.
    pub stalled: Micros,
    /// When it last woke up, or started.
    pub woke: Micros,
    /// When its program started.
    pub started: Micros,
    /// The sessions in which beats are sealed and opened, by peer.
    pub sessions: BTreeMap<usize, LinkId>,
    /// When its core is called.
    pub timer: Micros,
    /// The last life that it told anybody of each peer, to see that none goes back.
    pub lives: BTreeMap<usize, u64>,
}

impl Node {
    pub fn new(rng: &mut Rng) -> Self {
        let boot = rng.below(1 << 40) + (1 << 30);
        Self {
            core: None,
            machine: true,
            disk: 0,
            written: 0,
            image: 0,
            boot,
            stalled: 0,
            woke: 0,
            started: 0,
            sessions: BTreeMap::new(),
            timer: 0,
            lives: BTreeMap::new(),
        }
    }

    /// Its clock.
    pub fn clock(&self, now: Micros) -> Micros {
        now + self.boot
    }

    /// Starts its program, with the next epoch on disk.
    pub fn start(&mut self, now: Micros, own: usize, rng: &mut Rng) {
        self.disk += 1;
        self.written = self.disk;
        (self.machine, self.started, self.woke) = (true, now, now);
        self.stalled = self.stalled.min(now);
        let life = Life { epoch: self.disk, nonce: rng.next() };
        // Its clock may be anything.
        let wall = rng.below(1 << 51) as i64;
        let options = Options { own: name(own), life, replication: Replication::All, leads: true };
        self.core = Some(Core::new(options, self.clock(now), wall));
        self.timer = now;
        self.sessions.clear();
        self.lives.clear();
    }

    /// Runs, and is not standing still.
    pub fn awake(&self, now: Micros) -> bool {
        self.core.is_some() && now >= self.stalled
    }
}

thread_local! {
    static NAMES: Vec<group::Name> =
        (0..MOST).map(|of| format!("blade{of}").parse().expect("a name")).collect();
}

/// Most machines.
const MOST: usize = 16;

/// The name of a machine.
pub fn name(of: usize) -> group::Name {
    NAMES.with(|names| names[of].clone())
}

/// The machine of a name.
pub fn number(name: &group::Name) -> usize {
    name.as_str()["blade".len()..].parse().expect("one of ours")
}

/// All of them. The lower the number, the lower the address.
pub fn list(count: usize) -> Vec<Listed> {
    let address = |of: usize| [10, 0, 0, u8::try_from(of + 1).expect("a few")].into();
    (0..count).map(|of| Listed { name: name(of), address: address(of) }).collect()
}
