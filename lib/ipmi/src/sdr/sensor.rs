// SPDX-License-Identifier: MIT OR Apache-2.0
//! Full and compact sensor records: IPMI 2.0 sections 43.1 and 43.2.

use super::factors::{Analog, Factors, Linearization};
use super::{Reader, SdrError, name_bytes};

/// Which sensor: owner, LUN and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SensorKey {
    /// 8-bit slave address of the owner (bit 0 clear) or a software id (bit 0 set).
    pub owner: u8,
    /// Channel in bits 7:4, LUN in 1:0.
    pub lun: u8,
    /// Number at the owner, 0 to 254.
    pub number: u8,
}

/// What full and compact records have in common: record bytes 6 to 23.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sensor {
    /// Which sensor.
    pub key: SensorKey,
    /// Entity it belongs to (table 43-13).
    pub entity: u8,
    /// Which of them.
    pub instance: u8,
    /// What the initialisation agent sets: record byte 11.
    pub initialization: u8,
    /// Re-arm, hysteresis, threshold and event control support: record byte 12.
    pub capabilities: u8,
    /// Sensor type (table 42-3).
    pub sensor_type: u8,
    /// Event/reading type code (table 42-1): 0x01 threshold, 0x6f specific to the sensor type.
    pub event_type: u8,
    /// Assertion events and lower thresholds; deassertion events and upper thresholds; states, or
    /// settable (high byte) and readable (low byte) thresholds.
    pub masks: [u16; 3],
    /// Form of the raw reading.
    pub format: Analog,
    /// Record byte 21 without the form: rate, modifier use, percentage.
    pub units: u8,
    /// Base unit (table 43-15).
    pub base_unit: u8,
    /// Modifier unit.
    pub modifier_unit: u8,
}

/// The six thresholds in raw counts, in the order of record bytes 37 to 42.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Thresholds {
    /// Upper non-recoverable.
    pub upper_non_recoverable: u8,
    /// Upper critical.
    pub upper_critical: u8,
    /// Upper non-critical.
    pub upper_non_critical: u8,
    /// Lower non-recoverable.
    pub lower_non_recoverable: u8,
    /// Lower critical.
    pub lower_critical: u8,
    /// Lower non-critical.
    pub lower_non_critical: u8,
}

/// A full sensor record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullSensor {
    /// Common part.
    pub sensor: Sensor,
    /// Conversion of readings.
    pub factors: Factors,
    /// Which of the next three are given: bits 0 nominal, 1 maximum, 2 minimum.
    pub analog_flags: u8,
    /// Nominal reading, raw.
    pub nominal: u8,
    /// Upper end of the normal range, raw.
    pub normal_max: u8,
    /// Lower end of the normal range, raw.
    pub normal_min: u8,
    /// Largest reading the sensor can give, raw.
    pub sensor_max: u8,
    /// Smallest reading the sensor can give, raw.
    pub sensor_min: u8,
    /// Thresholds at start.
    pub thresholds: Thresholds,
    /// Positive-going hysteresis, raw counts.
    pub hysteresis_up: u8,
    /// Negative-going hysteresis, raw counts.
    pub hysteresis_down: u8,
    /// Name, at most 16 characters.
    pub name: String,
}

/// A compact sensor record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactSensor {
    /// Common part.
    pub sensor: Sensor,
    /// How several sensors share this record: record bytes 24 and 25.
    pub sharing: [u8; 2],
    /// Positive-going hysteresis, raw counts.
    pub hysteresis_up: u8,
    /// Negative-going hysteresis, raw counts.
    pub hysteresis_down: u8,
    /// Name, at most 16 characters.
    pub name: String,
}

/// Bytes of the common part.
const COMMON: usize = 18;

impl Sensor {
    fn encode(&self) -> [u8; COMMON] {
        let [a0, a1] = self.masks[0].to_le_bytes();
        let [d0, d1] = self.masks[1].to_le_bytes();
        let [r0, r1] = self.masks[2].to_le_bytes();
        [
            self.key.owner,
            self.key.lun,
            self.key.number,
            self.entity,
            self.instance,
            self.initialization,
            self.capabilities,
            self.sensor_type,
            self.event_type,
            a0,
            a1,
            d0,
            d1,
            r0,
            r1,
            self.format.bits() << 6 | self.units & 0x3f,
            self.base_unit,
            self.modifier_unit,
        ]
    }

    fn decode(bytes: [u8; COMMON]) -> Self {
        let [owner, lun, number, entity, instance, initialization, capabilities, rest @ ..] = bytes;
        let [sensor_type, event_type, a0, a1, d0, d1, r0, r1, units, base_unit, modifier_unit] =
            rest;
        Self {
            key: SensorKey { owner, lun, number },
            entity,
            instance,
            initialization,
            capabilities,
            sensor_type,
            event_type,
            masks: [[a0, a1], [d0, d1], [r0, r1]].map(u16::from_le_bytes),
            format: Analog::from_bits(units >> 6),
            units: units & 0x3f,
            base_unit,
            modifier_unit,
        }
    }
}

impl Thresholds {
    fn encode(&self) -> [u8; 6] {
        [
            self.upper_non_recoverable,
            self.upper_critical,
            self.upper_non_critical,
            self.lower_non_recoverable,
            self.lower_critical,
            self.lower_non_critical,
        ]
    }
}

/// Where a full record's name starts, counted from the end of the header.
const FULL_NAME: usize = 42;
/// The same for a compact record.
const COMPACT_NAME: usize = 26;

impl FullSensor {
    pub(super) fn encode(&self) -> Result<Vec<u8>, SdrError> {
        let mut body = self.sensor.encode().to_vec();
        body.push(self.factors.linearization.0);
        body.extend(self.factors.encode());
        body.extend([self.analog_flags, self.nominal, self.normal_max, self.normal_min]);
        body.extend([self.sensor_max, self.sensor_min]);
        body.extend(self.thresholds.encode());
        body.extend([self.hysteresis_up, self.hysteresis_down, 0, 0, 0]);
        body.extend(name_bytes(&self.name)?);
        Ok(body)
    }

    pub(super) fn decode(reader: &Reader<'_>) -> Result<Self, SdrError> {
        let sensor = Sensor::decode(reader.fixed()?);
        let body = reader.fixed::<FULL_NAME>()?;
        let [
            linearization,
            m0,
            m1,
            b0,
            b1,
            acc,
            exps,
            flags,
            nominal,
            max,
            min,
            smax,
            smin,
            rest @ ..,
        ] = &body[COMMON..]
        else {
            return Err(reader.too_short(FULL_NAME));
        };
        let [unr, uc, unc, lnr, lc, lnc, up, down, ..] = rest else {
            return Err(reader.too_short(FULL_NAME));
        };
        Ok(Self {
            sensor,
            factors: Factors::decode(
                Linearization(*linearization),
                [*m0, *m1, *b0, *b1, *acc, *exps],
            ),
            analog_flags: *flags,
            nominal: *nominal,
            normal_max: *max,
            normal_min: *min,
            sensor_max: *smax,
            sensor_min: *smin,
            thresholds: Thresholds {
                upper_non_recoverable: *unr,
                upper_critical: *uc,
                upper_non_critical: *unc,
                lower_non_recoverable: *lnr,
                lower_critical: *lc,
                lower_non_critical: *lnc,
            },
            hysteresis_up: *up,
            hysteresis_down: *down,
            name: reader.name(FULL_NAME)?,
        })
    }

    /// The value that a raw reading means, in the sensor's unit.
    pub fn value(&self, raw: u8) -> Option<f64> {
        self.factors.value(self.sensor.format, raw)
    }
}

impl CompactSensor {
    pub(super) fn encode(&self) -> Result<Vec<u8>, SdrError> {
        let mut body = self.sensor.encode().to_vec();
        body.extend(self.sharing);
        body.extend([self.hysteresis_up, self.hysteresis_down, 0, 0, 0, 0]);
        body.extend(name_bytes(&self.name)?);
        Ok(body)
    }

    pub(super) fn decode(reader: &Reader<'_>) -> Result<Self, SdrError> {
        let sensor = Sensor::decode(reader.fixed()?);
        let body = reader.fixed::<COMPACT_NAME>()?;
        Ok(Self {
            sensor,
            sharing: [body[COMMON], body[COMMON + 1]],
            hysteresis_up: body[COMMON + 2],
            hysteresis_down: body[COMMON + 3],
            name: reader.name(COMPACT_NAME)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdr::{Body, Record};

    fn sensor() -> Sensor {
        Sensor {
            key: SensorKey { owner: 0x20, lun: 0, number: 0x30 },
            entity: 3,
            instance: 1,
            initialization: 0x7f,
            capabilities: 0x68,
            sensor_type: 0x01,
            event_type: 0x01,
            masks: [0x7a95, 0x7a95, 0x3f3f],
            format: Analog::TwosComplement,
            units: 0,
            base_unit: 1,
            modifier_unit: 0,
        }
    }

    const COMMON_BYTES: [u8; COMMON] = [
        0x20, 0x00, 0x30, // owner, LUN, number
        0x03, 0x01, // processor 1
        0x7f, 0x68, // initialisation, capabilities
        0x01, 0x01, // temperature, threshold
        0x95, 0x7a, 0x95, 0x7a, 0x3f, 0x3f, // masks
        0x80, 0x01, 0x00, // two's complement, degrees C
    ];

    #[test]
    fn golden_full_record() {
        let factors =
            Factors { tolerance: 1, accuracy: 100, direction: 1, ..Factors::linear(1, -40, 0, 0) };
        let full = FullSensor {
            sensor: sensor(),
            factors,
            analog_flags: 0x07,
            nominal: 35,
            normal_max: 60,
            normal_min: 10,
            sensor_max: 0x7f,
            sensor_min: 0x80,
            thresholds: Thresholds {
                upper_non_recoverable: 95,
                upper_critical: 90,
                upper_non_critical: 85,
                lower_non_recoverable: 0xf6,
                lower_critical: 0xfb,
                lower_non_critical: 0,
            },
            hysteresis_up: 2,
            hysteresis_down: 3,
            name: "CPU1 Temp".into(),
        };
        let mut bytes = vec![0x07, 0x00, 0x51, 0x01, 52];
        bytes.extend(COMMON_BYTES);
        bytes.extend([
            0x00, // linear
            0x01, 0x01, // M = 1, tolerance 1
            0xd8, 0xe4, // B = -40, accuracy 100 (low six bits 0x24)
            0x11, // accuracy's high bits 1, exponent 0, input
            0x00, // exponents
            0x07, 35, 60, 10, // nominal, normal range
            0x7f, 0x80, // sensor range
            95, 90, 85, 0xf6, 0xfb, 0, // thresholds
            2, 3, // hysteresis
            0, 0, 0, // reserved, OEM
            0xc9,
        ]);
        bytes.extend(b"CPU1 Temp");
        let record = Record { id: 7, body: Body::Full(full) };
        assert_eq!(record.encode().unwrap(), bytes);
        assert_eq!(Record::decode(&bytes), Ok(record));
    }

    #[test]
    fn golden_compact_record() {
        let compact = CompactSensor {
            sensor: sensor(),
            sharing: [0x01, 0x00],
            hysteresis_up: 1,
            hysteresis_down: 2,
            name: "Watchdog".into(),
        };
        let mut bytes = vec![0x08, 0x00, 0x51, 0x02, 35];
        bytes.extend(COMMON_BYTES);
        bytes.extend([0x01, 0x00, 1, 2, 0, 0, 0, 0, 0xc8]);
        bytes.extend(b"Watchdog");
        let record = Record { id: 8, body: Body::Compact(compact) };
        assert_eq!(record.encode().unwrap(), bytes);
        assert_eq!(Record::decode(&bytes), Ok(record));
    }
}
