// SPDX-License-Identifier: MIT OR Apache-2.0
//! How one step leads to the next.

use super::ops::{Key, Op, Stage, Task};
use super::{
    Action, Arbiter, BladeName, Job, JobId, Lease, Now, Outcome, OverlayRef, OverlayState, Phase,
    Refusal, SessionId, ShareName,
};

impl Arbiter {
    /// Begins a step.
    pub(super) fn enter(&mut self, now: Now, key: Key, mut op: Op, stage: Stage) {
        op.stage = stage;
        let share = key.0.clone();
        let what = match (stage, &op.task) {
            (Stage::Ejecting { forced, .. }, Task::Move { from: Some(blade), .. }) => {
                Job::Eject { share, blade: blade.clone(), forced }
            }
            (Stage::Cutting, _) => self.cut_job(&key, &op.task),
            (Stage::Flushing, _) => Job::Flush { share, overlay: key.1.clone() },
            (Stage::Inserting { .. }, Task::Move { to: Some(blade), .. }) => {
                let epoch = self.share_state(&share).epoch;
                Job::Insert { share, blade: blade.clone(), epoch }
            }
            (Stage::Making, _) => Job::Make(self.overlay_ref(&key)),
            (Stage::Committing, _) => Job::Commit(self.overlay_ref(&key)),
            (Stage::Removing, _) => Job::Remove(self.overlay_ref(&key)),
            (Stage::Storing(version) | Stage::Finishing(version), _) => {
                if version <= self.storing.stored {
                    self.stepped(now, key, op, Ok(()));
                } else {
                    self.ops.insert(key, op);
                }
                return;
            }
            // Nobody to be asked.
            (Stage::Ejecting { .. } | Stage::Inserting { .. }, _) => {
                self.stepped(now, key, op, Ok(()));
                return;
            }
        };
        let job = JobId(self.next_id());
        self.jobs.insert(job, key.clone());
        self.ops.insert(key, op);
        self.actions.push_back(Action::Do { job, what });
    }

    /// A step is done, or failed for this reason. The operation is not in the table.
    pub(super) fn stepped(&mut self, now: Now, key: Key, op: Op, result: Result<(), String>) {
        match (op.stage, result) {
            (Stage::Ejecting { forced, .. }, result) => self.ejected(now, key, op, forced, result),
            (Stage::Cutting, _) => self.was_cut(now, key, op),
            (Stage::Flushing, result) => self.flushed(now, key, op, result),
            (Stage::Storing(_), _) => self.go_on(now, key, op),
            (Stage::Finishing(_), _) => self.finish(now, &key, op),
            (Stage::Inserting { .. }, result) => self.inserted(now, &key, op, result),
            (Stage::Making, Ok(())) => {
                self.set_phase(&key, Phase::Ready);
                let stage = Stage::Finishing(self.store());
                self.enter(now, key, op, stage);
            }
            (Stage::Making, Err(reason)) => self.not_made(now, key, op, reason),
            (Stage::Committing, Ok(())) => {
                self.share_state(&key.0).generation += 1;
                self.set_phase(&key, Phase::Removing);
                let stage = Stage::Storing(self.store());
                self.enter(now, key, op, stage);
            }
            (Stage::Committing, Err(reason)) => {
                let what = format!(
                    "the commit stopped: {reason}; the share is part old and part new, and nobody gets it"
                );
                let remedy = "commit again when the cause is gone";
                self.fail(now, &key, op, what, remedy);
            }
            (Stage::Removing, Ok(())) => {
                if let Some(blade) = &key.1 {
                    self.share_state(&key.0).overlays.remove(blade);
                }
                let stage = Stage::Finishing(self.store());
                self.enter(now, key, op, stage);
            }
            (Stage::Removing, Err(reason)) => {
                let what = format!("the overlay's file cannot be removed: {reason}");
                self.fail(now, &key, op, what, "discard it again when the cause is gone");
            }
        }
    }

    fn ejected(
        &mut self,
        now: Now,
        key: Key,
        mut op: Op,
        was_forced: bool,
        result: Result<(), String>,
    ) {
        let Task::Move { from, force, .. } = &op.task else { return };
        let (from, force) = (from.clone(), *force);
        match result {
            Ok(()) => self.enter(now, key, op, Stage::Cutting),
            Err(reason) if was_forced => {
                op.note = Some(format!("the drive was not seen to be ejected: {reason}"));
                self.enter(now, key, op, Stage::Cutting);
            }
            Err(_) if force => {
                let until = now.mono + self.limits.forced_eject;
                self.enter(now, key, op, Stage::Ejecting { forced: true, until });
            }
            Err(reason) => {
                let share = key.0.clone();
                let from = from.as_ref().map_or("its blade", BladeName::as_str);
                let by = format!("is not let go by blade {from}: {reason}");
                let remedy =
                    "unmount it there, or repeat with --force, which loses what its host has \
                              not written"
                        .to_owned();
                self.refuse(now, &key, op, Refusal::Busy { share, by, remedy });
            }
        }
    }

    /// Nothing of the sessions before reaches the disk any more.
    fn was_cut(&mut self, now: Now, key: Key, op: Op) {
        match &op.task {
            Task::Attach { .. } => self.change(now, key, op),
            Task::Discard { .. } => {
                self.set_phase(&key, Phase::Removing);
                let stage = Stage::Storing(self.store());
                self.enter(now, key, op, stage);
            }
            // A reader leaves nothing behind.
            Task::Move { .. } if key.1.is_some() && !self.has_overlay(&key) => {
                self.finish(now, &key, op);
            }
            Task::Close | Task::Move { .. } | Task::Commit { .. } => {
                self.enter(now, key, op, Stage::Flushing);
            }
        }
    }

    fn flushed(&mut self, now: Now, key: Key, mut op: Op, result: Result<(), String>) {
        let forced = matches!(op.task, Task::Move { force: true, .. });
        if let Err(reason) = result {
            let what = format!("the flush failed: {reason}");
            if !forced {
                let remedy = "mend the device, or repeat with --force, which loses what was not flushed before";
                self.fail(now, &key, op, what, remedy);
                return;
            }
            op.note = Some(what);
        }
        if matches!(op.task, Task::Commit { .. }) {
            self.set_phase(&key, Phase::Committing);
            let stage = Stage::Storing(self.store());
            self.enter(now, key, op, stage);
        } else {
            self.change(now, key, op);
        }
    }

    /// What the task is about, decided now and told to nobody before it is on stable storage.
    pub(super) fn change(&mut self, now: Now, key: Key, op: Op) {
        self.cut.remove(&key);
        self.left.remove(&key.0);
        let (writer, is_known) = match &op.task {
            Task::Attach { blade, .. } => (Some(blade.clone()), true),
            Task::Move { to, .. } => (to.clone(), false),
            _ => (None, true),
        };
        let state = self.share_state(&key.0);
        let epoch = state.epoch + 1;
        match &key.1 {
            None => {
                if state.lease.is_some() {
                    state.generation += 1;
                }
                state.lease = writer.map(|blade| Lease { blade, epoch, since: now.unix, is_known });
                if state.lease.is_some() {
                    state.epoch = epoch;
                }
            }
            Some(blade) => {
                state.epoch = epoch;
                let (generation, since) = (state.generation, now.unix);
                let new =
                    || OverlayState { id: epoch, epoch, generation, since, phase: Phase::Making };
                state.overlays.entry(blade.clone()).or_insert_with(new).epoch = epoch;
            }
        }
        let stage = Stage::Storing(self.store());
        self.enter(now, key, op, stage);
    }

    /// The change is on stable storage.
    fn go_on(&mut self, now: Now, key: Key, op: Op) {
        let phase = self.overlay_phase(&key);
        let stage = match (&op.task, phase) {
            (Task::Attach { .. }, Some(Phase::Making)) => Stage::Making,
            (Task::Move { to: Some(_), .. }, _) => {
                Stage::Inserting { until: now.mono + self.limits.insert }
            }
            (Task::Commit { .. }, Some(Phase::Committing)) => Stage::Committing,
            (Task::Commit { .. } | Task::Discard { .. }, _) => Stage::Removing,
            _ => return self.finish(now, &key, op),
        };
        self.enter(now, key, op, stage);
    }

    fn inserted(&mut self, now: Now, key: &Key, op: Op, result: Result<(), String>) {
        if let Err(reason) = result {
            let epoch = self.share_state(&key.0).epoch;
            let what = format!(
                "it has the share now (lease epoch {epoch}), but the drive was not seen to be inserted: {reason}"
            );
            self.fail(now, key, op, what, "it is inserted when its agent comes back");
            return;
        }
        if let Some(lease) = &mut self.share_state(&key.0).lease {
            lease.is_known = true;
        }
        // Nobody waits for this: at worst it is inserted again, where it is already.
        self.store();
        self.finish(now, key, op);
    }

    fn not_made(&mut self, now: Now, key: Key, op: Op, reason: String) {
        let Some(blade) = key.1.clone() else { return };
        self.set_phase(&key, Phase::Removing);
        self.store();
        let remedy = "make room where overlays are kept, or name another place";
        self.fail(now, &key, op, format!("the overlay cannot be made: {reason}"), remedy);
        if !self.ops.contains_key(&key) {
            let op = Op::new(Task::Discard { ticket: None, blade });
            self.enter(now, key, op, Stage::Removing);
        }
    }

    fn finish(&mut self, now: Now, key: &Key, op: Op) {
        let result = match &op.task {
            Task::Attach { blade, access, .. } => {
                let state = self.share_state(&key.0);
                let epoch = match &key.1 {
                    None => state.lease.as_ref().map(|lease| lease.epoch),
                    Some(blade) => state.overlays.get(blade).map(|overlay| overlay.epoch),
                };
                let (blade, access) = (blade.clone(), *access);
                self.grant(&key.0, &blade, access, epoch, None).map(Outcome::Granted)
            }
            _ => Ok(Outcome::Done(op.note.clone())),
        };
        self.end(now, key, op, result);
    }

    fn fail(&mut self, now: Now, key: &Key, op: Op, what: String, remedy: &str) {
        let blade = match &op.task {
            Task::Attach { blade, .. }
            | Task::Commit { blade, .. }
            | Task::Discard { blade, .. }
            | Task::Move { to: Some(blade), .. }
            | Task::Move { from: Some(blade), .. } => Some(blade.clone()),
            Task::Close | Task::Move { .. } => {
                self.share_state(&key.0).lease.as_ref().map(|lease| lease.blade.clone())
            }
        };
        let Some(blade) = blade else { return self.end(now, key, op, Ok(Outcome::Done(None))) };
        let (share, remedy) = (key.0.clone(), remedy.to_owned());
        self.refuse(now, key, op, Refusal::Failed { share, blade, what, remedy });
    }

    fn refuse(&mut self, now: Now, key: &Key, op: Op, refusal: Refusal) {
        self.end(now, key, op, Err(refusal));
    }

    fn end(&mut self, now: Now, key: &Key, op: Op, result: Result<Outcome, Refusal>) {
        if let Some(ticket) = op.ticket() {
            self.answer(ticket, result);
        }
        for (ticket, request) in op.parked {
            self.request(now, ticket, request);
        }
        if key.1.is_none() {
            self.settle(now, &key.0);
        }
    }

    /// Closes an exclusive share whose writer ended in good order, unless something else is going on with it.
    pub(super) fn settle(&mut self, now: Now, share: &ShareName) {
        let key = (share.clone(), None);
        let has_lease = self.share_state(share).lease.is_some();
        if !self.ops.contains_key(&key) && self.left.remove(share) && has_lease {
            self.enter(now, key, Op::new(Task::Close), Stage::Cutting);
        }
    }

    fn cut_job(&mut self, key: &Key, task: &Task) -> Job {
        let (share, overlay) = key.clone();
        let state = self.share_state(&share);
        let (epoch, of) = match &overlay {
            None => {
                let lease = state.lease.as_ref();
                (lease.map(|lease| lease.epoch), lease.map(|lease| lease.blade.clone()))
            }
            Some(blade) => (state.overlays.get(blade).map(|o| o.epoch), Some(blade.clone())),
        };
        // An eject takes the blade's sessions of any kind; the rest what has the epoch.
        let all = matches!(task, Task::Move { .. });
        let is_cut = |s: &super::Session| {
            s.share == share
                && of.as_ref() == Some(&s.blade)
                && (all || epoch.is_some() && s.epoch == epoch)
        };
        let sessions: Vec<SessionId> =
            self.sessions.iter().filter(|(_, s)| is_cut(s)).map(|(id, _)| *id).collect();
        for id in &sessions {
            self.sessions.remove(id);
        }
        if epoch.is_some() {
            self.cut.insert(key.clone());
        }
        Job::Cut { share, overlay, epoch, sessions }
    }

    fn overlay_ref(&mut self, key: &Key) -> OverlayRef {
        let (share, blade) = key.clone();
        let blade = blade.expect("only a blade's key comes to these stages");
        let overlay = self.share_state(&share).overlays.get(&blade);
        let (id, generation) = overlay.map_or((0, 0), |o| (o.id, o.generation));
        OverlayRef { share, blade, id, generation }
    }

    fn overlay_phase(&self, key: &Key) -> Option<Phase> {
        let overlays = &self.state.shares.get(&key.0)?.overlays;
        overlays.get(key.1.as_ref()?).map(|overlay| overlay.phase)
    }

    fn has_overlay(&self, key: &Key) -> bool {
        self.overlay_phase(key).is_some()
    }

    fn set_phase(&mut self, key: &Key, phase: Phase) {
        let Some(blade) = &key.1 else { return };
        if let Some(overlay) = self.share_state(&key.0).overlays.get_mut(blade) {
            overlay.phase = phase;
        }
    }
}
