// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server on a disk that keeps its word and no more, three blades, and an operator.

mod checks;
mod jobs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use usb_gadget_drive::arbiter::{
    Access, Action, Arbiter, BladeName, Claim, Grant, Job, JobId, Limits, Mode, Now, Outcome,
    OverlayRef, Request, Share, ShareName, State, Ticket,
};
use usb_gadget_drive::disk::{Dir, File};
use usb_gadget_drive::fence::{Fence, Fenced};
use usb_gadget_drive::overlay::Overlay;
use usb_gadget_drive::overlay::format::{CLUSTER, Header, WORDS_PER_PAGE};
use usb_gadget_drive::source::Source;
use usb_gadget_drive::state;

use seeds::{Figures, Rng};

use crate::disk::{Pages, SECTOR, SimDisk, SimFile};
use crate::model::{End, Model, stamped};
use crate::plain::Plain;

pub const BLADES: [&str; 3] = ["a", "b", "c"];
pub const SHARES: [(&str, Mode); 3] =
    [("r", Mode::ReadOnly), ("x", Mode::Exclusive), ("p", Mode::Private)];

/// What must be among the counts.
const HAPPENINGS: [&str; 11] = [
    "hand-overs",
    "commits",
    "discards",
    "ejects",
    "cuts",
    "late requests",
    "power cuts",
    "kills",
    "failed syncs",
    "stores failed",
    "refusals",
];

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
    pub counts: Figures,
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
            counts: HAPPENINGS.map(|name| (name, 0)).into(),
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

    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    pub fn unanswered(&self) -> usize {
        self.tickets.len()
    }

    pub fn model(&mut self, connection: &Connection) -> Option<&mut Model> {
        match connection.grant.overlay {
            None => self.bases.get_mut(&connection.share),
            Some(id) => self.overlays.get_mut(&(connection.slot(), id)),
        }
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
