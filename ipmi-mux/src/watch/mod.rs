// SPDX-License-Identifier: MIT OR Apache-2.0
//! `watch`: what passes between clients and the BMC, as it happens.
//!
//! The core keeps traces while somebody watches ([`crate::mux::Trace`]); [`publish`] makes a [`Record`]
//! of each, blanks what is secret in it ([`secrets`]) and hands it to all watchers. The rest is the
//! program at the other end: [`filter`] chooses, [`decode`] and [`show`] turn a record into a line of
//! text, [`pcap`] into packets for Wireshark, and [`verb`] runs it all.

pub mod decode;
pub mod filter;
pub mod pcap;
pub mod publish;
pub mod secrets;
pub mod show;
pub mod verb;

use serde::{Deserialize, Serialize};

/// Something that passed: a line of `GET /v1/watch`. Members that do not apply are absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it was seen: microseconds since 1970, UTC.
    pub time_us: u64,
    /// What it is.
    pub kind: Kind,
    /// The handle and who opened it; absent where the record is about none.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub who: Option<Who>,
    /// The message; absent in [`Kind::Missed`].
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Message>,
    /// From acceptance to the answer or the close, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_us: Option<u64>,
    /// Who answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The error of a refused send, such as `EBUSY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    /// Whether the BMC has an unanswered request and acts on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<bool>,
    /// How many records this watcher did not get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A send was accepted.
    Request,
    /// A request was answered; the record holds both.
    Answer,
    /// A send failed.
    Refused,
    /// A handle was closed before its request was answered.
    Unanswered,
    /// An event for a handle.
    Event,
    /// A command of another controller for a handle.
    Command,
    /// Records were lost because the watcher was too slow.
    Missed,
}

/// Who answered a request, see [`crate::mux::Origin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The BMC.
    Bmc,
    /// The BMC, for an identical request of another handle.
    Shared,
    /// The cache.
    Cache,
    /// ipmi-mux itself.
    Mux,
}

/// A handle and who opened it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Number of the handle.
    pub handle: u64,
    /// Path of its node.
    pub node: String,
    /// User id of the opener.
    pub uid: u32,
    /// Thread id of the opener.
    pub pid: u32,
    /// Name of that thread, if it was there when the handle was first seen.
    pub process: Option<String>,
}

/// A message without its bearer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The caller's message id.
    pub msgid: i64,
    /// Channel, 15 for the BMC itself.
    pub channel: u8,
    /// Address behind that channel: slave address on an IPMB, software id on a LAN; absent for the BMC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<u8>,
    /// LUN.
    pub lun: u8,
    /// Network function of the request, 0 to 63. Odd where a handle answers another controller.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
    /// Data of the request.
    #[serde(default, with = "hex::option", skip_serializing_if = "Option::is_none")]
    pub request: Option<Vec<u8>>,
    /// Completion code and data of the answer; of an event its 16 bytes.
    #[serde(default, with = "hex::option", skip_serializing_if = "Option::is_none")]
    pub answer: Option<Vec<u8>>,
    /// Whether a secret in `request` or `answer` was replaced by zeros.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blanked: bool,
}

impl Record {
    /// A record of this kind about nothing in particular.
    #[must_use]
    pub fn new(time_us: u64, kind: Kind) -> Self {
        Self {
            time_us,
            kind,
            who: None,
            message: None,
            took_us: None,
            origin: None,
            errno: None,
            sent: None,
            missed: None,
        }
    }

    /// The completion code, where it is an answer.
    #[must_use]
    pub fn code(&self) -> Option<u8> {
        let message = self.message.as_ref().filter(|_| self.kind == Kind::Answer)?;
        message.answer.as_ref()?.first().copied()
    }
}

/// Bytes as hexadecimal digits, two each.
mod hex {
    pub mod option {
        use serde::{Deserialize, Deserializer, Serializer, de::Error};

        pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
            let Some(bytes) = bytes else { return to.serialize_none() };
            let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
            let text: String =
                bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0x0f)]).collect();
            to.serialize_str(&text)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Vec<u8>>, D::Error> {
            let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
            let digits: Option<Vec<u8>> =
                text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
            let digits = digits.filter(|digits| digits.len() % 2 == 0);
            let digits =
                digits.ok_or_else(|| D::Error::custom("not pairs of hexadecimal digits"))?;
            Ok(Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Answer `answer` of the BMC to ipmitool's request `request`, after 3.25 ms.
    pub fn answer(netfn: u8, cmd: u8, request: &[u8], answer: &[u8]) -> Record {
        Record {
            who: Some(Who {
                handle: 7,
                node: "/dev/ipmi/1".to_owned(),
                uid: 1000,
                pid: 4711,
                process: Some("ipmitool".to_owned()),
            }),
            message: Some(Message {
                msgid: 1,
                channel: 15,
                target: None,
                lun: 0,
                netfn,
                cmd,
                request: Some(request.to_vec()),
                answer: Some(answer.to_vec()),
                blanked: false,
            }),
            took_us: Some(3250),
            origin: Some(Origin::Bmc),
            // 2023-11-14 22:13:20.123456 UTC
            ..Record::new(1_700_000_000_123_456, Kind::Answer)
        }
    }

    #[test]
    fn a_record_is_one_flat_object_and_comes_back() {
        let record = answer(0x0a, 0x23, &[1, 0xff], &[0xc5]);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(
            text,
            "{\"time_us\":1700000000123456,\"kind\":\"answer\",\"handle\":7,\"node\":\"/dev/ipmi/1\",\
             \"uid\":1000,\"pid\":4711,\"process\":\"ipmitool\",\"msgid\":1,\"channel\":15,\"lun\":0,\
             \"netfn\":10,\"cmd\":35,\"request\":\"01ff\",\"answer\":\"c5\",\"took_us\":3250,\
             \"origin\":\"bmc\"}"
        );
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        assert_eq!(record.code(), Some(0xc5));
        let missed = Record { missed: Some(3), ..Record::new(1, Kind::Missed) };
        let text = serde_json::to_string(&missed).unwrap();
        assert_eq!(text, "{\"time_us\":1,\"kind\":\"missed\",\"missed\":3}");
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), missed);
    }
}
