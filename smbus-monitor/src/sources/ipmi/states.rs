// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sensors of a BMC that have states and no value: IPMI 2.0, tables 42-2 and 42-3, as far as somebody is to know of a state.
//! Each of these states is a metric of its own, 1 where it holds.

use std::sync::Arc;

use ipmi::sdr::{CompactSensor, Sensor};

use crate::core::rules::Severity;
use crate::metric::{Exported, Limits, MAX_ID, Meta, Unit, cut};

/// A state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// Its bit.
    offset: u8,
    name: &'static str,
    /// How much it matters that it holds; a note is none.
    severity: Option<Severity>,
}

const fn note(offset: u8, name: &'static str) -> State {
    State { offset, name, severity: None }
}

const fn warn(offset: u8, name: &'static str) -> State {
    State { offset, name, severity: Some(Severity::Warning) }
}

const fn crit(offset: u8, name: &'static str) -> State {
    State { offset, name, severity: Some(Severity::Critical) }
}

/// Event/reading type of a sensor whose states are those of its sensor type.
const SPECIFIC: u8 = 0x6f;

/// States that mean the same for every type of sensor, by event/reading type.
const GENERIC: &[(u8, &[State])] = &[
    (0x04, &[warn(1, "predicted failure")]),
    (0x05, &[warn(1, "limit exceeded")]),
    (0x06, &[warn(1, "performance lags")]),
    (
        0x07,
        &[
            warn(1, "non-critical"),
            crit(2, "critical"),
            crit(3, "non-recoverable"),
            warn(4, "non-critical, was worse"),
            crit(5, "critical, was worse"),
            crit(6, "non-recoverable at once"),
        ],
    ),
    (0x08, &[note(1, "present")]),
    (0x09, &[note(1, "enabled")]),
    (0x0a, &[warn(6, "degraded"), crit(8, "install error")]),
    (
        0x0b,
        &[
            note(0, "fully redundant"),
            crit(1, "redundancy lost"),
            warn(2, "redundancy degraded"),
            warn(3, "not redundant any more"),
            warn(4, "not redundant yet"),
            crit(5, "resources insufficient"),
            warn(6, "degraded from redundant"),
            warn(7, "degraded from not redundant"),
        ],
    ),
];

/// States by type of sensor.
const OF_TYPE: &[(u8, &[State])] = &[
    (
        0x05,
        &[
            crit(0, "intrusion"),
            crit(1, "drive bay opened"),
            crit(2, "I/O card area opened"),
            crit(3, "processor area opened"),
            warn(4, "network unplugged"),
            crit(6, "fan area opened"),
        ],
    ),
    (
        0x07,
        &[
            crit(0, "internal error"),
            crit(1, "thermal trip"),
            crit(2, "self-test failure"),
            crit(3, "hang in POST"),
            crit(4, "startup failure"),
            crit(5, "configuration error"),
            crit(6, "uncorrectable error"),
            note(7, "present"),
            warn(8, "disabled"),
            warn(10, "throttled"),
            crit(11, "machine check"),
            warn(12, "correctable error"),
        ],
    ),
    (
        0x08,
        &[
            note(0, "present"),
            crit(1, "failure"),
            warn(2, "predicted failure"),
            crit(3, "input lost"),
            crit(4, "input lost or out of range"),
            warn(5, "input out of range"),
            crit(6, "configuration error"),
        ],
    ),
    (
        0x09,
        &[
            note(0, "off"),
            crit(2, "240 VA power down"),
            crit(3, "interlock power down"),
            crit(4, "input lost"),
            crit(5, "soft power control failure"),
            crit(6, "failure"),
            warn(7, "predicted failure"),
        ],
    ),
    (
        0x0c,
        &[
            warn(0, "correctable error"),
            crit(1, "uncorrectable error"),
            crit(2, "parity error"),
            warn(3, "scrub failed"),
            warn(4, "disabled"),
            warn(5, "error log full"),
            note(6, "present"),
            crit(7, "configuration error"),
            warn(9, "throttled"),
            crit(10, "too hot"),
        ],
    ),
    (
        0x0d,
        &[
            note(0, "present"),
            crit(1, "fault"),
            warn(2, "predicted failure"),
            crit(5, "in a critical array"),
            crit(6, "in a failed array"),
            note(7, "rebuild"),
            warn(8, "rebuild aborted"),
        ],
    ),
    (0x10, &[warn(4, "full"), warn(5, "almost full")]),
    (
        0x13,
        &[
            crit(0, "diagnostic interrupt"),
            crit(1, "bus timeout"),
            crit(2, "I/O check"),
            crit(4, "PERR"),
            crit(5, "SERR"),
            warn(7, "correctable bus error"),
            crit(8, "uncorrectable bus error"),
            crit(9, "fatal interrupt"),
            crit(10, "fatal bus error"),
            warn(11, "bus degraded"),
        ],
    ),
    (0x1b, &[note(0, "connected"), warn(1, "configuration error")]),
    (0x21, &[crit(0, "fault"), note(2, "present")]),
    (0x23, &[warn(0, "expired"), crit(1, "reset"), crit(2, "power down"), crit(3, "power cycle")]),
    (
        0x28,
        &[
            warn(0, "degraded"),
            warn(1, "controller degraded"),
            crit(2, "controller off line"),
            crit(3, "controller unavailable"),
            warn(4, "sensor failure"),
            warn(5, "FRU failure"),
        ],
    ),
    (0x29, &[warn(0, "low"), crit(1, "failed"), note(2, "present")]),
];

/// The states of an event/reading type, and for [`SPECIFIC`] of a sensor type.
fn states(event_type: u8, sensor_type: u8) -> &'static [State] {
    let (table, of) = match event_type {
        SPECIFIC => (OF_TYPE, sensor_type),
        _ => (GENERIC, event_type),
    };
    table.iter().find(|(kind, _)| *kind == of).map_or(&[], |(_, states)| *states)
}

impl State {
    /// Whether it holds, in the second and third byte behind the reading (35.14); of the upper there may be none.
    pub(super) fn holds(self, bytes: &[u8]) -> bool {
        let low = bytes.first().copied().unwrap_or(0);
        // Bit 15 is reserved and reads as one.
        let high = bytes.get(1).copied().unwrap_or(0) & 0x7f;
        u16::from_le_bytes([low, high]) >> self.offset & 1 == 1
    }

    /// What it is as a metric of a sensor, which has this id and name.
    fn meta(self, id: &str, name: &str, number: &str, interval_ms: u32) -> Meta {
        let limit = |severity| (self.severity == Some(severity)).then_some(0.5);
        let limits = Limits {
            high_warning: limit(Severity::Warning),
            high_critical: limit(Severity::Critical),
            ..Limits::default()
        };
        let unit = if self.severity.is_some() { Unit::Alarm } else { Unit::Number };
        let labels = [("id", number), ("name", name), ("state", self.name)];
        let id =
            format!("{}/{}", cut(id, MAX_ID - 1 - self.name.len()), self.name.replace('/', "_"));
        Meta::new(&id, &format!("{name} {}", self.name), unit, interval_ms)
            .limits(limits)
            .exported(Exported::gauge("smbus_monitor_ipmi_state", &labels))
    }
}

/// The metrics of a sensor, for those of its states that it can tell.
pub(super) fn metas(
    sensor: &Sensor,
    number: u8,
    (id, name): (&str, &str),
    interval_ms: u32,
) -> Vec<(State, Arc<Meta>)> {
    let told = |state: &&State| sensor.masks[2] >> state.offset & 1 == 1;
    let all = states(sensor.event_type, sensor.sensor_type).iter().filter(told);
    let number = number.to_string();
    all.map(|state| (*state, Arc::new(state.meta(id, name, &number, interval_ms)))).collect()
}

/// The sensors that share a compact record (43.2, bytes 24 and 25): their numbers and names.
pub(super) fn shared(record: &CompactSensor) -> Vec<(u8, String)> {
    let [share, instance] = record.sharing;
    let (count, first) = (share & 0x0f, record.sensor.key.number);
    if count <= 1 {
        return vec![(first, record.name.clone())];
    }
    let name = |n: u8| {
        let at = (instance & 0x7f).wrapping_add(n);
        match share >> 4 & 0x03 {
            1 => format!("{}{}", record.name, char::from(b'A' + at % 26)),
            _ => format!("{}{at}", record.name),
        }
    };
    (0..count).filter_map(|n| Some((first.checked_add(n)?, name(n)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipmi::sdr::{Analog, SensorKey};

    fn supply(sharing: [u8; 2]) -> CompactSensor {
        CompactSensor {
            sensor: Sensor {
                key: SensorKey { owner: 0x20, lun: 0, number: 7 },
                entity: 0x0a,
                instance: 1,
                initialization: 0,
                capabilities: 0,
                sensor_type: 0x08,
                event_type: SPECIFIC,
                masks: [0, 0, 0x000b],
                format: Analog::None,
                units: 0,
                base_unit: 0,
                modifier_unit: 0,
            },
            sharing,
            hysteresis_up: 0,
            hysteresis_down: 0,
            name: "PSU".to_owned(),
        }
    }

    #[test]
    fn a_supply_tells_the_states_that_it_has() {
        let all = metas(&supply([1, 0]).sensor, 7, ("ipmi/PSU 1", "PSU 1"), 1000);
        let ids: Vec<&str> = all.iter().map(|(_, meta)| meta.id.as_str()).collect();
        assert_eq!(ids, ["ipmi/PSU 1/present", "ipmi/PSU 1/failure", "ipmi/PSU 1/input lost"]);
        assert_eq!((all[0].1.unit, all[0].1.limits.is_empty()), (Unit::Number, true));
        assert_eq!((all[1].1.unit, all[1].1.limits.high_critical), (Unit::Alarm, Some(0.5)));
        let holds =
            |bytes: &[u8]| all.iter().map(|(state, _)| state.holds(bytes)).collect::<Vec<_>>();
        assert_eq!(holds(&[0x09, 0x80]), [true, false, true]);
        assert_eq!(holds(&[0x01]), [true, false, false]);
        assert_eq!(holds(&[]), [false, false, false]);
        assert!(!note(15, "x").holds(&[0, 0x80]), "a reserved bit");
    }

    #[test]
    fn what_nobody_knows_is_no_metric() {
        assert_eq!(states(0x70, 0x08), []);
        assert_eq!(states(SPECIFIC, 0xc0), []);
        let long = "x".repeat(200);
        for event_type in 0..=SPECIFIC {
            for sensor_type in 0..=0x2f {
                for state in states(event_type, sensor_type) {
                    let meta = state.meta(&long, &long, "1", 1000);
                    assert!(
                        state.offset < 15
                            && meta.id.len() <= MAX_ID
                            && meta.id.ends_with(&state.name.replace('/', "_"))
                    );
                }
            }
        }
    }

    #[test]
    fn a_record_may_be_of_several_sensors() {
        let names = |sharing| {
            shared(&supply(sharing))
                .into_iter()
                .map(|(n, name)| format!("{n} {name}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(names([1, 0]), ["7 PSU"]);
        assert_eq!(names([0x03, 0x81]), ["7 PSU1", "8 PSU2", "9 PSU3"]);
        assert_eq!(names([0x12, 0]), ["7 PSUA", "8 PSUB"]);
    }
}
