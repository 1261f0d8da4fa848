// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is on the wire: bytes to frames and messages, and back. The same on serial lines, TCP and Unix sockets.
//!
//! A frame is a header, a payload and a CRC-32C, as COBS between zero bytes. Zero is nowhere else, so that whoever
//! comes in between, or loses bytes, is right again at the next one. Frames go from address to address; the
//! multiplexors in between pass them on.

mod decoder;
mod frame;
mod message;
mod select;

pub use decoder::{Decoder, Errors};
pub use frame::{
    Addr, Class, Frame, FrameError, Kind, MAX_ENCODED, MAX_PAYLOAD, OVERHEAD, RELIABLE,
};
pub use message::{
    ConsoleInfo, ConsoleSettings, FromLmc, Hello, Info, Input, MAX_NAME, MAX_PRESSED, MessageError,
    Parity, Pointer, Power, Sources, ToLmc, Welcome, console_bytes, decode, encode, split_console,
};
pub use select::{Refusal, Select, Selected};
