// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold: the streams of a blade as they were made, and what of them came out.

use std::collections::BTreeMap;

use kvm_bus::core::Micros;

/// The byte of a console at an offset of a life.
pub fn said(slot: u8, life: u32, offset: u64) -> u8 {
    let mut x = offset ^ u64::from(life) << 20 ^ u64::from(slot) << 56;
    x = (x ^ x >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (x >> 40) as u8
}

/// A typed unit of eight bytes.
pub fn typed(slot: u8, number: u32) -> [u8; 8] {
    let [a, b, c, d] = number.to_le_bytes();
    [slot, a, b, c, d, 0xaa, 0x55, slot ^ a]
}

/// One blade's streams.
#[derive(Debug, Default)]
pub struct Streams {
    /// Output heard so far: life, offset of the next byte.
    heard: Option<(u32, u64)>,
    /// Lost bytes that were told since.
    gap: u64,
    unknown_gap: bool,
    /// Typed units that were accepted; the next that is to arrive.
    pub accepted: u32,
    next: u32,
    partial: Vec<u8>,
    /// Units before this one may be gone, but come neither twice nor late.
    may_skip_to: u32,
}

impl Streams {
    pub fn gap(&mut self, lost: Option<u64>) {
        match lost {
            Some(lost) => self.gap += lost,
            None => self.unknown_gap = true,
        }
    }

    pub fn heard(&mut self, slot: u8, (life, at): (u32, u64), bytes: &[u8]) -> Result<(), String> {
        for (offset, byte) in (at..).zip(bytes) {
            if said(slot, life, offset) != *byte {
                return Err(format!("slot {slot} never said {byte} at {offset} of life {life}"));
            }
        }
        if let Some((before, next)) = self.heard {
            if before == life && at != next + self.gap {
                return Err(format!("slot {slot}: {at} after {next}, told gap {}", self.gap));
            }
            if before != life && !self.unknown_gap {
                return Err(format!("slot {slot}: another life, and no gap was told"));
            }
        }
        (self.gap, self.unknown_gap) = (0, false);
        self.heard = Some((life, at + bytes.len() as u64));
        Ok(())
    }

    pub fn heard_up_to(&self) -> Option<(u32, u64)> {
        self.heard
    }

    /// The LMC's console is told to take bytes.
    pub fn wrote(&mut self, slot: u8, bytes: &[u8]) -> Result<(), String> {
        self.partial.extend(bytes);
        while self.partial.len() >= 8 {
            let unit: Vec<u8> = self.partial.drain(..8).collect();
            let number = u32::from_le_bytes([unit[1], unit[2], unit[3], unit[4]]);
            if unit != typed(slot, number) {
                return Err(format!("slot {slot}: nobody typed {unit:?}"));
            }
            if number < self.next || number > self.next.max(self.may_skip_to) {
                return Err(format!("slot {slot}: typed {number} arrives, {} was to", self.next));
            }
            self.next = number + 1;
        }
        Ok(())
    }

    /// The LMC died, perhaps in the middle of a unit.
    pub fn lmc_died(&mut self) {
        self.partial.clear();
    }

    /// The RMM died with what was typed, or has told that it is lost.
    pub fn input_lost(&mut self) {
        self.may_skip_to = self.accepted;
    }

    /// The next RMM goes on from the last byte that was heard, and tells of all that is missing since then.
    pub fn rmm_died(&mut self) {
        self.input_lost();
        (self.gap, self.unknown_gap) = (0, false);
    }

    pub fn all_wrote(&self) -> bool {
        self.next.max(self.may_skip_to) >= self.accepted
    }
}

/// What keys are down where, and for how long that may be.
#[derive(Debug, Default)]
pub struct Keys {
    pub down: BTreeMap<u8, Vec<u16>>,
    /// Since when the operator holds none, or another blade was chosen.
    pub idle_since: Option<Micros>,
}

/// A key may be down for so long after it was let go: until a session is dead, and what its last words took.
const STUCK: Micros = 6_000_000;

impl Keys {
    pub fn check(&self, now: Micros) -> Result<(), String> {
        let holding: Vec<_> = self.down.iter().filter(|(_, keys)| !keys.is_empty()).collect();
        if holding.len() > 1 {
            return Err(format!("keys are down at two blades: {holding:?}"));
        }
        match (holding.first(), self.idle_since) {
            (Some((slot, keys)), Some(since)) if now > since + STUCK => {
                Err(format!("keys {keys:?} are stuck at slot {slot} since {since}"))
            }
            _ => Ok(()),
        }
    }
}
