// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each end says of itself in a handshake, sealed: fields of a tag, a length in two bytes, and a
//! value. A tag that is not known is skipped: later releases may say more.

use std::net::SocketAddr;

use crate::keys::KeyId;
use crate::name::Name;
use crate::wire::{ADDRESS_LEN, DecodeError, Reader, decode_address, encode_address};

/// Which group keys a member has. Ids only: this is public within the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyState {
    /// The one it opens connections with.
    pub sends: KeyId,
    /// Another one that it accepts too, while the key is being changed.
    pub also: Option<KeyId>,
}

impl KeyState {
    /// Whether connections opened with this key are let in.
    #[must_use]
    pub fn accepts(&self, key: KeyId) -> bool {
        self.sends == key || self.also == Some(key)
    }
}

/// What an end says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Its name in the group, by default its slot's or host's.
    pub name: Name,
    /// Where it listens, at most [`Hello::MAX_ADDRESSES`]: all its networks, best first.
    pub addresses: Vec<SocketAddr>,
    /// Its group keys.
    pub keys: KeyState,
    /// What the program has to say, at most [`Hello::MAX_NOTE`] bytes: it is there before anything else
    /// is sent.
    pub note: Vec<u8>,
}

impl Hello {
    /// Most addresses: two networks with both families, doubled.
    pub const MAX_ADDRESSES: usize = 8;
    /// Most bytes of a note.
    pub const MAX_NOTE: usize = 512;
    /// Most bytes of all of it, fields of later versions counted in.
    pub const MAX_LEN: usize = 1280;

    const NAME: u8 = 1;
    const ADDRESS: u8 = 2;
    const SENDS: u8 = 3;
    const ALSO: u8 = 4;
    const NOTE: u8 = 5;

    /// As bytes. Addresses and notes beyond the limits are left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![];
        let mut field = |tag: u8, value: &[u8]| {
            out.push(tag);
            out.extend(u16::try_from(value.len()).expect("all are below 64 KiB").to_be_bytes());
            out.extend(value);
        };
        field(Self::NAME, self.name.as_str().as_bytes());
        for address in self.addresses.iter().take(Self::MAX_ADDRESSES) {
            field(Self::ADDRESS, &encode_address(*address));
        }
        field(Self::SENDS, &self.keys.sends.0);
        if let Some(also) = self.keys.also {
            field(Self::ALSO, &also.0);
        }
        if (1..=Self::MAX_NOTE).contains(&self.note.len()) {
            field(Self::NOTE, &self.note);
        }
        out
    }

    /// Reads what [`Self::encode`] wrote, or a later version of it.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > Self::MAX_LEN {
            return Err(DecodeError::Long);
        }
        let (mut name, mut sends, mut also, mut note) = (None, None, None, None);
        let mut addresses = vec![];
        let mut reader = Reader(bytes);
        while !reader.0.is_empty() {
            let tag = reader.u8()?;
            let len = reader.u16()?;
            let value = reader.bytes(len.into())?;
            let twice = match tag {
                Self::NAME => name.replace(value).is_some(),
                Self::ADDRESS => {
                    addresses.push(decode_address(&array::<ADDRESS_LEN>(value, "address")?));
                    addresses.len() > Self::MAX_ADDRESSES
                }
                Self::SENDS => sends.replace(KeyId(array(value, "key id")?)).is_some(),
                Self::ALSO => also.replace(KeyId(array(value, "key id")?)).is_some(),
                Self::NOTE => note.replace(value).is_some(),
                _ => false,
            };
            if twice {
                return Err(DecodeError::Field("number of fields"));
            }
        }
        let name = name.and_then(|name| std::str::from_utf8(name).ok()?.parse().ok());
        let note = note.unwrap_or_default();
        if note.len() > Self::MAX_NOTE {
            return Err(DecodeError::Long);
        }
        Ok(Self {
            name: name.ok_or(DecodeError::Field("name"))?,
            addresses,
            keys: KeyState { sends: sends.ok_or(DecodeError::Field("key id"))?, also },
            note: note.to_vec(),
        })
    }
}

fn array<const N: usize>(value: &[u8], what: &'static str) -> Result<[u8; N], DecodeError> {
    value.try_into().map_err(|_| DecodeError::Field(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            name: "blade-1".parse().unwrap(),
            addresses: vec!["10.0.0.1:7460".parse().unwrap(), "[fd00::1]:7460".parse().unwrap()],
            keys: KeyState { sends: KeyId([1; 8]), also: Some(KeyId([2; 8])) },
            note: b"note".to_vec(),
        }
    }

    /// Other releases read these bytes: they are never changed.
    #[test]
    fn golden_bytes() {
        let bytes = [
            &b"\x01\x00\x07blade-1"[..],
            b"\x02\x00\x12\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\x01\x1d\x24",
            b"\x02\x00\x12\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x1d\x24",
            b"\x03\x00\x08\x01\x01\x01\x01\x01\x01\x01\x01",
            b"\x04\x00\x08\x02\x02\x02\x02\x02\x02\x02\x02",
            b"\x05\x00\x04note",
        ]
        .concat();
        assert_eq!(hello().encode(), bytes);
        assert_eq!(Hello::decode(&bytes), Ok(hello()));
        let later = [&bytes[..], b"\xc8\x00\x02??"].concat();
        assert_eq!(Hello::decode(&later), Ok(hello()), "unknown fields are skipped");
    }

    #[test]
    fn what_is_no_hello_is_refused() {
        let good = hello().encode();
        for cut in 0..good.len() {
            // Cut between fields it may be one with less in it.
            if let Ok(less) = Hello::decode(&good[..cut]) {
                assert_eq!(less.name, hello().name);
            }
        }
        let twice = [&good[..], b"\x01\x00\x01x"].concat();
        assert!(Hello::decode(&twice).is_err());
        let many = [&good[..], &good[10..31].repeat(Hello::MAX_ADDRESSES)].concat();
        assert!(Hello::decode(&many).is_err());
        let long = [&good[..], b"\xc8\x04\xb0", &[0; 1200]].concat();
        assert_eq!(Hello::decode(&long), Err(DecodeError::Long));
        assert!(Hello::decode(b"").is_err());
    }
}
