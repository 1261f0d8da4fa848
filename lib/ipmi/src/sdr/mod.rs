// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sensor data records: IPMI 2.0 chapter 43.
//!
//! Full (01h) and compact (02h) sensor records, FRU device locators (11h) and management controller
//! locators (12h) are taken apart; other types are carried as bytes. All numbers are little endian.

mod factors;
mod sensor;

pub use factors::{Analog, Factors, Linearization};
pub use sensor::{CompactSensor, FullSensor, Sensor, SensorKey, Thresholds};

use thiserror::Error;

use crate::text::{self, TextError};

/// Bytes before the body: number, version, type, length of the rest.
pub const HEADER_LEN: usize = 5;
/// The longest record: one byte of length.
pub const MAX_LEN: usize = HEADER_LEN + 255;
/// Characters of a name (section 43.1, "ID string").
pub const MAX_NAME: usize = 16;
/// Version of the format: 1.5, as in IPMI 2.0.
pub const VERSION: u8 = 0x51;

/// Record type of a full sensor record.
pub const FULL_SENSOR: u8 = 0x01;
/// Record type of a compact sensor record.
pub const COMPACT_SENSOR: u8 = 0x02;
/// Record type of a FRU device locator.
pub const FRU_LOCATOR: u8 = 0x11;
/// Record type of a management controller locator.
pub const MC_LOCATOR: u8 = 0x12;

/// A record that cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SdrError {
    /// Fewer bytes than the type needs.
    #[error("sensor record of type 0x{kind:02x} has {len} bytes, at least {min} are needed")]
    TooShort {
        /// Record type, 0 when not even that was there.
        kind: u8,
        /// Bytes that came.
        len: usize,
        /// Bytes needed.
        min: usize,
    },
    /// The length byte and the number of bytes differ.
    #[error("sensor record says that it has {said} bytes after its header but has {found}")]
    Length {
        /// What the length byte says.
        said: usize,
        /// Bytes after the header.
        found: usize,
    },
    /// The name cannot be written.
    #[error("name {name:?} of a sensor record: {source}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        source: TextError,
    },
    /// A body longer than one byte can say.
    #[error("sensor record body of {0} bytes is too long, at most 255 fit")]
    TooLong(usize),
}

/// A record with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Number in the repository; 0x0000 and 0xffff have other meanings.
    pub id: u16,
    /// What it describes.
    pub body: Body,
}

/// The kinds of record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A sensor with thresholds or conversion factors.
    Full(FullSensor),
    /// A sensor without, or several alike.
    Compact(CompactSensor),
    /// An inventory device.
    FruLocator(FruLocator),
    /// A management controller.
    McLocator(McLocator),
    /// Any other type.
    Other {
        /// Record type.
        kind: u8,
        /// All after the header.
        bytes: Vec<u8>,
    },
}

/// Where an inventory is: section 43.8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FruLocator {
    /// 8-bit slave address of the controller that serves it.
    pub owner: u8,
    /// Its number there (logical device), or its slave address (device on a bus).
    pub device: u8,
    /// Bit 7: logical device; bits 4:3 LUN; bits 2:0 bus.
    pub access: u8,
    /// Channel of the owner, 0 to 15.
    pub channel: u8,
    /// IPMI 2.0 table 43-12; 0x10 is a logical FRU device.
    pub device_type: u8,
    /// Modifier of the type.
    pub modifier: u8,
    /// Entity it describes.
    pub entity: u8,
    /// Which of them.
    pub instance: u8,
    /// Name, at most [`MAX_NAME`] characters.
    pub name: String,
}

/// A management controller: section 43.9.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McLocator {
    /// 8-bit slave address.
    pub address: u8,
    /// Channel it is on, 0 to 15.
    pub channel: u8,
    /// Power state notification in bits 7:5, initialisation in 3:0.
    pub notification: u8,
    /// What it can do, as in Get Device ID.
    pub capabilities: u8,
    /// Entity it belongs to.
    pub entity: u8,
    /// Which of them.
    pub instance: u8,
    /// Name, at most [`MAX_NAME`] characters.
    pub name: String,
}

impl Record {
    /// The bytes of the record.
    ///
    /// # Errors
    /// A name that does not fit, or a foreign body of more than 255 bytes.
    pub fn encode(&self) -> Result<Vec<u8>, SdrError> {
        let (kind, body) = match &self.body {
            Body::Full(sensor) => (FULL_SENSOR, sensor.encode()?),
            Body::Compact(sensor) => (COMPACT_SENSOR, sensor.encode()?),
            Body::FruLocator(locator) => (FRU_LOCATOR, locator.encode()?),
            Body::McLocator(locator) => (MC_LOCATOR, locator.encode()?),
            Body::Other { kind, bytes } => (*kind, bytes.clone()),
        };
        let len = u8::try_from(body.len()).map_err(|_| SdrError::TooLong(body.len()))?;
        let [id0, id1] = self.id.to_le_bytes();
        let mut bytes = vec![id0, id1, VERSION, kind, len];
        bytes.extend(body);
        Ok(bytes)
    }

    /// Reads one whole record.
    ///
    /// # Errors
    /// Too short for its type, or its length byte does not fit.
    pub fn decode(bytes: &[u8]) -> Result<Self, SdrError> {
        let [id0, id1, _version, kind, said, body @ ..] = bytes else {
            return Err(SdrError::TooShort { kind: 0, len: bytes.len(), min: HEADER_LEN });
        };
        if body.len() != usize::from(*said) {
            return Err(SdrError::Length { said: usize::from(*said), found: body.len() });
        }
        let reader = Reader { kind: *kind, body };
        let body = match *kind {
            FULL_SENSOR => Body::Full(FullSensor::decode(&reader)?),
            COMPACT_SENSOR => Body::Compact(CompactSensor::decode(&reader)?),
            FRU_LOCATOR => Body::FruLocator(FruLocator::decode(&reader)?),
            MC_LOCATOR => Body::McLocator(McLocator::decode(&reader)?),
            kind => Body::Other { kind, bytes: body.to_vec() },
        };
        Ok(Self { id: u16::from_le_bytes([*id0, *id1]), body })
    }
}

impl FruLocator {
    fn encode(&self) -> Result<Vec<u8>, SdrError> {
        let mut body = vec![self.owner, self.device, self.access, self.channel << 4, 0];
        body.extend([self.device_type, self.modifier, self.entity, self.instance, 0]);
        body.extend(name_bytes(&self.name)?);
        Ok(body)
    }

    fn decode(reader: &Reader<'_>) -> Result<Self, SdrError> {
        let [owner, device, access, channel, _, device_type, modifier, entity, instance, _] =
            reader.fixed::<10>()?;
        Ok(Self {
            owner,
            device,
            access,
            channel: channel >> 4,
            device_type,
            modifier,
            entity,
            instance,
            name: reader.name(10)?,
        })
    }
}

impl McLocator {
    fn encode(&self) -> Result<Vec<u8>, SdrError> {
        let mut body = vec![self.address, self.channel & 0x0f, self.notification];
        body.extend([self.capabilities, 0, 0, 0, self.entity, self.instance, 0]);
        body.extend(name_bytes(&self.name)?);
        Ok(body)
    }

    fn decode(reader: &Reader<'_>) -> Result<Self, SdrError> {
        let [address, channel, notification, capabilities, _, _, _, entity, instance, _] =
            reader.fixed::<10>()?;
        Ok(Self {
            address,
            channel: channel & 0x0f,
            notification,
            capabilities,
            entity,
            instance,
            name: reader.name(10)?,
        })
    }
}

fn name_bytes(name: &str) -> Result<Vec<u8>, SdrError> {
    text::encode(name, MAX_NAME).map_err(|source| SdrError::Name { name: name.to_owned(), source })
}

/// The body of a record while it is read.
struct Reader<'a> {
    kind: u8,
    body: &'a [u8],
}

impl Reader<'_> {
    fn too_short(&self, min: usize) -> SdrError {
        let len = HEADER_LEN + self.body.len();
        SdrError::TooShort { kind: self.kind, len, min: HEADER_LEN + min }
    }

    /// The first `N` bytes of the body.
    fn fixed<const N: usize>(&self) -> Result<[u8; N], SdrError> {
        self.body.first_chunk::<N>().copied().ok_or_else(|| self.too_short(N))
    }

    /// The name whose type/length byte is at `at`.
    fn name(&self, at: usize) -> Result<String, SdrError> {
        let type_length = *self.body.get(at).ok_or_else(|| self.too_short(at + 1))?;
        let end = at + 1 + usize::from(type_length & 0x1f);
        let name = self.body.get(at + 1..end).ok_or_else(|| self.too_short(end))?;
        Ok(text::decode(type_length, name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_mc_locator() {
        let record = Record {
            id: 0x0001,
            body: Body::McLocator(McLocator {
                address: 0x20,
                channel: 0,
                notification: 0,
                capabilities: 0xbf,
                entity: 0x06,
                instance: 0x01,
                name: "BMC".into(),
            }),
        };
        let bytes = [
            0x01, 0x00, // record 1
            0x51, // version
            0x12, // management controller locator
            0x0e, // 14 bytes follow
            0x20, // address
            0x00, // channel 0
            0x00, // no notification
            0xbf, // capabilities
            0x00, 0x00, 0x00, // reserved
            0x06, 0x01, // system management module 1
            0x00, // OEM
            0xc3, b'B', b'M', b'C',
        ];
        assert_eq!(record.encode().unwrap(), bytes);
        assert_eq!(Record::decode(&bytes), Ok(record));
    }

    #[test]
    fn golden_fru_locator() {
        let record = Record {
            id: 0x1234,
            body: Body::FruLocator(FruLocator {
                owner: 0x20,
                device: 0,
                access: 0x80,
                channel: 0,
                device_type: 0x10,
                modifier: 0,
                entity: 0x07,
                instance: 1,
                name: "FRU".into(),
            }),
        };
        let bytes = [
            0x34, 0x12, 0x51, 0x11, 0x0e, // header
            0x20, 0x00, 0x80, 0x00, 0x00, // logical FRU 0 at 0x20, channel 0
            0x10, 0x00, // logical FRU device
            0x07, 0x01, 0x00, // system board 1, OEM
            0xc3, b'F', b'R', b'U',
        ];
        assert_eq!(record.encode().unwrap(), bytes);
        assert_eq!(Record::decode(&bytes), Ok(record));
    }

    #[test]
    fn wrong_lengths_are_refused() {
        assert_eq!(
            Record::decode(&[1, 0, 0x51]),
            Err(SdrError::TooShort { kind: 0, len: 3, min: 5 })
        );
        assert_eq!(
            Record::decode(&[1, 0, 0x51, 0x12, 3, 0, 0]),
            Err(SdrError::Length { said: 3, found: 2 })
        );
        assert_eq!(
            Record::decode(&[1, 0, 0x51, 0x12, 2, 0, 0]),
            Err(SdrError::TooShort { kind: 0x12, len: 7, min: 15 })
        );
        let name = McLocator {
            address: 0,
            channel: 0,
            notification: 0,
            capabilities: 0,
            entity: 0,
            instance: 0,
            name: "seventeen letters".into(),
        };
        let record = Record { id: 1, body: Body::McLocator(name) };
        assert!(matches!(record.encode(), Err(SdrError::Name { .. })));
        let record = Record { id: 1, body: Body::Other { kind: 0xc0, bytes: vec![0; 256] } };
        assert_eq!(record.encode(), Err(SdrError::TooLong(256)));
    }

    proptest! {
        /// What can be read can be written, and is then read as the same.
        #[test]
        fn any_record_is_survived(
            id: u16,
            kind in prop_oneof![Just(1u8), Just(2), Just(0x11), Just(0x12), any::<u8>()],
            body in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let [id0, id1] = id.to_le_bytes();
            let mut bytes = vec![id0, id1, VERSION, kind, body.len() as u8];
            bytes.extend(body);
            if let Ok(record) = Record::decode(&bytes)
                && let Ok(written) = record.encode()
            {
                prop_assert_eq!(Record::decode(&written), Ok(record));
            }
        }
    }
}
