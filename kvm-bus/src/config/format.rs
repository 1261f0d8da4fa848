// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a console's line is set: `8N1` and the like, and who may hold back whom.

use std::fmt;

use serde::Deserialize;

use crate::wire::{ConsoleSettings, Parity};

/// Who may hold back whom on a console's line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flow {
    /// Nobody.
    #[default]
    None,
    /// Either end, by RTS and CTS.
    RtsCts,
    /// Either end, by the characters XOFF and XON.
    XonXoff,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::RtsCts => "rts-cts",
            Self::XonXoff => "xon-xoff",
        })
    }
}

/// The settings with data bits (5 to 8), parity (N, E or O) and stop bits (1 or 2) of `text`, such as `7E1`; none if it
/// is no such text.
#[must_use]
pub fn with_format(settings: ConsoleSettings, text: &str) -> Option<ConsoleSettings> {
    let [data @ b'5'..=b'8', parity, stop @ (b'1' | b'2')] = *text.as_bytes() else {
        return None;
    };
    let parity = match parity.to_ascii_uppercase() {
        b'N' => Parity::None,
        b'E' => Parity::Even,
        b'O' => Parity::Odd,
        _ => return None,
    };
    Some(ConsoleSettings { data_bits: data - b'0', parity, stop_bits: stop - b'0', ..settings })
}

/// Data bits, parity and stop bits, as [`with_format`] reads them.
#[must_use]
pub fn format(settings: ConsoleSettings) -> String {
    let parity = match settings.parity {
        Parity::None => 'N',
        Parity::Even => 'E',
        Parity::Odd => 'O',
    };
    format!("{}{parity}{}", settings.data_bits, settings.stop_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_read_as_it_is_written() {
        for data in 5..=8 {
            for (letter, parity) in [('N', Parity::None), ('E', Parity::Even), ('O', Parity::Odd)] {
                for stop in 1..=2 {
                    let text = format!("{data}{letter}{stop}");
                    let read = with_format(ConsoleSettings::default(), &text).unwrap();
                    assert_eq!((read.data_bits, read.parity, read.stop_bits), (data, parity, stop));
                    assert_eq!((format(read), read.baud), (text.clone(), 115_200));
                    assert_eq!(
                        with_format(ConsoleSettings::default(), &text.to_lowercase()),
                        Some(read)
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in ["", "8N", "8N11", "4N1", "9N1", "8X1", "8N0", "8N3", "N81", "8é1"] {
            assert_eq!(with_format(ConsoleSettings::default(), text), None, "{text}");
        }
    }
}
