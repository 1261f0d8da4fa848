// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happens in a world, step by step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use seeds::Failure;
use usb_gadget_drive::arbiter::{Access, BladeName, Claim, Request, ShareName};
use usb_gadget_drive::overlay::{self, format::CLUSTER};
use usb_gadget_drive::source::Zeroing;

use crate::disk::SECTOR;
use crate::model::{End, stamped};
use crate::world::{BLADES, Connection, SHARES, World, blade, share};

/// Seconds are given for what is going on to end when nobody disturbs it.
const SETTLE: u64 = 400;

enum Write {
    Data(u64),
    Zero(Zeroing),
    Trim,
}

impl World {
    pub fn run(seed: u64, logging: bool) -> Result<Self, Failure> {
        let mut world = Self::new(seed, logging);
        match world.live() {
            Ok(()) => Ok(world),
            Err(what) => Err(Failure { what, log: std::mem::take(&mut world.log) }),
        }
    }

    fn live(&mut self) -> Result<(), String> {
        self.take_actions()?;
        for _ in 0..self.rng.between(100, 400) {
            self.count("steps");
            self.step()?;
            self.take_actions()?;
            if self.disk.is_off() {
                // The last call was not done, or not to its end.
                let end = if self.rng.permille(600) { End::Power } else { End::Kill };
                self.restart(end)?;
            }
        }
        self.settle()
    }

    fn step(&mut self) -> Result<(), String> {
        match self.rng.below(1000) {
            0..350 => self.work(),
            350..480 => {
                self.attach();
                Ok(())
            }
            480..800 => self.client(),
            800..860 => self.late(),
            860..895 => {
                self.order();
                Ok(())
            }
            895..930 => self.leave(),
            930..975 => self.pass_time(8000),
            975..980 => {
                let blade = self.any_blade();
                let now = self.time();
                self.arbiter.arrived(now, &blade);
                Ok(())
            }
            980..988 => {
                let calls = self.rng.below(25);
                self.disk.cut_after(calls);
                Ok(())
            }
            988..992 => self.restart(End::Power),
            992..996 => self.restart(End::Kill),
            _ => self.fail_a_sync(),
        }
    }

    pub fn pass_time(&mut self, at_most_ms: u64) -> Result<(), String> {
        self.now += self.rng.below(at_most_ms);
        let now = self.time();
        if self.arbiter.next_timeout().is_some_and(|at| at <= now.mono) {
            self.arbiter.handle_timeout(now);
        }
        Ok(())
    }

    fn any_blade(&mut self) -> BladeName {
        blade(BLADES[self.rng.index(BLADES.len())])
    }

    fn any_share(&mut self) -> ShareName {
        // Read-only ones less often.
        share(SHARES[self.rng.between(1, 5) as usize / 2].0)
    }

    fn attach(&mut self) {
        let (share, mut blade) = (self.any_share(), self.any_blade());
        if share.as_str() == "p" && self.rng.permille(500) {
            // Or no overlay would ever be alone.
            blade = crate::world::blade(BLADES[0]);
        }
        let access = if self.rng.permille(750) { Access::Write } else { Access::Read };
        let had = self.claims.iter().filter(|(s, b, _)| *s == share && *b == blade);
        let had: Vec<u64> = had.map(|(.., epoch)| *epoch).collect();
        let claim = match self.rng.below(10) {
            0..4 => Claim::Any,
            4..6 => Claim::New,
            6..9 if !had.is_empty() => {
                // The last one more often than those before.
                let back = self.rng.index(had.len()).min(self.rng.index(had.len()));
                Claim::Epoch(had[had.len() - 1 - back])
            }
            _ => Claim::Generation(self.rng.between(1, 3)),
        };
        self.request(Request::Attach { share, blade, access, claim });
    }

    fn order(&mut self) {
        let (from, to, force) = (self.any_blade(), self.any_blade(), self.rng.permille(500));
        let share = self.any_share();
        let request = match self.rng.below(10) {
            0..3 => Request::HandOver { share: crate::world::share("x"), from: None, to, force },
            3 => Request::HandOver { share, from: Some(from), to, force },
            4 | 5 => Request::Eject { share, blade: to, force },
            6 => Request::Commit { share: crate::world::share("p"), blade: to },
            7 => Request::Commit { share: crate::world::share("p"), blade: blade(BLADES[0]) },
            _ => Request::Discard { share: crate::world::share("p"), blade: to },
        };
        self.request(request);
    }

    /// A connection ends: in good order, lost, or lost while its blade still has something to send.
    fn leave(&mut self) -> Result<(), String> {
        if self.connections.is_empty() {
            return Ok(());
        }
        let index = self.rng.index(self.connections.len());
        let connection = self.connections.swap_remove(index);
        let session = connection.grant.session;
        match self.rng.below(3) {
            0 => self.arbiter.detached(self.time(), session),
            1 => self.arbiter.lost(session),
            _ => {
                self.arbiter.lost(session);
                self.zombies.push(connection);
            }
        }
        Ok(())
    }

    fn range(&mut self) -> (u64, u64) {
        let begin = *self.rng.pick(&self.hot.clone());
        let end = self.size.min(self.hot[self.hot.len() - 1] + CLUSTER);
        let (at, len) = match self.rng.below(10) {
            0..2 => (begin, CLUSTER),
            2..4 => (begin, self.rng.between(1, 3) * CLUSTER),
            4..6 => (
                begin + self.rng.below(CLUSTER / SECTOR) * SECTOR,
                self.rng.between(1, 200) * SECTOR,
            ),
            _ => {
                (begin + self.rng.below(CLUSTER / SECTOR) * SECTOR, self.rng.between(1, 8) * SECTOR)
            }
        };
        let at = at.min(end - SECTOR);
        (at, len.min(end - at))
    }

    fn client(&mut self) -> Result<(), String> {
        if self.connections.is_empty() {
            return Ok(());
        }
        let connection = self.rng.pick(&self.connections.clone()).clone();
        let (at, len) = self.range();
        let may_write = connection.grant.access == Access::Write;
        match self.rng.below(10) {
            0..3 => self.read(&connection, at, len),
            3 | 4 if may_write => self.flush_busily(&connection),
            5 if may_write => self.write(&connection, at, len, Write::Trim, true),
            6 if may_write => {
                let how =
                    Zeroing { may_trim: self.rng.permille(600), fast: self.rng.permille(200) };
                self.write(&connection, at, len, Write::Zero(how), true)
            }
            _ if may_write => {
                let stamp = self.stamp();
                self.write(&connection, at, len, Write::Data(stamp), true)
            }
            _ => Ok(()),
        }
    }

    fn read(&mut self, connection: &Connection, at: u64, len: u64) -> Result<(), String> {
        let mut buf = vec![0xee; len as usize];
        let fast = self.rng.permille(300);
        let done = if fast {
            connection.source.try_read_at(&mut buf, at)
        } else {
            connection.source.read_at(&mut buf, at).map(|()| true)
        };
        match done {
            Ok(true) => {
                self.came_through(connection)?;
                let Connection { blade, share, .. } = connection;
                let checked = self.model(connection).map(|model| model.check(&buf, at));
                checked.unwrap_or(Ok(())).map_err(|e| format!("{blade} reads {share}: {e}"))
            }
            Ok(false) => Ok(()),
            Err(_) if self.disk.is_off() => Ok(()),
            Err(error) => Err(format!("a read of a live connection: {error}")),
        }
    }

    /// Writes, and tells the model. `live`: it must succeed while the power is on.
    fn write(
        &mut self,
        to: &Connection,
        at: u64,
        len: u64,
        what: Write,
        live: bool,
    ) -> Result<(), String> {
        let fua = self.rng.permille(200);
        let source = &to.source;
        let mut range = (at, len);
        let (done, stamp) = match what {
            Write::Data(stamp) => (source.write_at(&stamped(stamp, len), at, fua), stamp),
            Write::Zero(how) if how.fast && !how.may_trim && to.grant.overlay.is_some() => {
                let refused = source.zero(at, len, how, fua).is_err();
                return if refused {
                    Ok(())
                } else {
                    Err("a slow zero that was to be fast".to_owned())
                };
            }
            Write::Zero(how) => (source.zero(at, len, how, fua), 0),
            Write::Trim => {
                let begin = at.next_multiple_of(CLUSTER);
                let end =
                    if at + len == self.size { at + len } else { (at + len) & !(CLUSTER - 1) };
                range = (begin, end.saturating_sub(begin));
                if to.grant.overlay.is_none() {
                    range.1 = 0;
                }
                (source.trim(at, len, fua), 0)
            }
        };
        let (at, len) = range;
        let (blade, share, epoch) = (&to.blade, &to.share, to.grant.epoch);
        let ok = done.is_ok();
        self.say(|| format!("{blade} writes {stamp:x} to {share} ({epoch:?}) at {at:#x}+{len:#x} fua {fua}: {ok}"));
        if let Err(error) = done {
            if !self.disk.is_off() {
                return if live {
                    Err(format!("a write of a live connection: {error}"))
                } else {
                    Ok(())
                };
            }
        } else {
            self.came_through(to)?;
            self.count("writes");
        }
        if len > 0
            && let Some(model) = self.model(to)
        {
            model.write(at, len, stamp, ok);
            if ok && fua {
                model.flush_range(at, len);
            }
        }
        Ok(())
    }

    /// A flush, sometimes with a write of another thread in its middle.
    fn flush_busily(&mut self, connection: &Connection) -> Result<(), String> {
        let (at, len) = self.range();
        let (stamp, written) = (self.stamp(), Arc::new(AtomicBool::new(false)));
        let is_busy = self.rng.permille(300);
        if is_busy {
            let (source, written, bytes) =
                (connection.source.clone(), written.clone(), stamped(stamp, len));
            let after = self.rng.below(2);
            let hook = move || {
                written.store(source.write_at(&bytes, at, false).is_ok(), Ordering::Relaxed);
            };
            self.disk.during_sync(after, Box::new(hook));
        }
        self.flush(connection)?;
        let was_done = written.load(Ordering::Relaxed);
        let was_tried = is_busy && !self.disk.forget_hook();
        let (blade, share) = (&connection.blade, &connection.share);
        self.say(|| {
            format!("{blade} flushes {share}; meanwhile {stamp:x} at {at:#x}+{len:#x}: {was_tried}")
        });
        if was_tried && let Some(model) = self.model(connection) {
            model.write(at, len, stamp, was_done);
        }
        Ok(())
    }

    /// Something that was sent long ago arrives.
    fn late(&mut self) -> Result<(), String> {
        if self.zombies.is_empty() {
            return Ok(());
        }
        let index = self.rng.index(self.zombies.len());
        let connection = self.zombies[index].clone();
        if connection.grant.access == Access::Read || connection.grant.epoch.is_none() {
            self.zombies.swap_remove(index);
            return Ok(());
        }
        self.count("late requests");
        let (at, len) = self.range();
        match self.rng.below(4) {
            0 => self.flush(&connection),
            1 => self.write(&connection, at, len, Write::Trim, false),
            _ => {
                let stamp = self.stamp();
                self.write(&connection, at, len, Write::Data(stamp), false)
            }
        }
    }

    /// The disk fails a sync, and forgets what was to be synced: nothing may be acknowledged from then on.
    fn fail_a_sync(&mut self) -> Result<(), String> {
        let of = self.connections.iter().find(|c| c.grant.overlay.is_some());
        let Some(connection) = of.cloned() else { return Ok(()) };
        self.count("failed syncs");
        self.disk.fail_next_sync(&overlay::file_name(&connection.share, &connection.blade));
        let first = connection.source.flush();
        let was_hit = !self.disk.forget_failure();
        let (second, third) =
            (connection.source.flush(), connection.source.write_at(&[0; 512], 0, false));
        if !self.disk.is_off() && was_hit && (first.is_ok() || second.is_ok() || third.is_ok()) {
            return Err("acknowledged after a failed sync".to_owned());
        }
        self.restart(if self.disk.is_off() { End::Power } else { End::FailedSync })
    }

    /// Without faults all ends, and nothing is left over.
    fn settle(&mut self) -> Result<(), String> {
        self.faults = false;
        self.restart(End::Power)?;
        for blade_name in BLADES {
            self.arbiter.arrived(self.time(), &blade(blade_name));
        }
        for _ in 0..SETTLE {
            for connection in std::mem::take(&mut self.connections) {
                self.arbiter.detached(self.time(), connection.grant.session);
            }
            self.take_actions()?;
            self.work()?;
            self.pass_time(1000)?;
        }
        self.zombies.clear();
        for (what, left) in [
            ("operations", self.arbiter.work().count()),
            ("sessions", self.arbiter.sessions().count()),
            ("requests", self.unanswered()),
            ("files open", self.disk.open_files()),
        ] {
            if left != 0 {
                let work: Vec<_> = self.arbiter.work().collect();
                return Err(format!("{left} {what} left over: {work:?}"));
            }
        }
        if !self.is_idle() {
            return Err("work left over".to_owned());
        }
        for (name, _) in SHARES {
            self.check_base(name)?;
        }
        self.check_names()
    }

    /// There is a file for each overlay, and none else.
    fn check_names(&self) -> Result<(), String> {
        use usb_gadget_drive::disk::Dir;
        let mut wanted = vec![];
        for (share, state) in &self.arbiter.state().shares {
            wanted.extend(state.overlays.keys().map(|blade| overlay::file_name(share, blade)));
        }
        let mut found = self.disk.names().map_err(|error| error.to_string())?;
        found.retain(|name| !name.starts_with("base-"));
        if found == wanted { Ok(()) } else { Err(format!("files {found:?}, overlays {wanted:?}")) }
    }
}
