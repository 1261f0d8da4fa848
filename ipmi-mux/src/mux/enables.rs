// SPDX-License-Identifier: MIT OR Apache-2.0
//! Global enables (IPMI 2.0 section 22.1), per virtual controller. The BMC has what it had before, and
//! with it all that any controller has switched on: who switches events off does so for itself.

use std::collections::{BTreeSet, HashMap};

use super::HandleId;

#[derive(Debug, Default)]
pub(super) struct Enables {
    /// What the BMC had before any of us set something.
    base: Option<u8>,
    /// What it has now, as far as we know.
    real: Option<u8>,
    /// What each has set, and the number of that set.
    of: HashMap<HandleId, (u8, u64)>,
    /// How many sets went to the BMC, and the numbers of those that are there.
    sets: u64,
    on_their_way: BTreeSet<u64>,
}

/// A set on its way to the BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    real: u8,
    number: u64,
}

impl Enables {
    /// What this controller sees, if that is not simply what the BMC has.
    pub fn seen_by(&self, controller: HandleId) -> Option<u8> {
        if self.of.is_empty() {
            return None;
        }
        self.of.get(&controller).map(|(value, _)| *value).or(self.base)
    }

    /// What the BMC must have when this controller sets `value`; `None` until the base is known.
    pub fn wanted(&self, controller: HandleId, value: u8) -> Option<u8> {
        let others = self.of.iter().filter(|(of, _)| **of != controller);
        Some(others.fold(self.base? | value, |all, (_, (value, _))| all | value))
    }

    /// The BMC was asked.
    pub fn learn(&mut self, value: u8) {
        if self.of.is_empty() {
            self.base = Some(value);
        }
        self.real = Some(value);
    }

    /// A set goes to the BMC.
    pub fn sent(&mut self, real: u8) -> Setting {
        self.sets += 1;
        self.on_their_way.insert(self.sets);
        Setting { real, number: self.sets }
    }

    /// The BMC took a setting; `whose` is the controller that is still there, and what it wanted.
    pub fn took(&mut self, setting: Setting, whose: Option<(HandleId, u8)>) {
        if let Some((controller, value)) = whose {
            let set = self.of.entry(controller).or_insert((value, setting.number));
            // Its answer may come when a newer one has its own.
            if set.1 < setting.number {
                *set = (value, setting.number);
            }
        }
        self.settled(setting, Some(setting.real));
    }

    /// It is not known whether the BMC takes it; it still has it.
    pub fn in_doubt(&mut self) {
        self.real = None;
    }

    /// The back end did not take it.
    pub fn refused(&mut self, setting: Setting) {
        self.on_their_way.remove(&setting.number);
        self.look_again_when_nobody_set();
    }

    /// The BMC may have taken it, or not.
    pub fn failed(&mut self, setting: Setting) {
        self.settled(setting, None);
    }

    fn settled(&mut self, setting: Setting, real: Option<u8>) {
        self.on_their_way.remove(&setting.number);
        // Where a later one is on its way, or was before this: who knows which came last.
        self.real = real.filter(|_| setting.number == self.sets);
        self.look_again_when_nobody_set();
    }

    /// What the BMC must have, if it has something else or that is not known: others may have set or
    /// gone while a set was on its way.
    pub fn unsettled(&self) -> Option<u8> {
        self.left().filter(|left| self.real != Some(*left))
    }

    /// The BMC was reset, and its enables with it.
    pub fn distrust(&mut self) {
        self.real = None;
        if self.of.is_empty() && self.on_their_way.is_empty() {
            self.base = None;
        }
    }

    /// A controller is gone. What the BMC must have now, if that is something else.
    pub fn forget(&mut self, controller: HandleId) -> Option<u8> {
        let left = self.of.remove(&controller).and_then(|_| self.unsettled());
        self.look_again_when_nobody_set();
        left
    }

    /// What the BMC must have for those who are there.
    fn left(&self) -> Option<u8> {
        Some(self.of.values().fold(self.base?, |all, (value, _)| all | value))
    }

    /// Controllers that have set them.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Somebody beside us may set it while none of us has, once the BMC has what it had before.
    fn look_again_when_nobody_set(&mut self) {
        let is_base = self.real.is_some() && self.real == self.base;
        if self.of.is_empty() && self.on_their_way.is_empty() && is_base {
            self.base = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: HandleId = HandleId(1);
    const B: HandleId = HandleId(2);

    #[test]
    fn the_bmc_has_what_anybody_wants_and_each_sees_its_own() {
        let mut enables = Enables::default();
        assert_eq!(enables.wanted(A, 0x08), None, "first the BMC is asked");
        enables.learn(0x01);
        assert_eq!(enables.seen_by(A), None);
        let real = enables.wanted(A, 0x08).unwrap();
        assert_eq!(real, 0x09);
        let sent = enables.sent(real);
        enables.took(sent, Some((A, 0x08)));
        assert_eq!(enables.unsettled(), None);
        assert_eq!((enables.seen_by(A), enables.seen_by(B)), (Some(0x08), Some(0x01)));
        let real = enables.wanted(B, 0x00).unwrap();
        assert_eq!(real, 0x09, "nobody switches off what another needs");
        let sent = enables.sent(real);
        enables.took(sent, Some((B, 0x00)));
        assert_eq!(enables.forget(A), Some(0x01));
        let sent = enables.sent(0x01);
        enables.took(sent, None);
        assert_eq!(enables.unsettled(), None);
        assert_eq!(enables.forget(B), None);
        assert_eq!(enables.wanted(A, 0x08), None, "it is asked again");
    }

    #[test]
    fn two_sets_on_their_way_together_are_put_right() {
        let mut enables = Enables::default();
        enables.learn(0x01);
        let (a, b) = (enables.wanted(A, 0x08).unwrap(), enables.wanted(B, 0x04).unwrap());
        let (a, b) = (enables.sent(a), enables.sent(b));
        enables.took(a, Some((A, 0x08)));
        enables.took(b, Some((B, 0x04)));
        assert_eq!(enables.unsettled(), Some(0x0d), "the BMC has 05");
        let restored = enables.sent(0x0d);
        enables.took(restored, None);
        assert_eq!(enables.unsettled(), None);
        let gone = enables.sent(0x2d);
        enables.forget(A);
        enables.took(gone, None);
        assert_eq!(enables.unsettled(), Some(0x05), "its sender is gone");
        let lost = enables.sent(0x05);
        enables.failed(lost);
        assert_eq!(enables.unsettled(), Some(0x05), "it may have taken it, or not");
    }
}
