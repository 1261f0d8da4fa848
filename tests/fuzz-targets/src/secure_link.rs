// SPDX-License-Identifier: MIT OR Apache-2.0
//! What members receive from one another, and from anybody; and the files of keys and members.
//!
//! The input's first byte chooses.

use std::sync::{Arc, LazyLock};

use secure_link::keyring::ProgramFile;
use secure_link::opening::Opening;
use secure_link::{
    DatagramError, Dial, Door, GroupKey, Handshake, Hello, Keyring, Local, Name, Newcomers,
    NodeKey, Progress, Refusal, Roster, Secret, Session, Versions,
};

use crate::Reached;
use crate::input::Input;

/// The rest is an opening's frame behind its kind.
const OPENING: u8 = 0;
/// What an end says of itself.
const HELLO: u8 = 1;
/// Why one end refuses.
const REFUSAL: u8 = 2;
/// A file of group keys, or of a program's.
const KEYRING: u8 = 3;
/// A file of members.
const ROSTER: u8 = 4;
/// A byte that says before which frame of a true handshake, and that frame's place is taken by the rest.
const HANDSHAKE: u8 = 5;
/// What is changed in a true datagram: place and value, twice.
const DATAGRAM: u8 = 6;
/// As [`DATAGRAM`], of a frame of a stream.
const FRAME: u8 = 7;

/// Decodes what others may send.
///
/// # Panics
/// Where something is read that cannot be written the same, a handshake comes about of frames that are not its own,
/// or something changed is taken for true.
pub fn secure_link(data: &[u8]) -> Reached {
    let mut input = Input::new(data);
    Reached::from([match input.u8() {
        OPENING => opening(input.rest()),
        HELLO => hello(input.rest()),
        REFUSAL => refusal(input.rest()),
        KEYRING => keyring(input.rest()),
        ROSTER => roster(input.rest()),
        HANDSHAKE => handshake(input.u8() % 4, input.rest()),
        DATAGRAM => datagram(&mut input),
        FRAME => frame(&mut input),
        _ => "nothing",
    }])
}

fn opening(bytes: &[u8]) -> &'static str {
    let Ok(opened) = Opening::decode(bytes) else { return "no opening" };
    assert_eq!(opened.opening.encode(), opened.clear);
    assert_eq!(opened.clear.len() + 16 + opened.message.len(), bytes.len());
    "opening"
}

fn hello(bytes: &[u8]) -> &'static str {
    let Ok(hello) = Hello::decode(bytes) else { return "no hello" };
    let written = hello.encode();
    assert!(written.len() <= Hello::MAX_LEN);
    assert_eq!(Hello::decode(&written), Ok(hello));
    "hello"
}

fn refusal(bytes: &[u8]) -> &'static str {
    let Ok(refusal) = Refusal::decode(bytes) else { return "no refusal" };
    assert_eq!(Refusal::decode(&refusal.encode()), Ok(refusal));
    "refusal"
}

fn keyring(bytes: &[u8]) -> &'static str {
    let Ok(text) = std::str::from_utf8(bytes) else { return "not text" };
    if let Ok(keyring) = Keyring::parse(text) {
        let again = Keyring::parse(&keyring.to_file()).expect("what was read can be written");
        assert_eq!((again.state(), again.addresses), (keyring.state(), keyring.addresses));
        return "keyring";
    }
    let Ok(file) = ProgramFile::parse(text) else { return "no keyring" };
    let again = ProgramFile::parse(&file.to_file()).expect("what was read can be written");
    assert_eq!(again.keys.state(), file.keys.state());
    "program's keyring"
}

fn roster(bytes: &[u8]) -> &'static str {
    let Ok(text) = std::str::from_utf8(bytes) else { return "not text" };
    let Ok(roster) = Roster::parse(text) else { return "no roster" };
    assert_eq!(Roster::parse(&roster.to_string()), Ok(roster));
    "roster"
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn local(which: u8) -> Arc<Local> {
    let group = Keyring::new(name("g"), name("n"), GroupKey::new(Secret::new(&[9; 32])));
    Arc::new(Local {
        node: NodeKey::new(Secret::new(&[which; 32])),
        keys: group.program(&name("p")),
        group: name("g"),
        program: name("p"),
        versions: Versions::SPOKEN,
        name: name(&format!("m{which}")),
        addresses: vec![],
        note: vec![],
        newcomers: Newcomers::Admit,
    })
}

/// A handshake's frames without their lengths, and what came of it at both ends. At `at` another frame may come.
fn run(other: Option<(u8, &[u8])>) -> (Vec<Vec<u8>>, [Option<Box<Session>>; 2]) {
    let dial = Dial::new(&local(1), name("m"), name("m"));
    let door = Door { role: name("m"), from: vec![name("m")], endpoints: None };
    let (first, mut frame) = Handshake::initiate(local(1), dial, Secret::new(&[3; 32]));
    let mut ends = [first, Handshake::respond(local(2), door, Secret::new(&[4; 32]))];
    let (mut frames, mut sessions) = (vec![], [None, None]);
    for at in 0u8.. {
        let sent = frame.split_off(2);
        let received =
            other.filter(|(place, _)| *place == at).map_or(&sent[..], |(_, bytes)| bytes);
        let end = usize::from((at + 1) % 2);
        let progress = ends[end].handle(received, &Roster::default());
        frames.push(sent);
        frame = match progress {
            Progress::Send(bytes) => bytes,
            Progress::Done(bytes, session) => {
                sessions[end] = Some(session);
                bytes
            }
            Progress::Failed(..) => break,
        };
        if frame.is_empty() {
            break;
        }
    }
    (frames, sessions)
}

static FRAMES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| run(None).0);

fn handshake(at: u8, bytes: &[u8]) -> &'static str {
    let truly = FRAMES[usize::from(at)] == bytes;
    let (_, [first, second]) = run(Some((at, bytes)));
    assert_eq!(first.is_some(), truly, "the initiator takes somebody else for the responder");
    // The responder knows all it needs before the last frame.
    assert_eq!(second.is_some(), truly || at == 3);
    if truly { "handshake" } else { "no handshake" }
}

/// Makes two changes; says whether it is another now.
fn change(input: &mut Input<'_>, bytes: &mut [u8]) -> bool {
    let before = bytes.to_vec();
    for _ in 0..2 {
        let (at, value) = (usize::from(input.u16()) % bytes.len(), input.u8());
        bytes[at] ^= value;
    }
    before != bytes
}

fn datagram(input: &mut Input<'_>) -> &'static str {
    let (_, [Some(mut first), Some(mut second)]) = run(None) else { unreachable!() };
    let mut datagram = first.datagram_sealer.seal(b"content");
    let changed = change(input, &mut datagram);
    let opened =
        second.datagram_opener.open(&mut datagram.clone()).map(|content| &*content == b"content");
    assert_eq!(opened == Ok(true), !changed, "{opened:?}");
    if changed {
        return "changed datagram";
    }
    assert_eq!(second.datagram_opener.open(&mut datagram), Err(DatagramError::Repeated));
    "datagram"
}

fn frame(input: &mut Input<'_>) -> &'static str {
    let (_, [Some(mut first), Some(mut second)]) = run(None) else { unreachable!() };
    let mut bytes = vec![];
    first.sealer.seal_message(b"content", &mut bytes);
    let changed = change(input, &mut bytes[2..]);
    let opened = second.opener.open(&mut bytes[2..]).map(|(_, content)| &*content == b"content");
    assert_eq!(opened == Ok(true), !changed, "{opened:?}");
    if changed { "changed frame" } else { "frame" }
}

/// The frames of the handshake that [`secure_link`] knows, for seeds.
#[must_use]
pub fn true_frames() -> Vec<Vec<u8>> {
    FRAMES.clone()
}
