// SPDX-License-Identifier: MIT OR Apache-2.0
//! Global enables (IPMI 2.0 section 22.1), per virtual controller. The BMC has what it had before, and
//! with it all that any controller has switched on: who switches events off does so for itself.

use std::collections::HashMap;

use super::HandleId;

#[derive(Debug, Default)]
pub(super) struct Enables {
    /// What the BMC had before any of us set something.
    base: Option<u8>,
    /// What it has now, as far as we know.
    real: Option<u8>,
    of: HashMap<HandleId, u8>,
}

impl Enables {
    /// What this controller sees, if that is not simply what the BMC has.
    pub fn seen_by(&self, controller: HandleId) -> Option<u8> {
        if self.of.is_empty() {
            return None;
        }
        self.of.get(&controller).copied().or(self.base)
    }

    /// What the BMC must have when this controller sets `value`; `None` until the base is known.
    pub fn wanted(&self, controller: HandleId, value: u8) -> Option<u8> {
        let others = self.of.iter().filter(|(of, _)| **of != controller);
        Some(others.fold(self.base? | value, |all, (_, value)| all | value))
    }

    /// Whether the BMC has this already.
    pub fn is_real(&self, value: u8) -> bool {
        self.real == Some(value)
    }

    /// The BMC was asked.
    pub fn learn(&mut self, value: u8) {
        if self.of.is_empty() {
            self.base = Some(value);
        }
        self.real = Some(value);
    }

    /// The BMC has `real` now, with `value` of this controller in it.
    pub fn set(&mut self, controller: HandleId, value: u8, real: u8) {
        self.of.insert(controller, value);
        self.real = Some(real);
    }

    /// The BMC was set by the mux.
    pub fn restored(&mut self, real: u8) {
        self.real = Some(real);
        self.look_again_when_nobody_set();
    }

    /// The BMC was reset, and its enables with it.
    pub fn distrust(&mut self) {
        self.real = None;
        self.look_again_when_nobody_set();
    }

    /// A controller is gone. What the BMC must have now, if that is something else.
    pub fn forget(&mut self, controller: HandleId) -> Option<u8> {
        self.of.remove(&controller)?;
        let left = self.left();
        if left.is_none_or(|left| self.is_real(left)) {
            self.look_again_when_nobody_set();
            return None;
        }
        left
    }

    /// What the BMC must have for those who are there.
    pub fn left(&self) -> Option<u8> {
        Some(self.of.values().fold(self.base?, |all, value| all | value))
    }

    /// Somebody beside us may set it while none of us has.
    fn look_again_when_nobody_set(&mut self) {
        if self.of.is_empty() {
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
        enables.set(A, 0x08, real);
        assert_eq!((enables.seen_by(A), enables.seen_by(B)), (Some(0x08), Some(0x01)));
        let real = enables.wanted(B, 0x00).unwrap();
        assert_eq!(real, 0x09, "nobody switches off what another needs");
        assert!(enables.is_real(real));
        enables.set(B, 0x00, real);
        assert_eq!(enables.forget(A), Some(0x01));
        enables.restored(0x01);
        assert_eq!(enables.forget(B), None);
        assert_eq!(enables.wanted(A, 0x08), None, "it is asked again");
    }
}
