// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is the active manager: of all that are here and eligible, the one with the lowest address. A
//! comparison of plain values, which each member makes for itself; what must happen only once is not left to it.
//!
//! What this machine adds is its own eligibility: it withholds that for a while when it comes to a group that has a
//! manager, so that a machine which comes and goes does not take the manager along.

use super::timing::{ALONE, HOLD_DOWN};
use crate::wire::Micros;

/// Why this member is never eligible as things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// By its configuration: a blade that was given to a tenant.
    Configured,
    /// It is about to be taken out of service.
    Draining,
    /// It fails the probe of its own interface.
    Failing,
}

/// Whether this member may be the manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It has to be there for a while first: until this time, or for as long as is not known yet whether there
    /// is a manager.
    Waiting(Option<Micros>),
    /// It may.
    Eligible,
}

/// This member's own part in the election.
#[derive(Debug, Clone)]
pub(super) struct Eligibility {
    unfit: Vec<Unfit>,
    standing: Standing,
    /// Since when nobody is eligible that is here.
    alone: Option<Micros>,
}

impl Eligibility {
    pub fn new(leads: bool) -> Self {
        let unfit = if leads { vec![] } else { vec![Unfit::Configured] };
        Self { unfit, standing: Standing::Waiting(None), alone: None }
    }

    pub fn eligible(&self) -> bool {
        self.unfit.is_empty() && self.standing == Standing::Eligible
    }

    /// The first reason against it, and where it stands otherwise.
    pub fn standing(&self) -> (Option<Unfit>, Standing) {
        (self.unfit.iter().min().copied(), self.standing)
    }

    /// Notes or takes back a reason against it. Who becomes fit again waits as who returns.
    pub fn set_unfit(&mut self, unfit: Unfit, is: bool) {
        let was = self.unfit.contains(&unfit);
        self.unfit.retain(|other| *other != unfit);
        if is {
            self.unfit.push(unfit);
        }
        if was != is {
            self.standing = Standing::Waiting(None);
        }
    }

    /// It was away, or comes to a larger part of the group: it waits as who returns.
    pub fn hold_down(&mut self, now: Micros) {
        self.standing = Standing::Waiting(Some(now + HOLD_DOWN));
    }

    /// As things are: `others`, if anybody else here is eligible; `all`, if nobody is missing.
    pub fn update(&mut self, now: Micros, others: bool, all: bool) {
        let Standing::Waiting(until) = self.standing else {
            self.alone = None;
            return;
        };
        if others {
            self.alone = None;
            let until = until.unwrap_or(now + HOLD_DOWN);
            self.standing =
                if now >= until { Standing::Eligible } else { Standing::Waiting(Some(until)) };
        } else {
            let alone = *self.alone.get_or_insert(now);
            if all || now >= alone + ALONE {
                self.standing = Standing::Eligible;
                self.alone = None;
            }
        }
    }

    /// When [`Self::update`] would say something else, all else being the same.
    pub fn look_at(&self) -> Option<Micros> {
        match (self.standing, self.alone) {
            (Standing::Eligible, _) => None,
            (Standing::Waiting(_), Some(alone)) => Some(alone + ALONE),
            (Standing::Waiting(until), None) => until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_a_cold_start_nobody_waits_for_long() {
        let mut own = Eligibility::new(true);
        own.update(0, false, false);
        assert_eq!((own.eligible(), own.look_at()), (false, Some(ALONE)));
        own.update(ALONE, false, false);
        assert!(own.eligible());
        let mut own = Eligibility::new(true);
        own.update(0, false, true);
        assert!(own.eligible());
    }

    #[test]
    fn who_comes_to_a_manager_waits() {
        let mut own = Eligibility::new(true);
        own.update(0, false, false);
        own.update(10, true, true);
        assert_eq!((own.eligible(), own.look_at()), (false, Some(10 + HOLD_DOWN)));
        // The manager dies: somebody has to do it.
        own.update(20, false, false);
        assert_eq!(own.look_at(), Some(20 + ALONE));
        own.update(30, true, true);
        own.update(10 + HOLD_DOWN, true, true);
        assert!(own.eligible());
        own.set_unfit(Unfit::Draining, true);
        own.set_unfit(Unfit::Draining, true);
        assert!(!own.eligible());
        own.set_unfit(Unfit::Draining, false);
        own.update(10 + HOLD_DOWN, true, true);
        assert_eq!(own.standing(), (None, Standing::Waiting(Some(10 + 2 * HOLD_DOWN))));
    }

    #[test]
    fn a_tenants_blade_is_never_eligible() {
        let mut own = Eligibility::new(false);
        own.update(0, false, true);
        assert_eq!((own.eligible(), own.standing().0), (false, Some(Unfit::Configured)));
    }
}
