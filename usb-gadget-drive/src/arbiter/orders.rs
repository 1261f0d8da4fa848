// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the operator orders.

use super::ops::{Key, Op, Stage, Task};
use super::{
    Access, Arbiter, BladeName, Mode, Now, Outcome, OverlayState, Phase, Refusal, Share, ShareName,
    Ticket,
};

impl Arbiter {
    pub(super) fn hand_over(
        &mut self,
        now: Now,
        ticket: Ticket,
        share: ShareName,
        from: Option<BladeName>,
        to: BladeName,
        force: bool,
    ) -> Result<(), Refusal> {
        let configured = self.configured(&share)?;
        let remedy = if configured.mode != Mode::Exclusive {
            Some("only an exclusive share has one writer at a time")
        } else if configured.right(&to) != Some(Access::Write) {
            Some("give it the right in the configuration of the share")
        } else {
            None
        };
        if let Some(remedy) = remedy {
            let remedy = remedy.to_owned();
            return Err(Refusal::Denied { share, blade: to, what: "to write to", remedy });
        }
        self.check_storage()?;
        let key = (share, None);
        self.check_idle(&key)?;
        self.check_no_readers(&key.0)?;
        let lease = self.state.shares.get(&key.0).and_then(|state| state.lease.clone());
        let holder = lease.as_ref().map(|lease| &lease.blade);
        if from.is_some() && from.as_ref() != holder {
            let by = self.show_lease(&key.0);
            let remedy = "name that blade, or none".to_owned();
            return Err(Refusal::Busy { share: key.0, by, remedy });
        }
        let task = |from| Task::Move { ticket: Some(ticket), from, to: Some(to.clone()), force };
        match lease {
            None => self.change(now, key, Op::new(task(None))),
            Some(lease) if lease.blade == to && lease.is_known => {
                self.answer(ticket, Ok(Outcome::Done(Some("it has it already".to_owned()))));
            }
            Some(lease) if lease.blade == to => {
                let until = now.mono + self.limits.insert;
                self.enter(now, key, Op::new(task(None)), Stage::Inserting { until });
            }
            Some(lease) => {
                let until = now.mono + self.limits.eject;
                let op = Op::new(task(Some(lease.blade)));
                self.enter(now, key, op, Stage::Ejecting { forced: false, until });
            }
        }
        Ok(())
    }

    pub(super) fn eject(
        &mut self,
        now: Now,
        ticket: Ticket,
        share: ShareName,
        blade: BladeName,
        force: bool,
    ) -> Result<(), Refusal> {
        self.configured(&share)?;
        self.check_storage()?;
        let lease = self.state.shares.get(&share).and_then(|state| state.lease.as_ref());
        let writes = lease.is_some_and(|lease| lease.blade == blade);
        let key = (share, (!writes).then(|| blade.clone()));
        self.check_idle(&key)?;
        let task = Task::Move { ticket: Some(ticket), from: Some(blade), to: None, force };
        let until = now.mono + self.limits.eject;
        self.enter(now, key, Op::new(task), Stage::Ejecting { forced: false, until });
        Ok(())
    }

    pub(super) fn commit(
        &mut self,
        now: Now,
        ticket: Ticket,
        share: ShareName,
        blade: BladeName,
    ) -> Result<(), Refusal> {
        let is_writable = self.configured(&share)?.is_writable;
        self.check_storage()?;
        let overlay = self.overlay(&share, &blade)?;
        if !is_writable {
            let what = "to commit to";
            let remedy = "what is below can only be read: discard the overlay, or share something \
                          that can be written"
                .to_owned();
            return Err(Refusal::Denied { share, blade, what, remedy });
        }
        self.check_alone(&share, &blade)?;
        let generation = self.share_state(&share).generation;
        let task = Task::Commit { ticket: Some(ticket), blade: blade.clone() };
        let stage = match overlay.phase {
            Phase::Committing => Stage::Committing,
            Phase::Ready if overlay.generation == generation => Stage::Cutting,
            Phase::Ready => {
                let made = overlay.generation;
                let what = format!(
                    "the overlay is over generation {made} and the share is at {generation}"
                );
                let remedy = "discard it".to_owned();
                return Err(Refusal::Failed { share, blade, what, remedy });
            }
            Phase::Making | Phase::Removing => {
                return Err(Refusal::NoOverlay { share, blade });
            }
        };
        self.enter(now, (share, Some(blade)), Op::new(task), stage);
        Ok(())
    }

    /// Nobody but this overlay depends on what is below.
    fn check_alone(&self, share: &ShareName, blade: &BladeName) -> Result<(), Refusal> {
        let busy = |by, remedy| Err(Refusal::Busy { share: share.clone(), by, remedy });
        if let Some((_, op)) = self.ops.iter().find(|(key, _)| key.0 == *share) {
            return busy(op.show(), "try again when that is done".to_owned());
        }
        let overlays = self.state.shares.get(share).into_iter().flat_map(|s| s.overlays.keys());
        let others: Vec<&str> = overlays.filter(|b| *b != blade).map(BladeName::as_str).collect();
        if !others.is_empty() {
            let by =
                format!("has overlays of other blades over the same base ({})", others.join(", "));
            let remedy = format!(
                "discard them first: `usb-gadget-drive overlay discard {share} {}`",
                others[0]
            );
            return busy(by, remedy);
        }
        if let Some(used) = self.sessions.values().find(|session| session.share == *share) {
            let by = format!("is used by blade {}", used.blade);
            let remedy =
                format!("eject it there first: `usb-gadget-drive eject {share} {}`", used.blade);
            return busy(by, remedy);
        }
        if self.state.shares.get(share).is_some_and(|state| state.lease.is_some()) {
            return busy(self.show_lease(share), "eject it there first".to_owned());
        }
        Ok(())
    }

    pub(super) fn discard(
        &mut self,
        now: Now,
        ticket: Ticket,
        share: ShareName,
        blade: BladeName,
    ) -> Result<(), Refusal> {
        self.configured(&share)?;
        self.check_storage()?;
        let overlay = self.overlay(&share, &blade)?;
        let key = (share, Some(blade.clone()));
        self.check_idle(&key)?;
        let busy = |by, remedy| Err(Refusal::Busy { share: key.0.clone(), by, remedy });
        if self.sessions_of(&key.0, &blade).next().is_some() {
            let by = format!("is used by blade {blade}");
            let remedy =
                format!("eject it there first: `usb-gadget-drive eject {} {blade}`", key.0);
            return busy(by, remedy);
        }
        let stage = match overlay.phase {
            Phase::Ready => Stage::Cutting,
            Phase::Making | Phase::Removing => Stage::Removing,
            Phase::Committing => {
                let by = format!("is half overwritten by the overlay of blade {blade}");
                return busy(by, "commit it again: only that makes the share whole".to_owned());
            }
        };
        let op = Op::new(Task::Discard { ticket: Some(ticket), blade });
        self.enter(now, key, op, stage);
        Ok(())
    }

    fn configured(&self, share: &ShareName) -> Result<&Share, Refusal> {
        self.shares.get(share).ok_or_else(|| Refusal::Unknown { share: share.clone() })
    }

    fn overlay(&self, share: &ShareName, blade: &BladeName) -> Result<OverlayState, Refusal> {
        let overlay = self.state.shares.get(share).and_then(|state| state.overlays.get(blade));
        overlay
            .cloned()
            .ok_or_else(|| Refusal::NoOverlay { share: share.clone(), blade: blade.clone() })
    }

    fn check_idle(&self, key: &Key) -> Result<(), Refusal> {
        let Some(op) = self.ops.get(key) else { return Ok(()) };
        let (by, remedy) = (op.show(), "try again when that is done".to_owned());
        Err(Refusal::Busy { share: key.0.clone(), by, remedy })
    }
}
