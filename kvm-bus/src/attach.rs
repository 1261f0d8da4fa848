// SPDX-License-Identifier: MIT OR Apache-2.0
//! How programs attach to a console or to the screen, on `console.sock`: a line of JSON each way, then packets of kind,
//! length (two bytes, little endian) and data.

use serde::{Deserialize, Serialize};

use crate::wire::ConsoleSettings;

/// Longest first line, bytes.
pub const MAX_LINE: usize = 1024;
/// Most data in a packet, bytes.
pub const MAX_DATA: usize = 4096;

/// What is asked for first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// A console, or the screen of whoever is coupled.
    pub what: What,
    /// By name or slot; a screen's may be left out, then nobody else is coupled.
    pub blade: Option<String>,
    /// How.
    #[serde(default)]
    pub mode: Mode,
    /// Whether it is never to write, whatever it says later: of one who is let in to look.
    #[serde(default)]
    pub read_only: bool,
    /// Who, for others to see.
    #[serde(default)]
    pub who: String,
    /// Lines of the console's past to begin with.
    #[serde(default)]
    pub replay: usize,
    /// Columns and rows of the terminal.
    #[serde(default)]
    pub size: (u8, u8),
}

/// What to attach to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A serial console.
    Console,
    /// A text screen, and the keyboard.
    Screen,
}

/// Whether to write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// If nobody does.
    #[default]
    Write,
    /// Take it from whoever does.
    Force,
    /// Only look.
    Spy,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The blade's name; none of a screen of nobody.
    pub blade: Option<String>,
    /// Whether what is typed goes there.
    pub writes: bool,
    /// How the console's line is set, where that is known.
    #[serde(default)]
    pub line: Option<ConsoleSettings>,
    /// Why nothing is attached.
    pub error: Option<String>,
}

/// What is in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Bytes of the console or for the terminal; or what is typed.
    Data = 0,
    /// Words of ours, for people.
    Notice = 1,
    /// The end, with why.
    End = 2,
    /// The terminal's size: columns, rows.
    Size = 3,
}

/// A packet as bytes; what is over [`MAX_DATA`] is left out.
#[must_use]
pub fn packet(kind: Kind, data: &[u8]) -> Vec<u8> {
    let data = &data[..data.len().min(MAX_DATA)];
    let len = (data.len() as u16).to_le_bytes();
    [&[kind as u8, len[0], len[1]], data].concat()
}

/// Takes bytes, gives packets.
#[derive(Debug, Default)]
pub struct Packets {
    buffer: Vec<u8>,
}

/// The peer does not keep to the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other end of the console socket sends what makes no sense")]
pub struct BadPacket;

impl Packets {
    /// Adds what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
    }

    /// The next packet, if it is all there.
    ///
    /// # Errors
    /// It is none.
    pub fn take(&mut self) -> Result<Option<(Kind, Vec<u8>)>, BadPacket> {
        let Some(([kind, a, b], rest)) = self.buffer.split_first_chunk() else { return Ok(None) };
        let kind = [Kind::Data, Kind::Notice, Kind::End, Kind::Size]
            .into_iter()
            .find(|known| *known as u8 == *kind)
            .ok_or(BadPacket)?;
        let len = usize::from(u16::from_le_bytes([*a, *b]));
        if len > MAX_DATA {
            return Err(BadPacket);
        }
        let Some(data) = rest.get(..len).map(<[u8]>::to_vec) else { return Ok(None) };
        self.buffer.drain(..3 + len);
        Ok(Some((kind, data)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_as_they_went_in_however_cut() {
        let sent =
            [packet(Kind::Data, b"abc"), packet(Kind::Size, &[80, 25]), packet(Kind::End, b"")]
                .concat();
        let (mut packets, mut found) = (Packets::default(), vec![]);
        for byte in sent {
            packets.push(&[byte]);
            found.extend(packets.take().unwrap());
        }
        let wanted =
            [(Kind::Data, b"abc".to_vec()), (Kind::Size, vec![80, 25]), (Kind::End, vec![])];
        assert_eq!(found, wanted);
        packets.push(&[9, 0, 0]);
        assert_eq!(packets.take(), Err(BadPacket));
        let mut packets = Packets::default();
        packets.push(&[0, 255, 255]);
        assert_eq!(packets.take(), Err(BadPacket));
    }
}
