// SPDX-License-Identifier: MIT OR Apache-2.0
//! LAN, SOL, PEF and system information: IPMI 2.0 chapters 23, 26, 30 and sections 22.14a, 22.14b.

use std::time::Duration;

use ipmi::CompletionCode;

use super::params::{Params, Spec};
use super::{Answer, Bmc, channels};

/// Revision of all parameter groups: 1.1.
const REVISION: u8 = 0x11;
/// Asks for the revision alone.
const REVISION_ONLY: u8 = 0x80;

/// Table 23-4. Addresses are those set aside for documentation.
static LAN: &[Spec] = &[
    Spec::in_progress(0),
    Spec::read_only(1, &[0x14]),
    Spec::value(2, &[0x14, 0x14, 0x14, 0x14, 0x00]),
    Spec::value(3, &[192, 0, 2, 10]),
    Spec::value(4, &[1]),
    Spec::value(5, &[0x02, 0x00, 0x5e, 0x00, 0x53, 0x01]),
    Spec::value(6, &[255, 255, 255, 0]),
    Spec::value(7, &[0x40, 0x40, 0x10]),
    Spec::value(8, &[0x6f, 0x02]),
    Spec::value(9, &[0x98, 0x02]),
    Spec::value(10, &[0x02]),
    Spec::value(11, &[0x02]),
    Spec::value(12, &[192, 0, 2, 1]),
    Spec::value(13, &[0x02, 0x00, 0x5e, 0x00, 0x53, 0xfe]),
    Spec::value(14, &[0, 0, 0, 0]),
    Spec::value(15, &[0, 0, 0, 0, 0, 0]),
    Spec::value(16, b"public\0\0\0\0\0\0\0\0\0\0\0\0"),
    Spec::read_only(17, &[4]),
    Spec::sets(18, 0..=4, &[0, 0, 3, 3]),
    Spec::sets(19, 0..=4, &[0; 13]),
    Spec::value(20, &[0, 0]),
    Spec::value(21, &[0]),
    Spec::read_only(22, &[2]),
    Spec::read_only(23, &[0, 3, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    Spec::value(24, &[0, 0x44, 0, 0, 0, 0, 0, 0, 0]),
    Spec::sets(25, 0..=4, &[0; 4]),
    Spec::value(26, &[0; 6]),
];

/// Table 26-5.
static SOL: &[Spec] = &[
    Spec::in_progress(0),
    Spec::value(1, &[1]),
    Spec::value(2, &[0x02]),
    Spec::value(3, &[0x0c, 0x60]),
    Spec::value(4, &[0x07, 0x32]),
    Spec::value(5, &[0x0a]),
    Spec::value(6, &[0x0a]),
    Spec::read_only(7, &[channels::LAN]),
    Spec::value(8, &[0x6f, 0x02]),
];

/// Table 30-6, without alert strings.
static PEF: &[Spec] = &[
    Spec::in_progress(0),
    Spec::value(1, &[0]),
    Spec::value(2, &[0]),
    Spec::value(3, &[0]),
    Spec::value(4, &[0]),
    Spec::read_only(5, &[4]),
    Spec::sets(6, 1..=4, &[0; 21]),
    Spec::sets(7, 1..=4, &[0; 2]),
    Spec::read_only(8, &[4]),
    Spec::sets(9, 1..=4, &[0; 4]),
    Spec::value(10, &[0; 17]),
    Spec::read_only(11, &[0]),
];

/// Table 22-16c. A set is a block of 16 bytes of the string; the first starts with its encoding
/// and its length.
static SYSTEM_INFO: &[Spec] = &[
    Spec::in_progress(0),
    Spec::sets(1, 0..=3, &[0; 17]),
    Spec::sets(2, 0..=3, &[0; 17]),
    Spec::sets(3, 0..=3, &[0; 17]),
    Spec::sets(4, 0..=3, &[0; 17]),
    Spec::sets(5, 0..=3, &[0; 17]),
    Spec::sets(6, 0..=15, &[0; 17]),
    Spec::sets(7, 0..=15, &[0; 17]),
];

/// All parameter groups but the boot options.
#[derive(Debug)]
pub struct Settings {
    lan: Params,
    sol: Params,
    pef: Params,
    system_info: Params,
    postpone_timer: u8,
    last_event_by_software: u16,
}

impl Settings {
    /// All at their initial values.
    pub fn new() -> Self {
        Self {
            lan: Params::new(LAN),
            sol: Params::new(SOL),
            pef: Params::new(PEF),
            system_info: Params::new(SYSTEM_INFO),
            postpone_timer: 0,
            last_event_by_software: 0,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new()
    }
}

fn get(params: &Params, revision_only: bool, number: u8, set: u8) -> Answer {
    let mut answer = vec![REVISION];
    if !revision_only {
        answer.extend(params.get(number, set)?);
    }
    Ok(answer)
}

/// LAN and SOL parameters belong to the LAN channel.
fn check_lan(channel: u8) -> Result<(), CompletionCode> {
    match channels::resolve(channel & 0x0f) {
        Ok(channels::LAN) => Ok(()),
        _ => Err(CompletionCode::INVALID_DATA_FIELD),
    }
}

pub fn set_lan(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    check_lan(data[0])?;
    bmc.settings.lan.set(data[1], &data[2..])?;
    Ok(vec![])
}

pub fn get_lan(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    check_lan(data[0])?;
    get(&bmc.settings.lan, data[0] & REVISION_ONLY != 0, data[1], data[2])
}

pub fn set_sol(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    check_lan(data[0])?;
    bmc.settings.sol.set(data[1], &data[2..])?;
    Ok(vec![])
}

pub fn get_sol(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    check_lan(data[0])?;
    get(&bmc.settings.sol, data[0] & REVISION_ONLY != 0, data[1], data[2])
}

/// PEF 1.5, alerts only, four filters.
pub fn pef_capabilities(_: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    Ok(vec![0x51, 0x01, 4])
}

/// 0xff asks for the present value (section 30.2).
pub fn arm_pef_timer(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    if data[0] != 0xff {
        bmc.settings.postpone_timer = data[0];
    }
    Ok(vec![bmc.settings.postpone_timer])
}

pub fn set_pef(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    bmc.settings.pef.set(data[0] & 0x7f, &data[1..])?;
    Ok(vec![])
}

pub fn get_pef(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    get(&bmc.settings.pef, data[0] & REVISION_ONLY != 0, data[0] & 0x7f, data[1] & 0x7f)
}

/// Bit 0 of byte 0: the record is the one processed by the BMC, which processes none.
pub fn set_last_event(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    if data[0] & 1 == 0 {
        bmc.settings.last_event_by_software = u16::from_le_bytes([data[1], data[2]]);
    }
    Ok(vec![])
}

pub fn get_last_event(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    let mut data = bmc.sel.last_addition().to_le_bytes().to_vec();
    data.extend(bmc.sel.last_id().to_le_bytes());
    data.extend(bmc.settings.last_event_by_software.to_le_bytes());
    data.extend([0, 0]);
    Ok(data)
}

/// A block shorter than 16 bytes is filled with zeros.
pub fn set_system_info(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    let mut value = data[1..].to_vec();
    if data[0] != 0 {
        value.resize(17, 0);
    }
    bmc.settings.system_info.set(data[0], &value)?;
    Ok(vec![])
}

pub fn get_system_info(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    get(&bmc.settings.system_info, data[0] & REVISION_ONLY != 0, data[1], data[2])
}
