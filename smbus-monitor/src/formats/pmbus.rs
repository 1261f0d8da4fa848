// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers and commands of PMBus: *PMBus Power System Management Protocol Specification, Part II*, revision 1.3.1,
//! chapters 7 (data formats), 8.3 (`VOUT_MODE`), 17 (status), 18 (readings) and 22 (identification).

/// Commands, by their names there.
#[allow(missing_docs, reason = "the names are the specification's")]
pub mod command {
    pub const PAGE: u8 = 0x00;
    pub const VOUT_MODE: u8 = 0x20;
    pub const STATUS_WORD: u8 = 0x79;
    pub const READ_VIN: u8 = 0x88;
    pub const READ_IIN: u8 = 0x89;
    pub const READ_VOUT: u8 = 0x8b;
    pub const READ_IOUT: u8 = 0x8c;
    pub const READ_TEMPERATURE_1: u8 = 0x8d;
    pub const READ_TEMPERATURE_2: u8 = 0x8e;
    pub const READ_FAN_SPEED_1: u8 = 0x90;
    pub const READ_FAN_SPEED_2: u8 = 0x91;
    pub const READ_POUT: u8 = 0x96;
    pub const READ_PIN: u8 = 0x97;
    pub const MFR_ID: u8 = 0x99;
    pub const MFR_MODEL: u8 = 0x9a;
    pub const MFR_SERIAL: u8 = 0x9e;
}

/// Bits of `STATUS_WORD` (table 16) that are no event of the past but say that a supply does not work: `OFF`,
/// `VOUT_OV_FAULT`, `IOUT_OC_FAULT`, `VIN_UV_FAULT`, `TEMPERATURE`, `FANS`.
pub const STATUS_FAULTS: u16 = 0x0040 | 0x0020 | 0x0010 | 0x0008 | 0x0004 | 0x0400;

/// LINEAR11 (7.3): five bits of exponent, eleven of mantissa, both in two's complement.
#[must_use]
pub fn linear11(word: u16) -> f64 {
    let exponent = i32::from((word as i16) >> 11);
    let mantissa = i32::from(((word << 5) as i16) >> 5);
    f64::from(mantissa) * 2f64.powi(exponent)
}

/// How the output voltage is told: `VOUT_MODE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoutMode {
    /// A mantissa of 16 bits with this exponent (8.3.1).
    Linear(i8),
    /// A code of a processor's supply, which is of no use without its table.
    Vid,
    /// As in 7.4, with the coefficients of the configuration.
    Direct,
    /// Half precision (IEEE 754).
    Half,
}

/// Reads `VOUT_MODE`. Bit 7, which says relative, is about commands and not readings.
#[must_use]
pub fn vout_mode(byte: u8) -> VoutMode {
    match byte >> 5 & 0x03 {
        0 => VoutMode::Linear(((byte << 3) as i8) >> 3),
        1 => VoutMode::Vid,
        2 => VoutMode::Direct,
        _ => VoutMode::Half,
    }
}

/// Coefficients of the DIRECT format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Direct {
    /// Slope.
    pub m: i16,
    /// Offset.
    pub b: i16,
    /// Exponent.
    pub r: i8,
}

/// DIRECT (7.4): `X = (Y × 10^-R − b) / m`. None with a slope of 0.
#[must_use]
pub fn direct(word: u16, Direct { m, b, r }: Direct) -> Option<f64> {
    let y = f64::from(word as i16) * 10f64.powi(-i32::from(r));
    (m != 0).then(|| (y - f64::from(b)) / f64::from(m))
}

/// Half precision: 1 bit of sign, 5 of exponent, 10 of fraction.
#[must_use]
pub fn half(word: u16) -> f64 {
    let sign = if word >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(word >> 10 & 0x1f), f64::from(word & 0x3ff) / 1024.0);
    match exponent {
        0 => sign * fraction * 2f64.powi(-14),
        31 if fraction == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        _ => sign * (1.0 + fraction) * 2f64.powi(exponent - 15),
    }
}

/// `READ_VOUT` in volts.
#[must_use]
pub fn vout(word: u16, mode: VoutMode, coefficients: Option<Direct>) -> Option<f64> {
    match mode {
        VoutMode::Linear(exponent) => Some(f64::from(word) * 2f64.powi(exponent.into())),
        VoutMode::Direct => direct(word, coefficients?),
        VoutMode::Half => Some(half(word)),
        VoutMode::Vid => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the kernel's `pmbus_core.c` makes of the same words (`pmbus_reg2data_linear`), in micro-units.
    fn kernel_linear(word: u16) -> i64 {
        let (exponent, mantissa) =
            (i64::from((word as i16) >> 11), i64::from(((word & 0x7ff) << 5) as i16 >> 5));
        let value = mantissa * 1_000_000;
        if exponent >= 0 { value << exponent } else { value >> -exponent }
    }

    #[test]
    fn golden_numbers() {
        assert_eq!(linear11(0xd3c0), 15.0);
        assert_eq!(linear11(0xe819), 3.125);
        assert_eq!(linear11(0x07ff), -1.0);
        assert_eq!(linear11(0x0000), 0.0);
        assert_eq!(vout_mode(0x17), VoutMode::Linear(-9));
        assert_eq!(vout(0x1800, VoutMode::Linear(-9), None), Some(12.0));
        assert_eq!(vout_mode(0x40), VoutMode::Direct);
        assert_eq!(direct(1200, Direct { m: 1, b: 0, r: 2 }), Some(12.0));
        assert_eq!(direct(1200, Direct { m: 0, b: 0, r: 2 }), None);
        assert_eq!(vout(1, VoutMode::Vid, None), None);
        assert_eq!(half(0x4a00), 12.0);
        assert_eq!(half(0xc000), -2.0);
        assert!(half(0x7e00).is_nan() && half(0x7c00).is_infinite());
    }

    proptest! {
        #[test]
        fn as_the_kernel_has_it(word: u16) {
            let ours = linear11(word) * 1e6;
            prop_assert!((ours - kernel_linear(word) as f64).abs() <= 1.0, "{word:#x}: {ours}");
        }
    }
}
