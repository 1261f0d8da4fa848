// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands within a console's bytes, as conserver has them: Control-E, c, and a letter. Whoever wants to send the two says
//! them and `\`.

/// The bytes that begin a command.
const PREFIX: [u8; 2] = [5, b'c'];

/// What was found in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// For the console.
    Bytes(Vec<u8>),
    /// A command.
    Command(Command),
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `.`: end.
    Disconnect,
    /// `?`: what commands there are.
    Help,
    /// `a`: write, if nobody does.
    Attach,
    /// `f`: write, and take that from whoever does.
    Force,
    /// `s`: only look.
    Spy,
    /// `r`: the last 20 lines again.
    Replay,
    /// `p`: the last 60 lines again.
    ReplayMore,
    /// `w`: who looks.
    Who,
    /// `l0`: hold the line at break.
    Break,
    /// `;`, a name, and Enter: another blade.
    Go(String),
    /// None of these.
    Unknown(char),
}

/// Longest name of a blade that is typed.
const LONGEST: usize = 64;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum State {
    #[default]
    Plain,
    /// The first byte of the prefix.
    Begun,
    /// All of it.
    Prefix,
    /// `l`.
    BreakNumber,
    /// `;`.
    Name(String),
}

/// Finds commands, however the bytes are cut.
#[derive(Debug, Clone, Default)]
pub struct Escape {
    state: State,
}

impl Escape {
    /// What is in these bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Found> {
        let mut found = vec![];
        let mut plain = vec![];
        for byte in bytes {
            if let Some(command) = self.byte(*byte, &mut plain) {
                if !plain.is_empty() {
                    found.push(Found::Bytes(std::mem::take(&mut plain)));
                }
                found.push(Found::Command(command));
            }
        }
        if !plain.is_empty() {
            found.push(Found::Bytes(plain));
        }
        found
    }

    fn byte(&mut self, byte: u8, plain: &mut Vec<u8>) -> Option<Command> {
        match std::mem::take(&mut self.state) {
            State::Plain if byte == PREFIX[0] => self.state = State::Begun,
            State::Plain => plain.push(byte),
            State::Begun if byte == PREFIX[1] => self.state = State::Prefix,
            State::Begun if byte == PREFIX[0] => {
                plain.push(PREFIX[0]);
                self.state = State::Begun;
            }
            State::Begun => plain.extend([PREFIX[0], byte]),
            State::Prefix => match byte {
                b'.' => return Some(Command::Disconnect),
                b'?' => return Some(Command::Help),
                b'a' => return Some(Command::Attach),
                b'f' => return Some(Command::Force),
                b's' => return Some(Command::Spy),
                b'r' => return Some(Command::Replay),
                b'p' => return Some(Command::ReplayMore),
                b'w' => return Some(Command::Who),
                b'l' => self.state = State::BreakNumber,
                b';' => self.state = State::Name(String::new()),
                b'\\' => plain.extend(PREFIX),
                other => return Some(Command::Unknown(char::from(other))),
            },
            State::BreakNumber if byte == b'0' => return Some(Command::Break),
            State::BreakNumber => return Some(Command::Unknown(char::from(byte))),
            State::Name(name) if byte == b'\r' || byte == b'\n' => return Some(Command::Go(name)),
            State::Name(_) if byte == 0x1b || byte == 3 => {}
            State::Name(mut name) => {
                match byte {
                    8 | 127 => drop(name.pop()),
                    b' '..=b'~' if name.len() < LONGEST => name.push(char::from(byte)),
                    _ => {}
                }
                self.state = State::Name(name);
            }
        }
        None
    }

    /// Whether a name is being typed, and what there is of it.
    #[must_use]
    pub fn typing(&self) -> Option<&str> {
        if let State::Name(name) = &self.state { Some(name) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_are_found_and_the_rest_is_left() {
        let found =
            Escape::default().feed(b"ab\x05c.cd\x05\x05x\x05c\\\x05c;bl\x7flade 1\r\x05cl0");
        let bytes = |bytes: &[u8]| Found::Bytes(bytes.to_vec());
        let wanted = [
            bytes(b"ab"),
            Found::Command(Command::Disconnect),
            bytes(b"cd\x05\x05x\x05c"),
            Found::Command(Command::Go("blade 1".into())),
            Found::Command(Command::Break),
        ];
        assert_eq!(found, wanted);
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(input in proptest::collection::vec(prop_oneof![Just(5u8), Just(b'c'), Just(b';'), Just(b'l'), any::<u8>()], 0..60), cut in 0usize..60) {
            let merged = |found: Vec<Found>| {
                let mut out: Vec<Found> = vec![];
                for one in found {
                    match (out.last_mut(), one) {
                        (Some(Found::Bytes(before)), Found::Bytes(bytes)) => before.extend(bytes),
                        (_, one) => out.push(one),
                    }
                }
                out
            };
            let whole = Escape::default().feed(&input);
            let (first, second) = input.split_at(cut.min(input.len()));
            let mut escape = Escape::default();
            let mut pieces = escape.feed(first);
            pieces.extend(escape.feed(second));
            prop_assert_eq!(merged(pieces), merged(whole));
        }
    }
}
