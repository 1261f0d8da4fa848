// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must hold, whatever happens.

use std::collections::BTreeSet;

use usb_gadget_drive::arbiter::{BladeName, OverlayRef, Phase, Refusal, Request, ShareName};
use usb_gadget_drive::state;

use super::{Connection, SHARES, Slot, Told, World, base_file, share};
use crate::model::End;

impl World {
    pub fn refused(&mut self, request: &Request, refusal: &Refusal) -> Result<(), String> {
        self.count("refusals");
        let (share, text) = match request {
            Request::Attach { share, .. }
            | Request::HandOver { share, .. }
            | Request::Eject { share, .. }
            | Request::Commit { share, .. }
            | Request::Discard { share, .. } => (share, refusal.to_string()),
        };
        let names_it = text.contains(&format!("share {share}")) || text.contains("the state");
        if names_it {
            Ok(())
        } else {
            Err(format!("a refusal that does not name its share: {text}"))
        }
    }

    /// Nobody is told of an epoch that could be forgotten.
    fn check_durable(&self, slot: &Slot, epoch: u64) -> Result<(), String> {
        let bytes =
            self.state_dir.durable(state::FILE).ok_or("an epoch was told before any was stored")?;
        let state = state::decode(&bytes).map_err(|error| format!("{error:?}"))?;
        let of_share = state.shares.get(&slot.0).ok_or("a share that was not stored")?;
        let stored = match &slot.1 {
            None => of_share.lease.as_ref().map(|lease| lease.epoch),
            Some(blade) => of_share.overlays.get(blade).map(|overlay| overlay.epoch),
        };
        if stored == Some(epoch) && of_share.epoch >= epoch {
            return Ok(());
        }
        Err(format!("{slot:?} was told epoch {epoch} when {stored:?} was on stable storage"))
    }

    /// Somebody hears of an epoch.
    pub fn tell(&mut self, slot: &Slot, blade: &BladeName, epoch: u64) -> Result<(), String> {
        self.check_durable(slot, epoch)?;
        let told = self.told.get(slot).cloned().unwrap_or_default();
        if epoch < told.epoch || epoch <= told.cut {
            let Told { epoch: was, cut, .. } = told;
            return Err(format!("{slot:?}: epoch {epoch} after {was}, cut {cut}"));
        }
        if epoch == told.epoch && told.blade.as_ref() != Some(blade) {
            return Err(format!("{slot:?}: {blade} has epoch {epoch} of {:?}", told.blade));
        }
        if epoch > told.epoch && told.blade.as_ref() != Some(blade) {
            // What the one before was told to be written is there for good.
            self.hand_over_model(slot);
        }
        let told = Told { epoch, cut: told.cut, blade: Some(blade.clone()) };
        self.told.insert(slot.clone(), told);
        Ok(())
    }

    fn hand_over_model(&mut self, slot: &Slot) {
        if slot.1.is_none()
            && !self.given_up.contains(&slot.0)
            && let Some(model) = self.bases.get_mut(&slot.0)
        {
            model.flush();
        }
    }

    /// Never two writers, and no reader beside one.
    pub fn check_sessions(&self) -> Result<(), String> {
        let mut writers = BTreeSet::new();
        let mut readers = 0;
        for (_, session) in self.arbiter.sessions() {
            if session.share.as_str() == "x" {
                match session.epoch {
                    Some(epoch) => drop(writers.insert((&session.blade, epoch))),
                    None => readers += 1,
                }
            }
        }
        if writers.len() > 1 || readers > 0 && !writers.is_empty() {
            return Err(format!("writers {writers:?} and {readers} readers at once"));
        }
        Ok(())
    }

    /// A request of this connection came through: it must have been allowed to.
    pub fn came_through(&mut self, connection: &Connection) -> Result<(), String> {
        let Some(epoch) = connection.grant.epoch else { return Ok(()) };
        let told = self.told.get(&connection.slot()).cloned().unwrap_or_default();
        if connection.boot != self.boot || epoch < told.epoch || epoch <= told.cut {
            let Told { epoch: now, cut, .. } = told;
            let (blade, share) = (&connection.blade, &connection.share);
            return Err(format!(
                "late write of {blade} to {share}, epoch {epoch}: now {now}, cut {cut}"
            ));
        }
        Ok(())
    }

    /// After a crash: what is there is what may be there.
    pub fn check_disk(&mut self, end: End) -> Result<(), String> {
        let state = self.arbiter.state().clone();
        let mut live = BTreeSet::new();
        for (share, of_share) in &state.shares {
            for (blade, overlay) in &of_share.overlays {
                if !matches!(overlay.phase, Phase::Ready | Phase::Committing) {
                    continue;
                }
                let (id, generation) = (overlay.id, overlay.generation);
                let of = OverlayRef { share: share.clone(), blade: blade.clone(), id, generation };
                let slot = (share.clone(), Some(blade.clone()));
                let open = self.open_overlay(&of)?;
                self.new_overlay_model(&slot, id);
                let model = self.overlays.get_mut(&(slot.clone(), id)).expect("made above");
                model.found(&*open, end).map_err(|e| format!("overlay {share}@{blade}: {e}"))?;
                live.insert((slot, id));
            }
        }
        self.overlays.retain(|key, _| live.contains(key));
        for (name, _) in SHARES {
            let share = share(name);
            let is_mixed = state.shares.get(&share).is_some_and(|state| {
                state.overlays.values().any(|overlay| overlay.phase == Phase::Committing)
            });
            if !is_mixed {
                let base = self.base(&share)?;
                let model = self.bases.get_mut(&share).expect("made at the start");
                model.found(&*base, end).map_err(|error| format!("share {share}: {error}"))?;
            }
        }
        Ok(())
    }

    pub fn keep_image(&mut self, share: &ShareName) {
        let image = self.disk.contents(&base_file(share)).expect("made at the start");
        self.images.insert(share.clone(), image);
    }

    /// What is below is what it was, but for what was written through a lease.
    pub fn check_base(&self, name: &str) -> Result<(), String> {
        let share = share(name);
        let image = self.disk.contents(&base_file(&share)).expect("made at the start");
        if name != "x" && !image.is_same(&self.images[&share]) {
            return Err(format!("share {name} is not what it was"));
        }
        self.bases[&share].check_all(&*self.base(&share)?).map_err(|e| format!("share {name}: {e}"))
    }
}
