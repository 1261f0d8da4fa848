// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the gadget introduces itself. Hosts use these strings in file names and logs: they are ASCII and short.

/// Longest manufacturer or product, characters. A USB string descriptor holds 126; `f_mass_storage` nothing of it.
const MAX_NAME: usize = 63;
/// Longest serial number, characters.
const MAX_SERIAL: usize = 32;
/// Shortest serial number, characters (USB Mass Storage Bulk-Only Transport 1.0, section 4.1.1).
const MIN_SERIAL: usize = 12;

/// What the host sees of the device as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// USB vendor id.
    pub vendor: u16,
    /// USB product id.
    pub product: u16,
    /// Name of the maker.
    pub manufacturer: String,
    /// Name of the device.
    pub name: String,
    /// Serial number; Windows and Linux tell devices apart by it.
    pub serial: String,
}

impl Identity {
    /// Midplane's own, with the Linux Foundation's id of a composite gadget. `seed` is whatever tells this
    /// controller from all others, such as the machine's id with the controller's name.
    #[must_use]
    pub fn from_seed(seed: &str) -> Self {
        Self {
            vendor: 0x1d6b,
            product: 0x0104,
            manufacturer: "Midplane".into(),
            name: "Midplane drives and keyboard".into(),
            serial: format!("{:016X}", fnv1a(seed.as_bytes())),
        }
    }

    /// The same with strings that any host can take.
    #[must_use]
    pub(crate) fn sanitised(&self) -> Self {
        let mut serial: String =
            self.serial.chars().filter(char::is_ascii_alphanumeric).take(MAX_SERIAL).collect();
        while serial.len() < MIN_SERIAL {
            serial.insert(0, '0');
        }
        Self {
            manufacturer: printable(&self.manufacturer, MAX_NAME),
            name: printable(&self.name, MAX_NAME),
            serial,
            ..self.clone()
        }
    }
}

/// Printable ASCII, at most `max` characters; what is not becomes a question mark.
fn printable(text: &str, max: usize) -> String {
    let plain = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
    text.chars().take(max).map(plain).collect()
}

/// The 28 characters of a SCSI inquiry: vendor 8, product 16, revision 4 (SPC-2, section 7.3.2).
#[must_use]
pub(crate) fn inquiry(product: &str) -> String {
    format!("{:8}{:16}{:4}", "Midplane", printable(product, 16), "1")
}

/// FNV-1a of 64 bits: tells apart, proves nothing.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_made_harmless() {
        let raw = Identity {
            manufacturer: "A\nB\u{1b}[2J".into(),
            name: "x".repeat(500),
            serial: "a-b/../c".into(),
            ..Identity::from_seed("")
        };
        let good = raw.sanitised();
        assert_eq!(good.manufacturer, "A?B?[2J");
        assert_eq!(good.name.len(), 63);
        assert_eq!(good.serial, "000000000abc");
    }

    #[test]
    fn seeds_make_serial_numbers_that_stay() {
        assert_eq!(Identity::from_seed("a").serial, "AF63DC4C8601EC8C");
        assert_ne!(Identity::from_seed("b").serial, Identity::from_seed("a").serial);
    }

    #[test]
    fn an_inquiry_has_its_fixed_fields() {
        assert_eq!(inquiry("CD 1"), "MidplaneCD 1            1   ");
        assert_eq!(inquiry("a product with a long name").len(), 28);
    }
}
