// SPDX-License-Identifier: MIT OR Apache-2.0
use proptest::prelude::*;

use super::*;

/// Network function, command, request, answer after the completion code, text.
type Case = (u8, u8, &'static [u8], &'static [u8], &'static str);

const CASES: &[Case] = &[
    (0x00, 0x01, &[], &[0x01, 0x10, 0x40], "power on"),
    (0x00, 0x01, &[], &[0x0a, 0, 0], "power off, overload, fault"),
    (0x00, 0x02, &[3], &[], "hard reset"),
    (0x00, 0x02, &[0x0f], &[], "0x0f"),
    (0x00, 0x04, &[], &[], "for 15 s"),
    (0x00, 0x04, &[30], &[], "for 30 s"),
    (0x00, 0x04, &[0], &[], "off"),
    (0x00, 0x04, &[0, 1], &[], "on until told otherwise"),
    (0x00, 0x06, &[2], &[0x07], "power up -> 07"),
    (0x00, 0x08, &[5, 0x80, 0x04, 0, 0, 0], &[], "boot flags PXE, once"),
    (0x00, 0x08, &[0, 1], &[], "set in progress begin"),
    (0x00, 0x09, &[5, 0, 0], &[1, 5, 0xc0, 0x08, 0, 0, 0], "boot flags -> disk, always"),
    (0x00, 0x09, &[5, 0, 0], &[1, 5, 0, 0, 0, 0, 0], "boot flags -> not valid"),
    (
        0x04,
        0x02,
        &[0x41, 4, 1, 0x30, 0x01, 0x59, 0x60, 0x55],
        &[],
        "temperature sensor 0x30: upper critical going high, asserted, reading 0x60 at threshold 0x55",
    ),
    (
        0x04,
        0x21,
        &[0, 0, 2, 0, 5, 16],
        &[3, 0, 1, 2, 3],
        "record 0x0002 offset 5, 16 bytes -> 3 bytes, next 0x0003",
    ),
    (0x04, 0x2d, &[0x30], &[0x59, 0xc0, 0x08, 0x80], "sensor 0x30 -> raw 0x59, states 0x8008"),
    (0x04, 0x2d, &[0x30], &[0x59, 0xc0, 0x08], "sensor 0x30 -> raw 0x59, states 0x0008"),
    (0x04, 0x2d, &[0x30], &[0, 0x60, 0], "sensor 0x30 -> no reading now"),
    (0x04, 0x2d, &[0x30], &[0, 0x80, 0], "sensor 0x30 -> not scanned"),
    (
        0x06,
        0x01,
        &[],
        &[0x20, 1, 1, 0x23, 0x02, 0xbf, 0x57, 0x01, 0, 0x34, 0x12],
        "device 0x20, firmware 1.23, IPMI 2.0, manufacturer 343, product 0x1234",
    ),
    (0x06, 0x04, &[], &[0x55, 0], "passed"),
    (0x06, 0x24, &[4, 3, 0, 0, 0x58, 0x02], &[], "power cycle after 60.0 s, for SMS/OS"),
    (
        0x06,
        0x25,
        &[],
        &[0x44, 1, 0, 0, 0x58, 0x02, 0x0f, 0],
        "hard reset after 60.0 s, for SMS/OS, running, 1.5 s left",
    ),
    (0x06, 0x31, &[], &[0x0a], "event buffer full, watchdog pre-timeout"),
    (
        0x06,
        0x34,
        &[0x40, 0x82, 0x18, 0x66, 0x20, 0x16, 0x01, 0xc9],
        &[],
        "channel 0 to 0x82: Get Device ID",
    ),
    (0x06, 0x34, &[0x47, 1, 2], &[], "channel 7, 01 02"),
    (0x06, 0x42, &[0x0e], &[1, 4, 1, 0, 0, 0, 0], "this channel -> LAN, protocol 0x01"),
    (0x06, 0x46, &[2], b"ADMIN\0\0\0\0\0\0\0\0\0\0\0", "user 2 -> name \"ADMIN\""),
    (0x06, 0x47, &[2, 2, 0, 0], &[], "user 2, set password"),
    (0x0a, 0x10, &[0], &[0, 8, 0], "FRU 0 -> 2048 bytes, read by bytes"),
    (0x0a, 0x11, &[1, 0x10, 0, 16], &[16, 1, 2], "FRU 1 offset 16, 16 bytes -> 16 bytes"),
    (0x0a, 0x12, &[1, 0x10, 0, 7, 8], &[2], "FRU 1 offset 16, 2 bytes -> 2 written"),
    (0x0a, 0x22, &[], &[0x34, 0x12], "reservation 0x1234"),
    (
        0x0a,
        0x23,
        &[1, 0, 0, 0, 0, 0xff],
        &[0xff, 0xff, 1],
        "record 0x0000 offset 0, the rest -> 1 bytes, last",
    ),
    (0x0a, 0x40, &[], &[0x51, 3, 0, 0, 1, 0, 0, 0, 0], "3 records, 256 bytes free"),
    (
        0x0a,
        0x43,
        &[0, 0, 1, 0, 0, 0xff],
        &[2, 0, 1, 0, 2, 0, 0x21, 0x43, 0x65, 0x20, 0, 4, 0x23, 1, 0x6f, 0xc1, 4, 0xff],
        "record 0x0001 -> watchdog 2 sensor 0x01: hard reset, asserted, next 0x0002",
    ),
    (0x0a, 0x47, &[0, 0, b'C', b'L', b'R', 0xaa], &[1], "erase -> erased"),
    (0x0a, 0x48, &[], &[0x00, 0xf1, 0x53, 0x65], "2023-11-14 22:13:20"),
    (0x0a, 0x48, &[], &[9, 0, 0, 0], "9 s after its start"),
    (0x0c, 0x01, &[1, 3, 10, 0, 0, 2], &[], "channel 1, IP address 10.0.0.2"),
    (0x0c, 0x01, &[1, 16, 0, 0], &[], "channel 1, community string"),
    (0x0c, 0x02, &[1, 4, 0, 0], &[0x11, 2], "channel 1, IP address source -> DHCP"),
    (0x0c, 0x02, &[1, 20, 0, 0], &[0x11, 0x64, 0x80], "channel 1, VLAN -> 100"),
    (0x0c, 0x02, &[1, 200, 0, 0], &[0x11, 1, 2], "channel 1, parameter 200 -> 01 02"),
    (0x2c, 0x01, &[0xdc, 1], &[0xdc, 9], "DCMI 01 -> dc 09"),
    (0x30, 0x05, &[1, 2], &[], "01 02"),
    (0x30, 0x05, &[7; 17], &[], "07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 ... (17 bytes)"),
    // Too short for what it should be.
    (0x0a, 0x23, &[1], &[], "01"),
    (0x06, 0x01, &[], &[0x20, 1], "20 01"),
];

#[test]
fn messages_are_put_into_words() {
    for (netfn, cmd, request, answer, text) in CASES {
        let answer = Some(*answer).filter(|answer| !answer.is_empty());
        assert_eq!(describe(*netfn, *cmd, request, answer), *text, "{netfn:02x}/{cmd:02x}");
    }
}

#[test]
fn events_are_put_into_words() {
    let event_of = |rest: [u8; 9]| event(&[&[0, 0, 2, 0, 0, 0, 0][..], &rest].concat());
    for (rest, text) in [
        (
            [0x20, 0, 4, 0x01, 0x30, 0x81, 0x40, 0x60, 0xff],
            "temperature sensor 0x30: lower non-critical going low, gone, reading 0x60",
        ),
        (
            [0x20, 0, 4, 0x08, 2, 0x6f, 1, 0xff, 0xff],
            "power supply sensor 0x02: offset 1, asserted",
        ),
        (
            [0x20, 0, 4, 0xc1, 2, 0x03, 1, 0xff, 0xff],
            "type 0xc1 sensor 0x02: type 0x03 offset 1, asserted",
        ),
    ] {
        assert_eq!(event_of(rest), text);
    }
    assert_eq!(event(&[1, 2, 3]), "01 02 03");
}

#[test]
fn names_and_codes_are_those_of_the_command() {
    assert_eq!(name(0x0a, 0x23), "Get SDR");
    assert_eq!(name(0x0b, 0x23), "answer to Get SDR");
    assert_eq!(name(0x30, 0x05), "30/05");
    assert_eq!(code(0x06, 0x34, 0x83), "nobody at that address");
    assert_eq!(code(0x06, 0x01, 0xc1), "invalid command");
}

proptest! {
    #[test]
    fn any_bytes_are_survived(
        netfn: u8, cmd: u8, request in proptest::collection::vec(any::<u8>(), 0..300),
        answer in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
    ) {
        let text = describe(netfn, cmd, &request, answer.as_deref());
        prop_assert!(text.len() < 4096);
        let _ = (event(&request), name(netfn, cmd));
    }

    /// Each command that has words, with data of every length.
    #[test]
    fn short_messages_are_survived(
        at in 0..CASES.len(), request in proptest::collection::vec(any::<u8>(), 0..24),
        answer in proptest::collection::vec(any::<u8>(), 0..24),
    ) {
        let (netfn, cmd, ..) = CASES[at];
        let _ = describe(netfn, cmd, &request, Some(&answer));
    }
}
