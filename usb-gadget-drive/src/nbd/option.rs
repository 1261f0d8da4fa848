// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said before an export is chosen (proto.md, "Newstyle negotiation", "Option types", "Option reply types").

use super::fields::{Fields, push_string};
use super::{BadMagic, MAX_NAME};

/// The first eight bytes of a server: `NBDMAGIC`.
pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Its next eight, and what each option begins with: `IHAVEOPT`.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// What a reply to an option begins with.
pub const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// Handshake flags, of server and client alike.
pub mod handshake {
    #![allow(missing_docs, reason = "the names are those of the specification")]
    pub const FIXED_NEWSTYLE: u16 = 1 << 0;
    pub const NO_ZEROES: u16 = 1 << 1;
}

/// Options.
pub mod opt {
    #![allow(missing_docs, reason = "the names are those of the specification")]
    pub const EXPORT_NAME: u32 = 1;
    pub const ABORT: u32 = 2;
    pub const LIST: u32 = 3;
    pub const STARTTLS: u32 = 5;
    pub const INFO: u32 = 6;
    pub const GO: u32 = 7;
    pub const STRUCTURED_REPLY: u32 = 8;
    pub const LIST_META_CONTEXT: u32 = 9;
    pub const SET_META_CONTEXT: u32 = 10;
}

/// Replies to options; those with the highest bit are errors.
pub mod rep {
    #![allow(missing_docs, reason = "the names are those of the specification")]
    pub const ACK: u32 = 1;
    pub const SERVER: u32 = 2;
    pub const INFO: u32 = 3;
    pub const META_CONTEXT: u32 = 4;
    pub const ERR_UNSUP: u32 = (1 << 31) | 1;
    pub const ERR_POLICY: u32 = (1 << 31) | 2;
    pub const ERR_INVALID: u32 = (1 << 31) | 3;
    pub const ERR_PLATFORM: u32 = (1 << 31) | 4;
    pub const ERR_TLS_REQD: u32 = (1 << 31) | 5;
    pub const ERR_UNKNOWN: u32 = (1 << 31) | 6;
    pub const ERR_SHUTDOWN: u32 = (1 << 31) | 7;
    pub const ERR_BLOCK_SIZE_REQD: u32 = (1 << 31) | 8;
    pub const ERR_TOO_BIG: u32 = (1 << 31) | 9;
}

/// Kinds of information about an export.
pub mod info {
    #![allow(missing_docs, reason = "the names are those of the specification")]
    pub const EXPORT: u16 = 0;
    pub const NAME: u16 = 1;
    pub const DESCRIPTION: u16 = 2;
    pub const BLOCK_SIZE: u16 = 3;
}

/// What a server sends first; the client answers with its flags in 32 bits.
#[must_use]
pub fn greeting() -> [u8; 18] {
    let mut out = [0; 18];
    out[..8].copy_from_slice(&INIT_MAGIC.to_be_bytes());
    out[8..16].copy_from_slice(&OPTION_MAGIC.to_be_bytes());
    out[16..].copy_from_slice(&(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES).to_be_bytes());
    out
}

/// Reads a server's greeting: its handshake flags.
///
/// # Errors
/// It is no NBD server, or one of the old style.
pub fn decode_greeting(bytes: &[u8; 18]) -> Result<u16, BadMagic> {
    let (init, rest) = bytes.split_first_chunk().expect("18 bytes begin with eight");
    let (option, flags) = rest.split_first_chunk().expect("ten bytes begin with eight");
    let (init, option) = (u64::from_be_bytes(*init), u64::from_be_bytes(*option));
    if init != INIT_MAGIC {
        return Err(BadMagic { what: "a server", got: init });
    }
    if option != OPTION_MAGIC {
        return Err(BadMagic { what: "a server of the new style", got: option });
    }
    Ok(u16::from_be_bytes([flags[0], flags[1]]))
}

/// The header of an option; `len` bytes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionHeader {
    /// One of [`opt`], or any other number.
    pub option: u32,
    /// Bytes.
    pub len: u32,
}

impl OptionHeader {
    /// Bytes on the wire.
    pub const LEN: usize = 16;

    /// # Errors
    /// It does not begin as an option does.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, BadMagic> {
        let mut fields = Fields(bytes);
        let mut whole = || Some((fields.u64()?, fields.u32()?, fields.u32()?));
        let (magic, option, len) = whole().expect("the array has the length of the fields");
        if magic != OPTION_MAGIC {
            return Err(BadMagic { what: "an option", got: magic });
        }
        Ok(Self { option, len })
    }
}

/// Appends a whole option.
///
/// # Panics
/// With a body that cannot be counted in 32 bits.
pub fn push_option(out: &mut Vec<u8>, option: u32, body: &[u8]) {
    out.extend(OPTION_MAGIC.to_be_bytes());
    out.extend(option.to_be_bytes());
    out.extend(u32::try_from(body.len()).expect("options are short").to_be_bytes());
    out.extend(body);
}

/// The header of a reply to an option; `len` bytes follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionReply {
    /// Of the option that it answers.
    pub option: u32,
    /// One of [`rep`], or any other number.
    pub kind: u32,
    /// Bytes.
    pub len: u32,
}

impl OptionReply {
    /// Bytes on the wire.
    pub const LEN: usize = 20;

    /// # Errors
    /// It does not begin as a reply to an option does.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, BadMagic> {
        let mut fields = Fields(bytes);
        let mut whole = || Some((fields.u64()?, fields.u32()?, fields.u32()?, fields.u32()?));
        let (magic, option, kind, len) = whole().expect("the array has the length of the fields");
        if magic != REPLY_MAGIC {
            return Err(BadMagic { what: "a reply to an option", got: magic });
        }
        Ok(Self { option, kind, len })
    }
}

/// Appends a whole reply to an option.
///
/// # Panics
/// With a body that cannot be counted in 32 bits.
pub fn push_reply(out: &mut Vec<u8>, option: u32, kind: u32, body: &[u8]) {
    out.extend(REPLY_MAGIC.to_be_bytes());
    out.extend(option.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(u32::try_from(body.len()).expect("replies to options are short").to_be_bytes());
    out.extend(body);
}

/// The body of `INFO` and `GO`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InfoRequest<'a> {
    /// Of the export.
    pub name: &'a str,
    /// Of [`info`], and any other numbers.
    pub infos: Vec<u16>,
}

impl<'a> InfoRequest<'a> {
    /// None if it is malformed or the name too long.
    #[must_use]
    pub fn decode(body: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let name = export_name(&mut fields)?;
        let count = usize::from(fields.u16()?);
        if fields.0.len() != count * 2 {
            return None;
        }
        let infos = std::iter::from_fn(|| fields.u16()).collect();
        Some(Self { name, infos })
    }

    /// The bytes on the wire.
    ///
    /// # Panics
    /// With more than 65,535 kinds of information.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![];
        push_string(&mut out, self.name);
        out.extend(u16::try_from(self.infos.len()).expect("few kinds exist").to_be_bytes());
        out.extend(self.infos.iter().flat_map(|info| info.to_be_bytes()));
        out
    }
}

/// The body of `LIST_META_CONTEXT` and `SET_META_CONTEXT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaQueries<'a> {
    /// Of the export.
    pub name: &'a str,
    /// Names of contexts, or a namespace with its colon.
    pub queries: Vec<&'a str>,
}

impl<'a> MetaQueries<'a> {
    /// None if it is malformed or a string too long.
    #[must_use]
    pub fn decode(body: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let name = export_name(&mut fields)?;
        let count = usize::try_from(fields.u32()?).ok()?;
        // Each query has at least its length.
        if count > fields.0.len() / 4 {
            return None;
        }
        let mut queries = Vec::with_capacity(count);
        for _ in 0..count {
            queries.push(fields.string().filter(|query| query.len() <= MAX_NAME)?);
        }
        fields.0.is_empty().then_some(Self { name, queries })
    }

    /// The bytes on the wire.
    ///
    /// # Panics
    /// With more queries than 32 bits count.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![];
        push_string(&mut out, self.name);
        out.extend(u32::try_from(self.queries.len()).expect("few contexts exist").to_be_bytes());
        self.queries.iter().for_each(|query| push_string(&mut out, query));
        out
    }
}

fn export_name<'a>(fields: &mut Fields<'a>) -> Option<&'a str> {
    fields.string().filter(|name| name.len() <= MAX_NAME)
}

/// The body of a reply of kind `INFO`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Info {
    /// What an export is.
    Export {
        /// Bytes.
        size: u64,
        /// Of [`super::flags`].
        flags: u16,
    },
    /// Its canonical name.
    Name(String),
    /// For people.
    Description(String),
    /// What requests it takes, bytes.
    BlockSize {
        /// Offsets and lengths are multiples of it.
        min: u32,
        /// What is best.
        preferred: u32,
        /// Longest payload.
        max: u32,
    },
    /// One that this program does not know.
    Other(u16),
}

impl Info {
    /// None if it is malformed.
    #[must_use]
    pub fn decode(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let info = match fields.u16()? {
            info::EXPORT => Self::Export { size: fields.u64()?, flags: fields.u16()? },
            info::BLOCK_SIZE => {
                let (min, preferred, max) = (fields.u32()?, fields.u32()?, fields.u32()?);
                Self::BlockSize { min, preferred, max }
            }
            kind @ (info::NAME | info::DESCRIPTION) => {
                let text = std::str::from_utf8(fields.0).ok().filter(|t| t.len() <= MAX_NAME)?;
                fields.0 = &[];
                if kind == info::NAME {
                    Self::Name(text.to_owned())
                } else {
                    Self::Description(text.to_owned())
                }
            }
            other => return Some(Self::Other(other)),
        };
        fields.0.is_empty().then_some(info)
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![];
        match self {
            Self::Export { size, flags } => {
                out.extend(info::EXPORT.to_be_bytes());
                out.extend(size.to_be_bytes());
                out.extend(flags.to_be_bytes());
            }
            Self::Name(text) => {
                out.extend(info::NAME.to_be_bytes());
                out.extend(text.as_bytes());
            }
            Self::Description(text) => {
                out.extend(info::DESCRIPTION.to_be_bytes());
                out.extend(text.as_bytes());
            }
            Self::BlockSize { min, preferred, max } => {
                out.extend(info::BLOCK_SIZE.to_be_bytes());
                out.extend([min, preferred, max].into_iter().flat_map(|size| size.to_be_bytes()));
            }
            Self::Other(kind) => out.extend(kind.to_be_bytes()),
        }
        out
    }
}

/// The body of a reply of kind `SERVER`: a name and perhaps a text for people.
#[must_use]
pub fn encode_listed(name: &str, description: &str) -> Vec<u8> {
    let mut out = vec![];
    push_string(&mut out, name);
    out.extend(description.as_bytes());
    out
}

/// Reads the body of a reply of kind `SERVER`.
#[must_use]
pub fn decode_listed(body: &[u8]) -> Option<(&str, &str)> {
    let mut fields = Fields(body);
    Some((export_name(&mut fields)?, std::str::from_utf8(fields.0).ok()?))
}

/// The body of a reply of kind `META_CONTEXT`.
#[must_use]
pub fn encode_context(id: u32, name: &str) -> Vec<u8> {
    [&id.to_be_bytes()[..], name.as_bytes()].concat()
}

/// Reads the body of a reply of kind `META_CONTEXT`.
#[must_use]
pub fn decode_context(body: &[u8]) -> Option<(u32, &str)> {
    let mut fields = Fields(body);
    Some((fields.u32()?, std::str::from_utf8(fields.0).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_out_comes_back() {
        let info = InfoRequest { name: "drive", infos: vec![info::BLOCK_SIZE, 77] };
        assert_eq!(InfoRequest::decode(&info.encode()), Some(info));
        let queries = MetaQueries { name: "", queries: vec!["base:", "base:allocation"] };
        assert_eq!(MetaQueries::decode(&queries.encode()), Some(queries));
        for info in [
            Info::Export { size: 1 << 40, flags: 0x0fff },
            Info::Name("n".to_owned()),
            Info::Description("ä".to_owned()),
            Info::BlockSize { min: 1, preferred: 4096, max: 1 << 25 },
        ] {
            assert_eq!(Info::decode(&info.encode()), Some(info));
        }
        assert_eq!(decode_listed(&encode_listed("a", "b")), Some(("a", "b")));
        assert_eq!(decode_context(&encode_context(3, "x:y")), Some((3, "x:y")));
        assert_eq!(decode_greeting(&greeting()), Ok(3));
    }

    #[test]
    fn malformed_bodies_are_refused() {
        // One kind of information is announced, none follows.
        assert_eq!(InfoRequest::decode(&[0, 0, 0, 0, 0, 1]), None);
        // The name is longer than the body, not text, or more follows than was announced.
        assert_eq!(InfoRequest::decode(&[0xff, 0xff, 0xff, 0xff, 0, 0]), None);
        assert_eq!(InfoRequest::decode(&[0, 0, 0, 1, 0xff, 0, 0]), None);
        assert_eq!(InfoRequest::decode(&[0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(MetaQueries::decode(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(MetaQueries::decode(&[0, 0, 0, 0, 0, 0, 0, 0, 1]), None);
        let long = InfoRequest { name: &"n".repeat(MAX_NAME + 1), infos: vec![] }.encode();
        assert_eq!(InfoRequest::decode(&long), None);
        assert_eq!(Info::decode(&[0, 3, 0]), None);
    }
}
