// SPDX-License-Identifier: MIT OR Apache-2.0
//! Inventory of a field replaceable unit.
//!
//! *Platform Management FRU Information Storage Definition* v1.0: a common header (chapter 8) and
//! the chassis, board and product areas (chapters 10 to 12). The internal-use area and multi-records
//! are left alone.

use thiserror::Error;

use crate::message::checksum;
use crate::text::{self, TextError};

/// Bytes of the common header, and the unit of all offsets and lengths.
const UNIT: usize = 8;
/// Format version in the header and in each area.
const VERSION: u8 = 0x01;
/// Type/length byte after the last field of an area.
const END_OF_FIELDS: u8 = 0xc1;
/// The longest field: six bits of length.
pub const MAX_FIELD: usize = 63;
/// The largest area: one byte of length, in units of eight bytes.
const MAX_AREA: usize = 255 * UNIT;
/// English.
const LANGUAGE: u8 = 25;

/// An inventory that cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FruError {
    /// The bytes end inside the named part.
    #[error("inventory ends inside its {0}")]
    Truncated(&'static str),
    /// Another format version.
    #[error("{part} of the inventory has format version {version}, only 1 is known")]
    Version {
        /// Which part.
        part: &'static str,
        /// Version found.
        version: u8,
    },
    /// A wrong checksum.
    #[error("{0} of the inventory has a wrong checksum")]
    Checksum(&'static str),
    /// A field that cannot be written.
    #[error("field {field:?} of the inventory: {source}")]
    Field {
        /// The text.
        field: String,
        /// Why not.
        source: TextError,
    },
    /// More text than an area holds.
    #[error("{0} of the inventory does not fit in {MAX_AREA} bytes")]
    TooLarge(&'static str),
}

/// The chassis area.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chassis {
    /// SMBIOS chassis type; 0x17 is a rack mount chassis, 0x1c a blade.
    pub kind: u8,
    /// Part number.
    pub part: String,
    /// Serial number.
    pub serial: String,
    /// Further fields of the maker.
    pub custom: Vec<String>,
}

/// The board area.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Board {
    /// Minutes since 1996-01-01 00:00, 24 bits; 0 is unknown.
    pub made: u32,
    /// Maker.
    pub manufacturer: String,
    /// Name.
    pub product: String,
    /// Serial number.
    pub serial: String,
    /// Part number.
    pub part: String,
    /// Which file the inventory was written from.
    pub file: String,
    /// Further fields of the maker.
    pub custom: Vec<String>,
}

/// The product area.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Product {
    /// Maker.
    pub manufacturer: String,
    /// Name.
    pub product: String,
    /// Part or model number.
    pub part: String,
    /// Version.
    pub version: String,
    /// Serial number.
    pub serial: String,
    /// The owner's number for it.
    pub asset: String,
    /// Which file the inventory was written from.
    pub file: String,
    /// Further fields of the maker.
    pub custom: Vec<String>,
}

/// An inventory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// Chassis area, if there is one.
    pub chassis: Option<Chassis>,
    /// Board area, if there is one.
    pub board: Option<Board>,
    /// Product area, if there is one.
    pub product: Option<Product>,
}

impl Inventory {
    /// The bytes to store: header and areas, a multiple of eight.
    ///
    /// # Errors
    /// A field is too long or not Latin 1, or an area too large.
    pub fn encode(&self) -> Result<Vec<u8>, FruError> {
        let areas = [
            self.chassis.as_ref().map(|c| {
                encode_area("chassis area", &[c.kind], [&c.part, &c.serial].into_iter(), &c.custom)
            }),
            self.board.as_ref().map(|b| {
                let [d0, d1, d2, _] = b.made.to_le_bytes();
                let fields = [&b.manufacturer, &b.product, &b.serial, &b.part, &b.file];
                encode_area("board area", &[LANGUAGE, d0, d1, d2], fields.into_iter(), &b.custom)
            }),
            self.product.as_ref().map(|p| {
                let fields = [
                    &p.manufacturer,
                    &p.product,
                    &p.part,
                    &p.version,
                    &p.serial,
                    &p.asset,
                    &p.file,
                ];
                encode_area("product area", &[LANGUAGE], fields.into_iter(), &p.custom)
            }),
        ];
        let mut bytes = vec![0; UNIT];
        bytes[0] = VERSION;
        for (area, offset_at) in areas.into_iter().zip([2, 3, 4]) {
            if let Some(area) = area {
                bytes[offset_at] =
                    u8::try_from(bytes.len() / UNIT).map_err(|_| FruError::TooLarge("header"))?;
                bytes.extend(area?);
            }
        }
        bytes[UNIT - 1] = checksum(&bytes[..UNIT - 1]);
        Ok(bytes)
    }

    /// Reads what is stored; bytes after the areas are ignored.
    ///
    /// # Errors
    /// Truncated, another version, or a wrong checksum.
    pub fn decode(bytes: &[u8]) -> Result<Self, FruError> {
        let header = bytes.get(..UNIT).ok_or(FruError::Truncated("header"))?;
        check_version("header", header[0])?;
        if checksum(header) != 0 {
            return Err(FruError::Checksum("header"));
        }
        let area = |offset: u8, part, fixed| match offset {
            0 => Ok(None),
            offset => Area::find(bytes, usize::from(offset) * UNIT, part, fixed).map(Some),
        };
        let chassis = match area(header[2], "chassis area", 1)? {
            None => None,
            Some(mut area) => Some(Chassis {
                kind: area.fixed[0],
                part: area.field()?,
                serial: area.field()?,
                custom: area.custom()?,
            }),
        };
        let board = match area(header[3], "board area", 4)? {
            None => None,
            Some(mut area) => Some(Board {
                made: u32::from_le_bytes([area.fixed[1], area.fixed[2], area.fixed[3], 0]),
                manufacturer: area.field()?,
                product: area.field()?,
                serial: area.field()?,
                part: area.field()?,
                file: area.field()?,
                custom: area.custom()?,
            }),
        };
        let product = match area(header[4], "product area", 1)? {
            None => None,
            Some(mut area) => Some(Product {
                manufacturer: area.field()?,
                product: area.field()?,
                part: area.field()?,
                version: area.field()?,
                serial: area.field()?,
                asset: area.field()?,
                file: area.field()?,
                custom: area.custom()?,
            }),
        };
        Ok(Self { chassis, board, product })
    }
}

fn check_version(part: &'static str, byte: u8) -> Result<(), FruError> {
    match byte & 0x0f {
        VERSION => Ok(()),
        version => Err(FruError::Version { part, version }),
    }
}

fn encode_area<'a>(
    part: &'static str,
    fixed: &[u8],
    fields: impl Iterator<Item = &'a String>,
    custom: &'a [String],
) -> Result<Vec<u8>, FruError> {
    let mut bytes = vec![VERSION, 0];
    bytes.extend_from_slice(fixed);
    for field in fields.chain(custom) {
        let encoded = text::encode(field, MAX_FIELD)
            .map_err(|source| FruError::Field { field: field.clone(), source })?;
        bytes.extend(encoded);
    }
    bytes.push(END_OF_FIELDS);
    let len = (bytes.len() + 1).next_multiple_of(UNIT);
    bytes.resize(len - 1, 0);
    bytes[1] = u8::try_from(len / UNIT).map_err(|_| FruError::TooLarge(part))?;
    bytes.push(checksum(&bytes));
    Ok(bytes)
}

/// An area with a right checksum, while its fields are read.
struct Area<'a> {
    part: &'static str,
    fixed: &'a [u8],
    fields: &'a [u8],
}

impl<'a> Area<'a> {
    fn find(
        bytes: &'a [u8],
        at: usize,
        part: &'static str,
        fixed: usize,
    ) -> Result<Self, FruError> {
        let truncated = FruError::Truncated(part);
        let Some([version, units, ..]) = bytes.get(at..) else {
            return Err(truncated);
        };
        check_version(part, *version)?;
        let end = at + usize::from(*units) * UNIT;
        let area = bytes.get(at..end).ok_or(truncated.clone())?;
        if checksum(area) != 0 {
            return Err(FruError::Checksum(part));
        }
        let (Some(fixed), Some(fields)) =
            (area.get(2..2 + fixed), area.get(2 + fixed..area.len().saturating_sub(1)))
        else {
            return Err(truncated);
        };
        Ok(Self { part, fixed, fields })
    }

    /// The next field; empty when the area has ended before it.
    fn field(&mut self) -> Result<String, FruError> {
        Ok(self.next()?.unwrap_or_default())
    }

    fn custom(&mut self) -> Result<Vec<String>, FruError> {
        let mut fields = Vec::new();
        while let Some(field) = self.next()? {
            fields.push(field);
        }
        Ok(fields)
    }

    fn next(&mut self) -> Result<Option<String>, FruError> {
        let (type_length, rest) =
            self.fields.split_first().ok_or(FruError::Truncated(self.part))?;
        if *type_length == END_OF_FIELDS {
            return Ok(None);
        }
        let (field, rest) = rest
            .split_at_checked(usize::from(type_length & 0x3f))
            .ok_or(FruError::Truncated(self.part))?;
        self.fields = rest;
        Ok(Some(text::decode(*type_length, field)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Inventory {
        Inventory {
            chassis: Some(Chassis {
                kind: 0x1c,
                part: "CH-1".into(),
                serial: "S1".into(),
                custom: vec![],
            }),
            board: Some(Board {
                made: 0x0012_3456,
                manufacturer: "Maker".into(),
                product: "Board".into(),
                serial: "S2".into(),
                part: "B-1".into(),
                file: String::new(),
                custom: vec!["more".into(), "and more".into()],
            }),
            product: Some(Product { product: "Thing".into(), ..Product::default() }),
        }
    }

    #[test]
    fn golden_chassis_area() {
        let inventory = Inventory { board: None, product: None, ..sample() };
        let bytes = [
            0x01, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0xfe, // header: chassis at 8
            0x01, 0x02, 0x1c, // version 1, 16 bytes, blade
            0xc4, b'C', b'H', b'-', b'1', // part number
            0xc2, b'S', b'1', // serial number
            0xc1, // end of fields
            0x00, 0x00, 0x00, // padding
            0x2d, // checksum
        ];
        assert_eq!(inventory.encode().unwrap(), bytes);
        assert_eq!(Inventory::decode(&bytes), Ok(inventory));
    }

    #[test]
    fn round_trip() {
        let mut bytes = sample().encode().unwrap();
        assert_eq!(bytes.len() % 8, 0);
        bytes.resize(2048, 0xff);
        assert_eq!(Inventory::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn damage_is_found() {
        let good = sample().encode().unwrap();
        let header = FruError::Truncated("header");
        assert_eq!(Inventory::decode(&good[..7]), Err(header));
        let mut bad = good.clone();
        bad[1] ^= 1;
        assert_eq!(Inventory::decode(&bad), Err(FruError::Checksum("header")));
        let mut bad = good.clone();
        bad[12] ^= 1;
        assert_eq!(Inventory::decode(&bad), Err(FruError::Checksum("chassis area")));
        let cut = &good[..good.len() - 1];
        assert_eq!(Inventory::decode(cut), Err(FruError::Truncated("product area")));
    }

    #[test]
    fn long_fields_and_areas_are_refused() {
        let product = |product: String, custom| Inventory {
            product: Some(Product { product, custom, ..Product::default() }),
            ..Inventory::default()
        };
        let long = product("x".repeat(64), vec![]);
        assert!(matches!(long.encode(), Err(FruError::Field { .. })));
        let large = product(String::new(), vec!["x".repeat(63); 40]);
        assert_eq!(large.encode(), Err(FruError::TooLarge("product area")));
    }

    proptest! {
        /// Damaged inventories with right checksums reach the field reader.
        #[test]
        fn any_area_is_survived(body in proptest::collection::vec(any::<u8>(), 5..500), at in 0usize..3) {
            let mut bytes = vec![VERSION, 0, 0, 0, 0, 0, 0];
            bytes[2 + at] = 1;
            bytes.push(checksum(&bytes));
            bytes.extend([VERSION, (body.len() / UNIT) as u8]);
            bytes.extend(body);
            let end = (UNIT + usize::from(bytes[9]) * UNIT).min(bytes.len());
            if end > UNIT + 2 {
                bytes[end - 1] = 0;
                bytes[end - 1] = checksum(&bytes[UNIT..end]);
            }
            let _ = Inventory::decode(&bytes);
        }
    }
}
