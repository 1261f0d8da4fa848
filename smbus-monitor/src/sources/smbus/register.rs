// SPDX-License-Identifier: MIT OR Apache-2.0
//! Registers of a chip that nobody has written a file for: each a number, with a factor and an offset.

use serde::Deserialize;

use super::{BusError, Chip, Open};
use crate::metric::{Meta, Unit};

/// Most registers of a chip.
pub const MAX_REGISTERS: usize = 64;

/// How a register is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Width {
    /// A byte.
    #[default]
    Byte,
    /// A byte in two's complement.
    SignedByte,
    /// Two bytes, the low one first, as SMBus has it.
    Word,
    /// Two bytes, the high one first.
    WordHighFirst,
}

/// A register.
#[derive(Debug, Clone, PartialEq)]
pub struct Register {
    /// Its name.
    pub name: String,
    /// Its number.
    pub register: u8,
    /// How it is read.
    pub width: Width,
    /// Its unit.
    pub unit: Unit,
    /// By what it is multiplied.
    pub scale: f64,
    /// What is added then.
    pub offset: f64,
}

pub(super) struct Registers(pub Vec<Register>);

impl Chip for Registers {
    fn metas(&self, prefix: &str, interval_ms: u32) -> Vec<Meta> {
        let meta =
            |r: &Register| Meta::new(&format!("{prefix}/{}", r.name), "", r.unit, interval_ms);
        self.0.iter().map(meta).collect()
    }

    fn read(&mut self, open: &mut Open) -> Result<Vec<Result<f64, String>>, BusError> {
        let mut out = vec![];
        for one in &self.0 {
            let raw = match one.width {
                Width::Byte => f64::from(open.byte(one.register)?),
                Width::SignedByte => f64::from(open.byte(one.register)? as i8),
                Width::Word => f64::from(open.word(one.register)?),
                Width::WordHighFirst => f64::from(open.word(one.register)?.swap_bytes()),
            };
            out.push(Ok(raw * one.scale + one.offset));
        }
        Ok(out)
    }
}
