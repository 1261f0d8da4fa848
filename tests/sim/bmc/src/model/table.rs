// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which commands the controller knows, and how long their data may be.

use std::ops::RangeInclusive;
use std::time::Duration;

use ipmi::MAX_MESSAGE_LEN;

use super::{
    Answer, Bmc, channels, chassis, config, device, fru, messaging, oem, sdr, sel, sensors,
};
use super::{users, watchdog};

/// One command.
pub struct Row {
    /// Network function of the request.
    pub netfn: u8,
    /// Command number.
    pub cmd: u8,
    /// Bytes of data that are accepted; others answer C7.
    pub len: RangeInclusive<usize>,
    /// Whether it changes state, which the journal records.
    pub changes: bool,
    /// What it does. The length has been checked.
    pub run: fn(&mut Bmc, Duration, &[u8]) -> Answer,
}

const fn get(
    netfn: u8,
    cmd: u8,
    len: RangeInclusive<usize>,
    run: fn(&mut Bmc, Duration, &[u8]) -> Answer,
) -> Row {
    Row { netfn, cmd, len, changes: false, run }
}

const fn set(
    netfn: u8,
    cmd: u8,
    len: RangeInclusive<usize>,
    run: fn(&mut Bmc, Duration, &[u8]) -> Answer,
) -> Row {
    Row { netfn, cmd, len, changes: true, run }
}

/// The row of a command.
pub fn find(netfn: u8, cmd: u8) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.netfn == netfn && row.cmd == cmd)
}

/// All commands.
pub static ROWS: &[Row] = &[
    get(0x00, 0x00, 0..=0, chassis::get_capabilities),
    get(0x00, 0x01, 0..=0, chassis::get_status),
    set(0x00, 0x02, 1..=1, chassis::control),
    set(0x00, 0x04, 0..=2, chassis::identify),
    set(0x00, 0x06, 1..=1, chassis::set_restore_policy),
    get(0x00, 0x07, 0..=0, chassis::get_restart_cause),
    set(0x00, 0x08, 1..=18, chassis::set_boot_options),
    get(0x00, 0x09, 3..=3, chassis::get_boot_options),
    set(0x00, 0x0a, 1..=1, chassis::set_front_panel),
    set(0x00, 0x0b, 1..=1, chassis::set_cycle_interval),
    get(0x00, 0x0f, 0..=0, chassis::get_poh),
    set(0x04, 0x00, 2..=2, sensors::set_event_receiver),
    get(0x04, 0x01, 0..=0, sensors::get_event_receiver),
    set(0x04, 0x02, 6..=8, sensors::platform_event),
    get(0x04, 0x10, 0..=0, config::pef_capabilities),
    set(0x04, 0x11, 1..=1, config::arm_pef_timer),
    set(0x04, 0x12, 1..=22, config::set_pef),
    get(0x04, 0x13, 3..=3, config::get_pef),
    set(0x04, 0x14, 3..=3, config::set_last_event),
    get(0x04, 0x15, 0..=0, config::get_last_event),
    get(0x04, 0x20, 0..=1, sdr::device_info),
    get(0x04, 0x21, 6..=6, sdr::device_get),
    set(0x04, 0x22, 0..=0, sdr::device_reserve),
    get(0x04, 0x23, 2..=2, |bmc, _, data| sensors::factors(&bmc.bank, data)),
    set(0x04, 0x24, 4..=4, |bmc, _, data| sensors::set_hysteresis(&mut bmc.bank, data)),
    get(0x04, 0x25, 2..=2, |bmc, _, data| sensors::hysteresis(&bmc.bank, data)),
    set(0x04, 0x26, 8..=8, |bmc, _, data| sensors::set_thresholds(&mut bmc.bank, data)),
    get(0x04, 0x27, 1..=1, |bmc, _, data| sensors::thresholds(&bmc.bank, data)),
    set(0x04, 0x28, 2..=6, |bmc, _, data| sensors::set_event_enable(&mut bmc.bank, data)),
    get(0x04, 0x29, 1..=1, |bmc, _, data| sensors::event_enable(&bmc.bank, data)),
    set(0x04, 0x2a, 2..=6, |bmc, _, data| sensors::rearm(&mut bmc.bank, data)),
    get(0x04, 0x2b, 1..=1, |bmc, _, data| sensors::event_status(&bmc.bank, data)),
    get(0x04, 0x2d, 1..=1, |bmc, now, data| sensors::reading(&bmc.bank, now, data)),
    get(0x04, 0x2f, 1..=1, |bmc, _, data| sensors::sensor_type(&bmc.bank, data)),
    get(0x06, 0x01, 0..=0, device::get_device_id),
    set(0x06, 0x02, 0..=0, device::cold_reset),
    set(0x06, 0x03, 0..=0, device::warm_reset),
    get(0x06, 0x04, 0..=0, device::self_test),
    set(0x06, 0x06, 2..=2, device::set_acpi_state),
    get(0x06, 0x07, 0..=0, device::get_acpi_state),
    get(0x06, 0x08, 0..=0, device::get_device_guid),
    get(0x06, 0x09, 1..=1, device::get_netfn_support),
    set(0x06, 0x22, 0..=0, watchdog::reset_timer),
    set(0x06, 0x24, 6..=6, watchdog::set_timer),
    get(0x06, 0x25, 0..=0, watchdog::get_timer),
    set(0x06, 0x2e, 1..=1, messaging::set_enables),
    get(0x06, 0x2f, 0..=0, messaging::get_enables),
    set(0x06, 0x30, 1..=1, messaging::clear_flags),
    get(0x06, 0x31, 0..=0, messaging::get_flags),
    set(0x06, 0x32, 2..=2, messaging::enable_receive),
    set(0x06, 0x33, 0..=0, messaging::get_message),
    set(0x06, 0x34, 1..=MAX_MESSAGE_LEN, messaging::send_message),
    set(0x06, 0x35, 0..=0, messaging::read_event),
    get(0x06, 0x36, 0..=0, device::bt_capabilities),
    get(0x06, 0x37, 0..=0, device::get_system_guid),
    get(0x06, 0x38, 2..=2, channels::auth_capabilities),
    set(0x06, 0x3c, 4..=5, channels::close_session),
    get(0x06, 0x3d, 1..=5, channels::session_info),
    set(0x06, 0x40, 3..=3, channels::set_access),
    get(0x06, 0x41, 2..=2, channels::get_access),
    get(0x06, 0x42, 1..=1, channels::get_info),
    set(0x06, 0x43, 3..=4, users::set_access),
    get(0x06, 0x44, 2..=2, users::get_access),
    set(0x06, 0x45, 17..=17, users::set_name),
    get(0x06, 0x46, 1..=1, users::get_name),
    set(0x06, 0x47, 2..=22, users::set_password),
    get(0x06, 0x4e, 1..=1, channels::payload_support),
    get(0x06, 0x54, 3..=3, channels::cipher_suites),
    get(0x06, 0x57, 1..=1, device::interface_capabilities),
    set(0x06, 0x58, 2..=18, config::set_system_info),
    get(0x06, 0x59, 4..=4, config::get_system_info),
    get(0x0a, 0x10, 1..=1, fru::info),
    get(0x0a, 0x11, 4..=4, fru::read),
    set(0x0a, 0x12, 3..=MAX_MESSAGE_LEN, fru::write),
    get(0x0a, 0x20, 0..=0, sdr::info),
    get(0x0a, 0x21, 0..=0, sdr::allocation_info),
    set(0x0a, 0x22, 0..=0, sdr::reserve),
    get(0x0a, 0x23, 6..=6, sdr::get),
    set(0x0a, 0x24, 5..=MAX_MESSAGE_LEN, sdr::add),
    set(0x0a, 0x25, 6..=MAX_MESSAGE_LEN, sdr::partial_add),
    set(0x0a, 0x26, 4..=4, sdr::delete),
    set(0x0a, 0x27, 6..=6, sdr::clear),
    get(0x0a, 0x28, 0..=0, sel::get_time),
    set(0x0a, 0x29, 4..=4, sel::set_time),
    set(0x0a, 0x2c, 1..=1, sdr::run_initialization),
    get(0x0a, 0x40, 0..=0, sel::info),
    get(0x0a, 0x41, 0..=0, sel::allocation_info),
    set(0x0a, 0x42, 0..=0, sel::reserve),
    get(0x0a, 0x43, 6..=6, sel::get),
    set(0x0a, 0x44, 16..=16, sel::add),
    set(0x0a, 0x46, 4..=4, sel::delete),
    set(0x0a, 0x47, 6..=6, sel::clear),
    get(0x0a, 0x48, 0..=0, sel::get_time),
    set(0x0a, 0x49, 4..=4, sel::set_time),
    get(0x0a, 0x5c, 0..=0, sel::get_utc_offset),
    set(0x0a, 0x5d, 2..=2, sel::set_utc_offset),
    set(0x0c, 0x01, 3..=24, config::set_lan),
    get(0x0c, 0x02, 4..=4, config::get_lan),
    set(0x0c, 0x21, 3..=24, config::set_sol),
    get(0x0c, 0x22, 4..=4, config::get_sol),
    get(oem::NETFN, oem::ECHO, 0..=MAX_MESSAGE_LEN, oem::echo),
    get(oem::NETFN, oem::SLEEP, 2..=MAX_MESSAGE_LEN, oem::sleep),
    set(oem::NETFN, oem::COUNTER, 0..=MAX_MESSAGE_LEN, oem::counter),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_stands_once_and_in_order() {
        for pair in ROWS.windows(2) {
            assert!((pair[0].netfn, pair[0].cmd) < (pair[1].netfn, pair[1].cmd));
        }
        for row in ROWS.iter().filter(|row| row.netfn != oem::NETFN) {
            assert!(ipmi::names::name(row.netfn, row.cmd).is_some());
        }
    }
}
