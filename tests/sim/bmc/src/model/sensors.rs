// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sensor and event commands: IPMI 2.0 chapters 29 and 35. The sensor ones serve both controllers.

use std::time::Duration;

use ipmi::CompletionCode;
use ipmi::sdr::Body;
use ipmi::sel::Event;

use super::bank::{Bank, State};
use super::{Answer, Bmc};

/// Reserved bits of states and comparisons read as one (section 35.14).
const RESERVED_ONES: u8 = 0xc0;

fn sensor(bank: &Bank, number: u8) -> Result<&State, CompletionCode> {
    bank.get(number).ok_or(CompletionCode::NOT_PRESENT)
}

fn sensor_mut(bank: &mut Bank, number: u8) -> Result<&mut State, CompletionCode> {
    bank.get_mut(number).ok_or(CompletionCode::NOT_PRESENT)
}

fn analog(sensor: &State) -> Result<(), CompletionCode> {
    if sensor.is_analog() { Ok(()) } else { Err(CompletionCode::ILLEGAL_FOR_SENSOR) }
}

fn status(sensor: &State) -> u8 {
    u8::from(sensor.enables.events) << 7 | u8::from(sensor.enables.scanning) << 6
}

/// A sensor that is not scanned has no reading (bit 5).
pub fn reading(bank: &Bank, now: Duration, data: &[u8]) -> Answer {
    let sensor = sensor(bank, data[0])?;
    if !sensor.enables.scanning {
        return Ok(vec![0, status(sensor) | 0x20, RESERVED_ONES]);
    }
    let raw = sensor.reading(now, bank.seed());
    if sensor.is_analog() {
        return Ok(vec![raw, status(sensor), RESERVED_ONES | sensor.comparison(raw)]);
    }
    let [low, high] = sensor.states().to_le_bytes();
    Ok(vec![0, status(sensor), low, high | 0x80])
}

/// The same factors for all readings: the next one is the reading itself.
pub fn factors(bank: &Bank, data: &[u8]) -> Answer {
    let Body::Full(full) = &sensor(bank, data[0])?.record else {
        return Err(CompletionCode::ILLEGAL_FOR_SENSOR);
    };
    let mut answer = vec![data[1]];
    answer.extend(full.factors.encode());
    Ok(answer)
}

pub fn hysteresis(bank: &Bank, data: &[u8]) -> Answer {
    let sensor = sensor(bank, data[0])?;
    analog(sensor)?;
    Ok(sensor.hysteresis.to_vec())
}

pub fn set_hysteresis(bank: &mut Bank, data: &[u8]) -> Answer {
    let sensor = sensor_mut(bank, data[0])?;
    analog(sensor)?;
    sensor.hysteresis = [data[2], data[3]];
    Ok(vec![])
}

pub fn thresholds(bank: &Bank, data: &[u8]) -> Answer {
    let sensor = sensor(bank, data[0])?;
    analog(sensor)?;
    let mut answer = vec![0x3f];
    answer.extend(sensor.thresholds);
    Ok(answer)
}

pub fn set_thresholds(bank: &mut Bank, data: &[u8]) -> Answer {
    let sensor = sensor_mut(bank, data[0])?;
    analog(sensor)?;
    if data[1] & 0xc0 != 0 {
        return Err(CompletionCode::INVALID_DATA_FIELD);
    }
    for (at, (threshold, value)) in sensor.thresholds.iter_mut().zip(&data[2..]).enumerate() {
        if data[1] >> at & 1 == 1 {
            *threshold = *value;
        }
    }
    Ok(vec![])
}

/// Two masks, of which the end may be missing.
fn masks(data: &[u8]) -> [u16; 2] {
    let byte = |at: usize| data.get(at).copied().unwrap_or(0);
    [[byte(0), byte(1)], [byte(2), byte(3)]].map(u16::from_le_bytes)
}

/// Bits 5:4 say whether the masks switch events on, off, or are not used (section 35.10).
pub fn set_event_enable(bank: &mut Bank, data: &[u8]) -> Answer {
    let sensor = sensor_mut(bank, data[0])?;
    let enables = &mut sensor.enables;
    let [assertions, deassertions] = masks(&data[2..]);
    match data[1] >> 4 & 0x03 {
        0 => {}
        1 => {
            enables.assertions |= assertions;
            enables.deassertions |= deassertions;
        }
        2 => {
            enables.assertions &= !assertions;
            enables.deassertions &= !deassertions;
        }
        _ => return Err(CompletionCode::INVALID_DATA_FIELD),
    }
    enables.events = data[1] & 0x80 != 0;
    enables.scanning = data[1] & 0x40 != 0;
    Ok(vec![])
}

pub fn event_enable(bank: &Bank, data: &[u8]) -> Answer {
    let sensor = sensor(bank, data[0])?;
    let mut answer = vec![status(sensor)];
    answer.extend(sensor.enables.assertions.to_le_bytes());
    answer.extend(sensor.enables.deassertions.to_le_bytes());
    Ok(answer)
}

/// Events that are true are sent again: bit 7 clear means all, else those in the masks.
pub fn rearm(bank: &mut Bank, data: &[u8]) -> Answer {
    let sensor = sensor_mut(bank, data[0])?;
    let [assertions, _] = masks(&data[2..]);
    sensor.asserted &= if data[1] & 0x80 == 0 { 0 } else { !assertions };
    Ok(vec![])
}

pub fn event_status(bank: &Bank, data: &[u8]) -> Answer {
    let sensor = sensor(bank, data[0])?;
    let mut answer = vec![status(sensor)];
    answer.extend(sensor.asserted.to_le_bytes());
    answer.extend([0, 0]);
    Ok(answer)
}

pub fn sensor_type(bank: &Bank, data: &[u8]) -> Answer {
    let (sensor_type, event_type) = sensor(bank, data[0])?.types();
    Ok(vec![sensor_type, event_type])
}

pub fn set_event_receiver(bmc: &mut Bmc, _: Duration, data: &[u8]) -> Answer {
    bmc.event_receiver = [data[0], data[1] & 0x03];
    Ok(vec![])
}

pub fn get_event_receiver(bmc: &mut Bmc, _: Duration, _: &[u8]) -> Answer {
    Ok(bmc.event_receiver.to_vec())
}

/// Over the system interface the first byte says which software sends it (section 29.3). Missing
/// data bytes are unspecified.
pub fn platform_event(bmc: &mut Bmc, now: Duration, data: &[u8]) -> Answer {
    let byte = |at: usize| data.get(at).copied().unwrap_or(0xff);
    let event = Event {
        generator: [data[0], 0],
        revision: data[1],
        sensor_type: data[2],
        sensor: data[3],
        deassertion: data[4] & 0x80 != 0,
        event_type: data[4] & 0x7f,
        data: [data[5], byte(6), byte(7)],
    };
    bmc.post_event(now, event);
    Ok(vec![])
}

impl Bmc {
    /// The BMC's sensors, for looking.
    pub fn bank(&self) -> &Bank {
        &self.bank
    }

    /// Forces a sensor's reading or states; `None` lets it move. Whether there is such a sensor.
    pub fn force_sensor(&mut self, now: Duration, number: u8, value: Option<u16>) -> bool {
        let known = self.bank.force(number, value);
        for event in self.bank.evaluate(now) {
            self.post_event(now, event);
        }
        known
    }

    /// Makes up `count` events of a sensor, or of all sensors in turn. Returns how many were made
    /// and the number that the first one carries in its data bytes 2 and 3.
    pub fn make_events(&mut self, now: Duration, sensor: Option<u8>, count: u32) -> (u32, u16) {
        let first = self.event_counter.wrapping_add(1);
        let numbers: Vec<u8> = match sensor {
            Some(number) => vec![number],
            None => self.bank.sensors().iter().map(|sensor| sensor.number).collect(),
        };
        let mut made = 0;
        for number in numbers.iter().cycle().take(count as usize) {
            let counter = self.event_counter.wrapping_add(1);
            let Some(event) = self.bank.made_up(*number, counter) else { break };
            self.event_counter = counter;
            self.post_event(now, event);
            made += 1;
        }
        (made, first)
    }
}
