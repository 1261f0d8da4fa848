// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a member tells the others: records of `lib/group`, in postcard's form, the version first. A layout never changes;
//! another one has another version, and who does not know it leaves the record out.
//!
//! | key | class | value |
//! |---|---|---|
//! | `identity` | static | [`Identity`] |
//! | `metas/SOURCE/N` | static | [`Metas`]: what the metrics of a source are |
//! | `values/SOURCE/N` | dynamic | [`Values`]: their values, by their places in `metas/SOURCE/N` |
//! | `alerts/N` | dynamic | alerts, in parts |
//! | `acted` | dynamic | ids of alerts that the manager has told of, so that the next one does not tell again |

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::metric::Meta;

/// The version of all layouts here.
const VERSION: u8 = 1;
/// Metrics of one record: about 150 bytes each, 500 at the most, and a record has at most 64 KiB.
pub const PART: usize = 120;
/// Most bytes that are decoded, as of `lib/group`.
pub const MAX_BYTES: usize = 64 << 10;

/// Who a member is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Identity {
    /// The chassis, by its serial number or as configured.
    pub chassis: String,
    /// The slot; empty if it is not known.
    pub slot: String,
    /// What kind of module it is.
    pub module: String,
    /// Its maker.
    pub maker: String,
    /// Its serial number.
    pub serial: String,
    /// Where each of these came from, and what other sources say otherwise.
    pub sources: Vec<Told>,
    /// This boot, to be expected by a reset.
    pub boot: String,
    /// Where its HTTP is reached, `HOST:PORT`; empty if it is not.
    pub http: String,
    /// Slots that it can power, and how: `SLOT BACKEND`.
    pub powers: Vec<String>,
    /// The machine's MAC address for Wake-on-LAN; empty if not known.
    pub mac: String,
    /// The program's version.
    pub version: String,
}

/// What one source says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Which: `configuration`, `eeprom`, `dmi`, `ipmi`.
    pub by: String,
    /// Of what: `chassis`, `slot`, `module`, `serial`, `maker`.
    pub what: String,
    /// It.
    pub value: String,
}

/// What metrics are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metas {
    /// Whether they are the chassis', read over the midplane.
    pub midplane: bool,
    /// The metrics.
    pub metas: Vec<Meta>,
}

/// Values of metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Values {
    /// Of which metas: [`hash`] of their record.
    pub of: u32,
    /// By place there; none for those that were not read.
    pub values: Vec<Option<f64>>,
    /// Totals behind rates, by place there.
    pub totals: Vec<Option<f64>>,
    /// Errors, by place there.
    pub errors: Vec<(u16, String)>,
}

/// Bytes of a record.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![VERSION]).expect("all of it has a form, and memory grows")
}

/// A record; none if it is of another version, or none at all.
#[must_use]
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let body = bytes.strip_prefix(&[VERSION])?;
    if bytes.len() > MAX_BYTES {
        return None;
    }
    let (value, rest) = postcard::take_from_bytes(body).ok()?;
    rest.is_empty().then_some(value)
}

/// By what [`Values::of`] names a record.
#[must_use]
pub fn hash(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Unit;

    #[test]
    fn golden_values() {
        let values =
            Values { of: 1, values: vec![Some(1.5), None], totals: vec![], errors: vec![] };
        let bytes = [1, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 0, 0, 0];
        assert_eq!(encode(&values), bytes);
        assert_eq!(decode::<Values>(&bytes), Some(values));
        assert_eq!(decode::<Values>(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(decode::<Values>(&[&[2], &bytes[1..]].concat()), None);
    }

    #[test]
    fn a_part_fits_into_a_record() {
        let label = "x".repeat(crate::metric::MAX_LABEL);
        let exported = crate::metric::Exported::gauge(
            "node_network_receive_bytes_total",
            &[("device", "enp0s31f6"), ("more", &label)],
        );
        let id = "y".repeat(crate::metric::MAX_ID);
        let meta = Meta::new(&id, &label, Unit::Volts, 1000).exported(exported);
        let bytes = encode(&Metas { midplane: false, metas: vec![meta; PART] });
        assert!(bytes.len() <= MAX_BYTES, "{}", bytes.len());
        assert_eq!(decode::<Metas>(&bytes).unwrap().metas.len(), PART);
    }
}
