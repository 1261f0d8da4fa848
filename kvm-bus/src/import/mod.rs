// SPDX-License-Identifier: MIT OR Apache-2.0
//! Configurations of conserver and ser2net, read to be moved over: `conserver`, `ser2net_yaml` and `ser2net_conf` read text
//! to one model, `place` gives each console its slot and name, `write` makes our files of it, `store` puts them on disk,
//! `command` is the verb.
//!
//! What has no counterpart is told with file and line; nothing is left out silently. What contradicts itself is an error,
//! and then nothing is written.

mod command;
pub mod conserver;
mod place;
pub mod ser2net_conf;
pub mod ser2net_yaml;
mod serial;
pub mod store;
mod words;
mod write;
mod yaml;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use daemon_kit::table::printable;

use crate::config::format::Flow;
use crate::wire::ConsoleSettings;

pub use command::command;
pub use place::{Placed, place};
pub use write::{File, write};

/// Bytes of one configuration: as our own.
pub const MAX_FILE: u64 = daemon_kit::config::MAX_FILE_BYTES;
/// Files that one configuration includes, in all; each is read as often as it is named.
pub const MAX_FILES: usize = 64;
/// How deep files include one another, as conserver has it.
pub const MAX_DEPTH: usize = 10;
/// Consoles: slots of a bus.
pub const MAX_CONSOLES: usize = 239;

/// Whose configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `conserver.cf`.
    Conserver,
    /// `ser2net.yaml` of ser2net 4, or of 3.5 on.
    Ser2netYaml,
    /// `ser2net.conf` of ser2net up to 4.5.
    Ser2netConf,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Conserver => "conserver",
            Self::Ser2netYaml | Self::Ser2netConf => "ser2net",
        })
    }
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// The file as it was named.
    pub file: Arc<str>,
    /// Counted from 1.
    pub line: usize,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", printable(&self.file), self.line)
    }
}

/// Something that is to be told, and where it stands. As an error it ends the import.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// Where.
    pub at: At,
    /// What.
    pub text: String,
}

impl Remark {
    fn new(at: &At, text: impl Into<String>) -> Self {
        Self { at: at.clone(), text: text.into() }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, printable(&self.text))
    }
}

impl std::error::Error for Remark {}

/// A serial console of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Console {
    /// Where it begins.
    pub at: At,
    /// What it is called there.
    pub name: String,
    /// Its device.
    pub device: String,
    /// How its line is set.
    pub settings: ConsoleSettings,
    /// Who may hold back whom.
    pub flow: Flow,
    /// The TCP port where it was.
    pub port: Option<u16>,
}

/// What a configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// In their order.
    pub consoles: Vec<Console>,
    /// What has no counterpart.
    pub warnings: BTreeSet<Remark>,
    /// Bytes of a log until the next is begun.
    pub log_size: Option<u64>,
}

impl Found {
    fn warn(&mut self, at: &At, text: impl Into<String>) {
        self.warnings.insert(Remark::new(at, text));
    }

    fn add(&mut self, console: Console) -> Result<(), Remark> {
        if self.consoles.len() >= MAX_CONSOLES {
            return Err(Remark::new(
                &console.at,
                format!(
                    "there are more than {MAX_CONSOLES} consoles, which is what a bus has; split the file"
                ),
            ));
        }
        self.consoles.push(console);
        Ok(())
    }
}

/// What a parser needs to know of this machine.
pub struct World<'a> {
    /// Names of this machine, for consoles that name theirs.
    pub hosts: &'a [String],
    /// Reads a file that is included.
    pub read: &'a mut dyn FnMut(&str) -> Result<String, String>,
}

impl fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// Reads a configuration. `file` is for messages.
///
/// # Errors
/// What is wrong, and where.
pub fn parse(kind: Kind, text: &str, file: &str, world: &mut World) -> Result<Found, Remark> {
    match kind {
        Kind::Conserver => conserver::parse(text, file, world),
        Kind::Ser2netYaml => ser2net_yaml::parse(text, file),
        Kind::Ser2netConf => ser2net_conf::parse(text, file),
    }
}

/// Whose configuration a text is, by its first line that tells.
#[must_use]
pub fn detect(text: &str) -> Option<Kind> {
    text.lines().find_map(|line| {
        let line = line.trim_end();
        if line.starts_with("%YAML") || line == "---" {
            return Some(Kind::Ser2netYaml);
        }
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        if ser2net_conf::is_line(line) {
            return Some(Kind::Ser2netConf);
        }
        if line.split_once(':').is_some_and(|(key, _)| ser2net_yaml::KEYS.contains(&key)) {
            return Some(Kind::Ser2netYaml);
        }
        let word = line.split_whitespace().next()?.to_ascii_lowercase();
        conserver::BLOCKS.contains(&word.as_str()).then_some(Kind::Conserver)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_tells_whose_it_is() {
        for (text, kind) in [
            ("# x\n\n%YAML 1.1\n---\n", Some(Kind::Ser2netYaml)),
            ("connection: &a\n  accepter: tcp,2000\n", Some(Kind::Ser2netYaml)),
            ("2001:raw:600:/dev/ttyS0:9600\n", Some(Kind::Ser2netConf)),
            ("BANNER:b:hello\\r\\n\n", Some(Kind::Ser2netConf)),
            ("telnet,3001:raw:0:/dev/ttyS0:9600\n", Some(Kind::Ser2netConf)),
            ("#include x\n  default * { master localhost; }\n", Some(Kind::Conserver)),
            ("Console a { type device; }\n", Some(Kind::Conserver)),
            ("hello\n", None),
            ("", None),
        ] {
            assert_eq!(detect(text), kind, "{text}");
        }
    }
}
