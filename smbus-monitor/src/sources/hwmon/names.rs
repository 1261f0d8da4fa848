// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the files of a chip are: Documentation/hwmon/sysfs-interface.rst.

use crate::core::rules::Severity;
use crate::metric::Unit;

/// What a kind of file holds.
pub(super) struct Kind {
    begins: &'static str,
    ends: &'static str,
    pub unit: Unit,
    pub scale: f64,
    pub exported: &'static str,
}

const KINDS: [Kind; 8] = [
    Kind {
        begins: "temp",
        ends: "_input",
        unit: Unit::Celsius,
        scale: 1e-3,
        exported: "node_hwmon_temp_celsius",
    },
    Kind {
        begins: "in",
        ends: "_input",
        unit: Unit::Volts,
        scale: 1e-3,
        exported: "node_hwmon_in_volts",
    },
    Kind {
        begins: "fan",
        ends: "_input",
        unit: Unit::Rpm,
        scale: 1.0,
        exported: "node_hwmon_fan_rpm",
    },
    Kind {
        begins: "curr",
        ends: "_input",
        unit: Unit::Amperes,
        scale: 1e-3,
        exported: "node_hwmon_curr_amps",
    },
    Kind {
        begins: "power",
        ends: "_input",
        unit: Unit::Watts,
        scale: 1e-6,
        exported: "node_hwmon_power_watt",
    },
    Kind {
        begins: "power",
        ends: "_average",
        unit: Unit::Watts,
        scale: 1e-6,
        exported: "node_hwmon_power_average_watt",
    },
    Kind {
        begins: "energy",
        ends: "_input",
        unit: Unit::Joules,
        scale: 1e-6,
        exported: "node_hwmon_energy_joule_total",
    },
    Kind {
        begins: "intrusion",
        ends: "_alarm",
        unit: Unit::Alarm,
        scale: 1.0,
        exported: "node_hwmon_intrusion_alarm",
    },
];

/// The sensor that a file is of: `temp1` of `temp1_input`.
pub(super) fn sensor(file: &str) -> Option<(&str, &'static Kind)> {
    KINDS.iter().find_map(|kind| {
        let sensor = file.strip_suffix(kind.ends)?;
        let number = sensor.strip_prefix(kind.begins)?;
        let is = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        is.then_some((sensor, kind))
    })
}

/// A bit by which a chip says itself that a sensor is beyond a limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Alarm<'a> {
    /// The sensor: `temp1`.
    pub sensor: &'a str,
    /// What it is: `temp`.
    pub kind: &'static str,
    /// Which limit: `max_alarm`, or `alarm` for any of them.
    pub what: &'a str,
    pub severity: Severity,
}

const ALARMS: [(&str, Severity); 7] = [
    ("alarm", Severity::Warning),
    ("min_alarm", Severity::Warning),
    ("max_alarm", Severity::Warning),
    ("cap_alarm", Severity::Warning),
    ("lcrit_alarm", Severity::Critical),
    ("crit_alarm", Severity::Critical),
    ("emergency_alarm", Severity::Critical),
];

/// The alarm that a file is: `temp1_max_alarm`. Those of an intrusion are sensors.
pub(super) fn alarm(file: &str) -> Option<Alarm<'_>> {
    let (name, what) = file.split_once('_')?;
    let severity = ALARMS.iter().find(|alarm| alarm.0 == what)?.1;
    let kind = ["temp", "in", "fan", "curr", "power"].into_iter().find(|kind| {
        let number = name.strip_prefix(kind).unwrap_or("");
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })?;
    Some(Alarm { sensor: name, kind, what, severity })
}
