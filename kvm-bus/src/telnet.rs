// SPDX-License-Identifier: MIT OR Apache-2.0
//! Telnet (RFC 854, 855, 1143) as a server, with binary, echo, no go-ahead, and the COM port control of RFC 2217.

use crate::wire::{ConsoleSettings, Parity};

const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SB: u8 = 250;
const BREAK: u8 = 243;
const SE: u8 = 240;

const BINARY: u8 = 0;
const ECHO: u8 = 1;
const NO_GO_AHEAD: u8 = 3;
const COM_PORT: u8 = 44;

/// Longest subnegotiation kept, bytes; those of RFC 2217 are under ten.
const MOST_SUB: usize = 64;
/// Most changes of options in a connection. Who goes on asks for ever (a loop of two ends that are both wrong).
const MOST_CHANGES: u32 = 200;
/// The server's answers have the client's command and this.
const ANSWER: u8 = 100;
const SIGNATURE: &[u8] = b"Midplane kvm-bus";

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// These bytes to the console.
    Data(Vec<u8>),
    /// The line held at break.
    Break,
    /// The line set.
    Set(ConsoleSettings),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Data,
    Iac,
    Option(u8),
    Sub,
    SubIac,
    /// A carriage return, after which a zero is none.
    Return,
}

/// A connection.
#[derive(Debug)]
pub struct Telnet {
    state: State,
    sub: Vec<u8>,
    /// What we do, and what the client does, by option; see [`slot`].
    ours: [bool; 4],
    theirs: [bool; 4],
    changes: u32,
    settings: ConsoleSettings,
}

/// Options that we know, and so their place in the tables.
fn slot(option: u8) -> Option<usize> {
    [BINARY, ECHO, NO_GO_AHEAD, COM_PORT].iter().position(|known| *known == option)
}

impl Telnet {
    /// A connection to a console that is set so, and what to say first: that this end echoes, and that nobody waits for turns.
    #[must_use]
    pub fn new(settings: ConsoleSettings) -> (Self, Vec<u8>) {
        let mut telnet = Self {
            state: State::Data,
            sub: vec![],
            ours: [false; 4],
            theirs: [false; 4],
            changes: 0,
            settings,
        };
        let mut first = vec![];
        for option in [ECHO, NO_GO_AHEAD, BINARY] {
            if let Some(at) = slot(option) {
                telnet.ours[at] = true;
            }
            first.extend([IAC, WILL, option]);
        }
        (telnet, first)
    }

    /// Bytes of the console as the client gets them.
    #[must_use]
    pub fn encode(bytes: &[u8]) -> Vec<u8> {
        let doubled = |byte: &u8| if *byte == IAC { vec![IAC, IAC] } else { vec![*byte] };
        bytes.iter().flat_map(doubled).collect()
    }

    /// What the client wants, and what to answer. None when it negotiates for ever: end the connection.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<(Vec<Wish>, Vec<u8>)> {
        let (mut wishes, mut answer, mut data) = (vec![], vec![], vec![]);
        for byte in bytes {
            let wish = self.byte(*byte, &mut data, &mut answer);
            if let Some(wish) = wish {
                if !data.is_empty() {
                    wishes.push(Wish::Data(std::mem::take(&mut data)));
                }
                wishes.push(wish);
            }
        }
        if !data.is_empty() {
            wishes.push(Wish::Data(data));
        }
        (self.changes <= MOST_CHANGES).then_some((wishes, answer))
    }

    fn byte(&mut self, byte: u8, data: &mut Vec<u8>, answer: &mut Vec<u8>) -> Option<Wish> {
        match (self.state, byte) {
            (State::Data | State::Return, IAC) => self.state = State::Iac,
            // RFC 854: a return alone is followed by a zero, unless all is binary.
            (State::Return, 0) => self.state = State::Data,
            (State::Return, b'\n') if !self.theirs[0] => self.state = State::Data,
            (State::Data | State::Return, byte) => {
                self.state =
                    if byte == b'\r' && !self.theirs[0] { State::Return } else { State::Data };
                data.push(byte);
            }
            (State::Iac, IAC) => {
                self.state = State::Data;
                data.push(IAC);
            }
            (State::Iac, WILL | WONT | DO | DONT) => self.state = State::Option(byte),
            (State::Iac, SB) => {
                self.state = State::Sub;
                self.sub.clear();
            }
            (State::Iac, command) => {
                self.state = State::Data;
                return (command == BREAK).then_some(Wish::Break);
            }
            (State::Option(verb), option) => {
                self.state = State::Data;
                self.option(verb, option, answer);
            }
            (State::Sub, IAC) => self.state = State::SubIac,
            (State::SubIac, SE) => {
                self.state = State::Data;
                return self.subnegotiation(answer);
            }
            (State::Sub | State::SubIac, byte) => {
                self.state = State::Sub;
                if self.sub.len() < MOST_SUB {
                    self.sub.push(byte);
                }
            }
        }
        None
    }

    /// Answers only what changes something (RFC 1143): so that two ends do not go round for ever.
    fn option(&mut self, verb: u8, option: u8, answer: &mut Vec<u8>) {
        self.changes += 1;
        let known = slot(option);
        let wants = verb == DO || verb == WILL;
        let (table, yes, no) = match verb {
            DO | DONT => (&mut self.ours, WILL, WONT),
            _ => (&mut self.theirs, DO, DONT),
        };
        // The client is not to echo.
        let known = known.filter(|_| !(verb == WILL && option == ECHO));
        match known {
            Some(at) if table[at] != wants => {
                table[at] = wants;
                answer.extend([IAC, if wants { yes } else { no }, option]);
            }
            None if wants => answer.extend([IAC, no, option]),
            _ => {}
        }
    }

    /// RFC 2217, section 3.
    fn subnegotiation(&mut self, answer: &mut Vec<u8>) -> Option<Wish> {
        let sub = std::mem::take(&mut self.sub);
        let [COM_PORT, command, value @ ..] = &sub[..] else { return None };
        self.changes += u32::from(*command > 12);
        let before = self.settings;
        let first = value.first().copied().unwrap_or(0);
        let mut wish = None;
        let reply: Vec<u8> = match command {
            0 => SIGNATURE.to_vec(),
            1 => {
                let baud = value.first_chunk().map_or(0, |value| u32::from_be_bytes(*value));
                if baud != 0 {
                    self.settings.baud = baud;
                }
                self.settings.baud.to_be_bytes().to_vec()
            }
            2 => {
                if (5..=8).contains(&first) {
                    self.settings.data_bits = first;
                }
                vec![self.settings.data_bits]
            }
            3 => {
                self.settings.parity = match first {
                    1 => Parity::None,
                    2 => Parity::Odd,
                    3 => Parity::Even,
                    _ => self.settings.parity,
                };
                vec![match self.settings.parity {
                    Parity::None => 1,
                    Parity::Odd => 2,
                    Parity::Even => 3,
                }]
            }
            4 => {
                if first == 1 || first == 2 {
                    self.settings.stop_bits = first;
                }
                vec![self.settings.stop_bits]
            }
            5 => {
                if first == 5 {
                    wish = Some(Wish::Break);
                }
                // No flow control: the bus has its own. DTR and RTS of a console are always set.
                vec![match first {
                    0..=3 => 1,
                    4..=6 => first,
                    7..=9 => 8,
                    10..=12 => 11,
                    13..=16 => 14,
                    _ => 17,
                }]
            }
            10..=12 => vec![first],
            _ => return None,
        };
        answer.extend([IAC, SB, COM_PORT, command + ANSWER]);
        answer.extend(Self::encode(&reply));
        answer.extend([IAC, SE]);
        if self.settings != before { Some(Wish::Set(self.settings)) } else { wish }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(telnet: &mut Telnet, bytes: &[u8]) -> (Vec<Wish>, Vec<u8>) {
        telnet.feed(bytes).expect("not for ever")
    }

    #[test]
    fn bytes_pass_and_commands_do_not() {
        let (mut telnet, first) = Telnet::new(ConsoleSettings::default());
        assert_eq!(first, [255, 251, 1, 255, 251, 3, 255, 251, 0]);
        let (wishes, answer) = feed(&mut telnet, b"a\r\0b\r\nc\xff\xffd\xff\xf3e");
        let wanted = [Wish::Data(b"a\rb\rc\xffd".to_vec()), Wish::Break, Wish::Data(b"e".to_vec())];
        assert_eq!((wishes.as_slice(), answer.len()), (&wanted[..], 0));
        assert_eq!(Telnet::encode(b"a\xffb"), b"a\xff\xffb");
    }

    #[test]
    fn options_are_answered_once_and_loops_end() {
        let (mut telnet, _) = Telnet::new(ConsoleSettings::default());
        assert_eq!(feed(&mut telnet, &[IAC, DO, ECHO]).1, [0_u8; 0], "it is agreed");
        assert_eq!(feed(&mut telnet, &[IAC, WILL, COM_PORT]).1, [IAC, DO, COM_PORT]);
        assert_eq!(feed(&mut telnet, &[IAC, WILL, COM_PORT]).1, [0_u8; 0]);
        assert_eq!(
            feed(&mut telnet, &[IAC, DO, 24, IAC, WILL, 24]).1,
            [IAC, WONT, 24, IAC, DONT, 24]
        );
        let looping = [IAC, DO, ECHO, IAC, DONT, ECHO].repeat(200);
        assert_eq!(telnet.feed(&looping), None);
    }

    #[test]
    fn lines_are_set_as_rfc_2217_says() {
        let (mut telnet, _) = Telnet::new(ConsoleSettings::default());
        let set = [IAC, SB, COM_PORT, 1, 0, 0, 0x25, 0x80, IAC, SE];
        let (wishes, answer) = feed(&mut telnet, &set);
        let slow = ConsoleSettings { baud: 9600, ..ConsoleSettings::default() };
        assert_eq!(wishes, [Wish::Set(slow)]);
        assert_eq!(answer, [IAC, SB, COM_PORT, 101, 0, 0, 0x25, 0x80, IAC, SE]);
        let (wishes, answer) = feed(&mut telnet, &[IAC, SB, COM_PORT, 3, 0, IAC, SE]);
        assert_eq!((wishes.len(), answer[4]), (0, 1), "asked, not set");
        let (wishes, _) = feed(&mut telnet, &[IAC, SB, COM_PORT, 5, 5, IAC, SE]);
        assert_eq!(wishes, [Wish::Break]);
        let endless = [&[IAC, SB, COM_PORT][..], &[7; 100_000]].concat();
        feed(&mut telnet, &endless);
        assert!(telnet.sub.capacity() <= 2 * MOST_SUB);
    }
}
