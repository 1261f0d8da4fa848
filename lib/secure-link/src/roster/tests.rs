// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is let in, and that the file says the same.

use super::*;
use crate::rng::Rng;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn hello(text: &str) -> Hello {
    let keys = KeyState { sends: KeyId([1; 8]), also: None };
    Hello { name: name(text), addresses: vec![], keys, note: vec![] }
}

const OWN: PublicKey = PublicKey([0; 32]);

#[test]
fn a_revoked_key_does_not_come_back_by_any_way() {
    let own_name = name("own");
    let own = (&OWN, &own_name);
    let key = PublicKey([1; 32]);
    let mut roster = Roster::default();
    assert_eq!(roster.pin(own, &key, &hello("a")), Ok(true));
    let before = roster.get(key.id()).unwrap().clone();
    assert!(roster.revoke(key.id()) && !roster.revoke(key.id()));
    assert_eq!(roster.pin(own, &key, &hello("a")), Err(Refusal::Revoked));
    assert!(!roster.learn(own, &before));
    assert_eq!(Roster::parse(&roster.to_string()).unwrap(), roster);
    // Its name is free for the machine that takes its place.
    assert_eq!(roster.pin(own, &PublicKey([2; 32]), &hello("a")), Ok(true));
    roster.forget(key.id()).unwrap();
    assert_eq!(roster.pin(own, &key, &hello("a")), Err(Refusal::NameTaken));
}

#[test]
fn what_others_tell_never_replaces_a_pin() {
    let own_name = name("own");
    let own = (&OWN, &own_name);
    let mut roster = Roster::default();
    roster.pin(own, &PublicKey([1; 32]), &hello("a")).unwrap();
    let told = |byte, text: &str| Member {
        key: PublicKey([byte; 32]),
        name: name(text),
        standing: Standing::Member,
        addresses: vec![],
        keys: None,
    };
    let before = roster.clone();
    let moved = Member { addresses: vec!["10.0.0.9:1".parse().unwrap()], ..told(1, "a") };
    for lie in [told(2, "a"), told(1, "b"), told(3, "own"), told(0, "c"), moved] {
        assert!(!roster.learn(own, &lie), "{lie:?}");
    }
    assert_eq!(roster, before);
    assert!(roster.learn(own, &told(2, "b")));
}

#[test]
fn files_there_and_back() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut roster = Roster::default();
        for at in 0..rng.below(20) {
            let keys = match rng.below(3) {
                0 => None,
                1 => Some(KeyState { sends: KeyId(rng.next().to_be_bytes()), also: None }),
                _ => Some(KeyState { sends: KeyId([1; 8]), also: Some(KeyId([2; 8])) }),
            };
            let address = |rng: &mut Rng| format!("10.0.0.{}:{}", rng.below(256), rng.below(65536));
            let member = Member {
                key: PublicKey(std::array::from_fn(|_| rng.next() as u8)),
                name: name(&format!("blade-{at}")),
                standing: if rng.percent(20) { Standing::Revoked } else { Standing::Member },
                addresses: (0..rng.below(4)).map(|_| address(&mut rng).parse().unwrap()).collect(),
                keys,
            };
            roster.members.insert(member.key.id(), member);
        }
        assert_eq!(Roster::parse(&format!("# remark\n\n{roster}")), Ok(roster), "seed {seed}");
    }
}

#[test]
fn a_line_that_is_wrong_is_named() {
    let key = "ab".repeat(32);
    let good = format!("member {key} a - -\n");
    for (line, says) in [
        (good.clone(), "the key or the name is there twice"),
        (format!("member {} a - -", "cd".repeat(32)), "the key or the name is there twice"),
        ("members".to_owned(), "it begins with neither `member` nor `revoked`"),
        (format!("member {key}0 b - -"), "the key is wrong"),
        (format!("member {key} b/ - -"), "the name is wrong"),
        (format!("member {key} b 10.0.0.1 -"), "an address is wrong"),
        (format!("member {key} b - 12"), "the ids of group keys are wrong"),
        (format!("member {key} b -"), "a word is missing"),
        (format!("member {key} b - - -"), "there is too much"),
    ] {
        let error = Roster::parse(&format!("{good}{line}")).unwrap_err();
        assert_eq!(error.to_string(), format!("line 2: {says}"));
    }
}
