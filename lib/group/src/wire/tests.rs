// SPDX-License-Identifier: MIT OR Apache-2.0

use proptest::prelude::*;

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn life() -> Life {
    Life { epoch: 3, nonce: 0x1234 }
}

fn record() -> Record {
    Record {
        key: "fan 1".parse().unwrap(),
        version: 7,
        class: Class::Dynamic,
        at: 1_800_000_000_000_000,
        value: vec![1, 2, 3].into(),
    }
}

fn beat() -> Beat {
    Beat {
        sent: 1_000_000,
        epoch: 3,
        echo: Some(Echo { sent: 5, arrived: 900_000 }),
        probe: true,
        interval: 100,
        flags: Flags { eligible: true, active: false },
        manager: Some("blade1".parse().unwrap()),
        part: 8,
        version: 7,
        hash: 0xffff_ffff_ffff_ffff,
        have: 9,
        time: -1,
        time_error: Some(50),
    }
}

/// What version 1 is, byte by byte: never to be edited.
#[test]
fn version_1_stays_as_it_is() {
    let welcome = Welcome {
        life: life(),
        yours: Some(life()),
        have: Some((life(), 300)),
        wants: true,
        manager: Some("blade1".parse().unwrap()),
        part: 7,
    };
    let push = Push {
        life: life(),
        from: 6,
        to: 8,
        last: true,
        set: vec![record()],
        gone: vec!["fan 2".parse().unwrap()],
    };
    let messages = [
        (Message::Welcome(welcome), "010103b4240103b4240103b424ac02010106626c6164653107"),
        (
            Message::Push(push),
            "010203b4240608010105\
             66616e203107018080c489e5c5b20603010203010566616e2032",
        ),
        (Message::Again, "0103"),
        (Message::Leaving, "0104"),
        (Message::Program(vec![1, 2]), "0105020102"),
        (Message::Call(300, Channel::Settings, vec![9]), "0106ac02000109"),
        (Message::Call(300, Channel::Program, vec![9]), "0106ac02010109"),
        (Message::Answer(300, vec![]), "0107ac0200"),
    ];
    for (message, bytes) in messages {
        assert_eq!(hex(&message.encode()), bytes, "{message:?}");
        assert_eq!(Message::decode(&message.encode()).unwrap(), message);
    }
    let bytes = "0101c0843d030105a0f736016401000106626c616465310807ffffffffffffffffff0109010132";
    assert_eq!(hex(&beat().encode()), bytes);
    assert_eq!(Beat::decode(&beat().encode()).unwrap(), beat());
}

#[test]
fn a_beat_fits_the_smallest_packet() {
    let long = Beat {
        sent: u64::MAX,
        epoch: u64::MAX,
        echo: Some(Echo { sent: u64::MAX, arrived: u64::MAX }),
        probe: true,
        interval: u16::MAX,
        flags: Flags { eligible: true, active: true },
        manager: Some("x".repeat(Name::MAX_LEN).parse().unwrap()),
        part: u8::MAX,
        version: u64::MAX,
        hash: u64::MAX,
        have: u64::MAX,
        time: i64::MIN,
        time_error: Some(u32::MAX),
    };
    assert!(long.encode().len() <= 200, "{}", long.encode().len());
}

#[test]
fn what_cannot_be_is_refused() {
    assert_eq!(Message::decode(&[]), Err(WireError::Malformed));
    assert_eq!(Message::decode(&[1]), Err(WireError::Malformed));
    assert_eq!(Message::decode(&[2, 3]), Err(WireError::Version(2)));
    assert_eq!(Message::decode(&[1, 99]), Err(WireError::Kind(99)));
    assert_eq!(Message::decode(&[1, 6, 1, 2, 0]), Err(WireError::Kind(6)), "another channel");
    assert_eq!(Message::decode(&[1, 3, 0]), Err(WireError::Malformed), "something behind it");
    let push = |from, to, version| {
        let set = vec![Record { version, ..record() }];
        let push = Push { life: life(), from, to, last: true, set, gone: vec![] };
        Message::decode(&Message::Push(push).encode()).map(drop)
    };
    assert_eq!(push(6, 8, 7), Ok(()));
    for (from, to, version) in [(7, 8, 7), (6, 8, 9), (9, 8, 8)] {
        assert_eq!(push(from, to, version), Err(WireError::Malformed), "{from} {to} {version}");
    }
    let value = vec![0; MAX_VALUE + 1].into();
    let set = vec![Record { value, ..record() }];
    let push = Push { life: life(), from: 0, to: 7, last: true, set, gone: vec![] };
    assert_eq!(Message::decode(&Message::Push(push).encode()), Err(WireError::Long));
    for key in ["", "a\nb", &"x".repeat(MAX_KEY + 1)] {
        assert_eq!(key.parse::<Key>(), Err(KeyError), "{key:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 1_u8..9) {
        for bytes in [bytes.clone(), [&[VERSION, kind], &bytes[..]].concat()] {
            let _ = Message::decode(&bytes);
            let _ = Beat::decode(&bytes);
        }
    }

    #[test]
    fn a_changed_message_is_another_or_none(at in 0_usize..60, flip in 1_u8..) {
        let set = vec![record(), Record { version: 8, ..record() }];
        let push = Push { life: life(), from: 6, to: 8, last: true, set, gone: vec![] };
        let mut bytes = Message::Push(push.clone()).encode();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        if let Ok(other) = Message::decode(&bytes) {
            prop_assert_ne!(other, Message::Push(push));
        }
    }
}
