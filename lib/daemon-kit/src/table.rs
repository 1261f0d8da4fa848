// SPDX-License-Identifier: MIT OR Apache-2.0
//! Plain-text tables for the output of verbs, safe to print whatever the cells hold.
//!
//! Names from FRUs, USB descriptors and hosts are hostile: [`printable`] keeps them from moving
//! the cursor, colouring the terminal or turning the direction of the text.

use std::borrow::Cow;
use std::fmt;

/// `text` with control characters and the invisible ones that steer layout written as escapes,
/// `\n` and `\u{1b}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(hostile) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if hostile(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

/// Control characters, line and paragraph separators, and the marks of the Unicode bidirectional
/// algorithm (Unicode Standard Annex 9, section 2) with their zero-width neighbours.
fn hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Rows under a header, columns two spaces apart and as wide as their widest cell.
#[derive(Debug, Clone)]
pub struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table of these columns.
    pub fn new(header: [&str; N]) -> Self {
        Self { rows: vec![header.map(str::to_owned)] }
    }

    /// Adds a row. An empty cell is shown as `-`, so that columns stay countable for `awk`.
    pub fn row(&mut self, cells: [&str; N]) {
        self.rows.push(cells.map(|cell| match cell {
            "" => "-".to_owned(),
            cell => printable(cell).into_owned(),
        }));
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max();
        let widths: [usize; N] = std::array::from_fn(|column| width(column).unwrap_or(0));
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_cells_are_harmless() {
        let mut table = Table::new(["NODE", "NAME"]);
        table.row(["ipmi10", "é"]);
        table.row(["", "a\u{1b}[31m\nb"]);
        assert_eq!(table.to_string(), "NODE    NAME\nipmi10  é\n-       a\\u{1b}[31m\\nb\n");
    }

    #[test]
    fn only_what_steers_a_terminal_is_escaped() {
        assert!(matches!(printable("Lüfter 3 \\ \"x\""), Cow::Borrowed(_)));
        assert_eq!(printable("a\u{202e}b\u{9b}c\td"), "a\\u{202e}b\\u{9b}c\\td");
    }
}
