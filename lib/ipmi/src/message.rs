// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an IPMI message is made of, whatever carries it: IPMI 2.0 chapter 5.

use std::fmt;

use thiserror::Error;

/// The most data bytes that one message may carry: `IPMI_MAX_MSG_LENGTH` in `linux/ipmi_msgdefs.h`.
/// The kernel counts differently in places: its message handler also fits network function and
/// command into this length and refuses a request with more than 270 data bytes.
pub const MAX_MESSAGE_LEN: usize = 272;

/// A message that cannot be taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MessageError {
    /// Fewer bytes than the fixed part needs.
    #[error("message of {len} bytes is too short, at least {min} are needed")]
    TooShort {
        /// Bytes that came.
        len: usize,
        /// Bytes that the fixed part has.
        min: usize,
    },
    /// More data than [`MAX_MESSAGE_LEN`].
    #[error("message carries {len} data bytes, at most {MAX_MESSAGE_LEN} are allowed")]
    TooLong {
        /// Data bytes that came.
        len: usize,
    },
    /// A response where a request was expected, or the reverse.
    #[error("network function {0} has the wrong direction for this message")]
    Direction(NetFn),
    /// A checksum does not fit.
    #[error("checksum over bytes {from} to {to} is wrong")]
    Checksum {
        /// Index of the first byte covered.
        from: usize,
        /// Index of the checksum byte.
        to: usize,
    },
}

/// A network function: six bits, even for requests and odd for responses (IPMI 2.0 table 5-1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetFn(u8);

impl NetFn {
    /// Chassis control and status.
    pub const CHASSIS: Self = Self(0x00);
    /// Messages to be bridged to the next bus.
    pub const BRIDGE: Self = Self(0x02);
    /// Sensors and events.
    pub const SENSOR_EVENT: Self = Self(0x04);
    /// Application: the management controller itself and its message channels.
    pub const APP: Self = Self(0x06);
    /// Firmware transfer; the commands belong to the vendor.
    pub const FIRMWARE: Self = Self(0x08);
    /// SDR, SEL and FRU.
    pub const STORAGE: Self = Self(0x0a);
    /// LAN, serial and SOL configuration.
    pub const TRANSPORT: Self = Self(0x0c);
    /// Group extension: the first data byte names the body (PICMG, DCMI, ...).
    pub const GROUP: Self = Self(0x2c);
    /// OEM group: the first three data bytes are the manufacturer's number.
    pub const OEM_GROUP: Self = Self(0x2e);
    /// First of the network functions that belong to the controller's vendor.
    pub const OEM: Self = Self(0x30);

    /// The network function with this number, if it fits in six bits.
    pub const fn new(value: u8) -> Option<Self> {
        if value < 0x40 { Some(Self(value)) } else { None }
    }

    /// The number, 0x00 to 0x3f.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether it marks a response.
    pub const fn is_response(self) -> bool {
        self.0 & 1 == 1
    }

    /// The response side of the pair.
    pub const fn response(self) -> Self {
        Self(self.0 | 1)
    }

    /// The request side of the pair.
    pub const fn request(self) -> Self {
        Self(self.0 & !1)
    }

    /// The byte that carries both on every interface: network function in bits 7:2, LUN in 1:0.
    pub const fn with_lun(self, lun: Lun) -> u8 {
        self.0 << 2 | lun.0
    }

    /// Takes [`NetFn::with_lun`] apart. Every byte is valid.
    pub const fn split_lun(byte: u8) -> (Self, Lun) {
        (Self(byte >> 2), Lun(byte & 0x03))
    }
}

impl fmt::Display for NetFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02x}", self.0)
    }
}

impl fmt::Debug for NetFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetFn({self})")
    }
}

/// A logical unit number, 0 to 3. On a BMC 0 is the controller and 2 the system software.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lun(u8);

impl Lun {
    /// The controller's own commands.
    pub const BMC: Self = Self(0);
    /// System software: the receive message queue.
    pub const SMS: Self = Self(2);

    /// The LUN with this number, if it fits in two bits.
    pub const fn new(value: u8) -> Option<Self> {
        if value < 4 { Some(Self(value)) } else { None }
    }

    /// The number, 0 to 3.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Lun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The first data byte of a response: IPMI 2.0 table 5-2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CompletionCode(pub u8);

impl CompletionCode {
    /// Command completed normally.
    pub const OK: Self = Self(0x00);
    /// Node busy; the command may be tried again.
    pub const NODE_BUSY: Self = Self(0xc0);
    /// Unrecognised or unsupported command.
    pub const INVALID_COMMAND: Self = Self(0xc1);
    /// Command invalid for this LUN.
    pub const INVALID_FOR_LUN: Self = Self(0xc2);
    /// Timeout while processing the command.
    pub const TIMEOUT: Self = Self(0xc3);
    /// Out of storage space.
    pub const OUT_OF_SPACE: Self = Self(0xc4);
    /// Reservation cancelled, or an invalid reservation id.
    pub const RESERVATION_CANCELLED: Self = Self(0xc5);
    /// Request data truncated.
    pub const DATA_TRUNCATED: Self = Self(0xc6);
    /// Request data length invalid.
    pub const DATA_LENGTH_INVALID: Self = Self(0xc7);
    /// Request data field length limit exceeded.
    pub const DATA_TOO_LONG: Self = Self(0xc8);
    /// Parameter out of range.
    pub const OUT_OF_RANGE: Self = Self(0xc9);
    /// Cannot return the number of data bytes asked for.
    pub const CANNOT_RETURN_BYTES: Self = Self(0xca);
    /// Sensor, data or record not present.
    pub const NOT_PRESENT: Self = Self(0xcb);
    /// Invalid data field in the request.
    pub const INVALID_DATA_FIELD: Self = Self(0xcc);
    /// Command illegal for this sensor or record type.
    pub const ILLEGAL_FOR_SENSOR: Self = Self(0xcd);
    /// Response could not be provided.
    pub const NO_RESPONSE: Self = Self(0xce);
    /// Duplicated request cannot be executed.
    pub const DUPLICATED_REQUEST: Self = Self(0xcf);
    /// SDR repository in update mode.
    pub const SDR_IN_UPDATE: Self = Self(0xd0);
    /// Device in firmware update mode.
    pub const FIRMWARE_UPDATE: Self = Self(0xd1);
    /// BMC initialisation in progress.
    pub const INIT_IN_PROGRESS: Self = Self(0xd2);
    /// Destination unavailable.
    pub const DESTINATION_UNAVAILABLE: Self = Self(0xd3);
    /// Insufficient privilege, or another security restriction.
    pub const INSUFFICIENT_PRIVILEGE: Self = Self(0xd4);
    /// Not supported in the present state.
    pub const NOT_IN_THIS_STATE: Self = Self(0xd5);
    /// Sub-function disabled or unavailable.
    pub const SUB_FUNCTION_DISABLED: Self = Self(0xd6);
    /// Unspecified error.
    pub const UNSPECIFIED: Self = Self(0xff);

    /// Whether the command completed normally.
    pub const fn is_ok(self) -> bool {
        self.0 == 0
    }

    /// What the code means, without its number. Codes 0x80 to 0xbe depend on the command.
    pub const fn text(self) -> &'static str {
        match self.0 {
            0x00 => "completed normally",
            0xc0 => "node busy",
            0xc1 => "invalid command",
            0xc2 => "command invalid for this LUN",
            0xc3 => "timeout while processing the command",
            0xc4 => "out of space",
            0xc5 => "reservation cancelled or invalid",
            0xc6 => "request data truncated",
            0xc7 => "request data length invalid",
            0xc8 => "request data field length limit exceeded",
            0xc9 => "parameter out of range",
            0xca => "cannot return the number of bytes asked for",
            0xcb => "sensor, data or record not present",
            0xcc => "invalid data field in the request",
            0xcd => "command illegal for this sensor or record type",
            0xce => "response could not be provided",
            0xcf => "duplicated request cannot be executed",
            0xd0 => "SDR repository in update mode",
            0xd1 => "device in firmware update mode",
            0xd2 => "BMC initialisation in progress",
            0xd3 => "destination unavailable",
            0xd4 => "insufficient privilege",
            0xd5 => "not supported in the present state",
            0xd6 => "sub-function disabled or unavailable",
            0xff => "unspecified error",
            0x01..=0x7e => "device specific code",
            0x80..=0xbe => "command specific code",
            _ => "reserved code",
        }
    }
}

impl fmt::Display for CompletionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (0x{:02x})", self.text(), self.0)
    }
}

impl fmt::Debug for CompletionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompletionCode({self})")
    }
}

/// Which command a message is about; the network function is that of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Command {
    /// Network function of the request, even.
    pub netfn: NetFn,
    /// Command number.
    pub cmd: u8,
}

impl Command {
    /// The command `cmd` of `netfn`; a response's network function is turned into its request's.
    pub const fn new(netfn: NetFn, cmd: u8) -> Self {
        Self { netfn: netfn.request(), cmd }
    }

    /// Its name in IPMI 2.0 appendix G, if it is a standard command.
    pub fn name(self) -> Option<&'static str> {
        crate::names::name(self.netfn.get(), self.cmd)
    }
}

/// `06/01`: network function and command in hexadecimal.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}/{:02x}", self.netfn.get(), self.cmd)
    }
}

/// A request, free of addressing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Network function, even.
    pub netfn: NetFn,
    /// LUN addressed at the responder.
    pub lun: Lun,
    /// Command number.
    pub cmd: u8,
    /// Data, at most [`MAX_MESSAGE_LEN`] bytes.
    pub data: Vec<u8>,
}

impl Request {
    /// Bytes before the data: network function with LUN, command.
    pub const HEADER_LEN: usize = 2;

    /// A request to LUN 0.
    pub fn new(netfn: NetFn, cmd: u8, data: impl Into<Vec<u8>>) -> Self {
        Self { netfn, lun: Lun::BMC, cmd, data: data.into() }
    }

    /// Network function and command.
    pub const fn command(&self) -> Command {
        Command::new(self.netfn, self.cmd)
    }

    /// The response to this request: same LUN and command.
    pub fn respond(&self, ccode: CompletionCode, data: impl Into<Vec<u8>>) -> Response {
        Response {
            netfn: self.netfn.response(),
            lun: self.lun,
            cmd: self.cmd,
            ccode,
            data: data.into(),
        }
    }

    /// The bytes as a system interface carries them: `netfn<<2|lun, cmd, data...`
    /// (IPMI 2.0 section 9.2).
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::HEADER_LEN + self.data.len());
        bytes.extend([self.netfn.with_lun(self.lun), self.cmd]);
        bytes.extend_from_slice(&self.data);
        bytes
    }

    /// Reads what [`Request::encode`] wrote.
    ///
    /// # Errors
    /// Too short, too long, or the network function of a response.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let [netfn_lun, cmd, data @ ..] = bytes else {
            return Err(MessageError::TooShort { len: bytes.len(), min: Self::HEADER_LEN });
        };
        let (netfn, lun) = NetFn::split_lun(*netfn_lun);
        if netfn.is_response() {
            return Err(MessageError::Direction(netfn));
        }
        Ok(Self { netfn, lun, cmd: *cmd, data: checked_data(data)? })
    }
}

/// A response, free of addressing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Network function, odd.
    pub netfn: NetFn,
    /// LUN of the responder, as in the request.
    pub lun: Lun,
    /// Command number of the request.
    pub cmd: u8,
    /// How it went.
    pub ccode: CompletionCode,
    /// Data after the completion code, at most [`MAX_MESSAGE_LEN`] bytes.
    pub data: Vec<u8>,
}

impl Response {
    /// Bytes before the data: network function with LUN, command, completion code.
    pub const HEADER_LEN: usize = 3;

    /// The command that this answers.
    pub const fn command(&self) -> Command {
        Command::new(self.netfn, self.cmd)
    }

    /// The bytes as a system interface carries them: `netfn<<2|lun, cmd, ccode, data...`
    /// (IPMI 2.0 section 9.3).
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::HEADER_LEN + self.data.len());
        bytes.extend([self.netfn.with_lun(self.lun), self.cmd, self.ccode.0]);
        bytes.extend_from_slice(&self.data);
        bytes
    }

    /// Reads what [`Response::encode`] wrote.
    ///
    /// # Errors
    /// Too short, too long, or the network function of a request.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let [netfn_lun, cmd, ccode, data @ ..] = bytes else {
            return Err(MessageError::TooShort { len: bytes.len(), min: Self::HEADER_LEN });
        };
        let (netfn, lun) = NetFn::split_lun(*netfn_lun);
        if !netfn.is_response() {
            return Err(MessageError::Direction(netfn));
        }
        Ok(Self { netfn, lun, cmd: *cmd, ccode: CompletionCode(*ccode), data: checked_data(data)? })
    }
}

fn checked_data(data: &[u8]) -> Result<Vec<u8>, MessageError> {
    if data.len() > MAX_MESSAGE_LEN {
        return Err(MessageError::TooLong { len: data.len() });
    }
    Ok(data.to_vec())
}

/// The two's complement checksum of IPMI: the byte that makes the sum of all zero, modulo 256.
pub fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)).wrapping_neg()
}

#[cfg(test)]
mod tests;
