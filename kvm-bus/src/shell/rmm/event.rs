// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the loop does with what the core says.

use super::{Daemon, doors};
use crate::core::rmm::Event;
use crate::shell::hub::Piece;
use crate::shell::log::Log;
use crate::wire::Addr;

impl Daemon {
    pub(super) fn act(&mut self) {
        for event in self.rmm.events() {
            self.event(event);
        }
        let typing: Vec<_> = self
            .hub
            .viewers
            .iter()
            .filter(|(_, v)| v.pending.is_some())
            .map(|(id, _)| *id)
            .collect();
        typing.into_iter().for_each(|id| self.take_pending(id));
        if std::mem::take(&mut self.screen_dirty) {
            self.show_screen();
        }
    }

    fn event(&mut self, event: Event) {
        self.count(&event);
        match event {
            Event::Up(addr) => self.up(addr),
            Event::Down(addr) => {
                tracing::info!(blade = %self.name(addr), "blade is away");
                self.hub.notice(addr, "the blade is away");
                self.log(addr).note("the blade is away");
            }
            Event::Info(_) => {}
            Event::Console { blade, at: (life, offset), bytes } => {
                self.log(blade).said(&bytes);
                self.stands.set(blade, life, offset + bytes.len() as u64);
                self.hub.said(blade, &bytes);
            }
            Event::Gap { blade, lost } => {
                let text = match lost {
                    Some(lost) => format!("{lost} bytes of the console are lost"),
                    None => "the LMC was started anew: some of the console may be lost".to_owned(),
                };
                self.log(blade).note(&text);
                self.hub.notice(blade, &text);
            }
            Event::InputLost { blade, bytes } => {
                let text = format!("the LMC was started anew: {bytes} typed bytes may be lost");
                self.hub.notice(blade, &text);
            }
            Event::Screen(_) => self.screen_dirty = true,
            Event::Coupled(coupled) => {
                self.chosen(coupled);
                self.screen_dirty = true;
            }
            Event::NotCoupled { blade, why } => {
                let text = format!("{} is not coupled: {why}", self.name(blade));
                tracing::warn!("{text}");
                self.hub.of_screen().for_each(|viewer| viewer.notice(text.clone()));
                for waiting in self.waiting.extract_if(.., |w| w.target == Some(blade)) {
                    let _ = waiting.answer.send(Err(text.clone()));
                }
            }
            Event::Power { id, done, .. } => {
                if let Some((_, answer)) = self.powers.remove(&id) {
                    let _ = answer.send(done);
                }
            }
            Event::Conflict(addr) => {
                tracing::error!(%addr, "two LMCs say that they are in this slot; set `slot` of one of them");
            }
        }
    }

    fn count(&self, event: &Event) {
        let (Event::Console { blade, .. } | Event::Gap { blade, .. }) = event else {
            return self.figures.note(event, "");
        };
        self.figures.note(event, &self.name(*blade));
    }

    fn up(&mut self, addr: Addr) {
        tracing::info!(blade = %self.name(addr), %addr, "blade is there");
        self.log(addr).note("the blade is there");
        self.hub.notice(addr, "the blade is there");
        // An LMC that was without an RMM has set its line back.
        let set = self.hub.of_console(addr).filter_map(|viewer| viewer.line).next();
        if let Some(line) = set {
            self.rmm.console_line(self.clock.now(), addr, line.now);
        }
        if let Some(base) = self.config.telnet
            && !self.telnets.contains_key(&addr)
            && let Some(port) = base.port().checked_add(u16::from(addr.byte()))
        {
            let mut at = base;
            at.set_port(port);
            let task = doors::telnet(at, addr.byte().to_string(), self.door.clone());
            self.telnets.insert(addr, task);
        }
    }

    fn log(&mut self, addr: Addr) -> &mut Log {
        let name = self.name(addr);
        let settings = &self.config.logs;
        self.logs.entry(addr).or_insert_with(|| Log::new(settings, &name))
    }

    fn show_screen(&mut self) {
        let Self { rmm, hub, screen_dirty, .. } = self;
        let Some(screen) = rmm.coupled().and_then(|addr| rmm.screen(addr)) else { return };
        for viewer in hub.of_screen() {
            if !viewer.takes() {
                // It is shown what is there when it reads again.
                *screen_dirty = true;
                continue;
            }
            if let Some(mut terminal) = viewer.terminal.take() {
                let text = terminal.show(screen);
                viewer.terminal = Some(terminal);
                for piece in text.as_bytes().chunks(crate::attach::MAX_DATA) {
                    viewer.give(Piece::Data(piece.to_vec()));
                }
            }
        }
    }
}
