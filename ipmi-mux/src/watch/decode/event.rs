// SPDX-License-Identifier: MIT OR Apache-2.0
//! Events and entries of the event log.

use ipmi::sel::{Body, Entry, Event};

use super::hex;

/// Sensor types by number, IPMI 2.0 table 42-3.
const TYPES: &[&str] = &[
    "reserved",
    "temperature",
    "voltage",
    "current",
    "fan",
    "physical security",
    "platform security",
    "processor",
    "power supply",
    "power unit",
    "cooling device",
    "other units",
    "memory",
    "drive slot",
    "POST memory resize",
    "system firmware",
    "event log",
    "watchdog 1",
    "system event",
    "critical interrupt",
    "button",
    "module/board",
    "microcontroller",
    "add-in card",
    "chassis",
    "chip set",
    "other FRU",
    "cable",
    "terminator",
    "system boot",
    "boot error",
    "OS boot",
    "OS stop",
    "slot/connector",
    "system ACPI power state",
    "watchdog 2",
    "platform alert",
    "entity presence",
    "monitor ASIC",
    "LAN",
    "management subsystem health",
    "battery",
    "session audit",
    "version change",
    "FRU state",
];

/// Threshold events by offset, IPMI 2.0 table 42-2.
const THRESHOLDS: &[&str] = &[
    "lower non-critical going low",
    "lower non-critical going high",
    "lower critical going low",
    "lower critical going high",
    "lower non-recoverable going low",
    "lower non-recoverable going high",
    "upper non-critical going low",
    "upper non-critical going high",
    "upper critical going low",
    "upper critical going high",
    "upper non-recoverable going low",
    "upper non-recoverable going high",
];

/// Watchdog 2 events by offset, IPMI 2.0 table 42-3.
const WATCHDOG: &[&str] = &["timer expired", "hard reset", "power down", "power cycle"];

/// Seconds below this count from the start of the controller, IPMI 2.0 chapter 37.
const SINCE_START: u32 = 0x2000_0000;

/// An entry of the log, 16 bytes.
pub(super) fn record(bytes: &[u8]) -> Option<String> {
    let entry = Entry::decode(bytes).ok()?;
    Some(match entry.body {
        Body::System { event, .. } => text(&event),
        Body::OemTimestamped { kind, data, .. } => format!("OEM entry {kind:#04x}: {}", hex(&data)),
        Body::Oem { kind, data } => format!("OEM entry {kind:#04x}: {}", hex(&data)),
    })
}

/// Platform Event, 29.3: software names itself before it.
pub(super) fn platform(data: &[u8]) -> Option<String> {
    let (generator, rest) = match data {
        [generator, rest @ ..] if rest.len() == 7 => (*generator, rest),
        rest => (0x20, rest),
    };
    let [revision, sensor_type, sensor, direction, event_data @ ..] = rest else { return None };
    // One to three bytes; what is not sent counts as unspecified.
    let mut three = [0xff; 3];
    for (to, from) in three.iter_mut().zip(event_data) {
        *to = *from;
    }
    Some(text(&Event {
        generator: [generator, 0],
        revision: *revision,
        sensor_type: *sensor_type,
        sensor: *sensor,
        deassertion: direction & 0x80 != 0,
        event_type: direction & 0x7f,
        data: three,
    }))
}

/// A time of the controller; days and times of day as in ISO 8601, UTC.
pub(super) fn time(seconds: u32) -> String {
    match seconds {
        u32::MAX => "unspecified".to_owned(),
        0..SINCE_START => format!("{seconds} s after its start"),
        _ => daemon_kit::utc::date_time(u64::from(seconds)),
    }
}

fn text(event: &Event) -> String {
    let Event { sensor_type, sensor, event_type, data: [offset, second, third], .. } = *event;
    let known = |number: u8, texts: &[&'static str]| texts.get(usize::from(number)).copied();
    let what = match (event_type, sensor_type) {
        (0x01, _) => known(offset & 0x0f, THRESHOLDS),
        (0x6f, 0x23) => known(offset & 0x0f, WATCHDOG),
        _ => None,
    };
    let what = match (what, event_type) {
        (Some(what), _) => what.to_owned(),
        (None, 0x6f) => format!("offset {}", offset & 0x0f),
        (None, _) => format!("type {event_type:#04x} offset {}", offset & 0x0f),
    };
    let direction = if event.deassertion { "gone" } else { "asserted" };
    // Threshold events say in bits 7:6 and 5:4 whether the other bytes are reading and threshold.
    let numbers = match (event_type, offset >> 6, offset >> 4 & 3) {
        (0x01, 1, 1) => format!(", reading {second:#04x} at threshold {third:#04x}"),
        (0x01, 1, _) => format!(", reading {second:#04x}"),
        _ => String::new(),
    };
    let kind = known(sensor_type, TYPES);
    let kind = kind.map_or_else(|| format!("type {sensor_type:#04x}"), str::to_owned);
    format!("{kind} sensor {sensor:#04x}: {what}, {direction}{numbers}")
}
