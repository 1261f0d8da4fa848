// SPDX-License-Identifier: MIT OR Apache-2.0
//! LM75 and its kin: register 0 is the temperature, two's complement, high byte first, 1/256 degrees with as many
//! bits as the part has.

use super::{BusError, Chip, Open};
use crate::metric::{Exported, Meta, Unit};

const TEMPERATURE: u8 = 0x00;

pub(super) struct Lm75;

fn celsius(word: u16) -> f64 {
    f64::from(word.swap_bytes() as i16) / 256.0
}

impl Chip for Lm75 {
    fn metas(&self, prefix: &str, interval_ms: u32) -> Vec<Meta> {
        let id = format!("{prefix}/temperature");
        let exported =
            Exported::gauge("node_hwmon_temp_celsius", &[("chip", prefix), ("sensor", "temp1")]);
        vec![Meta::new(&id, "", Unit::Celsius, interval_ms).exported(exported)]
    }

    fn read(&mut self, open: &mut Open) -> Result<Vec<Result<f64, String>>, BusError> {
        let word = open.word(TEMPERATURE)?;
        // All lines high: nobody drives the bus.
        if word == 0xffff {
            return Err(open.nonsense("all bits are set: the chip does not answer"));
        }
        Ok(vec![Ok(celsius(word))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_temperatures() {
        for (word, degrees) in [(0x0019, 25.0), (0x8019, 25.5), (0x80ff, -0.5), (0x00e7, -25.0)] {
            assert_eq!(celsius(word), degrees, "{word:#06x}");
        }
    }
}
