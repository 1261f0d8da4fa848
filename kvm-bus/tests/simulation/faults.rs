// SPDX-License-Identifier: MIT OR Apache-2.0
//! What breaks in a world, for a while and for good.

use kvm_bus::core::Micros;

use super::{FAULTS_END, SECOND, World};
use crate::bus::Noise;

/// What stays broken when all else is mended.
#[derive(Debug, Clone, Copy)]
pub enum Lasting {
    /// This line is cut.
    Cut(usize),
    /// The LMC of this blade is dead.
    Dead(usize),
}

impl World {
    /// Something breaks, or all is mended.
    pub fn fault(&mut self) {
        self.next_fault = self.now + self.rng.between(SECOND / 5, 3 * SECOND);
        if self.now >= FAULTS_END || !self.faulty {
            self.next_fault = Micros::MAX;
            for line in self.lines.iter_mut().chain(&mut self.control).flatten() {
                (line.noise, line.cut) = (Noise::default(), false);
            }
            if self.faulty {
                self.something_lasts();
            }
            return;
        }
        let at = self.rng.index(self.lines.len());
        match self.rng.below(10) {
            0 => {
                self.lines[at].iter_mut().for_each(|line| line.cut = true);
                self.count("lines cut", 1);
                self.say(|| format!("line {at} is cut"));
            }
            1 => {
                let way = self.rng.index(2);
                self.lines[at][way].cut = true;
                self.count("lines cut one way", 1);
                self.say(|| format!("line {at} is cut one way, {way}"));
            }
            2 | 3 => {
                let noise = Noise {
                    flip: self.rng.below(200),
                    lose: self.rng.below(100),
                    repeat: self.rng.below(100),
                    garbage: self.rng.below(100),
                    replay: self.rng.below(60),
                };
                self.lines[at].iter_mut().for_each(|line| line.noise = noise);
                if !self.control.is_empty() {
                    let at = self.rng.index(self.control.len());
                    self.control[at].iter_mut().for_each(|line| line.noise = noise);
                }
                self.count("lines with noise", 1);
                self.say(|| format!("line {at} has {noise:?}"));
            }
            4 | 5 => self.kill_lmc(),
            6 => self.kill_rmm(),
            _ => {
                for line in self.lines.iter_mut().flatten() {
                    (line.noise, line.cut) = (Noise::default(), false);
                }
                self.say(|| "lines are mended".to_owned());
            }
        }
    }

    fn kill_lmc(&mut self) {
        let at = self.rng.index(self.blades.len());
        let back_at = self.now + self.rng.between(SECOND / 100, 5 * SECOND);
        if self.blades[at].lmc.is_some() {
            self.kill(at, back_at);
        }
    }

    fn kill(&mut self, at: usize, back_at: Micros) {
        let blade = &mut self.blades[at];
        blade.lmc = None;
        blade.back_at = back_at;
        blade.streams.lmc_died();
        let slot = blade.slot;
        // Its kernel lets keys go when the daemon's device ends with it.
        self.keys.down.remove(&slot);
        self.count("lmcs killed", 1);
        self.say(|| format!("slot {slot} dies"));
    }

    fn kill_rmm(&mut self) {
        if self.rmm.take().is_none() {
            return;
        }
        self.rmm_back_at = self.now + self.rng.between(SECOND / 100, 9 * SECOND);
        self.known.clear();
        for blade in &mut self.blades {
            blade.streams.rmm_died();
            if let Some(heard) = blade.streams.heard_up_to() {
                self.known.insert(blade.slot, heard);
            }
        }
        self.held.clear();
        self.keys.idle_since = Some(self.now);
        self.count("rmms killed", 1);
        self.say(|| "the RMM dies".to_owned());
    }

    /// In some worlds something stays broken: the far end, where it is fed, is then the only way to those behind it.
    fn something_lasts(&mut self) {
        if !self.rng.permille(400) {
            return;
        }
        let blades = self.blades.len();
        // An LMC that is dead cuts the control bus as well, which has no far end.
        if self.control.is_empty() && self.rng.permille(500) {
            // Somebody is left.
            let first = usize::from(!self.far_end);
            let at = self.rng.index(blades - first) + first;
            self.kill(at, Micros::MAX);
            self.lasting = Some(Lasting::Dead(at));
            self.count("worlds with an lmc dead for good", 1);
        } else {
            let at = self.rng.index(self.lines.len() - 1) + 1;
            self.lines[at].iter_mut().for_each(|line| line.cut = true);
            self.lasting = Some(Lasting::Cut(at));
            self.count("worlds with a line cut for good", 1);
        }
        let lasting = self.lasting;
        self.say(|| format!("from now on: {lasting:?}"));
    }

    /// Whether there is a way from the RMM to a blade.
    pub fn is_reached(&self, blade: usize) -> bool {
        match self.lasting {
            None => true,
            Some(Lasting::Cut(line)) => blade < line || self.far_end,
            Some(Lasting::Dead(dead)) => blade < dead || (blade > dead && self.far_end),
        }
    }
}
