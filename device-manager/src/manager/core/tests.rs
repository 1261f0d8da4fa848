// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the simulation does not single out.

use super::*;
use crate::record::LeaseInfo;
use crate::record::tests::device;

fn holder(uid: u32) -> Holder {
    Holder { machine: "m".parse().unwrap(), uid, groups: vec![] }
}

fn told(manager: &mut Manager, seq: u64, lease: Option<LeaseInfo>) -> Vec<Action> {
    let mut device = device("u", "1");
    device.functions.truncate(1);
    device.functions[0].lease = lease;
    device.stamp.seq = seq;
    manager.handle(1, Event::Unit(1, FromUnit::Device(Box::new(device))))
}

fn lease(uid: u32) -> Option<LeaseInfo> {
    let (holder, through) = (holder(uid), "m".parse().unwrap());
    Some(LeaseInfo { no: u64::from(uid), holder, through, since: 0, until: None, in_use: true })
}

fn a_manager(scope: Scope) -> Manager {
    let options = Options { own: "m".parse().unwrap(), replication: Replication::All };
    let mut manager = Manager::new(options, Policy::default());
    let _ = manager.handle(1, Event::Find(1, "".parse().unwrap(), scope));
    let _ = manager.handle(1, Event::UnitCame(1, "u".parse().unwrap()));
    let stamp = Stamp { epoch: 1, seq: 0, at: 0 };
    let _ = manager.handle(1, Event::Unit(1, FromUnit::Hello { stamp, addresses: vec![] }));
    manager
}

#[test]
fn a_hundred_wait_and_each_has_it_in_its_turn() {
    let mut manager = a_manager(Scope::Group);
    let _ = told(&mut manager, 1, lease(1000));
    let id = device("u", "1").id;
    for no in 0..100 {
        // Who asks again after a change of managers keeps the place that he had.
        let since_ms = u64::from(no * 37 % 100);
        let ask = Ask {
            device: id,
            function: 0,
            holder: holder(no),
            queue: true,
            limit_s: None,
            since_ms,
        };
        let _ = manager.handle(2, Event::Ask(no.into(), ask));
    }
    let queue: Vec<u64> = manager.queue().iter().map(|waiting| waiting.2).collect();
    assert_eq!(queue, (0..100).collect::<Vec<_>>());
    let mut seq = 1;
    for turn in 0..100 {
        seq += 1;
        let actions = told(&mut manager, seq, None);
        let asked: Vec<_> = actions
            .into_iter()
            .filter_map(|action| match action {
                Action::ToUnit(1, ToUnit::Lease(number, wanted, _)) => Some((number, wanted)),
                _ => None,
            })
            .collect();
        let [(number, wanted)] = &asked[..] else { panic!("one is asked for: {asked:?}") };
        assert_eq!(wanted.since_ms, turn);
        seq += 1;
        let _ = told(&mut manager, seq, lease(wanted.holder.uid));
        let mut device = device("u", "1");
        device.functions[0].lease = lease(wanted.holder.uid);
        let grant = Grant {
            no: 1,
            device,
            function: 0,
            token: crate::wire::Token([0; 16]),
            addresses: vec![],
            ttl_ms: 1,
        };
        let actions =
            manager.handle(3, Event::Unit(1, FromUnit::Answer(*number, Ok(Box::new(grant)))));
        let no = RequestNo::from(wanted.holder.uid);
        assert!(actions.iter().any(|a| matches!(a, Action::Answer(of, Ok(_)) if *of == no)));
    }
    assert!(manager.queue().is_empty());
}

#[test]
fn finders_look_where_they_are_to() {
    for (scope, sees) in [(Scope::Group, true), (Scope::Managed, true), (Scope::Local, false)] {
        let actions = told(&mut a_manager(scope), 1, None);
        let matches =
            actions.iter().any(|action| matches!(action, Action::Tell(1, Report::Match(..))));
        assert_eq!(matches, sees, "{scope:?}");
    }
    // Of another manager's unit.
    let mut manager = a_manager(Scope::Managed);
    let _ = manager.handle(1, Event::UnitLeft(1));
    let peer: Machine = "p".parse().unwrap();
    let _ = manager.handle(1, Event::PeerHere(peer.clone()));
    let _ =
        manager.handle(1, Event::List(peer.clone(), vec![Listed::Set(Box::new(device("u", "1")))]));
    let mut seen = |epoch| {
        let owner = Peer::Owner("u".parse().unwrap(), Stamp { epoch, seq: 0, at: 0 });
        let actions = manager.handle(1, Event::Peer(peer.clone(), owner));
        assert!(!actions.iter().any(|action| matches!(action, Action::Tell(..))), "{actions:?}");
        manager.devices().len()
    };
    assert_eq!(seen(1), 1);
    assert_eq!(seen(2), 0, "it is listed as it was before the unit connected there again");
}

#[test]
fn a_unit_of_which_others_know_something_newer_is_to_come_again() {
    let said = |seq, of: &str, seen: (u64, u64)| {
        let mut manager = a_manager(Scope::Group);
        let _ = told(&mut manager, seq, None);
        let seen = Peer::Seen(vec![(of.parse().unwrap(), seen)]);
        manager.handle(2, Event::Peer("p".parse().unwrap(), seen))
    };
    let sent_away = |actions: &[Action]| actions.contains(&Action::ToUnit(1, ToUnit::Elsewhere));
    assert!(sent_away(&said(5, "u", (1, 6))));
    assert!(sent_away(&said(5, "u", (2, 1))));
    assert!(!sent_away(&said(5, "u", (1, 5))), "that is from here");
    assert!(!sent_away(&said(5, "other", (9, 9))));

    // Who has a unit by an older claim is told of the newer one.
    let mut manager = a_manager(Scope::Group);
    let (unit, peer): (Machine, Machine) = ("w".parse().unwrap(), "p".parse().unwrap());
    let mut owner = |peer: &Machine, epoch| {
        let stamp = Stamp { epoch, seq: 3, at: 0 };
        manager.handle(2, Event::Peer(peer.clone(), Peer::Owner(unit.clone(), stamp)))
    };
    let _ = owner(&"q".parse().unwrap(), 7);
    let seen = Peer::Seen(vec![(unit.clone(), (7, 3))]);
    assert!(owner(&peer, 6).contains(&Action::ToPeer(peer.clone(), seen.clone())));
    assert!(!owner(&peer, 8).contains(&Action::ToPeer(peer, seen)));
}

#[test]
fn only_holders_and_operators_of_the_machines_concerned_end_a_lease() {
    for (from, uid, force, ends) in [
        ("m", 7, false, true),
        ("m", 8, false, false),
        ("m", 0, true, true),
        ("u", 0, true, true),
        ("u", 0, false, false),
        ("x", 0, true, false),
    ] {
        let mut manager = a_manager(Scope::Group);
        let _ = told(&mut manager, 1, lease(7));
        let by = Holder { machine: from.parse().unwrap(), uid, groups: vec![] };
        let end = Peer::End { unit: "u".parse().unwrap(), no: 7, by, force };
        let actions = manager.handle(2, Event::Peer(from.parse().unwrap(), end));
        let revoked = actions.iter().any(|a| matches!(a, Action::ToUnit(1, ToUnit::Revoke(7, _))));
        assert_eq!(revoked, ends, "{uid} on {from}, force {force}");
    }
}

#[test]
fn nobody_asks_for_somebody_on_another_machine() {
    let mut manager = a_manager(Scope::Group);
    let _ = told(&mut manager, 1, None);
    let wanted = crate::wire::Wanted {
        device: device("u", "1").id,
        gen_no: 1,
        function: 0,
        holder: holder(0),
        queue: false,
        limit_s: None,
        since_ms: 0,
    };
    let actions = manager.handle(2, Event::Peer("x".parse().unwrap(), Peer::Want(1, wanted)));
    assert!(matches!(&actions[..], [Action::Note(Note::Wrong(_))]), "{actions:?}");
}

#[test]
fn what_a_peer_wants_no_more_is_over_though_that_was_missed() {
    let mut manager = a_manager(Scope::Group);
    let _ = told(&mut manager, 1, lease(7));
    let peer: Machine = "x".parse().unwrap();
    let mut said = |message| drop(manager.handle(2, Event::Peer(peer.clone(), message)));
    for no in [1, 2] {
        said(Peer::Want(
            no,
            crate::wire::Wanted {
                device: device("u", "1").id,
                gen_no: 1,
                function: 0,
                holder: Holder { machine: peer.clone(), ..holder(u32::try_from(no).unwrap()) },
                queue: true,
                limit_s: None,
                since_ms: 0,
            },
        ));
        said(Peer::Find(no, "type=disk".parse().unwrap()));
    }
    said(Peer::Begin { units: vec![], finders: vec![1], requests: vec![2] });
    assert_eq!(manager.queue().iter().map(|waits| waits.0.uid).collect::<Vec<_>>(), [2]);
    let actions = told(&mut manager, 2, None);
    let hits = actions.iter().filter_map(|action| match action {
        Action::ToPeer(_, Peer::Hit(no, _)) => Some(*no),
        _ => None,
    });
    assert_eq!(hits.collect::<Vec<_>>(), [1]);
}

#[test]
fn whose_answer_was_missed_asks_again_and_who_is_asked_in_vain_is_told() {
    let mut manager = a_manager(Scope::Group);
    let peer: Machine = "p".parse().unwrap();
    let said =
        |manager: &mut Manager, message| manager.handle(2, Event::Peer(peer.clone(), message));
    let begin = || Peer::Begin {
        units: vec![("u".parse().unwrap(), Stamp { epoch: 1, seq: 0, at: 0 })],
        finders: vec![],
        requests: vec![],
    };
    let wants = |actions: &[Action]| {
        let want = |action: &&Action| matches!(action, Action::ToPeer(_, Peer::Want(5, _)));
        actions.iter().filter(want).count()
    };
    let _ = said(&mut manager, begin());
    let _ =
        manager.handle(2, Event::List(peer.clone(), vec![Listed::Set(Box::new(device("u", "1")))]));
    let ask = Ask {
        device: device("u", "1").id,
        function: 0,
        holder: holder(0),
        queue: true,
        limit_s: None,
        since_ms: 0,
    };
    assert_eq!(wants(&manager.handle(2, Event::Ask(5, ask))), 1);
    // It begins anew after what was missed.
    assert_eq!(wants(&said(&mut manager, begin())), 1);
    let waits = said(&mut manager, Peer::Queued(5, 1));
    assert!(waits.contains(&Action::Waits(5, 1)), "{waits:?}");
    let _ = said(&mut manager, Peer::Answer(5, Err(Refusal::Full)));
    assert_eq!(wants(&said(&mut manager, begin())), 0);
    // It was asked again when its answer was on its way.
    let cancelled = said(&mut manager, Peer::Queued(5, 1));
    assert!(cancelled.contains(&Action::ToPeer(peer.clone(), Peer::Cancel(5))), "{cancelled:?}");
}
