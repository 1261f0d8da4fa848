// SPDX-License-Identifier: MIT OR Apache-2.0
//! Text as keys: which keys give a character on a keyboard of a layout, for what is typed in a terminal or pasted.

use serde::Deserialize;

const SHIFT: u16 = 42;
const CTRL: u16 = 29;
const ALT_GR: u16 = 100;
/// First codes of the rows of letters and signs (`KEY_1`, `KEY_Q`, `KEY_A`, `KEY_Z`).
const ROWS: [u16; 4] = [2, 16, 30, 44];

/// A keyboard's layout, as the blade's system is set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// English, United States.
    #[default]
    Us,
    /// German.
    De,
}

/// Rows plain, with Shift, and with `AltGr`; a blank is a key that gives nothing of use here. Then the three keys that are
/// elsewhere: that left of 1, that left of Enter, and that left of Z.
struct Signs {
    plain: [&'static str; 4],
    shift: [&'static str; 4],
    alt_gr: [&'static str; 4],
    /// (code, plain, shift, `AltGr`)
    others: [(u16, char, char, char); 3],
}

const US: Signs = Signs {
    plain: ["1234567890-=", "qwertyuiop[]", "asdfghjkl;'", "zxcvbnm,./"],
    shift: ["!@#$%^&*()_+", "QWERTYUIOP{}", "ASDFGHJKL:\"", "ZXCVBNM<>?"],
    alt_gr: ["", "", "", ""],
    others: [(41, '`', '~', ' '), (43, '\\', '|', ' '), (86, ' ', ' ', ' ')],
};

const DE: Signs = Signs {
    plain: ["1234567890ß ", "qwertzuiopü+", "asdfghjklöä", "yxcvbnm,.-"],
    shift: ["!\"§$%&/()=? ", "QWERTZUIOPÜ*", "ASDFGHJKLÖÄ", "YXCVBNM;:_"],
    alt_gr: ["      {[]}\\ ", "@  €       ~", "", "      µ"],
    others: [(41, ' ', '°', ' '), (43, '#', '\'', ' '), (86, '<', '>', '|')],
};

/// Keys that are pressed together, modifiers first.
pub type Chord = Vec<u16>;

/// The keys for a character.
#[must_use]
pub fn chord(layout: Layout, c: char) -> Option<Chord> {
    let fixed = match c {
        '\r' | '\n' => 28,
        '\t' => 15,
        ' ' => 57,
        '\u{1b}' => 1,
        '\u{7f}' | '\u{8}' => 14,
        '\u{1}'..='\u{1a}' => {
            let letter = char::from(b'a' + c as u8 - 1);
            return chord(layout, letter).map(|keys| [vec![CTRL], keys].concat());
        }
        _ => 0,
    };
    if fixed != 0 {
        return Some(vec![fixed]);
    }
    let signs = if layout == Layout::Us { &US } else { &DE };
    let planes = [(&signs.plain, None), (&signs.shift, Some(SHIFT)), (&signs.alt_gr, Some(ALT_GR))];
    for (plane, (rows, modifier)) in planes.into_iter().enumerate() {
        let in_rows = rows.iter().zip(ROWS).find_map(|(row, first)| {
            Some(first + row.chars().position(|other| other == c)? as u16)
        });
        let in_others = signs.others.iter().find_map(|(code, plain, shift, alt_gr)| {
            ([*plain, *shift, *alt_gr][plane] == c).then_some(*code)
        });
        if let Some(code) = in_rows.or(in_others) {
            return Some(modifier.into_iter().chain([code]).collect());
        }
    }
    None
}

/// Keys of the sequences that terminals send (ECMA-48, xterm).
const SEQUENCES: [(&str, u16); 26] = [
    ("[A", 103),
    ("[B", 108),
    ("[C", 106),
    ("[D", 105),
    ("[H", 102),
    ("[F", 107),
    ("OA", 103),
    ("OB", 108),
    ("OC", 106),
    ("OD", 105),
    ("OH", 102),
    ("OF", 107),
    ("[1~", 102),
    ("[2~", 110),
    ("[3~", 111),
    ("[4~", 107),
    ("[5~", 104),
    ("[6~", 109),
    ("OP", 59),
    ("OQ", 60),
    ("OR", 61),
    ("OS", 62),
    ("[15~", 63),
    ("[17~", 64),
    ("[18~", 65),
    ("[19~", 66),
];

/// What of a terminal's bytes is typed: chords, and how many characters no key gives. A sequence that is cut between two
/// calls is typed as Escape and letters; terminals send them whole.
#[must_use]
pub fn typed(layout: Layout, bytes: &[u8]) -> (Vec<Chord>, usize) {
    let text = String::from_utf8_lossy(bytes);
    let (mut chords, mut missing) = (vec![], 0);
    let mut rest = &text[..];
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let sequence =
            SEQUENCES.iter().find(|(sequence, _)| c == '\u{1b}' && after.starts_with(sequence));
        if let Some((sequence, code)) = sequence {
            chords.push(vec![*code]);
            rest = &after[sequence.len()..];
            continue;
        }
        match chord(layout, c) {
            Some(keys) => chords.push(keys),
            None => missing += 1,
        }
        rest = after;
    }
    (chords, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_where_the_layouts_have_them() {
        assert_eq!(chord(Layout::Us, 'a'), Some(vec![30]));
        assert_eq!(chord(Layout::Us, 'Z'), Some(vec![42, 44]));
        assert_eq!(chord(Layout::Us, '|'), Some(vec![42, 43]));
        assert_eq!(chord(Layout::De, 'z'), Some(vec![21]));
        assert_eq!(chord(Layout::De, '@'), Some(vec![100, 16]));
        assert_eq!(chord(Layout::De, '|'), Some(vec![100, 86]));
        assert_eq!(chord(Layout::De, '\\'), Some(vec![100, 12]));
        assert_eq!(chord(Layout::De, '}'), Some(vec![100, 11]));
        assert_eq!(chord(Layout::Us, '\u{3}'), Some(vec![29, 46]), "Control-C");
        assert_eq!(chord(Layout::Us, 'ß'), None);
    }

    #[test]
    fn all_of_ascii_has_keys() {
        for layout in [Layout::Us, Layout::De] {
            let none: String = (' '..='~').filter(|c| chord(layout, *c).is_none()).collect();
            // Dead keys on German ones.
            assert_eq!(none, if layout == Layout::De { "^`" } else { "" });
        }
    }

    #[test]
    fn sequences_are_keys() {
        let (chords, missing) = typed(Layout::Us, "a\u{1b}[A\u{1b}[15~\u{1b}xß".as_bytes());
        assert_eq!(chords, [vec![30], vec![103], vec![63], vec![1], vec![45]]);
        assert_eq!(missing, 1);
    }
}
