// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages as they travel on the IPMB, and inside Send Message and Get Message.
//!
//! *Intelligent Platform Management Bus Communications Protocol* v1.0, sections 2.11 and 2.12:
//! `rsAddr, netFn/rsLUN, checksum, rqAddr, rqSeq/rqLUN, cmd, [ccode,] data..., checksum`.
//! A response has requester and responder exchanged. Get Message returns the same bytes with the
//! channel number in place of the first address (IPMI 2.0 section 22.6); put the address back
//! before decoding.

use crate::message::{Lun, MAX_MESSAGE_LEN, MessageError, NetFn, checksum};

/// Bytes of a message without data: two addresses with LUNs, two checksums, command.
pub const OVERHEAD: usize = 7;

/// One message on the bus. For a response `data[0]` is the completion code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipmb {
    /// 8-bit slave address of the receiver.
    pub to: u8,
    /// LUN at the receiver.
    pub to_lun: Lun,
    /// Network function: even for a request, odd for a response.
    pub netfn: NetFn,
    /// 8-bit slave address of the sender.
    pub from: u8,
    /// LUN at the sender.
    pub from_lun: Lun,
    /// Sequence number, 0 to 63; the requester chooses it, the responder returns it.
    pub seq: u8,
    /// Command number.
    pub cmd: u8,
    /// Data, at most [`MAX_MESSAGE_LEN`] bytes.
    pub data: Vec<u8>,
}

impl Ipmb {
    /// The response to this request: both ends exchanged, `data` starting with the completion code.
    pub fn respond(&self, data: Vec<u8>) -> Self {
        Self {
            to: self.from,
            to_lun: self.from_lun,
            netfn: self.netfn.response(),
            from: self.to,
            from_lun: self.to_lun,
            seq: self.seq,
            cmd: self.cmd,
            data,
        }
    }
}

/// The bytes of a message, with both checksums.
pub fn encode(message: &Ipmb) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(OVERHEAD + message.data.len());
    bytes.extend([message.to, message.netfn.with_lun(message.to_lun)]);
    bytes.push(checksum(&bytes));
    bytes.extend([message.from, message.seq << 2 | message.from_lun.get(), message.cmd]);
    bytes.extend_from_slice(&message.data);
    bytes.push(checksum(&bytes[3..]));
    bytes
}

/// Takes a message apart and checks both checksums.
///
/// # Errors
/// Too short, more than [`MAX_MESSAGE_LEN`] bytes of data, or a wrong checksum.
pub fn decode(bytes: &[u8]) -> Result<Ipmb, MessageError> {
    let [to, netfn_lun, _, from, seq_lun, cmd, data @ .., _] = bytes else {
        return Err(MessageError::TooShort { len: bytes.len(), min: OVERHEAD });
    };
    if data.len() > MAX_MESSAGE_LEN {
        return Err(MessageError::TooLong { len: data.len() });
    }
    for (from, to) in [(0, 2), (3, bytes.len() - 1)] {
        if checksum(&bytes[from..=to]) != 0 {
            return Err(MessageError::Checksum { from, to });
        }
    }
    let (netfn, to_lun) = NetFn::split_lun(*netfn_lun);
    let (_, from_lun) = NetFn::split_lun(*seq_lun);
    Ok(Ipmb {
        to: *to,
        to_lun,
        netfn,
        from: *from,
        from_lun,
        seq: seq_lun >> 2,
        cmd: *cmd,
        data: data.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Get Device ID from system software behind the BMC (0x20, LUN 2) to the controller at 0x82.
    #[test]
    fn golden_request() {
        let message = Ipmb {
            to: 0x82,
            to_lun: Lun::BMC,
            netfn: NetFn::APP,
            from: 0x20,
            from_lun: Lun::SMS,
            seq: 5,
            cmd: 0x01,
            data: vec![],
        };
        let bytes = [
            0x82, // receiver
            0x18, // App, LUN 0
            0x66, // checksum: 0x82 + 0x18 + 0x66 = 0x100
            0x20, // sender
            0x16, // sequence 5, LUN 2
            0x01, // Get Device ID
            0xc9, // checksum: 0x20 + 0x16 + 0x01 + 0xc9 = 0x100
        ];
        assert_eq!(encode(&message), bytes);
        assert_eq!(decode(&bytes), Ok(message));
    }

    #[test]
    fn wrong_checksums_are_found() {
        let good = [0x82, 0x18, 0x66, 0x20, 0x16, 0x01, 0xc9];
        for at in 0..good.len() {
            let mut bad = good;
            bad[at] ^= 0x10;
            assert!(matches!(decode(&bad), Err(MessageError::Checksum { .. })), "byte {at}");
        }
        assert!(matches!(decode(&good[..6]), Err(MessageError::TooShort { .. })));
    }

    proptest! {
        #[test]
        fn round_trip(
            to: u8, from: u8, seq in 0u8..64, luns in 0u8..16, netfn in 0u8..64, cmd: u8,
            data in proptest::collection::vec(any::<u8>(), 0..MAX_MESSAGE_LEN),
        ) {
            let message = Ipmb {
                to,
                to_lun: Lun::new(luns & 3).unwrap(),
                netfn: NetFn::new(netfn).unwrap(),
                from,
                from_lun: Lun::new(luns >> 2).unwrap(),
                seq,
                cmd,
                data,
            };
            prop_assert_eq!(decode(&encode(&message)), Ok(message));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(&bytes);
        }
    }
}
