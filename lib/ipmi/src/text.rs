// SPDX-License-Identifier: MIT OR Apache-2.0
//! Strings behind a type/length byte, in sensor records and inventory areas.
//!
//! IPMI 2.0 section 43.15 and *Platform Management FRU Information Storage Definition* v1.0,
//! chapter 13. Bits 7:6 say how the characters are packed, the low bits how many bytes there are
//! (five bits in a sensor record, six in an inventory area). We write 8-bit characters only.

use thiserror::Error;

/// Bits 7:6 for 8-bit ASCII and Latin 1.
const EIGHT_BIT: u8 = 0xc0;

/// A string that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TextError {
    /// More characters than the field holds.
    #[error("text of {len} characters is too long, at most {max} fit")]
    TooLong {
        /// Characters in the text.
        len: usize,
        /// Characters that fit.
        max: usize,
    },
    /// A character outside Latin 1.
    #[error("character {0:?} is not in Latin 1")]
    NotLatin1(char),
}

/// The type/length byte and the characters, 8 bits each; `max` is at most 63.
///
/// One character alone is followed by a space, because in an inventory area its type/length byte
/// would be the mark of the end.
///
/// # Errors
/// Too long, or a character outside Latin 1.
pub fn encode(text: &str, max: usize) -> Result<Vec<u8>, TextError> {
    let len = text.chars().count();
    if len > max.min(63) {
        return Err(TextError::TooLong { len, max: max.min(63) });
    }
    let mut bytes = vec![0];
    for c in text.chars() {
        bytes.push(u8::try_from(c).map_err(|_| TextError::NotLatin1(c))?);
    }
    if len == 1 {
        bytes.push(b' ');
    }
    // At most 63, see above.
    bytes[0] = EIGHT_BIT | (bytes.len() - 1) as u8;
    Ok(bytes)
}

/// Reads characters by the type in bits 7:6 of `type_length`; spaces and zeros at the end are
/// dropped. Type 0 (binary, or Unicode without a stated form) comes out in hexadecimal.
pub fn decode(type_length: u8, bytes: &[u8]) -> String {
    let text: String = match type_length >> 6 {
        0 => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        1 => bytes.iter().flat_map(|byte| [bcd_plus(byte >> 4), bcd_plus(byte & 0x0f)]).collect(),
        2 => six_bit(bytes),
        _ => bytes.iter().map(|byte| char::from(*byte)).collect(),
    };
    text.trim_end_matches([' ', '\0']).to_owned()
}

fn bcd_plus(nibble: u8) -> char {
    const DIGITS: &[u8; 16] = b"0123456789 -.:,_";
    char::from(DIGITS[usize::from(nibble & 0x0f)])
}

/// Four characters in three bytes, first character in the low bits of the first byte.
fn six_bit(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 4 / 3);
    for chunk in bytes.chunks(3) {
        let packed = chunk
            .iter()
            .enumerate()
            .fold(0u32, |sum, (at, byte)| sum | u32::from(*byte) << (8 * at));
        for at in 0..(chunk.len() * 8 / 6) {
            // Six bits and 0x20 stay under 0x60.
            text.push(char::from((packed >> (6 * at) & 0x3f) as u8 + 0x20));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bit_text_goes_both_ways() {
        let bytes = encode("CPU1 Temp", 16).unwrap();
        assert_eq!(bytes[0], 0xc9);
        assert_eq!(decode(bytes[0], &bytes[1..]), "CPU1 Temp");
        assert_eq!(encode("", 16).unwrap(), [0xc0]);
        assert_eq!(encode("A", 16).unwrap(), [0xc2, b'A', b' ']);
        assert_eq!(decode(0xc2, b"A "), "A");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(encode("12345", 4), Err(TextError::TooLong { len: 5, max: 4 }));
        assert_eq!(encode("\u{20ac}", 4), Err(TextError::NotLatin1('\u{20ac}')));
        assert!(encode("\u{e9}", 4).is_ok());
    }

    /// The example of the FRU definition, section 13.3: "IPMI" packed into three bytes.
    #[test]
    fn packed_text_is_read() {
        assert_eq!(decode(0x83, &[0x29, 0xdc, 0xa6]), "IPMI");
        assert_eq!(decode(0x42, &[0x12, 0x3b]), "123-");
        assert_eq!(decode(0x02, &[0x12, 0xab]), "12ab");
    }
}
