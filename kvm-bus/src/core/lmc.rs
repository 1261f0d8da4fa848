// SPDX-License-Identifier: MIT OR Apache-2.0
//! The LMC: a multiplexor, and what of the blade is on the bus.

mod session;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::console::Ring;
use super::keys::Pressed;
use super::link::lateness;
use super::mux::{Mux, PORTS, Port};
use super::screen::Screen;
use super::{Micros, ms};
use crate::wire::{
    Addr, Class, ConsoleSettings, Decoder, Errors, Frame, FromLmc, Hello, Kind, MAX_NAME,
    MAX_PAYLOAD, OVERHEAD, Pointer, Power, Refusal, Select, Sources, Welcome, decode, encode,
};
use session::Session;

/// Console output kept for an RMM that is away, bytes: 5 s of a line at 115,200 baud.
const CONSOLE_KEPT: usize = 64 << 10;
/// Between two requests for a session.
const HELLO_EVERY: Micros = ms(500);
/// An RMM whose clock went back is believed when its later life was silent for so long.
const FORGOTTEN: Micros = ms(10_000);

/// Bytes of console or screen in a frame: 20 ms of the line, so that a key waits no longer behind them.
#[must_use]
pub fn chunk_for(baud: u32) -> usize {
    (baud as usize / 500).clamp(64 + OVERHEAD, MAX_PAYLOAD) - OVERHEAD
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write to the console.
    Console(Vec<u8>),
    /// Hold the console line at break.
    Break,
    /// Set the console line.
    Line(ConsoleSettings),
    /// These keys are down, and no others.
    Keys(Pressed),
    /// Move the pointer.
    Pointer(Pointer),
    /// The blade is coupled, by this RMM, or is not: then nobody looks at the screen.
    Coupled(Option<Addr>),
    /// Order or ask the BMC; the answer goes to [`Lmc::power_done`].
    Power {
        /// For the answer.
        rmm: Addr,
        /// For the answer.
        id: u32,
        /// What.
        action: Power,
    },
    /// A session with an RMM begins or has ended.
    Session {
        /// Which.
        rmm: Addr,
        /// Whether it begins.
        up: bool,
    },
}

/// Who has the blade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Coupling {
    rmm: Addr,
    number: u32,
}

/// The blade's end of the bus.
#[derive(Debug)]
pub struct Lmc {
    mux: Mux,
    decoders: [Decoder; PORTS],
    name: String,
    /// High 20 bits; the low ones count.
    life: u32,
    attempts: u32,
    sessions: BTreeMap<Addr, Session>,
    coupling: Option<Coupling>,
    pressed: Pressed,
    console: Ring,
    settings: Option<ConsoleSettings>,
    /// Bytes that the console takes now.
    console_room: usize,
    sources: Sources,
    screen: Option<Screen>,
    screen_version: u64,
    chunk: usize,
    actions: Vec<Action>,
}

impl Lmc {
    /// One for a slot. `life` is a random number, another one each time.
    #[must_use]
    pub fn new(addr: Addr, name: &str, life: u32) -> Self {
        Self {
            mux: Mux::new(addr),
            decoders: Default::default(),
            name: name.chars().take(MAX_NAME / 4).collect(),
            life: life & !0xfff,
            attempts: 0,
            sessions: BTreeMap::new(),
            coupling: None,
            pressed: Pressed::default(),
            console: Ring::new(CONSOLE_KEPT),
            settings: None,
            console_room: 0,
            sources: Sources::default(),
            screen: None,
            screen_version: 0,
            chunk: chunk_for(115_200),
            actions: vec![],
        }
    }

    /// The slowest line of the bus has so many bits per second.
    pub fn set_baud(&mut self, baud: u32) {
        self.chunk = chunk_for(baud);
    }

    /// What it is connected to has changed.
    pub fn set_sources(&mut self, sources: Sources, console: Option<ConsoleSettings>) {
        if (&self.sources, self.settings) != (&sources, console) {
            (self.sources, self.settings) = (sources, console);
            self.sessions.values_mut().for_each(Session::tell_info);
        }
    }

    /// What it is connected to.
    #[must_use]
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Bytes came by a segment.
    pub fn receive(&mut self, now: Micros, port: Port, bytes: &[u8]) {
        for frame in self.decoders[port].feed(bytes) {
            if let Some(frame) = self.mux.receive(now, port, frame) {
                self.local(now, frame);
            }
        }
        self.pump(now);
    }

    /// The console said something.
    pub fn console_said(&mut self, now: Micros, bytes: &[u8]) {
        self.console.push(bytes);
        self.pump(now);
    }

    /// The console takes so many bytes now.
    pub fn console_takes(&mut self, now: Micros, room: usize) {
        self.console_room = room;
        self.pump(now);
    }

    /// The screen is another one.
    pub fn screen_is(&mut self, now: Micros, screen: Screen) {
        if self.screen.as_ref() != Some(&screen) {
            self.screen = Some(screen);
            self.screen_version += 1;
        }
        self.pump(now);
    }

    /// What came of [`Action::Power`].
    pub fn power_done(&mut self, now: Micros, rmm: Addr, id: u32, done: Result<bool, String>) {
        if let Some(session) = self.sessions.get_mut(&rmm) {
            let done = done.map_err(|error| error.chars().take(200).collect());
            session.tell(FromLmc::Power { id, done });
        }
        self.pump(now);
    }

    /// Time passes.
    pub fn tick(&mut self, now: Micros) {
        if let Some(late) = lateness(now, self.wake()) {
            self.sessions.values_mut().for_each(|session| session.forgive(now, late));
        }
        let dead = |(rmm, session): (&Addr, &Session)| session.is_dead(now).then_some(*rmm);
        let dead: Vec<_> = self.sessions.iter().filter_map(dead).collect();
        for rmm in dead {
            self.mux.distrust(now, rmm);
            self.end_session(rmm);
        }
        let mut out = vec![];
        for session in self.sessions.values_mut() {
            session.link_tick(now, &mut out);
        }
        self.send(now, out);
        self.pump(now);
    }

    /// When [`Self::tick`] is due.
    #[must_use]
    pub fn wake(&self) -> Micros {
        self.sessions.values().map(Session::wake).min().unwrap_or(Micros::MAX)
    }

    /// What is to be done, in this order.
    #[must_use]
    pub fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The multiplexor, for its ports.
    pub fn mux(&mut self) -> &mut Mux {
        &mut self.mux
    }

    /// What came by a port that was no frame.
    #[must_use]
    pub fn errors(&self, port: Port) -> Errors {
        self.decoders[port].errors()
    }

    /// Which RMM has the blade.
    #[must_use]
    pub fn coupled_by(&self) -> Option<Addr> {
        self.coupling.map(|coupling| coupling.rmm)
    }

    /// RMMs with a session.
    #[must_use]
    pub fn rmms(&self) -> Vec<Addr> {
        let up = self.sessions.iter().filter(|(_, session)| session.is_up());
        up.map(|(rmm, _)| *rmm).collect()
    }

    /// A choice by an RMM came, on either bus; the answer is for the blade that was named, and none is due to what is
    /// not newer than what was seen.
    pub fn select(
        &mut self,
        now: Micros,
        rmm: Addr,
        epoch: u32,
        select: Select,
    ) -> Option<Option<Refusal>> {
        let me = select.target == Some(self.mux.addr());
        let Some(session) = self.sessions.get_mut(&rmm).filter(|s| s.epoch == epoch && s.is_up())
        else {
            return me.then_some(Some(Refusal::NoSession));
        };
        let chosen = Coupling { rmm, number: select.coupling };
        if select.coupling < session.seen {
            return None;
        }
        if select.coupling == session.seen {
            // Once more, as its answer may have been lost.
            return (self.coupling == Some(chosen)).then_some(None);
        }
        session.seen = select.coupling;
        if self.coupling.is_some_and(|coupling| coupling.rmm == rmm) {
            self.uncouple();
        }
        let mut refused = None;
        if me {
            match self.coupling {
                Some(Coupling { rmm: by, .. }) => {
                    refused = Some(Refusal::Taken { by });
                    let why = Refusal::Taken { by };
                    self.tell(rmm, FromLmc::NotCoupled { coupling: select.coupling, why });
                }
                None => self.couple(now, chosen),
            }
        }
        self.pump(now);
        Some(refused)
    }

    fn couple(&mut self, now: Micros, coupling: Coupling) {
        self.coupling = Some(coupling);
        if let Some(session) = self.sessions.get_mut(&coupling.rmm) {
            session.couple(now);
        }
        self.tell(coupling.rmm, FromLmc::Coupled { coupling: coupling.number });
        self.actions.push(Action::Coupled(Some(coupling.rmm)));
    }

    /// Keys go up first, whatever else.
    fn uncouple(&mut self) {
        let Some(coupling) = self.coupling.take() else { return };
        self.set_keys(Pressed::default());
        self.actions.push(Action::Coupled(None));
        if let Some(session) = self.sessions.get_mut(&coupling.rmm) {
            session.uncouple();
            session.tell(FromLmc::Released { coupling: coupling.number });
        }
    }

    fn set_keys(&mut self, pressed: Pressed) {
        if self.pressed != pressed {
            self.pressed = pressed;
            self.actions.push(Action::Keys(self.pressed.clone()));
        }
    }

    fn tell(&mut self, rmm: Addr, what: FromLmc) {
        if let Some(session) = self.sessions.get_mut(&rmm) {
            session.tell(what);
        }
    }

    fn end_session(&mut self, rmm: Addr) {
        if self.coupled_by() == Some(rmm) {
            self.uncouple();
        }
        if let Some(session) = self.sessions.get_mut(&rmm)
            && session.end()
        {
            self.actions.push(Action::Session { rmm, up: false });
        }
    }

    fn local(&mut self, now: Micros, frame: Frame) {
        let rmm = frame.src;
        if !rmm.is_rmm() {
            return;
        }
        match frame.kind {
            Kind::Beat if frame.dst == Addr::ALL => self.beat(now, rmm, frame.session),
            Kind::Select => {
                if let Ok(select) = decode(&frame.payload) {
                    let _ = self.select(now, rmm, frame.session, select);
                }
            }
            Kind::Welcome => {
                let Ok(Welcome { epoch }) = decode(&frame.payload) else { return };
                let addr = self.mux.addr();
                if let Some(session) = self.sessions.get_mut(&rmm)
                    && session.begin(now, addr, rmm, epoch, frame.session)
                {
                    self.actions.push(Action::Session { rmm, up: true });
                }
            }
            Kind::Reset => {
                let has = |session: &Session| session.number() == Some(frame.session);
                if self.sessions.get(&rmm).is_some_and(has) {
                    self.end_session(rmm);
                }
            }
            Kind::Beat | Kind::Data | Kind::Ack => {
                if let Some(session) = self.sessions.get_mut(&rmm) {
                    session.receive(now, frame);
                }
            }
            Kind::Hello | Kind::Selected => {}
        }
    }

    /// An RMM is there, in a life of its own: whoever has no session with it asks for one.
    fn beat(&mut self, now: Micros, rmm: Addr, epoch: u32) {
        let known = self.sessions.get(&rmm).map(|session| (session.epoch, session.beat_at));
        match known {
            // A beat of an earlier life that was long on its way.
            Some((current, at)) if epoch < current && now < at + FORGOTTEN => return,
            Some((current, _)) if epoch != current => {
                self.end_session(rmm);
                self.sessions.insert(rmm, Session::new(epoch));
            }
            None => drop(self.sessions.insert(rmm, Session::new(epoch))),
            _ => {}
        }
        let Some(session) = self.sessions.get_mut(&rmm) else { return };
        session.beat_at = now;
        if session.is_up() || now < session.hello_at {
            return;
        }
        // Blades that start at once do not ask at once.
        session.hello_at = now + HELLO_EVERY + ms(u64::from(self.mux.addr().byte()));
        if session.hello_epoch.is_none() {
            self.attempts = (self.attempts + 1) & 0xfff;
            session.hello_epoch = Some(self.life | self.attempts);
        }
        let hello = Hello { epoch: session.hello_epoch.unwrap_or(0), name: self.name.clone() };
        let frame = Frame::new(Class::Control, Kind::Hello, self.mux.addr(), rmm, epoch);
        self.mux.send(now, Frame { payload: encode(&hello), ..frame });
    }

    fn send(&mut self, now: Micros, frames: Vec<Frame>) {
        for frame in frames {
            self.mux.send(now, frame);
        }
    }
}
