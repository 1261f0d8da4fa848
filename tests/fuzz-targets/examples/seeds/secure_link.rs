// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links between members.

use fuzz_targets::{secure_link, true_frames};
use secure_link::{GroupKey, Hello, Keyring, Refusal, Secret, Versions};

use crate::seed;

fn put(name: &str, wanted: &str, which: u8, bytes: &[u8]) {
    seed(secure_link, "secure_link", name, wanted, &[&[which], bytes].concat());
}

pub fn write() {
    let frames = true_frames();
    put("opening", "opening", 0, &frames[0][1..]);
    put("opening-cut", "no opening", 0, &frames[0][1..30]);
    let ring = Keyring::new(
        "g".parse().expect("a name"),
        "n".parse().expect("a name"),
        GroupKey::new(Secret::new(&[1; 32])),
    );
    let hello = Hello {
        name: "m".parse().expect("a name"),
        addresses: vec!["10.0.0.1:1".parse().expect("an address")],
        keys: ring.state(),
        note: b"note".to_vec(),
    };
    put("hello", "hello", 1, &hello.encode());
    put("hello-twice", "no hello", 1, &hello.encode().repeat(2));
    put("refusal", "refusal", 2, &Refusal::Version(Versions::SPOKEN).encode());
    put("refusal-none", "no refusal", 2, &[0, 0, 0]);
    put("keyring", "keyring", 3, ring.to_file().as_bytes());
    let next = format!("{}next {}\n", *ring.to_file(), "22".repeat(32));
    put("keyring-next", "keyring", 3, next.as_bytes());
    let part = ring.file_for(&"p".parse().expect("a name"));
    put("keyring-program", "program's keyring", 3, part.to_file().as_bytes());
    put("keyring-none", "no keyring", 3, b"group g\n");
    put("keyring-bytes", "not text", 3, &[0xff]);
    let (one, two, id) = ("ab".repeat(32), "ef".repeat(32), "cd".repeat(8));
    let roster = format!("member {one} a 10.0.0.1:1,[fd00::1]:2 {id}:{id}\nrevoked {two} b - -\n");
    put("roster", "roster", 4, roster.as_bytes());
    put("roster-none", "no roster", 4, b"member x\n");
    for (at, frame) in (0u8..).zip(&frames) {
        put(&format!("handshake-{at}"), "handshake", 5, &[&[at], &frame[..]].concat());
        put(&format!("handshake-{at}-cut"), "no handshake", 5, &[&[at], &frame[..9]].concat());
    }
    put("datagram", "datagram", 6, &[]);
    put("datagram-changed", "changed datagram", 6, &[5, 0, 1]);
    put("frame", "frame", 7, &[]);
    put("frame-changed", "changed frame", 7, &[5, 0, 1]);
}
