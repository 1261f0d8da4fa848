// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parameters of the boot options and of a LAN channel.

use super::{at, hex, one_of};

/// Boot option parameters, IPMI 2.0 table 28-14.
const BOOT: &[&str] = &[
    "set in progress",
    "service partition",
    "service partition scan",
    "BMC boot flag valid bit",
    "boot info acknowledge",
    "boot flags",
    "boot initiator info",
    "boot initiator mailbox",
];

/// Devices of the boot flags, same table.
const DEVICES: &[&str] = &[
    "no override",
    "PXE",
    "disk",
    "disk in safe mode",
    "diagnostic partition",
    "CD/DVD",
    "BIOS setup",
    "remote floppy",
    "remote CD/DVD",
    "primary remote media",
    "reserved",
    "remote disk",
    "reserved",
    "reserved",
    "reserved",
    "floppy",
];

/// LAN parameters, IPMI 2.0 table 23-4.
const LAN: &[&str] = &[
    "set in progress",
    "authentication support",
    "authentication enables",
    "IP address",
    "IP address source",
    "MAC address",
    "subnet mask",
    "IPv4 header",
    "primary RMCP port",
    "secondary RMCP port",
    "ARP control",
    "ARP interval",
    "gateway",
    "gateway MAC",
    "backup gateway",
    "backup gateway MAC",
    "community string",
    "destinations",
    "destination type",
    "destination address",
    "VLAN",
    "VLAN priority",
    "cipher suites",
    "cipher suite entries",
    "cipher suite privileges",
    "destination VLAN",
];

/// A boot option and what it is set to.
pub(super) fn boot_option(parameter: u8, value: &[u8]) -> String {
    named(named_or(parameter, BOOT), &boot_value(parameter, value))
}

/// What a boot option is set to.
pub(super) fn boot_value(parameter: u8, value: &[u8]) -> String {
    match (parameter, value) {
        (0, [progress, ..]) => progress_text(*progress),
        (5, [flags, device, ..]) => {
            let device = one_of(device >> 2 & 0x0f, DEVICES);
            let when = if flags & 0x40 != 0 { "always" } else { "once" };
            if flags & 0x80 == 0 { "not valid".to_owned() } else { format!("{device}, {when}") }
        }
        _ => hex(value),
    }
}

/// A LAN parameter and what it is set to.
pub(super) fn lan(parameter: u8, value: &[u8]) -> String {
    named(named_or(parameter, LAN), &lan_value(parameter, value))
}

/// What a LAN parameter is set to.
pub(super) fn lan_value(parameter: u8, value: &[u8]) -> String {
    match (parameter, value) {
        (0, [progress, ..]) => progress_text(*progress),
        (3 | 6 | 12 | 14, [a, b, c, d, ..]) => format!("{a}.{b}.{c}.{d}"),
        (4, [source, ..]) => {
            one_of(source & 0x0f, &["unspecified", "static", "DHCP", "BIOS", "other"])
        }
        (5 | 13 | 15, [_, _, _, _, _, _, ..]) => hex(&value[..6]).replace(' ', ":"),
        (16, [_, ..]) => String::new(),
        (20, [low, high, ..]) => match at(value, 1).map(|high| high & 0x80 != 0) {
            Some(true) => format!("{}", u16::from(high & 0x0f) << 8 | u16::from(*low)),
            _ => "off".to_owned(),
        },
        _ => hex(value),
    }
}

fn progress_text(byte: u8) -> String {
    one_of(byte & 3, &["complete", "begin", "commit"])
}

fn named_or(parameter: u8, names: &[&str]) -> String {
    match names.get(usize::from(parameter)) {
        Some(name) => (*name).to_owned(),
        None => format!("parameter {parameter}"),
    }
}

fn named(name: String, value: &str) -> String {
    if value.is_empty() { name } else { format!("{name} {value}") }
}
