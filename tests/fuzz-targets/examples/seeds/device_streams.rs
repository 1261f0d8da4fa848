// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the two ends of a disk's connection do.

use device_manager::streams::{Bytes, Frame, WINDOW};
use device_manager::wire::Bounded;
use fuzz_targets::device_streams as target;

const HOLDER: u8 = 0;
const UNIT: u8 = 1;
const OPEN: u8 = 0;
const SEND: u8 = 1 << 1;
const TAKE: u8 = 2 << 1;
const CLOSE: u8 = 3 << 1;
const FRAME: u8 = 4 << 1;
const HEAR: u8 = 5 << 1;

fn entry(head: u8, no: u8, len: u32) -> Vec<u8> {
    [&[head, no][..], &len.to_le_bytes()].concat()
}

fn frame(frame: &Frame) -> Vec<u8> {
    let bytes = frame.encode();
    let len = u32::try_from(bytes.len()).expect("they are short");
    [entry(FRAME, 0, len), bytes].concat()
}

pub fn write() {
    let seed = |name, wanted, parts: &[Vec<u8>]| {
        crate::seed(target, "device_streams", name, wanted, &parts.concat());
    };
    let opened = [entry(HOLDER | OPEN, 0, 0), entry(UNIT | HEAR, 0, 0)].concat();
    let sent = [entry(HOLDER | SEND, 1, 1000), entry(UNIT | HEAR, 0, 0)].concat();
    seed("opened", "opened", std::slice::from_ref(&opened));
    seed("data", "data", &[opened.clone(), sent.clone()]);
    let most = [entry(UNIT | SEND, 1, WINDOW), entry(HOLDER | HEAR, 0, 0)].concat();
    let full = most.repeat(10);
    seed("full", "a full window", &[opened.clone(), full.clone()]);
    seed("no-room", "no room", &[opened.clone(), full.clone()]);
    let taken = [entry(HOLDER | TAKE, 1, WINDOW), entry(UNIT | HEAR, 0, 0)].concat();
    seed("credit", "room", &[opened.clone(), full, taken, most]);
    let close = entry(HOLDER | CLOSE, 1, 0);
    let closed = [close, entry(UNIT | HEAR, 0, 0), entry(UNIT | CLOSE, 1, 0)].concat();
    seed("closed", "closed", &[opened, sent, closed]);
    seed("frame", "a frame", &[frame(&Frame::Open(7)), frame(&Frame::Data(7, Bytes(vec![1, 2])))]);
    seed("late", "late", &[frame(&Frame::Open(7)), frame(&Frame::Credit(3, 9))]);
    seed("refused", "refused", &[frame(&Frame::Credit(1, 1))]);
    seed("again", "refused", &[frame(&Frame::Open(7)), frame(&Frame::Open(7))]);
}
