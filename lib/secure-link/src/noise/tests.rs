// SPDX-License-Identifier: MIT OR Apache-2.0
//! That it is Noise, and what the primitives refuse.

use super::*;
use crate::hex;
use crate::keys::KeyId;

/// The points of order 1, 2 and 4.
pub(crate) fn low_order_is_refused() -> bool {
    let mut one = [0; 32];
    one[0] = 1;
    let mut minus_one = [0xff; 32];
    (minus_one[0], minus_one[31]) = (0xec, 0x7f);
    let mut mine = X25519::default();
    mine.set(&[9; 32]);
    let mut out = [0; 32];
    [[0; 32], one, minus_one].iter().all(|point| mine.dh(point, &mut out).is_err())
}

fn bytes<const N: usize>(digits: &str) -> [u8; N] {
    let mut bytes = [0; N];
    hex::decode(digits, &mut bytes).unwrap();
    bytes
}

fn end(initiator: bool, key: &str, ephemeral: &str) -> Noise {
    let node = NodeKey::new(Secret::new(&bytes(key)));
    let mut noise = Noise::new(initiator, &node, Secret::new(&bytes(ephemeral)), b"John Galt");
    let psk = b"This is my Austrian perspective!";
    noise.0.set_psk(PSK_AT, psk).unwrap();
    noise
}

/// The vector for this pattern of the Haskell library `cacophony`, which is independent of `snow`.
#[test]
fn it_is_the_noise_of_others() {
    let mut one = end(
        true,
        "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1",
        "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a",
    );
    let mut two = end(
        false,
        "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893",
        "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b",
    );
    let opening = one.write(b"Ludwig von Mises");
    assert_eq!(
        *hex::encode(&opening),
        "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944\
         c9f5ff0e8079630cb7e270c20bbf480821b77a384a645c71a2fd9b3db1c16a5f"
    );
    assert_eq!(two.read(&opening).unwrap(), b"Ludwig von Mises");
    let answer = two.write(b"Murray Rothbard");
    assert_eq!(
        *hex::encode(&answer),
        "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843\
         b123def17f71e6ae8e57e0e1dec5949c5f7415c6f33517398747d821a06dc23a\
         d430aa1fd7381d46195c378a819fd574425462cbb2d4ca339e738a0b7001dc91\
         423fbf55a99af0c6f1df21012ceb2f"
    );
    assert_eq!(one.read(&answer).unwrap(), b"Murray Rothbard");
    let proof = one.write(b"F. A. Hayek");
    assert_eq!(
        *hex::encode(&proof),
        "52187316111b118d4c060364f7b975dc0809b2590779aff2d63113c564f11744\
         493384db7bf32d5ae6686df6ab06d508d2e07caaf1d6afc010b978735fc78900\
         e71ae1d314130d042e729a"
    );
    assert_eq!(two.read(&proof).unwrap(), b"F. A. Hayek");
    let (first, second, hash) = one.split();
    assert_eq!(
        *hex::encode(&hash),
        "a477edf6a131bbdb54707f6ea30eab6cd935d9b560f0e5fd1f053a95a99669fb"
    );
    let (again, other, _) = two.split();
    assert_eq!((first.expose(), second.expose()), (again.expose(), other.expose()));
    let mut text = b"Carl Menger".to_vec();
    let tag = second.seal(0, &[], &mut text);
    text.extend(tag);
    assert_eq!(*hex::encode(&text), "eaedc672d4c21e0e2955758756fb98f194c4e90d5deb5b6cf30b27");
}

#[test]
fn the_group_key_is_part_of_it() {
    let node = |byte| NodeKey::new(Secret::new(&[byte; 32]));
    let mut one = Noise::new(true, &node(1), Secret::new(&[3; 32]), b"");
    let mut two = Noise::new(false, &node(2), Secret::new(&[4; 32]), b"");
    one.set_key(&ProgramKey::new(KeyId([0; 8]), Secret::new(&[5; 32])));
    two.set_key(&ProgramKey::new(KeyId([0; 8]), Secret::new(&[6; 32])));
    two.read(&one.write(b"")).unwrap();
    one.read(&two.write(b"")).unwrap();
    assert_eq!(two.read(&one.write(b"")), Err(Broken));
}
