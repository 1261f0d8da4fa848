// SPDX-License-Identifier: MIT OR Apache-2.0
//! A supply or converter that speaks PMBus. What it has is configured: a command that a part does not know may set its
//! fault bits, so none is tried out.

use serde::Deserialize;

use super::{BusError, Chip, Open};
use crate::formats::pmbus::{Direct, STATUS_FAULTS, VoutMode, command, linear11, vout, vout_mode};
use crate::metric::{Exported, Limits, Meta, Unit};

/// What a part tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantity {
    /// Input voltage.
    Vin,
    /// Input current.
    Iin,
    /// Input power.
    Pin,
    /// Output voltage.
    Vout,
    /// Output current.
    Iout,
    /// Output power.
    Pout,
    /// First thermometer.
    Temperature1,
    /// Second thermometer.
    Temperature2,
    /// First fan.
    Fan1,
    /// Second fan.
    Fan2,
    /// Whether it works at all.
    Status,
}

/// What all parts have that the usual supply is made of.
pub const USUAL: [Quantity; 5] =
    [Quantity::Vin, Quantity::Vout, Quantity::Iout, Quantity::Temperature1, Quantity::Status];

/// How a part is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Setup {
    /// What it tells.
    pub quantities: Vec<Quantity>,
    /// Its page, for parts with several outputs.
    pub page: Option<u8>,
    /// Coefficients of its output voltage, for parts in DIRECT format.
    pub direct: Option<Direct>,
}

pub(super) struct Pmbus {
    setup: Setup,
}

impl Quantity {
    fn command(self) -> u8 {
        match self {
            Self::Vin => command::READ_VIN,
            Self::Iin => command::READ_IIN,
            Self::Pin => command::READ_PIN,
            Self::Vout => command::READ_VOUT,
            Self::Iout => command::READ_IOUT,
            Self::Pout => command::READ_POUT,
            Self::Temperature1 => command::READ_TEMPERATURE_1,
            Self::Temperature2 => command::READ_TEMPERATURE_2,
            Self::Fan1 => command::READ_FAN_SPEED_1,
            Self::Fan2 => command::READ_FAN_SPEED_2,
            Self::Status => command::STATUS_WORD,
        }
    }

    /// Name, unit, and how node_exporter knows what the kernel's pmbus driver makes of it.
    fn told(self) -> (&'static str, Unit, &'static str, &'static str) {
        match self {
            Self::Vin => ("vin", Unit::Volts, "node_hwmon_in_volts", "in1"),
            Self::Vout => ("vout", Unit::Volts, "node_hwmon_in_volts", "in2"),
            Self::Iin => ("iin", Unit::Amperes, "node_hwmon_curr_amps", "curr1"),
            Self::Iout => ("iout", Unit::Amperes, "node_hwmon_curr_amps", "curr2"),
            Self::Pin => ("pin", Unit::Watts, "node_hwmon_power_watt", "power1"),
            Self::Pout => ("pout", Unit::Watts, "node_hwmon_power_watt", "power2"),
            Self::Temperature1 => {
                ("temperature1", Unit::Celsius, "node_hwmon_temp_celsius", "temp1")
            }
            Self::Temperature2 => {
                ("temperature2", Unit::Celsius, "node_hwmon_temp_celsius", "temp2")
            }
            Self::Fan1 => ("fan1", Unit::Rpm, "node_hwmon_fan_rpm", "fan1"),
            Self::Fan2 => ("fan2", Unit::Rpm, "node_hwmon_fan_rpm", "fan2"),
            Self::Status => ("fault", Unit::Alarm, "smbus_monitor_pmbus_fault", "status"),
        }
    }
}

impl Pmbus {
    pub(super) fn new(setup: Setup) -> Self {
        Self { setup }
    }
}

impl Chip for Pmbus {
    fn metas(&self, prefix: &str, interval_ms: u32) -> Vec<Meta> {
        let meta = |quantity: &Quantity| {
            let (name, unit, exported, sensor) = quantity.told();
            let exported = Exported::gauge(exported, &[("chip", prefix), ("sensor", sensor)]);
            let limits = match unit {
                Unit::Alarm => Limits { high_critical: Some(0.5), ..Limits::default() },
                _ => Limits::default(),
            };
            let id = format!("{prefix}/{name}");
            Meta::new(&id, "", unit, interval_ms).exported(exported).limits(limits)
        };
        self.setup.quantities.iter().map(meta).collect()
    }

    fn read(&mut self, open: &mut Open) -> Result<Vec<Result<f64, String>>, BusError> {
        if let Some(page) = self.setup.page {
            open.write_byte(command::PAGE, page)?;
        }
        let mut out = vec![];
        for quantity in &self.setup.quantities {
            let word = open.word(quantity.command())?;
            // No answer at all, as of a supply that was pulled: all lines stay high.
            if word == 0xffff {
                return Err(open.nonsense("all bits are set: the part does not answer"));
            }
            let value = match quantity {
                Quantity::Status => Ok(f64::from(u8::from(word & STATUS_FAULTS != 0))),
                Quantity::Vout => {
                    let mode: VoutMode = vout_mode(open.byte(command::VOUT_MODE)?);
                    let value = vout(word, mode, self.setup.direct);
                    value.ok_or_else(|| {
                        format!("its voltage is told as {mode:?}, for which nothing is configured")
                    })
                }
                _ => Ok(linear11(word)),
            };
            out.push(value);
        }
        Ok(out)
    }
}
