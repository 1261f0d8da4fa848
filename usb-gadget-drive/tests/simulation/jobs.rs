// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the core wants done: the shell, as it is in a world where some of it fails.

use usb_gadget_drive::arbiter::{
    Access, BladeName, Claim, Job, OverlayRef, Request, SessionId, ShareName,
};
use usb_gadget_drive::overlay;
use usb_gadget_drive::source::Source;
use usb_gadget_drive::state;

use super::{Connection, Pending, Slot, World};
use crate::model::Model;

impl World {
    /// Does one of the things the core wants done.
    pub fn work(&mut self) -> Result<(), String> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let index = self.rng.index(self.pending.len());
        match self.pending.swap_remove(index) {
            Pending::Store(version, state) => {
                let fails = self.faults && self.rng.permille(30);
                let result = if fails {
                    self.count("stores failed");
                    Err("no space".to_owned())
                } else {
                    state::store(&self.state_dir, &state).map_err(|error| error.to_string())
                };
                if !self.disk.is_off() {
                    self.arbiter.stored(self.time(), version, result);
                }
            }
            Pending::Job(job, what) => {
                let result = self.carry_out(&what)?;
                if let Some(result) = result.filter(|_| !self.disk.is_off()) {
                    self.say(|| format!("{job:?} -> {result:?}"));
                    self.arbiter.done(self.time(), job, result);
                }
            }
        }
        Ok(())
    }

    /// `None` if there is no answer, or comes later by itself.
    fn carry_out(&mut self, what: &Job) -> Result<Option<Result<(), String>>, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        Ok(Some(match what {
            Job::Eject { share, blade, forced } => return Ok(self.eject(share, blade, *forced)),
            Job::Insert { share, blade, epoch } => return self.insert(share, blade, *epoch),
            Job::Cut { share, overlay, epoch, sessions } => {
                self.cut(&(share.clone(), overlay.clone()), *epoch, sessions);
                Ok(())
            }
            Job::Flush { share, overlay: None } => self.flush_base(share),
            Job::Flush { share, overlay: Some(blade) } => self.flush_overlay(share, blade),
            Job::Make(of) => {
                self.forget_overlay(of);
                overlay::create(&self.disk, &self.header(of)).map_err(|error| text(&error))
            }
            Job::Remove(of) => {
                self.forget_overlay(of);
                overlay::remove(&self.disk, &of.share, &of.blade).map_err(|error| text(&error))
            }
            Job::Commit(of) => self.commit(of)?,
        }))
    }

    fn forget_overlay(&mut self, of: &OverlayRef) {
        let slot = (of.share.clone(), Some(of.blade.clone()));
        self.overlays.retain(|(of, _), _| *of != slot);
    }

    fn flush_base(&mut self, share: &ShareName) -> Result<(), String> {
        let fails = self.faults && self.rng.permille(50);
        if fails {
            self.given_up.insert(share.clone());
            return Err("input/output error".to_owned());
        }
        self.given_up.remove(share);
        let flushed = self.base(share)?.flush().map_err(|error| error.to_string());
        if flushed.is_ok()
            && let Some(model) = self.bases.get_mut(share)
        {
            model.flush();
        }
        flushed
    }

    fn flush_overlay(&mut self, share: &ShareName, blade: &BladeName) -> Result<(), String> {
        let slot = (share.clone(), Some(blade.clone()));
        let open: Vec<_> = self.open.iter().filter(|((of, _), _)| *of == slot).collect();
        let open = open.into_iter().find_map(|((_, id), open)| Some((*id, open.upgrade()?)));
        let Some((id, open)) = open else { return Ok(()) };
        open.flush().map_err(|error| error.to_string())?;
        if let Some(model) = self.overlays.get_mut(&(slot, id)) {
            model.flush();
        }
        Ok(())
    }

    fn commit(&mut self, of: &OverlayRef) -> Result<Result<(), String>, String> {
        let open = match self.open_overlay(of) {
            Ok(open) => open,
            Err(_) if self.disk.is_off() => return Ok(Err("off".to_owned())),
            Err(error) => return Err(format!("to be committed: {error}")),
        };
        let slot = (of.share.clone(), Some(of.blade.clone()));
        self.new_overlay_model(&slot, of.id);
        let mut left = if self.faults && self.rng.permille(200) { self.rng.below(4) } else { 1000 };
        let mut progress = |_, _| {
            left = left.saturating_sub(1);
            left > 0
        };
        let Ok(below) = self.base(&of.share) else { return Ok(Err("off".to_owned())) };
        let result = open.commit(&*below, &mut progress).map_err(|error| error.to_string());
        if result.is_ok() {
            let model = self.overlays[&(slot, of.id)].clone();
            model.check_all(&*below).map_err(|error| format!("after a commit: {error}"))?;
            self.bases.insert(of.share.clone(), Model::with(model.now()));
            self.keep_image(&of.share);
        }
        Ok(result)
    }

    /// The agent is asked to eject. Sometimes it cannot be reached, or its host does not want to.
    fn eject(
        &mut self,
        share: &ShareName,
        blade: &BladeName,
        forced: bool,
    ) -> Option<Result<(), String>> {
        match self.rng.below(if self.faults { 10 } else { 1 }) {
            1 | 2 if !forced => return Some(Err("it is mounted".to_owned())),
            3 | 4 => return None,
            _ => {}
        }
        let is_its = |c: &Connection| c.share == *share && c.blade == *blade;
        let its: Vec<Connection> = self.connections.iter().filter(|c| is_its(c)).cloned().collect();
        if !forced {
            for connection in &its {
                let _ = self.flush(connection);
            }
        }
        self.connections.retain(|c| !is_its(c));
        for connection in its {
            if forced || self.rng.permille(100) {
                self.arbiter.lost(connection.grant.session);
                self.zombies.push(connection);
            } else {
                self.arbiter.detached(self.time(), connection.grant.session);
            }
        }
        Some(Ok(()))
    }

    fn insert(
        &mut self,
        share: &ShareName,
        blade: &BladeName,
        epoch: u64,
    ) -> Result<Option<Result<(), String>>, String> {
        self.tell(&(share.clone(), None), blade, epoch)?;
        self.claims.push((share.clone(), blade.clone(), epoch));
        if self.faults && self.rng.permille(150) {
            return Ok(None);
        }
        let (share, blade) = (share.clone(), blade.clone());
        self.request(Request::Attach {
            share,
            blade,
            access: Access::Write,
            claim: Claim::Epoch(epoch),
        });
        self.take_actions()?;
        Ok(Some(Ok(())))
    }

    fn cut(&mut self, slot: &Slot, epoch: Option<u64>, sessions: &[SessionId]) {
        self.count("cuts");
        if let Some(epoch) = epoch {
            for (_, fence) in self.fences.iter().filter(|((of, _), _)| of == slot) {
                fence.cut(epoch);
            }
            let told = self.told.entry(slot.clone()).or_default();
            told.cut = told.cut.max(epoch);
        }
        let (cut, kept) = std::mem::take(&mut self.connections)
            .into_iter()
            .partition(|c| sessions.contains(&c.grant.session));
        self.connections = kept;
        self.zombies.extend::<Vec<Connection>>(cut);
    }
}
