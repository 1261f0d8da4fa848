// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each datagram opens once at most, whatever the network does with it.

use std::collections::BTreeSet;

use super::*;
use crate::rng::Rng;

fn ends() -> (DatagramSealer, DatagramOpener) {
    let key = Secret::new(&[1; 32]);
    (DatagramSealer::new(1, key.clone()), DatagramOpener::new(1, key))
}

/// A receiver that remembers everything, beside the one with a window.
#[test]
fn the_window_decides_as_one_that_forgets_nothing() {
    let (mut accepted, mut repeated, mut old, mut forged) = (0, 0, 0, 0);
    for seed in 0..8 {
        let mut rng = Rng::new(seed);
        let (mut sealer, mut opener) = ends();
        // Around the first change of key, and around the first counter.
        let base = if seed % 2 == 0 { 0 } else { (1 << GENERATION_BITS) - 1500 };
        sealer.next = base;
        opener.top = base;
        let mut network: Vec<Vec<u8>> = vec![];
        let mut seen = BTreeSet::new();
        let mut top = base;
        for _ in 0..6000 {
            match rng.below(10) {
                0..4 => network.push(sealer.seal(b"beat")),
                // A burst that is lost.
                4 if rng.percent(2) => {
                    (0..rng.below(1200)).for_each(|_| drop(sealer.seal(b"lost")));
                }
                _ if network.is_empty() => {}
                // One comes, of the newest or of any; it may come again.
                _ => {
                    let reach = if rng.percent(70) { 8 } else { network.len() };
                    let at = network.len() - 1 - rng.below(reach.min(network.len()));
                    let mut datagram = network[at].clone();
                    let counter = u64::from_be_bytes(std::array::from_fn(|i| datagram[12 + i]));
                    if rng.percent(5) {
                        let bit = 160 + rng.below((datagram.len() - HEADER_LEN) * 8);
                        datagram[bit / 8] ^= 1 << (bit % 8);
                        assert!(opener.open(&mut datagram).is_err(), "seed {seed}");
                        forged += 1;
                        continue;
                    }
                    let expected = if counter + WINDOW < top {
                        old += 1;
                        Err(DatagramError::OutOfWindow)
                    } else if seen.contains(&counter) {
                        repeated += 1;
                        Err(DatagramError::Repeated)
                    } else {
                        accepted += 1;
                        seen.insert(counter);
                        top = top.max(counter + 1);
                        Ok(&b"beat"[..])
                    };
                    assert_eq!(
                        opener.open(&mut datagram).map(|c| &*c),
                        expected,
                        "seed {seed}, counter {counter}, top {top}"
                    );
                }
            }
        }
    }
    assert!(
        accepted > 8000 && repeated > 2000 && old > 100 && forged > 200,
        "{accepted} {repeated} {old} {forged}"
    );
}

#[test]
fn no_bit_can_be_changed() {
    let (mut sealer, _) = ends();
    let datagram = sealer.seal(b"beat");
    for bit in 0..datagram.len() * 8 {
        let (_, mut opener) = ends();
        let mut wrong = datagram.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert!(opener.open(&mut wrong).is_err(), "bit {bit}");
        // A forged counter has not moved the window, and the true one is still good.
        assert_eq!(opener.top, 0);
        assert_eq!(opener.open(&mut datagram.clone()).unwrap(), b"beat");
    }
    for len in 0..datagram.len() {
        assert!(ends().1.open(&mut datagram[..len].to_vec()).is_err());
    }
    let mut long = datagram.clone();
    long.resize(MAX_DATAGRAM + 1, 0);
    assert_eq!(ends().1.open(&mut long), Err(DatagramError::Malformed));
}

#[test]
fn another_session_is_another() {
    let (mut sealer, _) = ends();
    let mut other = DatagramOpener::new(1, Secret::new(&[2; 32]));
    let datagram = sealer.seal(b"beat");
    assert_eq!(other.open(&mut datagram.clone()), Err(DatagramError::OtherSession));
    // Somebody writes the right name on it.
    let mut renamed = datagram;
    renamed[4..12].copy_from_slice(&other.id().0);
    assert_eq!(other.open(&mut renamed), Err(DatagramError::Forged));
}

#[test]
fn keys_change_and_late_ones_are_still_opened() {
    let (mut sealer, mut opener) = ends();
    let edge = 1 << GENERATION_BITS;
    sealer.next = edge - 3;
    opener.top = edge - 3;
    let mut sent: Vec<Vec<u8>> = (0..6).map(|_| sealer.seal(b"")).collect();
    let first = opener.key.expose().to_owned();
    for at in [4, 0, 5, 2, 3, 1] {
        opener.open(&mut sent[at].clone()).unwrap();
        assert!(opener.open(&mut sent[at]).is_err());
    }
    assert_ne!(opener.key.expose(), &first);
    assert_eq!(opener.previous.as_ref().unwrap().expose(), &first);
    // Once none of them can come any more, the old key is forgotten.
    (0..=WINDOW).for_each(|_| drop(sealer.seal(b"")));
    opener.open(&mut sealer.seal(b"")).unwrap();
    assert!(opener.previous.is_none());
}

/// The largest fits, and golden bytes: other releases read them. Never changed.
#[test]
fn golden_bytes() {
    let (mut sealer, mut opener) = ends();
    let mut largest = sealer.seal(&[7; MAX_DATAGRAM_CONTENT]);
    assert_eq!((largest.len(), largest[..4].to_vec()), (MAX_DATAGRAM, b"\x01MPD".to_vec()));
    assert_eq!(DatagramId::of(&largest), Some(opener.id()));
    opener.open(&mut largest).unwrap();
    let hash = crate::hex::encode(&crate::crypto::hash(&[&sealer.seal(b"golden")])).to_string();
    assert_eq!(hash, "5194439c9687da9128d88e7f149ce2623749fbc3ac20ed0ad9bcd252b797b490");
}
