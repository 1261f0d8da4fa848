// SPDX-License-Identifier: MIT OR Apache-2.0
//! What clients of a leased BMC and its node do.

use fuzz_targets::device_bmc as target;
use ipmi::vm::{Control, VmRequest};
use ipmi::{NetFn, Request};

const COME: u8 = 0;
const GO: u8 = 1;
const SAY: u8 = 2;
const ANSWER: u8 = 4;
const EVENT: u8 = 5;
const WAIT: u8 = 6;
const END: u8 = 7;

fn entry(what: u8, who: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("they are short");
    [&[what, who][..], &len.to_le_bytes(), bytes].concat()
}

fn ask(who: u8, seq: u8, netfn: NetFn, cmd: u8, data: &[u8]) -> Vec<u8> {
    let request = VmRequest { seq, request: Request::new(netfn, cmd, data) };
    entry(SAY, who, &request.encode().expect("it is short"))
}

pub fn write() {
    let seed = |name, wanted, window: u8, parts: &[Vec<u8>]| {
        let bytes = [&[window - 1][..], &parts.concat()].concat();
        crate::seed(target, "device_bmc", name, wanted, &bytes);
    };
    let came = entry(COME, 0, &[]);
    let power = |seq| ask(0, seq, NetFn::CHASSIS, 2, &[1]);
    seed("greeted", "a control", 1, &[came.clone(), entry(SAY, 0, &Control::Reset.encode())]);
    seed("sent", "sent", 1, &[came.clone(), power(1)]);
    seed("answered", "answered", 1, &[came.clone(), power(1), entry(ANSWER, 0, &[0, 7])]);
    let wrong = [entry(ANSWER, 2, &[0]), entry(ANSWER, 3, &[0]), entry(ANSWER, 1, &[])].concat();
    seed("refused", "answered", 1, &[came.clone(), power(1), wrong]);
    let many: Vec<u8> = (0..80).flat_map(power).collect();
    seed("too-many", "too many", 1, &[came.clone(), many]);
    let long = entry(WAIT, 0, &[0; 200]);
    seed("overdue", "overdue", 8, &[came.clone(), power(1), long]);
    let gone = [power(1), power(2), entry(GO, 0, &[]), entry(ANSWER, 0, &[0])].concat();
    seed("gone", "a client goes", 1, &[came.clone(), gone]);
    let over = [power(1), power(2), entry(END, 3, &[]), entry(ANSWER, 0, &[0]), power(3)].concat();
    seed("end", "the end", 1, &[came.clone(), over]);
    let enable = ask(0, 1, NetFn::APP, 0x2e, &[0x0e]);
    seed("enable", "events are wanted", 8, &[came.clone(), enable.clone()]);
    let events: Vec<u8> = (0..18).flat_map(|at| entry(EVENT, 0, &[at; 16])).collect();
    let flags = ask(0, 2, NetFn::APP, 0x31, &[]);
    let read =
        [flags, ask(0, 3, NetFn::APP, 0x35, &[]), ask(0, 4, NetFn::APP, 0x30, &[2])].concat();
    let read = [read, ask(0, 5, NetFn::APP, 0x33, &[]), ask(0, 6, NetFn::APP, 0x35, &[])].concat();
    seed("events", "too many events", 8, &[came, enable, events, entry(COME, 1, &[]), read]);
}
