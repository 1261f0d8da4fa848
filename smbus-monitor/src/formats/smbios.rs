// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a board is in its chassis, from the SMBIOS table that the kernel shows in `/sys/firmware/dmi/tables/DMI`:
//! DSP0134, structure type 2 (baseboard), string *Location in Chassis* at offset 0x0a. The kernel gives all other
//! texts as files.

/// Most bytes of a table.
pub const MAX_TABLE: u64 = 64 << 10;
const BASEBOARD: u8 = 2;
const LOCATION: usize = 0x0a;

/// The first location that is told, without blanks around it.
#[must_use]
pub fn location_in_chassis(table: &[u8]) -> Option<String> {
    let mut rest = table;
    while let [kind, len, ..] = *rest {
        let body = rest.get(..usize::from(len).max(4))?;
        let strings = &rest[body.len()..];
        // The strings end with an empty one; with none there are two zeros all the same.
        let end = strings.windows(2).position(|pair| pair == [0, 0])?;
        if kind == BASEBOARD {
            let number = usize::from(body.get(LOCATION).copied().unwrap_or(0));
            let mut all = strings[..end].split(|byte| *byte == 0);
            let found = number.checked_sub(1).and_then(|at| all.nth(at));
            let text = found.map(|text| String::from_utf8_lossy(text).trim().to_owned());
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                return Some(text);
            }
        }
        rest = &strings[end + 2..];
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn board(location: u8, strings: &[u8]) -> Vec<u8> {
        let mut body = vec![BASEBOARD, 15, 0, 2, 1, 2, 0, 0, 0, 0, location, 0, 0, 10, 0];
        body.extend(strings);
        body
    }

    #[test]
    fn the_location_is_found_behind_others() {
        let mut table = vec![0, 5, 0, 0, 9, 0, 0];
        table.extend(board(0, b"Maker\0Board\0\0"));
        table.extend(board(3, b"Maker\0Board\0 Slot 07 \0\0"));
        assert_eq!(location_in_chassis(&table).as_deref(), Some("Slot 07"));
        table.truncate(table.len() - 1);
        assert_eq!(location_in_chassis(&table), None);
        assert_eq!(location_in_chassis(&board(9, b"Maker\0\0")), None);
    }

    proptest! {
        #[test]
        fn anything_is_survived(table in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = location_in_chassis(&table);
        }
    }
}
