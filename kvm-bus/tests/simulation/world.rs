// SPDX-License-Identifier: MIT OR Apache-2.0
//! One world.

#[path = "faults.rs"]
mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use kvm_bus::core::Micros;
use kvm_bus::core::lmc::{Action, Lmc};
use kvm_bus::core::rmm::{By, Event, Rmm};
use kvm_bus::core::screen::Screen;
use kvm_bus::core::slave::Slave;
use kvm_bus::wire::{Addr, ConsoleSettings, Decoder, Kind, Sources};
use seeds::{Failure, Figures, Rng};

use crate::bus::Line;
use crate::model::{Keys, Streams, said, typed};
use faults::Lasting;

const SECOND: Micros = 1_000_000;
/// Faults come up to here, and end.
const FAULTS_END: Micros = 12 * SECOND;
/// Then all must be well within this, and stay so.
const WELL: Micros = 32 * SECOND;
/// Bytes that a console takes at once.
const ROOM: usize = 4096;
/// Columns and rows of screens.
const SIZES: [(u8, u8); 3] = [(80, 25), (132, 43), (40, 12)];

struct Blade {
    lmc: Option<Lmc>,
    slave: Slave,
    slot: u8,
    life: u32,
    lives: u32,
    back_at: Micros,
    said: u64,
    room: usize,
    /// Whether its console is plugged in, and until when that takes nothing.
    console: bool,
    blocked_until: Micros,
    screen: Screen,
    /// What was ever on its screen.
    shown: BTreeSet<u64>,
    streams: Streams,
}

pub struct World {
    rng: Rng,
    now: Micros,
    rmm: Option<Rmm>,
    rmm_back_at: Micros,
    epoch: u32,
    known: BTreeMap<u8, (u32, u64)>,
    blades: Vec<Blade>,
    /// Line i joins node i and i + 1, down and up; node 0 is the RMM, and so is the last if the far end is fed.
    lines: Vec<[Line; 2]>,
    control: Vec<[Line; 2]>,
    far_end: bool,
    by: By,
    faulty: bool,
    keys: Keys,
    held: Vec<u16>,
    /// When the operator pressed keys whose arrival is timed.
    pressed_at: Option<(u16, Micros)>,
    slowest_key: Micros,
    figures: Figures,
    log: Option<Vec<String>>,
    next_fault: Micros,
    next_work: Micros,
    couple_next: Micros,
    /// Choices as they were told, to be told once more when all is quiet.
    choices: Vec<Vec<u8>>,
    told_again: bool,
    lasting: Option<Lasting>,
    /// Who is chosen next, if that is settled.
    again: Option<Addr>,
}

impl World {
    pub fn run(seed: u64, logging: bool) -> Result<Figures, Failure> {
        let mut world = Self::new(seed, logging);
        let done = world.live();
        let Self { figures, log, now, .. } = world;
        done.map(|()| figures).map_err(|what| Failure {
            what: format!("at {}.{:06}: {what}", now / SECOND, now % SECOND),
            log: log.unwrap_or_default(),
        })
    }

    fn new(seed: u64, logging: bool) -> Self {
        let mut rng = Rng::new(seed);
        let count = rng.between(4, 7) as usize;
        let baud = *rng.pick(&[115_200, 1_000_000, 4_000_000]);
        let far_end = rng.permille(500);
        let own_control = rng.permille(400);
        let faulty = rng.permille(800);
        let mut slots: Vec<u8> = (1..=239).collect();
        let blades = (0..count)
            .map(|_| Blade {
                lmc: None,
                slave: Slave::new(Addr::ALL),
                slot: slots.remove(rng.index(slots.len())),
                life: 0,
                lives: 0,
                back_at: rng.below(SECOND),
                said: 0,
                room: ROOM,
                console: true,
                blocked_until: 0,
                screen: Screen::blank(80, 25),
                shown: BTreeSet::new(),
                streams: Streams::default(),
            })
            .collect();
        let lines = |n: usize| (0..n).map(|_| [Line::new(baud), Line::new(baud)]).collect();
        let control = lines(if own_control { count } else { 0 });
        Self {
            now: 0,
            rmm: None,
            rmm_back_at: rng.below(SECOND),
            epoch: 100,
            known: BTreeMap::new(),
            blades,
            lines: lines(count + usize::from(far_end)),
            control,
            far_end,
            by: if own_control { By::ControlBus } else { By::HotKey },
            faulty,
            keys: Keys::default(),
            held: vec![],
            pressed_at: None,
            slowest_key: 0,
            figures: [
                "blades started",
                "rmms started",
                "console bytes heard",
                "typed units",
                "keys that arrived",
                "blades coupled",
                "refused",
                "lines cut",
                "lines cut one way",
                "lines with noise",
                "lmcs killed",
                "rmms killed",
                "gaps",
                "typed input lost with its lmc",
                "screens",
                "consoles pulled",
                "consoles that took nothing",
                "worlds with a line cut for good",
                "worlds with an lmc dead for good",
            ]
            .map(|name| (name, 0))
            .into(),
            log: logging.then(Vec::new),
            next_fault: 3 * SECOND,
            next_work: SECOND,
            couple_next: 2 * SECOND,
            choices: vec![],
            told_again: false,
            lasting: None,
            again: None,
            rng,
        }
    }

    fn count(&mut self, name: &'static str, by: u64) {
        *self.figures.get_mut(name).expect("a figure") += by;
    }

    fn say(&mut self, text: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(format!("{}.{:06} {}", self.now / SECOND, self.now % SECOND, text()));
        }
    }

    fn live(&mut self) -> Result<(), String> {
        while self.now < WELL {
            self.starts();
            if self.next_fault <= self.now {
                self.fault();
            }
            if self.next_work <= self.now {
                self.work();
            }
            self.deliver()?;
            self.ticks();
            self.act()?;
            self.transmit();
            self.keys.check(self.now)?;
            if self.now > WELL - 2 * SECOND && !self.told_again {
                self.tell_again()?;
            }
            self.now = self.next_moment();
        }
        self.all_is_well()
    }

    /// Somebody sends all that was ever chosen once more: nothing may come of it.
    fn tell_again(&mut self) -> Result<(), String> {
        self.told_again = true;
        self.say(|| "old choices are told again".to_owned());
        for bytes in std::mem::take(&mut self.choices) {
            for lmc in self.blades.iter_mut().filter_map(|blade| blade.lmc.as_mut()) {
                lmc.receive(self.now, 0, &bytes);
            }
            self.act()?;
        }
        Ok(())
    }

    fn next_moment(&mut self) -> Micros {
        let now = self.now;
        let mut next = (now + SECOND).min(self.next_work).min(self.next_fault.max(now + 1));
        for line in self.lines.iter().chain(&self.control).flatten() {
            next = next.min(line.next_at());
            if line.free_at() > now {
                next = next.min(line.free_at());
            }
        }
        if let Some(rmm) = &self.rmm {
            next = next.min(rmm.wake());
        }
        for blade in &self.blades {
            next = next.min(blade.lmc.as_ref().map_or(blade.back_at, Lmc::wake));
        }
        if self.rmm.is_none() {
            next = next.min(self.rmm_back_at);
        }
        next.max(now + 20)
    }

    fn starts(&mut self) {
        if self.rmm.is_none() && self.rmm_back_at <= self.now {
            self.epoch += 1;
            let random = self.rng.next() as u32;
            let addr = Addr::rmm(0).expect("the first");
            let mut rmm = Rmm::new(addr, self.epoch, random, !self.control.is_empty());
            for (slot, (life, end)) in &self.known {
                rmm.console_known(Addr::blade(*slot).expect("a slot"), *life, *end);
            }
            self.rmm = Some(rmm);
            self.count("rmms started", 1);
            self.say(|| "the RMM starts".to_owned());
        }
        for at in 0..self.blades.len() {
            let blade = &mut self.blades[at];
            if blade.lmc.is_some() || blade.back_at > self.now {
                continue;
            }
            blade.lives += 1;
            blade.life = (self.rng.next() as u32) & !0xfff;
            blade.said = 0;
            let addr = Addr::blade(blade.slot).expect("a slot");
            let mut lmc = Lmc::new(addr, &format!("b{}", blade.slot), blade.life);
            lmc.set_baud(self.lines[0][0].baud as u32);
            lmc.set_sources(Sources::default(), Some(ConsoleSettings::default()));
            blade.console = true;
            lmc.console_takes(self.now, blade.room);
            blade.shown.insert(digest(&blade.screen));
            lmc.screen_is(self.now, blade.screen.clone());
            blade.lmc = Some(lmc);
            blade.slave = Slave::new(addr);
            let slot = blade.slot;
            self.count("blades started", 1);
            self.say(|| format!("slot {slot} starts"));
        }
    }

    /// What blades and the operator do.
    fn work(&mut self) {
        self.next_work = self.now + self.rng.between(1_000, 100_000);
        let at = self.rng.index(self.blades.len());
        let (now, quiet) = (self.now, self.now > FAULTS_END + 6 * SECOND);
        self.blade_works(at, quiet);
        let slot = self.blades[at].slot;
        let addr = Addr::blade(slot).expect("a slot");
        let Some(rmm) = &mut self.rmm else { return };
        if self.rng.permille(300) && !quiet {
            let number = self.blades[at].streams.accepted;
            // A unit is accepted whole or not at all: the bound is a multiple of it.
            if rmm.console_input(now, addr, &typed(slot, number)) == 8 {
                self.blades[at].streams.accepted += 1;
                self.count("typed units", 1);
            }
        }
        self.operate(quiet);
    }

    fn blade_works(&mut self, at: usize, quiet: bool) {
        let now = self.now;
        self.console_changes(at, quiet);
        let blade = &mut self.blades[at];
        let Some(lmc) = &mut blade.lmc else { return };
        if !quiet && blade.console {
            // Half of what the slowest line carries, and at times much at once.
            let much = self.rng.permille(3);
            // More than an LMC keeps, where a line is fast enough to catch up.
            let most = if self.lines[0][0].baud > 500_000 { 90_000 } else { 20_000 };
            let count = if much { self.rng.between(1000, most) } else { self.rng.below(200) };
            let bytes: Vec<u8> = (blade.said..blade.said + count)
                .map(|at| said(blade.slot, blade.life, at))
                .collect();
            blade.said += count;
            lmc.console_said(now, &bytes);
        }
        if !quiet && self.rng.permille(300) {
            if self.rng.permille(50) {
                let (columns, rows) = *self.rng.pick(&SIZES);
                blade.screen = Screen::blank(columns, rows);
            }
            for _ in 0..self.rng.below(200) {
                let at = self.rng.index(blade.screen.cells.len());
                let shown = b"abcdefghij   "[self.rng.index(13)];
                blade.screen.cells[at] = (shown as char, 7);
            }
            blade.shown.insert(digest(&blade.screen));
            lmc.screen_is(now, blade.screen.clone());
        }
        // The console is slow, and at times takes nothing.
        let blocked = !blade.console || now < blade.blocked_until;
        blade.room = if blocked { 0 } else { (blade.room + 400).min(ROOM) };
        lmc.console_takes(now, blade.room);
    }

    /// It is pulled, plugged in again, or held.
    fn console_changes(&mut self, at: usize, quiet: bool) {
        let blade = &mut self.blades[at];
        let Some(lmc) = &mut blade.lmc else { return };
        let change = match blade.console {
            true if !quiet && self.rng.permille(10) => Some("consoles pulled"),
            true if !quiet && self.rng.permille(10) => {
                blade.blocked_until = self.now + self.rng.below(2 * SECOND);
                Some("consoles that took nothing")
            }
            false if quiet || self.rng.permille(200) => {
                blade.console = true;
                lmc.set_sources(Sources::default(), Some(ConsoleSettings::default()));
                None
            }
            _ => None,
        };
        if change == Some("consoles pulled") {
            blade.console = false;
            lmc.set_sources(Sources::default(), None);
        }
        if let Some(name) = change {
            self.count(name, 1);
        }
    }

    fn operate(&mut self, quiet: bool) {
        let now = self.now;
        // The last choice is one that can be.
        let may_be = |at: &usize| !quiet || self.is_reached(*at);
        let choices: Vec<usize> = (0..self.blades.len()).filter(may_be).collect();
        let Some(rmm) = &mut self.rmm else { return };
        if self.couple_next <= now {
            let at = *self.rng.pick(&choices);
            self.couple_next = now + self.rng.between(SECOND / 10, 5 * SECOND);
            if quiet {
                self.couple_next = Micros::MAX;
            }
            let mut target = Addr::blade(self.blades[at].slot);
            if let Some(again) = self.again.take().filter(|_| !quiet) {
                target = Some(again);
            } else if !quiet && self.rng.permille(200) {
                // Nobody, and at times the one before again, while much from it is on its way.
                self.again = rmm.coupled().filter(|_| self.rng.permille(800));
                if self.again.is_some() {
                    self.couple_next = now + self.rng.between(SECOND / 100, SECOND / 2);
                }
                target = None;
            }
            if rmm.coupled() == target {
                return;
            }
            rmm.select(now, target, self.by);
            self.held.clear();
            self.keys.idle_since = Some(now);
            self.pressed_at = None;
            self.say(|| format!("select {target:?}"));
            return;
        }
        if quiet || self.rng.permille(250) {
            for code in std::mem::take(&mut self.held) {
                rmm.key(now, code, false);
            }
            self.keys.idle_since.get_or_insert(now);
        } else if self.rng.permille(300) {
            let code = self.rng.between(2, 80) as u16;
            if rmm.key(now, code, true) && !self.held.contains(&code) {
                self.pressed_at.get_or_insert((code, now));
            }
            self.held.push(code);
            self.keys.idle_since = None;
        }
    }

    fn deliver(&mut self) -> Result<(), String> {
        let now = self.now;
        for at in 0..self.lines.len() {
            for way in 0..2 {
                while let Some(bytes) = self.lines[at][way].arrived(now) {
                    // Down: to the upper port of the next; up: to the lower port of the one before.
                    let (node, port) = if way == 0 { (at + 1, 0) } else { (at, 1) };
                    if node == 0 {
                        if let Some(rmm) = &mut self.rmm {
                            rmm.receive(now, 0, &bytes);
                        }
                    } else if node > self.blades.len() {
                        if let Some(rmm) = &mut self.rmm {
                            rmm.receive(now, 1, &bytes);
                        }
                    } else if let Some(lmc) = &mut self.blades[node - 1].lmc {
                        lmc.receive(now, port, &bytes);
                    }
                    self.act()?;
                }
            }
        }
        for at in 0..self.control.len() {
            for way in 0..2 {
                while let Some(bytes) = self.control[at][way].arrived(now) {
                    let (node, port) = if way == 0 { (at + 1, 0) } else { (at, 1) };
                    if node == 0 {
                        if let Some(rmm) = &mut self.rmm {
                            rmm.receive_control(now, 0, &bytes);
                        }
                    } else {
                        let blade = &mut self.blades[node - 1];
                        if let Some(lmc) = &mut blade.lmc {
                            blade.slave.receive(now, port, &bytes, lmc);
                        }
                    }
                    self.act()?;
                }
            }
        }
        Ok(())
    }

    fn ticks(&mut self) {
        let now = self.now;
        if let Some(rmm) = self.rmm.as_mut().filter(|rmm| rmm.wake() <= now) {
            rmm.tick(now);
        }
        for lmc in self.blades.iter_mut().filter_map(|blade| blade.lmc.as_mut()) {
            if lmc.wake() <= now {
                lmc.tick(now);
            }
        }
    }

    fn act(&mut self) -> Result<(), String> {
        for at in 0..self.blades.len() {
            let actions = self.blades[at].lmc.as_mut().map(Lmc::actions).unwrap_or_default();
            for action in actions {
                self.action(at, action)?;
            }
        }
        let events = self.rmm.as_mut().map(Rmm::events).unwrap_or_default();
        for event in events {
            self.event(event)?;
        }
        Ok(())
    }

    fn action(&mut self, at: usize, action: Action) -> Result<(), String> {
        let blade = &mut self.blades[at];
        let slot = blade.slot;
        match action {
            Action::Console(bytes) => {
                blade.room =
                    blade.room.checked_sub(bytes.len()).ok_or("more than the console takes")?;
                blade.streams.wrote(slot, &bytes)?;
            }
            Action::Keys(pressed) => {
                let codes = pressed.codes();
                if let Some((_, at)) = self.pressed_at.take_if(|(code, _)| codes.contains(code)) {
                    self.slowest_key = self.slowest_key.max(self.now - at);
                    self.count("keys that arrived", 1);
                }
                self.say(|| format!("slot {slot}: keys {codes:?}"));
                self.keys.down.insert(slot, codes);
                self.keys.check(self.now)?;
            }
            other => self.say(|| format!("slot {slot}: {other:?}")),
        }
        Ok(())
    }

    fn event(&mut self, event: Event) -> Result<(), String> {
        let of = |addr: Addr| move |blade: &&mut Blade| blade.slot == addr.byte();
        match event {
            Event::Console { blade, at, bytes } => {
                self.say(|| format!("RMM: {blade} says {} from {at:?}", bytes.len()));
                let found = self.blades.iter_mut().find(of(blade)).ok_or("no such blade")?;
                found.streams.heard(blade.byte(), at, &bytes)?;
                self.count("console bytes heard", bytes.len() as u64);
            }
            Event::Gap { blade, lost } => {
                let found = self.blades.iter_mut().find(of(blade)).ok_or("no such blade")?;
                found.streams.gap(lost);
                let said = found.said;
                self.say(|| format!("RMM: {blade} has a gap of {lost:?} in {said}"));
                let found = self.blades.iter_mut().find(of(blade)).ok_or("no such blade")?;
                if let Some(lost) = lost
                    && found.said < 60_000
                {
                    return Err(format!("{blade} lost {lost} of {} bytes", found.said));
                }
                self.count("gaps", 1);
            }
            Event::InputLost { blade, .. } => {
                let found = self.blades.iter_mut().find(of(blade)).ok_or("no such blade")?;
                found.streams.input_lost();
                self.count("typed input lost with its lmc", 1);
            }
            Event::Coupled(Some(blade)) => {
                self.say(|| format!("RMM: {blade} is coupled"));
                self.count("blades coupled", 1);
            }
            Event::Coupled(None) => {
                self.held.clear();
                self.keys.idle_since.get_or_insert(self.now);
                self.pressed_at = None;
                self.say(|| "RMM: nobody is coupled".to_owned());
            }
            Event::NotCoupled { blade, why } => {
                self.say(|| format!("RMM: {blade} is not coupled, {why}"));
                self.count("refused", 1);
                if !self.faulty && self.now > 3 * SECOND {
                    return Err(format!("{blade} was not coupled: {why}"));
                }
                // Whoever was the last to choose, as an RMM had just come back, chooses again.
                if self.couple_next == Micros::MAX {
                    self.couple_next = self.now + SECOND;
                }
            }
            Event::Screen(blade) => {
                self.count("screens", 1);
                let screen = self.rmm.as_ref().and_then(|rmm| rmm.screen(blade)).map(digest);
                let found = self.blades.iter_mut().find(of(blade)).ok_or("no such blade")?;
                if screen.is_some_and(|screen| !found.shown.contains(&screen)) {
                    return Err(format!("{blade} never showed what is shown of it"));
                }
            }
            other => {
                if !self.faulty && matches!(other, Event::Down(_) | Event::Conflict(_)) {
                    return Err(format!("{other:?} without a fault"));
                }
                self.say(|| format!("RMM: {other:?}"));
            }
        }
        Ok(())
    }

    fn transmit(&mut self) {
        let (now, last) = (self.now, self.blades.len());
        let Self { lines, control, blades, rmm, rng, far_end, choices, .. } = self;
        for (at, [down, up]) in lines.iter_mut().enumerate() {
            if down.is_free(now) {
                let bytes = match at {
                    0 => rmm.as_mut().and_then(|rmm| rmm.mux().next(0)),
                    at => blades[at - 1].lmc.as_mut().and_then(|lmc| lmc.mux().next(1)),
                };
                let is_choice = |bytes: &Vec<u8>| {
                    Decoder::default().feed(bytes).iter().any(|frame| frame.kind == Kind::Select)
                };
                choices.extend(bytes.clone().filter(|bytes| at == 0 && is_choice(bytes)));
                bytes.into_iter().for_each(|bytes| down.send(now, bytes, rng));
            }
            if up.is_free(now) {
                let bytes = match at {
                    at if at == last && *far_end => rmm.as_mut().and_then(|rmm| rmm.mux().next(1)),
                    at => blades[at].lmc.as_mut().and_then(|lmc| lmc.mux().next(0)),
                };
                bytes.into_iter().for_each(|bytes| up.send(now, bytes, rng));
            }
        }
        for (at, [down, up]) in control.iter_mut().enumerate() {
            if down.is_free(now) {
                let bytes = match at {
                    0 => rmm.as_mut().and_then(|rmm| rmm.control_mux()?.next(0)),
                    at if blades[at - 1].lmc.is_some() => blades[at - 1].slave.mux().next(1),
                    _ => None,
                };
                bytes.into_iter().for_each(|bytes| down.send(now, bytes, rng));
            }
            if up.is_free(now) && blades[at].lmc.is_some() {
                let bytes = blades[at].slave.mux().next(0);
                bytes.into_iter().for_each(|bytes| up.send(now, bytes, rng));
            }
        }
    }

    fn all_is_well(&mut self) -> Result<(), String> {
        let rmm = self.rmm.as_ref().ok_or("the RMM is not back")?;
        for (at, blade) in self.blades.iter().enumerate() {
            let (slot, addr) = (blade.slot, Addr::blade(blade.slot).expect("a slot"));
            if !self.is_reached(at) {
                let rmms = blade.lmc.as_ref().map(Lmc::rmms).unwrap_or_default();
                if rmm.link(addr).is_some() || !rmms.is_empty() {
                    return Err(format!("slot {slot} is not reached, and has a session"));
                }
                continue;
            }
            if rmm.link(addr).is_none() {
                return Err(format!("slot {slot} has no session"));
            }
            if blade.said > 0 && blade.streams.heard_up_to() != Some((blade.life, blade.said)) {
                let heard = blade.streams.heard_up_to();
                return Err(format!(
                    "slot {slot} said {:?}, heard {heard:?}",
                    (blade.life, blade.said)
                ));
            }
            if !blade.streams.all_wrote() {
                return Err(format!("slot {slot}: {:?} did not arrive", blade.streams));
            }
        }
        let coupled = rmm.coupled().ok_or("the last choice did not couple its blade")?;
        for blade in &self.blades {
            let by = blade.lmc.as_ref().and_then(Lmc::coupled_by);
            if by.is_some() != (blade.slot == coupled.byte()) {
                return Err(format!("{coupled} is coupled, and slot {} is by {by:?}", blade.slot));
            }
        }
        let blade = self.blades.iter().find(|b| b.slot == coupled.byte()).ok_or("no blade")?;
        if rmm.screen(coupled) != Some(&blade.screen) {
            return Err(format!("the screen of {coupled} is not what it shows"));
        }
        if let Some((slot, keys)) = self.keys.down.iter().find(|(_, keys)| !keys.is_empty()) {
            return Err(format!("{keys:?} are down at slot {slot}"));
        }
        // Each hop: a frame under way, the key's own, and a few as urgent before it.
        let baud = self.lines[0][0].baud;
        let hop = 2 * (230 + 1024 * u64::from(baud > 500_000)) * 10_000_000 / baud;
        let bound = (self.blades.len() as u64 + 1) * hop + 5_000;
        if !self.faulty && self.slowest_key > bound {
            return Err(format!("a key took {} µs, over {bound}", self.slowest_key));
        }
        Ok(())
    }
}

fn digest(screen: &Screen) -> u64 {
    let mut hasher = DefaultHasher::new();
    (screen.columns, screen.rows, screen.cursor, &screen.cells).hash(&mut hasher);
    hasher.finish()
}
