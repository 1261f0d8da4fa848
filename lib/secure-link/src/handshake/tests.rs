// SPDX-License-Identifier: MIT OR Apache-2.0
//! Handshakes that come about, and all those that must not.

use super::*;
use crate::keys::GroupKey;
use crate::opening::{LENGTH, MAX_HANDSHAKE_FRAME, Opened};
use crate::{Member, Peer, Piece, ProgramKey, ProgramKeyring, Standing};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn secret(byte: u8) -> Secret {
    Secret::new(&[byte; 32])
}

fn local(which: u8) -> Local {
    let key = GroupKey::new(secret(200)).program(&name("monitor"));
    Local {
        node: NodeKey::new(secret(which)),
        keys: ProgramKeyring { send: key, also: None },
        group: name("rack-1"),
        program: name("monitor"),
        versions: Versions::SPOKEN,
        name: name(&format!("blade-{which}")),
        addresses: vec![],
        note: vec![which],
        newcomers: Newcomers::Admit,
    }
}

fn dial(local: &Local) -> Dial {
    Dial::new(local, name("member"), name("member"))
}

fn door() -> Door {
    Door { role: name("member"), from: vec![name("member")], endpoints: None }
}

fn pinned(local: &Local, standing: Standing) -> Roster {
    let mut roster = Roster::default();
    let key = NodeKey::new(secret(99));
    roster.pin((key.public(), &name("me")), local.node.public(), &local.hello()).unwrap();
    if standing == Standing::Revoked {
        assert!(roster.revoke(local.node.id()));
    }
    roster
}

/// Two ends, and what lies between them.
struct Pair {
    ends: [Handshake; 2],
    rosters: [Roster; 2],
    /// The frames that were sent, each with its length.
    frames: Vec<Vec<u8>>,
}

type Ends = [Result<Box<Session>, HandshakeError>; 2];

impl Pair {
    fn new(initiator: Local, dial: Dial, responder: Local, door: Door) -> Self {
        let (first, frame) = Handshake::initiate(Arc::new(initiator), dial, secret(101));
        let second = Handshake::respond(Arc::new(responder), door, secret(102));
        Self { ends: [first, second], rosters: Default::default(), frames: vec![frame] }
    }

    fn plain() -> Self {
        Self::new(local(1), dial(&local(1)), local(2), door())
    }

    /// Runs it; `between` may change the frames, which are numbered. An end that fails closes: the other
    /// hears nothing more.
    fn run(mut self, mut between: impl FnMut(usize, &mut Vec<u8>)) -> (Ends, Vec<Vec<u8>>) {
        let closed = || Err(HandshakeError::OutOfTurn);
        let mut outcome = [closed(), closed()];
        let mut frame = self.frames[0].clone();
        for at in 0.. {
            let mut sent = frame[LENGTH..].to_vec();
            assert_eq!(frame[..LENGTH], u16::try_from(sent.len()).unwrap().to_be_bytes());
            between(at, &mut sent);
            let end = (at + 1) % 2;
            frame = match self.ends[end].handle(&sent, &self.rosters[end]) {
                Progress::Send(frame) => frame,
                Progress::Done(frame, session) => {
                    outcome[end] = Ok(session);
                    frame
                }
                Progress::Failed(frame, error) => {
                    outcome[end] = Err(error);
                    frame
                }
            };
            if frame.is_empty() {
                break;
            }
            self.frames.push(frame.clone());
        }
        (outcome, self.frames)
    }

    fn refused(self) -> [HandshakeError; 2] {
        self.run(|_, _| ()).0.map(|end| end.expect_err("no session was to come of it"))
    }
}

fn sessions(pair: Pair) -> [Session; 2] {
    pair.run(|_, _| ()).0.map(|end| *end.unwrap())
}

#[test]
fn two_members_know_each_other() {
    let [mut one, mut two] = sessions(Pair::plain());
    for (session, other, initiator) in [(&one, local(2), true), (&two, local(1), false)] {
        let expected = Peer {
            key: *other.node.public(),
            role: name("member"),
            hello: other.hello(),
            is_new: true,
            admitted_by: other.keys.send.id(),
            version: 1,
        };
        assert_eq!((&session.peer, session.initiator), (&expected, initiator));
    }
    assert_eq!(one.export("use", b"x").expose(), two.export("use", b"x").expose());
    assert_ne!(one.export("use", b"x").expose(), two.export("use", b"y").expose());
    for _ in 0..3 {
        for (from, to) in [(&mut one.sealer, &mut two.opener), (&mut two.sealer, &mut one.opener)] {
            let mut frame = vec![];
            from.seal_message(b"hello", &mut frame);
            let (piece, content) = to.open(&mut frame[LENGTH..]).unwrap();
            assert_eq!((piece, &*content), (Piece::Last, &b"hello"[..]));
        }
        let mut datagram = one.datagram_sealer.seal(b"beat");
        assert_eq!(two.datagram_opener.open(&mut datagram).unwrap(), b"beat");
        let mut datagram = two.datagram_sealer.seal(b"beat");
        assert_eq!(one.datagram_opener.open(&mut datagram).unwrap(), b"beat");
    }
}

/// What version 1 puts on the wire, by its hash: releases must go on to understand each other. Never changed.
#[test]
fn golden_transcript() {
    let (ends, frames) = Pair::plain().run(|_, _| ());
    let lens: Vec<usize> = frames.iter().map(Vec::len).collect();
    assert_eq!(lens, [112, 101, 92, 46]);
    let [one, _] = ends.map(|end| *end.unwrap());
    let mut all = frames.concat();
    let Session { mut sealer, mut datagram_sealer, .. } = one;
    sealer.seal_message(b"message", &mut all);
    all.extend(datagram_sealer.seal(b"datagram"));
    let hash = crate::hex::encode(&crate::crypto::hash(&[&all])).to_string();
    assert_eq!(hash, "c861966b8ef11f632e2b74fa2647226b0b8ad7095960d6db8b058be46d4a10db");
}

#[test]
fn a_pinned_member_is_not_new() {
    let mut pair = Pair::plain();
    pair.rosters = [pinned(&local(2), Standing::Member), pinned(&local(1), Standing::Member)];
    assert!(sessions(pair).iter().all(|session| !session.peer.is_new));
}

#[test]
fn another_group_key_is_refused() {
    let mut other = local(1);
    other.keys.send = GroupKey::new(secret(201)).program(&name("monitor"));
    let refused = Pair::new(other.clone(), dial(&other), local(2), door()).refused();
    let refusal = Refusal::UnknownKey;
    assert_eq!(refused[1], HandshakeError::Refused(refusal));
    assert_eq!(refused[0], HandshakeError::RefusedThere { refusal, proved: false });

    // It knows the id of the right key but not the key: nothing is computed for it.
    other.keys.send = ProgramKey::new(local(2).keys.send.id(), secret(7));
    let (ends, frames) = Pair::new(other.clone(), dial(&other), local(2), door()).run(|_, _| ());
    assert_eq!(ends[1].as_ref().unwrap_err(), &HandshakeError::Refused(Refusal::Changed));
    assert!(ends[0].is_err() && frames.len() == 2 && frames[1].len() < 10);
}

/// A responder that has no group key cannot bring an initiator to believe it.
#[test]
fn a_responder_without_the_group_key_is_not_believed() {
    let hostile = Arc::new(local(2));
    let (mut initiator, frame) =
        Handshake::initiate(Arc::new(local(1)), dial(&local(1)), secret(101));
    let Opened { opening, clear, message, .. } = Opening::decode(&frame[LENGTH + 1..]).unwrap();
    let mut noise = Noise::new(false, &hostile.node, secret(102), &prologue(clear, None));
    noise.set_key(&ProgramKey::new(opening.key, secret(7)));
    noise.read(message).unwrap();
    let answer = Kind::Answer.frame(&[&noise.write(&[1, 1])]);
    let Progress::Send(_) = initiator.handle(&answer[LENGTH..], &Roster::default()) else {
        panic!("the group key is not part of the answer");
    };
    // It cannot read the proof, so it makes up a session of its own.
    let mut keys = Keys::new(false, 1, &noise.split());
    let mut sealed = vec![];
    keys.sealer.seal(Piece::Confirm, &[&[0], &hostile.hello().encode()[..]].concat(), &mut sealed);
    let confirm = Kind::Confirm.frame(&[&sealed[LENGTH..]]);
    let end = initiator.handle(&confirm[LENGTH..], &Roster::default());
    assert!(matches!(end, Progress::Failed(_, HandshakeError::Forged)), "{end:?}");
}

#[test]
fn a_revoked_member_is_refused_by_either_end() {
    let mut pair = Pair::plain();
    pair.rosters[1] = pinned(&local(1), Standing::Revoked);
    let refusal = Refusal::Revoked;
    let refused = pair.refused();
    assert_eq!(refused[1], HandshakeError::Refused(refusal));
    assert_eq!(refused[0], HandshakeError::RefusedThere { refusal, proved: true });

    let mut pair = Pair::plain();
    pair.rosters[0] = pinned(&local(2), Standing::Revoked);
    let (ends, frames) = pair.run(|_, _| ());
    assert_eq!(ends[0].as_ref().unwrap_err(), &HandshakeError::Refused(refusal));
    assert_eq!(frames.len(), 2, "a revoked member does not learn who asked");
}

#[test]
fn a_name_belongs_to_one_key() {
    // Somebody with the group key and a key of his own takes a member's name.
    let mut thief = local(3);
    thief.name = name("blade-1");
    let mut pair = Pair::new(thief.clone(), dial(&thief), local(2), door());
    pair.rosters[1] = pinned(&local(1), Standing::Member);
    assert_eq!(pair.refused()[1], HandshakeError::Refused(Refusal::NameTaken));

    // The same as the responder.
    let mut pair = Pair::new(local(2), dial(&local(2)), thief.clone(), door());
    pair.rosters[0] = pinned(&local(1), Standing::Member);
    let (ends, _) = pair.run(|_, _| ());
    assert_eq!(ends[0].as_ref().unwrap_err(), &HandshakeError::Refused(Refusal::NameTaken));

    // The responder's own name.
    thief.name = name("blade-2");
    let pair = Pair::new(thief.clone(), dial(&thief), local(2), door());
    assert_eq!(pair.refused()[1], HandshakeError::Refused(Refusal::NameTaken));

    // A member under another name than its own.
    let mut pair = Pair::new(thief.clone(), dial(&thief), local(1), door());
    pair.rosters[1] = pinned(&local(3), Standing::Member);
    assert_eq!(pair.refused()[1], HandshakeError::Refused(Refusal::NameTaken));
}

#[test]
fn a_closed_group_and_a_full_one_let_nobody_in() {
    let mut closed = local(2);
    closed.newcomers = Newcomers::Refuse;
    let pair = Pair::new(local(1), dial(&local(1)), closed.clone(), door());
    assert_eq!(pair.refused()[1], HandshakeError::Refused(Refusal::Closed));
    let mut pair = Pair::new(local(1), dial(&local(1)), closed, door());
    pair.rosters[1] = pinned(&local(1), Standing::Member);
    sessions(pair);

    let mut pair = Pair::plain();
    for which in 3..3 + 62 {
        let one = Member {
            key: *local(which).node.public(),
            name: local(which).name,
            standing: Standing::Member,
            addresses: vec![],
            keys: None,
        };
        assert!(pair.rosters[1].learn(local(2).identity(), &one));
    }
    // 62 others and oneself: there is one place.
    let one = Member {
        key: PublicKey([7; 32]),
        name: name("x"),
        standing: Standing::Member,
        addresses: vec![],
        keys: None,
    };
    assert!(pair.rosters[1].clone().learn(local(2).identity(), &one));
    assert!(pair.rosters[1].learn(local(2).identity(), &one));
    assert_eq!(pair.refused()[1], HandshakeError::Refused(Refusal::Full));
}

#[test]
fn who_was_not_wanted_does_not_learn_who_asked() {
    let mut wanted = dial(&local(1));
    wanted.expect = Some(local(3).node.id());
    let (ends, frames) = Pair::new(local(1), wanted, local(2), door()).run(|_, _| ());
    let (expected, found) = (local(3).node.id(), local(2).node.id());
    assert_eq!(ends[0].as_ref().unwrap_err(), &HandshakeError::OtherMember { expected, found });
    assert_eq!(frames.len(), 2);
}

#[test]
fn group_program_and_roles_must_agree() {
    type Change = fn(&mut Local, &mut Door);
    let cases: [(Change, Refusal); 4] = [
        (|local, _| local.group = name("rack-2"), Refusal::OtherGroup),
        (|local, _| local.program = name("kvm"), Refusal::OtherProgram),
        (|_, door| door.role = name("server"), Refusal::Role),
        (|_, door| door.from = vec![name("agent")], Refusal::Role),
    ];
    for (change, refusal) in cases {
        let (mut responder, mut door) = (local(2), door());
        change(&mut responder, &mut door);
        let refused = Pair::new(local(1), dial(&local(1)), responder, door).refused();
        assert_eq!(refused[1], HandshakeError::Refused(refusal));
        assert_eq!(refused[0], HandshakeError::RefusedThere { refusal, proved: false });
    }
}

#[test]
fn addresses_are_bound_where_both_see_the_same() {
    let ends = |initiator: &str| {
        Some(Endpoints {
            initiator: initiator.parse().unwrap(),
            responder: "10.0.0.2:7460".parse().unwrap(),
        })
    };
    let run = |seen: [Option<Endpoints>; 2]| {
        let (mut dial, mut door) = (dial(&local(1)), door());
        (dial.endpoints, door.endpoints) = (seen[0], seen[1]);
        Pair::new(local(1), dial, local(2), door).run(|_, _| ()).0
    };
    assert!(run([ends("10.0.0.1:5"), ends("[::ffff:10.0.0.1]:5")]).iter().all(Result::is_ok));
    for seen in [
        [ends("10.0.0.1:5"), ends("10.0.0.3:5")],
        [ends("10.0.0.1:5"), ends("10.0.0.1:6")],
        [ends("10.0.0.1:5"), None],
        [None, ends("10.0.0.1:5")],
    ] {
        let refused = run(seen);
        assert_eq!(refused[1].as_ref().unwrap_err(), &HandshakeError::Refused(Refusal::Changed));
    }
}

#[test]
fn a_connection_led_back_comes_to_nothing() {
    // To the member's own port.
    let pair = Pair::new(local(1), dial(&local(1)), local(1), door());
    let (ends, _) = pair.run(|_, _| ());
    assert_eq!(ends[0].as_ref().unwrap_err(), &HandshakeError::Refused(Refusal::SameKey));
    assert!(ends[1].is_err());
    // Its own frames, to itself.
    let (mut initiator, frame) =
        Handshake::initiate(Arc::new(local(1)), dial(&local(1)), secret(101));
    let end = initiator.handle(&frame[LENGTH..], &Roster::default());
    assert!(matches!(end, Progress::Failed(_, HandshakeError::OutOfTurn)), "{end:?}");
}

/// Whatever bit of whatever frame is changed, neither end takes anybody for the other who is not: where a
/// session comes about at an end, the other end's is the same.
#[test]
fn no_bit_can_be_changed() {
    let (_, frames) = Pair::plain().run(|_, _| ());
    for (which, frame) in frames.iter().enumerate() {
        for byte in 0..frame.len() - LENGTH {
            let bit = (byte * 5 + which) % 8;
            let (ends, _) = Pair::plain().run(|at, sent| {
                if at == which {
                    sent[byte] ^= 1 << bit;
                }
            });
            assert!(ends[0].is_err(), "frame {which}, byte {byte}, bit {bit}");
            // What is changed in the last frame, the responder cannot know.
            assert_eq!(ends[1].is_ok(), which == 3, "frame {which}, byte {byte}, bit {bit}");
        }
    }
}

#[test]
fn what_is_cut_or_too_long_is_refused() {
    let (_, frames) = Pair::plain().run(|_, _| ());
    for (which, frame) in frames.iter().enumerate() {
        for len in 0..frame.len() - LENGTH {
            let cut =
                |at: usize, sent: &mut Vec<u8>| sent.truncate(if at == which { len } else { 9999 });
            let (ends, _) = Pair::plain().run(cut);
            assert!(ends[0].is_err() && ends[1].is_ok() == (which == 3), "frame {which} to {len}");
        }
        let (ends, _) = Pair::plain().run(|at, sent| {
            if at == which {
                sent.resize(MAX_HANDSHAKE_FRAME + 1, 0);
            }
        });
        assert!(ends[0].is_err());
        let end = if which % 2 == 0 { &ends[1] } else { &ends[0] };
        let long = HandshakeError::Malformed(DecodeError::Long);
        assert_eq!(end.as_ref().unwrap_err(), &long, "frame {which}");
    }
}

/// Both sides of a handshake that was recorded, played to ends that are in a new one.
#[test]
fn nothing_of_an_old_handshake_is_good_in_a_new_one() {
    let (_, old) = Pair::plain().run(|_, _| ());
    let mut responder = Handshake::respond(Arc::new(local(2)), door(), secret(103));
    let answered = responder.handle(&old[0][LENGTH..], &Roster::default());
    assert!(matches!(answered, Progress::Send(_)), "an opening can be repeated");
    let end = responder.handle(&old[2][LENGTH..], &Roster::default());
    assert!(matches!(end, Progress::Failed(_, HandshakeError::Forged)), "{end:?}");

    let (mut initiator, _) = Handshake::initiate(Arc::new(local(1)), dial(&local(1)), secret(104));
    let end = initiator.handle(&old[1][LENGTH..], &Roster::default());
    assert!(matches!(end, Progress::Failed(_, HandshakeError::Forged)), "{end:?}");
}

/// A key that makes every shared secret zero.
#[test]
fn a_point_of_low_order_is_refused() {
    let (_, mut clean) = Pair::plain().run(|_, _| ());
    let opening = clean.swap_remove(0);
    let Opened { opening, clear, .. } = Opening::decode(&opening[LENGTH + 1..]).unwrap();
    let key = local(1).keys.find(opening.key).unwrap().clone();
    // Noise's first message of the point zero; its empty payload is sealed with what follows from it.
    let (_, mut frame) = Handshake::initiate(Arc::new(local(1)), dial(&local(1)), secret(101));
    let at = frame.len() - 48;
    frame[at..at + 32].fill(0);
    let tag = key.admission().mac(&[&prologue(clear, None), &frame[at..]]);
    frame[at - 16..at].copy_from_slice(&tag);
    let mut responder = Handshake::respond(Arc::new(local(2)), door(), secret(102));
    let end = responder.handle(&frame[LENGTH..], &Roster::default());
    assert!(matches!(end, Progress::Failed(_, HandshakeError::Forged)), "{end:?}");
    assert!(crate::noise::tests::low_order_is_refused());
}

fn speaks(which: u8, oldest: u8, newest: u8) -> Local {
    Local { versions: Versions { oldest, newest }, ..local(which) }
}

/// The next release and this one, and the one after that and this one.
#[test]
fn adjacent_versions_understand_each_other() {
    for (theirs, ours) in [((1, 2), (1, 1)), ((1, 1), (1, 2)), ((1, 3), (1, 2)), ((2, 3), (1, 2))] {
        let (initiator, responder) = (speaks(1, theirs.0, theirs.1), speaks(2, ours.0, ours.1));
        let mut dial = dial(&initiator);
        let common = theirs.1.min(ours.1);
        let mut attempts = 0;
        let versions = loop {
            attempts += 1;
            let pair = Pair::new(initiator.clone(), dial.clone(), responder.clone(), door());
            match pair.run(|_, _| ()).0 {
                [Ok(one), Ok(two)] => break (one.peer.version, two.peer.version),
                [Err(HandshakeError::RefusedThere { refusal, .. }), _] => {
                    dial = dial.again(&initiator, refusal).expect("there is a common version");
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((versions, attempts <= 2), ((common, common), true));
    }
    let (initiator, refusal) =
        (speaks(1, 1, 1), Refusal::Version(Versions { oldest: 2, newest: 3 }));
    assert!(dial(&initiator).again(&initiator, refusal).is_none(), "there is none");
}

/// Somebody on the way pretends that the responder speaks version 1 only.
#[test]
fn nobody_can_talk_two_ends_down_to_an_older_version() {
    let (initiator, responder) = (speaks(1, 1, 2), speaks(2, 1, 2));
    let lie = Refusal::Version(Versions { oldest: 1, newest: 1 });
    let lower = dial(&initiator).again(&initiator, lie).unwrap();
    assert_eq!(lower.version, 1);
    let pair =
        |initiator: &Local| Pair::new(initiator.clone(), lower.clone(), responder.clone(), door());
    let refused = pair(&initiator).refused();
    assert_eq!(refused[1], HandshakeError::Refused(Refusal::Version(responder.versions)));
    // It also changes what the initiator says of itself.
    let newest = 1 + 6;
    let (ends, _) = pair(&initiator).run(|at, sent| {
        if at == 0 {
            assert_eq!(std::mem::replace(&mut sent[newest], 1), 2);
        }
    });
    assert_eq!(ends[1].as_ref().unwrap_err(), &HandshakeError::Refused(Refusal::Changed));
    assert!(ends[0].is_err());
}

/// A responder that is careless goes along with the older version, and is found out by what it says of itself.
#[test]
fn an_initiator_does_not_speak_less_than_both_can() {
    let (initiator, responder) = (Arc::new(speaks(1, 1, 2)), speaks(2, 1, 2));
    let lower = Dial { version: 1, ..dial(&initiator) };
    for (versions, good) in [([1, 2], false), ([1, 1], true), ([2, 1], false), ([2, 2], false)] {
        let (mut end, frame) = Handshake::initiate(initiator.clone(), lower.clone(), secret(101));
        let Opened { clear, message, .. } = Opening::decode(&frame[LENGTH + 1..]).unwrap();
        let mut noise = Noise::new(false, &responder.node, secret(102), &prologue(clear, None));
        noise.read(message).unwrap();
        let answer = Kind::Answer.frame(&[&noise.write(&versions)]);
        let progress = end.handle(&answer[LENGTH..], &Roster::default());
        assert_eq!(matches!(progress, Progress::Send(_)), good, "{versions:?}: {progress:?}");
    }
}

#[test]
fn while_the_key_changes_either_key_admits() {
    let key = |byte| GroupKey::new(secret(byte)).program(&name("monitor"));
    let (old, new) = (key(200), key(201));
    let with = |which, send: &ProgramKey, also: Option<&ProgramKey>| Local {
        keys: ProgramKeyring { send: send.clone(), also: also.cloned() },
        ..local(which)
    };
    let states = [
        with(1, &old, None),
        with(1, &old, Some(&new)),
        with(1, &new, Some(&old)),
        with(1, &new, None),
    ];
    for (at, one) in states.iter().enumerate() {
        for (step, two) in states.iter().enumerate() {
            let two = Local { node: NodeKey::new(secret(2)), name: name("blade-2"), ..two.clone() };
            let accepts = two.keys.state().accepts(one.keys.state().sends);
            let [first, second] = Pair::new(one.clone(), dial(one), two, door()).run(|_, _| ()).0;
            assert_eq!(first.is_ok() && second.is_ok(), accepts, "{at} to {step}");
            assert!(accepts || at.abs_diff(step) > 1, "a step apart they know each other");
        }
    }
    // A member that was away when the others went on has one more try.
    let late = with(1, &old, Some(&new));
    let again = dial(&late).again(&late, Refusal::UnknownKey).unwrap();
    assert_eq!(again.key, new.id());
    assert!(again.again(&late, Refusal::UnknownKey).is_none());
}
