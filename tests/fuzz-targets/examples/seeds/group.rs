// SPDX-License-Identifier: MIT OR Apache-2.0
//! Conversations with a member of a group.

use fuzz_targets::group as target;
use group::settings::change::{Change, OrderDone, Remove, Set};
use group::settings::wire::{Envelope, Kind};
use group::settings::{Expect, MemberId, Order, OrderId, OrderResult, Reign};
use group::wire::{Beat, Channel, Class, Echo, Flags, Life, Message, Push, Record, Welcome};

use crate::seed;

const LIFE: Life = Life { epoch: 2, nonce: 3 };

fn entry(what: u8, bytes: &[u8]) -> Vec<u8> {
    let len = u8::try_from(bytes.len()).expect("seeds are short");
    [&[what, len], bytes].concat()
}

fn said(message: &Message) -> Vec<u8> {
    entry(0, &message.encode())
}

fn welcome() -> Welcome {
    let have = Some((Life { epoch: 5, nonce: 1 }, 0));
    Welcome { life: LIFE, yours: None, have, wants: true, manager: None, part: 1 }
}

fn beat(sent: u64, active: bool) -> Vec<u8> {
    let beat = Beat {
        sent,
        epoch: LIFE.epoch,
        echo: Some(Echo { sent: 1_000_000, arrived: sent }),
        probe: true,
        interval: 100,
        flags: Flags { eligible: active, active },
        manager: Some("a".parse().expect("a name")),
        part: 2,
        version: 1,
        hash: 0,
        have: 0,
        time: 5,
        time_error: Some(1),
    };
    entry(2, &beat.encode())
}

pub fn write() {
    let here = [said(&Message::Welcome(welcome())), beat(10, true)].concat();
    let conversation = |name: &str, wanted: &str, rest: &[u8]| {
        seed(target, "group", name, wanted, &[&here, rest].concat());
    };
    seed(target, "group", "welcome", "welcome", &said(&Message::Welcome(welcome())));
    conversation("here", "here", &[]);
    conversation("manager", "another manager", &beat(11, true));
    let yours = Some(Life { epoch: 9, nonce: 9 });
    let again = said(&Message::Welcome(Welcome { yours, ..welcome() }));
    conversation("set-back", "set back", &again);
    conversation("welcome-again", "welcome again", &again);
    let record = |version| Record {
        key: "fan".parse().expect("a key"),
        version,
        class: Class::Dynamic,
        at: 7,
        value: vec![1; 20].into(),
    };
    let gone = vec!["old".parse().expect("a key")];
    let push = |from, to, set| Push { life: LIFE, from, to, last: true, set, gone: gone.clone() };
    let first = said(&Message::Push(push(0, 3, vec![record(3)])));
    conversation("push", "push", &first);
    let gap = said(&Message::Push(push(7, 8, vec![record(8)])));
    conversation("gap", "push", &[first, gap, beat(12, false)].concat());
    conversation("again", "again", &said(&Message::Again));
    conversation("leaving", "leaving", &said(&Message::Leaving));
    conversation("left", "closed", &said(&Message::Leaving));
    conversation("program", "program", &said(&Message::Program(vec![1, 2, 3])));
    conversation("call", "call", &said(&Message::Call(1, Channel::Program, vec![1])));
    conversation("answer", "answer", &said(&Message::Answer(1, vec![])));
    conversation("kind", "unknown kind", &entry(0, &[1, 200]));
    conversation("silent", "closed", &entry(0x97, &[]).repeat(20));
    conversation("beat", "beat", &beat(11, false));
    conversation("ended", "here", &[entry(6, &[]), entry(7, &[]), entry(5, &[])].concat());
    let envelope = Envelope { reign: Reign::default(), kind: Kind::Vote, payload: vec![1] };
    conversation("envelope", "envelope", &entry(4, &envelope.encode()));
    for (name, kind, payload) in requests() {
        let envelope = Envelope { reign: Reign::default(), kind, payload };
        conversation(name, name, &entry(4, &envelope.encode()));
    }
    for (name, change) in changes() {
        let (kind, body) = change.encode();
        let kind = u8::try_from(kind).expect("there are few kinds");
        conversation(&name.replace(' ', "-"), name, &entry(4, &[&[kind], &body[..]].concat()));
    }
    let head = |version, kind| [&[version, kind], &[0; 24][..], &[1]].concat();
    for (name, bytes) in [
        ("answer-to-it", head(1, 128)),
        ("refusal-of-it", head(1, 129)),
        ("no-kind", head(1, 77)),
        ("no-version", head(9, 1)),
    ] {
        let wanted = if name.starts_with("no") { "here" } else { "envelope" };
        conversation(name, wanted, &entry(4, &bytes));
    }
}

fn changes() -> [(&'static str, Change); 6] {
    let (node, id) = (MemberId([7; 16]), OrderId([8; 16]));
    let key = || "name".to_owned();
    let order = Order {
        id,
        to: node,
        subject: "slot 3".to_owned(),
        what: vec![1],
        deadline: 9,
        expect_boot: Some([2; 16]),
    };
    [
        ("set", Change::Set(Set { key: key(), value: vec![1, 2], expect: Expect::Any })),
        ("remove", Change::Remove(Remove { key: key(), expect: Expect::Absent })),
        ("order", Change::Order(order)),
        ("order done", Change::OrderDone(OrderDone { id, result: OrderResult::Done(vec![1]) })),
        ("admit", Change::Admit(node)),
        ("dismiss", Change::Dismiss(node)),
    ]
}

/// In the layout that the golden tests of `settings/wire` hold still.
fn requests() -> [(&'static str, Kind, Vec<u8>); 4] {
    let a = [0xaa; 16];
    // Term, leader, committed; some, term, leader, index.
    let vote = |committed| [&[3], &a[..], &[committed]].concat();
    let log_id = |term, index| [&[term], &a[..], &[index]].concat();
    let some = |id: Vec<u8>| [&[1], &id[..]].concat();
    // Id, who, when, kind, body; a set of a key.
    let proposal =
        [&[0xcc; 16], &a[..], &[1, b'u', 1, b'r', 9, 1], &[5, 1, b'k', 1, 7, 1]].concat();
    let entries = [&[1], &log_id(3, 5)[..], &[1], &proposal, &[0]].concat();
    // No membership, no name, from the start, two bytes, the last.
    let piece = [0, 0, 0, 0, 0, 2, 1, 2, 1];
    [
        ("vote", Kind::Vote, [vote(0), some(log_id(2, 4))].concat()),
        ("entries", Kind::Append, [vote(1), some(log_id(2, 4)), entries].concat()),
        ("state", Kind::Snapshot, [&vote(1)[..], &some(log_id(3, 5)), &piece].concat()),
        ("proposal", Kind::Propose, [&[1; 16], &a[..], &[0, 1, b'p', 5, 1, 9]].concat()),
    ]
}
