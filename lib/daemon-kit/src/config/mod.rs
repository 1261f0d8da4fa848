// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads a TOML configuration and explains what is wrong in it.
//!
//! The types of a program say what is valid, by serde with `deny_unknown_fields`; this module
//! turns what serde and the TOML parser report into a line that names file, line, column and
//! remedy, followed by the offending line itself. Configuration holds no secrets: those lie in
//! files of their own, so a line of it may be shown and logged.

mod explain;
mod units;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use explain::nearest;
pub use toml::Spanned;
pub use units::{HumanDuration, Mode};

use crate::table::printable;

/// Largest configuration file read, bytes. Ours are a few KiB; the bound keeps a path that names
/// a device or a log by mistake from filling the memory.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// A parsed configuration together with its text, so that a program's own checks can name a line.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// What the file says, by serde.
    pub value: T,
    /// Where it says it.
    pub source: Source,
}

impl<T> Loaded<T> {
    /// An error at the line of `span`; see [`Source::error_at`].
    pub fn error_at(
        &self,
        span: Range<usize>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ConfigError {
        self.source.error_at(span, message, remedy)
    }
}

/// The text of a configuration and the path it came from.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The path as the operator knows it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error at the first line of `span`, a byte range as given by [`Spanned::span`]. `remedy`
    /// says what to do and may be empty.
    pub fn error_at(
        &self,
        span: Range<usize>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ConfigError {
        let mut start = span.start.min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let (before, after) = self.text.split_at(start);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before[line_start..].chars().count() + 1;
        let line = before.matches('\n').count() + 1;
        let rest = after.lines().next().unwrap_or("");
        ConfigError {
            path: self.path.clone(),
            place: Some(Place { line, column, text: format!("{}{}", &before[line_start..], rest) }),
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

/// What is wrong in a configuration: `FILE:LINE:COLUMN: message; remedy` and the line meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    path: PathBuf,
    place: Option<Place>,
    message: String,
    remedy: String,
}

/// A position in the file: line and column count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    text: String,
}

impl ConfigError {
    /// An error in the value of `key` when no line is at hand, as for a rule about several keys.
    pub fn invalid(path: &Path, key: &str, message: impl fmt::Display) -> Self {
        Self::whole_file(path, format!("key `{key}`: {message}"), "")
    }

    fn whole_file(path: &Path, message: String, remedy: &str) -> Self {
        Self { path: path.to_owned(), place: None, message, remedy: remedy.to_owned() }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(Place { line, column, .. }) = &self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", printable(&self.message))?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", printable(&self.remedy))?;
        }
        match &self.place {
            Some(Place { line, text, .. }) if !text.trim().is_empty() => {
                write!(f, "\n  {line} | {}", printable(text.trim_end()))
            }
            _ => Ok(()),
        }
    }
}

/// Reads and parses the file at `path`.
///
/// # Errors
/// The file cannot be read, is not TOML, or does not fit `T`.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Loaded<T>, ConfigError> {
    let text = read(path).map_err(|err| unreadable(path, &err))?;
    parse(text, path)
}

/// Reads the file that the operator `named`, or else the one at `default_path`, which may be
/// missing: then the defaults of `T` hold, as for an empty file.
///
/// # Errors
/// As [`load`]; a missing file is an error only when it was named.
pub fn load_or_default<T: DeserializeOwned>(
    named: Option<&Path>,
    default_path: &Path,
) -> Result<Loaded<T>, ConfigError> {
    let path = named.unwrap_or(default_path);
    match read(path) {
        Ok(text) => parse(text, path),
        Err(err) if named.is_none() && err.kind() == io::ErrorKind::NotFound => {
            parse(String::new(), path)
        }
        Err(err) => Err(unreadable(path, &err)),
    }
}

/// Parses `text`; errors call it `path_for_messages`.
///
/// # Errors
/// The text is not TOML or does not fit `T`.
pub fn parse<T: DeserializeOwned>(
    text: impl Into<String>,
    path_for_messages: impl Into<PathBuf>,
) -> Result<Loaded<T>, ConfigError> {
    let source = Source { path: path_for_messages.into(), text: text.into() };
    match toml::from_str(&source.text) {
        Ok(value) => Ok(Loaded { value, source }),
        Err(err) => {
            let (message, remedy) = explain::explain(err.message());
            Err(match err.span() {
                Some(span) => source.error_at(span, message, remedy),
                None => ConfigError::whole_file(&source.path, message, &remedy),
            })
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(text)
}

fn unreadable(path: &Path, err: &io::Error) -> ConfigError {
    let (message, remedy) = match err.kind() {
        io::ErrorKind::NotFound => ("there is no such file".to_owned(), "check the path"),
        io::ErrorKind::PermissionDenied => {
            ("permission denied".to_owned(), "make the file readable for the user of the program")
        }
        io::ErrorKind::InvalidData => ("the file is not UTF-8 text".to_owned(), "save it as UTF-8"),
        io::ErrorKind::FileTooLarge => (
            format!("the file is larger than {} KiB", MAX_FILE_BYTES / 1024),
            "check that it is a configuration file",
        ),
        _ => (format!("cannot be read: {err}"), ""),
    };
    ConfigError::whole_file(path, message, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Raw {
        nodes: u16,
        mode: Mode,
        timeout: HumanDuration,
        kind: Kind,
        bmc: Vec<Bmc>,
        name: Option<Spanned<String>>,
    }

    impl Default for Raw {
        fn default() -> Self {
            Self {
                nodes: 4,
                mode: Mode::new(0o660),
                timeout: HumanDuration::from_millis(5000),
                kind: Kind::Serial,
                bmc: Vec::new(),
                name: None,
            }
        }
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Serial,
        Device,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Bmc {
        #[serde(rename = "path")]
        _path: String,
    }

    fn error(text: &str) -> String {
        parse::<Raw>(text, "/etc/x.toml").unwrap_err().to_string()
    }

    #[test]
    fn a_near_unknown_key_gets_a_suggestion() {
        assert_eq!(
            error("mode = \"0660\"\n\n  nodez = 2 # two\n"),
            "/etc/x.toml:3:3: unknown key `nodez`; did you mean `nodes`?\n  3 |   nodez = 2 # two"
        );
    }

    #[test]
    fn a_far_unknown_key_gets_the_list() {
        assert_eq!(
            error("colour = 1"),
            "/etc/x.toml:1:1: unknown key `colour`; valid keys here: `nodes`, `mode`, `timeout`, \
             `kind`, `bmc`, `name`\n  1 | colour = 1"
        );
    }

    #[test]
    fn an_unknown_key_in_a_table_is_found_at_its_own_line() {
        assert_eq!(
            error("[[bmc]]\npath = \"/dev/ipmi0\"\n[[bmc]]\npaht = \"x\"\n"),
            "/etc/x.toml:4:1: unknown key `paht`; did you mean `path`?\n  4 | paht = \"x\""
        );
    }

    #[test]
    fn wrong_types_and_values_name_what_is_expected() {
        for (text, expected) in [
            (
                "nodes = \"four\"",
                "1:9: expected a whole number from 0 to 65535, found string \"four\"",
            ),
            (
                "nodes = 70000",
                "1:9: expected a whole number from 0 to 65535, found integer `70000`",
            ),
            ("kind = \"serail\"", "1:8: unknown value `serail`; did you mean `serial`?"),
            ("bmc = 3", "1:7: expected a list, found integer `3`"),
            (
                "mode = 660",
                "1:8: expected a file mode in quotes, such as \"0660\", found integer `660`",
            ),
            (
                "mode = \"0990\"",
                "1:8: \"0990\" is not a file mode; write it in octal, such as \"0660\"",
            ),
            (
                "timeout = 5",
                "1:11: expected a duration in quotes, such as \"250ms\", \"5s\" or \"2m\", found integer `5`",
            ),
            (
                "timeout = \"5 s\"",
                "1:11: \"5 s\" is not a duration; write a whole number and ms, s, m or h, such as \"250ms\" or \"5s\"",
            ),
        ] {
            let line = format!("/etc/x.toml:{expected}\n  1 | {text}");
            assert_eq!(error(text), line);
        }
    }

    #[test]
    fn a_missing_key_is_named_at_its_table() {
        assert_eq!(
            error("nodes = 2\n[[bmc]]\n"),
            "/etc/x.toml:2:1: key `path` is missing; add it\n  2 | [[bmc]]"
        );
    }

    #[test]
    fn syntax_errors_and_repeated_keys_name_the_line() {
        for (text, place) in [
            ("nodes = 1\nnodes = 2", "2:1"),
            ("nodes = ", "1:9"),
            ("nodes 4", "1:7"),
            ("\n\nnodes = [1, \n", "3:12"),
            ("name = \"é\u{1b}\"", "1:10"),
        ] {
            let got = error(text);
            assert!(got.starts_with(&format!("/etc/x.toml:{place}: ")), "{text:?}: {got}");
            assert!(!got.contains('\u{1b}'));
        }
    }

    #[test]
    fn a_program_names_the_line_of_what_it_refuses() {
        let loaded = parse::<Raw>("nodes = 1\nname = \"a/b\"\n", "x.toml").unwrap();
        let span = loaded.value.name.as_ref().unwrap().span();
        let err = loaded.error_at(span, "a name has no `/`", "choose another");
        assert_eq!(
            err.to_string(),
            "x.toml:2:8: a name has no `/`; choose another\n  2 | name = \"a/b\""
        );
        assert_eq!(
            ConfigError::invalid(loaded.source.path(), "nodes", "more than 64").to_string(),
            "x.toml: key `nodes`: more than 64"
        );
    }

    #[test]
    fn spans_outside_the_text_or_inside_a_character_are_harmless() {
        let loaded = parse::<Raw>("# é\n", "x").unwrap();
        assert!(loaded.error_at(3..4, "m", "").to_string().starts_with("x:1:3: m"));
        assert_eq!(loaded.error_at(999..1000, "m", "").to_string(), "x:2:1: m");
    }

    #[test]
    fn a_missing_file_is_an_error_only_when_it_was_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("no.toml");
        assert_eq!(load_or_default::<Raw>(None, &path).unwrap().value.nodes, 4);
        let expected = format!("{}: there is no such file; check the path", path.display());
        for result in [load::<Raw>(&path), load_or_default::<Raw>(Some(&path), Path::new("/x"))] {
            assert_eq!(result.unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn other_unreadable_files_are_refused_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, b"nodes = \xff").unwrap();
        assert!(load::<Raw>(&path).unwrap_err().to_string().ends_with("; save it as UTF-8"));
        std::fs::write(&path, vec![b'#'; MAX_FILE_BYTES as usize + 1]).unwrap();
        assert!(load::<Raw>(&path).unwrap_err().to_string().contains("larger than 1024 KiB"));
        assert!(load::<Raw>(dir.path()).unwrap_err().to_string().contains("cannot be read"));
    }
}
