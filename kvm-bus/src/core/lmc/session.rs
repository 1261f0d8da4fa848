// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an LMC has with one RMM, and the moving of messages between it and the blade.

use std::collections::VecDeque;

use super::{Action, Coupling, Lmc};
use crate::core::Micros;
use crate::core::keys::Pressed;
use crate::core::link::Link;
use crate::core::screen::Screen;
use crate::wire::{
    Addr, Class, ConsoleInfo, Frame, FromLmc, Info, Input, ToLmc, console_bytes, decode, encode,
    split_console,
};

/// Control messages waiting; there is one for each of the RMM's, and a few of our own.
const MOST_TOLD: usize = 64;

#[derive(Debug)]
pub(super) struct Session {
    /// The RMM's.
    pub(super) epoch: u32,
    link: Option<Link>,
    pub(super) hello_epoch: Option<u32>,
    pub(super) hello_at: Micros,
    /// When the RMM was last heard in this epoch.
    pub(super) beat_at: Micros,
    /// The latest choice of the RMM.
    pub(super) seen: u32,
    told: VecDeque<FromLmc>,
    info_due: bool,
    /// The next byte of the console to be sent, once the RMM has said from where.
    console_at: Option<u64>,
    /// Input taken in this epoch, bytes.
    taken: u64,
    shown: Option<Screen>,
    shown_version: Option<u64>,
    /// Of a change of the screen, what is not sent yet.
    parts: VecDeque<Vec<u8>>,
}

impl Session {
    pub(super) fn new(epoch: u32) -> Self {
        Self {
            epoch,
            link: None,
            hello_epoch: None,
            hello_at: 0,
            beat_at: 0,
            seen: 0,
            told: VecDeque::new(),
            info_due: false,
            console_at: None,
            taken: 0,
            shown: None,
            shown_version: None,
            parts: VecDeque::new(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.link.is_some()
    }

    pub(super) fn number(&self) -> Option<u32> {
        self.link.as_ref().map(Link::session)
    }

    pub(super) fn is_dead(&self, now: Micros) -> bool {
        self.link.as_ref().is_some_and(|link| link.is_dead(now))
    }

    pub(super) fn forgive(&mut self, now: Micros, late: Micros) {
        if let Some(link) = &mut self.link {
            link.forgive(now, late);
        }
    }

    pub(super) fn wake(&self) -> Micros {
        self.link.as_ref().map_or(Micros::MAX, Link::wake)
    }

    pub(super) fn link_tick(&mut self, now: Micros, out: &mut Vec<Frame>) {
        if let Some(link) = &mut self.link {
            link.tick(now, out);
        }
    }

    pub(super) fn receive(&mut self, now: Micros, frame: Frame) {
        if let Some(link) = self.link.as_mut().filter(|link| link.session() == frame.session) {
            link.receive(now, frame);
        }
    }

    /// The RMM has given a session; whether it is the one that was asked for.
    pub(super) fn begin(
        &mut self,
        now: Micros,
        me: Addr,
        rmm: Addr,
        epoch: u32,
        session: u32,
    ) -> bool {
        if self.link.is_some() || self.hello_epoch != Some(epoch) {
            return false;
        }
        self.link = Some(Link::new(now, me, rmm, session));
        self.hello_epoch = None;
        self.console_at = None;
        self.told.clear();
        self.info_due = true;
        true
    }

    /// Whether there was one.
    pub(super) fn end(&mut self) -> bool {
        self.told.clear();
        self.uncouple();
        self.link.take().is_some()
    }

    pub(super) fn tell_info(&mut self) {
        self.info_due = true;
    }

    pub(super) fn tell(&mut self, what: FromLmc) {
        if self.told.len() < MOST_TOLD {
            self.told.push_back(what);
        }
    }

    pub(super) fn couple(&mut self, now: Micros) {
        if let Some(link) = &mut self.link {
            link.couple(now);
        }
    }

    pub(super) fn uncouple(&mut self) {
        if let Some(link) = &mut self.link {
            link.uncouple();
        }
        self.forget_screen();
    }

    fn forget_screen(&mut self) {
        (self.shown, self.shown_version) = (None, None);
        self.parts.clear();
    }
}

impl Lmc {
    /// Moves what came to where it goes, and what is there into the windows.
    pub(super) fn pump(&mut self, now: Micros) {
        for rmm in self.sessions.keys().copied().collect::<Vec<_>>() {
            while let Some(message) = self.take(now, rmm, Class::Control) {
                if let Ok(message) = decode(&message) {
                    self.control(rmm, message);
                }
            }
            while let Some(message) = self.take(now, rmm, Class::Input) {
                if let Ok(message) = decode(&message) {
                    self.input(rmm, message);
                }
            }
            self.console_input(now, rmm);
            self.fill(now, rmm);
        }
    }

    fn take(&mut self, now: Micros, rmm: Addr, class: Class) -> Option<Vec<u8>> {
        self.sessions.get_mut(&rmm)?.link.as_mut()?.take(now, class)
    }

    fn control(&mut self, rmm: Addr, message: ToLmc) {
        match message {
            ToLmc::Release { coupling } => {
                if self.coupling == Some(Coupling { rmm, number: coupling }) {
                    self.uncouple();
                } else {
                    self.tell(rmm, FromLmc::Released { coupling });
                }
            }
            ToLmc::Break => self.actions.push(Action::Break),
            ToLmc::Line(settings) => self.actions.push(Action::Line(settings)),
            ToLmc::Power { id, action } => self.actions.push(Action::Power { rmm, id, action }),
            ToLmc::ConsoleFrom(offset) => {
                if let Some(session) = self.sessions.get_mut(&rmm) {
                    session.console_at = Some(offset);
                }
            }
            ToLmc::Repaint => {
                if let Some(session) = self.sessions.get_mut(&rmm) {
                    session.forget_screen();
                }
            }
        }
    }

    /// Input by any other choice than the one in force is void: its keys were let go.
    fn input(&mut self, rmm: Addr, input: Input) {
        let in_force = |coupling: u32| self.coupling == Some(Coupling { rmm, number: coupling });
        match input {
            Input::Keys { coupling, pressed } if in_force(coupling) => {
                self.set_keys(Pressed::from_codes(&pressed));
            }
            Input::Pointer { coupling, pointer } if in_force(coupling) => {
                self.actions.push(Action::Pointer(pointer));
            }
            Input::Keys { .. } | Input::Pointer { .. } => {}
        }
    }

    /// Takes no more than the console takes: the rest stays in the window, and so with the sender.
    fn console_input(&mut self, now: Micros, rmm: Addr) {
        loop {
            let Some(session) = self.sessions.get_mut(&rmm) else { return };
            let Some(link) = &mut session.link else { return };
            let Some(message) = link.peek(Class::Console) else { return };
            if message.len().saturating_sub(8) > self.console_room {
                return;
            }
            let Some(message) = link.take(now, Class::Console) else { return };
            let Ok((offset, bytes)) = split_console(&message) else { continue };
            // What was taken in an earlier session comes again if that was not acknowledged.
            let known = usize::try_from(session.taken.saturating_sub(offset)).unwrap_or(usize::MAX);
            let new = bytes.get(known..).unwrap_or(&[]).to_vec();
            session.taken = session.taken.max(offset + bytes.len() as u64);
            if !new.is_empty() {
                self.console_room -= new.len();
                self.actions.push(Action::Console(new));
            }
        }
    }

    fn fill(&mut self, now: Micros, rmm: Addr) {
        let mut out = vec![];
        let (coupled, chunk) = (self.coupled_by() == Some(rmm), self.chunk);
        let Some(session) = self.sessions.get_mut(&rmm) else { return };
        let Some(link) = &mut session.link else { return };
        if session.info_due && link.room(Class::Control) > 0 {
            session.info_due = false;
            let console = self.settings.map(|settings| ConsoleInfo {
                life: self.life,
                start: self.console.start(),
                end: self.console.end(),
                taken: session.taken,
                settings,
            });
            let info = Info { sources: self.sources.clone(), console };
            let _ = link.send(now, Class::Control, encode(&FromLmc::Info(info)), &mut out);
        }
        while link.room(Class::Control) > 0
            && let Some(message) = session.told.pop_front()
        {
            let _ = link.send(now, Class::Control, encode(&message), &mut out);
        }
        while let Some(at) = session.console_at
            && link.room(Class::Console) > 0
        {
            let (offset, bytes) = self.console.from(at, chunk);
            if bytes.is_empty() {
                break;
            }
            session.console_at = Some(offset + bytes.len() as u64);
            let _ = link.send(now, Class::Console, console_bytes(offset, &bytes), &mut out);
        }
        if coupled && let Some(screen) = &self.screen {
            // Nothing new is made before the last has arrived: what changes meanwhile is sent as it is then.
            if session.parts.is_empty()
                && link.is_idle(Class::Screen)
                && session.shown_version != Some(self.screen_version)
            {
                let change = screen.change_since(session.shown.as_ref());
                session.parts = parts(&change, chunk, session.shown.is_none());
                session.shown = Some(screen.clone());
                session.shown_version = Some(self.screen_version);
            }
            while link.room(Class::Screen) > 0
                && let Some(part) = session.parts.pop_front()
            {
                let _ = link.send(now, Class::Screen, part, &mut out);
            }
        }
        self.send(now, out);
    }
}

/// A change in pieces: the first byte of each has bit 0 set in the first, bit 1 in the last, and bit 2 where the change
/// is one of a blank screen.
fn parts(change: &[u8], chunk: usize, whole: bool) -> VecDeque<Vec<u8>> {
    let last = change.len().div_ceil(chunk).saturating_sub(1);
    let flags = |at: usize| u8::from(at == 0) | u8::from(at == last) << 1 | u8::from(whole) << 2;
    change.chunks(chunk).enumerate().map(|(at, piece)| [&[flags(at)], piece].concat()).collect()
}
