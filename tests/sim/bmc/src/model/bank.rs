// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sensors of a controller: readings, thresholds, and the events that follow.
//!
//! A reading is a function of the seed, the sensor and the second, so that two runs agree and two
//! clients within a second agree.

use std::f64::consts::TAU;
use std::time::Duration;

use ipmi::sdr::{Analog, Body, SensorKey};
use ipmi::sel::Event;

use super::device::mix;
use super::shape::{SENSOR_SPECIFIC, Shape, THRESHOLD};

/// Number of the BMC's watchdog sensor.
pub const WATCHDOG_SENSOR: u8 = 1;

/// The offset of the event for each threshold in the order of the commands: lower non-critical,
/// critical, non-recoverable going low, upper ones going high (IPMI 2.0 table 42-2).
const OFFSETS: [u8; 6] = [0, 2, 4, 7, 9, 11];

/// Which events a sensor may send.
#[derive(Debug, Clone, Copy)]
pub struct Enables {
    /// Any at all.
    pub events: bool,
    /// Whether it is read.
    pub scanning: bool,
    /// Events that appear, one bit for each offset.
    pub assertions: u16,
    /// Events that go away.
    pub deassertions: u16,
}

/// One sensor.
#[derive(Debug)]
pub struct State {
    /// Number.
    pub number: u8,
    shape: Shape,
    /// Its record.
    pub record: Body,
    /// Thresholds in the order of the commands (see `OFFSETS`); unused for states.
    pub thresholds: [u8; 6],
    /// Positive-going and negative-going hysteresis, raw counts.
    pub hysteresis: [u8; 2],
    /// Which events it may send.
    pub enables: Enables,
    /// Offsets that are asserted.
    pub asserted: u16,
    /// Set from outside: the raw reading.
    forced: Option<u8>,
    /// Discrete states.
    states: u16,
}

impl State {
    fn new(owner: u8, number: u8, shape: Shape, prefix: &str, instance: u8) -> Self {
        let key = SensorKey { owner, lun: 0, number };
        let (record, thresholds, hysteresis, enables, states) = match shape {
            Shape::Measure(measure) => {
                let full = measure.record(key, prefix, instance);
                let t = full.thresholds;
                let thresholds = [
                    t.lower_non_critical,
                    t.lower_critical,
                    t.lower_non_recoverable,
                    t.upper_non_critical,
                    t.upper_critical,
                    t.upper_non_recoverable,
                ];
                let hysteresis = [full.hysteresis_up, full.hysteresis_down];
                let all = full.sensor.masks[0] & 0x0fff;
                (Body::Full(full), thresholds, hysteresis, all, 0)
            }
            Shape::States(states) => {
                let compact = states.record(key, instance);
                (Body::Compact(compact), [0; 6], [0; 2], states.mask(), states.initial)
            }
        };
        Self {
            number,
            shape,
            record,
            thresholds,
            hysteresis,
            enables: Enables {
                events: true,
                scanning: true,
                assertions: enables,
                deassertions: enables,
            },
            asserted: 0,
            forced: None,
            states,
        }
    }

    /// Whether it measures.
    pub fn is_analog(&self) -> bool {
        matches!(self.shape, Shape::Measure(_))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        match &self.record {
            Body::Full(full) => &full.name,
            Body::Compact(compact) => &compact.name,
            _ => "",
        }
    }

    /// Sensor type and event/reading type.
    pub fn types(&self) -> (u8, u8) {
        match &self.record {
            Body::Full(full) => (full.sensor.sensor_type, THRESHOLD),
            Body::Compact(compact) => (compact.sensor.sensor_type, compact.sensor.event_type),
            _ => (0, SENSOR_SPECIFIC),
        }
    }

    /// The raw reading at a time; 0 for states.
    pub fn reading(&self, now: Duration, seed: u64) -> u8 {
        let Shape::Measure(measure) = self.shape else { return 0 };
        if let Some(raw) = self.forced {
            return raw;
        }
        let second = now.as_secs();
        let own = mix(seed, u64::from(self.number));
        // Each sensor swings in its own time, 40 to 295 s, with its own start.
        let period = (40 + (own & 0xff)) as f64;
        let start = (own >> 8 & 0xff) as f64 / 256.0;
        let wave = (TAU * (second as f64 / period + start)).sin() * 0.8;
        let noise = (mix(own, second) % 401) as f64 / 1000.0 - 0.2;
        measure.raw(measure.nominal + measure.swing * (wave + noise))
    }

    /// Discrete states.
    pub fn states(&self) -> u16 {
        self.states
    }

    fn number_of(&self, raw: u8) -> i16 {
        let format = match &self.record {
            Body::Full(full) => full.sensor.format,
            _ => Analog::Unsigned,
        };
        format.number(raw).unwrap_or(0)
    }

    /// Comparison bits as Get Sensor Reading gives them: at or beyond each threshold, with
    /// hysteresis for those that were.
    pub fn comparison(&self, raw: u8) -> u8 {
        if !self.is_analog() {
            return 0;
        }
        let reading = self.number_of(raw);
        let mut bits = 0;
        for (at, threshold) in self.thresholds.iter().enumerate() {
            let threshold = self.number_of(*threshold);
            let was = self.asserted >> OFFSETS[at] & 1 == 1;
            let slack = |hysteresis: u8| if was { i16::from(hysteresis) } else { 0 };
            let beyond = if at < 3 {
                reading <= threshold + slack(self.hysteresis[0])
            } else {
                reading >= threshold - slack(self.hysteresis[1])
            };
            bits |= u8::from(beyond) << at;
        }
        bits
    }

    /// Offsets that are true now.
    fn active(&self, raw: u8) -> u16 {
        if !self.is_analog() {
            return self.states;
        }
        let bits = self.comparison(raw);
        let offsets = OFFSETS.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
        offsets.fold(0, |all, (_, offset)| all | 1 << offset)
    }

    /// The event for one offset. Readings carry reading and threshold in the other two bytes.
    fn event(&self, owner: u8, offset: u8, deassertion: bool, raw: u8) -> Event {
        let (sensor_type, event_type) = self.types();
        let data = match OFFSETS.iter().position(|o| *o == offset) {
            Some(at) if self.is_analog() => [0x50 | offset, raw, self.thresholds[at]],
            _ => [offset, 0xff, 0xff],
        };
        Event {
            generator: [owner, 0],
            revision: 0x04,
            sensor_type,
            sensor: self.number,
            deassertion,
            event_type,
            data,
        }
    }
}

/// All sensors of a controller.
#[derive(Debug)]
pub struct Bank {
    owner: u8,
    seed: u64,
    sensors: Vec<State>,
    /// The second for which events were last looked for.
    evaluated: Option<u64>,
}

impl Bank {
    /// The BMC's sensors, numbered from 1.
    pub fn bmc(count: u8, seed: u64) -> Self {
        let owner = super::messaging::BMC_ADDRESS;
        let sensor =
            |number: u8| State::new(owner, number, Shape::of(number), "", (number - 1) / 10 + 1);
        let mut bank =
            Self { owner, seed, sensors: (1..=count).map(sensor).collect(), evaluated: None };
        // What is true at start is no event.
        for sensor in &mut bank.sensors {
            sensor.asserted = sensor.active(sensor.reading(Duration::ZERO, seed));
        }
        bank
    }

    /// The second controller's sensors.
    pub fn satellite(count: u8, seed: u64) -> Self {
        let owner = super::messaging::SATELLITE_ADDRESS;
        let sensor = |number| State::new(owner, number, Shape::satellite(), "Sat ", number);
        Self {
            owner,
            seed: mix(seed, 0x82),
            sensors: (1..=count).map(sensor).collect(),
            evaluated: None,
        }
    }

    /// Number of sensors.
    pub fn len(&self) -> usize {
        self.sensors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sensors.is_empty()
    }

    /// The seed of the readings.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// All sensors.
    pub fn sensors(&self) -> &[State] {
        &self.sensors
    }

    /// Their records.
    pub fn records(&self) -> impl Iterator<Item = Body> + '_ {
        self.sensors.iter().map(|sensor| sensor.record.clone())
    }

    /// One sensor.
    pub fn get(&self, number: u8) -> Option<&State> {
        self.sensors.iter().find(|sensor| sensor.number == number)
    }

    /// One sensor, to change it. Events are looked for again at the next chance.
    pub fn get_mut(&mut self, number: u8) -> Option<&mut State> {
        self.evaluated = None;
        self.sensors.iter_mut().find(|sensor| sensor.number == number)
    }

    /// Sets the states of a discrete sensor without an event: its caller sends one itself.
    pub fn set_state(&mut self, number: u8, states: u16) {
        if let Some(sensor) = self.get_mut(number)
            && !sensor.is_analog()
        {
            sensor.states = states;
            sensor.asserted = states;
        }
    }

    /// Forces a raw reading, or the states of a discrete sensor; `None` lets it move again.
    /// Returns whether there is such a sensor.
    pub fn force(&mut self, number: u8, value: Option<u16>) -> bool {
        let Some(sensor) = self.get_mut(number) else { return false };
        match sensor.shape {
            Shape::Measure(_) => sensor.forced = value.map(|value| value.to_le_bytes()[0]),
            Shape::States(states) => sensor.states = value.unwrap_or(states.initial),
        }
        true
    }

    /// Once a second: which events have come and gone.
    pub fn evaluate(&mut self, now: Duration) -> Vec<Event> {
        let second = now.as_secs();
        if self.evaluated == Some(second) {
            return Vec::new();
        }
        self.evaluated = Some(second);
        let mut events = Vec::new();
        for sensor in self.sensors.iter_mut().filter(|sensor| sensor.enables.scanning) {
            let raw = sensor.reading(now, self.seed);
            let active = sensor.active(raw);
            let changed = active ^ sensor.asserted;
            sensor.asserted = active;
            for offset in (0..15).filter(|offset| changed >> offset & 1 == 1) {
                let deassertion = active >> offset & 1 == 0;
                let enables = sensor.enables;
                let mask = if deassertion { enables.deassertions } else { enables.assertions };
                if enables.events && mask >> offset & 1 == 1 {
                    events.push(sensor.event(self.owner, offset, deassertion, raw));
                }
            }
        }
        events
    }

    /// An event made up on command: upper critical for what measures, the first state otherwise.
    /// Bytes 2 and 3 carry `count`, so that each can be told from the others.
    pub fn made_up(&self, number: u8, count: u16) -> Option<Event> {
        let sensor = self.get(number)?;
        let offset = if sensor.is_analog() { OFFSETS[4] } else { 0 };
        let [low, high] = count.to_le_bytes();
        let event = sensor.event(self.owner, offset, false, 0);
        // 0xa0: both bytes are the vendor's.
        Some(Event { data: [0xa0 | offset, low, high], ..event })
    }
}

#[cfg(test)]
mod tests;
