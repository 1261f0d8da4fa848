// SPDX-License-Identifier: MIT OR Apache-2.0
//! A text screen in somebody's terminal: what differs from what is shown there, as ECMA-48 sequences.

use std::fmt::Write;

use super::screen::Screen;

/// VGA's order of colours in that of ECMA-48.
const COLOURS: [u8; 8] = [0, 4, 2, 6, 1, 5, 3, 7];

/// One terminal.
#[derive(Debug, Clone, Default)]
pub struct Terminal {
    columns: u8,
    rows: u8,
    shown: Option<Screen>,
}

impl Terminal {
    /// A terminal of this size; what does not fit is not shown.
    #[must_use]
    pub fn new(columns: u8, rows: u8) -> Self {
        Self { columns, rows, shown: None }
    }

    /// What it is to be sent to show this.
    pub fn show(&mut self, screen: &Screen) -> String {
        let mut out = String::new();
        let same_size = |old: &Screen| (old.columns, old.rows) == (screen.columns, screen.rows);
        let old = self.shown.take().filter(same_size);
        if old.is_none() {
            out.push_str("\x1b[0m\x1b[2J");
        }
        // What is below in a screen is what happens now: the upper rows are left out.
        let first = screen.rows.saturating_sub(self.rows);
        let mut attribute = None;
        for row in first..screen.rows {
            if old.as_ref().is_some_and(|old| old.row(row) == screen.row(row)) {
                continue;
            }
            let _ = write!(out, "\x1b[{};1H", row - first + 1);
            for (c, colours) in screen.row(row).iter().take(usize::from(self.columns)) {
                if attribute != Some(*colours) {
                    attribute = Some(*colours);
                    set_colours(&mut out, *colours);
                }
                // What the blade shows is not to steer a terminal.
                out.push(if c.is_control() { ' ' } else { *c });
            }
        }
        let (x, y) = screen.cursor;
        let (x, y) = (x.min(self.columns.saturating_sub(1)), y.saturating_sub(first));
        let _ = write!(out, "\x1b[0m\x1b[{};{}H", y.min(self.rows.saturating_sub(1)) + 1, x + 1);
        self.shown = Some(screen.clone());
        out
    }

    /// The terminal shows something else: all is sent anew.
    pub fn forget(&mut self) {
        self.shown = None;
    }
}

fn set_colours(out: &mut String, attribute: u8) {
    let (foreground, background) = (usize::from(attribute & 7), usize::from(attribute >> 4 & 7));
    let bright = if attribute & 8 != 0 { "1;" } else { "" };
    let _ = write!(out, "\x1b[0;{bright}3{};4{}m", COLOURS[foreground], COLOURS[background]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_sent() {
        let mut screen = Screen::blank(4, 3);
        let mut terminal = Terminal::new(3, 2);
        screen.cells[8] = ('x', 0x1c);
        screen.cursor = (1, 2);
        let first = terminal.show(&screen);
        let wanted = "\x1b[0m\x1b[2J\x1b[1;1H\x1b[0;37;40m   \x1b[2;1H\x1b[0;1;31;44mx\x1b[0;37;40m  \x1b[0m\x1b[2;2H";
        assert_eq!(first, wanted);
        assert_eq!(terminal.show(&screen), "\x1b[0m\x1b[2;2H");
        screen.cells[4] = ('\u{1b}', 7);
        assert_eq!(terminal.show(&screen), "\x1b[1;1H\x1b[0;37;40m   \x1b[0m\x1b[2;2H");
    }
}
