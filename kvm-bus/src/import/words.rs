// SPDX-License-Identifier: MIT OR Apache-2.0
//! The words of conserver.cf, as conserver.cf(5) has them under PARSER.

use std::sync::Arc;

use super::{At, MAX_DEPTH, MAX_FILES, Remark, World};

/// A piece of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A word, without its quotes.
    Word(String),
    /// `{`
    Open,
    /// `}`
    Close,
    /// `;`
    End,
}

/// What blanks do: where a keyword is awaited they end it, in a name or a value they belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blanks {
    /// They end the word.
    End,
    /// They belong to it.
    Belong,
}

/// The pieces of a file and of those that it includes, in their order.
#[derive(Debug)]
pub struct Words<'t, 'w> {
    files: Vec<Text>,
    opened: usize,
    world: &'t mut World<'w>,
}

#[derive(Debug)]
struct Text {
    file: Arc<str>,
    chars: std::vec::IntoIter<char>,
    line: usize,
    /// The next character is the first of its line.
    begins: bool,
}

impl Text {
    fn new(file: &str, text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        Self { file: file.into(), chars: chars.into_iter(), line: 1, begins: true }
    }

    fn peek(&self) -> Option<char> {
        self.chars.as_slice().first().copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        self.begins = c == '\n';
        self.line += usize::from(self.begins);
        Some(c)
    }

    fn at(&self) -> At {
        At { file: Arc::clone(&self.file), line: self.line }
    }

    fn rest_of_line(&mut self) -> String {
        let mut rest = String::new();
        while let Some(c) = self.next().filter(|c| *c != '\n') {
            rest.push(c);
        }
        rest
    }
}

/// A piece, and where it begins.
type Piece = (Token, At);

impl<'t, 'w> Words<'t, 'w> {
    /// Those of a text.
    pub fn new(text: &str, file: &str, world: &'t mut World<'w>) -> Self {
        Self { files: vec![Text::new(file, text)], opened: 0, world }
    }

    /// Names of this machine.
    pub fn hosts(&self) -> &'w [String] {
        self.world.hosts
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// A quotation has no end; a file that is included cannot be read, or there are too many.
    pub fn next(&mut self, blanks: Blanks) -> Result<Option<Piece>, Remark> {
        let mut alone = self.files.len() == 1;
        while let Some(text) = self.files.last_mut() {
            let (at, begins) = (text.at(), text.begins);
            match text.peek() {
                None if alone => return Ok(None),
                None => drop(self.files.pop()),
                Some('#') => {
                    let line = text.rest_of_line();
                    if let Some(name) = line.strip_prefix("#include").filter(|_| begins)
                        && name.starts_with(char::is_whitespace)
                    {
                        self.include(name.trim(), &at)?;
                    }
                }
                Some(c) if c.is_whitespace() => drop(text.next()),
                Some(c) => {
                    let token = match c {
                        '{' => Token::Open,
                        '}' => Token::Close,
                        ';' => Token::End,
                        _ => return word(text, blanks).map(|word| Some((Token::Word(word), at))),
                    };
                    text.next();
                    return Ok(Some((token, at)));
                }
            }
            alone = self.files.len() == 1;
        }
        Ok(None)
    }

    fn include(&mut self, name: &str, at: &At) -> Result<(), Remark> {
        self.opened += 1;
        if self.files.len() > MAX_DEPTH || self.opened > MAX_FILES {
            let text = format!(
                "more than {MAX_DEPTH} files in one another, or {MAX_FILES} in all, are included"
            );
            return Err(Remark::new(at, text));
        }
        let text = (self.world.read)(name)
            .map_err(|why| Remark::new(at, format!("cannot read {name}: {why}")))?;
        self.files.push(Text::new(name, &text));
        Ok(())
    }
}

fn word(text: &mut Text, blanks: Blanks) -> Result<String, Remark> {
    let mut word = String::new();
    // Blanks at the end do not belong to it, unless they are quoted.
    let mut length = 0;
    while let Some(c) = text.peek() {
        match c {
            '{' | '}' | ';' | '#' => break,
            _ if c.is_whitespace() && blanks == Blanks::End => break,
            _ if c.is_whitespace() => {
                text.next();
                word.push(' ');
                continue;
            }
            '\\' => {
                let at = text.at();
                text.next();
                word.push(
                    text.next().ok_or_else(|| Remark::new(&at, "nothing follows the backslash"))?,
                );
            }
            '"' => quoted(text, &mut word)?,
            _ => {
                text.next();
                word.push(c);
            }
        }
        length = word.len();
    }
    word.truncate(length);
    Ok(word)
}

fn quoted(text: &mut Text, word: &mut String) -> Result<(), Remark> {
    let at = text.at();
    text.next();
    loop {
        match text.next() {
            None => return Err(Remark::new(&at, "the quotation that begins here has no end")),
            Some('"') => return Ok(()),
            Some('\\') if text.peek() == Some('"') => {
                text.next();
                word.push('"');
            }
            Some(c) => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, blanks: Blanks) -> Result<Vec<(String, usize)>, String> {
        let mut read = |name: &str| match name {
            "a b" => Ok("in cluded".to_owned()),
            "self" => Ok("#include self\n".to_owned()),
            _ => Err("there is no such file".to_owned()),
        };
        let mut world = World { hosts: &[], read: &mut read };
        let mut words = Words::new(text, "f", &mut world);
        let mut found = vec![];
        loop {
            match words.next(blanks) {
                Ok(None) => return Ok(found),
                Ok(Some((Token::Word(word), at))) => found.push((word, at.line)),
                Ok(Some((token, at))) => found.push((format!("{token:?}"), at.line)),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    #[test]
    fn words_are_those_of_the_manual() {
        let text = "\"defa\"ult my\\ defs { rw *; in\\clude \"other # \\\"defs\\\"\"\t; } # more\n";
        let found = words(text, Blanks::End).unwrap();
        let found: Vec<_> = found.iter().map(|(word, _)| word.as_str()).collect();
        let wanted = [
            "default",
            "my defs",
            "Open",
            "rw",
            "*",
            "End",
            "include",
            "other # \"defs\"",
            "End",
            "Close",
        ];
        assert_eq!(found, wanted);
        assert_eq!(
            words(" my \n defs  { \"\"", Blanks::Belong).unwrap(),
            [("my   defs".to_owned(), 1), ("Open".to_owned(), 2), (String::new(), 2),]
        );
    }

    #[test]
    fn files_are_included_from_the_first_column_alone() {
        let found = words("x\n#include a b \n #include c\n#included\ny", Blanks::End).unwrap();
        assert_eq!(
            found,
            [
                ("x".to_owned(), 1),
                ("in".to_owned(), 1),
                ("cluded".to_owned(), 1),
                ("y".to_owned(), 5),
            ]
        );
        assert_eq!(
            words("\n#include c", Blanks::End).unwrap_err(),
            "f:2: cannot read c: there is no such file"
        );
        assert!(words("#include self\n", Blanks::End).unwrap_err().contains("more than 10 files"));
    }

    #[test]
    fn what_has_no_end_is_told_where_it_begins() {
        assert_eq!(
            words("a\n \"b\nc", Blanks::End).unwrap_err(),
            "f:2: the quotation that begins here has no end"
        );
        assert_eq!(words("a\\", Blanks::End).unwrap_err(), "f:1: nothing follows the backslash");
    }
}
