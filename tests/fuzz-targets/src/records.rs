// SPDX-License-Identifier: MIT OR Apache-2.0
//! The records that IPMI messages carry. Each is read as it is and again with its lengths and
//! checksums put right, so that damage behind them is found as well.

use ipmi::message::checksum;
use ipmi::sdr::{Body, Record, SdrError};
use ipmi::{fru, ipmb, sel};

use crate::Reached;

pub fn ipmb(bytes: &[u8], reached: &mut Reached) {
    let mut mended = bytes.to_vec();
    if let [to, netfn, first, rest @ .., last] = &mut mended[..] {
        *first = checksum(&[*to, *netfn]);
        *last = checksum(rest);
    }
    for bytes in [bytes, &mended] {
        if let Ok(message) = ipmb::decode(bytes) {
            reached.insert("ipmb");
            assert_eq!(ipmb::encode(&message), bytes, "every bit of a message is kept");
            let answer = message.respond(vec![0]);
            assert_eq!(ipmb::decode(&ipmb::encode(&answer)), Ok(answer));
        }
    }
}

pub fn sdr(bytes: &[u8], reached: &mut Reached) {
    let mut mended = bytes.to_vec();
    if let [_, _, _, _, len, body @ ..] = &mut mended[..] {
        *len = body.len() as u8;
    }
    for bytes in [bytes, &mended] {
        let Ok(record) = Record::decode(bytes) else { continue };
        reached.insert(match &record.body {
            Body::Full(_) => "full sensor",
            Body::Compact(_) => "compact sensor",
            Body::FruLocator(_) => "FRU locator",
            Body::McLocator(_) => "MC locator",
            Body::Other { .. } => "other record",
        });
        if let Body::Full(sensor) = &record.body {
            for raw in [0, 1, 0x7f, 0x80, 0xff] {
                let Some(value) = sensor.value(raw) else { continue };
                assert!(value.is_finite());
                let _ = sensor.factors.raw(sensor.sensor.format, value);
            }
        }
        match record.encode() {
            Ok(written) => assert_eq!(Record::decode(&written), Ok(record)),
            // Other packings of text hold more characters than ours.
            Err(SdrError::Name { .. }) => {}
            Err(error) => panic!("{record:?} cannot be written: {error}"),
        }
    }
}

pub fn sel(bytes: &[u8], reached: &mut Reached) {
    match sel::Entry::decode(bytes) {
        Ok(entry) => {
            reached.insert(match entry.body {
                sel::Body::System { .. } => "system event",
                sel::Body::OemTimestamped { .. } => "OEM event with time",
                sel::Body::Oem { .. } => "OEM event",
            });
            assert_eq!(entry.encode(), bytes, "every bit of an entry is kept");
        }
        Err(sel::SelError::Length(len)) => assert!(len == bytes.len() && len != sel::LEN),
        Err(sel::SelError::Type { kind, .. }) => assert_eq!(kind, bytes[2]),
    }
}

pub fn fru(bytes: &[u8], reached: &mut Reached) {
    for bytes in [bytes, &mended_fru(bytes)] {
        let Ok(inventory) = fru::Inventory::decode(bytes) else { continue };
        reached.insert("inventory");
        for (there, name) in [
            (inventory.chassis.is_some(), "chassis"),
            (inventory.board.is_some(), "board"),
            (inventory.product.is_some(), "product"),
        ] {
            if there {
                reached.insert(name);
            }
        }
        match inventory.encode() {
            Ok(written) => assert_eq!(fru::Inventory::decode(&written), Ok(inventory)),
            // Other packings of text hold more characters than ours.
            Err(fru::FruError::Field { .. } | fru::FruError::TooLarge(_)) => {}
            Err(error) => panic!("{inventory:?} cannot be written: {error}"),
        }
    }
}

/// With right checksums in the header and in each area it names.
fn mended_fru(bytes: &[u8]) -> Vec<u8> {
    let mut mended = bytes.to_vec();
    let mut mend = |start: usize, len: usize| {
        if let Some([rest @ .., last]) = mended.get_mut(start..start + len) {
            *last = checksum(rest);
        }
    };
    mend(0, 8);
    for at in [2, 3, 4] {
        let offset = 8 * usize::from(bytes.get(at).copied().unwrap_or(0));
        let units = usize::from(bytes.get(offset + 1).copied().unwrap_or(0));
        if offset > 0 {
            mend(offset, 8 * units);
        }
    }
    mended
}
