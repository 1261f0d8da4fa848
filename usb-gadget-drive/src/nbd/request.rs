// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests (proto.md, "Request message"). The payload of a write follows its header.

use super::fields::Fields;
use super::{BadMagic, ErrorCode, MAX_SERVED, flags as export_flags};

/// What a request begins with.
pub const MAGIC: u32 = 0x2560_9513;

/// Commands (proto.md, "Request types").
pub mod command {
    #![allow(missing_docs, reason = "the names are those of the specification")]
    pub const READ: u16 = 0;
    pub const WRITE: u16 = 1;
    pub const DISC: u16 = 2;
    pub const FLUSH: u16 = 3;
    pub const TRIM: u16 = 4;
    pub const CACHE: u16 = 5;
    pub const WRITE_ZEROES: u16 = 6;
    pub const BLOCK_STATUS: u16 = 7;
}

/// Flags of a command (proto.md, "Command flags").
pub mod flag {
    #![allow(missing_docs, reason = "the names are those of the specification")]
    pub const FUA: u16 = 1 << 0;
    pub const NO_HOLE: u16 = 1 << 1;
    pub const DF: u16 = 1 << 2;
    pub const REQ_ONE: u16 = 1 << 3;
    pub const FAST_ZERO: u16 = 1 << 4;
}

/// The header of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Of [`flag`]; others may be set.
    pub flags: u16,
    /// One of [`command`], or any other number.
    pub command: u16,
    /// The client's name for it; comes back in the reply.
    pub cookie: u64,
    /// Bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
}

impl Request {
    /// Bytes on the wire.
    pub const LEN: usize = 28;

    /// # Errors
    /// It does not begin as a request does.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, BadMagic> {
        let mut fields = Fields(bytes);
        let mut whole = || {
            let magic = fields.u32()?;
            let (flags, command) = (fields.u16()?, fields.u16()?);
            let (cookie, offset, len) = (fields.u64()?, fields.u64()?, fields.u32()?);
            Some((magic, Self { flags, command, cookie, offset, len }))
        };
        let (magic, request) = whole().expect("the array has the length of the fields");
        if magic != MAGIC {
            return Err(BadMagic { what: "a request", got: magic.into() });
        }
        Ok(request)
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&MAGIC.to_be_bytes());
        out[4..6].copy_from_slice(&self.flags.to_be_bytes());
        out[6..8].copy_from_slice(&self.command.to_be_bytes());
        out[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        out[16..24].copy_from_slice(&self.offset.to_be_bytes());
        out[24..].copy_from_slice(&self.len.to_be_bytes());
        out
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Bytes that follow the header.
    #[must_use]
    pub fn payload(&self) -> u32 {
        if self.command == command::WRITE { self.len } else { 0 }
    }

    /// Whether an export of `size` bytes with these [`super::flags`] may be asked so. Who asks for nothing is out
    /// of step: proto.md leaves length 0 open, and nbdkit refuses it too.
    ///
    /// # Errors
    /// What proto.md, "Error values" and "Request types", has for it.
    pub fn check(&self, export: u16, base_allocation: bool, size: u64) -> Result<(), ErrorCode> {
        let can = |flag: u16| export & flag != 0;
        let with = |yes: bool, flag: u16| if yes { flag } else { 0 };
        let read_only = can(export_flags::READ_ONLY);
        let (known, beyond) = match self.command {
            command::READ => (with(can(export_flags::SEND_DF), flag::DF), ErrorCode::Inval),
            command::WRITE => (0, ErrorCode::NoSpc),
            command::FLUSH => (0, ErrorCode::Inval),
            command::TRIM if read_only || can(export_flags::SEND_TRIM) => (0, ErrorCode::Inval),
            command::WRITE_ZEROES => {
                let fast = with(can(export_flags::SEND_FAST_ZERO), flag::FAST_ZERO);
                (flag::NO_HOLE | fast, ErrorCode::NoSpc)
            }
            command::BLOCK_STATUS if base_allocation => (flag::REQ_ONE, ErrorCode::Inval),
            _ => return Err(ErrorCode::Inval),
        };
        if (self.len == 0) != (self.command == command::FLUSH) {
            return Err(ErrorCode::Inval);
        }
        if self.flags & !(known | with(can(export_flags::SEND_FUA), flag::FUA)) != 0 {
            return Err(ErrorCode::Inval);
        }
        let changes =
            matches!(self.command, command::WRITE | command::TRIM | command::WRITE_ZEROES);
        if changes && read_only {
            return Err(ErrorCode::Perm);
        }
        if self.len > MAX_SERVED {
            match self.command {
                command::READ => return Err(ErrorCode::Overflow),
                command::WRITE => return Err(ErrorCode::Inval),
                _ => {}
            }
        }
        let end = self.offset.checked_add(self.len.into());
        if end.is_none_or(|end| end > size) || self.command == command::FLUSH && self.offset != 0 {
            return Err(beyond);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_make_no_sense_get_the_error_of_the_specification() {
        let all = 0x0fff & !export_flags::READ_ONLY;
        let ask = |command, flags, offset, len| Request { flags, command, cookie: 1, offset, len };
        let check =
            |request: Request| request.check(all, true, 1 << 30).map_err(|code| code as u32);
        use command::*;
        assert_eq!(check(ask(READ, flag::DF | flag::FUA, 0, 512)), Ok(()));
        assert_eq!(check(ask(READ, flag::NO_HOLE, 0, 512)), Err(22));
        assert_eq!(check(ask(READ, 0, (1 << 30) - 1, 2)), Err(22));
        assert_eq!(check(ask(READ, 0, u64::MAX, 2)), Err(22));
        assert_eq!(check(ask(READ, 0, 0, MAX_SERVED + 1)), Err(75));
        assert_eq!(check(ask(WRITE, 0, 0, MAX_SERVED + 1)), Err(22));
        assert_eq!(check(ask(WRITE, flag::FUA, 1 << 30, 1)), Err(28));
        assert_eq!(check(ask(READ, 0, 0, 0)), Err(22));
        assert_eq!(check(ask(WRITE, flag::FUA, 0, 0)), Err(22));
        assert_eq!(check(ask(WRITE_ZEROES, flag::FAST_ZERO | flag::NO_HOLE, 0, 1 << 30)), Ok(()));
        assert_eq!(check(ask(WRITE_ZEROES, 0, 1, 1 << 30)), Err(28));
        assert_eq!(check(ask(TRIM, 0, 1, 1 << 30)), Err(22));
        assert_eq!(check(ask(TRIM, 1 << 9, 0, 1)), Err(22));
        assert_eq!(check(ask(BLOCK_STATUS, flag::REQ_ONE, 0, 1)), Ok(()));
        assert_eq!(check(ask(BLOCK_STATUS, 0, 0, 0)), Err(22));
        assert_eq!(check(ask(FLUSH, 0, 0, 0)), Ok(()));
        assert_eq!(check(ask(FLUSH, 0, 0, 1)), Err(22));
        assert_eq!(check(ask(FLUSH, 0, 1, 0)), Err(22));
        assert_eq!(check(ask(77, 0, 0, 1)), Err(22));

        // What was not agreed on is not known.
        let plain = export_flags::HAS_FLAGS | export_flags::SEND_FUA | export_flags::SEND_FLUSH;
        let check = |request: Request, more| request.check(plain | more, false, 1 << 30);
        assert_eq!(check(ask(READ, flag::DF, 0, 1), 0), Err(ErrorCode::Inval));
        assert_eq!(check(ask(BLOCK_STATUS, 0, 0, 1), 0), Err(ErrorCode::Inval));
        assert_eq!(check(ask(TRIM, 0, 0, 1), 0), Err(ErrorCode::Inval));
        assert_eq!(check(ask(WRITE_ZEROES, flag::FAST_ZERO, 0, 1), 0), Err(ErrorCode::Inval));
        for command in [WRITE, TRIM, WRITE_ZEROES] {
            let read_only = check(ask(command, 0, 0, 1), export_flags::READ_ONLY);
            assert_eq!(read_only, Err(ErrorCode::Perm));
        }
    }

    #[test]
    fn a_request_has_the_bytes_of_the_specification() {
        let bytes = [
            0x25, 0x60, 0x95, 0x13, // magic
            0x00, 0x01, // FUA
            0x00, 0x01, // WRITE
            1, 2, 3, 4, 5, 6, 7, 8, // cookie
            0, 0, 0, 1, 0, 0, 0, 0, // offset 4 GiB
            0, 0, 0x10, 0, // 4096 bytes
        ];
        let request = Request::decode(&bytes).unwrap();
        assert_eq!(
            request,
            Request {
                flags: flag::FUA,
                command: command::WRITE,
                cookie: 0x0102_0304_0506_0708,
                offset: 1 << 32,
                len: 4096
            }
        );
        assert_eq!(request.encode(), bytes);
        assert_eq!(request.payload(), 4096);
        assert_eq!(Request::decode(&[0; 28]).unwrap_err().got, 0);
    }
}
