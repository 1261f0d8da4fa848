// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which sensors there are: ten kinds in turn, as a blade might have them.

use ipmi::sdr::{Analog, CompactSensor, Factors, FullSensor, Sensor, SensorKey, Thresholds};

/// Sensor-specific event/reading type.
pub const SENSOR_SPECIFIC: u8 = 0x6f;
/// Threshold event/reading type.
pub const THRESHOLD: u8 = 0x01;
/// All twelve threshold events that make sense: lower ones going low, upper ones going high.
const THRESHOLD_EVENTS: u16 = 0x0a95;
/// Bits 14:12 of the event masks: comparison bits that Get Sensor Reading returns.
const COMPARISONS: u16 = 0x7000;
/// All six thresholds can be read and set.
const THRESHOLD_ACCESS: u16 = 0x3f3f;

/// A sensor that measures.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    name: &'static str,
    sensor_type: u8,
    unit: u8,
    entity: u8,
    format: Analog,
    factors: Factors,
    /// Around which value it moves, in its unit.
    pub nominal: f64,
    /// How far it moves.
    pub swing: f64,
    /// Lower non-critical, critical, non-recoverable; upper in the same order.
    limits: [f64; 6],
}

/// A sensor with states.
#[derive(Debug, Clone, Copy)]
pub struct States {
    name: &'static str,
    sensor_type: u8,
    event_type: u8,
    entity: u8,
    /// States it knows, one bit each.
    mask: u16,
    /// States at start.
    pub initial: u16,
}

/// What a sensor is.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// It measures.
    Measure(&'static Measure),
    /// It has states.
    States(&'static States),
}

static CPU: Measure = Measure {
    name: "CPU",
    sensor_type: 0x01,
    unit: 1,
    entity: 0x03,
    format: Analog::TwosComplement,
    factors: Factors::linear(1, 0, 0, 0),
    nominal: 55.0,
    swing: 8.0,
    limits: [5.0, 0.0, -5.0, 85.0, 95.0, 105.0],
};
static DIMM: Measure = Measure { name: "DIMM", entity: 0x20, nominal: 40.0, swing: 5.0, ..CPU };
static INLET: Measure = Measure { name: "Inlet", entity: 0x37, nominal: 24.0, swing: 2.0, ..CPU };
static P12V: Measure = Measure {
    name: "P12V",
    sensor_type: 0x02,
    unit: 4,
    entity: 0x14,
    format: Analog::Unsigned,
    factors: Factors::linear(6, 0, 0, -2),
    nominal: 12.0,
    swing: 0.2,
    limits: [11.4, 10.8, 10.2, 12.6, 13.2, 13.8],
};
static P3V3: Measure = Measure {
    name: "P3V3",
    factors: Factors::linear(17, 0, 0, -3),
    nominal: 3.3,
    swing: 0.05,
    limits: [3.1, 3.0, 2.9, 3.5, 3.6, 3.7],
    ..P12V
};
static FAN_A: Measure = Measure {
    name: "Fan A",
    sensor_type: 0x04,
    unit: 18,
    entity: 0x1d,
    format: Analog::Unsigned,
    factors: Factors::linear(60, 0, 0, 0),
    nominal: 6000.0,
    swing: 900.0,
    limits: [3000.0, 2400.0, 1800.0, 14000.0, 14500.0, 15000.0],
};
static FAN_B: Measure = Measure { name: "Fan B", nominal: 5400.0, ..FAN_A };
static CURRENT: Measure = Measure {
    name: "Current",
    sensor_type: 0x03,
    unit: 5,
    entity: 0x0a,
    format: Analog::Unsigned,
    // With an offset, which clients must add before they scale: (20 × raw + 5 × 10^1) / 100 A.
    factors: Factors::linear(20, 5, 1, -2),
    nominal: 20.0,
    swing: 6.0,
    limits: [2.0, 1.0, 0.6, 40.0, 45.0, 50.0],
};
static POWER: Measure = Measure {
    name: "Power",
    sensor_type: 0x0b,
    unit: 6,
    entity: 0x0a,
    format: Analog::Unsigned,
    factors: Factors::linear(4, 0, 0, 0),
    nominal: 240.0,
    swing: 70.0,
    limits: [20.0, 12.0, 8.0, 800.0, 900.0, 1000.0],
};

const fn states(
    name: &'static str,
    sensor_type: u8,
    entity: u8,
    mask: u16,
    initial: u16,
) -> States {
    States { name, sensor_type, event_type: SENSOR_SPECIFIC, entity, mask, initial }
}

/// The first is the watchdog, which has to be sensor 1.
static STATES: [States; 10] = [
    states("Watchdog", 0x23, 0x06, 0x010f, 0),
    states("PSU Status", 0x08, 0x0a, 0x000f, 0x0001),
    states("Intrusion", 0x05, 0x17, 0x0001, 0),
    states("CPU Status", 0x07, 0x03, 0x0483, 0x0080),
    states("Memory", 0x0c, 0x20, 0x0023, 0),
    states("Drive", 0x0d, 0x04, 0x0003, 0x0001),
    states("Cable", 0x1b, 0x1f, 0x0003, 0x0001),
    states("ACPI State", 0x22, 0x06, 0x0fff, 0x0001),
    States { event_type: 0x0b, ..states("Fan Redund", 0x04, 0x1d, 0x003f, 0x0001) },
    states("Button", 0x14, 0x0c, 0x0007, 0),
];

impl Shape {
    /// The shape of sensor `number`, which starts at 1.
    pub fn of(number: u8) -> Self {
        let at = usize::from(number.saturating_sub(1));
        match at % 10 {
            0 => Self::States(&STATES[at / 10 % STATES.len()]),
            1 => Self::Measure(&CPU),
            2 => Self::Measure(&P12V),
            3 => Self::Measure(&FAN_A),
            4 => Self::Measure(&DIMM),
            5 => Self::Measure(&CURRENT),
            6 => Self::Measure(&FAN_B),
            7 => Self::Measure(&INLET),
            8 => Self::Measure(&P3V3),
            _ => Self::Measure(&POWER),
        }
    }

    /// The shape of the second controller's sensors.
    pub fn satellite() -> Self {
        Self::Measure(&INLET)
    }
}

impl Measure {
    /// Its record.
    pub fn record(&self, key: SensorKey, prefix: &str, instance: u8) -> FullSensor {
        let raw = |value| self.raw(value);
        let [lnc, lc, lnr, unc, uc, unr] = self.limits.map(raw);
        let (sensor_min, sensor_max) =
            if self.format == Analog::TwosComplement { (0x80, 0x7f) } else { (0, 0xff) };
        FullSensor {
            sensor: Sensor {
                key,
                entity: self.entity,
                instance,
                // Scanning, events, thresholds, hysteresis and type are set at start.
                initialization: 0x7f,
                // Re-arms itself; hysteresis and thresholds can be read and set; events singly.
                capabilities: 0x68,
                sensor_type: self.sensor_type,
                event_type: THRESHOLD,
                masks: [
                    THRESHOLD_EVENTS | COMPARISONS,
                    THRESHOLD_EVENTS | COMPARISONS,
                    THRESHOLD_ACCESS,
                ],
                format: self.format,
                units: 0,
                base_unit: self.unit,
                modifier_unit: 0,
            },
            factors: self.factors,
            analog_flags: 0x07,
            nominal: raw(self.nominal),
            normal_max: raw(self.nominal + self.swing),
            normal_min: raw(self.nominal - self.swing),
            sensor_max,
            sensor_min,
            thresholds: Thresholds {
                upper_non_recoverable: unr,
                upper_critical: uc,
                upper_non_critical: unc,
                lower_non_recoverable: lnr,
                lower_critical: lc,
                lower_non_critical: lnc,
            },
            hysteresis_up: 1,
            hysteresis_down: 1,
            name: format!("{prefix}{} {instance}", self.name),
        }
    }

    /// The reading nearest to a value.
    pub fn raw(&self, value: f64) -> u8 {
        self.factors.raw(self.format, value).unwrap_or(0)
    }
}

impl States {
    /// Its record.
    pub fn record(&self, key: SensorKey, instance: u8) -> CompactSensor {
        CompactSensor {
            sensor: Sensor {
                key,
                entity: self.entity,
                instance,
                initialization: 0x67,
                // Re-arms itself; no hysteresis, no thresholds; events singly.
                capabilities: 0x40,
                sensor_type: self.sensor_type,
                event_type: self.event_type,
                masks: [self.mask, self.mask, self.mask],
                format: Analog::None,
                units: 0,
                base_unit: 0,
                modifier_unit: 0,
            },
            sharing: [0x01, 0x00],
            hysteresis_up: 0,
            hysteresis_down: 0,
            name: format!("{} {instance}", self.name),
        }
    }

    /// States it knows.
    pub fn mask(&self) -> u16 {
        self.mask
    }
}
