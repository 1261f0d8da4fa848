// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages as short text. Only what helps to see who does what; the rest is shown in hexadecimal.
//! Offsets are those of IPMI 2.0 counted from 0, in answers after the completion code.

mod config;
mod event;

use std::fmt::Write as _;

use ipmi::{CompletionCode, names};

/// Most bytes shown in hexadecimal.
const HEX_BYTES: usize = 16;

/// The name of a command, or its numbers such as `30/05`. `netfn` is that of the request, or odd where
/// the message is itself an answer.
#[must_use]
pub fn name(netfn: u8, cmd: u8) -> String {
    let request = netfn & 0x3e;
    let name = names::name(request, cmd).map_or_else(|| numbers(request, cmd), str::to_owned);
    if netfn & 1 == 0 { name } else { format!("answer to {name}") }
}

/// Both numbers of a command as `--command` takes them.
#[must_use]
pub fn numbers(netfn: u8, cmd: u8) -> String {
    format!("{:02x}/{cmd:02x}", netfn & 0x3e)
}

/// What a completion code means for a command.
#[must_use]
pub fn code(netfn: u8, cmd: u8, code: u8) -> String {
    let special = match (netfn & 0x3e, cmd, code) {
        (0x00, 0x08 | 0x09, 0x80) | (0x0c, 0x01 | 0x02, 0x80) => "parameter not supported",
        (0x00, 0x08, 0x81) | (0x0c, 0x01, 0x81) => "set in progress by another party",
        (0x00, 0x08, 0x82) | (0x0c, 0x01, 0x82) => "parameter is read-only",
        (0x06, 0x22, 0x80) => "watchdog was never set",
        (0x06, 0x34, 0x80) => "invalid session handle",
        (0x06, 0x34, 0x81) => "lost arbitration",
        (0x06, 0x34, 0x82) => "bus error",
        (0x06, 0x34, 0x83) => "nobody at that address",
        (0x06, 0x47, 0x80) => "password is another",
        (0x06, 0x47, 0x81) => "password has another size",
        (0x0a, 0x11 | 0x12, 0x81) => "device busy",
        (0x0a, 0x43..=0x46, 0x80) => "operation not supported",
        (0x0a, 0x40..=0x47, 0x81) => "erase in progress",
        _ => CompletionCode(code).text(),
    };
    special.to_owned()
}

/// What is in a request and, once there is one, its answer without the completion code.
#[must_use]
pub fn describe(netfn: u8, cmd: u8, request: &[u8], answer: Option<&[u8]>) -> String {
    let asked = if netfn & 1 == 0 { request_text(netfn & 0x3f, cmd, request) } else { None };
    let asked = asked.unwrap_or_else(|| hex(request));
    let answer = answer.filter(|answer| !answer.is_empty());
    let Some(answer) = answer else { return asked };
    let got = answer_text(netfn & 0x3f, cmd, request, answer).unwrap_or_else(|| hex(answer));
    match (asked.is_empty(), got.is_empty()) {
        (true, _) => got,
        (_, true) => asked,
        _ => format!("{asked} -> {got}"),
    }
}

/// An event as Read Event Message Buffer delivers it.
#[must_use]
pub fn event(record: &[u8]) -> String {
    event::record(record).unwrap_or_else(|| hex(record))
}

/// Bytes in hexadecimal, as many as help.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes.iter().take(HEX_BYTES) {
        let _ = write!(text, "{}{byte:02x}", if text.is_empty() { "" } else { " " });
    }
    if bytes.len() > HEX_BYTES {
        let _ = write!(text, " ... ({} bytes)", bytes.len());
    }
    text
}

fn at(bytes: &[u8], index: usize) -> Option<u8> {
    bytes.get(index).copied()
}

fn word(bytes: &[u8], index: usize) -> Option<u16> {
    Some(u16::from_le_bytes([at(bytes, index)?, at(bytes, index + 1)?]))
}

fn long(bytes: &[u8], index: usize) -> Option<u32> {
    let four = bytes.get(index..index.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

/// The text for a number, or the number.
fn one_of(number: u8, texts: &[&str]) -> String {
    texts.get(usize::from(number)).map_or_else(|| format!("{number:#04x}"), |t| (*t).to_owned())
}

fn request_text(netfn: u8, cmd: u8, d: &[u8]) -> Option<String> {
    Some(match (netfn, cmd) {
        // Chassis Control, section 28.3.
        (0x00, 0x02) => one_of(
            at(d, 0)? & 0x0f,
            &[
                "power down",
                "power up",
                "power cycle",
                "hard reset",
                "diagnostic interrupt",
                "soft shutdown",
            ],
        ),
        // Chassis Identify, 28.5: force, then seconds, then nothing.
        (0x00, 0x04) => match (at(d, 0), at(d, 1).unwrap_or(0) & 1) {
            (_, 1) => "on until told otherwise".to_owned(),
            (None, _) => "for 15 s".to_owned(),
            (Some(0), _) => "off".to_owned(),
            (Some(seconds), _) => format!("for {seconds} s"),
        },
        // Set Power Restore Policy, 28.8.
        (0x00, 0x06) => {
            one_of(at(d, 0)? & 7, &["stay off", "restore what was", "power up", "no change"])
        }
        (0x00, 0x08) => config::boot_option(at(d, 0)? & 0x7f, d.get(1..)?),
        (0x00, 0x09) => config::boot_option(at(d, 0)? & 0x7f, &[]),
        // Platform Event, 29.3: through the system interface the generator comes first.
        (0x04, 0x02) => event::platform(d)?,
        // Get (Device) SDR, 33.12 and 35.3.
        (0x04, 0x21) | (0x0a, 0x23) => {
            format!("record {:#06x} offset {}, {}", word(d, 2)?, at(d, 4)?, count(at(d, 5)?))
        }
        // Reading factors to Get Sensor Reading: the sensor comes first.
        (0x04, 0x23..=0x2f) => format!("sensor {:#04x}", at(d, 0)?),
        // Set Watchdog Timer, 27.6.
        (0x06, 0x24) => watchdog(d)?,
        (0x06, 0x2e) => format!("enables {:#04x}", at(d, 0)?),
        (0x06, 0x34) => bridged(d)?,
        (0x06, 0x38 | 0x40..=0x42) => channel(at(d, 0)?),
        // User commands: most begin with the user, those of access with the channel. 22.26 to 22.30.
        (0x06, 0x43 | 0x44) => format!("user {}, {}", at(d, 1)? & 0x3f, channel(at(d, 0)?)),
        (0x06, 0x45) => format!("user {}, name {:?}", at(d, 0)? & 0x3f, text(d.get(1..)?)),
        (0x06, 0x46) => format!("user {}", at(d, 0)? & 0x3f),
        (0x06, 0x47) => format!(
            "user {}, {}",
            at(d, 0)? & 0x3f,
            one_of(at(d, 1)? & 3, &["disable", "enable", "set password", "test password"])
        ),
        // FRU inventory, 34.1 to 34.3.
        (0x0a, 0x10) => format!("FRU {}", at(d, 0)?),
        (0x0a, 0x11) => format!("FRU {} offset {}, {}", at(d, 0)?, word(d, 1)?, count(at(d, 3)?)),
        (0x0a, 0x12) => {
            format!("FRU {} offset {}, {} bytes", at(d, 0)?, word(d, 1)?, d.len().checked_sub(3)?)
        }
        (0x0a, 0x26 | 0x46) => format!("record {:#06x}", word(d, 2)?),
        // Clear SDR Repository and Clear SEL, 33.16 and 31.9.
        (0x0a, 0x27 | 0x47) => match at(d, 5)? {
            0xaa => "erase".to_owned(),
            0 => "is it erased?".to_owned(),
            other => format!("action {other:#04x}"),
        },
        (0x0a, 0x43) => {
            let (record, offset, bytes) = (word(d, 2)?, at(d, 4)?, at(d, 5)?);
            match (offset, bytes) {
                (0, 0xff) => format!("record {record:#06x}"),
                _ => format!("record {record:#06x} offset {offset}, {}", count(bytes)),
            }
        }
        (0x0a, 0x44) => event::record(d)?,
        (0x0a, 0x49 | 0x29) => event::time(long(d, 0)?),
        (0x0c, 0x01) => {
            format!("{}, {}", channel(at(d, 0)?), config::lan(at(d, 1)?, d.get(2..)?))
        }
        (0x0c, 0x02) => format!("{}, {}", channel(at(d, 0)?), config::lan(at(d, 1)?, &[])),
        (0x2c, _) => group(d)?,
        _ => return None,
    })
}

fn answer_text(netfn: u8, cmd: u8, request: &[u8], d: &[u8]) -> Option<String> {
    Some(match (netfn, cmd) {
        // Get Chassis Status, 28.2.
        (0x00, 0x01) => {
            let faults =
                [(0x02, "overload"), (0x04, "interlock"), (0x08, "fault"), (0x10, "control fault")];
            let power = at(d, 0)?;
            let mut text = if power & 1 == 1 { "power on" } else { "power off" }.to_owned();
            for (_, fault) in faults.iter().filter(|(bit, _)| power & bit != 0) {
                let _ = write!(text, ", {fault}");
            }
            text
        }
        // Parameter version, parameter, data: 28.13.
        (0x00, 0x09) => config::boot_value(at(d, 1)? & 0x7f, d.get(2..)?),
        (0x04, 0x21) | (0x0a, 0x23 | 0x43) => {
            let (next, record) = (word(d, 0)?, d.get(2..)?);
            let entry = if netfn == 0x0a && cmd == 0x43 { event::record(record) } else { None };
            let record = entry.unwrap_or_else(|| format!("{} bytes", record.len()));
            if next == 0xffff {
                format!("{record}, last")
            } else {
                format!("{record}, next {next:#06x}")
            }
        }
        (0x04, 0x22) | (0x0a, 0x22 | 0x42) => format!("reservation {:#06x}", word(d, 0)?),
        // Get Sensor Reading, 35.14.
        (0x04, 0x2d) => match at(d, 1)? {
            flags if flags & 0x20 != 0 => "no reading now".to_owned(),
            flags if flags & 0x40 == 0 => "not scanned".to_owned(),
            _ => format!(
                "raw {:#04x}, states {:#06x}",
                at(d, 0)?,
                word(d, 2).or(at(d, 2).map(u16::from))?
            ),
        },
        // Get Device ID, 20.1.
        (0x06, 0x01) => {
            let maker = long(d, 6)? & 0x000f_ffff;
            format!(
                "device {:#04x}, firmware {}.{:02x}, IPMI {}.{}, manufacturer {maker}, product {:#06x}",
                at(d, 0)?,
                at(d, 2)? & 0x7f,
                at(d, 3)?,
                at(d, 4)? & 0x0f,
                at(d, 4)? >> 4,
                word(d, 9)?
            )
        }
        // Get Self Test Results, 20.4.
        (0x06, 0x04) => match at(d, 0)? {
            0x55 => "passed".to_owned(),
            0x56 => "not implemented".to_owned(),
            code => format!("failed {code:#04x} {:#04x}", at(d, 1)?),
        },
        // Get Watchdog Timer, 27.7.
        (0x06, 0x25) => {
            let state = if at(d, 0)? & 0x40 != 0 { "running" } else { "stopped" };
            format!("{}, {state}, {} left", watchdog(d)?, tenths(word(d, 6)?))
        }
        (0x06, 0x2f) => format!("enables {:#04x}", at(d, 0)?),
        (0x06, 0x31) => {
            let flags = at(d, 0)?;
            let all = [
                (0x01, "message waiting"),
                (0x02, "event buffer full"),
                (0x08, "watchdog pre-timeout"),
            ];
            let set: Vec<_> =
                all.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, t)| *t).collect();
            if set.is_empty() { format!("flags {flags:#04x}") } else { set.join(", ") }
        }
        (0x06, 0x35) => event::record(d)?,
        // Get Channel Info, 22.24.
        (0x06, 0x42) => {
            let medium = one_of(
                at(d, 1)? & 0x7f,
                &[
                    "reserved",
                    "IPMB",
                    "ICMB 1.0",
                    "ICMB 0.9",
                    "LAN",
                    "serial",
                    "other LAN",
                    "PCI SMBus",
                    "SMBus",
                    "SMBus",
                    "USB 1",
                    "USB 2",
                    "system interface",
                ],
            );
            format!("{medium}, protocol {:#04x}", at(d, 2)? & 0x1f)
        }
        (0x06, 0x46) => format!("name {:?}", text(d)),
        // FRU inventory, 34.1 and 34.2; access in words or bytes.
        (0x0a, 0x10) => {
            let unit = if at(d, 2)? & 1 == 1 { "words" } else { "bytes" };
            format!("{} bytes, read by {unit}", word(d, 0)?)
        }
        (0x0a, 0x11) => format!("{} bytes", at(d, 0)?),
        (0x0a, 0x12) => format!("{} written", at(d, 0)?),
        // Get SDR Repository Info and Get SEL Info, 33.9 and 31.2.
        (0x0a, 0x20 | 0x40) => format!("{} records, {} bytes free", word(d, 1)?, word(d, 3)?),
        (0x0a, 0x44) => format!("record {:#06x}", word(d, 0)?),
        (0x0a, 0x27 | 0x47) => if at(d, 0)? & 0x0f == 1 { "erased" } else { "erasing" }.to_owned(),
        (0x0a, 0x48 | 0x28) => event::time(long(d, 0)?),
        (0x0c, 0x02) => config::lan_value(at(request, 1)?, d.get(1..)?),
        _ => return None,
    })
}

fn count(bytes: u8) -> String {
    if bytes == 0xff { "the rest".to_owned() } else { format!("{bytes} bytes") }
}

fn channel(byte: u8) -> String {
    match byte & 0x0f {
        0x0e => "this channel".to_owned(),
        number => format!("channel {number}"),
    }
}

fn tenths(tenths: u16) -> String {
    format!("{}.{} s", tenths / 10, tenths % 10)
}

/// Text of fixed length, ended by a zero if shorter.
fn text(bytes: &[u8]) -> String {
    bytes.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
}

/// The first bytes of Set Watchdog Timer and of the answer of Get Watchdog Timer.
fn watchdog(d: &[u8]) -> Option<String> {
    let uses = ["reserved", "BIOS FRB2", "BIOS POST", "OS load", "SMS/OS", "OEM"];
    let actions = ["no action", "hard reset", "power down", "power cycle"];
    let (timer, action) = (at(d, 0)? & 7, at(d, 1)? & 7);
    let after = tenths(word(d, 4)?);
    Some(format!("{} after {after}, for {}", one_of(action, &actions), one_of(timer, &uses)))
}

/// Send Message, 22.7: what is in it, and for whom.
fn bridged(d: &[u8]) -> Option<String> {
    let to = channel(at(d, 0)?);
    // Behind a session handle on a LAN channel, else at once.
    let inner = [1, 2].iter().find_map(|start| ipmi::ipmb::decode(d.get(*start..)?).ok());
    let Some(inner) = inner else {
        return Some(format!("{to}, {}", hex(d.get(1..)?)));
    };
    let netfn = inner.netfn.get();
    let what = describe(netfn, inner.cmd, &inner.data, None);
    let what = if what.is_empty() { what } else { format!(", {what}") };
    Some(format!("{to} to {:#04x}: {}{what}", inner.to, name(netfn, inner.cmd)))
}

/// Group extension, 5.1: the first byte names whose commands these are.
fn group(d: &[u8]) -> Option<String> {
    let whose = match at(d, 0)? {
        0x00 => "PICMG",
        0x01 => "DMTF",
        0x02 => "SSI",
        0x03 => "VITA",
        0xdc => "DCMI",
        _ => return None,
    };
    Some(format!("{whose} {}", hex(d.get(1..)?)).trim_end().to_owned())
}

#[cfg(test)]
mod tests;
