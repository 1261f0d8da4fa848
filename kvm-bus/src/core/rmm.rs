// SPDX-License-Identifier: MIT OR Apache-2.0
//! The RMM: sessions with all blades, one of which is coupled.

mod blade;
mod choice;

use std::collections::{BTreeMap, VecDeque};

use super::keys::Pressed;
use super::link::{Link, lateness};
use super::mux::{Mux, PORTS, Port};
use super::screen::Screen;
use super::{Micros, ms};
use crate::wire::{
    Addr, Class, ConsoleSettings, Decoder, Errors, Frame, Hello, Info, Input, Kind, Pointer, Power,
    ToLmc, Welcome, decode, encode,
};
use blade::Blade;
pub use choice::By;
use choice::Choice;

/// Between two beats to all.
const BEAT_EVERY: Micros = ms(300);
/// Console input that waits for a blade, bytes. Who sends more is told.
pub const INPUT_KEPT: usize = 16 << 10;
/// Key messages that wait for room in the window; more become one, of the latest state.
const KEYS_KEPT: usize = 256;

/// What the shell hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A blade is there; or is again, in another life of its LMC.
    Up(Addr),
    /// A blade has been silent for too long.
    Down(Addr),
    /// What a blade has is another.
    Info(Addr),
    /// A console said something.
    Console {
        /// Which blade's.
        blade: Addr,
        /// A life of its LMC, and the offset of the first byte in it.
        at: (u32, u64),
        /// What.
        bytes: Vec<u8>,
    },
    /// Some of what a console said is lost: it was too much, or nobody listened for too long.
    Gap {
        /// Which blade's.
        blade: Addr,
        /// Bytes; none if it is not known, as the LMC was started anew.
        lost: Option<u64>,
    },
    /// What was typed did not reach the console: its LMC was started anew.
    InputLost {
        /// Which blade's.
        blade: Addr,
        /// Bytes.
        bytes: usize,
    },
    /// The coupled blade's screen is another.
    Screen(Addr),
    /// A blade is coupled; nobody is if there is none.
    Coupled(Option<Addr>),
    /// A blade was not coupled.
    NotCoupled {
        /// Which.
        blade: Addr,
        /// Why.
        why: String,
    },
    /// What came of an order to a BMC.
    Power {
        /// Which blade's.
        blade: Addr,
        /// Of the order.
        id: u32,
        /// Whether it is on, or why that is not known.
        done: Result<bool, String>,
    },
    /// Two blades say that they are in the same slot.
    Conflict(Addr),
}

/// The RMM's end of the bus.
#[derive(Debug)]
pub struct Rmm {
    mux: Mux,
    decoders: [Decoder; PORTS],
    /// The control bus, if it has a line of its own.
    control: Option<(Mux, [Decoder; PORTS])>,
    epoch: u32,
    next_session: u32,
    blades: BTreeMap<Addr, Blade>,
    /// When it began.
    born: Option<Micros>,
    beat_at: Micros,
    /// Who is coupled, by which choice.
    coupled: Option<(Addr, u32)>,
    couplings: u32,
    choice: Option<Choice>,
    pressed: Pressed,
    keys: VecDeque<Input>,
    events: Vec<Event>,
}

impl Rmm {
    /// One of this address. `epoch` is higher than in each life before; `random` is any number.
    #[must_use]
    pub fn new(addr: Addr, epoch: u32, random: u32, control_bus: bool) -> Self {
        Self {
            mux: Mux::new(addr),
            decoders: Default::default(),
            control: control_bus.then(|| (Mux::new(addr), Default::default())),
            epoch,
            next_session: random,
            blades: BTreeMap::new(),
            born: None,
            beat_at: 0,
            coupled: None,
            couplings: 0,
            choice: None,
            pressed: Pressed::default(),
            keys: VecDeque::new(),
            events: vec![],
        }
    }

    /// Up to where a blade's console is known from an earlier life, so that it goes on from there.
    pub fn console_known(&mut self, addr: Addr, life: u32, end: u64) {
        self.blades.entry(addr).or_insert_with(Blade::new).console = Some((life, end));
    }

    /// Bytes came by a segment of the bus.
    pub fn receive(&mut self, now: Micros, port: Port, bytes: &[u8]) {
        for frame in self.decoders[port].feed(bytes) {
            if let Some(frame) = self.mux.receive(now, port, frame) {
                self.local(now, frame);
            }
        }
        self.choose(now);
        self.pump(now);
    }

    /// Bytes came by the control bus.
    pub fn receive_control(&mut self, now: Micros, port: Port, bytes: &[u8]) {
        let Some((mux, decoders)) = &mut self.control else { return };
        let frames: Vec<_> = decoders[port].feed(bytes);
        let mine: Vec<_> = frames.into_iter().filter_map(|f| mux.receive(now, port, f)).collect();
        for frame in mine.iter().filter(|frame| frame.kind == Kind::Selected) {
            self.selected(frame);
        }
        self.pump(now);
    }

    /// Time passes.
    pub fn tick(&mut self, now: Micros) {
        self.born.get_or_insert(now);
        if let Some(late) = lateness(now, self.wake()).filter(|_| self.beat_at > 0) {
            let links = self.blades.values_mut().filter_map(|blade| blade.link.as_mut());
            links.for_each(|link| link.forgive(now, late));
        }
        if self.beat_at <= now {
            self.beat_at = now + BEAT_EVERY;
            let addr = self.mux.addr();
            let beat = Frame::new(Class::Control, Kind::Beat, addr, Addr::ALL, self.epoch);
            self.mux.send(now, beat);
        }
        let dead = |(addr, blade): (&Addr, &Blade)| blade.is_dead(now).then_some(*addr);
        let dead: Vec<_> = self.blades.iter().filter_map(dead).collect();
        for addr in dead {
            self.end(addr);
        }
        let mut out = vec![];
        for link in self.blades.values_mut().filter_map(|blade| blade.link.as_mut()) {
            link.tick(now, &mut out);
        }
        for frame in out {
            self.mux.send(now, frame);
        }
        self.choose(now);
        self.pump(now);
    }

    /// When [`Self::tick`] is due.
    #[must_use]
    pub fn wake(&self) -> Micros {
        let links = self.blades.values().filter_map(|blade| blade.link.as_ref()).map(Link::wake);
        let choice = self.choice.as_ref().map_or(Micros::MAX, Choice::wake);
        links.min().unwrap_or(Micros::MAX).min(self.beat_at).min(choice)
    }

    /// What happened, in this order.
    #[must_use]
    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Types to a console; gives back how many bytes were taken.
    pub fn console_input(&mut self, now: Micros, addr: Addr, bytes: &[u8]) -> usize {
        let Some(blade) = self.blades.get_mut(&addr) else { return 0 };
        if !blade.has_console() {
            return 0;
        }
        let taken = bytes.len().min(INPUT_KEPT.saturating_sub(blade.input.len()));
        blade.input.extend(&bytes[..taken]);
        self.pump(now);
        taken
    }

    /// A message for a blade; false if it is not there or takes none now.
    pub fn tell(&mut self, now: Micros, addr: Addr, message: &ToLmc) -> bool {
        let mut out = vec![];
        let link = self.blades.get_mut(&addr).and_then(|blade| blade.link.as_mut());
        let told = link
            .is_some_and(|link| link.send(now, Class::Control, encode(message), &mut out).is_ok());
        for frame in out {
            self.mux.send(now, frame);
        }
        told
    }

    /// Holds a console at break.
    pub fn console_break(&mut self, now: Micros, addr: Addr) -> bool {
        self.tell(now, addr, &ToLmc::Break)
    }

    /// Sets a console's line.
    pub fn console_line(&mut self, now: Micros, addr: Addr, settings: ConsoleSettings) -> bool {
        self.tell(now, addr, &ToLmc::Line(settings))
    }

    /// Orders or asks a blade's BMC.
    pub fn power(&mut self, now: Micros, addr: Addr, id: u32, action: Power) -> bool {
        self.tell(now, addr, &ToLmc::Power { id, action })
    }

    /// A key goes down or up at the coupled blade. False if nobody is coupled.
    pub fn key(&mut self, now: Micros, code: u16, down: bool) -> bool {
        if self.pressed.set(code, down) {
            self.queue_keys();
            self.pump(now);
        }
        self.coupled.is_some() && self.choice.is_none()
    }

    /// All keys go up at the coupled blade.
    pub fn release_keys(&mut self, now: Micros) {
        if !self.pressed.is_empty() {
            self.pressed = Pressed::default();
            self.queue_keys();
            self.pump(now);
        }
    }

    /// How many more key messages may wait.
    #[must_use]
    pub fn keys_room(&self) -> usize {
        KEYS_KEPT - self.keys.len()
    }

    /// The pointer moves at the coupled blade.
    pub fn pointer(&mut self, now: Micros, pointer: Pointer) {
        if let Some((_, coupling)) = self.coupled.filter(|_| self.keys.len() < KEYS_KEPT) {
            self.keys.push_back(Input::Pointer { coupling, pointer });
            self.pump(now);
        }
    }

    fn queue_keys(&mut self) {
        let Some((_, coupling)) = self.coupled.filter(|_| self.choice.is_none()) else { return };
        if self.keys.len() >= KEYS_KEPT {
            self.keys.pop_back();
        }
        self.keys.push_back(Input::Keys { coupling, pressed: self.pressed.codes() });
    }

    /// The multiplexor of the bus, for its ports.
    pub fn mux(&mut self) -> &mut Mux {
        &mut self.mux
    }

    /// The multiplexor of the control bus, if it has lines of its own.
    pub fn control_mux(&mut self) -> Option<&mut Mux> {
        self.control.as_mut().map(|(mux, _)| mux)
    }

    /// What came by a port that was no frame.
    #[must_use]
    pub fn errors(&self, port: Port) -> Errors {
        self.decoders[port].errors()
    }

    /// Blades that were ever heard.
    pub fn blades(&self) -> impl Iterator<Item = Addr> {
        self.blades.iter().filter(|(_, blade)| !blade.name.is_empty()).map(|(addr, _)| *addr)
    }

    /// A blade's name.
    #[must_use]
    pub fn name(&self, addr: Addr) -> Option<&str> {
        self.blades.get(&addr).map(|blade| blade.name.as_str()).filter(|name| !name.is_empty())
    }

    /// What a blade has, if it is there.
    #[must_use]
    pub fn info(&self, addr: Addr) -> Option<&Info> {
        self.blades.get(&addr)?.info.as_ref()
    }

    /// Whether a blade is there, and if so its round trip and messages sent again.
    #[must_use]
    pub fn link(&self, addr: Addr) -> Option<(Option<Micros>, u64)> {
        let link = self.blades.get(&addr)?.link.as_ref()?;
        Some((link.round_trip(), link.sent_again()))
    }

    /// By which port a blade is reached, and past how many others.
    #[must_use]
    pub fn place(&self, now: Micros, addr: Addr) -> Option<(Port, u8)> {
        Some((self.mux.way(now, addr)?, self.mux.hops(now, addr)?))
    }

    /// The coupled blade's screen.
    #[must_use]
    pub fn screen(&self, addr: Addr) -> Option<&Screen> {
        self.blades.get(&addr)?.screen.as_ref()
    }

    /// Who is coupled.
    #[must_use]
    pub fn coupled(&self) -> Option<Addr> {
        self.coupled.filter(|_| self.choice.is_none()).map(|(addr, _)| addr)
    }

    /// Who is being coupled.
    #[must_use]
    pub fn choosing(&self) -> Option<Addr> {
        self.choice.as_ref().and_then(|choice| choice.target)
    }

    fn local(&mut self, now: Micros, frame: Frame) {
        let from = frame.src;
        if !from.is_blade() {
            return;
        }
        match frame.kind {
            Kind::Hello if frame.session == self.epoch => {
                if let Ok(hello) = decode(&frame.payload) {
                    self.hello(now, from, hello);
                }
            }
            Kind::Selected => self.selected(&frame),
            Kind::Data | Kind::Ack | Kind::Beat => {
                let link = self.blades.get_mut(&from).and_then(|blade| blade.link.as_mut());
                match link.filter(|link| link.session() == frame.session) {
                    Some(link) => link.receive(now, frame),
                    None => {
                        let addr = self.mux.addr();
                        let reset =
                            Frame::new(Class::Control, Kind::Reset, addr, from, frame.session);
                        self.mux.send(now, reset);
                    }
                }
            }
            _ => {}
        }
    }

    fn hello(&mut self, now: Micros, from: Addr, hello: Hello) {
        if hello.name.is_empty() || hello.name.len() > crate::wire::MAX_NAME {
            return;
        }
        let blade = self.blades.entry(from).or_insert_with(Blade::new);
        let same_life = hello.epoch >> 12 == blade.epoch >> 12;
        if same_life && hello.epoch < blade.epoch {
            return;
        }
        if blade.link.is_none() || hello.epoch != blade.epoch {
            if blade.link.is_some() && !same_life && blade.other_life(now) {
                self.events.push(Event::Conflict(from));
            }
            self.end(from);
            self.next_session = self.next_session.wrapping_add(1);
            let link = Link::new(now, self.mux.addr(), from, self.next_session);
            let blade = self.blades.entry(from).or_insert_with(Blade::new);
            (blade.link, blade.epoch, blade.name) = (Some(link), hello.epoch, hello.name);
        }
        let session = self.blades.get(&from).and_then(|b| b.link.as_ref()).map(Link::session);
        let welcome = Welcome { epoch: hello.epoch };
        let frame =
            Frame::new(Class::Control, Kind::Welcome, self.mux.addr(), from, session.unwrap_or(0));
        self.mux.send(now, Frame { payload: encode(&welcome), ..frame });
    }

    /// A session has ended, from whichever side.
    fn end(&mut self, addr: Addr) {
        let Some(blade) = self.blades.get_mut(&addr) else { return };
        let Some(link) = blade.link.take() else { return };
        blade.silent_since = link.heard();
        // How much of what was on its way was taken, the next session begins with.
        blade.input_sent = 0;
        if std::mem::take(&mut blade.up) {
            self.events.push(Event::Down(addr));
        }
        self.forget_screen(addr);
        self.uncoupled(addr);
    }
}
