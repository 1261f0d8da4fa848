// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the controller says of itself: IPMI 2.0 chapter 20 and section 22.9.

use std::time::Duration;

use ipmi::CompletionCode;

use super::{Answer, Bmc, table};

/// A manufacturer's number (20 bits) far above all that are assigned.
pub const MANUFACTURER: [u8; 3] = [0xde, 0xb1, 0x0a];
/// Product number.
pub const PRODUCT: u16 = 0x0001;
/// Chassis, event generator and receiver, FRU, SEL, SDR repository, sensors; no bridge.
pub const CAPABILITIES: u8 = 0xbf;

/// Identity and power state.
#[derive(Debug)]
pub struct Device {
    device_guid: [u8; 16],
    system_guid: [u8; 16],
    acpi: [u8; 2],
}

impl Device {
    /// GUIDs follow from the seed.
    pub fn new(seed: u64) -> Self {
        Self { device_guid: guid(seed, 1), system_guid: guid(seed, 2), acpi: [0, 0] }
    }
}

/// A random GUID (version 4), least significant byte first as IPMI wants it (table 20-10).
fn guid(seed: u64, which: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix(seed, which).to_le_bytes());
    bytes[8..].copy_from_slice(&mix(seed, which + 100).to_le_bytes());
    bytes[9] = bytes[9] & 0x0f | 0x40;
    bytes[7] = bytes[7] & 0x3f | 0x80;
    bytes
}

/// A well spread number from two others (the finaliser of splitmix64).
pub(super) fn mix(seed: u64, value: u64) -> u64 {
    let mut z = seed.wrapping_add(value.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Device id 0x20, revision 1 with device SDRs, firmware 1.02, IPMI 2.0.
pub fn get_device_id(_: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    let [product0, product1] = PRODUCT.to_le_bytes();
    let mut data = vec![0x20, 0x81, 0x01, 0x02, 0x02, CAPABILITIES];
    data.extend(MANUFACTURER);
    data.extend([product0, product1, 0, 0, 0, 0]);
    Ok(data)
}

pub fn cold_reset(bmc: &mut Bmc, now: Duration, _: &[u8]) -> Answer {
    let silent = bmc.config.reset_time;
    bmc.reset(now, silent);
    Ok(vec![])
}

/// As the cold reset: the difference is left to the vendor.
pub fn warm_reset(bmc: &mut Bmc, now: Duration, data: &[u8]) -> Answer {
    cold_reset(bmc, now, data)
}

/// No error.
pub fn self_test(_: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    Ok(vec![0x55, 0x00])
}

pub fn set_acpi_state(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    for (state, byte) in bmc.device.acpi.iter_mut().zip(data) {
        // Bit 7 says that the rest is to be taken, 0x7f that it is not.
        if byte & 0x80 != 0 && byte & 0x7f != 0x7f {
            *state = byte & 0x7f;
        }
    }
    Ok(vec![])
}

pub fn get_acpi_state(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    Ok(bmc.device.acpi.to_vec())
}

pub fn get_device_guid(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    Ok(bmc.device.device_guid.to_vec())
}

pub fn get_system_guid(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    Ok(bmc.device.system_guid.to_vec())
}

/// LUN 0 alone has commands; one bit for each pair of network functions.
pub fn get_netfn_support(_: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    super::channels::resolve(data[0] & 0x0f)?;
    let pairs = table::ROWS.iter().fold(0u32, |bits, row| bits | 1 << (row.netfn / 2));
    let mut answer = vec![0x01];
    answer.extend(pairs.to_le_bytes());
    answer.resize(17, 0);
    Ok(answer)
}

/// One request at a time, 64 byte buffers, 5 s, two retries (section 22.9).
pub fn bt_capabilities(_: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    Ok(vec![1, 0x40, 0x40, 5, 2])
}

/// KCS version 1, as QEMU's `isa-ipmi-kcs` (section 22.9).
pub fn interface_capabilities(_: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    match data[0] & 0x0f {
        0x01 => Ok(vec![0, 0x00, 0xff]),
        _ => Err(CompletionCode::INVALID_DATA_FIELD),
    }
}
