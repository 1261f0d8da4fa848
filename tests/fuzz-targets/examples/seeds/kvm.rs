// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames whose fields make no sense, and hot keys typed in every way.

use fuzz_targets::{kvm_frame, kvm_hotkey};
use kvm_bus::wire::{Addr, Class, Frame, Kind};

use crate::seed;

pub fn write() {
    frames();
    hot_keys();
}

fn frames() {
    let (rmm, blade) = (Addr::rmm(2).expect("one"), Addr::blade(239).expect("one"));
    for (name, wanted, src, dst) in [
        ("for-all", "for all", rmm, Addr::ALL),
        ("for-an-rmm", "for an RMM", blade, rmm),
        ("for-a-blade", "for a blade", rmm, blade),
    ] {
        let frame = Frame::new(Class::Bulk, Kind::Beat, src, dst, 7);
        seed(kvm_frame, "kvm_frame", name, wanted, &[&[1], &frame.encode()[..]].concat());
    }
    // Version and class, kind, to, from, hops, session, number.
    let good = [0x10, 0, 1, 240, 0, 0, 0, 0, 0, 0, 0];
    let with = |at: usize, value: u8| {
        let mut raw = good;
        raw[at] = value;
        stuffed(&raw)
    };
    for (name, wanted, bytes) in [
        ("no-such-class", "fields", with(0, 0x15)),
        ("no-such-kind", "fields", with(1, 8)),
        ("to-nobody", "fields", with(2, 0)),
        ("from-all", "fields", with(3, 255)),
        ("from-nobody", "fields", with(3, 248)),
        ("half-a-header", "fields", stuffed(&good[..6])),
        ("another-version", "version", with(0, 0x20)),
        ("shorter-than-a-sum", "damaged", vec![0, 3, 1, 1, 0]),
        ("no-stuffing", "damaged", vec![0, 200, 1, 0]),
    ] {
        seed(kvm_frame, "kvm_frame", name, wanted, &[&[2], &bytes[..]].concat());
    }
}

/// As on the wire: with its CRC-32C, stuffed, between zeros. No part here is over 253 bytes.
fn stuffed(raw: &[u8]) -> Vec<u8> {
    let mut sum = u32::MAX;
    for byte in raw {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = sum >> 1 ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    let whole = [raw, &(!sum).to_le_bytes()].concat();
    let mut wire = vec![0];
    for part in whole.split(|byte| *byte == 0) {
        wire.push(part.len() as u8 + 1);
        wire.extend(part);
    }
    wire.push(0);
    wire
}

const SCROLL: u8 = 70;
const CONTROL: u8 = 29;
const ENTER: u8 = 28;
const ESCAPE: u8 = 1;

/// Taps of 50 ms, 50 ms apart.
fn taps(codes: &[u8]) -> Vec<u8> {
    codes.iter().flat_map(|code| [*code, 1, 5, *code, 0, 5]).collect()
}

fn hot_keys() {
    let twice = taps(&[SCROLL, SCROLL]);
    // 2.5 s without a key that means anything.
    let pause = [[42, 1, 250], [42, 0, 0]].concat();
    let keypad: Vec<u8> = (71..=82).filter(|code| *code != 78).collect();
    let command = |codes: &[u8]| [&twice[..], &taps(codes)].concat();
    let held = [CONTROL, 1, 5, CONTROL, 3, 5, CONTROL, 3, 5, CONTROL, 0, 5];
    for (name, wanted, bytes) in [
        ("down", "next", command(&[108])),
        ("right", "next", command(&[106])),
        ("up", "previous", command(&[103])),
        ("left", "previous", command(&[105])),
        ("keypad", "named", command(&[&keypad[..], &[96]].concat())),
        ("letters", "named", command(&[16, 30, 44, 12, ENTER])),
        ("too-long", "command ended", command(&[2; 70])),
        ("no-letter", "command ended", command(&[2, 60, ENTER])),
        ("nothing-named", "command ended", command(&[ENTER])),
        ("escape-ends", "command ended", command(&[2, ESCAPE, 30])),
        ("arrow-in-a-name", "swallowed", command(&[2, 108, 103])),
        ("given-up", "command ended", [&twice[..], &taps(&[2]), &pause, &pause, &pause].concat()),
        ("said-again", "said again", [&held[..], &held, &taps(&[2])].concat()),
        ("too-slow", "passed", [&taps(&[SCROLL])[..], &pause, &taps(&[SCROLL, 2])].concat()),
        (
            "held-too-long",
            "passed",
            [&taps(&[SCROLL])[..], &[SCROLL, 1, 5, SCROLL, 0, 90]].concat(),
        ),
        ("two-keys", "passed", taps(&[SCROLL, CONTROL, 2])),
        (
            "down-before",
            "swallowed",
            [&[42, 1, 5][..], &twice, &[2, 1, 5, 42, 0, 5, 2, 0, 5]].concat(),
        ),
    ] {
        seed(kvm_hotkey, "kvm_hotkey", name, wanted, &bytes);
    }
}
