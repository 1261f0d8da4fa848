// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the loop does with requests.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{CHOICE_LIMIT, Daemon, POWER_LIMIT, Request, Waiting};
use crate::attach::{Attached, Mode, What};
use crate::core::escape::{Command, Found};
use crate::core::hotkey::{Outcome as Hot, Pick};
use crate::core::layout;
use crate::shell::clock::unix_time;
use crate::shell::hub::{LineSet, Newcomer, Piece, Viewer};
use crate::shell::log;
use crate::wire::{Addr, ConsoleSettings, Power};

/// Most keys of one character: a modifier and the key, down and up.
const KEYS_OF_ONE: usize = 4;
const HELP: &str = "^Ec then: . end, ? this, a write, f take the keyboard, s only look, r 20 lines, p 60 lines, \
w who, l0 break, ; BLADE Enter another blade";

impl Daemon {
    pub(super) fn request(&mut self, request: Request) {
        let now = self.clock.now();
        match request {
            Request::Status(answer) => drop(answer.send(self.status())),
            Request::Select(target, answer) => self.select(target.as_deref(), Some(answer)),
            Request::Power(blade, action, answer) => self.power(&blade, action, answer),
            Request::Attach(newcomer, blade, replay, answer) => {
                let _ = answer.send(self.attach(*newcomer, blade.as_deref(), replay));
            }
            Request::Typed(id, bytes, taken) => self.typed(id, &bytes, taken),
            Request::Size(id, columns, rows) => {
                let terminal = self.hub.viewers.get_mut(&id).and_then(|v| v.terminal.as_mut());
                if let Some(terminal) = terminal {
                    *terminal = crate::core::render::Terminal::new(columns, rows);
                    self.screen_dirty = true;
                }
            }
            Request::Line(id, settings) => self.set_line(id, settings),
            Request::Break(id) => self.hold_at_break(id),
            Request::Gone(id) => self.gone(id),
            Request::Key(code, down) => self.key(code, down),
            Request::NoKeyboard => {
                self.hot_keys.forget();
                self.rmm.release_keys(now);
            }
        }
    }

    fn line_of(&self, blade: Addr) -> Option<ConsoleSettings> {
        self.rmm.info(blade)?.console.map(|console| console.settings)
    }

    /// Until the viewer leaves.
    fn set_line(&mut self, id: u64, settings: ConsoleSettings) {
        let writer = self.hub.viewers.get(&id).filter(|viewer| viewer.writes);
        let Some(blade) = writer.and_then(|viewer| viewer.blade) else { return };
        let was = self.line_of(blade);
        if let Some(viewer) = self.hub.viewers.get_mut(&id) {
            let before = viewer.line.map(|line| line.before).or(was);
            viewer.line = before.map(|before| LineSet { before, now: settings });
        }
        self.rmm.console_line(self.clock.now(), blade, settings);
    }

    /// A line is as it was before a viewer has set it.
    pub(super) fn set_back(&mut self, viewer: &Viewer) {
        if let (Some(blade), Some(LineSet { before, now })) = (viewer.blade, viewer.line)
            && before != now
        {
            self.rmm.console_line(self.clock.now(), blade, before);
        }
    }

    fn hold_at_break(&mut self, id: u64) {
        let now = self.clock.now();
        let Some(viewer) = self.hub.viewers.get_mut(&id) else { return };
        match viewer.blade.filter(|_| viewer.writes && viewer.what == What::Console) {
            Some(blade) => drop(self.rmm.console_break(now, blade)),
            None => viewer.refuse_input(),
        }
    }

    fn key(&mut self, code: u16, down: bool) {
        let now = self.clock.now();
        match self.hot_keys.key(now, code, down) {
            Hot::Pass => drop(self.rmm.key(now, code, down)),
            Hot::Swallow => {}
            Hot::Pick(pick) => self.pick(&pick),
        }
    }

    fn pick(&mut self, pick: &Pick) {
        let there: Vec<Addr> =
            self.rmm.blades().filter(|addr| self.rmm.link(*addr).is_some()).collect();
        let at = self.rmm.coupled().and_then(|addr| there.iter().position(|other| *other == addr));
        let target = match pick {
            Pick::Named(text) => Some(text.clone()),
            Pick::Next => {
                let next = at.map_or(0, |at| at + 1);
                there.get(next).or(there.first()).map(|addr| addr.byte().to_string())
            }
            Pick::Previous => {
                let before = at.unwrap_or(0).checked_sub(1);
                before
                    .and_then(|at| there.get(at))
                    .or(there.last())
                    .map(|addr| addr.byte().to_string())
            }
        };
        if target.is_some() {
            self.select(target.as_deref(), None);
        }
    }

    pub(super) fn select(
        &mut self,
        target: Option<&str>,
        answer: Option<oneshot::Sender<super::Outcome>>,
    ) {
        let found = target.map(|text| self.find(text)).transpose();
        let target = match found {
            Ok(target) => target,
            Err(why) => {
                self.hub.of_screen().for_each(|viewer| viewer.notice(why.clone()));
                answer.into_iter().for_each(|answer| drop(answer.send(Err(why.clone()))));
                return;
            }
        };
        if let Some(answer) = answer {
            let until = Instant::now() + CHOICE_LIMIT;
            self.waiting.push(Waiting { target, until, answer });
        }
        self.rmm.select(self.clock.now(), target, self.config.by);
    }

    pub(super) fn chosen(&mut self, coupled: Option<Addr>) {
        let text = coupled.map_or("nobody".to_owned(), |addr| self.name(addr));
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.target == coupled {
                let _ = waiting.answer.send(Ok(text.clone()));
            } else {
                self.waiting.push(waiting);
            }
        }
        self.hub.of_screen().for_each(|viewer| viewer.notice(format!("coupled: {text}")));
        self.hardware_follows(coupled);
    }

    /// DTR is set while a blade is coupled, RTS while it is one of an odd slot: enough for a multiplexor of two.
    fn hardware_follows(&self, coupled: Option<Addr>) {
        let Some(path) = &self.config.modem_lines else { return };
        let odd = coupled.is_some_and(|addr| addr.byte() % 2 == 1);
        if let Err(error) = crate::shell::stream::set_modem_lines(path, coupled.is_some(), odd) {
            tracing::warn!(line = %path.display(), %error, "cannot set the modem lines");
        }
    }

    fn power(&mut self, blade: &str, action: Power, answer: oneshot::Sender<Result<bool, String>>) {
        let addr = match self.find(blade) {
            Ok(addr) => addr,
            Err(why) => return drop(answer.send(Err(why))),
        };
        self.next_power += 1;
        if self.rmm.power(self.clock.now(), addr, self.next_power, action) {
            self.powers.insert(self.next_power, (Instant::now() + POWER_LIMIT, answer));
        } else {
            let _ = answer.send(Err(format!("{blade} is not there")));
        }
    }

    fn attach(
        &mut self,
        mut newcomer: Newcomer,
        blade: Option<&str>,
        replay: usize,
    ) -> Result<(u64, Attached), String> {
        newcomer.blade = blade.map(|text| self.find(text)).transpose()?;
        let (what, mode) = (newcomer.what, newcomer.mode);
        match (what, newcomer.blade) {
            (What::Console, None) => return Err("which blade's console?".to_owned()),
            (What::Console, Some(blade)) => {
                let without = self.rmm.info(blade).filter(|info| info.console.is_none());
                if let Some(info) = without {
                    let name = self.name(blade);
                    return Err(match &info.sources.console {
                        Some(words) => format!("the console of {name} is {words}"),
                        None => format!("{name} has no console; set `console` of its LMC"),
                    });
                }
            }
            (What::Screen, _) => {}
        }
        let id = self.hub.add(newcomer, unix_time())?;
        let Some(viewer) = self.hub.viewers.get(&id) else { return Err("it is gone".to_owned()) };
        let (addr, writes) = (viewer.blade, viewer.writes);
        match what {
            What::Console => {
                let past = addr.map(|addr| self.hub.tail(addr, replay)).unwrap_or_default();
                if let Some(viewer) = self.hub.viewers.get_mut(&id).filter(|_| !past.is_empty()) {
                    for piece in past.chunks(crate::attach::MAX_DATA) {
                        viewer.give(Piece::Data(piece.to_vec()));
                    }
                }
            }
            What::Screen => {
                self.screen_dirty = true;
                if let Some(addr) = addr.filter(|_| mode != Mode::Spy) {
                    self.rmm.select(self.clock.now(), Some(addr), self.config.by);
                }
            }
        }
        let line = addr.and_then(|addr| self.line_of(addr));
        let blade = addr.or(self.rmm.coupled()).map(|addr| self.name(addr));
        Ok((id, Attached { blade, writes, line, error: None }))
    }

    fn typed(&mut self, id: u64, bytes: &[u8], taken: oneshot::Sender<()>) {
        let Some(viewer) = self.hub.viewers.get_mut(&id) else { return };
        let found = match &mut viewer.escape {
            Some(escape) => escape.feed(bytes),
            None => vec![Found::Bytes(bytes.to_vec())],
        };
        let mut plain = VecDeque::new();
        for found in found {
            match found {
                Found::Bytes(bytes) => plain.extend(bytes),
                Found::Command(command) => self.command(id, command),
            }
        }
        let Some(viewer) = self.hub.viewers.get_mut(&id) else { return };
        if !plain.is_empty() && !viewer.writes {
            viewer.refuse_input();
            plain.clear();
        }
        viewer.pending = Some((plain, taken));
        self.take_pending(id);
    }

    /// Passes on what a viewer typed as far as it is taken. Who has typed it all may type on.
    pub(super) fn take_pending(&mut self, id: u64) {
        let now = self.clock.now();
        let Some(viewer) = self.hub.viewers.get_mut(&id) else { return };
        let Some((mut bytes, taken)) = viewer.pending.take() else { return };
        match viewer.what {
            What::Console => {
                let Some(blade) = viewer.blade else { return };
                if !bytes.is_empty() && self.rmm.link(blade).is_none() {
                    viewer.notice("the blade is away: what you typed went nowhere");
                    bytes.clear();
                }
                let count = self.rmm.console_input(now, blade, bytes.make_contiguous());
                bytes.drain(..count);
            }
            What::Screen => {
                if !bytes.is_empty() && self.rmm.coupled().is_none() {
                    viewer.notice("no blade is coupled; ^Ec; BLADE Enter couples one");
                    bytes.clear();
                }
                // A piece that is typed is small; a paste comes in many.
                let (chords, missing) = layout::typed(self.config.layout, bytes.make_contiguous());
                if missing > 0 {
                    viewer.notice(format!("{missing} characters have no key on this layout"));
                }
                if self.rmm.keys_room() < KEYS_OF_ONE * chords.len().min(60) {
                    viewer.pending = Some((bytes, taken));
                    return;
                }
                for chord in chords {
                    for code in &chord {
                        self.rmm.key(now, *code, true);
                    }
                    for code in chord.iter().rev() {
                        self.rmm.key(now, *code, false);
                    }
                }
                bytes.clear();
            }
        }
        if bytes.is_empty() {
            let _ = taken.send(());
        } else if let Some(viewer) = self.hub.viewers.get_mut(&id) {
            viewer.pending = Some((bytes, taken));
        }
    }

    fn command(&mut self, id: u64, command: Command) {
        let who = self.hub.who(id);
        let Some(viewer) = self.hub.viewers.get_mut(&id) else { return };
        match command {
            Command::Disconnect => viewer.give(Piece::End("disconnected".to_owned())),
            Command::Help => viewer.notice(HELP),
            Command::Attach => self.set_mode(id, Mode::Write),
            Command::Force => self.set_mode(id, Mode::Force),
            Command::Spy => self.set_mode(id, Mode::Spy),
            Command::Who => viewer.notice(who),
            Command::Replay => self.replay(id, 20),
            Command::ReplayMore => self.replay(id, 60),
            Command::Break => self.hold_at_break(id),
            Command::Go(name) => self.go(id, &name),
            Command::Unknown(c) => {
                viewer.notice(format!("there is no command {c:?}; ^Ec? tells which"));
            }
        }
    }

    fn replay(&mut self, id: u64, lines: usize) {
        let Some(blade) = self.hub.viewers.get(&id).and_then(|viewer| viewer.blade) else { return };
        let past = match log::tail(&self.config.logs, &self.name(blade), lines) {
            Ok(past) => String::from_utf8_lossy(&past).replace('\n', "\r\n").into_bytes(),
            Err(_) => self.hub.tail(blade, lines),
        };
        if let Some(viewer) = self.hub.viewers.get_mut(&id) {
            viewer.notice(format!("the last {lines} lines:"));
            past.chunks(crate::attach::MAX_DATA)
                .for_each(|piece| viewer.give(Piece::Data(piece.to_vec())));
        }
    }

    /// At a console to another one; at the screen another blade is coupled: the hot key of a terminal.
    fn go(&mut self, id: u64, name: &str) {
        let found = self.find(name);
        let Some(viewer) = self.hub.viewers.get_mut(&id) else { return };
        match (viewer.what, found) {
            (_, Err(why)) => viewer.notice(why),
            (What::Screen, Ok(addr)) if viewer.writes => {
                self.rmm.select(self.clock.now(), Some(addr), self.config.by);
            }
            (What::Screen, Ok(_)) => viewer.refuse_input(),
            (What::Console, Ok(addr)) => {
                (viewer.blade, viewer.writes, viewer.pending) = (Some(addr), false, None);
                let text = format!("console of {}", self.name(addr));
                if let Some(viewer) = self.hub.viewers.get_mut(&id) {
                    viewer.notice(text);
                }
                self.set_mode(id, Mode::Write);
            }
        }
    }
}
