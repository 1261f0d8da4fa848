// SPDX-License-Identifier: MIT OR Apache-2.0
//! Chassis commands: IPMI 2.0 chapter 28.
//!
//! Unless the simulator was told to honour power commands, they are recorded and answered but
//! switch nothing: the host that sent them goes on, so its power still reads as on.

use std::time::Duration;

use ipmi::CompletionCode;

use super::params::{Params, Spec};
use super::{Action, Answer, Bmc, Power};

/// Set System Boot Options, section 28.12 and table 28-14.
static BOOT_OPTIONS: &[Spec] = &[
    Spec::in_progress(0),
    Spec::value(1, &[0]),
    Spec::value(2, &[0]),
    Spec::value(3, &[0]),
    Spec::value(4, &[0, 0]),
    Spec::value(5, &[0, 0, 0, 0, 0]),
    Spec::value(6, &[0, 0, 0, 0, 0, 0, 0, 0, 0]),
    Spec::sets(7, 0..=4, &[0; 17]),
];
/// Version of the boot options.
const BOOT_VERSION: u8 = 0x01;
/// The parameter is marked as invalid.
const INVALID: u8 = 0x80;

/// Why the host was switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Chassis Control.
    Command,
    /// The watchdog.
    Watchdog,
}

/// State of chassis and power.
#[derive(Debug)]
pub struct Chassis {
    on: bool,
    /// Last power event, section 28.2 byte 3.
    last_event: u8,
    /// Restart cause, section 28.11.
    restart_cause: u8,
    restore_policy: u8,
    /// Until when the identify light is on; `None` for ever.
    identify: Option<Option<Duration>>,
    front_panel: u8,
    cycle_interval: u8,
    boot_options: Params,
    /// Boot options marked as invalid, one bit each.
    boot_invalid: u128,
    /// Commands that would have switched the host: (what, cause).
    ignored: Vec<(Power, Cause)>,
}

/// Power commands kept for `bmc-sim ctl power`.
const MAX_IGNORED: usize = 1_000;

impl Default for Chassis {
    fn default() -> Self {
        Self {
            on: true,
            last_event: 0x10,
            restart_cause: 0x01,
            restore_policy: 0,
            identify: None,
            front_panel: 0,
            cycle_interval: 0,
            boot_options: Params::new(BOOT_OPTIONS),
            boot_invalid: 0,
            ignored: Vec::new(),
        }
    }
}

impl Chassis {
    /// Whether the host is on.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Power commands that were only recorded.
    pub fn ignored(&self) -> &[(Power, Cause)] {
        &self.ignored
    }
}

impl Bmc {
    /// Chassis state, for looking.
    pub fn chassis(&self) -> &Chassis {
        &self.chassis
    }

    /// Switches the host, or records that it would have been.
    pub(super) fn switch_power(&mut self, power: Power, cause: Cause) {
        if !self.config.honour_power {
            self.note(format!("power command not honoured: {power:?}"));
            if self.chassis.ignored.len() < MAX_IGNORED {
                self.chassis.ignored.push((power, cause));
            }
            return;
        }
        let chassis = &mut self.chassis;
        chassis.restart_cause = if cause == Cause::Watchdog { 0x04 } else { 0x01 };
        chassis.on = !matches!(power, Power::Off | Power::SoftOff);
        if power == Power::On {
            chassis.last_event = 0x10;
        }
        self.note(format!("power: {power:?}"));
        self.actions.push(Action::Power(power));
    }

    /// The host says that it was reset.
    pub fn host_was_reset(&mut self) {
        self.chassis.on = true;
        self.note("host reset");
    }
}

/// No intrusion, front panel or interrupt support; all devices are the BMC.
pub fn get_capabilities(_: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    Ok(vec![0x00, 0x20, 0x20, 0x20, 0x20, 0x20])
}

pub fn get_status(bmc: &mut Bmc, now: Duration, _: &[u8]) -> Answer {
    let chassis = &bmc.chassis;
    let power = u8::from(chassis.on) | chassis.restore_policy << 5;
    let identify = match chassis.identify {
        Some(None) => 0x20,
        Some(Some(until)) if now < until => 0x10,
        _ => 0,
    };
    // 0x40: the identify bits mean something.
    Ok(vec![power, chassis.last_event, 0x40 | identify, chassis.front_panel])
}

pub fn control(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    let power = match data[0] & 0x0f {
        0 => Power::Off,
        1 => Power::On,
        2 | 3 => Power::Reset,
        4 => Power::Nmi,
        5 => Power::SoftOff,
        _ => return Err(CompletionCode::INVALID_DATA_FIELD),
    };
    bmc.switch_power(power, Cause::Command);
    Ok(vec![])
}

/// 15 s when no interval is given (section 28.5).
pub fn identify(bmc: &mut Bmc, now: Duration, data: &[u8]) -> Answer {
    let seconds = data.first().copied().unwrap_or(15);
    let forced = data.get(1).is_some_and(|byte| byte & 1 != 0);
    bmc.chassis.identify = match (forced, seconds) {
        (true, _) => Some(None),
        (false, 0) => None,
        (false, seconds) => Some(Some(now + Duration::from_secs(u64::from(seconds)))),
    };
    Ok(vec![])
}

/// 3 asks only what is supported: all three.
pub fn set_restore_policy(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    match data[0] & 0x07 {
        policy @ 0..=2 => bmc.chassis.restore_policy = policy,
        3 => {}
        _ => return Err(CompletionCode::INVALID_DATA_FIELD),
    }
    Ok(vec![0x07])
}

pub fn get_restart_cause(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    Ok(vec![bmc.chassis.restart_cause, super::channels::SYSTEM])
}

pub fn set_front_panel(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    bmc.chassis.front_panel = data[0] & 0x0f;
    Ok(vec![])
}

pub fn set_cycle_interval(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    bmc.chassis.cycle_interval = data[0];
    bmc.note(format!("power cycle interval {} s", bmc.chassis.cycle_interval));
    Ok(vec![])
}

/// One count an hour.
pub fn get_poh(_: &mut Bmc, now: Duration, _: &[u8]) -> Answer {
    let hours = u32::try_from(now.as_secs() / 3600).unwrap_or(u32::MAX);
    let mut data = vec![60];
    data.extend(hours.to_le_bytes());
    Ok(data)
}

/// A request without data only marks the parameter as valid or not.
pub fn set_boot_options(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    let number = data[0] & !INVALID;
    if data.len() > 1 {
        bmc.chassis.boot_options.set(number, &data[1..])?;
    } else {
        bmc.chassis.boot_options.check(number)?;
    }
    let bit = 1u128 << number;
    if data[0] & INVALID != 0 {
        bmc.chassis.boot_invalid |= bit;
    } else {
        bmc.chassis.boot_invalid &= !bit;
    }
    Ok(vec![])
}

pub fn get_boot_options(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    let number = data[0] & !INVALID;
    let value = bmc.chassis.boot_options.get(number, data[1])?;
    let invalid = if bmc.chassis.boot_invalid >> number & 1 == 1 { INVALID } else { 0 };
    let mut answer = vec![BOOT_VERSION, number | invalid];
    answer.extend(value);
    Ok(answer)
}
