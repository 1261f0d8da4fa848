// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands of the SDR repository and of the device SDRs: IPMI 2.0 chapters 33 and 35.

use std::time::Duration;

use ipmi::sdr::{Body, FruLocator, MAX_LEN, McLocator};

use super::bank::Bank;
use super::messaging::{BMC_ADDRESS, SATELLITE_ADDRESS};
use super::records::{CAPACITY, Repository};
use super::{Answer, Bmc, channels, device};

/// Allocation unit, bytes.
const UNIT: usize = 16;

/// The BMC's repository: controllers, inventory, all sensors.
pub fn main_repository(bank: &Bank, satellite: &Bank, time: u32) -> Repository {
    let mut bodies = locators();
    bodies.extend(bank.records());
    bodies.extend(satellite.records());
    Repository::new(bodies, time)
}

/// The BMC's device SDRs: its own sensors.
pub fn device_repository(bank: &Bank, time: u32) -> Repository {
    Repository::new(bank.records(), time)
}

fn locators() -> Vec<Body> {
    vec![
        Body::McLocator(McLocator {
            address: BMC_ADDRESS,
            channel: channels::IPMB,
            notification: 0,
            capabilities: device::CAPABILITIES,
            entity: 0x06,
            instance: 1,
            name: "bmc-sim".into(),
        }),
        Body::McLocator(McLocator {
            address: SATELLITE_ADDRESS,
            channel: channels::IPMB,
            notification: 0,
            // Sensors alone.
            capabilities: 0x01,
            entity: 0x06,
            instance: 2,
            name: "Satellite".into(),
        }),
        Body::FruLocator(FruLocator {
            owner: BMC_ADDRESS,
            device: 0,
            access: 0x80,
            channel: channels::IPMB,
            device_type: 0x10,
            modifier: 0,
            entity: 0x07,
            instance: 1,
            name: "Blade FRU".into(),
        }),
    ]
}

/// Version, records, free bytes, times, and what is supported: non-modal update, delete, partial
/// add, reserve, allocation info.
pub fn info(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    let repository = &bmc.repository;
    let (added, erased) = repository.times();
    let mut data = vec![0x51];
    // A repository of CAPACITY bytes has fewer records and free bytes than 65536.
    data.extend((repository.len() as u16).to_le_bytes());
    data.extend((repository.free() as u16).to_le_bytes());
    data.extend(added.to_le_bytes());
    data.extend(erased.to_le_bytes());
    data.push(0x2f);
    Ok(data)
}

pub fn allocation_info(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    let free = (bmc.repository.free() / UNIT) as u16;
    let mut data = ((CAPACITY / UNIT) as u16).to_le_bytes().to_vec();
    data.extend((UNIT as u16).to_le_bytes());
    data.extend(free.to_le_bytes());
    data.extend(free.to_le_bytes());
    data.push((MAX_LEN / UNIT) as u8);
    Ok(data)
}

pub fn reserve(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    let id = bmc.repository.reserve();
    bmc.note(format!("SDR reservation 0x{id:04x}"));
    Ok(id.to_le_bytes().to_vec())
}

pub fn get(bmc: &mut Bmc, now: Duration, data: &[u8]) -> Answer {
    let time = bmc.time(now);
    bmc.repository.get(data, time)
}

pub fn add(bmc: &mut Bmc, now: Duration, data: &[u8]) -> Answer {
    let time = bmc.time(now);
    let id = bmc.repository.add(data, time)?;
    bmc.note(format!("SDR {id} added"));
    Ok(id.to_le_bytes().to_vec())
}

pub fn partial_add(bmc: &mut Bmc, now: Duration, data: &[u8]) -> Answer {
    let time = bmc.time(now);
    let id = bmc.repository.partial_add(data, time)?;
    bmc.note(format!("SDR {id} added in part"));
    Ok(id.to_le_bytes().to_vec())
}

pub fn delete(bmc: &mut Bmc, now: Duration, data: &[u8]) -> Answer {
    let time = bmc.time(now);
    let id = bmc.repository.delete(data, time)?;
    bmc.note(format!("SDR {id} deleted"));
    Ok(id.to_le_bytes().to_vec())
}

/// Erasing takes no time here: its status is always "completed".
pub fn clear(bmc: &mut Bmc, now: Duration, data: &[u8]) -> Answer {
    let time = bmc.time(now);
    if bmc.repository.clear(data, time)? {
        bmc.note("SDR repository cleared");
    }
    Ok(vec![0x01])
}

/// The initialisation agent is always done.
pub fn run_initialization(_: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    Ok(vec![0x01])
}

/// Number of sensors (operation 0) or of records (1), then "static, sensors on LUN 0".
pub fn device_info(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    let records = data.first().is_some_and(|byte| byte & 1 != 0);
    let count = if records { bmc.device_sdrs.len() } else { bmc.bank.len() };
    Ok(vec![u8::try_from(count).unwrap_or(u8::MAX), 0x01])
}

pub fn device_get(bmc: &mut Bmc, now: Duration, data: &[u8]) -> Answer {
    let time = bmc.time(now);
    bmc.device_sdrs.get(data, time)
}

pub fn device_reserve(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    let id = bmc.device_sdrs.reserve();
    bmc.note(format!("device SDR reservation 0x{id:04x}"));
    Ok(id.to_le_bytes().to_vec())
}

impl Bmc {
    /// The repository changes by itself, now (0) or after so many more Get SDR commands.
    pub fn change_sdr(&mut self, now: Duration, gets: u32) {
        let time = self.time(now);
        self.repository.change_after(gets, time);
        self.note(format!("SDR repository changes after {gets} more Get SDR"));
    }
}
