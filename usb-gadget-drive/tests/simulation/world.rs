// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server on a disk that keeps its word and no more, three blades, and an operator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use usb_gadget_drive::arbiter::{
    Access, Action, Arbiter, BladeName, Claim, Grant, Job, JobId, Limits, Mode, Now, Outcome,
    OverlayRef, Refusal, Request, SessionId, Share, ShareName, State, Ticket,
};
use usb_gadget_drive::disk::{Dir, File};
use usb_gadget_drive::fence::{Fence, Fenced};
use usb_gadget_drive::overlay::format::{CLUSTER, Header, WORDS_PER_PAGE};
use usb_gadget_drive::overlay::{self, Overlay};
use usb_gadget_drive::source::Source;
use usb_gadget_drive::state;

use crate::disk::{Pages, SECTOR, SimDisk, SimFile};
use crate::model::{End, Model, stamped};
use crate::plain::Plain;
use crate::rng::Rng;

pub const BLADES: [&str; 3] = ["a", "b", "c"];
pub const SHARES: [(&str, Mode); 3] =
    [("r", Mode::ReadOnly), ("x", Mode::Exclusive), ("p", Mode::Private)];

pub struct Failure {
    pub what: String,
    pub log: Vec<String>,
}

/// What an epoch belongs to.
pub type Slot = (ShareName, Option<BladeName>);

/// A connection, seen from both ends.
#[derive(Clone)]
pub struct Connection {
    pub share: ShareName,
    pub blade: BladeName,
    pub grant: Grant,
    pub source: Arc<dyn Source>,
    /// Of the server: those of a boot before are dead.
    pub boot: u64,
}

impl Connection {
    pub fn slot(&self) -> Slot {
        let overlay = self.grant.overlay.map(|_| self.blade.clone());
        (self.share.clone(), overlay)
    }
}

enum Pending {
    Store(u64, State),
    Job(JobId, Job),
}

/// What is known of an epoch by those who were told.
#[derive(Default, Clone)]
pub struct Told {
    pub epoch: u64,
    /// All up to this one were cut.
    pub cut: u64,
    pub blade: Option<BladeName>,
}

pub struct World {
    pub rng: Rng,
    pub now: u64,
    pub disk: SimDisk,
    state_dir: SimDisk,
    pub size: u64,
    /// First bytes of the clusters that anybody uses.
    pub hot: Vec<u64>,
    pub arbiter: Arbiter,
    pub boot: u64,
    pending: Vec<Pending>,
    fences: BTreeMap<(Slot, u64), Arc<Fence>>,
    open: BTreeMap<(Slot, u64), Weak<Overlay<SimFile>>>,
    /// In use.
    pub connections: Vec<Connection>,
    /// Their blade was paused or cut off; what it sends comes late.
    pub zombies: Vec<Connection>,
    pub told: BTreeMap<Slot, Told>,
    /// Epochs that a blade may claim to have.
    pub claims: Vec<(ShareName, BladeName, u64)>,
    /// What is below each share.
    pub bases: BTreeMap<ShareName, Model>,
    /// The same, to the bit.
    images: BTreeMap<ShareName, Pages>,
    /// By the overlay's id as well.
    pub overlays: BTreeMap<(Slot, u64), Model>,
    /// Shares whose last flush failed: a forced hand-over goes on all the same.
    given_up: BTreeSet<ShareName>,
    tickets: BTreeMap<Ticket, Request>,
    next_ticket: u64,
    next_stamp: u64,
    pub faults: bool,
    pub counts: BTreeMap<&'static str, u64>,
    logging: bool,
    pub log: Vec<String>,
}

pub fn share(name: &str) -> ShareName {
    name.parse().expect("a name")
}

pub fn blade(name: &str) -> BladeName {
    name.parse().expect("a name")
}

fn base_file(share: &ShareName) -> String {
    format!("base-{share}")
}

impl World {
    pub fn new(seed: u64, logging: bool) -> Self {
        let mut rng = Rng::new(seed);
        // Sometimes so large that its map has two pages, used on both sides of the border.
        let border = WORDS_PER_PAGE as u64 * 32;
        let (from, clusters) =
            if rng.permille(300) { (border - 3, border + 3) } else { (0, rng.between(2, 6)) };
        let size = clusters * CLUSTER - rng.below(3) * SECTOR;
        let hot: Vec<u64> = (from..clusters).map(|cluster| cluster * CLUSTER).collect();
        let disk = SimDisk::default();
        let mut world = Self {
            rng,
            now: 1_700_000_000_000,
            arbiter: Arbiter::new(at(0), Limits::default(), shares(size), State::default()),
            state_dir: disk.directory("state/"),
            disk,
            size,
            hot,
            boot: 0,
            pending: vec![],
            fences: BTreeMap::new(),
            open: BTreeMap::new(),
            connections: vec![],
            zombies: vec![],
            told: BTreeMap::new(),
            claims: vec![],
            bases: BTreeMap::new(),
            images: BTreeMap::new(),
            overlays: BTreeMap::new(),
            given_up: BTreeSet::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            next_stamp: 0x1000,
            faults: true,
            counts: BTreeMap::new(),
            logging,
            log: vec![],
        };
        for (name, _) in SHARES {
            world.make_base(&share(name));
        }
        world.disk.sync().expect("the power is on");
        world
    }

    fn make_base(&mut self, share: &ShareName) {
        let file = self.disk.create(&base_file(share)).expect("the power is on");
        file.set_size(self.size).expect("the power is on");
        let mut contents = vec![];
        for at in self.hot_sectors() {
            let stamp = if self.rng.permille(200) { 0 } else { self.stamp() };
            file.write_at(&stamped(stamp, SECTOR), at * SECTOR).expect("the power is on");
            contents.push((at, stamp));
        }
        file.sync().expect("the power is on");
        self.keep_image(share);
        self.bases.insert(share.clone(), Model::with(contents.into_iter()));
    }

    fn hot_sectors(&self) -> Vec<u64> {
        let of = |begin: &u64| begin / SECTOR..(begin + CLUSTER).min(self.size) / SECTOR;
        self.hot.iter().flat_map(of).collect()
    }

    pub fn stamp(&mut self) -> u64 {
        self.next_stamp += 1;
        self.next_stamp
    }

    pub fn say(&mut self, text: impl FnOnce() -> String) {
        if self.logging {
            self.log.push(text());
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn time(&self) -> Now {
        at(self.now)
    }

    pub fn base(&self, share: &ShareName) -> Result<Arc<dyn Source>, String> {
        let file = self.disk.open(&base_file(share)).map_err(|error| error.to_string())?;
        Ok(Arc::new(Plain(file, self.size)))
    }

    fn header(&self, of: &OverlayRef) -> Header {
        let OverlayRef { share, blade, id, generation } = of.clone();
        Header { share, blade, id, generation, size: self.size }
    }

    fn open_overlay(&mut self, of: &OverlayRef) -> Result<Arc<Overlay<SimFile>>, String> {
        let key = ((of.share.clone(), Some(of.blade.clone())), of.id);
        if let Some(open) = self.open.get(&key).and_then(Weak::upgrade) {
            return Ok(open);
        }
        let base = self.base(&of.share)?;
        let open = Overlay::open(&self.disk, &self.header(of), base);
        let open = Arc::new(open.map_err(|error| error.to_string())?);
        self.open.insert(key, Arc::downgrade(&open));
        Ok(open)
    }

    pub fn request(&mut self, request: Request) {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.say(|| format!("{ticket:?}: {request:?}"));
        self.tickets.insert(ticket, request.clone());
        self.arbiter.request(self.time(), ticket, request);
    }

    /// Takes what the core wants done; answers are told at once.
    pub fn take_actions(&mut self) -> Result<(), String> {
        while let Some(action) = self.arbiter.next_action() {
            match action {
                Action::Store { version, state } => {
                    self.pending.push(Pending::Store(version, state));
                }
                Action::Do { job, what } => {
                    self.say(|| format!("{job:?}: {what:?}"));
                    self.pending.push(Pending::Job(job, what));
                }
                Action::Answer { ticket, result } => {
                    self.say(|| format!("{ticket:?} -> {result:?}"));
                    let request = self.tickets.remove(&ticket);
                    let request = request.ok_or("an answer to nobody, or a second one")?;
                    match result {
                        Ok(Outcome::Granted(grant)) => self.granted(request, grant)?,
                        Ok(Outcome::Done(_)) => {
                            self.count(match request {
                                Request::HandOver { .. } => "hand-overs",
                                Request::Commit { .. } => "commits",
                                Request::Discard { .. } => "discards",
                                _ => "ejects",
                            });
                        }
                        Err(refusal) => self.refused(&request, &refusal)?,
                    }
                }
            }
        }
        self.check_sessions()
    }

    fn refused(&mut self, request: &Request, refusal: &Refusal) -> Result<(), String> {
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
    fn tell(&mut self, slot: &Slot, blade: &BladeName, epoch: u64) -> Result<(), String> {
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

    fn granted(&mut self, request: Request, grant: Grant) -> Result<(), String> {
        let Request::Attach { share, blade, access, claim } = request else {
            return Err("a grant for an order".to_owned());
        };
        self.count("grants");
        if access == Access::Write && grant.epoch.is_none() {
            return Err(format!("{blade} may write to {share} without an epoch"));
        }
        let slot = (share.clone(), grant.overlay.map(|_| blade.clone()));
        let before = self.told.get(&slot).cloned().unwrap_or_default();
        if let Some(epoch) = grant.epoch {
            self.tell(&slot, &blade, epoch)?;
            self.claims.push((share.clone(), blade.clone(), epoch));
            match claim {
                Claim::Epoch(claimed) if claimed != epoch || before.epoch != epoch => {
                    return Err(format!("{blade} claimed {claimed} and got {epoch}"));
                }
                Claim::New if epoch == before.epoch => {
                    return Err(format!("{blade} is new and got the old epoch {epoch}"));
                }
                _ => {}
            }
        }
        let source: Arc<dyn Source> = match (grant.overlay, grant.epoch) {
            (None, _) if self.disk.is_off() => return Ok(()),
            (None, _) => self.base(&share)?,
            (Some(id), _) => {
                let generation = grant.generation;
                let of = OverlayRef { share: share.clone(), blade: blade.clone(), id, generation };
                match self.open_overlay(&of) {
                    Ok(open) => {
                        self.new_overlay_model(&slot, id);
                        open
                    }
                    Err(_) if self.disk.is_off() => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        let source = match grant.epoch {
            None => source,
            Some(epoch) => {
                let fence = self.fences.entry((slot, grant.overlay.unwrap_or(0)));
                let fence = fence.or_insert_with(|| Fence::new(0));
                Arc::new(Fenced::new(source, fence.clone(), epoch))
            }
        };
        let connection = Connection { share, blade, grant, source, boot: self.boot };
        if self.rng.permille(30) {
            // The client is gone by now.
            self.arbiter.detached(self.time(), connection.grant.session);
        } else {
            self.connections.push(connection);
        }
        Ok(())
    }

    fn new_overlay_model(&mut self, slot: &Slot, id: u64) {
        let base = &self.bases[&slot.0];
        let new = || Model::with(base.now());
        self.overlays.entry((slot.clone(), id)).or_insert_with(new);
    }

    /// Never two writers, and no reader beside one.
    fn check_sessions(&self) -> Result<(), String> {
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

    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    pub fn unanswered(&self) -> usize {
        self.tickets.len()
    }

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

    pub fn model(&mut self, connection: &Connection) -> Option<&mut Model> {
        match connection.grant.overlay {
            None => self.bases.get_mut(&connection.share),
            Some(id) => self.overlays.get_mut(&(connection.slot(), id)),
        }
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

    pub fn flush(&mut self, connection: &Connection) -> Result<(), String> {
        if connection.source.flush().is_err() {
            return Ok(());
        }
        self.came_through(connection)?;
        if let Some(model) = self.model(connection) {
            model.flush();
        }
        Ok(())
    }

    /// The server ends, and begins again with what is on the disk.
    pub fn restart(&mut self, end: End) -> Result<(), String> {
        self.count(if end == End::Power { "power cuts" } else { "kills" });
        self.say(|| format!("the server ends: {end:?}"));
        if end == End::Power {
            self.disk.power_cut(&mut self.rng);
        } else {
            self.disk.kill();
        }
        self.boot += 1;
        self.pending.clear();
        self.fences.clear();
        self.open.clear();
        self.connections.clear();
        self.zombies.clear();
        self.tickets.clear();
        let state = state::load(&self.state_dir).map_err(|error| error.to_string())?;
        for (slot, told) in &mut self.told {
            let of_share = state.shares.get(&slot.0);
            let current = match &slot.1 {
                None => of_share.and_then(|s| s.lease.as_ref()).map(|lease| lease.epoch),
                Some(blade) => of_share.and_then(|s| s.overlays.get(blade)).map(|o| o.epoch),
            };
            // An order that stopped between the cut and the next epoch: its blade may go on.
            if current == Some(told.cut) {
                told.cut -= 1;
            }
        }
        self.arbiter = Arbiter::new(self.time(), Limits::default(), shares(self.size), state);
        self.check_disk(end)?;
        self.take_actions()
    }

    /// After a crash: what is there is what may be there.
    fn check_disk(&mut self, end: End) -> Result<(), String> {
        let state = self.arbiter.state().clone();
        let mut live = BTreeSet::new();
        for (share, of_share) in &state.shares {
            for (blade, overlay) in &of_share.overlays {
                use usb_gadget_drive::arbiter::Phase::{Committing, Ready};
                if !matches!(overlay.phase, Ready | Committing) {
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
                use usb_gadget_drive::arbiter::Phase;
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

    fn keep_image(&mut self, share: &ShareName) {
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

fn at(now: u64) -> Now {
    Now { mono: Duration::from_millis(now), unix: now / 1000 }
}

fn shares(size: u64) -> BTreeMap<ShareName, Share> {
    let share_of = |(name, mode)| {
        let rights = [(blade("c"), Access::Write)].into();
        let others = Some(Access::Write);
        (share(name), Share { mode, rights, others, is_writable: true, size })
    };
    SHARES.into_iter().map(share_of).collect()
}
