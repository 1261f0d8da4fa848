// SPDX-License-Identifier: MIT OR Apache-2.0
//! Report descriptors of the keyboard and the mouse (HID 1.11, sections 6.2.2 and appendix B).

/// Subclass "boot interface": what firmware understands.
pub const BOOT: u8 = 1;
/// Boot protocol "keyboard".
pub const KEYBOARD: u8 = 1;
/// Bytes of a keyboard's report: modifiers, reserved, six keys.
pub const KEYBOARD_REPORT: u8 = 8;
/// Bytes of a mouse's report: buttons, X and Y of 16 bits, wheel.
pub const MOUSE_REPORT: u8 = 6;

/// The boot keyboard (HID 1.11, appendix B.1), with LEDs.
#[rustfmt::skip]
pub const KEYBOARD_DESCRIPTOR: &[u8] = &[
    0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, // generic desktop, keyboard, application
    0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, 0x15, 0x00, 0x25, 0x01, 0x75, 0x01, 0x95, 0x08, 0x81, 0x02, // modifiers
    0x95, 0x01, 0x75, 0x08, 0x81, 0x03, // reserved byte
    0x95, 0x05, 0x75, 0x01, 0x05, 0x08, 0x19, 0x01, 0x29, 0x05, 0x91, 0x02, // LEDs
    0x95, 0x01, 0x75, 0x03, 0x91, 0x03, // their padding
    0x95, 0x06, 0x75, 0x08, 0x15, 0x00, 0x26, 0xff, 0x00, 0x05, 0x07, 0x19, 0x00, 0x2a, 0xff, 0x00, 0x81, 0x00, // keys
    0xc0,
];

/// A mouse that says where it is rather than how far it went, so that two screens agree: 0 to 32767 each way.
#[rustfmt::skip]
pub const MOUSE_DESCRIPTOR: &[u8] = &[
    0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00, // generic desktop, mouse, application, pointer
    0x05, 0x09, 0x19, 0x01, 0x29, 0x05, 0x15, 0x00, 0x25, 0x01, 0x95, 0x05, 0x75, 0x01, 0x81, 0x02, // five buttons
    0x95, 0x01, 0x75, 0x03, 0x81, 0x03, // their padding
    0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x16, 0x00, 0x00, 0x26, 0xff, 0x7f, 0x75, 0x10, 0x95, 0x02, 0x81, 0x02, // X, Y
    0x09, 0x38, 0x15, 0x81, 0x25, 0x7f, 0x75, 0x08, 0x95, 0x01, 0x81, 0x06, // wheel
    0xc0, 0xc0,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits of all input items of a descriptor.
    fn input_bits(descriptor: &[u8]) -> u32 {
        let (mut size, mut count, mut bits, mut at) = (0, 0, 0, 0);
        while at < descriptor.len() {
            let len = usize::from(descriptor[at] & 3);
            let value =
                descriptor[at + 1..=at + len].iter().rev().fold(0, |v, b| v << 8 | u32::from(*b));
            match descriptor[at] & 0xfc {
                0x74 => size = value,
                0x94 => count = value,
                0x80 => bits += size * count,
                _ => {}
            }
            at += 1 + len;
        }
        bits
    }

    #[test]
    fn reports_have_the_length_that_is_announced() {
        assert_eq!(input_bits(KEYBOARD_DESCRIPTOR), u32::from(KEYBOARD_REPORT) * 8);
        assert_eq!(input_bits(MOUSE_DESCRIPTOR), u32::from(MOUSE_REPORT) * 8);
    }
}
