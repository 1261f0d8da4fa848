// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use crate::watch::tests::answer;

/// The blocks of a capture: type and body.
fn blocks(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut found = vec![];
    while !bytes.is_empty() {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let len = word(4) as usize;
        assert_eq!((len % 4, word(len - 4) as usize), (0, len), "both lengths of a block");
        found.push((word(0), bytes[8..len - 4].to_vec()));
        bytes = &bytes[len..];
    }
    found
}

fn capture(records: &[Record]) -> Vec<(u32, Vec<u8>)> {
    let mut bytes = vec![];
    let mut writer = Writer::new(&mut bytes).unwrap();
    for record in records {
        writer.write(record).unwrap();
    }
    blocks(&bytes)
}

/// The packets of a capture: time in microseconds, bytes.
fn packets(records: &[Record]) -> Vec<(u64, Vec<u8>)> {
    let packet = |body: &[u8]| {
        let word = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().unwrap());
        let len = word(12) as usize;
        (u64::from(word(4)) << 32 | u64::from(word(8)), body[20..20 + len].to_vec())
    };
    capture(records).iter().filter(|(kind, _)| *kind == 6).map(|(_, body)| packet(body)).collect()
}

fn bridged(mut record: Record) -> Record {
    let message = record.message.as_mut().unwrap();
    message.channel = 0;
    message.target = Some(0x82);
    record
}

#[test]
fn golden_capture() {
    let blocks = capture(&[answer(0x06, 0x01, &[], &[0, 0x20])]);
    let kinds: Vec<_> = blocks.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [0x0a0d_0d0a, 1, 6, 6]);
    let section =
        [0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(blocks[0].1[..16], section);
    let interface = [
        &[4, 1, 0, 0, 0, 0, 0, 0][..], // link type 260, no limit of length
        &[2, 0, 11, 0],                // its name
        b"/dev/ipmi/1\0",
        &[0; 4],
    ];
    assert_eq!(blocks[1].1, interface.concat());
    let us = 1_700_000_000_123_456_u64;
    let answer = [
        &[0; 4][..],
        &((us >> 32) as u32).to_le_bytes(),
        &(us as u32).to_le_bytes(),
        &[15, 0, 0, 0, 15, 0, 0, 0],
        // A message on channel 15, second, millisecond, KCS, from the controller, 4 bytes.
        &[0x0f, 0x00, 0xf1, 0x53, 0x65, 123, 0, 5, 0, 0, 4],
        &[0x1c, 0x01, 0x00, 0x20, 0],
        // The comment.
        &[1, 0, 33, 0],
        b"ipmitool[4711] uid 1000, handle 7\0\0\0",
        &[0; 4],
    ];
    let expected = answer.concat();
    assert_eq!(blocks[3].1, expected);
}

#[test]
fn a_request_stands_before_its_answer_at_its_own_time() {
    let record = answer(0x0a, 0x23, &[1, 2], &[0xc5]);
    let packets = packets(std::slice::from_ref(&record));
    assert_eq!(packets.len(), 2);
    assert_eq!((packets[0].0, packets[1].0), (record.time_us - 3250, record.time_us));
    assert_eq!(packets[0].1[7..], [5, 0x80, 0, 4, 0x28, 0x23, 1, 2]);
    assert_eq!(packets[1].1[7..], [5, 0x00, 0, 3, 0x2c, 0x23, 0xc5]);
}

#[test]
fn bridged_messages_are_as_on_their_bus() {
    let packets = packets(&[bridged(answer(0x06, 0x01, &[], &[0]))]);
    let expected = [0x00, 0x82, 0x18, 0x66, 0x20, 0x06, 0x01];
    let (request, answer) = (&packets[0].1, &packets[1].1);
    assert_eq!((request[0], &request[11..17]), (expected[0], &expected[1..]));
    assert_eq!((request[7], request[8], answer[8]), (IPMB, 0x00, 0x80));
    let sent = ipmb::decode(&request[11..]).unwrap();
    assert_eq!(ipmb::decode(&answer[11..]).unwrap(), sent.respond(vec![0]));
}

#[test]
fn what_was_never_on_the_wire_is_a_remark() {
    let mut refused = answer(0x06, 0x01, &[], &[]);
    refused.kind = Kind::Refused;
    refused.errno = Some("EBUSY".to_owned());
    let missed = Record { missed: Some(3), ..Record::new(5_000_000, Kind::Missed) };
    let packets = packets(&[refused, missed]);
    assert_eq!(packets[0].1[11..], *b"Get Device ID: EBUSY");
    assert_eq!((packets[1].1[0], &packets[1].1[11..]), (0x2f, &b"3 records missed"[..]));
}

#[test]
fn an_event_is_the_answer_that_fetched_it() {
    let mut event = answer(7, 0x35, &[], &[2; 16]);
    event.kind = Kind::Event;
    event.message.as_mut().unwrap().request = None;
    let packets = packets(&[event]);
    assert_eq!(packets[0].1[11..14], [0x1c, 0x35, 0x00]);
    assert_eq!(packets[0].1[14..], [2; 16]);
}

/// A long message, and every kind of number out of range.
#[test]
fn odd_records_are_survived() {
    let mut odd = answer(0xff, 0xff, &[7; 300], &[]);
    let message = odd.message.as_mut().unwrap();
    message.lun = 0xff;
    message.channel = 0xff;
    for target in [None, Some(0xff)] {
        odd.message.as_mut().unwrap().target = target;
        for kind in [Kind::Answer, Kind::Command, Kind::Event, Kind::Unanswered] {
            odd.kind = kind;
            odd.sent = Some(true);
            odd.who = None;
            assert!(!packets(std::slice::from_ref(&odd)).is_empty());
        }
    }
}
