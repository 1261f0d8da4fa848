// SPDX-License-Identifier: MIT OR Apache-2.0
//! A connection wants to use a share.

use daemon_kit::utc::date_time;

use super::ops::{Key, Op, Stage, Task};
use super::{
    Access, Arbiter, BladeName, Claim, Grant, MAX_CONNECTIONS, MAX_OVERLAYS, MAX_PARKED,
    MAX_SESSIONS, Mode, Now, Outcome, Phase, Refusal, Request, Session, SessionId, ShareName,
    Ticket,
};

/// What is asked for, once it is known to be allowed.
struct Wish {
    share: ShareName,
    blade: BladeName,
    access: Access,
    claim: Claim,
}

impl Arbiter {
    pub(super) fn attach(
        &mut self,
        now: Now,
        ticket: Ticket,
        request: Request,
    ) -> Result<(), Refusal> {
        let Request::Attach { share, blade, access, claim } = request.clone() else {
            return Ok(());
        };
        let wish = Wish { share, blade, access, claim };
        let key = self.check_attach(&wish)?;
        if let Some(op) = self.ops.get_mut(&key) {
            if op.lets_through(claim) {
                return self.join_or_begin(now, ticket, wish, key);
            }
            let may_wait = matches!(op.task, Task::Attach { .. } | Task::Close)
                || matches!(op.stage, Stage::Inserting { .. });
            if !may_wait {
                let (by, remedy) = (op.show(), "try again when that is done".to_owned());
                return Err(Refusal::Busy { share: wish.share, by, remedy });
            }
            if op.parked.len() >= MAX_PARKED {
                let what = "waiting connections";
                return Err(Refusal::Full { share: wish.share, what, max: MAX_PARKED });
            }
            op.parked.push((ticket, request));
            return Ok(());
        }
        self.join_or_begin(now, ticket, wish, key)
    }

    /// Rights, and what has the share as a whole. What the rest is decided by: the share's lease, the blade's overlay,
    /// or, for readers of the share itself, nothing (a key no order but an eject has).
    fn check_attach(&self, wish: &Wish) -> Result<Key, Refusal> {
        let Wish { share, blade, access, .. } = wish;
        let configured = self.shares.get(share);
        let configured = configured.ok_or_else(|| Refusal::Unknown { share: share.clone() })?;
        let denied = |what, remedy: &str| {
            let (share, blade, remedy) = (share.clone(), blade.clone(), remedy.to_owned());
            Refusal::Denied { share, blade, what, remedy }
        };
        let right = configured.right(blade);
        if right.is_none() {
            return Err(denied("to read", "name it in the rights of the share"));
        }
        if *access == Access::Write && configured.mode == Mode::ReadOnly {
            return Err(denied("to write to", "the share is read-only"));
        }
        if right < Some(*access) {
            return Err(denied("to write to", "it may only read"));
        }
        let state = self.state.shares.get(share);
        let overlays = state.iter().flat_map(|state| &state.overlays);
        if let Some((whose, _)) = overlays.clone().find(|o| o.1.phase == Phase::Committing) {
            let by = format!("is half overwritten by the overlay of blade {whose}");
            let remedy = format!(
                "it is there again when `usb-gadget-drive overlay commit {share} {whose}` is done"
            );
            return Err(Refusal::Busy { share: share.clone(), by, remedy });
        }
        let commits =
            |(key, op): &(&Key, &Op)| key.0 == *share && matches!(op.task, Task::Commit { .. });
        if let Some((_, op)) = self.ops.iter().find(commits) {
            let (by, remedy) = (op.show(), "try again when that is done".to_owned());
            return Err(Refusal::Busy { share: share.clone(), by, remedy });
        }
        Ok(match (configured.mode, access) {
            (Mode::Exclusive, Access::Write) => {
                if let Some((whose, _)) = overlays.clone().next() {
                    let by = format!("has an overlay of blade {whose} from when it was private");
                    let remedy = "commit or discard that first".to_owned();
                    return Err(Refusal::Busy { share: share.clone(), by, remedy });
                }
                (share.clone(), None)
            }
            (Mode::Exclusive, Access::Read) => {
                self.check_closed(share)?;
                (share.clone(), Some(blade.clone()))
            }
            _ => (share.clone(), Some(blade.clone())),
        })
    }

    /// Readers see closed generations only.
    fn check_closed(&self, share: &ShareName) -> Result<(), Refusal> {
        let (by, remedy) = match (self.ops.get(&(share.clone(), None)), self.lease_of(share)) {
            (_, Some(_)) => (
                self.show_lease(share),
                format!(
                    "read it when that blade has ended, or eject it there: `usb-gadget-drive eject {share} BLADE`"
                ),
            ),
            (Some(op), None) => (op.show(), "try again when that is done".to_owned()),
            (None, None) => return Ok(()),
        };
        Err(Refusal::Busy { share: share.clone(), by, remedy })
    }

    fn lease_of(&self, share: &ShareName) -> Option<&super::Lease> {
        self.state.shares.get(share)?.lease.as_ref()
    }

    pub(super) fn show_lease(&self, share: &ShareName) -> String {
        self.lease_of(share).map_or_else(
            || "is written by nobody".to_owned(),
            |lease| {
                let (blade, epoch, since) =
                    (&lease.blade, lease.epoch, format!("{} UTC", date_time(lease.since)));
                format!("is written by blade {blade} (lease epoch {epoch}) since {since}")
            },
        )
    }

    /// Blades that read a share itself.
    pub(super) fn readers(&self, share: &ShareName) -> Vec<BladeName> {
        let of_share = self.sessions.values().filter(|s| s.share == *share && s.epoch.is_none());
        let mut readers: Vec<BladeName> = of_share.map(|s| s.blade.clone()).collect();
        readers.dedup();
        readers
    }

    /// A writer can begin only where nobody reads.
    pub(super) fn check_no_readers(&self, share: &ShareName) -> Result<(), Refusal> {
        let readers = self.readers(share);
        let Some(first) = readers.first() else { return Ok(()) };
        let by = match readers.len() {
            1 => format!("is read by blade {first}"),
            n => format!("is read by blade {first} and {} more", n - 1),
        };
        let remedy = format!("eject it there first: `usb-gadget-drive eject {share} {first}`");
        Err(Refusal::Busy { share: share.clone(), by, remedy })
    }

    fn join_or_begin(
        &mut self,
        now: Now,
        ticket: Ticket,
        wish: Wish,
        key: Key,
    ) -> Result<(), Refusal> {
        let Some(epoch) = self.epoch_for(&wish, &key)? else {
            // A reader of the share itself, or the first write.
            return match self.writes(&wish) {
                false => self.read(ticket, &wish),
                true => self.begin(now, ticket, wish, key),
            };
        };
        let live = self.sessions_of(&wish.share, &wish.blade).find(|s| s.1.epoch == Some(epoch));
        let live = live.map(|(id, _)| id);
        let is_cut = self.cut.contains(&key);
        match wish.claim {
            Claim::Epoch(claimed) if claimed == epoch && !is_cut => {}
            Claim::Epoch(claimed) => {
                return Err(stale(&wish, format!("epoch {claimed}"), format!("epoch {epoch}")));
            }
            Claim::Generation(claimed) => {
                let is = format!("written in epoch {epoch}");
                return Err(stale(&wish, format!("generation {claimed}"), is));
            }
            Claim::Any if live.is_some() && !is_cut => {}
            Claim::Any | Claim::New => return self.begin(now, ticket, wish, key),
        }
        let grant = self.grant(&wish.share, &wish.blade, wish.access, Some(epoch), live)?;
        self.answer(ticket, Ok(Outcome::Granted(grant)));
        Ok(())
    }

    /// Whether it is for a lease or an overlay.
    fn writes(&self, wish: &Wish) -> bool {
        let mode = self.shares.get(&wish.share).map(|share| share.mode);
        mode != Some(Mode::ReadOnly) && wish.access == Access::Write
    }

    /// The epoch in which the blade has it for writing, or has an overlay; `None` if it has nothing yet.
    fn epoch_for(&self, wish: &Wish, key: &Key) -> Result<Option<u64>, Refusal> {
        let Some(state) = self.state.shares.get(&wish.share) else { return Ok(None) };
        if key.1.is_none() {
            let Some(lease) = &state.lease else {
                self.check_no_readers(&wish.share)?;
                return Ok(None);
            };
            if lease.blade == wish.blade {
                return Ok(Some(lease.epoch));
            }
            if let Claim::Epoch(had) = wish.claim {
                let is = format!("epoch {} of blade {}", lease.epoch, lease.blade);
                return Err(stale(wish, format!("epoch {had}"), is));
            }
            let (share, blade) = (wish.share.clone(), &wish.blade);
            let remedy = format!("hand over with `usb-gadget-drive handover {share} {blade}`");
            return Err(Refusal::Busy { by: self.show_lease(&share), share, remedy });
        }
        let is_private = self.shares.get(&wish.share).is_some_and(|s| s.mode == Mode::Private);
        match state.overlays.get(&wish.blade).filter(|_| is_private) {
            Some(overlay) if overlay.phase == Phase::Ready => {
                if overlay.generation == state.generation {
                    return Ok(Some(overlay.epoch));
                }
                let what = format!(
                    "its overlay is over generation {} and the share is at {}",
                    overlay.generation, state.generation
                );
                let (share, blade) = (wish.share.clone(), wish.blade.clone());
                let remedy =
                    format!("discard it: `usb-gadget-drive overlay discard {share} {blade}`");
                Err(Refusal::Failed { share, blade, what, remedy })
            }
            Some(_) => {
                let (share, blade) = (wish.share.clone(), &wish.blade);
                let by = format!("has an overlay of blade {blade} that is being removed");
                let remedy =
                    format!("finish that: `usb-gadget-drive overlay discard {share} {blade}`");
                Err(Refusal::Busy { share, by, remedy })
            }
            None => Ok(None),
        }
    }

    fn read(&mut self, ticket: Ticket, wish: &Wish) -> Result<(), Refusal> {
        let generation = self.share_state(&wish.share).generation;
        match wish.claim {
            Claim::Generation(claimed) if claimed != generation => {
                let is = format!("generation {generation}");
                return Err(stale(wish, format!("generation {claimed}"), is));
            }
            Claim::Epoch(claimed) => {
                let is = format!("generation {generation}, read only");
                return Err(stale(wish, format!("epoch {claimed}"), is));
            }
            _ => {}
        }
        let mine = self.sessions_of(&wish.share, &wish.blade).find(|s| s.1.epoch.is_none());
        let mine = mine.map(|(id, _)| id);
        let grant = self.grant(&wish.share, &wish.blade, Access::Read, None, mine)?;
        self.answer(ticket, Ok(Outcome::Granted(grant)));
        Ok(())
    }

    /// A new lease, a new overlay, or a new epoch of either.
    fn begin(&mut self, now: Now, ticket: Ticket, wish: Wish, key: Key) -> Result<(), Refusal> {
        let Wish { share, blade, access, claim } = wish;
        self.check_storage()?;
        let state = self.share_state(&share);
        let has_one = match &key.1 {
            None => state.lease.is_some(),
            Some(blade) => state.overlays.contains_key(blade),
        };
        if let (Claim::Epoch(claimed), false) = (claim, has_one) {
            let had = format!("epoch {claimed}");
            return Err(Refusal::Stale { share, blade, had, is: "nothing".to_owned() });
        }
        if key.1.is_some() && !has_one && state.overlays.len() >= MAX_OVERLAYS {
            return Err(Refusal::Full { share, what: "overlays", max: MAX_OVERLAYS });
        }
        let op = Op::new(Task::Attach { ticket, blade, access });
        if has_one {
            // Requests of connections that were lost may still be on their way to the disk.
            self.enter(now, key, op, Stage::Cutting);
        } else {
            self.change(now, key, op);
        }
        Ok(())
    }

    /// A session, or one more connection of it.
    pub(super) fn grant(
        &mut self,
        share: &ShareName,
        blade: &BladeName,
        access: Access,
        epoch: Option<u64>,
        join: Option<SessionId>,
    ) -> Result<Grant, Refusal> {
        let full = |what, max| Refusal::Full { share: share.clone(), what, max };
        let is_exclusive = self.shares.get(share).is_some_and(|s| s.mode == Mode::Exclusive);
        let state = self.share_state(share);
        let overlay = state.overlays.get(blade).filter(|_| epoch.is_some() && !is_exclusive);
        let (overlay, generation) = (overlay.map(|overlay| overlay.id), state.generation);
        let session = if let Some(id) = join {
            let session = self.sessions.get_mut(&id).expect("the caller found it");
            if session.connections >= MAX_CONNECTIONS {
                return Err(full("connections of a session", MAX_CONNECTIONS));
            }
            session.connections += 1;
            id
        } else {
            if self.sessions.len() >= MAX_SESSIONS {
                return Err(full("sessions", MAX_SESSIONS));
            }
            let id = SessionId(self.next_id());
            let (share, blade) = (share.clone(), blade.clone());
            let session = Session { share, blade, access, epoch, generation, connections: 1 };
            self.sessions.insert(id, session);
            id
        };
        if epoch.is_some() && overlay.is_none() {
            self.left.remove(share);
        }
        Ok(Grant { session, access, epoch, generation, overlay })
    }
}

fn stale(wish: &Wish, had: String, is: String) -> Refusal {
    Refusal::Stale { share: wish.share.clone(), blade: wish.blade.clone(), had, is }
}
