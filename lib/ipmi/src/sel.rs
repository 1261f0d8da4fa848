// SPDX-License-Identifier: MIT OR Apache-2.0
//! Entries of the system event log: IPMI 2.0 chapter 32.

use thiserror::Error;

/// Bytes of an entry.
pub const LEN: usize = 16;

/// Record type of a system event.
pub const SYSTEM_EVENT: u8 = 0x02;
/// First record type of the vendor with a time stamp; 0xe0 and above have none.
pub const OEM_TIMESTAMPED: u8 = 0xc0;
/// First record type of the vendor without a time stamp.
pub const OEM_PLAIN: u8 = 0xe0;

/// An entry that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SelError {
    /// Not 16 bytes.
    #[error("event log entry has {0} bytes, {LEN} are needed")]
    Length(usize),
    /// A record type that the specification reserves.
    #[error("event log entry {id} has the reserved type 0x{kind:02x}")]
    Type {
        /// Number of the entry.
        id: u16,
        /// Its type.
        kind: u8,
    },
}

/// What an event says, without time and number: also the body of a Platform Event message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Who saw it: byte 0 is an 8-bit slave address (bit 0 clear) or a software id (bit 0 set),
    /// byte 1 the channel in bits 7:4 and the LUN in 1:0.
    pub generator: [u8; 2],
    /// Version of this format, 0x04.
    pub revision: u8,
    /// IPMI 2.0 table 42-3.
    pub sensor_type: u8,
    /// Number of the sensor at its owner.
    pub sensor: u8,
    /// Whether the event went away rather than appeared.
    pub deassertion: bool,
    /// Event/reading type code, 7 bits: 0x01 threshold, 0x6f specific to the sensor type.
    pub event_type: u8,
    /// Offset and use of the other two in byte 0: IPMI 2.0 table 29-6.
    pub data: [u8; 3],
}

impl Event {
    /// Bytes 7 to 15 of an entry.
    fn encode(&self) -> [u8; 9] {
        let direction = u8::from(self.deassertion) << 7 | self.event_type & 0x7f;
        let [gen0, gen1] = self.generator;
        let [data1, data2, data3] = self.data;
        [gen0, gen1, self.revision, self.sensor_type, self.sensor, direction, data1, data2, data3]
    }

    fn decode(bytes: &[u8; 9]) -> Self {
        let [gen0, gen1, revision, sensor_type, sensor, direction, data1, data2, data3] = *bytes;
        Self {
            generator: [gen0, gen1],
            revision,
            sensor_type,
            sensor,
            deassertion: direction & 0x80 != 0,
            event_type: direction & 0x7f,
            data: [data1, data2, data3],
        }
    }
}

/// The three kinds of entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Type 0x02.
    System {
        /// Seconds since 1970, or since the controller started when below 0x2000_0000.
        timestamp: u32,
        /// The event.
        event: Event,
    },
    /// Types 0xc0 to 0xdf.
    OemTimestamped {
        /// The type.
        kind: u8,
        /// Seconds, as above.
        timestamp: u32,
        /// Manufacturer's number (three bytes) and six bytes of theirs.
        data: [u8; 9],
    },
    /// Types 0xe0 to 0xff.
    Oem {
        /// The type.
        kind: u8,
        /// All theirs.
        data: [u8; 13],
    },
}

/// An entry of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Number of the record; 0x0000 and 0xffff are never used.
    pub id: u16,
    /// The rest.
    pub body: Body,
}

impl Entry {
    /// The 16 bytes, little endian.
    pub fn encode(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0..2].copy_from_slice(&self.id.to_le_bytes());
        match &self.body {
            Body::System { timestamp, event } => {
                bytes[2] = SYSTEM_EVENT;
                bytes[3..7].copy_from_slice(&timestamp.to_le_bytes());
                bytes[7..].copy_from_slice(&event.encode());
            }
            Body::OemTimestamped { kind, timestamp, data } => {
                bytes[2] = *kind;
                bytes[3..7].copy_from_slice(&timestamp.to_le_bytes());
                bytes[7..].copy_from_slice(data);
            }
            Body::Oem { kind, data } => {
                bytes[2] = *kind;
                bytes[3..].copy_from_slice(data);
            }
        }
        bytes
    }

    /// Reads 16 bytes.
    ///
    /// # Errors
    /// Another length, or a reserved type.
    pub fn decode(bytes: &[u8]) -> Result<Self, SelError> {
        let &[id0, id1, kind, ts0, ts1, ts2, ts3, ref rest @ ..] = bytes else {
            return Err(SelError::Length(bytes.len()));
        };
        let Ok(rest) = <[u8; 9]>::try_from(rest) else {
            return Err(SelError::Length(bytes.len()));
        };
        let id = u16::from_le_bytes([id0, id1]);
        let timestamp = u32::from_le_bytes([ts0, ts1, ts2, ts3]);
        let body = match kind {
            SYSTEM_EVENT => Body::System { timestamp, event: Event::decode(&rest) },
            OEM_TIMESTAMPED..OEM_PLAIN => Body::OemTimestamped { kind, timestamp, data: rest },
            OEM_PLAIN.. => {
                let mut data = [0; 13];
                data[..4].copy_from_slice(&[ts0, ts1, ts2, ts3]);
                data[4..].copy_from_slice(&rest);
                Body::Oem { kind, data }
            }
            _ => return Err(SelError::Type { id, kind }),
        };
        Ok(Self { id, body })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_watchdog_event() {
        let entry = Entry {
            id: 0x0102,
            body: Body::System {
                timestamp: 0x6543_2100,
                event: Event {
                    generator: [0x20, 0x00],
                    revision: 0x04,
                    sensor_type: 0x23,
                    sensor: 0x01,
                    deassertion: false,
                    event_type: 0x6f,
                    data: [0xc1, 0x04, 0xff],
                },
            },
        };
        let bytes = [
            0x02, 0x01, // record number
            0x02, // system event
            0x00, 0x21, 0x43, 0x65, // time
            0x20, 0x00, // the BMC
            0x04, // format of IPMI 1.5 and later
            0x23, // watchdog 2
            0x01, // sensor 1
            0x6f, // asserted, specific to the sensor type
            0xc1, 0x04, 0xff, // hard reset; no interrupt, timer of system software
        ];
        assert_eq!(entry.encode(), bytes);
        assert_eq!(Entry::decode(&bytes), Ok(entry));
    }

    #[test]
    fn bad_entries_are_refused() {
        assert_eq!(Entry::decode(&[0; 15]), Err(SelError::Length(15)));
        assert_eq!(Entry::decode(&[0; 17]), Err(SelError::Length(17)));
        assert_eq!(Entry::decode(&[]), Err(SelError::Length(0)));
        assert_eq!(Entry::decode(&[5; 16]), Err(SelError::Type { id: 0x0505, kind: 5 }));
    }

    proptest! {
        #[test]
        fn round_trip(bytes: [u8; LEN]) {
            if let Ok(entry) = Entry::decode(&bytes) {
                prop_assert_eq!(entry.encode(), bytes);
            }
        }
    }
}
