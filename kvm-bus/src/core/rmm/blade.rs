// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an RMM knows of one blade, and the moving of messages between it and the shell.

use std::collections::VecDeque;

use super::{Event, Rmm};
use crate::core::link::Link;
use crate::core::screen::{MOST_DEFLATED, Screen};
use crate::core::{Micros, ms};
use crate::wire::{
    Addr, Class, ConsoleInfo, FromLmc, Info, ToLmc, console_bytes, decode, encode, split_console,
};

/// Typed bytes in a frame: what is pasted is not to delay keys.
const INPUT_CHUNK: usize = 128;
/// Lives of an LMC that follow so soon are two LMCs in one slot.
const SOON: Micros = ms(5000);
/// So many of them in a row: an LMC that is started anew is not accused.
const LIVES: u8 = 3;

#[derive(Debug)]
pub(super) struct Blade {
    pub(super) name: String,
    /// Of the LMC's Hello.
    pub(super) epoch: u32,
    pub(super) link: Option<Link>,
    /// Has told what it has.
    pub(super) up: bool,
    /// When it was last heard in a session that has ended.
    pub(super) silent_since: Micros,
    pub(super) info: Option<Info>,
    /// The LMC's life and the offset of the next byte of its console.
    pub(super) console: Option<(u32, u64)>,
    /// Typed bytes that were not taken yet, of which the first has this offset.
    pub(super) input: VecDeque<u8>,
    input_at: u64,
    /// How many of them are in the window.
    pub(super) input_sent: usize,
    pub(super) screen: Option<Screen>,
    /// Of a change of the screen, what has come since its beginning.
    change: Option<Vec<u8>>,
    /// A change made no sense, and the LMC is to send the whole screen.
    repaint: bool,
    lives: (u8, Micros),
}

impl Blade {
    pub(super) fn new() -> Self {
        Self {
            name: String::new(),
            epoch: 0,
            link: None,
            up: false,
            silent_since: 0,
            info: None,
            console: None,
            input: VecDeque::new(),
            input_at: 0,
            input_sent: 0,
            screen: None,
            change: None,
            repaint: false,
            lives: (0, 0),
        }
    }

    pub(super) fn is_dead(&self, now: Micros) -> bool {
        self.link.as_ref().is_some_and(|link| link.is_dead(now))
    }

    pub(super) fn has_console(&self) -> bool {
        self.info.as_ref().is_some_and(|info| info.console.is_some())
    }

    /// Another life said hello while one was there; whether that has happened too often.
    pub(super) fn other_life(&mut self, now: Micros) -> bool {
        let (count, since) = self.lives;
        self.lives = if now < since + SOON { (count.saturating_add(1), now) } else { (1, now) };
        self.lives.0 == LIVES
    }

    /// What the LMC says of its console, first in a session; the offset from which it is to send, and what is lost.
    fn resume(&mut self, console: &ConsoleInfo) -> (u64, Option<Option<u64>>, usize) {
        let mut lost_input = 0;
        let (from, gap) = match self.console {
            Some((life, next)) if life == console.life => {
                let gap = console.start.saturating_sub(next);
                (next, (gap > 0).then_some(Some(gap)))
            }
            // What another life said after the last byte that came is not known.
            Some(_) => {
                lost_input = self.input.len();
                self.input.clear();
                (console.start, Some(None))
            }
            None => (console.start, None),
        };
        if self.console.is_some_and(|(life, _)| life != console.life) {
            self.input_at = console.taken;
        }
        let taken = usize::try_from(console.taken.saturating_sub(self.input_at)).unwrap_or(0);
        let taken = taken.min(self.input.len());
        self.input.drain(..taken);
        // Within a session more may be known to be taken by now.
        self.input_at = self.input_at.max(console.taken);
        self.input_sent = 0;
        let from = from.max(console.start);
        self.console = Some((console.life, from));
        (from, gap, lost_input)
    }
}

impl Rmm {
    pub(super) fn pump(&mut self, now: Micros) {
        for addr in self.blades.keys().copied().collect::<Vec<_>>() {
            while let Some(message) = self.take(now, addr, Class::Control) {
                if let Ok(message) = decode(&message) {
                    self.control(now, addr, message);
                }
            }
            while let Some(message) = self.take(now, addr, Class::Console) {
                self.console(addr, &message);
            }
            while let Some(part) = self.take(now, addr, Class::Screen) {
                self.screen_part(addr, &part);
            }
            self.fill(now, addr);
        }
    }

    fn take(&mut self, now: Micros, addr: Addr, class: Class) -> Option<Vec<u8>> {
        self.blades.get_mut(&addr)?.link.as_mut()?.take(now, class)
    }

    fn control(&mut self, now: Micros, addr: Addr, message: FromLmc) {
        match message {
            FromLmc::Info(info) => self.info_came(now, addr, info),
            FromLmc::Coupled { coupling } => self.is_coupled(now, addr, coupling),
            FromLmc::NotCoupled { coupling, why } => self.is_refused(addr, coupling, why),
            FromLmc::Released { coupling } => self.is_released(now, addr, coupling),
            FromLmc::Power { id, done } => {
                self.events.push(Event::Power { blade: addr, id, done });
            }
        }
    }

    fn info_came(&mut self, now: Micros, addr: Addr, info: Info) {
        let Some(blade) = self.blades.get_mut(&addr) else { return };
        let first = !std::mem::replace(&mut blade.up, true);
        let console = info.console;
        let had_console = blade.has_console();
        blade.info = Some(info);
        self.events.push(if first { Event::Up(addr) } else { Event::Info(addr) });
        // Within a session the stream goes on by itself.
        if let Some(console) = console.filter(|_| first || !had_console) {
            let (from, gap, lost_input) = blade.resume(&console);
            if let Some(lost) = gap {
                self.events.push(Event::Gap { blade: addr, lost });
            }
            if lost_input > 0 {
                self.events.push(Event::InputLost { blade: addr, bytes: lost_input });
            }
            self.tell(now, addr, &ToLmc::ConsoleFrom(from));
        }
    }

    fn console(&mut self, addr: Addr, message: &[u8]) {
        let Some(blade) = self.blades.get_mut(&addr) else { return };
        let (Ok((offset, bytes)), Some((life, next))) = (split_console(message), blade.console)
        else {
            return;
        };
        if offset > next {
            self.events.push(Event::Gap { blade: addr, lost: Some(offset - next) });
        }
        let known = usize::try_from(next.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(new) = bytes.get(known..).filter(|new| !new.is_empty()) else { return };
        let at = offset + known as u64;
        blade.console = Some((life, at + new.len() as u64));
        self.events.push(Event::Console { blade: addr, at: (life, at), bytes: new.to_vec() });
    }

    fn screen_part(&mut self, addr: Addr, part: &[u8]) {
        let Some(blade) = self.blades.get_mut(&addr) else { return };
        let Some((flags, piece)) = part.split_first() else { return };
        if flags & 1 == 1 {
            blade.change = Some(vec![]);
        }
        // Of one whose beginning was forgotten nothing is made.
        let Some(change) = &mut blade.change else { return };
        if change.len() + piece.len() > MOST_DEFLATED {
            blade.change = None;
            blade.screen = None;
            blade.repaint = true;
            return;
        }
        change.extend(piece);
        if flags & 2 == 0 {
            return;
        }
        let Some(change) = blade.change.take() else { return };
        if flags & 4 == 4 {
            blade.screen = Some(Screen::default());
        }
        // A change of a screen that is forgotten was made for the choice before; a whole one follows.
        let Some(screen) = &mut blade.screen else { return };
        if screen.apply(&change).is_ok() {
            self.events.push(Event::Screen(addr));
        } else {
            blade.screen = None;
            blade.repaint = true;
        }
    }

    fn fill(&mut self, now: Micros, addr: Addr) {
        let mut out = vec![];
        let coupled = self.coupled.is_some_and(|(coupled, _)| coupled == addr);
        let Some(blade) = self.blades.get_mut(&addr) else { return };
        let Some(link) = blade.link.as_mut().filter(|_| blade.up) else { return };
        if blade.repaint && link.room(Class::Control) > 0 {
            blade.repaint = false;
            let _ = link.send(now, Class::Control, encode(&ToLmc::Repaint), &mut out);
        }
        while coupled
            && link.room(Class::Input) > 0
            && let Some(message) = self.keys.pop_front()
        {
            let _ = link.send(now, Class::Input, encode(&message), &mut out);
        }
        if link.is_idle(Class::Console) && blade.input_sent > 0 {
            // All that was in the window was taken.
            blade.input.drain(..blade.input_sent);
            blade.input_at += blade.input_sent as u64;
            blade.input_sent = 0;
        }
        // What the console has taken is known once the LMC has told of it.
        let told = blade.info.as_ref().is_some_and(|info| info.console.is_some());
        while told && link.room(Class::Console) > 0 && blade.input_sent < blade.input.len() {
            let next = blade.input.iter().skip(blade.input_sent).take(INPUT_CHUNK);
            let bytes: Vec<u8> = next.copied().collect();
            let offset = blade.input_at + blade.input_sent as u64;
            blade.input_sent += bytes.len();
            let _ = link.send(now, Class::Console, console_bytes(offset, &bytes), &mut out);
        }
        for frame in out {
            self.mux.send(now, frame);
        }
    }

    /// The next that comes is a whole one.
    pub(super) fn forget_screen(&mut self, addr: Addr) {
        if let Some(blade) = self.blades.get_mut(&addr) {
            blade.screen = None;
            blade.change = None;
            blade.repaint = false;
        }
    }
}
