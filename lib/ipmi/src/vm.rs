// SPDX-License-Identifier: MIT OR Apache-2.0
//! The VM serial protocol: how a virtual machine's system interface talks to a BMC outside.
//!
//! Defined by OpenIPMI's `lanserv/README.vm`; the other implementation is QEMU's
//! `hw/ipmi/ipmi_bmc_extern.c`. One byte stream in each direction:
//!
//! * `0xa0` ends a *message*, `0xa1` ends a *control*; `0xaa` says that bit 4 of the next byte is to
//!   be cleared, so that these three values can be sent as data (`0xa0` goes as `0xaa 0xb0`).
//! * A message is `seq, netfn<<2|lun, cmd, data..., checksum`; a response has the completion code
//!   after `cmd`. The checksum makes the sum of all bytes zero. `seq` is returned unchanged.
//! * A control is a number, some with one byte more: see [`Control`]. (The documents call it a
//!   command; here that word means an IPMI command.)
//!
//! The *host* side is the virtual machine: it connects, sends its version and capabilities, then
//! requests. The *BMC* side answers, and sends controls for attention and power. The same code
//! serves both: [`VmRequest`] and [`VmResponse`] both encode and parse.
//!
//! ```
//! use ipmi::vm::{Decoder, Frame, VmRequest};
//! use ipmi::{NetFn, Request};
//!
//! let bytes = VmRequest { seq: 1, request: Request::new(NetFn::APP, 0x01, []) }.encode().unwrap();
//! let mut decoder = Decoder::new();
//! let mut input = &bytes[..];
//! while let Some(frame) = decoder.next_frame(&mut input) {
//!     let Ok(Frame::Message(body)) = frame else { panic!() };
//!     assert_eq!(VmRequest::parse(&body).unwrap().seq, 1);
//! }
//! ```

use thiserror::Error;

use crate::message::{MAX_MESSAGE_LEN, MessageError, Request, Response, checksum};

/// Ends a message.
pub const END_OF_MESSAGE: u8 = 0xa0;
/// Ends a control.
pub const END_OF_CONTROL: u8 = 0xa1;
/// Clears bit 4 of the byte that follows.
pub const ESCAPE: u8 = 0xaa;
/// The bit that an escaped byte has set on the wire.
const ESCAPE_BIT: u8 = 0x10;

/// The only version of the protocol.
pub const PROTOCOL_VERSION: u8 = 1;

/// The longest frame, bytes before escaping and without the end: the fixed part of a response
/// (sequence, network function, command, completion code), data and checksum.
pub const MAX_FRAME_LEN: usize = 4 + MAX_MESSAGE_LEN + 1;

/// Sequence, network function, command and checksum.
const MIN_MESSAGE_LEN: usize = 4;

/// A frame that was dropped. The decoder goes on with the byte after the frame's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// No room for the fixed part.
    #[error("frame of {len} bytes is too short")]
    TooShort {
        /// Bytes before the end.
        len: usize,
    },
    /// More than [`MAX_FRAME_LEN`] bytes came before an end.
    #[error("frame is longer than {MAX_FRAME_LEN} bytes")]
    TooLong,
    /// The sum of a message's bytes is not zero.
    #[error("message of {len} bytes has a wrong checksum")]
    Checksum {
        /// Bytes before the end.
        len: usize,
    },
    /// The end came where an escaped byte was due.
    #[error("frame ends inside an escape")]
    EndsInEscape,
}

/// What the decoder yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A message with a right checksum, which is taken off: for [`VmRequest::parse`] or
    /// [`VmResponse::parse`].
    Message(Vec<u8>),
    /// A control.
    Control(Control),
}

/// A frame that is no IPMI message: attention, interrupts, power, and the greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Both sides, first on a connection: the version of the protocol.
    Version(u8),
    /// BMC to host: clear the attention bit.
    ClearAttention,
    /// BMC to host: set the attention bit, raise no interrupt.
    Attention,
    /// BMC to host: set the attention bit and raise an interrupt.
    AttentionInterrupt,
    /// BMC to host: power off.
    PowerOff,
    /// BMC to host: reset the host. Host to BMC: the host has been reset.
    Reset,
    /// BMC to host: interrupts are on.
    EnableInterrupt,
    /// BMC to host: interrupts are off.
    DisableInterrupt,
    /// BMC to host: raise an NMI.
    SendNmi,
    /// Host to BMC: what the host can do.
    Capabilities(Capabilities),
    /// BMC to host: shut the operating system down, then power off. QEMU calls it "force off" and
    /// ends itself.
    GracefulShutdown,
    /// One that this version does not know; the number alone is kept.
    Unknown(u8),
}

/// What a host can do for the BMC, a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities(pub u8);

impl Capabilities {
    /// Can be powered off.
    pub const POWER: Self = Self(0x01);
    /// Can be reset.
    pub const RESET: Self = Self(0x02);
    /// Can switch its messaging interrupt.
    pub const INTERRUPT: Self = Self(0x04);
    /// Can raise an NMI.
    pub const NMI: Self = Self(0x08);
    /// Has an attention bit.
    pub const ATTENTION: Self = Self(0x10);
    /// Can be shut down in an orderly way.
    pub const GRACEFUL_SHUTDOWN: Self = Self(0x20);

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

const VERSION: u8 = 0xff;
const NO_ATTENTION: u8 = 0x00;
const ATTENTION: u8 = 0x01;
const ATTENTION_INTERRUPT: u8 = 0x02;
const POWER_OFF: u8 = 0x03;
const RESET: u8 = 0x04;
const ENABLE_INTERRUPT: u8 = 0x05;
const DISABLE_INTERRUPT: u8 = 0x06;
const SEND_NMI: u8 = 0x07;
const CAPABILITIES: u8 = 0x08;
const GRACEFUL_SHUTDOWN: u8 = 0x09;

impl Control {
    /// The bytes on the wire, with the end.
    pub fn encode(self) -> Vec<u8> {
        let (number, argument) = match self {
            Self::Version(version) => (VERSION, Some(version)),
            Self::ClearAttention => (NO_ATTENTION, None),
            Self::Attention => (ATTENTION, None),
            Self::AttentionInterrupt => (ATTENTION_INTERRUPT, None),
            Self::PowerOff => (POWER_OFF, None),
            Self::Reset => (RESET, None),
            Self::EnableInterrupt => (ENABLE_INTERRUPT, None),
            Self::DisableInterrupt => (DISABLE_INTERRUPT, None),
            Self::SendNmi => (SEND_NMI, None),
            Self::Capabilities(bits) => (CAPABILITIES, Some(bits.0)),
            Self::GracefulShutdown => (GRACEFUL_SHUTDOWN, None),
            Self::Unknown(number) => (number, None),
        };
        let mut wire = Vec::with_capacity(5);
        push_escaped(&mut wire, number);
        if let Some(argument) = argument {
            push_escaped(&mut wire, argument);
        }
        wire.push(END_OF_CONTROL);
        wire
    }

    /// From the unescaped bytes before the end.
    fn parse(body: &[u8]) -> Result<Self, FrameError> {
        let Some((number, rest)) = body.split_first() else {
            return Err(FrameError::TooShort { len: 0 });
        };
        let argument = || rest.first().copied().ok_or(FrameError::TooShort { len: 1 });
        Ok(match *number {
            VERSION => Self::Version(argument()?),
            NO_ATTENTION => Self::ClearAttention,
            ATTENTION => Self::Attention,
            ATTENTION_INTERRUPT => Self::AttentionInterrupt,
            POWER_OFF => Self::PowerOff,
            RESET => Self::Reset,
            ENABLE_INTERRUPT => Self::EnableInterrupt,
            DISABLE_INTERRUPT => Self::DisableInterrupt,
            SEND_NMI => Self::SendNmi,
            CAPABILITIES => Self::Capabilities(Capabilities(argument()?)),
            GRACEFUL_SHUTDOWN => Self::GracefulShutdown,
            number => Self::Unknown(number),
        })
    }
}

/// A request with the sequence number of this connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmRequest {
    /// Chosen by the host, returned by the BMC.
    pub seq: u8,
    /// The request.
    pub request: Request,
}

impl VmRequest {
    /// The bytes on the wire, with checksum and end.
    ///
    /// # Errors
    /// More than [`MAX_MESSAGE_LEN`] bytes of data.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        encode_message(self.seq, &self.request.encode(), self.request.data.len())
    }

    /// From the body of a [`Frame::Message`].
    ///
    /// # Errors
    /// Too short, too long, or a response.
    pub fn parse(body: &[u8]) -> Result<Self, MessageError> {
        let (seq, message) = split_seq(body)?;
        Ok(Self { seq, request: Request::decode(message)? })
    }
}

/// A response with the sequence number of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmResponse {
    /// As in the request.
    pub seq: u8,
    /// The response.
    pub response: Response,
}

impl VmResponse {
    /// The bytes on the wire, with checksum and end.
    ///
    /// # Errors
    /// More than [`MAX_MESSAGE_LEN`] bytes of data.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        encode_message(self.seq, &self.response.encode(), self.response.data.len())
    }

    /// From the body of a [`Frame::Message`].
    ///
    /// # Errors
    /// Too short, too long, or a request.
    pub fn parse(body: &[u8]) -> Result<Self, MessageError> {
        let (seq, message) = split_seq(body)?;
        Ok(Self { seq, response: Response::decode(message)? })
    }
}

fn split_seq(body: &[u8]) -> Result<(u8, &[u8]), MessageError> {
    match body {
        [seq, message @ ..] => Ok((*seq, message)),
        [] => Err(MessageError::TooShort { len: 0, min: 1 }),
    }
}

fn encode_message(seq: u8, message: &[u8], data_len: usize) -> Result<Vec<u8>, MessageError> {
    if data_len > MAX_MESSAGE_LEN {
        return Err(MessageError::TooLong { len: data_len });
    }
    let sum = checksum(message).wrapping_sub(seq);
    let mut wire = Vec::with_capacity(message.len() + 8);
    push_escaped(&mut wire, seq);
    for byte in message {
        push_escaped(&mut wire, *byte);
    }
    push_escaped(&mut wire, sum);
    wire.push(END_OF_MESSAGE);
    Ok(wire)
}

fn push_escaped(wire: &mut Vec<u8>, byte: u8) {
    if matches!(byte, END_OF_MESSAGE | END_OF_CONTROL | ESCAPE) {
        wire.extend([ESCAPE, byte | ESCAPE_BIT]);
    } else {
        wire.push(byte);
    }
}

/// Finds frames in a byte stream, which may arrive in pieces of any size.
///
/// After a bad frame it goes on at the next end byte. It never keeps more than
/// [`MAX_FRAME_LEN`] bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    body: Vec<u8>,
    escaped: bool,
    too_long: bool,
}

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `input` until a frame ends. `None` means that `input` is used
    /// up; call again when there is more.
    pub fn next_frame(&mut self, input: &mut &[u8]) -> Option<Result<Frame, FrameError>> {
        while let Some((byte, rest)) = input.split_first() {
            *input = rest;
            match *byte {
                end @ (END_OF_MESSAGE | END_OF_CONTROL) => {
                    let frame = self.finish(end);
                    self.body.clear();
                    self.escaped = false;
                    self.too_long = false;
                    return Some(frame);
                }
                ESCAPE => self.escaped = true,
                byte => {
                    let byte = if self.escaped { byte & !ESCAPE_BIT } else { byte };
                    self.escaped = false;
                    if self.body.len() < MAX_FRAME_LEN {
                        self.body.push(byte);
                    } else {
                        self.too_long = true;
                    }
                }
            }
        }
        None
    }

    fn finish(&mut self, end: u8) -> Result<Frame, FrameError> {
        let len = self.body.len();
        if self.too_long {
            return Err(FrameError::TooLong);
        }
        if self.escaped {
            return Err(FrameError::EndsInEscape);
        }
        if end == END_OF_CONTROL {
            return Control::parse(&self.body).map(Frame::Control);
        }
        if len < MIN_MESSAGE_LEN {
            return Err(FrameError::TooShort { len });
        }
        if checksum(&self.body) != 0 {
            return Err(FrameError::Checksum { len });
        }
        Ok(Frame::Message(self.body[..len - 1].to_vec()))
    }
}

#[cfg(test)]
mod tests;
