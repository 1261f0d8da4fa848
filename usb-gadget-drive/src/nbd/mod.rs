// SPDX-License-Identifier: MIT OR Apache-2.0
//! The NBD protocol as bytes, for either end: `doc/proto.md` of the NBD project, quoted below as "proto.md".
//!
//! Fixed newstyle only. [`option`] has what is said before an export is chosen, [`negotiation`] the server's side of
//! it as a state machine, [`request`] and [`reply`] what is said afterwards. All numbers are big endian. Nothing here
//! knows a socket; every decoder takes any bytes.

use std::{fmt, io};

use rustix::io::Errno;

mod fields;
pub mod negotiation;
pub mod option;
pub mod reply;
pub mod request;

/// Most bytes that are asked of a server, or sent to it, in one request. What proto.md, "Block size constraints", has
/// every client assume of one that says nothing.
pub const MAX_PAYLOAD: u32 = 32 << 20;
/// Most bytes that a request to this server may carry or ask for: as nbdkit has it. Some clients go beyond
/// [`MAX_PAYLOAD`] without asking, nbd's own tester among them.
pub const MAX_SERVED: u32 = 64 << 20;
/// Longest name of an export or of a context, bytes (proto.md, "Values").
pub const MAX_NAME: usize = 4096;

/// The context that tells holes from data, and the id under which this server speaks of it.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// See [`BASE_ALLOCATION`]. Any number would do.
pub const BASE_ALLOCATION_ID: u32 = 1;

/// What an export can do (proto.md, "Transmission flags").
pub mod flags {
    #![allow(missing_docs, reason = "the names are those of the specification")]
    pub const HAS_FLAGS: u16 = 1 << 0;
    pub const READ_ONLY: u16 = 1 << 1;
    pub const SEND_FLUSH: u16 = 1 << 2;
    pub const SEND_FUA: u16 = 1 << 3;
    pub const ROTATIONAL: u16 = 1 << 4;
    pub const SEND_TRIM: u16 = 1 << 5;
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    pub const SEND_DF: u16 = 1 << 7;
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Why a request failed (proto.md, "Error values").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ErrorCode {
    /// Not permitted: the export is read-only, or no longer the caller's to write.
    Perm = 1,
    /// The device failed.
    Io = 5,
    /// No memory.
    NoMem = 12,
    /// The request makes no sense.
    Inval = 22,
    /// No space, or beyond the end.
    NoSpc = 28,
    /// Too long.
    Overflow = 75,
    /// Zeroing would not be fast.
    NotSup = 95,
    /// The export is being taken away.
    Shutdown = 108,
}

impl ErrorCode {
    /// What a number in a reply means; 0 is none, and an unknown one counts as `Inval`.
    #[must_use]
    pub fn from_wire(code: u32) -> Option<Self> {
        Some(match code {
            0 => return None,
            1 => Self::Perm,
            5 => Self::Io,
            12 => Self::NoMem,
            28 => Self::NoSpc,
            75 => Self::Overflow,
            95 => Self::NotSup,
            108 => Self::Shutdown,
            _ => Self::Inval,
        })
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Perm => "it is write-protected, or another's now",
            Self::Io => "its device failed",
            Self::NoMem => "the server has no memory left",
            Self::Inval => "the server takes it for nonsense",
            Self::NoSpc => "no space is left there",
            Self::Overflow => "it is too long",
            Self::NotSup => "the server cannot do it",
            Self::Shutdown => "it is being taken away",
        })
    }
}

impl From<&io::Error> for ErrorCode {
    fn from(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::PERM | Errno::ACCESS | Errno::ROFS) => Self::Perm,
            Some(Errno::NOMEM) => Self::NoMem,
            Some(Errno::INVAL) => Self::Inval,
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Self::NoSpc,
            Some(Errno::OPNOTSUPP) => Self::NotSup,
            Some(Errno::SHUTDOWN) => Self::Shutdown,
            _ => Self::Io,
        }
    }
}

impl From<ErrorCode> for io::Error {
    fn from(code: ErrorCode) -> Self {
        // The numbers are those of Linux on every architecture Midplane runs on.
        Self::from_raw_os_error(code as i32)
    }
}

/// Bytes that cannot be what they should be; nothing after them can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} begins with {got:#x}: the peer speaks another protocol, or is out of step")]
pub struct BadMagic {
    /// What was expected.
    pub what: &'static str,
    /// The number in its place.
    pub got: u64,
}
