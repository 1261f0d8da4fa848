// SPDX-License-Identifier: MIT OR Apache-2.0
//! The messages of a session, by class; each is the payload of one frame. Postcard, but for console bytes.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::select::Refusal;

/// Longest name of a blade, bytes: as a host name's label.
pub const MAX_NAME: usize = 64;
/// Most keys that are down at once: more than a person has fingers, and what HID keyboards can tell.
pub const MAX_PRESSED: usize = 32;

/// Asks for a session; `session` of its frame is the RMM's epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// High 20 bits: a life of the LMC's program. Low 12 bits: counts its attempts.
    pub epoch: u32,
    /// The blade's name.
    pub name: String,
}

/// Gives the session that its frame names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Of the Hello.
    pub epoch: u32,
}

/// Control messages from the RMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToLmc {
    /// Send the console from this offset on.
    ConsoleFrom(u64),
    /// Stop sending, let all keys go, be coupled no more.
    Release {
        /// The choice that ends.
        coupling: u32,
    },
    /// Hold the console line at break.
    Break,
    /// Set the console line.
    Line(ConsoleSettings),
    /// Send the whole screen.
    Repaint,
    /// What the blade's BMC is to do.
    Power {
        /// Names the request in the answer.
        id: u32,
        /// What.
        action: Power,
    },
}

/// What a BMC is told, or asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Power {
    /// Whether the blade is on.
    Status,
    /// On.
    On,
    /// Off, at once.
    Off,
    /// Off and on again.
    Cycle,
    /// Reset.
    Reset,
}

/// Control messages from an LMC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromLmc {
    /// First in a session, and when something in it changes.
    Info(Info),
    /// The blade is coupled.
    Coupled {
        /// By which choice.
        coupling: u32,
    },
    /// The blade cannot be coupled.
    NotCoupled {
        /// By which choice.
        coupling: u32,
        /// Why.
        why: Refusal,
    },
    /// All keys are up, and the blade is coupled no more.
    Released {
        /// Which choice ended.
        coupling: u32,
    },
    /// What came of [`ToLmc::Power`].
    Power {
        /// Of the request.
        id: u32,
        /// Whether the blade is on, or why that is not known.
        done: Result<bool, String>,
    },
}

/// What an LMC has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Its sources and sinks.
    pub sources: Sources,
    /// Its console.
    pub console: Option<ConsoleInfo>,
}

/// Where the LMC's streams come from and go to, in words for people; none where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// The serial console's device.
    pub console: Option<String>,
    /// The screen's.
    pub screen: Option<String>,
    /// Where keys go.
    pub keyboard: Option<String>,
    /// Where power orders go.
    pub power: Option<String>,
}

/// Where a console stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleInfo {
    /// A life of the LMC's program: offsets of another one mean nothing.
    pub life: u32,
    /// The oldest byte kept.
    pub start: u64,
    /// The next byte.
    pub end: u64,
    /// How many bytes of input from this RMM's epoch were taken.
    pub taken: u64,
    /// How the line is set.
    pub settings: ConsoleSettings,
}

/// A console line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleSettings {
    /// Bits per second.
    pub baud: u32,
    /// 5 to 8.
    pub data_bits: u8,
    /// Parity.
    pub parity: Parity,
    /// 1 or 2.
    pub stop_bits: u8,
}

impl Default for ConsoleSettings {
    fn default() -> Self {
        Self { baud: 115_200, data_bits: 8, parity: Parity::None, stop_bits: 1 }
    }
}

/// Parity of a serial line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parity {
    /// None.
    None,
    /// Odd.
    Odd,
    /// Even.
    Even,
}

/// Input messages, which the blade's kernel gets if their choice is the one in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// All keys that are down, by Linux key code; at most [`MAX_PRESSED`].
    Keys {
        /// The choice by which the blade is coupled.
        coupling: u32,
        /// The codes.
        pressed: Vec<u16>,
    },
    /// Where the pointer is.
    Pointer {
        /// The choice by which the blade is coupled.
        coupling: u32,
        /// What it does.
        pointer: Pointer,
    },
}

/// A pointer's state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// Bit 0 left, 1 middle, 2 right.
    pub buttons: u8,
    /// 0 to 32767, left to right.
    pub x: u16,
    /// 0 to 32767, top to bottom.
    pub y: u16,
    /// Steps of the wheel, up is positive.
    pub wheel: i8,
}

/// Why a payload is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message makes no sense; update the older end")]
pub struct MessageError;

/// A message as bytes.
#[must_use]
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(message).expect("our types have no length that is not known")
}

/// A message of bytes; all of them.
///
/// # Errors
/// It is not one.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, MessageError> {
    match postcard::take_from_bytes(payload) {
        Ok((message, [])) => Ok(message),
        _ => Err(MessageError),
    }
}

/// Console bytes with the offset of the first.
#[must_use]
pub fn console_bytes(offset: u64, bytes: &[u8]) -> Vec<u8> {
    [&offset.to_le_bytes(), bytes].concat()
}

/// The offset and bytes of that.
///
/// # Errors
/// It is too short, or its offset cannot be.
pub fn split_console(payload: &[u8]) -> Result<(u64, &[u8]), MessageError> {
    let (offset, bytes) = payload.split_first_chunk::<8>().ok_or(MessageError)?;
    let offset = u64::from_le_bytes(*offset);
    offset.checked_add(bytes.len() as u64).ok_or(MessageError)?;
    Ok((offset, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that version 1 has been since it was first written. If this fails, do not change the test.
    #[test]
    fn golden_messages_of_version_1() {
        assert_eq!(encode(&Hello { epoch: 300, name: "b1".into() }), [0xac, 2, 2, b'b', b'1']);
        assert_eq!(encode(&ToLmc::ConsoleFrom(5)), [0, 5]);
        assert_eq!(encode(&ToLmc::Release { coupling: 7 }), [1, 7]);
        assert_eq!(encode(&FromLmc::Coupled { coupling: 7 }), [1, 7]);
        assert_eq!(
            encode(&Input::Keys { coupling: 1, pressed: vec![30, 300] }),
            [0, 1, 2, 30, 0xac, 2]
        );
        assert_eq!(console_bytes(258, b"x"), [2, 1, 0, 0, 0, 0, 0, 0, b'x']);
    }

    #[test]
    fn what_is_left_over_makes_no_message() {
        assert_eq!(decode::<ToLmc>(&[1, 7, 0]), Err(MessageError));
        assert_eq!(decode::<ToLmc>(&[99]), Err(MessageError));
        assert_eq!(split_console(&[0; 7]), Err(MessageError));
        assert_eq!(split_console(&[255; 9]), Err(MessageError));
        assert_eq!(split_console(&[0; 8]), Ok((0, &[][..])));
    }
}
