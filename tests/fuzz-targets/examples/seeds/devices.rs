// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said between units, managers and holders of devices.

use device_manager::hid::{About, FromDevice, Kind, ToDevice};
use device_manager::manager::order::{Numbered, Outgoing};
use device_manager::record::{Device, DeviceId, Found, Function, Holder, Machine, Stamp};
use device_manager::streams::Bytes;
use device_manager::wire::{
    Beat, Bounded, Carried, FromHolder, FromUnit, Grant, LeaseTerms, Peer, Refusal, ToHolder,
    ToUnit, Token, Wanted,
};
use fuzz_targets::devices as target;

fn entry(head: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).expect("they are short");
    [&[head][..], &len.to_le_bytes(), bytes].concat()
}

fn stamp(seq: u64) -> Stamp {
    Stamp { epoch: 2, seq, at: 5 }
}

fn device() -> Device {
    let unit: Machine = "u".parse().expect("a name");
    let text = |text: &str| text.to_owned();
    let found = Found {
        key: text("k"),
        bus: text("usb"),
        path: text("1-1"),
        types: vec![text("disk")],
        vendor: text("1d6b"),
        product: text("0104"),
        manufacturer: text("Maker"),
        model: text("Disk"),
        serial: text("S"),
        descriptors: 1,
        parts: vec![],
        unavailable: None,
        busy: vec![],
        needs_setup: false,
        instance: 1,
    };
    let functions = vec![Function::new("whole", None)];
    Device { id: DeviceId::new(&unit, "k"), unit, gen_no: 1, found, functions, stamp: stamp(2) }
}

fn wanted(gen_no: u64) -> Wanted {
    let holder = Holder { machine: "p".parse().expect("a name"), uid: 0, groups: vec![] };
    Wanted {
        device: device().id,
        gen_no,
        function: 0,
        holder,
        queue: true,
        limit_s: None,
        since_ms: 1,
    }
}

pub fn write() {
    let seed = |name, wanted, bytes: &[u8]| crate::seed(target, "devices", name, wanted, bytes);
    let hello = entry(0, &FromUnit::Hello { stamp: stamp(1), addresses: vec![] }.encode());
    let there = entry(0, &FromUnit::Device(Box::new(device())).encode());
    let gone = entry(0, &FromUnit::Gone(device().id, stamp(3)).encode());
    let beat = FromUnit::Beat(Beat { sent: 1, echo: Some((2, 3)), group: None });
    seed("hello", "from a unit", &hello);
    seed("device", "published", &[&hello[..], &there].concat());
    seed("gone", "a finder is told", &[&hello[..], &there, &gone].concat());
    seed("beat", "from a unit", &[&hello[..], &entry(0x10, &beat.encode())].concat());
    seed("wrong", "wrong", &there);
    let mut out = Outgoing::default();
    let mut peer = |message| entry(1, &out.number(message).encode());
    let units = vec![("v".parse().expect("a name"), stamp(1))];
    let units = peer(Peer::Begin { units, finders: vec![4], requests: vec![5] });
    let owner = peer(Peer::Owner("u".parse().expect("a name"), stamp(9)));
    let hit = peer(Peer::Hit(1, Box::new(device())));
    let find = peer(Peer::Find(4, String::new().try_into().expect("it fits all")));
    let want = peer(Peer::Want(5, wanted(1)));
    let rest = [
        peer(Peer::Queued(1, 1)),
        peer(Peer::Answer(1, Err(Refusal::NoUnit))),
        peer(Peer::Cancel(5)),
    ]
    .concat();
    seed("peer", "from a peer", &[&units[..], &owner, &hit, &find].concat());
    seed("gave-up", "given up", &[&hello[..], &there, &units, &owner].concat());
    seed(
        "want",
        "from a peer",
        &[&hello[..], &there, &units, &owner, &hit, &find, &want, &rest].concat(),
    );
    seed("gap", "a gap", &owner);
    seed("again", "", &entry(1, &Numbered::Again.encode()));
    // The first number that a unit gives in its third life.
    let lease = ToUnit::Lease(
        1,
        Wanted { device: device().id, ..wanted((3 << 32) + 1) },
        LeaseTerms { limit_s: Some(9), read_only: false },
    );
    seed("lease", "leased", &entry(2, &lease.encode()));
    seed("elsewhere", "", &entry(2, &ToUnit::Elsewhere.encode()));
    let data = FromHolder::Data { no: 1, token: Token([0; 16]) };
    seed("stranger", "turned away", &entry(3, &data.encode()));
    seed("disk", "a disk", &entry(4, &[9, 4, 0, 0, 2, 8, 6, 0x50, 0]));
    let mouse = [0x05, 1, 0x09, 2, 0xa1, 1, 0xc0];
    seed("mouse", "a mouse", &entry(4, &mouse));
    let keys = [0x1b, 4, 0, 7, 0, 0x2b, 0x1d, 0, 7, 0, 0xa4, 0x05, 7, 0xb4, 0x81, 0];
    seed("keys", "keys", &entry(4, &[&mouse[..], &keys].concat()));
    seed("pattern", "it fits", &entry(5, b"type=disk,x vendor=1d* model!='a b'"));
    let go = ToHolder::Go(Carried::Usbip { devid: 1, speed: 3, sealed: true });
    seed("go", "to a holder", &entry(6, &go.encode()));
    let framed = FromHolder::Framed { no: 1, token: Token([0; 16]) };
    seed("stranger-framed", "turned away", &entry(3, &framed.encode()));
    let (name, descriptor) = ("K".to_owned(), Bytes(vec![0x75, 8, 0x95, 1, 0x91, 2]));
    let about = About { name, bus: 3, vendor: 0x1d6b, product: 0x104, descriptor };
    let go = ToHolder::Go(Carried::Hid(about));
    seed("go-hid", "to a holder", &entry(6, &go.encode()));
    let got = FromDevice::Got(7, Some(Bytes(vec![1, 2])));
    seed("hid-report", "from a HID device", &entry(6, &got.encode()));
    let output = ToDevice::Output(Bytes(vec![0x85, 1, 0x75, 8, 0x95, 1, 0x91, 2]));
    let set = ToDevice::Set(8, Kind::Feature, 1, Bytes(vec![1, 2]));
    let both = [entry(6, &output.encode()), entry(6, &set.encode())].concat();
    seed("hid-request", "to a HID device", &both);
    seed("record", "a device", &entry(7, &device().encode()));
    refused();
    answers();
    reports();
    patterns();
}

/// What is no message, each before one that is.
fn refused() {
    let beat = FromUnit::Beat(Beat { sent: 1, echo: None, group: None }).encode();
    let long = FromUnit::Answer(1, Err(Refusal::Denied("x".repeat(400)))).encode();
    let more = [&beat[..], &[0]].concat();
    let later = [&[9][..], &beat[1..]].concat();
    for (name, bytes) in [("empty", vec![]), ("long", long), ("more", more), ("later", later)] {
        let both = [entry(0, &bytes), entry(0, &beat)].concat();
        crate::seed(target, "devices", &format!("no-message-{name}"), "from a unit", &both);
    }
}

/// Answers, and what managers say of them and of units to one another.
fn answers() {
    let seed = |name, wanted, bytes: &[u8]| crate::seed(target, "devices", name, wanted, bytes);
    let holder = || wanted(1).holder;
    let unit = || -> Machine { "u".parse().expect("a name") };
    let grant = || {
        let (token, addresses) = (Token([0; 16]), vec![]);
        Box::new(Grant { no: 1, device: device(), function: 0, token, addresses, ttl_ms: 30_000 })
    };
    let why = || "x".to_owned();
    let all = [
        Ok(grant()),
        Err(Refusal::Leased(holder())),
        Err(Refusal::Unavailable(why())),
        Err(Refusal::Denied(why())),
        Err(Refusal::Full),
    ];
    let from_unit = all.clone().map(|answer| entry(0, &FromUnit::Answer(1, answer).encode()));
    seed("answers", "from a unit", &from_unit.concat());
    let mut out = Outgoing::default();
    let mut peer = |message| entry(1, &out.number(message).encode());
    let mut said = all.map(|answer| peer(Peer::Answer(1, answer))).concat();
    said.extend(peer(Peer::End { unit: unit(), no: 1, by: holder(), force: true }));
    said.extend(peer(Peer::Seen(vec![(unit(), (7, 1))])));
    said.extend(peer(Peer::Has(1, vec![device().id])));
    said.extend(peer(Peer::Miss(1, device().id)));
    said.extend(peer(Peer::Lost(unit(), stamp(1))));
    said.extend(peer(Peer::Unfind(1)));
    said.extend(entry(1, &Numbered::Mark(11).encode()));
    seed("answers-of-peers", "from a peer", &said);
    let revoked = entry(2, &ToUnit::Revoke(1, why()).encode());
    let welcome = entry(2, &ToUnit::Welcome { newest: Some((3, 1)), units: 1 }.encode());
    seed("revoked", "", &[revoked, welcome].concat());
    let ended = [ToHolder::Ended(why()), ToHolder::Good(30_000)];
    seed("ended", "to a holder", &ended.map(|said| entry(6, &said.encode())).concat());
    let open = FromHolder::Open { no: 1, token: Token([0; 16]) };
    let rest = [open, FromHolder::Renew, FromHolder::Release];
    seed("renewed", "turned away", &rest.map(|said| entry(3, &said.encode())).concat());
}

/// Reports of HID devices, and a descriptor with the rarer items.
fn reports() {
    let seed = |name, wanted, bytes: &[u8]| crate::seed(target, "devices", name, wanted, bytes);
    let told =
        [FromDevice::Got(7, None), FromDevice::Set(7, true), FromDevice::Input(Bytes(vec![1]))];
    seed("hid-told", "from a HID device", &told.map(|said| entry(6, &said.encode())).concat());
    let get = ToDevice::Get(7, Kind::Input, 1);
    // A long item, a feature report, and a push and pop of both globals.
    let rare = vec![0xfe, 1, 0, 0, 0x75, 8, 0x95, 2, 0xa4, 0x95, 1, 0xb4, 0xb1, 2];
    let asked = [get, ToDevice::Output(Bytes(rare.clone()))].map(|said| entry(6, &said.encode()));
    seed("hid-asked", "to a HID device", &[asked.concat(), entry(4, &rare)].concat());
}

/// A pattern for each field, and what is none.
fn patterns() {
    let fitting = [
        "id=*",
        "unit=u",
        "bus=usb",
        "path=1-*",
        "type=DISK",
        "vendor=1d6b",
        "product=0104",
        "manufacturer!=x",
        "model!=x",
        "serial=",
        "state=free",
        "disk",
        "''",
    ];
    let many = "disk ".repeat(17);
    let none = ["'", "what=x", many.as_str()];
    for (at, text) in fitting.into_iter().enumerate() {
        let bytes = entry(5, text.as_bytes());
        crate::seed(target, "devices", &format!("pattern-{at}"), "it fits", &bytes);
    }
    let all = none.map(|text| entry(5, text.as_bytes())).concat();
    crate::seed(target, "devices", "no-pattern", "", &all);
}
