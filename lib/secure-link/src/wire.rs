// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pieces that the formats here are made of. Numbers are big-endian.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early.
    #[error("it is cut short")]
    Short,
    /// There is more than there should be.
    #[error("it is too long")]
    Long,
    /// A field has a value that it cannot have.
    #[error("its {0} is wrong")]
    Field(&'static str),
}

/// Takes fields from the front of a slice.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }
}

/// Bytes of an address in all formats here.
pub(crate) const ADDRESS_LEN: usize = 18;

/// The address, an IPv4 one as IPv6 has it (RFC 4291, section 2.5.5.2), and the port. A scope is not
/// for others.
pub(crate) fn encode_address(address: SocketAddr) -> [u8; ADDRESS_LEN] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = [0; ADDRESS_LEN];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

/// Reads what [`encode_address`] wrote.
pub(crate) fn decode_address(bytes: &[u8; ADDRESS_LEN]) -> SocketAddr {
    let ip: [u8; 16] = std::array::from_fn(|i| bytes[i]);
    SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), u16::from_be_bytes([bytes[16], bytes[17]]))
}
