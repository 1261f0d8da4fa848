// SPDX-License-Identifier: MIT OR Apache-2.0
//! A line between two ports: it takes its time, and does to bytes what lines do.

use std::collections::VecDeque;

use kvm_bus::core::Micros;
use seeds::Rng;

/// What is wrong with a line; chances in a thousand, by frame.
#[derive(Debug, Clone, Copy, Default)]
pub struct Noise {
    pub flip: u64,
    pub lose: u64,
    pub repeat: u64,
    pub garbage: u64,
    pub replay: u64,
}

/// One way of a line.
#[derive(Debug)]
pub struct Line {
    pub baud: u64,
    pub noise: Noise,
    pub cut: bool,
    free_at: Micros,
    coming: VecDeque<(Micros, Vec<u8>)>,
    /// Some of what was sent, to be sent again much later.
    old: Vec<Vec<u8>>,
    pub sent: u64,
}

impl Line {
    pub fn new(baud: u64) -> Self {
        Self {
            baud,
            noise: Noise::default(),
            cut: false,
            free_at: 0,
            coming: VecDeque::new(),
            old: vec![],
            sent: 0,
        }
    }

    /// Whether the kernel has nothing left to send.
    pub fn is_free(&self, now: Micros) -> bool {
        self.free_at <= now
    }

    pub fn send(&mut self, now: Micros, bytes: Vec<u8>, rng: &mut Rng) {
        self.free_at = now + bytes.len() as u64 * 10_000_000 / self.baud;
        self.sent += bytes.len() as u64;
        if self.old.len() < 40 && rng.permille(100) {
            self.old.push(bytes.clone());
        }
        if self.cut {
            return;
        }
        let mut bytes = self.spoil(bytes, rng);
        if rng.permille(self.noise.garbage) {
            bytes.extend((0..rng.between(1, 300)).map(|_| rng.byte()));
        }
        if rng.permille(self.noise.replay) && !self.old.is_empty() {
            bytes.extend(rng.pick(&self.old).clone());
        }
        self.coming.push_back((self.free_at + 50, bytes));
    }

    fn spoil(&mut self, mut bytes: Vec<u8>, rng: &mut Rng) -> Vec<u8> {
        if rng.permille(self.noise.flip) {
            for _ in 0..rng.between(1, 4) {
                let at = rng.index(bytes.len());
                bytes[at] ^= 1 << rng.below(8);
            }
        }
        if rng.permille(self.noise.lose) {
            let at = rng.index(bytes.len());
            let count = rng.between(1, 20) as usize;
            bytes.drain(at..(at + count).min(bytes.len()));
        }
        if rng.permille(self.noise.repeat) {
            bytes.extend(bytes.clone());
        }
        bytes
    }

    pub fn next_at(&self) -> Micros {
        self.coming.front().map_or(Micros::MAX, |(at, _)| *at)
    }

    pub fn free_at(&self) -> Micros {
        self.free_at
    }

    pub fn arrived(&mut self, now: Micros) -> Option<Vec<u8>> {
        let (at, _) = self.coming.front()?;
        if *at > now {
            return None;
        }
        self.coming.pop_front().map(|(_, bytes)| bytes)
    }
}
