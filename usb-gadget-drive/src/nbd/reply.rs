// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replies (proto.md, "Simple reply message" and "Structured reply chunk message").

use super::fields::Fields;
use super::{BadMagic, ErrorCode};

/// What a simple reply begins with.
pub const SIMPLE_MAGIC: u32 = 0x6744_6698;
/// What a chunk of a structured reply begins with.
pub const CHUNK_MAGIC: u32 = 0x668e_33ef;
/// The flag of a reply's last chunk.
pub const DONE: u16 = 1 << 0;

/// Types of chunks (proto.md, "Structured reply types").
pub mod chunk {
    #![allow(missing_docs, reason = "the names are those of the specification")]
    pub const NONE: u16 = 0;
    pub const OFFSET_DATA: u16 = 1;
    pub const OFFSET_HOLE: u16 = 2;
    pub const BLOCK_STATUS: u16 = 5;
    pub const ERROR: u16 = (1 << 15) | 1;
    pub const ERROR_OFFSET: u16 = (1 << 15) | 2;
}

/// Flags of `base:allocation` (proto.md, "`base:allocation` metadata context").
pub mod state {
    #![allow(missing_docs, reason = "the names are those of the specification")]
    pub const HOLE: u32 = 1 << 0;
    pub const ZERO: u32 = 1 << 1;
}

/// A reply without structure. Data follows if it answers a read without error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimpleReply {
    /// What went wrong, if anything.
    pub error: Option<ErrorCode>,
    /// Of the request.
    pub cookie: u64,
}

impl SimpleReply {
    /// Bytes on the wire.
    pub const LEN: usize = 16;

    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&SIMPLE_MAGIC.to_be_bytes());
        out[4..8].copy_from_slice(&self.error.map_or(0, |code| code as u32).to_be_bytes());
        out[8..].copy_from_slice(&self.cookie.to_be_bytes());
        out
    }
}

/// The header of a chunk; `len` bytes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHeader {
    /// [`DONE`] or 0; others may be set.
    pub flags: u16,
    /// One of [`chunk`], or any other number.
    pub kind: u16,
    /// Of the request.
    pub cookie: u64,
    /// Bytes.
    pub len: u32,
}

impl ChunkHeader {
    /// Bytes on the wire.
    pub const LEN: usize = 20;
    /// Bytes on the wire of the header and the offset that begins a chunk of data.
    pub const DATA_LEN: usize = Self::LEN + 8;

    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&CHUNK_MAGIC.to_be_bytes());
        out[4..6].copy_from_slice(&self.flags.to_be_bytes());
        out[6..8].copy_from_slice(&self.kind.to_be_bytes());
        out[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        out[16..].copy_from_slice(&self.len.to_be_bytes());
        out
    }

    /// All that comes before the `len` bytes from `offset` in a chunk of data.
    #[must_use]
    pub fn data(cookie: u64, offset: u64, len: u32, last: bool) -> [u8; Self::DATA_LEN] {
        let flags = if last { DONE } else { 0 };
        let header = Self { flags, kind: chunk::OFFSET_DATA, cookie, len: len + 8 };
        let mut out = [0; Self::DATA_LEN];
        out[..Self::LEN].copy_from_slice(&header.encode());
        out[Self::LEN..].copy_from_slice(&offset.to_be_bytes());
        out
    }
}

/// A whole last chunk that says what went wrong, without a text.
#[must_use]
pub fn error_chunk(cookie: u64, error: ErrorCode) -> [u8; ChunkHeader::LEN + 6] {
    let header = ChunkHeader { flags: DONE, kind: chunk::ERROR, cookie, len: 6 };
    let mut out = [0; ChunkHeader::LEN + 6];
    out[..ChunkHeader::LEN].copy_from_slice(&header.encode());
    out[ChunkHeader::LEN..][..4].copy_from_slice(&(error as u32).to_be_bytes());
    out
}

/// A whole last chunk with what lies where, each run a length in bytes and its [`state`].
///
/// # Panics
/// With so many runs that their bytes cannot be counted in 32 bits.
#[must_use]
pub fn block_status_chunk(cookie: u64, context: u32, runs: &[(u32, u32)]) -> Vec<u8> {
    let len = u32::try_from(4 + runs.len() * 8).expect("the number of runs is bounded");
    let header = ChunkHeader { flags: DONE, kind: chunk::BLOCK_STATUS, cookie, len };
    let mut out = header.encode().to_vec();
    out.extend(context.to_be_bytes());
    for (len, state) in runs {
        out.extend(len.to_be_bytes());
        out.extend(state.to_be_bytes());
    }
    out
}

/// What a client reads first of any reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyHeader {
    /// The whole header of a reply without structure.
    Simple(SimpleReply),
    /// The header of a chunk.
    Chunk(ChunkHeader),
}

impl ReplyHeader {
    /// How long the header is whose first four bytes these are.
    ///
    /// # Errors
    /// No reply begins so.
    pub fn len_of(magic: [u8; 4]) -> Result<usize, BadMagic> {
        match u32::from_be_bytes(magic) {
            SIMPLE_MAGIC => Ok(SimpleReply::LEN),
            CHUNK_MAGIC => Ok(ChunkHeader::LEN),
            got => Err(BadMagic { what: "a reply", got: got.into() }),
        }
    }

    /// Reads a header; none if there are fewer bytes than [`Self::len_of`] says.
    ///
    /// # Errors
    /// No reply begins so.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, BadMagic> {
        let Some(magic) = bytes.first_chunk() else { return Ok(None) };
        let simple = Self::len_of(*magic)? == SimpleReply::LEN;
        let mut fields = Fields(&bytes[4..]);
        let mut whole = || {
            Some(if simple {
                let error = ErrorCode::from_wire(fields.u32()?);
                Self::Simple(SimpleReply { error, cookie: fields.u64()? })
            } else {
                let (flags, kind) = (fields.u16()?, fields.u16()?);
                Self::Chunk(ChunkHeader { flags, kind, cookie: fields.u64()?, len: fields.u32()? })
            })
        };
        Ok(whole())
    }
}

/// Reads what follows the header of a chunk of an error: the code and perhaps a text.
#[must_use]
pub fn decode_error(body: &[u8]) -> Option<(ErrorCode, &str)> {
    let mut fields = Fields(body);
    let code = ErrorCode::from_wire(fields.u32()?).unwrap_or(ErrorCode::Inval);
    let len = usize::from(fields.u16()?);
    Some((code, std::str::from_utf8(fields.bytes(len)?).ok()?))
}

/// Reads what follows the header of a chunk of block status: the context and its runs.
#[must_use]
pub fn decode_block_status(body: &[u8]) -> Option<(u32, Vec<(u32, u32)>)> {
    let mut fields = Fields(body);
    let context = fields.u32()?;
    if fields.0.is_empty() || fields.0.len() % 8 != 0 {
        return None;
    }
    let mut runs = Vec::with_capacity(fields.0.len() / 8);
    while let (Some(len), Some(state)) = (fields.u32(), fields.u32()) {
        runs.push((len, state));
    }
    Some((context, runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simple_reply_has_the_bytes_of_the_specification() {
        let reply = SimpleReply { error: Some(ErrorCode::NoSpc), cookie: 7 };
        let bytes = reply.encode();
        assert_eq!(bytes, [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(ReplyHeader::decode(&bytes), Ok(Some(ReplyHeader::Simple(reply))));
        assert_eq!(ReplyHeader::decode(&bytes[..15]), Ok(None));
        assert_eq!(ReplyHeader::decode(&[1; 16]).unwrap_err().got, 0x0101_0101);
    }

    #[test]
    fn chunks_come_back_as_they_were() {
        let data = ChunkHeader::data(9, 4096, 512, true);
        let header = ChunkHeader { flags: DONE, kind: chunk::OFFSET_DATA, cookie: 9, len: 520 };
        assert_eq!(ReplyHeader::decode(&data), Ok(Some(ReplyHeader::Chunk(header))));
        assert_eq!(data[20..], 4096_u64.to_be_bytes());

        let error = error_chunk(9, ErrorCode::Io);
        assert_eq!(decode_error(&error[ChunkHeader::LEN..]), Some((ErrorCode::Io, "")));
        assert_eq!(decode_error(&[0; 5]), None);

        let runs = [(4096, 0), (8192, state::HOLE | state::ZERO)];
        let status = block_status_chunk(9, 1, &runs);
        assert_eq!(decode_block_status(&status[ChunkHeader::LEN..]), Some((1, runs.to_vec())));
        assert_eq!(decode_block_status(&[0; 13]), None);
    }
}
