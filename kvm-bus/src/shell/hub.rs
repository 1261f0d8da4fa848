// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who looks at which console or at the screen, and who writes there.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::attach::{Mode, What};
use crate::core::console::Ring;
use crate::core::escape::Escape;
use crate::core::render::Terminal;
use crate::wire::{Addr, ConsoleSettings};

/// Pieces that wait for a viewer. One who reads nothing misses what is more, and is told how much.
pub const WAITING: usize = 64;
/// Viewers at once: each has a task and its pieces, of some 100 KiB at most.
const MOST_VIEWERS: usize = 256;
/// Console output kept in memory for replay, bytes: as much as an LMC keeps.
pub const KEPT: usize = 64 << 10;

/// What a viewer gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes.
    Data(Vec<u8>),
    /// Words of ours.
    Notice(String),
    /// The end, and why.
    End(String),
}

/// A viewer.
#[derive(Debug)]
pub struct Viewer {
    /// Of which console; of a screen, the blade it began with.
    pub blade: Option<Addr>,
    /// What it looks at.
    pub what: What,
    /// Who.
    pub who: String,
    /// Whether it may write at all.
    pub may_write: bool,
    /// Whether what it types goes there.
    pub writes: bool,
    /// Finds commands; a program that speaks RFC 2217 has none.
    pub escape: Option<Escape>,
    /// Its terminal, of a screen.
    pub terminal: Option<Terminal>,
    /// What it typed and was not taken yet, and whom to tell when it is.
    pub pending: Option<(VecDeque<u8>, oneshot::Sender<()>)>,
    /// How it has set the console's line.
    pub line: Option<LineSet>,
    /// Since when, seconds since 1970.
    pub since: u64,
    out: mpsc::Sender<Piece>,
    lost: usize,
    told: bool,
}

/// A line that a viewer has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineSet {
    /// How it was.
    pub before: ConsoleSettings,
    /// How it is to be while the viewer is there.
    pub now: ConsoleSettings,
}

/// A viewer, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Its number.
    pub id: u64,
    /// `console` or `screen`.
    pub what: What,
    /// The blade's name.
    pub blade: Option<String>,
    /// Who.
    pub who: String,
    /// Whether it writes.
    pub writes: bool,
    /// Since when, seconds since 1970.
    pub since: u64,
}

impl Viewer {
    /// Gives it a piece, if it takes one; else counts what it misses.
    pub fn give(&mut self, piece: Piece) {
        if self.lost > 0 {
            let notice = format!("{} bytes were skipped: this end read too slowly", self.lost);
            if self.out.try_send(Piece::Notice(notice)).is_ok() {
                self.lost = 0;
            }
        }
        let size = if let Piece::Data(bytes) = &piece { bytes.len() } else { 0 };
        if self.lost > 0 || self.out.try_send(piece).is_err() {
            self.lost += size;
            if let Some(terminal) = &mut self.terminal {
                // What it shows is not known any more.
                terminal.forget();
            }
        }
    }

    /// Gives it words of ours.
    pub fn notice(&mut self, text: impl Into<String>) {
        self.give(Piece::Notice(text.into()));
    }

    /// Says once that what it types goes nowhere.
    pub fn refuse_input(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            let how = if self.may_write { "; ^Ecf takes the keyboard" } else { "" };
            self.notice(format!("you only look{how}"));
        }
    }

    /// Whether its task has ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.out.is_closed()
    }

    /// Whether it takes a piece now.
    #[must_use]
    pub fn takes(&self) -> bool {
        self.out.capacity() > 0
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Hub {
    /// By number.
    pub viewers: BTreeMap<u64, Viewer>,
    rings: BTreeMap<Addr, Ring>,
    next: u64,
}

/// One who wants to be a viewer.
#[derive(Debug)]
pub struct Newcomer {
    /// Of which console.
    pub blade: Option<Addr>,
    /// What.
    pub what: What,
    /// How.
    pub mode: Mode,
    /// Whether it may write at all.
    pub may_write: bool,
    /// Who.
    pub who: String,
    /// Whether commands are found in what it types.
    pub commands: bool,
    /// Columns and rows.
    pub size: (u8, u8),
    /// Where its pieces go.
    pub out: mpsc::Sender<Piece>,
}

impl Hub {
    /// How many there have ever been.
    #[must_use]
    pub fn ever(&self) -> u64 {
        self.next
    }

    /// Adds a viewer and gives its number.
    ///
    /// # Errors
    /// There are too many.
    pub fn add(&mut self, newcomer: Newcomer, now: u64) -> Result<u64, String> {
        if self.viewers.len() >= MOST_VIEWERS {
            return Err(format!("there are {MOST_VIEWERS} sessions already"));
        }
        let Newcomer { blade, what, mode, may_write, who, commands, size, out } = newcomer;
        let (columns, rows) = if size.0 == 0 || size.1 == 0 { (80, 25) } else { size };
        let terminal = (what == What::Screen).then(|| Terminal::new(columns, rows));
        self.next += 1;
        let viewer = Viewer {
            blade,
            what,
            who: who.chars().filter(|c| !c.is_control()).take(64).collect(),
            may_write,
            writes: false,
            escape: commands.then(Escape::default),
            terminal,
            pending: None,
            line: None,
            since: now,
            out,
            lost: 0,
            told: false,
        };
        self.viewers.insert(self.next, viewer);
        self.set_mode(self.next, mode);
        Ok(self.next)
    }

    /// Lets a viewer write, or only look; whoever loses the keyboard is told by whom.
    pub fn set_mode(&mut self, id: u64, mode: Mode) {
        let Some(viewer) = self.viewers.get(&id) else { return };
        let mode = if viewer.may_write { mode } else { Mode::Spy };
        let (what, blade, who) = (viewer.what, viewer.blade, viewer.who.clone());
        let same =
            |other: &Viewer| other.what == what && (what == What::Screen || other.blade == blade);
        let holder = self
            .viewers
            .iter()
            .find(|(other, v)| **other != id && v.writes && same(v))
            .map(|(id, _)| *id);
        let writes = match (mode, holder) {
            (Mode::Spy, _) => false,
            (Mode::Write, Some(_)) => false,
            (Mode::Write, None) | (Mode::Force, _) => true,
        };
        if writes && let Some(loser) = holder.and_then(|id| self.viewers.get_mut(&id)) {
            loser.writes = false;
            loser.told = false;
            loser.pending = None;
            loser.notice(format!("{who} has taken the keyboard; ^Ecf takes it back"));
        }
        if let Some(viewer) = self.viewers.get_mut(&id) {
            viewer.writes = writes;
            viewer.told = false;
        }
    }

    /// A console said something.
    pub fn said(&mut self, blade: Addr, bytes: &[u8]) {
        self.rings.entry(blade).or_insert_with(|| Ring::new(KEPT)).push(bytes);
        for viewer in self.of_console(blade) {
            viewer.give(Piece::Data(bytes.to_vec()));
        }
    }

    /// Words of ours for all who look at a console.
    pub fn notice(&mut self, blade: Addr, text: &str) {
        self.of_console(blade).for_each(|viewer| viewer.notice(text));
    }

    /// The last lines of a console, of those kept in memory.
    #[must_use]
    pub fn tail(&self, blade: Addr, lines: usize) -> Vec<u8> {
        let Some(ring) = self.rings.get(&blade).filter(|_| lines > 0) else { return vec![] };
        let (_, mut bytes) = ring.from(0, KEPT);
        let ends = bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
        let start = ends.map(|(at, _)| at + 1).nth(lines).unwrap_or(0);
        bytes.split_off(start)
    }

    /// Those at a console.
    pub fn of_console(&mut self, blade: Addr) -> impl Iterator<Item = &mut Viewer> {
        let same = move |v: &&mut Viewer| v.what == What::Console && v.blade == Some(blade);
        self.viewers.values_mut().filter(same)
    }

    /// Those at the screen.
    pub fn of_screen(&mut self) -> impl Iterator<Item = &mut Viewer> {
        self.viewers.values_mut().filter(|viewer| viewer.what == What::Screen)
    }

    /// Who looks at the same, in words.
    #[must_use]
    pub fn who(&self, id: u64) -> String {
        let Some(me) = self.viewers.get(&id) else { return String::new() };
        let same =
            |v: &&Viewer| v.what == me.what && (me.what == What::Screen || v.blade == me.blade);
        let words = self.viewers.values().filter(same).map(|viewer| {
            format!("{}{}", viewer.who, if viewer.writes { " (writes)" } else { "" })
        });
        words.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newcomer(who: &str, mode: Mode) -> (Newcomer, mpsc::Receiver<Piece>) {
        let (out, pieces) = mpsc::channel(4);
        let blade = Addr::blade(1);
        let newcomer = Newcomer {
            blade,
            what: What::Console,
            mode,
            may_write: who != "eve",
            who: who.into(),
            commands: true,
            size: (0, 0),
            out,
        };
        (newcomer, pieces)
    }

    #[test]
    fn one_writes_and_whoever_loses_it_is_told() {
        let mut hub = Hub::default();
        let (anna, mut at_anna) = newcomer("anna", Mode::Write);
        let (ben, mut at_ben) = newcomer("ben", Mode::Write);
        let (anna, ben) = (hub.add(anna, 0).unwrap(), hub.add(ben, 0).unwrap());
        assert!(hub.viewers[&anna].writes && !hub.viewers[&ben].writes);
        hub.set_mode(ben, Mode::Force);
        assert!(!hub.viewers[&anna].writes && hub.viewers[&ben].writes);
        let notice = at_anna.try_recv().unwrap();
        assert!(matches!(&notice, Piece::Notice(text) if text.contains("ben")), "{notice:?}");
        assert_eq!(hub.who(anna), "anna, ben (writes)");
        hub.said(Addr::blade(1).unwrap(), b"hello");
        assert_eq!(at_ben.try_recv(), Ok(Piece::Data(b"hello".to_vec())));
    }

    #[test]
    fn who_may_only_look_takes_nothing() {
        let mut hub = Hub::default();
        let (anna, _at_anna) = newcomer("anna", Mode::Write);
        let (eve, _at_eve) = newcomer("eve", Mode::Force);
        let (anna, eve) = (hub.add(anna, 0).unwrap(), hub.add(eve, 0).unwrap());
        hub.set_mode(eve, Mode::Force);
        assert!(hub.viewers[&anna].writes && !hub.viewers[&eve].writes);
    }

    #[test]
    fn a_viewer_that_stalls_misses_and_is_told_how_much() {
        let mut hub = Hub::default();
        let (anna, mut pieces) = newcomer("anna", Mode::Spy);
        hub.add(anna, 0).unwrap();
        let blade = Addr::blade(1).unwrap();
        for _ in 0..10 {
            hub.said(blade, b"0123456789");
        }
        for _ in 0..4 {
            assert_eq!(pieces.try_recv(), Ok(Piece::Data(b"0123456789".to_vec())));
        }
        hub.said(blade, b"x");
        let notice = pieces.try_recv().unwrap();
        assert!(
            matches!(&notice, Piece::Notice(text) if text.starts_with("60 bytes")),
            "{notice:?}"
        );
        assert_eq!(pieces.try_recv(), Ok(Piece::Data(b"x".to_vec())));
    }

    #[test]
    fn the_last_lines_are_kept() {
        let mut hub = Hub::default();
        let blade = Addr::blade(2).unwrap();
        hub.said(blade, b"one\ntwo\nthree\nlog");
        assert_eq!(hub.tail(blade, 1), b"three\nlog");
        assert_eq!(hub.tail(blade, 99), b"one\ntwo\nthree\nlog");
        assert_eq!(hub.tail(blade, 0), b"");
    }
}
