// SPDX-License-Identifier: MIT OR Apache-2.0

use ipmi::{Lun, NetFn};
use proptest::prelude::*;

use super::*;
use crate::addr::Addr;

fn to(addr: Addr, netfn: u8, cmd: u8, data: &[u8]) -> Send {
    Send { addr, msgid: 0, netfn, cmd, data: data.to_vec(), timing: None }
}

fn direct(netfn: u8, cmd: u8, data: &[u8]) -> Send {
    to(Addr::system_interface(0), netfn, cmd, data)
}

/// A controller behind the BMC, reached by the driver's bridging.
fn satellite() -> Addr {
    Addr::parse(&[&1i32.to_ne_bytes()[..], &0i16.to_ne_bytes(), &[0x82, 0]].concat()).unwrap()
}

fn ipmb(netfn: u8, cmd: u8, data: &[u8]) -> Vec<u8> {
    ipmb::encode(&Ipmb {
        to: 0x82,
        to_lun: Lun::BMC,
        netfn: NetFn::new(netfn).unwrap(),
        from: 0x20,
        from_lun: Lun::SMS,
        seq: 3,
        cmd,
        data: data.to_vec(),
    })
}

fn send_message(netfn: u8, cmd: u8, data: &[u8]) -> Vec<u8> {
    [&[0x40], &ipmb(netfn, cmd, data)[..]].concat()
}

fn write_read(netfn: u8, cmd: u8, data: &[u8]) -> Vec<u8> {
    [&[0x00, 0x82, 0x00], &ipmb(netfn, cmd, data)[1..]].concat()
}

/// What monitor allows, and the two commands that carry others.
fn carrying() -> Policy {
    let rules = [Rule::Command(0x06, 0x34), Rule::Command(0x06, 0x52)];
    Policy::own("carrying", Some(&Policy::monitor()), rules, false)
}

const DENIED_POWER: Result<(), Denied> = Err(Denied { netfn: 0x00, cmd: 0x02 });

#[test]
fn monitor_reads_and_changes_nothing() {
    let monitor = Policy::monitor();
    for allowed in [
        direct(0x06, 0x01, &[]),
        direct(0x0a, 0x22, &[]),
        direct(0x0a, 0x43, &[0, 0, 0, 0, 0, 0xff]),
        direct(0x0a, 0x47, b"\0\0CLR\0"),
        direct(0x06, 0x30, &[0xff]),
        direct(0x0c, 0x02, &[1, 3, 0, 0]),
        direct(0x2c, 0x02, &[0xdc, 1, 0, 0]),
        to(satellite(), 0x04, 0x22, &[]),
    ] {
        assert_eq!(monitor.check(&allowed), Ok(()), "{allowed:02x?}");
    }
    for refused in [
        direct(0x00, 0x02, &[0]),
        direct(0x40, 0x02, &[0]),
        direct(0x0a, 0x47, b"\0\0CLR\xaa"),
        direct(0x06, 0x34, &send_message(0x06, 0x01, &[])),
        direct(0x46, 0x34, &send_message(0x06, 0x01, &[])),
        direct(0x06, 0x52, &[0x01, 0xa0, 0x10, 0x00]),
        direct(0x06, 0x33, &[]),
        direct(0x06, 0x3f, &[0, 1]),
        direct(0x0c, 0x02, &[1, 16, 0, 0]),
        direct(0x0c, 0x11, &[1, 42, 0, 0]),
        direct(0x07, 0x01, &[]),
        direct(0x30, 0x01, &[]),
        to(satellite(), 0x00, 0x04, &[]),
        to(satellite(), 0x06, 0x30, &[0xff]),
        to(Addr::system_interface(2), 0x06, 0x30, &[0xff]),
    ] {
        let denied = monitor.check(&refused).unwrap_err();
        assert_eq!((denied.netfn, denied.cmd), (refused.netfn & 0x3f, refused.cmd));
    }
}

#[test]
fn operator_runs_the_machine_and_does_not_configure_it() {
    let operator = Policy::operator();
    for allowed in [
        direct(0x00, 0x02, &[1]),
        direct(0x0a, 0x47, b"\0\0CLR\xaa"),
        direct(0x06, 0x24, &[0; 6]),
        direct(0x04, 0x15, &[]),
        direct(0x06, 0x34, &send_message(0x00, 0x02, &[1])),
    ] {
        assert_eq!(operator.check(&allowed), Ok(()), "{allowed:02x?}");
    }
    for refused in [
        direct(0x06, 0x02, &[]),
        direct(0x06, 0x47, &[2, 0]),
        direct(0x0c, 0x01, &[1, 3, 0, 0, 0, 0]),
        direct(0x30, 0x00, &[]),
        direct(0x06, 0x34, &send_message(0x06, 0x02, &[])),
        direct(0x06, 0x34, &send_message(0x06, 0x34, &send_message(0x06, 0x02, &[]))),
        direct(0x06, 0x52, &write_read(0x06, 0x02, &[])),
        direct(0x02, 0x20, &[0; 8]),
    ] {
        assert!(operator.check(&refused).is_err(), "{refused:02x?}");
        assert_eq!(Policy::full().check(&refused), Ok(()));
    }
}

/// Every built-in policy allows all that the next smaller one does, for each command there can be.
#[test]
fn the_built_in_policies_contain_one_another() {
    let (monitor, operator) = (Policy::monitor(), Policy::operator());
    for (netfn, cmd) in (0..=0xff).flat_map(|n| (0..=0xff).map(move |c| (n, c))) {
        for data in [&[][..], &[0xdc, 0], b"\0\0CLR\0"] {
            let send = direct(netfn, cmd, data);
            let monitored = monitor.check(&send).is_ok();
            assert!(!monitored || operator.check(&send).is_ok(), "{netfn:02x}/{cmd:02x}");
            assert!(!monitored || effect(netfn, cmd, data) != Effect::Change);
        }
    }
}

#[test]
fn what_a_message_carries_is_checked() {
    let policy = carrying();
    for carry in [send_message, write_read] {
        let cmd = if carry(0, 0, &[])[0] == 0x40 { 0x34 } else { 0x52 };
        assert_eq!(policy.check(&direct(0x06, cmd, &carry(0x06, 0x01, &[]))), Ok(()));
        assert_eq!(policy.check(&direct(0x06, cmd, &carry(0x00, 0x02, &[0]))), DENIED_POWER);
        assert_eq!(policy.check(&direct(0xc6, cmd, &carry(0x00, 0x02, &[0]))), DENIED_POWER);
        let twice = carry(0x06, 0x34, &send_message(0x00, 0x02, &[0]));
        assert_eq!(policy.check(&direct(0x06, cmd, &twice)), DENIED_POWER);
        assert_eq!(policy.check(&to(satellite(), 0x06, cmd, &twice)), DENIED_POWER);
        let damaged: Vec<u8> = carry(0x06, 0x01, &[]).into_iter().chain([1]).collect();
        assert_eq!(policy.check(&direct(6, cmd, &damaged)), Err(Denied { netfn: 6, cmd }));
        assert_eq!(policy.check(&direct(6, cmd, &[])), Err(Denied { netfn: 6, cmd }));
    }
    // A private bus has no messages, and the reserved bit of the slave address changes nothing.
    assert_eq!(policy.check(&direct(0x06, 0x52, &[0x03, 0xa0, 0x10, 0x00])), Ok(()));
    assert!(Policy::monitor().check(&direct(0x06, 0x52, &[0x03, 0xa0, 0x10, 0x00])).is_err());
    let mut odd = write_read(0x00, 0x02, &[0]);
    odd[1] |= 1;
    assert_eq!(policy.check(&direct(0x06, 0x52, &odd)), DENIED_POWER);
}

#[test]
fn a_broadcast_and_a_lan_message_are_read() {
    let policy = carrying();
    for first in [0x00, 0x55] {
        let behind = |message: &[u8]| [&[0x00, first], message].concat();
        assert_eq!(policy.check(&direct(0x06, 0x34, &behind(&ipmb(0x06, 0x01, &[])))), Ok(()));
        let power = behind(&ipmb(0x00, 0x02, &[0]));
        assert_eq!(policy.check(&direct(0x06, 0x34, &power)), DENIED_POWER);
    }
}

/// Bytes that are one message with their first byte and another without it: both count.
#[test]
fn a_message_of_two_meanings_is_checked_in_both() {
    // As a broadcast: to 0x18, network function 0x3a, Get Device ID. As a plain message: to 0x00,
    // network function 6, checksum, sender 0, command 2, Cold Reset.
    let mut bytes = vec![0x00, 0x18, 0xe8, 0x00, 0x20, 0x02, 0x01];
    bytes.push(ipmi::message::checksum(&bytes[3..]));
    assert_eq!(readable(&bytes).len(), 2);
    let allow = |rule| {
        Policy::own("x", Some(&carrying()), [rule], false).check(&direct(
            0x06,
            0x34,
            &[&[0x40], &bytes[..]].concat(),
        ))
    };
    assert_eq!(allow(Rule::NetFn(0x3a)), Err(Denied { netfn: 0x06, cmd: 0x02 }));
    assert_eq!(allow(Rule::Command(0x06, 0x02)), Err(Denied { netfn: 0x3a, cmd: 0x01 }));
}

#[test]
fn nesting_has_an_end() {
    let all = Policy::own("all", None, (0..0x40).map(Rule::NetFn), false);
    let mut data = vec![];
    let (mut netfn, mut cmd) = (0x06, 0x01);
    for level in 0..=MAX_NESTING {
        assert_eq!(all.check(&direct(netfn, cmd, &data)), Ok(()), "level {level}");
        data = send_message(netfn, cmd, &data);
        (netfn, cmd) = (0x06, 0x34);
    }
    assert!(all.check(&direct(netfn, cmd, &data)).is_err());
}

#[test]
fn rules_are_read() {
    assert_eq!(Rule::parse("0a/*"), Some(Rule::NetFn(0x0a)));
    assert_eq!(Rule::parse("0A/4f"), Some(Rule::Command(0x0a, 0x4f)));
    assert_eq!(Rule::parse("set sel time"), Some(Rule::Command(0x0a, 0x49)));
    assert_eq!(Rule::parse("Get IP/UDP/RMCP Statistics"), Some(Rule::Command(0x0c, 0x04)));
    for bad in
        ["", "/", "a/*", "40/01", "06/1", "06/+1", "06/**", "*/*", "06", "Set Sel Tim", "é/é"]
    {
        assert_eq!(Rule::parse(bad), None, "{bad}");
    }
    for (netfn, cmd, name) in ipmi::names::all() {
        assert_eq!(Rule::parse(name), Some(Rule::Command(netfn, cmd)), "{name}");
        assert_eq!(Rule::parse(&format!("{netfn:02x}/{cmd:02x}")), Rule::parse(name));
    }
}

#[test]
fn ones_own_adds_to_what_it_extends() {
    let base = Policy::own("base", None, [Rule::NetFn(0x0a)], true);
    let own = Policy::own("own", Some(&base), [Rule::Command(0x00, 0x02)], false);
    assert!(own.check(&direct(0x0a, 0x47, b"\0\0CLR\xaa")).is_ok());
    assert!(own.check(&direct(0x00, 0x02, &[0])).is_ok());
    assert!(own.check(&direct(0x00, 0x01, &[])).is_err());
    assert!(!own.may_reserve() && base.may_reserve());
    let denied = own.check(&direct(0x00, 0x01, &[])).unwrap_err();
    assert!(denied.to_string().ends_with("00/01 (Get Chassis Status)"));
}

/// A message, bare or wrapped up in others, with now and then a byte spoilt.
fn nested() -> impl Strategy<Value = (u8, u8, Vec<u8>)> {
    let data = || proptest::collection::vec(any::<u8>(), 0..10);
    let standard = proptest::sample::select(ipmi::names::all().collect::<Vec<_>>());
    let bare = prop_oneof![
        (any::<u8>(), any::<u8>(), data()),
        (standard, any::<u8>(), data()).prop_map(|((n, c, _), high, d)| (n | high & 0xc0, c, d)),
    ];
    let spoil = proptest::option::weighted(0.1, (any::<prop::sample::Index>(), any::<u8>()));
    let wrap = |(netfn, cmd, data): (u8, u8, Vec<u8>), how: u8, high: u8| {
        let inner = netfn & 0x3f;
        let outer = 0x06 | high & 0xc0;
        match how % 4 {
            0 => (outer, 0x34, send_message(inner, cmd, &data)),
            1 => (outer, 0x52, write_read(inner, cmd, &data)),
            2 => (outer, 0x34, [&[0, high], &ipmb(inner, cmd, &data)[..]].concat()),
            _ => (outer, 0x52, [&[1, high], &data[..]].concat()),
        }
    };
    let layers = proptest::collection::vec((any::<u8>(), any::<u8>()), 0..6);
    (bare, layers, spoil).prop_map(move |(bare, layers, spoil)| {
        let (netfn, cmd, mut data) =
            layers.into_iter().fold(bare, |inner, (how, high)| wrap(inner, how, high));
        if let Some((at, value)) = spoil.filter(|_| !data.is_empty()) {
            let at = at.index(data.len());
            data[at] = value;
        }
        (netfn, cmd, data)
    })
}

/// What a controller that follows IPMI would do with it: the innermost commands.
fn innermost(netfn: u8, cmd: u8, data: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    let inside = match (netfn & 0x3f, cmd, data) {
        (0x06, 0x34, [_, rest @ ..]) => rest.to_vec(),
        (0x06, 0x52, [bus, address, _, rest @ ..]) if bus & 1 == 0 => {
            [&[address & !1], rest].concat()
        }
        _ => return vec![(netfn, cmd, data.to_vec())],
    };
    let ways = [Some(&inside[..]), inside.get(1..)];
    let messages = ways.into_iter().flatten().filter_map(|bytes| ipmb::decode(bytes).ok());
    messages.flat_map(|m| innermost(m.netfn.get(), m.cmd, &m.data)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn what_is_accepted_changes_nothing_at_any_level((netfn, cmd, data) in nested()) {
        let send = direct(netfn, cmd, &data);
        if Policy::monitor().check(&send).is_ok() {
            prop_assert_ne!(effect(netfn, cmd, &data), Effect::Change);
        }
        if carrying().check(&send).is_ok() {
            let inner = innermost(netfn, cmd, &data);
            prop_assert!(!inner.is_empty());
            for (netfn, cmd, data) in inner {
                let private_bus = netfn & 0x3f == 0x06 && cmd == 0x52;
                prop_assert!(private_bus || effect(netfn, cmd, &data) != Effect::Change);
            }
        }
        let _ = Policy::operator().check(&to(satellite(), netfn, cmd, &data));
        prop_assert_eq!(Policy::full().check(&send), Ok(()));
    }

    #[test]
    fn any_text_is_a_rule_or_none(text in ".{0,12}") {
        let _ = Rule::parse(&text);
    }
}
