// SPDX-License-Identifier: MIT OR Apache-2.0
//! A text screen as cells, and what changed in it as few bytes: the rows that differ, as text and runs of attributes,
//! deflated.
//!
//! ```text
//! columns, rows, cursor column, cursor row     a byte each
//! then each row that changed, until the end:
//!   row; first column; columns                 a byte each
//!   the characters, UTF-8
//!   runs of one attribute: length, attribute   a byte each, until all columns have one
//! ```

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// Most bytes of a change before it is deflated: 255 × 255 cells of four bytes, a run each.
const MOST_BYTES: usize = 512 << 10;
/// Most bytes of a change on the bus. A full console is 2 KiB; what does not deflate at all is under this.
pub const MOST_DEFLATED: usize = MOST_BYTES + 4096;
/// How hard to deflate: 160 × 50 cells in under a millisecond.
const LEVEL: u8 = 6;

/// A character and its VGA attribute: bits 0 to 3 foreground, 4 to 6 background, 7 blinks or is bright.
pub type Cell = (char, u8);
/// What a screen is cleared to.
const BLANK: Cell = (' ', 7);

/// A screen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Screen {
    /// Columns, at most 255.
    pub columns: u8,
    /// Rows, at most 255.
    pub rows: u8,
    /// Column and row of the cursor; outside of the screen if it is not seen.
    pub cursor: (u8, u8),
    /// Row by row.
    pub cells: Vec<Cell>,
}

/// A change that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a change of the screen makes no sense")]
pub struct ScreenError;

impl Screen {
    /// A blank one.
    #[must_use]
    pub fn blank(columns: u8, rows: u8) -> Self {
        let cells = vec![BLANK; usize::from(columns) * usize::from(rows)];
        Self { columns, rows, cursor: (0, 0), cells }
    }

    /// A row of it.
    #[must_use]
    pub fn row(&self, row: u8) -> &[Cell] {
        let columns = usize::from(self.columns);
        let start = usize::from(row) * columns;
        self.cells.get(start..start + columns).unwrap_or(&[])
    }

    /// What makes this screen of `old`, or of a blank one if there is none or it has another size.
    #[must_use]
    pub fn change_since(&self, old: Option<&Self>) -> Vec<u8> {
        let blank = Self::blank(self.columns, self.rows);
        let same_size = |old: &&Self| (old.columns, old.rows) == (self.columns, self.rows);
        let old = old.filter(same_size).unwrap_or(&blank);
        let mut raw = vec![self.columns, self.rows, self.cursor.0, self.cursor.1];
        for row in 0..self.rows {
            let (now, before) = (self.row(row), old.row(row));
            let differs = |at: &usize| now[*at] != before[*at];
            let Some(first) = (0..now.len()).find(differs) else { continue };
            let last = (0..now.len()).rfind(differs).unwrap_or(first);
            let changed = &now[first..=last];
            raw.extend([row, first as u8, changed.len() as u8]);
            raw.extend(changed.iter().map(|(c, _)| c).collect::<String>().bytes());
            for run in changed.chunk_by(|a, b| a.1 == b.1) {
                raw.extend([run.len() as u8, run[0].1]);
            }
        }
        compress_to_vec(&raw, LEVEL)
    }

    /// Applies a change.
    ///
    /// # Errors
    /// It makes no sense. The screen may be changed in part.
    pub fn apply(&mut self, change: &[u8]) -> Result<(), ScreenError> {
        let raw = decompress_to_vec_with_limit(change, MOST_BYTES).map_err(|_| ScreenError)?;
        let ([columns, rows, x, y], mut rest) = raw.split_first_chunk().ok_or(ScreenError)?;
        if (*columns, *rows) != (self.columns, self.rows) {
            *self = Self::blank(*columns, *rows);
        }
        self.cursor = (*x, *y);
        while !rest.is_empty() {
            rest = self.apply_row(rest)?;
        }
        Ok(())
    }

    fn apply_row<'a>(&mut self, raw: &'a [u8]) -> Result<&'a [u8], ScreenError> {
        let ([row, first, count], mut rest) = raw.split_first_chunk().ok_or(ScreenError)?;
        let start = usize::from(*row) * usize::from(self.columns) + usize::from(*first);
        let count = usize::from(*count);
        if *row >= self.rows || usize::from(*first) + count > usize::from(self.columns) {
            return Err(ScreenError);
        }
        for at in start..start + count {
            let (c, after) = first_char(rest).ok_or(ScreenError)?;
            self.cells[at].0 = c;
            rest = after;
        }
        let mut at = start;
        while at < start + count {
            let ([run, attribute], after) = rest.split_first_chunk().ok_or(ScreenError)?;
            let end = at + usize::from(*run);
            if *run == 0 || end > start + count {
                return Err(ScreenError);
            }
            self.cells[at..end].iter_mut().for_each(|cell| cell.1 = *attribute);
            at = end;
            rest = after;
        }
        Ok(rest)
    }
}

fn first_char(bytes: &[u8]) -> Option<(char, &[u8])> {
    let len = match bytes.first()? {
        0..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    };
    let (first, rest) = bytes.split_at_checked(len)?;
    Some((std::str::from_utf8(first).ok()?.chars().next()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn screen(cells: &[(u16, char, u8)], cursor: (u8, u8)) -> Screen {
        let mut screen = Screen { cursor, ..Screen::blank(80, 25) };
        for (at, c, attribute) in cells {
            screen.cells[usize::from(*at) % 2000] = (*c, *attribute);
        }
        screen
    }

    proptest! {
        #[test]
        fn a_change_makes_the_new_of_the_old(
            old in proptest::collection::vec((any::<u16>(), any::<char>(), any::<u8>()), 0..50),
            new in proptest::collection::vec((any::<u16>(), any::<char>(), any::<u8>()), 0..50),
            cursor: (u8, u8),
        ) {
            let (mut old, new) = (screen(&old, (0, 0)), screen(&new, cursor));
            old.apply(&new.change_since(Some(&old))).unwrap();
            prop_assert_eq!(&old, &new);
            let mut other = Screen::blank(132, 43);
            other.apply(&new.change_since(None)).unwrap();
            prop_assert_eq!(&other, &new);
        }

        #[test]
        fn no_change_does_harm(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut screen = Screen::blank(80, 25);
            let _ = screen.apply(&compress_to_vec(&bytes, 1));
            let _ = screen.apply(&bytes);
            prop_assert_eq!(screen.cells.len(), usize::from(screen.columns) * usize::from(screen.rows));
        }
    }

    #[test]
    fn a_full_console_is_under_two_kibibytes_and_a_line_is_few_bytes() {
        let mut screen = Screen::blank(160, 50);
        for row in 0..50_usize {
            let line = format!(
                "[{:>5}.{:06}] usb {}-{}: New USB device found, idVendor={:04x}, idProduct={:04x}, bcdDevice= 5.10",
                row * 7 % 91,
                row * 7919 * 131 % 999_983,
                row % 5,
                row % 7,
                row * 911 % 65_536,
                row * 3571 % 65_536
            );
            for (column, c) in line.chars().enumerate() {
                screen.cells[row * 160 + column] = (c, 7);
            }
        }
        let full = screen.change_since(None).len();
        assert!(full <= 2048, "{full}");
        let mut next = screen.clone();
        next.cells[49 * 160 + 3] = ('x', 7);
        assert!(next.change_since(Some(&screen)).len() < 24);
    }
}
