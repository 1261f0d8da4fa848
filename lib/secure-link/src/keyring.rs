// SPDX-License-Identifier: MIT OR Apache-2.0
//! The group keys that a machine has: one, or two while the key is being changed. And their files.
//!
//! A file is lines of a word and its value; `#` begins a remark. The group's, which only root reads:
//!
//! ```text
//! group rack-1
//! name blade-3           this machine's, which is not taken along when the file is
//! address 10.0.0.3:7459  where it is reached, with commas; the line may be missing
//! send 4b1f…             64 hexadecimal digits: connections are opened with this key
//! next 99c0…             and let in with this one too, which is to be sent next
//! last 99c0…             or with this one, which was sent before
//! ```
//!
//! In a program's, there is `program ipmi-mux` and no address, and before each key the id of the group key that
//! it is derived from.

use std::fmt::Write;
use std::net::SocketAddr;

use zeroize::Zeroizing;

use crate::crypto::Secret;
use crate::hello::{Hello, KeyState};
use crate::keys::{GroupKey, KeyId, NodeKey, ProgramKey};
use crate::name::Name;

/// Most bytes of a key file: remarks included.
pub const MAX_KEY_FILE: u64 = 4096;

/// The group keys of a machine.
#[derive(Debug, Clone)]
pub struct Keyring {
    /// The group they admit to.
    pub group: Name,
    /// This machine's name in it.
    pub name: Name,
    /// Where its `midplane key serve` is reached, if that is not where its connections come from.
    pub addresses: Vec<SocketAddr>,
    /// Connections are opened with this one.
    pub send: GroupKey,
    /// And let in with this one too.
    pub also: Option<Also>,
}

/// A key beside the one that is sent.
#[derive(Debug, Clone)]
pub struct Also {
    /// Whether it comes or goes.
    pub age: Age,
    /// The key.
    pub key: GroupKey,
}

/// Whether a key comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// It will be sent when all have it.
    Next,
    /// It was sent before, and is accepted until all send the new one.
    Last,
}

/// What one program has of a [`Keyring`].
#[derive(Debug, Clone)]
pub struct ProgramKeyring {
    /// Connections are opened with this one.
    pub send: ProgramKey,
    /// And let in with this one too.
    pub also: Option<ProgramKey>,
}

/// Why a key file cannot be used. What stands in the file is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// A line is wrong.
    #[error("line {line}: {what}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A line is missing.
    #[error("there is no line `{0}`")]
    Missing(&'static str),
}

impl Keyring {
    /// A group's first.
    #[must_use]
    pub fn new(group: Name, name: Name, key: GroupKey) -> Self {
        Self { group, name, addresses: vec![], send: key, also: None }
    }

    /// What others are told of it.
    #[must_use]
    pub fn state(&self) -> KeyState {
        KeyState { sends: self.send.id(), also: self.also.as_ref().map(|also| also.key.id()) }
    }

    /// One of the keys.
    #[must_use]
    pub fn find(&self, id: KeyId) -> Option<&GroupKey> {
        let also = self.also.as_ref().map(|also| &also.key);
        [Some(&self.send), also].into_iter().flatten().find(|key| key.id() == id)
    }

    /// What a program gets.
    #[must_use]
    pub fn program(&self, program: &Name) -> ProgramKeyring {
        let of = |key: &GroupKey| key.program(program);
        ProgramKeyring { send: of(&self.send), also: self.also.as_ref().map(|also| of(&also.key)) }
    }

    /// What is in a program's file.
    #[must_use]
    pub fn file_for(&self, program: &Name) -> ProgramFile {
        let (group, name) = (self.group.clone(), self.name.clone());
        ProgramFile { group, name, program: program.clone(), keys: self.program(program) }
    }

    /// The file's text.
    #[must_use]
    pub fn to_file(&self) -> Zeroizing<String> {
        let mut text = with_room();
        text.push_str("# Who reads this file can join the group. See midplane-key(1).\n");
        let _ = writeln!(text, "group {}\nname {}", self.group, self.name);
        if !self.addresses.is_empty() {
            let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "address {}", addresses.join(","));
        }
        let _ = writeln!(text, "send {}", *self.send.secret().to_hex());
        if let Some(Also { age, key }) = &self.also {
            let word = match age {
                Age::Next => "next",
                Age::Last => "last",
            };
            let _ = writeln!(text, "{word} {}", *key.secret().to_hex());
        }
        text
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// See [`KeyringError`].
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let words = ["group", "name", "address", "send", "next", "last"];
        let [group, name, address, send, next, last] = lines(text, words)?;
        let (group, name) = (name_in(group, "group")?, name_in(name, "name")?);
        let addresses = address.map_or(Ok(vec![]), |(at, list)| {
            let parsed: Result<Vec<_>, _> = list.split(',').map(str::parse).collect();
            let fits = parsed.ok().filter(|list| list.len() <= Hello::MAX_ADDRESSES);
            fits.ok_or(wrong(at, "it is no list of at most 8 addresses with ports"))
        })?;
        let key = |(at, digits)| secret(at, digits).map(GroupKey::new);
        let send = send.ok_or(KeyringError::Missing("send")).and_then(key)?;
        let also = match (next, last) {
            (Some(_), Some((at, _))) => return Err(wrong(at, "there is a `next` already")),
            (Some(line), None) => Some(Also { age: Age::Next, key: key(line)? }),
            (None, Some(line)) => Some(Also { age: Age::Last, key: key(line)? }),
            (None, None) => None,
        };
        let also = also.filter(|also| also.key.id() != send.id());
        Ok(Self { group, name, addresses, send, also })
    }
}

impl ProgramKeyring {
    /// What others are told of it.
    #[must_use]
    pub fn state(&self) -> KeyState {
        KeyState { sends: self.send.id(), also: self.also.as_ref().map(ProgramKey::id) }
    }

    /// One of the keys.
    #[must_use]
    pub fn find(&self, id: KeyId) -> Option<&ProgramKey> {
        [Some(&self.send), self.also.as_ref()].into_iter().flatten().find(|key| key.id() == id)
    }
}

/// All that a program is given: what is in its file.
#[derive(Debug, Clone)]
pub struct ProgramFile {
    /// The group.
    pub group: Name,
    /// This machine's name in it.
    pub name: Name,
    /// The program.
    pub program: Name,
    /// What admits it.
    pub keys: ProgramKeyring,
}

impl ProgramFile {
    /// The file's text.
    #[must_use]
    pub fn to_file(&self) -> Zeroizing<String> {
        let Self { group, name, program, keys } = self;
        let mut text = with_room();
        text.push_str("# Made by `midplane key`. Who reads this file can speak as this program.\n");
        let _ = writeln!(text, "group {group}\nname {name}\nprogram {program}");
        for (word, key) in [("send", Some(&keys.send)), ("accept", keys.also.as_ref())] {
            if let Some(key) = key {
                let digits = key.secret().to_hex();
                let _ = writeln!(text, "{word} {} {}", key.id(), *digits);
            }
        }
        text
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// See [`KeyringError`].
    pub fn parse(text: &str) -> Result<Self, KeyringError> {
        let words = ["group", "name", "program", "send", "accept"];
        let [group, name, program, send, accept] = lines(text, words)?;
        let key = |(at, words): (usize, &str)| {
            let (id, digits) = words.split_once(' ').ok_or(wrong(at, "it is no id and key"))?;
            let id = id.parse().map_err(|_| wrong(at, "it is no id and key"))?;
            Ok(ProgramKey::new(id, secret(at, digits)?))
        };
        let send = send.ok_or(KeyringError::Missing("send")).and_then(key)?;
        let also = accept.map(key).transpose()?.filter(|also| also.id() != send.id());
        Ok(Self {
            group: name_in(group, "group")?,
            name: name_in(name, "name")?,
            program: name_in(program, "program")?,
            keys: ProgramKeyring { send, also },
        })
    }
}

/// The text of a node key's file.
pub(crate) fn node_file(node: &NodeKey) -> Zeroizing<String> {
    let mut text = with_room();
    text.push_str("# Who reads this file can pass for this machine. Never copy it to another.\n");
    let _ = writeln!(text, "node {}", *node.secret().to_hex());
    text
}

/// Reads what [`node_file`] wrote.
pub(crate) fn parse_node(text: &str) -> Result<NodeKey, KeyringError> {
    let [node] = lines(text, ["node"])?;
    let (at, digits) = node.ok_or(KeyringError::Missing("node"))?;
    Ok(NodeKey::new(secret(at, digits)?))
}

/// With room for a whole file: a string that grows leaves copies behind.
fn with_room() -> Zeroizing<String> {
    Zeroizing::new(String::with_capacity(1024))
}

fn wrong(line: usize, what: &'static str) -> KeyringError {
    KeyringError::Line { line, what }
}

fn secret(line: usize, digits: &str) -> Result<Secret, KeyringError> {
    Secret::from_hex(digits).map_err(|_| wrong(line, "a key has 64 hexadecimal digits"))
}

fn name_in(line: Line<'_>, missing: &'static str) -> Result<Name, KeyringError> {
    let (at, name) = line.ok_or(KeyringError::Missing(missing))?;
    name.parse().map_err(|_| wrong(at, "it is no name"))
}

type Line<'a> = Option<(usize, &'a str)>;

/// The values of these words, with the numbers of their lines.
fn lines<'a, const N: usize>(
    text: &'a str,
    words: [&str; N],
) -> Result<[Line<'a>; N], KeyringError> {
    let mut found = [None; N];
    for (at, line) in text.lines().enumerate() {
        let (at, line) = (at + 1, line.trim_end());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (word, value) = line.split_once(' ').ok_or(wrong(at, "it is no word and value"))?;
        let place = words.iter().position(|known| *known == word);
        let place = place.ok_or(wrong(at, "it begins with an unknown word"))?;
        if found[place].replace((at, value.trim_start())).is_some() {
            return Err(wrong(at, "it is there twice"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> Keyring {
        let key = |byte| GroupKey::new(Secret::new(&[byte; 32]));
        let mut ring = Keyring::new("rack-1".parse().unwrap(), "blade-1".parse().unwrap(), key(1));
        ring.also = Some(Also { age: Age::Next, key: key(2) });
        ring.addresses = vec!["10.0.0.1:7459".parse().unwrap(), "[fd00::1]:1".parse().unwrap()];
        ring
    }

    #[test]
    fn files_there_and_back() {
        let ring = ring();
        let back = Keyring::parse(&ring.to_file()).unwrap();
        assert_eq!((back.group.as_str(), back.name.as_str()), ("rack-1", "blade-1"));
        assert_eq!((back.state(), &back.addresses), (ring.state(), &ring.addresses));
        assert_eq!(back.send.secret().expose(), &[1; 32]);
        let part = ring.file_for(&"ipmi-mux".parse().unwrap());
        let text = part.to_file();
        assert!(
            !text.contains(&*Secret::new(&[1; 32]).to_hex()),
            "a program does not get the group key"
        );
        let back = ProgramFile::parse(&text).unwrap();
        assert_eq!(
            (&back.group, &back.name, &back.program),
            (&part.group, &part.name, &part.program)
        );
        assert_eq!(back.keys.state(), ring.state());
        assert_eq!(back.keys.send.secret().expose(), part.keys.send.secret().expose());
    }

    #[test]
    fn errors_name_the_line_and_do_not_repeat_it() {
        let key = "ab".repeat(32);
        for (text, says) in [
            (format!("group a\nsend {key}0"), "line 2: a key has 64 hexadecimal digits"),
            (format!("group a\n\n# x\nsend {key}\nsend {key}"), "line 5: it is there twice"),
            (format!("group a/b\nname b\nsend {key}"), "line 1: it is no name"),
            (format!("name b\nsend {key}"), "there is no line `group`"),
            ("group a\nname b".to_owned(), "there is no line `send`"),
            (format!("group a\nsends {key}"), "line 2: it begins with an unknown word"),
            (key, "line 1: it is no word and value"),
        ] {
            let text = if says.contains("hexadecimal") { format!("{text}\nname b") } else { text };
            assert_eq!(Keyring::parse(&text).unwrap_err().to_string(), says);
        }
    }
}
