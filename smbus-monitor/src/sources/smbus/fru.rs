// SPDX-License-Identifier: MIT OR Apache-2.0
//! The inventory in an EEPROM of 24C02's kind, read byte by byte: no adapter lacks that, and the address pointer of a
//! larger part, which takes two bytes, is not touched.

use super::{BusError, Open};

/// Bytes of such a part.
const SIZE: u16 = 256;

/// Reads all of it.
///
/// # Errors
/// [`BusError`]; that a driver (`at24`) has it is one, and the file `eeprom` of the device is to be read then.
pub fn read_fru(bus: u32, address: u16) -> Result<Vec<u8>, BusError> {
    let mut open = Open::new(bus, address, false)?;
    (0..SIZE).map(|at| open.byte(at as u8)).collect()
}
