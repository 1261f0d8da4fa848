// SPDX-License-Identifier: MIT OR Apache-2.0
//! Inventory of FRU device 0: IPMI 2.0 chapter 34.

use std::time::Duration;

use ipmi::CompletionCode;
use ipmi::fru::{Board, Chassis, Inventory, Product};

use super::{Answer, Bmc};

/// Bytes of the device: a common EEPROM.
pub const SIZE: usize = 2048;

/// The device.
#[derive(Debug)]
pub struct Fru {
    bytes: Vec<u8>,
}

impl Fru {
    /// A device with chassis, board and product areas.
    pub fn new() -> Self {
        let inventory = Inventory {
            chassis: Some(Chassis {
                kind: 0x1c,
                part: "MP-CHASSIS-14".into(),
                serial: "CH0000001".into(),
                custom: vec![],
            }),
            board: Some(Board {
                made: 0x00e0_0000,
                manufacturer: "Midplane".into(),
                product: "Simulated blade".into(),
                serial: "BL0000001".into(),
                part: "MP-BLADE-1".into(),
                file: "bmc-sim".into(),
                custom: vec!["slot 1".into()],
            }),
            product: Some(Product {
                manufacturer: "Midplane".into(),
                product: "Midplane bmc-sim".into(),
                part: "MP-SIM".into(),
                version: "1.0".into(),
                serial: "PR0000001".into(),
                asset: "asset 1".into(),
                file: "bmc-sim".into(),
                custom: vec![],
            }),
        };
        let mut bytes = inventory.encode().expect("the texts above are short and Latin 1");
        bytes.resize(SIZE, 0);
        Self { bytes }
    }
}

impl Default for Fru {
    fn default() -> Self {
        Self::new()
    }
}

fn check_device(device: u8) -> Result<(), CompletionCode> {
    if device == 0 { Ok(()) } else { Err(CompletionCode::NOT_PRESENT) }
}

/// Accessed by bytes.
pub fn info(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    check_device(data[0])?;
    // SIZE fits in two bytes.
    let [low, high] = (bmc.fru.bytes.len() as u16).to_le_bytes();
    Ok(vec![low, high, 0])
}

/// Fewer bytes are returned at the end of the device.
pub fn read(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    check_device(data[0])?;
    let offset = usize::from(u16::from_le_bytes([data[1], data[2]]));
    let rest = bmc.fru.bytes.get(offset..).unwrap_or_default();
    if rest.is_empty() {
        return Err(CompletionCode::OUT_OF_RANGE);
    }
    let bytes = &rest[..rest.len().min(usize::from(data[3]))];
    let mut answer = vec![bytes.len() as u8];
    answer.extend_from_slice(bytes);
    Ok(answer)
}

pub fn write(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    check_device(data[0])?;
    let offset = usize::from(u16::from_le_bytes([data[1], data[2]]));
    let bytes = &data[3..];
    let count = u8::try_from(bytes.len()).map_err(|_| CompletionCode::DATA_TOO_LONG)?;
    let Some(place) = bmc.fru.bytes.get_mut(offset..offset + bytes.len()) else {
        return Err(CompletionCode::OUT_OF_RANGE);
    };
    place.copy_from_slice(bytes);
    bmc.note(format!("FRU 0: {count} bytes at {offset}"));
    Ok(vec![count])
}
