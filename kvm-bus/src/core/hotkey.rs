// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hot keys on key events: a harmless key tapped twice, then a number or a name and Enter, or an arrow. The taps are passed
//! on, as they may be meant for the blade; what follows them is not.

use std::collections::BTreeMap;

use super::{Micros, ms};

/// A tap is no longer than this, with no other key between.
const TAP: Micros = ms(500);
/// Between two taps.
const BETWEEN: Micros = ms(1000);
/// Until what follows is given up.
const COMMAND: Micros = ms(5000);
/// Longest number or name that is typed.
const LONGEST: usize = 64;

const ENTER: [u16; 2] = [28, 96];
const ESCAPE: u16 = 1;
const UP: u16 = 103;
const DOWN: u16 = 108;
const LEFT: u16 = 105;
const RIGHT: u16 = 106;
/// `KEY_SCROLLLOCK` and `KEY_LEFTCTRL`.
pub const DEFAULT_KEYS: [u16; 2] = [70, 29];

/// Which blade was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pick {
    /// By slot or name.
    Named(String),
    /// The one after the coupled one.
    Next,
    /// The one before it.
    Previous,
}

/// What becomes of a key event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is for the blade.
    Pass,
    /// It is part of a command that is not complete, or of none.
    Swallow,
    /// It completes a command.
    Pick(Pick),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Idle,
    /// The key is down: first or second tap.
    Down {
        code: u16,
        at: Micros,
        second: bool,
    },
    /// One tap is done.
    Tapped {
        code: u16,
        at: Micros,
    },
    Command {
        since: Micros,
        typed: String,
    },
}

/// The matcher.
#[derive(Debug, Clone)]
pub struct HotKeys {
    keys: Vec<u16>,
    state: State,
    /// Keys that are down, and whether the blade was told of it. Of the others the release is none of its business either.
    held: BTreeMap<u16, bool>,
}

impl HotKeys {
    /// One for these keys; with none it passes everything.
    #[must_use]
    pub fn new(keys: &[u16]) -> Self {
        Self { keys: keys.to_vec(), state: State::Idle, held: BTreeMap::new() }
    }

    /// Whether a command is being typed.
    #[must_use]
    pub fn is_command(&self) -> bool {
        matches!(self.state, State::Command { .. })
    }

    /// The keyboard is gone, and with it what was held on it.
    pub fn forget(&mut self) {
        (self.state, self.held) = (State::Idle, BTreeMap::new());
    }

    /// A key goes down or up.
    pub fn key(&mut self, now: Micros, code: u16, down: bool) -> Outcome {
        let told = match down {
            true => self.held.get(&code).copied(),
            false => self.held.remove(&code),
        };
        match told {
            Some(false) => return Outcome::Swallow,
            // Who repeats a key that is held does not type it again.
            Some(true) if down => return Outcome::Pass,
            _ => {}
        }
        let outcome = self.changed(now, code, down);
        if down {
            self.held.insert(code, outcome == Outcome::Pass);
        }
        outcome
    }

    fn changed(&mut self, now: Micros, code: u16, down: bool) -> Outcome {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Command { since, typed } if now < since + COMMAND => {
                if !down {
                    self.state = State::Command { since, typed };
                    // Of a key that went down before.
                    return Outcome::Pass;
                }
                self.command(since, typed, code)
            }
            State::Tapped { code: first, at } if down && code == first && now < at + BETWEEN => {
                self.state = State::Down { code, at: now, second: true };
                Outcome::Pass
            }
            State::Down { code: pressed, at, second } if !down && code == pressed => {
                if now < at + TAP {
                    self.state = if second {
                        State::Command { since: now, typed: String::new() }
                    } else {
                        State::Tapped { code, at: now }
                    };
                }
                Outcome::Pass
            }
            _ => {
                if down && self.keys.contains(&code) {
                    self.state = State::Down { code, at: now, second: false };
                }
                Outcome::Pass
            }
        }
    }

    fn command(&mut self, since: Micros, mut typed: String, code: u16) -> Outcome {
        match code {
            ESCAPE => Outcome::Swallow,
            DOWN | RIGHT if typed.is_empty() => Outcome::Pick(Pick::Next),
            UP | LEFT if typed.is_empty() => Outcome::Pick(Pick::Previous),
            code if ENTER.contains(&code) => {
                if typed.is_empty() {
                    Outcome::Swallow
                } else {
                    Outcome::Pick(Pick::Named(typed))
                }
            }
            code => {
                if let Some(c) = plain(code).filter(|_| typed.len() < LONGEST) {
                    typed.push(c);
                    self.state = State::Command { since, typed };
                }
                Outcome::Swallow
            }
        }
    }
}

/// What a key has on it in names of hosts, on the layouts that agree about it.
fn plain(code: u16) -> Option<char> {
    const ROWS: [(u16, &str); 5] = [
        (2, "1234567890-"),
        (16, "qwertyuiop"),
        (30, "asdfghjkl"),
        (44, "zxcvbnm"),
        (71, "789-456+1230."),
    ];
    let found = ROWS
        .iter()
        .find_map(|(first, row)| row.chars().nth(usize::from(code.checked_sub(*first)?)));
    found.filter(|c| c.is_ascii_alphanumeric() || *c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Typing {
        keys: HotKeys,
        now: Micros,
        passed: Vec<(u16, bool)>,
        picked: Option<Pick>,
    }

    impl Typing {
        fn new() -> Self {
            Self { keys: HotKeys::new(&DEFAULT_KEYS), now: 0, passed: vec![], picked: None }
        }

        fn event(&mut self, code: u16, down: bool, after: Micros) {
            self.now += after;
            match self.keys.key(self.now, code, down) {
                Outcome::Pass => self.passed.push((code, down)),
                Outcome::Swallow => {}
                Outcome::Pick(pick) => self.picked = Some(pick),
            }
        }

        fn tap(&mut self, code: u16) {
            self.event(code, true, ms(50));
            self.event(code, false, ms(50));
        }
    }

    #[test]
    fn two_taps_and_a_number_choose_and_only_the_taps_pass() {
        let mut typing = Typing::new();
        for code in [70, 70, 2, 3, 28] {
            typing.tap(code);
        }
        assert_eq!(typing.picked, Some(Pick::Named("12".into())));
        assert_eq!(typing.passed, [(70, true), (70, false), (70, true), (70, false)]);
        typing.tap(30);
        assert_eq!(typing.passed.len(), 6, "then keys are the blade's again");
    }

    #[test]
    fn keys_of_a_command_that_repeat_are_none_of_the_blades_business() {
        let mut typing = Typing::new();
        for code in [70, 70] {
            typing.tap(code);
        }
        for code in [2, 28] {
            for after in [50, 300, 30] {
                typing.event(code, true, ms(after));
            }
            typing.event(code, false, ms(30));
        }
        assert_eq!(typing.picked, Some(Pick::Named("1".into())), "typed once");
        assert_eq!(typing.passed.len(), 4, "the taps alone");
        typing.tap(2);
        typing.tap(28);
        assert_eq!(typing.passed[4..], [(2, true), (2, false), (28, true), (28, false)]);
        typing.event(42, true, ms(50));
        for code in [70, 70] {
            typing.tap(code);
        }
        typing.event(42, true, ms(50));
        typing.event(42, false, ms(50));
        assert_eq!(typing.passed.len(), 15, "of one that was down before all is passed on");
        typing.event(3, true, ms(50));
        typing.keys.forget();
        typing.tap(3);
        assert_eq!(typing.passed[15..], [(3, true), (3, false)], "of another keyboard");
    }

    #[test]
    fn names_and_arrows() {
        let mut typing = Typing::new();
        for code in [29, 29, 48, 38, 30, 32, 18, 12, 79, 96] {
            typing.tap(code);
        }
        assert_eq!(typing.picked.take(), Some(Pick::Named("blade-1".into())));
        for code in [29, 29, 108] {
            typing.tap(code);
        }
        assert_eq!(typing.picked.take(), Some(Pick::Next));
        for code in [29, 29, 2, ESCAPE, 28] {
            typing.tap(code);
        }
        assert_eq!((typing.picked, typing.passed.last()), (None, Some(&(28, false))));
    }

    #[test]
    fn what_is_no_clean_double_tap_is_none() {
        let cases: [fn(&mut Typing); 4] = [
            // Ctrl-C twice.
            |typing| {
                for _ in 0..2 {
                    typing.event(29, true, ms(10));
                    typing.tap(46);
                    typing.event(29, false, ms(10));
                }
            },
            // Too long between.
            |typing| {
                typing.tap(29);
                typing.now += ms(1500);
                typing.tap(29);
            },
            // Held.
            |typing| {
                typing.tap(29);
                typing.event(29, true, ms(10));
                typing.event(29, false, ms(800));
            },
            // Two different keys.
            |typing| {
                typing.tap(29);
                typing.tap(70);
            },
        ];
        for case in cases {
            let mut typing = Typing::new();
            case(&mut typing);
            typing.tap(3);
            typing.tap(28);
            assert_eq!(typing.picked, None);
            assert_eq!(typing.passed.last(), Some(&(28, false)), "all passes");
        }
        let mut off = HotKeys::new(&[]);
        assert_eq!(off.key(0, 70, true), Outcome::Pass);
    }

    #[test]
    fn a_command_that_nobody_ends_is_given_up() {
        let mut typing = Typing::new();
        for code in [70, 70, 2] {
            typing.tap(code);
        }
        typing.now += ms(6000);
        typing.tap(30);
        assert_eq!(typing.passed.last(), Some(&(30, false)));
    }
}
