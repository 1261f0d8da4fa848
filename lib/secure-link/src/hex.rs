// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hexadecimal digits of keys and ids.

use zeroize::Zeroizing;

/// Two lower-case digits for each byte.
#[must_use]
pub(crate) fn encode(bytes: &[u8]) -> Zeroizing<String> {
    // With room for all: a string that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 2));
    for byte in bytes {
        for value in [byte >> 4, byte & 15] {
            text.push(char::from_digit(value.into(), 16).expect("four bits are a digit"));
        }
    }
    text
}

/// Reads exactly as many bytes as `out` has; digits of either case.
pub(crate) fn decode(text: &str, out: &mut [u8]) -> Option<()> {
    let digits = text.as_bytes();
    if digits.len() != out.len() * 2 {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_there_and_back() {
        for byte in 0..=255 {
            let text = encode(&[byte]);
            assert_eq!(*text, format!("{byte:02x}"));
            let mut out = [0];
            assert_eq!((decode(&text, &mut out), out), (Some(()), [byte]));
        }
        assert!(decode("0g", &mut [0]).is_none() && decode("000", &mut [0]).is_none());
        assert!(decode("é", &mut [0]).is_none());
    }
}
