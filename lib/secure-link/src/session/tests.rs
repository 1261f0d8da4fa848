// SPDX-License-Identifier: MIT OR Apache-2.0
//! A stream brings what was sent, whole and in order, or ends.

use super::*;
use crate::rng::Rng;

fn ends() -> (Keys, Keys) {
    let split = (Secret::new(&[1; 32]), Secret::new(&[2; 32]), [3; 32]);
    (Keys::new(true, 1, &split), Keys::new(false, 1, &split))
}

/// Cuts bytes into frames without their lengths.
fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = vec![];
    while let Some((len, rest)) = bytes.split_first_chunk() {
        let (frame, rest) = rest.split_at(u16::from_be_bytes(*len).into());
        frames.push(frame.to_vec());
        bytes = rest;
    }
    frames
}

/// `count` frames, each of its number.
fn numbered(sealer: &mut Sealer, count: u64) -> Vec<Vec<u8>> {
    let mut bytes = vec![];
    (0..count).for_each(|at| sealer.seal(Piece::Last, &at.to_be_bytes(), &mut bytes));
    frames(&bytes)
}

#[test]
fn messages_of_all_sizes_come_whole() {
    let (mut one, mut two) = ends();
    for len in [0, 1, MAX_CONTENT - 1, MAX_CONTENT, MAX_CONTENT + 1, 3 * MAX_CONTENT, 200_000] {
        let message: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        let mut bytes = vec![];
        one.sealer.seal_message(&message, &mut bytes);
        let mut frames = frames(&bytes);
        assert_eq!(frames.len(), len.div_ceil(MAX_CONTENT).max(1));
        let last = frames.len() - 1;
        let mut received = vec![];
        for (at, frame) in frames.iter_mut().enumerate() {
            let (piece, content) = two.opener.open(frame).unwrap();
            assert_eq!(piece, if at == last { Piece::Last } else { Piece::Part });
            received.extend_from_slice(content);
        }
        assert!(received == message, "{len} bytes");
    }
}

/// Frames are dropped, repeated, exchanged and changed: the receiver takes those before the first of it
/// and then none.
#[test]
fn a_stream_ends_where_it_is_tampered_with() {
    for seed in 0..500 {
        let mut rng = Rng::new(seed);
        let (mut one, mut two) = ends();
        let mut sent = numbered(&mut one.sealer, 20);
        let at = rng.below(19);
        match rng.below(5) {
            0 => drop(sent.remove(at)),
            1 => sent.insert(at, sent[at].clone()),
            2 => sent.swap(at, at + 1),
            3 => {
                let bit = rng.below(sent[at].len() * 8);
                sent[at][bit / 8] ^= 1 << (bit % 8);
            }
            _ => {
                let len = rng.below(sent[at].len());
                sent[at].truncate(len);
            }
        }
        let mut taken = 0u64;
        for mut frame in sent {
            match two.opener.open(&mut frame) {
                Ok((_, content)) => {
                    assert!(!two.opener.is_over(), "seed {seed}");
                    assert_eq!(content, taken.to_be_bytes(), "seed {seed}");
                    taken += 1;
                }
                Err(_) => assert!(two.opener.is_over(), "seed {seed}"),
            }
        }
        // A frame that was sent twice is taken once.
        assert!((at as u64..=at as u64 + 1).contains(&taken), "seed {seed}: {taken} after {at}");
    }
}

#[test]
fn what_one_sends_is_not_what_it_receives() {
    let (mut one, _) = ends();
    let mut sent = numbered(&mut one.sealer, 1);
    assert_eq!(one.opener.open(&mut sent[0]).unwrap_err(), OpenError::Forged);
    let mut own = one.datagram_sealer.seal(b"");
    assert!(one.datagram_opener.open(&mut own).is_err());
}

#[test]
fn the_end_is_the_end() {
    let (mut one, mut two) = ends();
    let mut bytes = vec![];
    one.sealer.seal(Piece::End, b"", &mut bytes);
    one.sealer.seal(Piece::Last, b"more", &mut bytes);
    let mut sent = frames(&bytes);
    assert_eq!(two.opener.open(&mut sent[0]).unwrap().0, Piece::End);
    assert_eq!(two.opener.open(&mut sent[1]).unwrap_err(), OpenError::Over);
}

#[test]
fn a_frame_of_an_unknown_kind_ends_the_stream() {
    let (mut one, mut two) = ends();
    let mut frame = vec![9, 1, 2];
    let nonce = one.sealer.0.step();
    let tag = one.sealer.0.key.seal(nonce, &[], &mut frame);
    frame.extend(tag);
    assert_eq!(two.opener.open(&mut frame).unwrap_err(), OpenError::Unknown);
    let (mut one, mut two) = ends();
    let nonce = one.sealer.0.step();
    let mut empty = one.sealer.0.key.seal(nonce, &[], &mut []).to_vec();
    assert_eq!(two.opener.open(&mut empty).unwrap_err(), OpenError::Unknown);
}

#[test]
fn keys_change_on_the_way_and_do_not_come_back() {
    let (mut one, mut two) = ends();
    let first = *one.sealer.0.key.expose();
    let mut keys = vec![first];
    for at in [0, REKEY_EVERY - 2, 2 * REKEY_EVERY - 2] {
        // The frames between are as good as sent.
        (one.sealer.0.next, two.opener.direction.next) = (at, at);
        for frame in numbered(&mut one.sealer, 4) {
            assert!(two.opener.open(&mut frame.clone()).is_ok());
        }
        assert_eq!(one.sealer.0.key.expose(), two.opener.direction.key.expose());
        keys.push(*one.sealer.0.key.expose());
    }
    assert_eq!(keys[1], first);
    assert!(keys[2] != first && keys[3] != keys[2] && keys[3] != first);
}

#[test]
fn nothing_secret_is_shown() {
    let (one, _) = ends();
    let hello = Hello {
        name: "a".parse().unwrap(),
        addresses: vec![],
        keys: crate::KeyState { sends: KeyId([0; 8]), also: None },
        note: vec![],
    };
    let peer = Peer {
        key: PublicKey([0; 32]),
        role: hello.name.clone(),
        hello,
        is_new: false,
        admitted_by: KeyId([0; 8]),
        version: 1,
    };
    let keys = [one.sealer.0.key.clone(), one.opener.direction.key.clone(), one.exporter.clone()];
    let shown = format!("{:?}", one.session(true, peer));
    for key in keys {
        let digits = crate::hex::encode(key.expose());
        let numbers = format!("{}, {}, {}", key.expose()[0], key.expose()[1], key.expose()[2]);
        assert!(!shown.contains(&digits[..8]) && !shown.contains(&numbers), "{shown}");
    }
}
