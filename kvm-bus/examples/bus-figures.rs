// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a bus of three blades carries, in virtual time on lines of 115,200, 1 M and 4 M baud: JSON for tests/bench.
//!
//! Nothing is measured: pace and bytes are reckoned by the cores of both ends, so that any machine prints the same.

use std::collections::VecDeque;

use kvm_bus::core::Micros;
use kvm_bus::core::lmc::{Action, Lmc};
use kvm_bus::core::rmm::{By, Event, Rmm};
use kvm_bus::core::screen::Screen;
use kvm_bus::wire::{Addr, ConsoleSettings, Sources};
use serde_json::{Value, json};

const BLADES: usize = 3;
const SPEEDS: [u32; 3] = [115_200, 1_000_000, 4_000_000];
const SECOND: Micros = 1_000_000;
/// From the last bit of a frame until the other end has it.
const LATENCY: Micros = 50;
/// Console output that waits at a blade: some of what an LMC keeps.
const BACKLOG: u64 = 32 << 10;
const KEY: u16 = 30;

/// One way of a line.
#[derive(Default)]
struct Line {
    free_at: Micros,
    coming: VecDeque<(Micros, Vec<u8>)>,
    bytes: u64,
}

struct Bus {
    now: Micros,
    baud: u32,
    rmm: Rmm,
    lmcs: Vec<Lmc>,
    /// Line i joins node i and i + 1, down and up; node 0 is the RMM.
    lines: Vec<[Line; 2]>,
    said: [u64; BLADES],
    heard: [u64; BLADES],
    /// Consoles say as much as the bus takes.
    flood: bool,
    coupled: Option<Addr>,
    screens: u64,
    key_at: Option<Micros>,
}

fn slot(at: usize) -> Addr {
    Addr::blade(at as u8 + 1).expect("a slot")
}

impl Bus {
    /// All blades have a session, and nothing else happens.
    fn new(baud: u32) -> Self {
        let lmc = |at| {
            let mut lmc = Lmc::new(slot(at), &format!("b{at}"), (at as u32 + 1) << 12);
            lmc.set_baud(baud);
            lmc.set_sources(Sources::default(), Some(ConsoleSettings::default()));
            lmc.console_takes(0, 4096);
            lmc.screen_is(0, text_screen(0));
            lmc
        };
        let mut bus = Self {
            now: 0,
            baud,
            rmm: Rmm::new(Addr::rmm(0).expect("the first"), 100, 7, false),
            lmcs: (0..BLADES).map(lmc).collect(),
            lines: (0..BLADES).map(|_| Default::default()).collect(),
            said: [0; BLADES],
            heard: [0; BLADES],
            flood: false,
            coupled: None,
            screens: 0,
            key_at: None,
        };
        bus.run(5 * SECOND);
        assert!((0..BLADES).all(|at| bus.rmm.link(slot(at)).is_some()), "no session");
        bus
    }

    fn run(&mut self, time: Micros) {
        let end = self.now + time;
        self.until(end, |_| false);
    }

    /// Until it is so; the time that took.
    fn until(&mut self, end: Micros, done: impl Fn(&Self) -> bool) -> Option<Micros> {
        let begin = self.now;
        loop {
            self.step();
            if done(self) {
                return Some(self.now - begin);
            }
            if self.now >= end {
                return None;
            }
            self.now = self.next_moment().clamp(self.now + 1, end);
        }
    }

    fn step(&mut self) {
        let now = self.now;
        for at in 0..BLADES {
            for way in 0..2 {
                let coming = &mut self.lines[at][way].coming;
                if coming.front().is_none_or(|(when, _)| *when > now) {
                    continue;
                }
                let Some((_, bytes)) = coming.pop_front() else { continue };
                match (way, at) {
                    (0, _) => self.lmcs[at].receive(now, 0, &bytes),
                    (_, 0) => self.rmm.receive(now, 0, &bytes),
                    _ => self.lmcs[at - 1].receive(now, 1, &bytes),
                }
            }
        }
        if self.rmm.wake() <= now {
            self.rmm.tick(now);
        }
        for (at, lmc) in self.lmcs.iter_mut().enumerate() {
            if lmc.wake() <= now {
                lmc.tick(now);
            }
            if self.flood && self.said[at] < self.heard[at] + BACKLOG {
                lmc.console_said(now, &[b'x'; 4096]);
                self.said[at] += 4096;
            }
            for action in lmc.actions() {
                if let Action::Keys(pressed) = action
                    && pressed.codes().contains(&KEY)
                {
                    self.key_at = Some(now);
                }
            }
        }
        for event in self.rmm.events() {
            match event {
                Event::Console { blade, bytes, .. } => {
                    self.heard[usize::from(blade.byte()) - 1] += bytes.len() as u64;
                }
                Event::Coupled(coupled) => self.coupled = coupled,
                Event::Screen(_) => self.screens += 1,
                _ => {}
            }
        }
        self.transmit();
    }

    fn transmit(&mut self) {
        let now = self.now;
        for at in 0..BLADES {
            for way in 0..2 {
                let line = &mut self.lines[at][way];
                if line.free_at > now {
                    continue;
                }
                let next = match (way, at) {
                    (0, 0) => self.rmm.mux().next(0),
                    (0, _) => self.lmcs[at - 1].mux().next(1),
                    _ => self.lmcs[at].mux().next(0),
                };
                if let Some(bytes) = next {
                    line.bytes += bytes.len() as u64;
                    line.free_at = now + bytes.len() as u64 * 10_000_000 / u64::from(self.baud);
                    line.coming.push_back((line.free_at + LATENCY, bytes));
                }
            }
        }
    }

    fn next_moment(&self) -> Micros {
        let mut next = self.rmm.wake();
        for line in self.lines.iter().flatten() {
            next = next.min(line.coming.front().map_or(Micros::MAX, |(at, _)| *at));
            if line.free_at > self.now {
                next = next.min(line.free_at);
            }
        }
        let lmcs = self.lmcs.iter().map(Lmc::wake).min().unwrap_or(Micros::MAX);
        next.min(lmcs)
    }

    /// Bytes on the first line, both ways.
    fn bytes(&self) -> u64 {
        self.lines[0].iter().map(|line| line.bytes).sum()
    }

    fn couple(&mut self, at: usize) -> Micros {
        self.rmm.select(self.now, Some(slot(at)), By::HotKey);
        let coupled = self.until(self.now + 20 * SECOND, |bus| bus.coupled == Some(slot(at)));
        coupled.expect("nobody refuses")
    }

    /// From its press until the farthest blade has it, the worst of some.
    fn slowest_key(&mut self, count: usize) -> Micros {
        let mut slowest = 0;
        for at in 0..count {
            self.run(20_000 + 1_700 * at as Micros);
            self.key_at = None;
            self.rmm.key(self.now, KEY, true);
            let took = self.until(self.now + 5 * SECOND, |bus| bus.key_at.is_some());
            slowest = slowest.max(took.expect("keys arrive"));
            self.rmm.key(self.now, KEY, false);
        }
        slowest
    }

    /// Bytes on the first line and time until the RMM has the coupled blade's new screen.
    fn screen(&mut self, at: usize, screen: Screen) -> (u64, Micros) {
        self.run(SECOND / 2);
        let (bytes, seen) = (self.bytes(), self.screens);
        self.lmcs[at].screen_is(self.now, screen);
        let took = self.until(self.now + 20 * SECOND, |bus| bus.screens > seen);
        (self.bytes() - bytes, took.expect("screens arrive"))
    }
}

/// A console full of the kernel's messages, 160 by 50.
fn text_screen(seed: usize) -> Screen {
    let mut screen = Screen::blank(160, 50);
    for row in 0..50 {
        write(&mut screen, row, seed + row);
    }
    screen
}

fn write(screen: &mut Screen, row: usize, number: usize) {
    let line = format!(
        "[{:>5}.{:06}] usb {}-{}: New USB device found, idVendor={:04x}, idProduct={:04x}, bcdDevice= 5.10",
        number * 7 % 91,
        number * 7919 * 131 % 999_983,
        number % 5,
        number % 7,
        number * 911 % 65_536,
        number * 3571 % 65_536
    );
    for (column, c) in line.chars().enumerate() {
        screen.cells[row * 160 + column] = (c, 7);
    }
}

fn ms(time: Micros) -> f64 {
    time as f64 / 1000.0
}

fn figures(baud: u32) -> Value {
    let last = BLADES - 1;
    let mut bus = Bus::new(baud);
    // What an idle bus costs, to be taken off what follows.
    let before = bus.bytes();
    bus.run(10 * SECOND);
    let idle = (bus.bytes() - before) as f64 / 10.0;
    let first = bus.couple(last);
    bus.until(bus.now + 20 * SECOND, |bus| bus.screens > 0);
    let switches = [0, last, 1, last].map(|at| bus.couple(at));
    let key = bus.slowest_key(50);
    let (full, full_time) = bus.screen(last, text_screen(1000));
    let mut screen = text_screen(1000);
    write(&mut screen, 49, 5000);
    let (line, line_time) = bus.screen(last, screen.clone());
    screen.cells[49 * 160 + 120] = ('x', 7);
    let (cell, cell_time) = bus.screen(last, screen);
    bus.flood = true;
    bus.run(2 * SECOND);
    let (heard, sent) = (bus.heard.iter().sum::<u64>(), bus.lines[0][1].bytes);
    bus.run(10 * SECOND);
    let used = (bus.lines[0][1].bytes - sent) as f64 / 10.0;
    let carried = (bus.heard.iter().sum::<u64>() - heard) as f64 / 10.0;
    let slowest = bus.slowest_key(50);
    json!({
        "baud": baud,
        "idle_bytes_per_second": idle,
        "console_bytes_per_second": carried,
        "efficiency": carried / (f64::from(baud) / 10.0),
        "line_used": used / (f64::from(baud) / 10.0),
        "full_screen_bytes": full,
        "full_screen_ms": ms(full_time),
        "line_bytes": line,
        "line_ms": ms(line_time),
        "cell_bytes": cell,
        "cell_ms": ms(cell_time),
        "first_choice_ms": ms(first),
        "switch_ms": ms(switches.into_iter().max().unwrap_or(0)),
        "key_ms": ms(key),
        "key_under_load_ms": ms(slowest),
    })
}

fn main() {
    let all: Vec<Value> = SPEEDS.into_iter().map(figures).collect();
    println!("{}", json!(all));
}
