// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the byte that a sensor gives to the value it means, and back: IPMI 2.0 section 36.3.
//!
//! `value = L[(M × raw + B × 10^Bexp) × 10^Rexp]`.

/// How the raw byte of an analog sensor is to be read (record byte 21, bits 7:6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Analog {
    /// 0 to 255.
    Unsigned,
    /// One's complement.
    OnesComplement,
    /// Two's complement.
    TwosComplement,
    /// The sensor gives no analog reading.
    None,
}

impl Analog {
    pub(super) fn from_bits(bits: u8) -> Self {
        match bits & 0x03 {
            0 => Self::Unsigned,
            1 => Self::OnesComplement,
            2 => Self::TwosComplement,
            _ => Self::None,
        }
    }

    pub(super) fn bits(self) -> u8 {
        match self {
            Self::Unsigned => 0,
            Self::OnesComplement => 1,
            Self::TwosComplement => 2,
            Self::None => 3,
        }
    }

    /// The number that `raw` stands for.
    pub fn number(self, raw: u8) -> Option<i16> {
        match self {
            Self::Unsigned => Some(i16::from(raw)),
            Self::OnesComplement if raw & 0x80 != 0 => Some(-i16::from(!raw)),
            Self::OnesComplement => Some(i16::from(raw)),
            Self::TwosComplement => Some(i16::from(raw.cast_signed())),
            Self::None => None,
        }
    }

    /// The byte nearest to `number`, at the end of the range when it lies outside.
    fn raw(self, number: f64) -> Option<u8> {
        let (low, high) = match self {
            Self::Unsigned => (0.0, 255.0),
            Self::OnesComplement => (-127.0, 127.0),
            Self::TwosComplement => (-128.0, 127.0),
            Self::None => return None,
        };
        if number.is_nan() {
            return None;
        }
        let number = number.round().clamp(low, high) as i16;
        let byte = number.to_le_bytes()[0];
        Some(if self == Self::OnesComplement && number < 0 { byte.wrapping_sub(1) } else { byte })
    }
}

/// The function `L` (record byte 24): section 43.1, table 43-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linearization(pub u8);

impl Linearization {
    /// No function.
    pub const LINEAR: Self = Self(0x00);

    fn apply(self, y: f64) -> Option<f64> {
        Some(match self.0 & 0x7f {
            0x00 => y,
            0x01 => y.ln(),
            0x02 => y.log10(),
            0x03 => y.log2(),
            0x04 => y.exp(),
            0x05 => 10f64.powf(y),
            0x06 => y.exp2(),
            0x07 => 1.0 / y,
            0x08 => y.powi(2),
            0x09 => y.powi(3),
            0x0a => y.sqrt(),
            0x0b => y.cbrt(),
            // Non-linear: the factors are to be asked for each reading (Get Sensor Reading Factors).
            _ => return None,
        })
    }

    fn undo(self, value: f64) -> Option<f64> {
        Some(match self.0 & 0x7f {
            0x00 => value,
            0x01 => value.exp(),
            0x02 => 10f64.powf(value),
            0x03 => value.exp2(),
            0x04 => value.ln(),
            0x05 => value.log10(),
            0x06 => value.log2(),
            0x07 => 1.0 / value,
            0x08 => value.sqrt(),
            0x09 => value.cbrt(),
            0x0a => value.powi(2),
            0x0b => value.powi(3),
            _ => return None,
        })
    }
}

/// Conversion factors of a sensor (record bytes 24 to 30, without the format).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Factors {
    /// Function applied last.
    pub linearization: Linearization,
    /// Multiplier, −512 to 511.
    pub m: i16,
    /// Offset, −512 to 511.
    pub b: i16,
    /// Power of ten of the offset, −8 to 7.
    pub b_exp: i8,
    /// Power of ten of the result, −8 to 7.
    pub r_exp: i8,
    /// Tolerance, in halves of a raw count, 0 to 63.
    pub tolerance: u8,
    /// Accuracy, in hundredths of a percent times ten to [`Factors::accuracy_exp`], 0 to 1023.
    pub accuracy: u16,
    /// Power of ten of the accuracy, 0 to 3.
    pub accuracy_exp: u8,
    /// 0 not said, 1 input, 2 output.
    pub direction: u8,
}

impl Factors {
    /// `value = m × raw × 10^r_exp`, with nothing said of accuracy.
    pub const fn linear(m: i16, b: i16, b_exp: i8, r_exp: i8) -> Self {
        Self {
            linearization: Linearization::LINEAR,
            m,
            b,
            b_exp,
            r_exp,
            tolerance: 0,
            accuracy: 0,
            accuracy_exp: 0,
            direction: 0,
        }
    }

    /// The value that `raw` means. `None` when the sensor is not analog or not linearisable, or
    /// when the function has no value there.
    pub fn value(&self, format: Analog, raw: u8) -> Option<f64> {
        let number = f64::from(format.number(raw)?);
        let offset = f64::from(self.b) * 10f64.powi(i32::from(self.b_exp));
        let y = (f64::from(self.m) * number + offset) * 10f64.powi(i32::from(self.r_exp));
        self.linearization.apply(y).filter(|value| value.is_finite())
    }

    /// The byte whose value is nearest to `value`; the end of the range when it lies outside.
    /// `None` as for [`Factors::value`], and when `m` is 0.
    pub fn raw(&self, format: Analog, value: f64) -> Option<u8> {
        if self.m == 0 {
            return None;
        }
        let y = self.linearization.undo(value)?;
        let offset = f64::from(self.b) * 10f64.powi(i32::from(self.b_exp));
        let number = (y / 10f64.powi(i32::from(self.r_exp)) - offset) / f64::from(self.m);
        format.raw(number)
    }

    /// Record bytes 25 to 30; also the last six bytes of Get Sensor Reading Factors.
    pub fn encode(&self) -> [u8; 6] {
        let [m_low, m_high] = self.m.to_le_bytes();
        let [b_low, b_high] = self.b.to_le_bytes();
        let [accuracy_low, accuracy_high] = self.accuracy.to_le_bytes();
        [
            m_low,
            m_high << 6 | self.tolerance & 0x3f,
            b_low,
            b_high << 6 | accuracy_low & 0x3f,
            (accuracy_high << 2 | accuracy_low >> 6) << 4
                | (self.accuracy_exp & 0x03) << 2
                | self.direction & 0x03,
            self.r_exp.cast_unsigned() << 4 | self.b_exp.cast_unsigned() & 0x0f,
        ]
    }

    /// Reads what [`Factors::encode`] wrote.
    pub fn decode(linearization: Linearization, bytes: [u8; 6]) -> Self {
        let [m, m_tolerance, b, b_accuracy, accuracy, exponents] = bytes;
        Self {
            linearization,
            m: ten_bits(m, m_tolerance),
            b: ten_bits(b, b_accuracy),
            b_exp: (exponents << 4).cast_signed() >> 4,
            r_exp: exponents.cast_signed() >> 4,
            tolerance: m_tolerance & 0x3f,
            accuracy: u16::from(accuracy >> 4) << 6 | u16::from(b_accuracy & 0x3f),
            accuracy_exp: accuracy >> 2 & 0x03,
            direction: accuracy & 0x03,
        }
    }
}

/// A signed number of ten bits: eight in `low`, two in bits 7:6 of `high`.
fn ten_bits(low: u8, high: u8) -> i16 {
    i16::from(high.cast_signed() >> 6) << 8 | i16::from(low)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(found: Option<f64>, expected: f64) {
        let found = found.unwrap();
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }

    #[test]
    fn values_by_hand() {
        // 12 V rail: 0.06 V per count.
        close(Factors::linear(6, 0, 0, -2).value(Analog::Unsigned, 200), 12.0);
        // (5 × 100 − 64 × 10^1) × 10^−2
        close(Factors::linear(5, -64, 1, -2).value(Analog::Unsigned, 100), -1.4);
        close(Factors::linear(1, 0, 0, 0).value(Analog::TwosComplement, 0xfb), -5.0);
        close(Factors::linear(1, 0, 0, 0).value(Analog::OnesComplement, 0xfb), -4.0);
        let inverse = Factors { linearization: Linearization(7), ..Factors::linear(2, 0, 0, 0) };
        close(inverse.value(Analog::Unsigned, 5), 0.1);
        assert_eq!(inverse.value(Analog::Unsigned, 0), None);
        assert_eq!(inverse.raw(Analog::Unsigned, 0.1), Some(5));
    }

    #[test]
    fn outside_the_range_is_its_end() {
        let factors = Factors::linear(1, 0, 0, 0);
        assert_eq!(factors.raw(Analog::Unsigned, 300.0), Some(255));
        assert_eq!(factors.raw(Analog::Unsigned, -3.0), Some(0));
        assert_eq!(factors.raw(Analog::TwosComplement, -300.0), Some(0x80));
        assert_eq!(factors.raw(Analog::OnesComplement, -300.0), Some(0x80));
        assert_eq!(factors.raw(Analog::Unsigned, f64::NAN), None);
        assert_eq!(Factors::linear(0, 0, 0, 0).raw(Analog::Unsigned, 1.0), None);
        assert_eq!(factors.value(Analog::None, 1), None);
    }

    proptest! {
        #[test]
        fn encoding_round_trip(bytes: [u8; 6]) {
            let factors = Factors::decode(Linearization::LINEAR, bytes);
            prop_assert_eq!(factors.encode(), bytes);
            prop_assert!((-512..512).contains(&factors.m) && (-512..512).contains(&factors.b));
        }

        /// Every raw byte of a linear sensor comes back from its value.
        #[test]
        fn conversion_round_trip(
            m in prop_oneof![-512i16..0, 1i16..512],
            b in -512i16..512,
            b_exp in -8i8..3,
            r_exp in -8i8..8,
            raw: u8,
            format in prop_oneof![
                Just(Analog::Unsigned), Just(Analog::OnesComplement), Just(Analog::TwosComplement)
            ],
        ) {
            // One's complement has two zeros.
            prop_assume!(format != Analog::OnesComplement || raw != 0xff);
            let factors = Factors::linear(m, b, b_exp, r_exp);
            let value = factors.value(format, raw).unwrap();
            prop_assert_eq!(factors.raw(format, value), Some(raw));
        }
    }
}
