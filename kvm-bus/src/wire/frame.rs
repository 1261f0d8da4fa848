// SPDX-License-Identifier: MIT OR Apache-2.0
//! The frame, version 1.
//!
//! ```text
//!  0     version (high 4 bits), class (low 4 bits)
//!  1     kind
//!  2     destination
//!  3     source
//!  4     hops: how many multiplexors passed it on
//!  5-8   session, little endian; of a beat to all and of what precedes a session the epoch of the RMM
//!  9-10  sequence number in its class, little endian
//!  11-   payload, up to 1024 bytes
//!  last 4 CRC-32C of all before, little endian
//! ```

use std::fmt;

use crc::{CRC_32_ISCSI, Crc, Table};
use serde::{Deserialize, Serialize};

/// Version of the wire format.
const VERSION: u8 = 1;
const HEADER: usize = 11;
const CRC_LEN: usize = 4;
/// Bytes of a frame beside its payload, before COBS.
pub const OVERHEAD: usize = HEADER + CRC_LEN;
/// Largest payload, bytes: 2.6 ms of a line at 4 Mbaud, so that a key waits no longer behind it.
pub const MAX_PAYLOAD: usize = 1024;
/// Largest frame on the wire, bytes: with one COBS byte per 254 and a zero on each side.
pub const MAX_ENCODED: usize = OVERHEAD + MAX_PAYLOAD + (OVERHEAD + MAX_PAYLOAD) / 254 + 1 + 2;

static CRC: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// A place on the bus: blades are 1 to 239 by slot, RMMs 240 to 247.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Addr(u8);

impl Addr {
    /// Everybody on the bus.
    pub const ALL: Self = Self(255);

    /// The blade in a slot, 1 to 239.
    #[must_use]
    pub fn blade(slot: u8) -> Option<Self> {
        (1..=239).contains(&slot).then_some(Self(slot))
    }

    /// An RMM, 0 to 7.
    #[must_use]
    pub fn rmm(number: u8) -> Option<Self> {
        (number < 8).then_some(Self(240 + number))
    }

    /// Whether it is that of an RMM.
    #[must_use]
    pub fn is_rmm(self) -> bool {
        (240..248).contains(&self.0)
    }

    /// Whether it is that of a blade.
    #[must_use]
    pub fn is_blade(self) -> bool {
        (1..=239).contains(&self.0)
    }

    /// As on the wire.
    #[must_use]
    pub fn byte(self) -> u8 {
        self.0
    }

    fn known(self) -> bool {
        self.is_rmm() || self.is_blade() || self == Self::ALL
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ALL => f.write_str("all"),
            addr if addr.is_rmm() => write!(f, "rmm {}", addr.0 - 240),
            addr => write!(f, "slot {}", addr.0),
        }
    }
}

/// What goes first, and whether it is sent again when lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Class {
    /// Choosing, status, sessions. Reliable.
    Control = 0,
    /// Keyboard, mouse, and acknowledgements. Reliable.
    Input = 1,
    /// Serial consoles. Reliable.
    Console = 2,
    /// Text screens. Reliable; the sender makes nothing new while something is under way, so the latest wins.
    Screen = 3,
    /// Pixels and whatever else may be lost.
    Bulk = 4,
}

/// The classes with sequence numbers: the first four.
pub const RELIABLE: [Class; 4] = [Class::Control, Class::Input, Class::Console, Class::Screen];

impl Class {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Control, Self::Input, Self::Console, Self::Screen, Self::Bulk]
            .into_iter()
            .find(|class| *class as u8 == byte)
    }
}

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// A sign of life: of an RMM to all, or of either end of a session to the other: numbered, with two bytes, the number
    /// of the latest that came from there, little-endian; none if none has.
    Beat = 0,
    /// A blade asks for a session.
    Hello = 1,
    /// The RMM gives one.
    Welcome = 2,
    /// The session of a frame is not known here.
    Reset = 3,
    /// A message of a session.
    Data = 4,
    /// What arrived of a session's messages.
    Ack = 5,
    /// Which blade is to be coupled: to all.
    Select = 6,
    /// A control slave's answer to that.
    Selected = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::{Ack, Beat, Data, Hello, Reset, Select, Selected, Welcome};
        [Beat, Hello, Welcome, Reset, Data, Ack, Select, Selected]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its urgency.
    pub class: Class,
    /// What it is for.
    pub kind: Kind,
    /// To whom.
    pub dst: Addr,
    /// From whom.
    pub src: Addr,
    /// How many multiplexors passed it on.
    pub hops: u8,
    /// The session, or an epoch.
    pub session: u32,
    /// Its number among those of its class and session.
    pub seq: u16,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: Vec<u8>,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Noise, or bytes lost.
    #[error("a frame is damaged")]
    Damaged,
    /// Whole, but not of this version.
    #[error("a frame of version {0} was received, this is version {VERSION}; update the older end")]
    Version(u8),
    /// Whole, but with a field that makes no sense.
    #[error("a frame has a field that makes no sense")]
    Field,
}

impl Frame {
    /// A frame without sequence number and payload.
    #[must_use]
    pub fn new(class: Class, kind: Kind, src: Addr, dst: Addr, session: u32) -> Self {
        Self { class, kind, dst, src, hops: 0, session, seq: 0, payload: vec![] }
    }

    /// As it goes on the wire, with a zero at each end. What is over [`MAX_PAYLOAD`] is left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let payload = &self.payload[..self.payload.len().min(MAX_PAYLOAD)];
        let mut raw = Vec::with_capacity(OVERHEAD + payload.len());
        raw.extend([VERSION << 4 | self.class as u8, self.kind as u8]);
        raw.extend([self.dst.0, self.src.0, self.hops]);
        raw.extend(self.session.to_le_bytes());
        raw.extend(self.seq.to_le_bytes());
        raw.extend(payload);
        raw.extend(CRC.checksum(&raw).to_le_bytes());
        let mut wire = vec![0; 1 + cobs::max_encoding_length(raw.len()) + 1];
        let len = cobs::encode(&raw, &mut wire[1..]);
        wire.truncate(1 + len);
        wire.push(0);
        wire
    }

    /// What is between two zeros.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub fn decode(stuffed: &[u8]) -> Result<Self, FrameError> {
        let raw = cobs::decode_vec(stuffed).map_err(|_| FrameError::Damaged)?;
        let Some((body, crc)) = raw.split_last_chunk::<CRC_LEN>() else {
            return Err(FrameError::Damaged);
        };
        if CRC.checksum(body) != u32::from_le_bytes(*crc) {
            return Err(FrameError::Damaged);
        }
        let Some((header, payload)) = body.split_first_chunk::<HEADER>() else {
            return Err(FrameError::Field);
        };
        let [first, kind, dst, src, hops, s0, s1, s2, s3, q0, q1] = *header;
        if first >> 4 != VERSION {
            return Err(FrameError::Version(first >> 4));
        }
        let (dst, src) = (Addr(dst), Addr(src));
        if !dst.known() || !src.known() || src == Addr::ALL || payload.len() > MAX_PAYLOAD {
            return Err(FrameError::Field);
        }
        Ok(Self {
            class: Class::from_byte(first & 15).ok_or(FrameError::Field)?,
            kind: Kind::from_byte(kind).ok_or(FrameError::Field)?,
            dst,
            src,
            hops,
            session: u32::from_le_bytes([s0, s1, s2, s3]),
            seq: u16::from_le_bytes([q0, q1]),
            payload: payload.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Frame {
        Frame {
            class: Class::Console,
            kind: Kind::Data,
            dst: Addr(0xf0),
            src: Addr(3),
            hops: 2,
            session: 0x0102_0304,
            seq: 0x0506,
            payload: b"ok\0".to_vec(),
        }
    }

    /// Bytes that version 1 has been since it was first written. If this fails, do not change the test.
    #[test]
    fn golden_bytes_of_version_1() {
        let golden = [
            0, 6, 0x12, 0x04, 0xf0, 0x03, 0x02,
            0x04, // version and class, kind, to, from, hops
        ];
        let wire = sample().encode();
        // COBS counts to the next zero, which is in the payload: all of the header is before it.
        assert_eq!(wire[..2], [0, 14]);
        assert_eq!(wire[2..7], golden[2..7]);
        assert_eq!(wire[7..11], [4, 3, 2, 1]);
        assert_eq!(wire[11..13], [6, 5]);
        assert_eq!(wire[13..15], *b"ok");
        assert_eq!(wire[15], 5, "and then to the end");
        assert_eq!(wire[16..20], 0xa9fa_4062_u32.to_le_bytes());
        assert_eq!((wire.len(), wire[20]), (21, 0));
    }

    #[test]
    fn the_longest_fits() {
        for fill in [0, 255] {
            let frame = Frame { payload: vec![fill; MAX_PAYLOAD], ..sample() };
            let wire = frame.encode();
            assert!(wire.len() <= MAX_ENCODED);
            assert_eq!(Frame::decode(&wire[1..wire.len() - 1]), Ok(frame));
        }
    }

    #[test]
    fn fields_that_make_no_sense_are_refused() {
        let refused = |change: fn(&mut Frame)| {
            let mut frame = sample();
            change(&mut frame);
            let wire = frame.encode();
            Frame::decode(&wire[1..wire.len() - 1]).unwrap_err()
        };
        assert_eq!(refused(|frame| frame.dst = Addr(0)), FrameError::Field);
        assert_eq!(refused(|frame| frame.src = Addr::ALL), FrameError::Field);
        assert_eq!(refused(|frame| frame.src = Addr(250)), FrameError::Field);
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(payload in proptest::collection::vec(any::<u8>(), 0..600), session: u32, seq: u16) {
            let frame = Frame { payload, session, seq, ..sample() };
            let wire = frame.encode();
            prop_assert!(!wire[1..wire.len() - 1].contains(&0));
            prop_assert_eq!(Frame::decode(&wire[1..wire.len() - 1]), Ok(frame));
        }

        #[test]
        fn up_to_five_flipped_bits_are_seen(flips in proptest::collection::btree_set(0usize..8 * 60, 1..=5)) {
            let frame = Frame { payload: (1..=40).collect(), ..sample() };
            let mut wire = frame.encode();
            for flip in flips {
                let at = 1 + flip / 8 % (wire.len() - 2);
                wire[at] ^= 1 << (flip % 8);
            }
            let decoded = Frame::decode(&wire[1..wire.len() - 1]);
            prop_assert!(decoded.is_err() || decoded == Ok(frame), "{:?}", decoded);
        }
    }
}
