// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the simulation does not single out.

use super::*;
use crate::record::{MAX_FUNCTIONS, Taken};
use crate::wire::{Grant, LeaseTerms, Refusal, Wanted};

fn found(serial: &str, parts: &[(&str, &str)]) -> Found {
    let found = crate::record::tests::device("u", serial).found;
    let parts = parts.iter().map(|(kind, node)| ((*kind).to_owned(), (*node).to_owned()));
    Found { parts: parts.collect(), ..found }
}

fn serving(quarantine: u64, all: Vec<Found>) -> Unit {
    next_life(1, quarantine, Kept::default(), all)
}

fn next_life(epoch: u64, quarantine: u64, stored: Kept, all: Vec<Found>) -> Unit {
    let mut unit = connected(epoch, quarantine, stored, all);
    let _ = unit.handle(1, Event::Said(1, ToUnit::Welcome { newest: None, units: 0 }));
    unit
}

fn connected(epoch: u64, quarantine: u64, stored: Kept, all: Vec<Found>) -> Unit {
    let options = Options {
        own: "u".parse().unwrap(),
        epoch,
        secret: [0; 32],
        ttl: Duration::from_secs(30),
        quarantine: Duration::from_secs(quarantine),
        addresses: vec![],
    };
    let mut unit = Unit::new(options, stored, 0, 0);
    let manager: Machine = "m".parse().unwrap();
    for event in [
        Event::Inventory(all),
        Event::Managers(vec![manager.clone()]),
        Event::Connected(manager, 1),
    ] {
        let _ = unit.handle(1, event);
    }
    unit
}

fn ask(
    unit: &mut Unit,
    now: Micros,
    machine: &str,
    function: u8,
    limit_s: Option<u32>,
) -> Result<Grant, Refusal> {
    ask_as(unit, now, machine, function, LeaseTerms { limit_s, read_only: false })
}

fn ask_as(
    unit: &mut Unit,
    now: Micros,
    machine: &str,
    function: u8,
    terms: LeaseTerms,
) -> Result<Grant, Refusal> {
    let limit_s = terms.limit_s;
    let (device, gen_no) = unit.devices().map(|device| (device.id, device.gen_no)).next().unwrap();
    let holder = Holder { machine: machine.parse().unwrap(), uid: 0, groups: vec![] };
    let wanted = Wanted { device, gen_no, function, holder, queue: false, limit_s, since_ms: 0 };
    let actions = unit.handle(now, Event::Said(1, ToUnit::Lease(1, wanted, terms)));
    let answer = actions.into_iter().find_map(|action| match action {
        Action::Send(_, FromUnit::Answer(1, answer)) => Some(answer),
        _ => None,
    });
    answer.unwrap().map(|grant| *grant)
}

fn carried(unit: &mut Unit, now: Micros, grant: &Grant, machine: &str) {
    let machine: Machine = machine.parse().unwrap();
    let (no, token) = (grant.no, grant.token.clone());
    let open = FromHolder::Open { no, token: token.clone() };
    let _ = unit.handle(now, Event::Came(10, machine.clone(), open));
    let data = unit.handle(now, Event::Came(11, machine, FromHolder::Data { no, token }));
    assert!(data.iter().any(|action| matches!(action, Action::Carry { .. })), "{data:?}");
    let carried = Carried::Usbip { devid: 1, speed: 3, sealed: true };
    let _ = unit.handle(now, Event::Carries(no, Ok(carried)));
}

/// Opens a lease, and has it stored.
fn opened(unit: &mut Unit, now: Micros, grant: &Grant, machine: &str) -> Kept {
    let machine: Machine = machine.parse().unwrap();
    let open = FromHolder::Open { no: grant.no, token: grant.token.clone() };
    let _ = unit.handle(now, Event::Came(10, machine.clone(), open));
    let actions = unit.handle(now, Event::Came(10, machine, FromHolder::Renew));
    let stored = actions.into_iter().find_map(|action| match action {
        Action::Store(stored) => Some(stored),
        _ => None,
    });
    stored.unwrap()
}

/// No manager is there for an hour, and nothing but renewals happens.
#[test]
fn a_lease_is_renewed_for_an_hour_without_a_manager_and_without_its_data_being_touched() {
    let mut unit = serving(0, vec![found("1", &[])]);
    let grant = ask(&mut unit, 2, "h", 0, None).unwrap();
    carried(&mut unit, 3, &grant, "h");
    let _ = unit.handle(4, Event::LinkEnded(1));
    let machine: Machine = "h".parse().unwrap();
    let mut now = 4;
    while now < 3_600_000_000 {
        now += 10_000_000;
        let came = Event::Came(10, machine.clone(), FromHolder::Renew);
        for action in unit.handle(now, came) {
            let of_data = matches!(action, Action::Carry { .. } | Action::Cut(_) | Action::Hang(_));
            assert!(!of_data, "{action:?}");
            if action == Action::Connect("m".parse().unwrap()) {
                let _ = unit.handle(now, Event::NotConnected("m".parse().unwrap()));
            }
        }
    }
    assert!(unit.leases().all(|lease| lease.is_carried() && !lease.is_ending()));
    // And when it is not, it ends at its time.
    let _ = unit.handle(now + 29_000_000, Event::Tick);
    assert!(unit.leases().all(|lease| !lease.is_ending()));
    let actions = unit.handle(now + 30_000_001, Event::Tick);
    assert!(actions.contains(&Action::Cut(grant.no)));
}

/// The holder counts on what it was told, whichever life of the unit told it.
#[test]
fn a_lease_that_was_opened_lasts_as_long_in_the_next_life() {
    let mut unit = serving(0, vec![found("1", &[])]);
    let grant = ask(&mut unit, 2, "h", 0, None).unwrap();
    let open = FromHolder::Open { no: grant.no, token: grant.token };
    let actions = unit.handle(9, Event::Came(10, "h".parse().unwrap(), open));
    let [Action::Store(stored), Action::Answer(10, ToHolder::Good(30_000))] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert_eq!(stored.leases[0].expires, 30_000_009);
}

#[test]
fn a_lease_ends_at_its_limit_however_often_it_is_renewed() {
    let mut unit = serving(0, vec![found("1", &[])]);
    let grant = ask(&mut unit, 2, "h", 0, Some(2)).unwrap();
    carried(&mut unit, 3, &grant, "h");
    for now in [1_000_000, 1_900_000] {
        let _ = unit.handle(now, Event::Came(10, "h".parse().unwrap(), FromHolder::Renew));
    }
    let actions = unit.handle(2_000_003, Event::Tick);
    let told = Action::Answer(10, ToHolder::Ended("its time is over".to_owned()));
    assert!(actions.contains(&told) && actions.contains(&Action::Cut(grant.no)), "{actions:?}");
    // It is free when it is cut, and not before.
    assert!(matches!(ask(&mut unit, 2_000_004, "i", 0, None), Err(Refusal::Leased(_))));
    let _ = unit.handle(2_000_005, Event::Cut(grant.no));
    assert!(ask(&mut unit, 2_000_006, "i", 0, None).is_ok());
}

#[test]
fn who_lost_a_device_may_have_it_before_others_for_a_while() {
    let mut unit = serving(5, vec![found("1", &[])]);
    let grant = ask(&mut unit, 2, "h", 0, None).unwrap();
    carried(&mut unit, 3, &grant, "h");
    let _ = unit.handle(4, Event::Cut(grant.no));
    assert!(matches!(ask(&mut unit, 5, "i", 0, None), Err(Refusal::Leased(_))));
    let mut later = unit.clone();
    assert!(ask(&mut unit, 6, "h", 0, None).is_ok());
    assert!(ask(&mut later, 5_000_005, "i", 0, None).is_ok(), "for a while");
}

#[test]
fn a_part_keeps_its_lease_while_other_parts_come_and_go() {
    let (a, b) = (("serial", "/dev/ttyACM0"), ("serial", "/dev/ttyACM1"));
    let mut unit = serving(0, vec![found("1", &[a, b])]);
    let grant = ask(&mut unit, 2, "h", 2, None).unwrap();
    assert!(matches!(ask(&mut unit, 3, "i", 0, None), Err(Refusal::Leased(_))), "all of it");
    assert!(ask(&mut unit, 3, "i", 1, None).is_ok(), "the other one");
    let _ = unit.handle(4, Event::Inventory(vec![found("1", &[b])]));
    let device = unit.devices().next().unwrap().clone();
    let of = |at: usize| device.functions[at].lease.as_ref().map(|lease| lease.no);
    assert_eq!((of(0), of(2)), (None, Some(grant.no)), "{device:?}");
    let gone = &device.functions[1];
    assert!(gone.lease.is_some() && gone.unavailable.is_some(), "it is leased still: {gone:?}");
}

#[test]
fn a_part_has_its_place_as_long_as_its_device_is_plugged_in() {
    let (a, b, c) = (("disk", "/dev/sda"), ("disk", "/dev/sdb"), ("disk", "/dev/sdc"));
    let mut unit = serving(0, vec![found("1", &[a, b, c])]);
    // Who asks for the second one does not know yet that the first is gone.
    let _ = unit.handle(2, Event::Inventory(vec![found("1", &[b, c])]));
    let grant = ask(&mut unit, 3, "h", 2, None).unwrap();
    assert_eq!(grant.device.functions[2].node.as_deref(), Some("/dev/sdb"));
    assert_eq!(ask(&mut unit, 3, "h", 1, None), Err(Refusal::Unavailable("it is gone".to_owned())));
    // Nor does who asks the next life, in which another one went.
    let stored = opened(&mut unit, 4, &grant, "h");
    let mut unit = next_life(2, 0, stored, vec![found("1", &[c])]);
    let device = unit.devices().next().unwrap();
    assert_eq!(device.gen_no, grant.device.gen_no);
    assert_eq!(device.functions[2].lease.as_ref().map(|lease| lease.no), Some(grant.no));
    let other = ask(&mut unit, 5, "h", 3, None).unwrap();
    assert_eq!(other.device.functions[3].node.as_deref(), Some("/dev/sdc"));
    let data = FromHolder::Data { no: grant.no, token: grant.token };
    let carried = unit.handle(6, Event::Came(11, "h".parse().unwrap(), data));
    let node = carried.iter().find_map(|action| match action {
        Action::Carry { found, function, .. } => Some(&found.parts[usize::from(*function) - 1].1),
        _ => None,
    });
    assert_eq!(node.map(String::as_str), Some("/dev/sdb"));
}

#[test]
fn more_parts_than_there_are_places_for_are_those_of_another_device() {
    let mut unit = serving(0, vec![]);
    let (mut last, mut others) = (0, 0);
    for at in 0..100 {
        let node = format!("/dev/ttyACM{at}");
        let parts = [("disk", "/dev/sda"), ("serial", &node)];
        let _ = unit.handle(2, Event::Inventory(vec![found("1", &parts)]));
        let device = unit.devices().next().unwrap();
        assert!(device.functions.len() <= MAX_FUNCTIONS && device.gen_no >= last);
        assert_eq!(device.functions.last().unwrap().node.as_ref(), Some(&node));
        others += u32::from(device.gen_no > last);
        last = device.gen_no;
    }
    assert_eq!(others, 4);
}

#[test]
fn nodes_that_are_all_others_are_those_of_another_device() {
    let mut unit = serving(0, vec![found("1", &[("disk", "/dev/sda"), ("disk", "/dev/sdb")])]);
    let whole = ask(&mut unit, 2, "h", 0, None).unwrap();
    carried(&mut unit, 3, &whole, "h");
    let _ = unit.handle(4, Event::Inventory(vec![found("1", &[])]));
    let _ = unit.handle(5, Event::Came(10, "h".parse().unwrap(), FromHolder::Release));
    let _ = unit.handle(6, Event::Cut(whole.no));
    let _ = unit.handle(7, Event::Inventory(vec![found("1", &[("disk", "/dev/sdc")])]));
    let device = unit.devices().next().unwrap();
    assert!(device.gen_no > whole.device.gen_no, "whoever asked for /dev/sda is refused");
    let nodes: Vec<_> = device.functions.iter().map(|f| f.node.as_deref()).collect();
    assert_eq!(nodes, [None, Some("/dev/sdc")]);
    // The same ones are those that they were.
    let gen_no = device.gen_no;
    for parts in [&[][..], &[("disk", "/dev/sdc")]] {
        let _ = unit.handle(8, Event::Inventory(vec![found("1", parts)]));
    }
    assert_eq!(unit.devices().next().unwrap().gen_no, gen_no);
}

#[test]
fn a_device_with_other_descriptors_is_another_and_leases_of_the_first_end() {
    let mut unit = serving(0, vec![found("1", &[])]);
    let grant = ask(&mut unit, 2, "h", 0, None).unwrap();
    carried(&mut unit, 3, &grant, "h");
    let before = unit.devices().next().unwrap().gen_no;
    let actions =
        unit.handle(4, Event::Inventory(vec![Found { descriptors: 8, ..found("1", &[]) }]));
    assert!(actions.contains(&Action::Cut(grant.no)));
    assert!(unit.devices().next().unwrap().gen_no > before);
}

#[test]
fn a_disk_that_cannot_be_opened_ends_its_lease_with_the_reason() {
    let mut unit = serving(0, vec![found("1", &[("disk", "/dev/sda")])]);
    let grant = ask(&mut unit, 2, "h", 1, None).unwrap();
    assert!(matches!(ask(&mut unit, 2, "i", 0, None), Err(Refusal::Leased(_))), "all of it");
    let (no, token) = (grant.no, grant.token.clone());
    let machine: Machine = "h".parse().unwrap();
    for (conn, said) in
        [(10, FromHolder::Open { no, token: token.clone() }), (11, FromHolder::Data { no, token })]
    {
        let _ = unit.handle(3, Event::Came(conn, machine.clone(), said));
    }
    // However long the reason is, the holder is told.
    let why = format!("sda1 is in use at its unit{}", "!".repeat(1000));
    let actions = unit.handle(4, Event::Carries(no, Err(why)));
    let told = actions.iter().find_map(|action| match action {
        Action::Answer(10, told @ ToHolder::Ended(why)) => Some((told, why)),
        _ => None,
    });
    let (told, why) = told.unwrap();
    assert!(crate::wire::Bounded::is_bounded(told) && why.starts_with("sda1 is in use"), "{why}");
    assert!(actions.contains(&Action::Cut(no)));
    assert!(matches!(ask(&mut unit, 5, "i", 1, None), Err(Refusal::Leased(_))), "until it is cut");
    let _ = unit.handle(6, Event::Cut(no));
    assert!(ask(&mut unit, 7, "i", 1, None).is_ok());
}

#[test]
fn a_disk_in_use_is_not_for_lease_and_another_of_the_device_is() {
    let parts = [("disk", "/dev/sda"), ("disk", "/dev/sdb")];
    let busy = vec![("/dev/sda".to_owned(), "sda1 is in use at its unit".to_owned())];
    let mut unit = serving(0, vec![Found { busy, ..found("1", &parts) }]);
    let refused = Refusal::Unavailable("sda1 is in use at its unit".to_owned());
    assert_eq!(ask(&mut unit, 2, "h", 1, None), Err(refused));
    assert!(ask(&mut unit, 3, "h", 2, None).is_ok());
    // It is mounted no more, which no event of the device tells.
    let _ = unit.handle(4, Event::Inventory(vec![found("1", &parts)]));
    assert!(ask(&mut unit, 5, "h", 1, None).is_ok());
}

#[test]
fn only_a_disk_by_itself_is_had_for_reading_alone() {
    let mut unit =
        serving(0, vec![found("1", &[("disk", "/dev/sda"), ("serial", "/dev/ttyACM0")])]);
    for function in [0, 2] {
        let asked =
            ask_as(&mut unit, 2, "h", function, LeaseTerms { limit_s: None, read_only: true });
        assert!(matches!(asked, Err(Refusal::Denied(_))), "{asked:?}");
    }
    let grant =
        ask_as(&mut unit, 3, "h", 1, LeaseTerms { limit_s: None, read_only: true }).unwrap();
    let data = FromHolder::Data { no: grant.no, token: grant.token };
    let actions = unit.handle(4, Event::Came(11, "h".parse().unwrap(), data));
    let carry = |action: &Action| matches!(action, Action::Carry { read_only: true, .. });
    assert!(actions.iter().any(carry), "{actions:?}");
}

#[test]
fn parts_are_for_lease_when_who_had_all_of_it_gave_it_back() {
    let parts = [("disk", "/dev/sda")];
    let device = |path| Found { needs_setup: true, path, ..found("1", &parts) };
    let path = || found("1", &parts).path;
    let mut unit = serving(0, vec![device(path())]);
    let refused = |answer| match answer {
        Err(Refusal::Unavailable(why)) => assert!(why.contains("set up first"), "{why}"),
        other => panic!("{other:?}"),
    };
    refused(ask(&mut unit, 2, "h", 1, None));
    // Who is lost did not finish, nor did who never attached it.
    let lost = ask(&mut unit, 3, "h", 0, None).unwrap();
    carried(&mut unit, 4, &lost, "h");
    let _ = unit.handle(5, Event::Cut(lost.no));
    refused(ask(&mut unit, 6, "h", 1, None));
    let release = |unit: &mut Unit| {
        let came = Event::Came(10, "h".parse().unwrap(), FromHolder::Release);
        unit.handle(8, came)
    };
    let idle = ask(&mut unit, 7, "h", 0, None).unwrap();
    let open = FromHolder::Open { no: idle.no, token: idle.token.clone() };
    let _ = unit.handle(7, Event::Came(10, "h".parse().unwrap(), open));
    let _ = release(&mut unit);
    refused(ask(&mut unit, 8, "h", 1, None));
    // Its parts are gone while the kernel has all of it for somebody.
    let good = ask(&mut unit, 8, "h", 0, None).unwrap();
    carried(&mut unit, 8, &good, "h");
    let bare = Found { parts: vec![], ..device(path()) };
    let _ = unit.handle(8, Event::Inventory(vec![bare]));
    let ended = release(&mut unit);
    assert!(ended.contains(&Action::Cut(good.no)), "{ended:?}");
    let _ = unit.handle(9, Event::Cut(good.no));
    let _ = unit.handle(9, Event::Inventory(vec![device(path())]));
    let part = ask(&mut unit, 9, "h", 1, None).unwrap();
    let _ = unit.handle(10, Event::Came(12, "h".parse().unwrap(), FromHolder::Release));
    // In another port it was without power meanwhile.
    let _ = unit.handle(11, Event::Inventory(vec![device("1-9".to_owned())]));
    assert!(unit.leases().all(|lease| lease.info.no != part.no || lease.is_ending()));
    refused(ask(&mut unit, 12, "h", 1, None));
}

/// What tells why a part cannot be leased now: who has it, or why nobody can.
fn taken(unit: &Unit, function: u8) -> Option<String> {
    unit.devices().next().unwrap().taken(function).map(|taken| match taken {
        Taken::Leased(lease) => lease.holder.to_string(),
        Taken::Unavailable(why) => why.to_owned(),
    })
}

#[test]
fn who_wants_a_part_can_wait_for_who_has_all_of_it() {
    let parts = [("disk", "/dev/sda"), ("serial", "/dev/ttyACM0")];
    let device = || Found { needs_setup: true, ..found("1", &parts) };
    let mut unit = serving(0, vec![device()]);
    assert!(taken(&unit, 2).unwrap().contains("set up first"));
    let whole = ask(&mut unit, 2, "h", 0, None).unwrap();
    // He may be about to set it up.
    assert_eq!(taken(&unit, 2).unwrap(), "uid 0 on h");
    carried(&mut unit, 3, &whole, "h");
    let bare = || Found { parts: vec![], ..device() };
    let _ = unit.handle(4, Event::Inventory(vec![bare()]));
    assert_eq!(taken(&unit, 2).unwrap(), "uid 0 on h", "drivers have none of it");
    let stored = opened(&mut unit, 5, &whole, "h");
    let next = next_life(2, 0, stored, vec![bare()]);
    assert_eq!(taken(&next, 2).unwrap(), "uid 0 on h", "nor had they when the unit began");
    // It is free when it is there again.
    let release = Event::Came(10, "h".parse().unwrap(), FromHolder::Release);
    let _ = unit.handle(6, release);
    let _ = unit.handle(7, Event::Cut(whole.no));
    assert_eq!(unit.leases().count(), 0);
    assert!(taken(&unit, 2).is_some());
    let _ = unit.handle(8, Event::Inventory(vec![device()]));
    assert_eq!(taken(&unit, 2), None);
    // Who did not set it up leaves it as it was.
    let mut unit = serving(0, vec![device()]);
    let whole = ask(&mut unit, 2, "h", 0, None).unwrap();
    let _ = unit.handle(3, Event::Said(1, ToUnit::Revoke(whole.no, "enough".to_owned())));
    assert!(taken(&unit, 2).unwrap().contains("set up first"));
}

#[test]
fn what_came_anew_is_to_be_set_up_anew() {
    let device = || Found { needs_setup: true, ..found("1", &[("disk", "/dev/sda")]) };
    let refused = |unit: &mut Unit| {
        let answer = ask(unit, 9, "h", 1, None);
        assert!(matches!(answer, Err(Refusal::Unavailable(_))), "{answer:?}");
    };
    // It was given back, and plugged in again before it was cut.
    let mut unit = serving(0, vec![device()]);
    let whole = ask(&mut unit, 2, "h", 0, None).unwrap();
    carried(&mut unit, 3, &whole, "h");
    let _ = unit.handle(4, Event::Came(10, "h".parse().unwrap(), FromHolder::Release));
    let mut cut = unit.clone();
    for all in [vec![], vec![device()]] {
        let _ = unit.handle(5, Event::Inventory(all));
    }
    for unit in [&mut unit, &mut cut] {
        let _ = unit.handle(6, Event::Cut(whole.no));
    }
    refused(&mut unit);
    // Or at a time at which nobody looked, in the same port.
    let again = || Found { instance: 2, ..device() };
    let mut unseen = cut.clone();
    let _ = unseen.handle(7, Event::Inventory(vec![again()]));
    refused(&mut unseen);
    // Or while no program was there: whoever was granted a part of it had not come for it.
    let part = ask(&mut cut, 7, "h", 1, None).unwrap();
    let stored = opened(&mut cut, 8, &part, "h");
    let mut unit = next_life(2, 0, stored.clone(), vec![again()]);
    assert_eq!(unit.leases().count(), 0);
    refused(&mut unit);
    // If it was not, that lease is good, and others are to be had after it.
    let mut unit = next_life(2, 0, stored, vec![device()]);
    let lease = unit.leases().next().unwrap().info.no;
    assert_eq!(lease, part.no);
    let _ = unit.handle(9, Event::Said(1, ToUnit::Revoke(lease, "enough".to_owned())));
    assert!(ask(&mut unit, 9, "h", 1, None).is_ok());
}

#[test]
fn what_was_counted_by_an_old_disk_is_counted_anew() {
    let mut unit = connected(1, 0, Kept::default(), vec![found("1", &[("disk", "/dev/sda")])]);
    let before = unit.devices().next().unwrap().gen_no;
    // The manager knows more than this life has said.
    let welcome = ToUnit::Welcome { newest: Some((7, 1)), units: 0 };
    let actions = unit.handle(2, Event::Said(1, welcome));
    let raised = actions.iter().find_map(|action| match action {
        Action::Raise(epoch) => Some(*epoch),
        _ => None,
    });
    let _ = unit.handle(3, Event::Raised(raised.unwrap()));
    let after = unit.devices().next().unwrap().gen_no;
    // The life that the disk does not remember may have given that number.
    assert!(after > before && after >> 32 > 7, "{before} {after}");
}
