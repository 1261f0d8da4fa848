// SPDX-License-Identifier: MIT OR Apache-2.0
use std::sync::Arc;

use kernel_abi::ipmi_devintf::IPMI_ASYNC_EVENT_RECV_TYPE;

use super::*;
use crate::addr::Addr;
use crate::devintf::{CommandSpec, Message, Send};
use crate::policy::Policy;

const ABANDONED_FOR: Duration = Duration::from_secs(60);

const LIMITS: Limits = Limits {
    deadline: Duration::from_secs(5),
    long_deadline: Duration::from_secs(60),
    window: 2,
    abandoned_for: ABANDONED_FOR,
    sensor_age: Duration::from_secs(1),
    reserved_code: ipmi::CompletionCode::INSUFFICIENT_PRIVILEGE,
};

fn mux() -> (Mux, Instant) {
    (Mux::new(LIMITS, Channels::default(), [(0x20, 2); 16]), Instant::now())
}

fn owner(node: usize) -> Owner {
    Owner { node, uid: 1000, gid: 1000, pid: 7 }
}

/// A vendor's command: nothing is shared or kept of it.
fn command(msgid: i64) -> Send {
    Send { addr: Addr::system_interface(0), msgid, netfn: 0x30, cmd: 1, data: vec![], timing: None }
}

fn ipmb(channel: i16, slave: u8) -> Addr {
    let parts = [&1i32.to_ne_bytes()[..], &channel.to_ne_bytes(), &[slave, 0]].concat();
    Addr::parse(&parts).unwrap()
}

fn reply(data: &[u8]) -> Incoming {
    Incoming { addr: Addr::system_interface(0), netfn: 7, cmd: 1, data: data.to_vec() }
}

fn actions(mux: &mut Mux) -> Vec<Action> {
    std::iter::from_fn(|| mux.next_action()).collect()
}

/// Without what the audit log is told.
fn quiet(mux: &mut Mux) -> Vec<Action> {
    let told = |a: &Action| !matches!(a, Action::Audit(_));
    actions(mux).into_iter().filter(told).collect()
}

fn sends(mux: &mut Mux) -> Vec<Outgoing> {
    let only_sends = |a| if let Action::Send(out) = a { Some(out) } else { None };
    actions(mux).into_iter().filter_map(only_sends).collect()
}

fn inbox(mux: &mut Mux, id: HandleId) -> Vec<Message> {
    std::iter::from_fn(|| {
        let message = mux.peek(id).ok().cloned()?;
        mux.take(id);
        Some(message)
    })
    .collect()
}

#[test]
fn an_answer_goes_to_its_own_handle_under_its_own_message_id() {
    let (mut mux, now) = mux();
    let (a, b) = (mux.open(now, owner(0)).unwrap(), mux.open(now, owner(1)).unwrap());
    mux.send(now, a, command(7)).unwrap();
    mux.send(now, b, command(7)).unwrap();
    let out = sends(&mut mux);
    assert_ne!(out[0].token, out[1].token, "the same message id of two callers is no clash");
    mux.handle_reply(now, out[1].token, reply(&[0, 2]));
    assert_eq!(quiet(&mut mux), [Action::Wake(b)]);
    assert!(mux.peek(a).is_err());
    let got = inbox(&mut mux, b);
    assert_eq!((got[0].msgid, &got[0].data[..], got[0].recv_type), (7, &[0, 2][..], 1));
}

#[test]
fn a_flood_of_one_handle_does_not_delay_another_by_more_than_a_turn() {
    let (mut mux, now) = mux();
    let (flood, polite) = (mux.open(now, owner(0)).unwrap(), mux.open(now, owner(0)).unwrap());
    for i in 0..50 {
        mux.send(now, flood, command(i)).unwrap();
    }
    mux.send(now, polite, command(1000)).unwrap();
    let mut order = sends(&mut mux);
    assert_eq!(order.len(), LIMITS.window);
    let mut done = 0;
    while order.len() < 5 {
        mux.handle_reply(now, order[done].token, reply(&[0]));
        done += 1;
        order.extend(sends(&mut mux));
    }
    let position = order.iter().position(|out| out.msgid == 1000).unwrap();
    assert_eq!(position, 2, "two were with the BMC, then comes who is new");
}

#[test]
fn a_deadline_answers_c3_and_the_late_reply_goes_to_nobody() {
    let (mut mux, now) = mux();
    let a = mux.open(now, owner(0)).unwrap();
    mux.send(now, a, command(1)).unwrap();
    let token = sends(&mut mux)[0].token;
    assert_eq!(mux.next_timeout(), Some(now + LIMITS.deadline));
    mux.handle_timeout(now + LIMITS.deadline);
    let got = inbox(&mut mux, a);
    assert_eq!((got[0].netfn, got[0].cmd, &got[0].data[..]), (0x31, 1, &[0xc3][..]));

    mux.send(now, a, command(2)).unwrap();
    mux.handle_reply(now, token, reply(&[0, 1]));
    mux.handle_reply(now, token, reply(&[0, 1]));
    assert!(mux.peek(a).is_err(), "nor is it taken for the answer to the next request");
    assert_eq!(mux.stats().late_replies, 2);
}

#[test]
fn a_hung_bmc_gets_no_more_than_the_window_and_everybody_is_answered() {
    let (mut mux, now) = mux();
    let a = mux.open(now, owner(0)).unwrap();
    for i in 0..20 {
        mux.send(now, a, command(i)).unwrap();
    }
    assert_eq!(sends(&mut mux).len(), 2);
    mux.handle_timeout(now + LIMITS.deadline);
    assert_eq!(inbox(&mut mux, a).len(), 20);
    assert!(sends(&mut mux).is_empty(), "what was given up is still with the BMC");
    assert_eq!((mux.stats().abandoned, mux.stats().queued), (2, 0));

    let later = now + LIMITS.deadline;
    assert_eq!(mux.stats().breaker_open, 1);
    mux.send(later, a, command(99)).unwrap();
    assert_eq!(inbox(&mut mux, a)[0].data, [0xc3], "at once, now that the BMC is known to hang");
    mux.handle_timeout(later + ABANDONED_FOR);
    assert_eq!(mux.stats().never_answered, 2);
    let out = actions(&mut mux);
    assert_eq!(out.iter().filter(|a| matches!(a, Action::Forget(_))).count(), 2);
    let probes: Vec<_> = out
        .into_iter()
        .filter_map(|a| if let Action::Send(out) = a { Some(out) } else { None })
        .collect();
    assert_eq!((probes.len(), probes[0].netfn, probes[0].cmd), (1, 6, 1), "it is asked again");
    let late = later + ABANDONED_FOR;
    mux.handle_reply(late, probes[0].token, reply(&[0]));
    mux.send(late, a, command(100)).unwrap();
    assert_eq!(sends(&mut mux).len(), 1, "and serves when it answers");
}

/// An interface that watches the time itself, as QEMU's does, answers C3 for a BMC that says nothing.
#[test]
fn a_time_out_of_the_interface_is_no_sign_of_life() {
    let (mut mux, now) = mux();
    let a = mux.open(now, owner(0)).unwrap();
    for msgid in 0..4 {
        mux.send(now, a, command(msgid)).unwrap();
    }
    let first = sends(&mut mux)[0].token;
    mux.handle_reply(now + Duration::from_secs(4), first, reply(&[0xc3]));
    assert_eq!(mux.stats().breaker_open, 0, "one may be lost");
    mux.handle_timeout(now + LIMITS.deadline);
    assert_eq!(mux.stats().breaker_open, 1);
    assert_eq!(inbox(&mut mux, a).len(), 4);
}

#[test]
fn erasing_may_take_its_time() {
    let (mut mux, now) = mux();
    let a = mux.open(now, owner(0)).unwrap();
    mux.send(now, a, Send { netfn: 0x0a, cmd: 0x47, ..command(1) }).unwrap();
    assert_eq!(mux.next_timeout(), Some(now + LIMITS.long_deadline));
    mux.send(now, a, Send { netfn: 0x30, cmd: 0x01, ..command(2) }).unwrap();
    assert_eq!(mux.next_timeout(), Some(now + LIMITS.deadline), "an OEM command may not");
}

#[test]
fn a_bridged_message_may_use_up_the_drivers_retries() {
    let (mut mux, now) = mux();
    let a = mux.open(now, owner(0)).unwrap();
    let timing = Some(IpmiTimingParms { retries: 1, retry_time_ms: 3000 });
    mux.send(now, a, Send { addr: ipmb(0, 0x82), timing, ..command(1) }).unwrap();
    assert_eq!(mux.next_timeout(), Some(now + LIMITS.deadline + Duration::from_secs(6)));
    let forever = Some(IpmiTimingParms { retries: i32::MAX, retry_time_ms: u32::MAX });
    mux.send(now, a, Send { addr: ipmb(0, 0x82), timing: forever, ..command(2) }).unwrap();
    assert!(mux.deadlines.last().unwrap().0 <= now + Duration::from_secs(120));
}

#[test]
fn a_closed_handle_leaves_nothing_behind() {
    let (mut mux, now) = mux();
    let (a, b) = (mux.open(now, owner(0)).unwrap(), mux.open(now, owner(0)).unwrap());
    for i in 0..5 {
        mux.send(now, a, command(i)).unwrap();
    }
    mux.set_gets_events(a, true).unwrap();
    let spec = CommandSpec { netfn: 0x30, cmd: 1, chans: !0 };
    mux.register(a, spec).unwrap();
    mux.set_maintenance_mode(a, 2).unwrap();
    let out = sends(&mut mux);
    mux.close(now, a);
    assert_eq!(
        quiet(&mut mux),
        [Action::Unregister(spec), Action::SetGetsEvents(false), Action::SetMaintenanceMode(0)]
    );
    assert_eq!((mux.stats().queued, mux.stats().abandoned), (0, 2));
    mux.send(now, b, command(9)).unwrap();
    mux.handle_reply(now, out[0].token, reply(&[0]));
    mux.handle_reply(now, out[1].token, reply(&[0]));
    assert_eq!(sends(&mut mux).len(), 1, "the window is free again");
    assert!(mux.peek(b).is_err());
    mux.register(b, spec).unwrap();
}

#[test]
fn a_handle_that_never_reads_is_stopped_as_by_the_kernel() {
    let (mut mux, now) = mux();
    let a = mux.open(now, owner(0)).unwrap();
    for i in 0..100 {
        mux.send(now, a, command(i)).unwrap();
        for out in sends(&mut mux) {
            mux.handle_reply(now, out.token, reply(&[0]));
        }
    }
    assert_eq!(mux.send(now, a, command(100)), Err(Errno::EBUSY));
    mux.take(a);
    mux.send(now, a, command(100)).unwrap();
}

#[test]
fn events_reach_all_who_asked_and_the_oldest_goes_first() {
    let (mut mux, now) = mux();
    let ids: Vec<_> = (0..3).map(|_| mux.open(now, owner(0)).unwrap()).collect();
    mux.set_gets_events(ids[0], true).unwrap();
    assert_eq!(actions(&mut mux), [Action::SetGetsEvents(true)]);
    mux.set_gets_events(ids[1], true).unwrap();
    mux.set_gets_events(ids[1], true).unwrap();
    assert_eq!(actions(&mut mux), [], "the back end is told once");
    for i in 0..=EVENT_BACKLOG {
        let data = (i as u32).to_ne_bytes().to_vec();
        mux.handle_event(&Incoming { data, ..reply(&[]) });
    }
    assert!(mux.peek(ids[2]).is_err());
    mux.send(now, ids[0], command(1)).expect("events do not use up a handle's messages");
    for id in &ids[..2] {
        let got = inbox(&mut mux, *id);
        assert_eq!((got.len(), got[0].recv_type), (EVENT_BACKLOG, IPMI_ASYNC_EVENT_RECV_TYPE));
        assert_eq!(got[0].data, 1u32.to_ne_bytes());
    }
    mux.set_gets_events(ids[0], false).unwrap();
    let _ = actions(&mut mux);
    mux.close(now, ids[1]);
    assert_eq!(actions(&mut mux), [Action::SetGetsEvents(false)]);
}

#[test]
fn a_command_has_one_receiver_per_channel() {
    let (mut mux, now) = mux();
    let (a, b) = (mux.open(now, owner(0)).unwrap(), mux.open(now, owner(0)).unwrap());
    let spec = |chans| CommandSpec { netfn: 0x30, cmd: 1, chans };
    mux.register(a, spec(0b01)).unwrap();
    assert_eq!(mux.register(b, spec(0b11)), Err(Errno::EBUSY));
    mux.register(b, spec(0b10)).unwrap();
    let command =
        |channel| Incoming { addr: ipmb(channel, 0x82), netfn: 0x30, cmd: 1, data: vec![5] };
    assert!(mux.handle_command(9, &command(1)));
    assert_eq!(inbox(&mut mux, b)[0].msgid, 9);
    assert!(!mux.handle_command(9, &command(2)));
    assert_eq!(mux.unregister(a, spec(0b10)), Err(Errno::ENOENT));
    mux.unregister(a, spec(!0)).unwrap();
    assert!(actions(&mut mux).contains(&Action::Unregister(spec(0b01))));
}

#[test]
fn what_the_driver_refuses_is_refused() {
    let (mut mux, now) = mux();
    let a = mux.open(now, owner(0)).unwrap();
    let mut errno = |send| mux.send(now, a, send).unwrap_err();
    let base = || Send { netfn: 6, ..command(1) };
    assert_eq!(errno(Send { netfn: 7, ..base() }), Errno::EINVAL, "a response to the BMC");
    assert_eq!(errno(Send { addr: Addr::system_interface(4), ..base() }), Errno::EINVAL, "LUN");
    assert_eq!(errno(Send { cmd: 0x34, ..base() }), Errno::EINVAL, "Send Message");
    assert_eq!(errno(Send { cmd: 0x35, ..base() }), Errno::EINVAL, "Read Event Message Buffer");
    assert_eq!(errno(Send { data: vec![0; 271], ..base() }), Errno::EMSGSIZE);
    assert_eq!(errno(Send { addr: ipmb(1, 0x82), ..base() }), Errno::EINVAL, "no IPMB there");
    let long = Send { addr: ipmb(0, 0x82), data: vec![0; 263], ..base() };
    assert_eq!(errno(long), Errno::EMSGSIZE);
    assert_eq!(mux.handles().next().unwrap().1.refused, 7);
}

#[test]
fn a_full_driver_is_asked_again() {
    let (mut mux, now) = mux();
    let a = mux.open(now, owner(0)).unwrap();
    mux.send(now, a, command(1)).unwrap();
    mux.send(now, a, command(2)).unwrap();
    let out = sends(&mut mux);
    mux.handle_refusal(now, out[0].token, Errno::EAGAIN);
    assert_eq!(sends(&mut mux), [], "not at once");
    mux.handle_timeout(now + BACK_OFF);
    let again = sends(&mut mux);
    assert_eq!(again[0].msgid, 1, "and not behind its own successor");
    mux.handle_refusal(now, again[0].token, Errno::EINVAL);
    assert_eq!(inbox(&mut mux, a)[0].data, [0xff]);
}

#[test]
fn requests_refused_together_keep_their_order() {
    let (mut mux, now) = mux();
    let a = mux.open(now, owner(0)).unwrap();
    for msgid in 1..=3 {
        mux.send(now, a, command(msgid)).unwrap();
    }
    for out in sends(&mut mux) {
        mux.handle_refusal(now, out.token, Errno::EAGAIN);
    }
    mux.handle_timeout(now + BACK_OFF);
    let again: Vec<i64> = sends(&mut mux).iter().map(|out| out.msgid).collect();
    assert_eq!(again, [1, 2]);
}

#[test]
fn a_cancellation_that_comes_twice_is_not_taken_for_the_answer_to_the_repetition() {
    let (mut mux, now) = mux();
    let a = mux.open(now, owner(0)).unwrap();
    let answer = |mux: &mut Mux, token: Token, cmd: u8, data: &[u8]| {
        mux.handle_reply(now, token, Incoming { netfn: 0x0b, cmd, ..reply(data) });
        sends(mux).first().map(|out| (out.token, out.cmd))
    };
    let reserve = |mux: &mut Mux, token: Token, id: u8| {
        let (info, cmd) = answer(mux, token, 0x22, &[0, id, 0]).unwrap();
        assert_eq!(cmd, 0x20);
        answer(mux, info, cmd, &[0, 0x51, 1, 0])
    };
    mux.send(now, a, Send { netfn: 0x0a, cmd: 0x22, ..command(1) }).unwrap();
    let token = sends(&mut mux)[0].token;
    assert_eq!(reserve(&mut mux, token, 7), None);
    let id = inbox(&mut mux, a)[0].data[1];
    let data = vec![id, 0, 1, 0, 5, 16];
    mux.send(now, a, Send { netfn: 0x0a, cmd: 0x23, data, ..command(2) }).unwrap();
    let first = sends(&mut mux)[0].token;
    mux.handle_reply(now, first, Incoming { netfn: 0x0b, cmd: 0x23, ..reply(&[0xc5]) });
    let token = sends(&mut mux)[0].token;
    let (second, _) = reserve(&mut mux, token, 8).unwrap();
    mux.handle_reply(now, first, Incoming { netfn: 0x0b, cmd: 0x23, ..reply(&[0xc5]) });
    assert_eq!((mux.stats().late_replies, sends(&mut mux).len()), (1, 0));
    mux.handle_reply(now, second, Incoming { netfn: 0x0b, cmd: 0x23, ..reply(&[0, 2, 0, 9]) });
    assert_eq!(inbox(&mut mux, a)[0].data, [0, 2, 0, 9]);
}

#[test]
fn maintenance_mode_is_on_while_somebody_holds_it() {
    let (mut mux, now) = mux();
    let (a, b) = (mux.open(now, owner(0)).unwrap(), mux.open(now, owner(0)).unwrap());
    mux.set_maintenance_mode(a, 2).unwrap();
    mux.set_maintenance_mode(b, 2).unwrap();
    let _ = actions(&mut mux);
    mux.set_maintenance_mode(a, 0).unwrap();
    assert_eq!(actions(&mut mux), [], "the other one still holds it");
    mux.close(now, b);
    assert_eq!(actions(&mut mux), [Action::SetMaintenanceMode(0)]);
    assert_eq!(mux.set_maintenance_mode(a, 3), Err(Errno::EINVAL));
}

mod random {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[derive(Debug, Clone)]
    enum Step {
        Open,
        Close(usize),
        Send(usize),
        Reply(usize),
        Repeat(usize),
        Refuse(usize, bool),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => Just(Step::Open),
            1 => any::<usize>().prop_map(Step::Close),
            8 => any::<usize>().prop_map(Step::Send),
            6 => any::<usize>().prop_map(Step::Reply),
            1 => any::<usize>().prop_map(Step::Repeat),
            1 => (any::<usize>(), any::<bool>()).prop_map(|(i, again)| Step::Refuse(i, again)),
            2 => (0..7000u64).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Whatever clients, the BMC and time do: a handle that stays open gets one answer for each
        /// send, and it is its own, a time-out or a refusal.
        #[test]
        fn every_send_is_answered_once_and_rightly(steps in prop::collection::vec(step(), 1..200)) {
            let (mut mux, mut now) = mux();
            let mut open: Vec<HandleId> = vec![];
            let mut with_bmc: Vec<Outgoing> = vec![];
            let mut answered: Vec<Outgoing> = vec![];
            let mut waiting: HashMap<HandleId, Vec<i64>> = HashMap::new();
            let mut msgid = 0i64;
            for step in steps {
                match step {
                    Step::Open => open.push(mux.open(now, owner(0)).unwrap()),
                    Step::Close(i) if !open.is_empty() => {
                        let id = open.remove(i % open.len());
                        waiting.remove(&id);
                        mux.close(now, id);
                    }
                    Step::Send(i) if !open.is_empty() => {
                        let id = open[i % open.len()];
                        msgid += 1;
                        if mux.send(now, id, command(msgid)).is_ok() {
                            waiting.entry(id).or_default().push(msgid);
                        }
                    }
                    Step::Reply(i) if !with_bmc.is_empty() => {
                        let out = with_bmc.remove(i % with_bmc.len());
                        let own = [&[0][..], &out.msgid.to_ne_bytes()].concat();
                        mux.handle_reply(now, out.token, reply(&own));
                        answered.push(out);
                    }
                    Step::Repeat(i) if !answered.is_empty() => {
                        let out = &answered[i % answered.len()];
                        mux.handle_reply(now, out.token, reply(&[0xee]));
                    }
                    Step::Refuse(i, again) if !with_bmc.is_empty() => {
                        let out = with_bmc.remove(i % with_bmc.len());
                        let errno = if again { Errno::EAGAIN } else { Errno::EINVAL };
                        mux.handle_refusal(now, out.token, errno);
                    }
                    Step::Wait(ms) => {
                        now += Duration::from_millis(ms);
                        mux.handle_timeout(now);
                    }
                    _ => {}
                }
                for out in sends(&mut mux) {
                    prop_assert!(!with_bmc.iter().any(|w| w.token == out.token));
                    with_bmc.push(out);
                }
                prop_assert!(mux.stats().in_flight + mux.stats().abandoned <= LIMITS.window);
                for id in &open {
                    for got in inbox(&mut mux, *id) {
                        let waits = waiting.entry(*id).or_default();
                        let at = waits.iter().position(|m| *m == got.msgid);
                        prop_assert!(at.is_some(), "answered twice, or to the wrong handle");
                        waits.remove(at.unwrap());
                        let own = [&[0][..], &got.msgid.to_ne_bytes()].concat();
                        prop_assert!(got.data == own || got.data == [0xc3] || got.data == [0xff]);
                    }
                }
            }
            mux.handle_timeout(now + LIMITS.long_deadline);
            let _ = actions(&mut mux);
            for (id, waits) in &mut waiting {
                for got in inbox(&mut mux, *id) {
                    waits.retain(|m| *m != got.msgid);
                }
                prop_assert!(waits.is_empty(), "never answered: {waits:?}");
            }
            for id in open {
                mux.close(now, id);
            }
            let of_a_handle = |r: &Request| matches!(r.asker, Asker::Handle(_));
            prop_assert!(!mux.requests.values().any(of_a_handle));
            prop_assert_eq!(mux.deadlines.len(), mux.requests.len());
            prop_assert!(mux.controllers.is_empty());
        }
    }
}

mod controllers {
    use super::*;
    use ipmi::CompletionCode;

    fn storage(cmd: u8, data: &[u8]) -> Send {
        Send { netfn: 0x0a, cmd, data: data.to_vec(), ..command(1) }
    }

    fn answer(mux: &mut Mux, id: HandleId) -> Vec<u8> {
        let mut got = inbox(mux, id);
        assert_eq!(got.len(), 1, "one answer");
        got.remove(0).data
    }

    /// Answers what is asked of the BMC with `data`, which says for each (network function, command).
    fn serve(mux: &mut Mux, now: Instant, data: impl Fn(&Outgoing) -> Vec<u8>) -> Vec<(u8, u8)> {
        let mut asked = vec![];
        loop {
            let out = sends(mux);
            if out.is_empty() {
                return asked;
            }
            for out in out {
                asked.push((out.netfn, out.cmd));
                let data = data(&out);
                let (netfn, cmd) = (out.netfn | 1, out.cmd);
                let addr = Addr::system_interface(0);
                mux.handle_reply(now, out.token, Incoming { addr, netfn, cmd, data });
            }
        }
    }

    /// A repository with these info bytes whose real reservation is `real`.
    fn repository(info: u8, real: u16) -> impl Fn(&Outgoing) -> Vec<u8> {
        move |out| match (out.netfn, out.cmd, &out.data[..]) {
            (0x0a, 0x20 | 0x40, _) => vec![0, 0x51, info],
            (0x0a, 0x22 | 0x42, _) => [&[0][..], &real.to_le_bytes()].concat(),
            (0x0a, 0x23 | 0x47, [low, high, ..]) => {
                let good = u16::from_le_bytes([*low, *high]) == real;
                if good { vec![0, 2, 0, 9] } else { vec![0xc5] }
            }
            _ => vec![0],
        }
    }

    #[test]
    fn reservations_of_two_handles_do_not_cancel_each_other() {
        let (mut mux, now) = mux();
        let (a, b) = (mux.open(now, owner(0)).unwrap(), mux.open(now, owner(0)).unwrap());
        let mut ids = vec![];
        for id in [a, b] {
            mux.send(now, id, storage(0x22, &[])).unwrap();
            serve(&mut mux, now, repository(1, 77));
            ids.push(answer(&mut mux, id));
        }
        for (id, reservation) in [(a, &ids[0]), (b, &ids[1])] {
            let [low, high] = [reservation[1], reservation[2]];
            mux.send(now, id, storage(0x23, &[low, high, 1, 0, 5, 16])).unwrap();
            serve(&mut mux, now, repository(1, 77));
            assert_eq!(answer(&mut mux, id), [0, 2, 0, 9]);
        }
    }

    #[test]
    fn somebody_elses_reservation_is_made_up_for_and_a_change_is_told() {
        let (mut mux, now) = mux();
        let a = mux.open(now, owner(0)).unwrap();
        mux.send(now, a, storage(0x22, &[])).unwrap();
        serve(&mut mux, now, repository(1, 77));
        let id = answer(&mut mux, a);
        let read = storage(0x23, &[id[1], id[2], 1, 0, 5, 16]);
        mux.send(now, a, read.clone()).unwrap();
        let asked = serve(&mut mux, now, repository(1, 78));
        assert_eq!(asked, [(0x0a, 0x23), (0x0a, 0x22), (0x0a, 0x20), (0x0a, 0x23)]);
        assert_eq!(answer(&mut mux, a), [0, 2, 0, 9]);
        let later = now + Duration::from_secs(3);
        mux.send(later, a, read).unwrap();
        serve(&mut mux, later, repository(2, 79));
        assert_eq!(answer(&mut mux, a), [0xc5]);
    }

    #[test]
    fn a_log_that_grew_since_is_not_cleared() {
        let (mut mux, now) = mux();
        let (a, b) = (mux.open(now, owner(0)).unwrap(), mux.open(now, owner(0)).unwrap());
        mux.send(now, a, storage(0x42, &[])).unwrap();
        serve(&mut mux, now, repository(1, 5));
        let id = answer(&mut mux, a);
        // An entry is added, and another client takes a new reservation before the first one acts.
        let later = now + Duration::from_millis(100);
        mux.send(later, b, storage(0x42, &[])).unwrap();
        serve(&mut mux, later, repository(2, 6));
        answer(&mut mux, b);
        mux.send(later, a, storage(0x47, &[id[1], id[2], b'C', b'L', b'R', 0xaa])).unwrap();
        assert_eq!(serve(&mut mux, later, repository(2, 6)), [], "the BMC is not asked");
        assert_eq!(answer(&mut mux, a), [0xc5]);
    }

    #[test]
    fn twenty_readers_ask_once() {
        let (mut mux, now) = mux();
        let ids: Vec<_> = (0..20).map(|_| mux.open(now, owner(0)).unwrap()).collect();
        let reading = Send { netfn: 4, cmd: 0x2d, data: vec![7], ..command(1) };
        for id in &ids[..10] {
            mux.send(now, *id, reading.clone()).unwrap();
        }
        assert_eq!(serve(&mut mux, now, |_| vec![0, 55, 0xc0]), [(4, 0x2d)]);
        let soon = now + Duration::from_millis(900);
        for id in &ids[10..] {
            mux.send(soon, *id, reading.clone()).unwrap();
        }
        assert_eq!(serve(&mut mux, soon, |_| vec![0, 56, 0xc0]), []);
        for id in ids {
            assert_eq!(answer(&mut mux, id), [0, 55, 0xc0]);
        }
    }

    #[test]
    fn the_second_program_does_not_get_the_watchdog() {
        let (mut mux, now) = mux();
        let (a, b) = (mux.open(now, owner(0)).unwrap(), mux.open(now, owner(0)).unwrap());
        let set = Send { netfn: 6, cmd: 0x24, data: vec![0x44, 1, 0, 0, 100, 0], ..command(1) };
        let reset = Send { netfn: 6, cmd: 0x22, ..command(2) };
        for (id, send, code) in
            [(a, &set, 0), (b, &set, 0xd5), (b, &reset, 0xd5), (a, &reset, 0), (a, &set, 0)]
        {
            mux.send(now, id, send.clone()).unwrap();
            serve(&mut mux, now, |_| vec![0]);
            assert_eq!(answer(&mut mux, id), [code]);
        }
        mux.close(now, a);
        assert_eq!(serve(&mut mux, now, |_| vec![0]), [], "the timer runs on");
        mux.send(now, b, set).unwrap();
        serve(&mut mux, now, |_| vec![0]);
        assert_eq!(answer(&mut mux, b), [0]);
    }

    #[test]
    fn who_dies_in_the_middle_of_setting_is_ended_for() {
        let (mut mux, now) = mux();
        let a = mux.open(now, owner(0)).unwrap();
        let begin = Send { netfn: 0, cmd: 8, data: vec![0, 1], ..command(1) };
        mux.send(now, a, begin).unwrap();
        serve(&mut mux, now, |_| vec![0]);
        mux.close(now, a);
        let out = sends(&mut mux);
        assert_eq!((out[0].netfn, out[0].cmd, &out[0].data[..]), (0, 8, &[0, 0][..]));
    }

    #[test]
    fn a_reserved_command_is_the_holders_alone() {
        let (mut mux, now) = mux();
        let (a, b) = (mux.open(now, owner(0)).unwrap(), mux.open(now, owner(0)).unwrap());
        mux.reserve_command(a, 0x30, 1).unwrap();
        assert_eq!(mux.reserve_command(b, 0x30, 1), Err(Errno::EBUSY));
        mux.send(now, b, command(1)).unwrap();
        assert_eq!(answer(&mut mux, b), [0xd4]);
        // Nor inside a message that comes back to the BMC. 46h passes the driver as 06h.
        let inner = [0x20, 0x30 << 2, 0x20, 0x81, 0, 1, 0x7e];
        let mut nested = vec![0];
        nested.extend(inner);
        mux.send(now, b, Send { netfn: 0x46, cmd: 0x34, data: nested, ..command(2) }).unwrap();
        assert_eq!(answer(&mut mux, b), [0xd4]);
        mux.send(now, a, command(1)).unwrap();
        serve(&mut mux, now, |_| vec![0]);
        assert_eq!(answer(&mut mux, a), [0]);
        mux.close(now, a);
        mux.send(now, b, command(1)).unwrap();
        serve(&mut mux, now, |_| vec![0]);
        assert_eq!(answer(&mut mux, b), [0]);
    }

    #[test]
    fn answers_go_to_the_virtual_client_by_number() {
        let (mut mux, now) = mux();
        let (a, b, c) = (0..3)
            .map(|_| mux.open(now, owner(0)).unwrap())
            .fold((HandleId(0), HandleId(0), HandleId(0)), |(_, b, c), id| (b, c, id));
        let range = mux.reserve_sequence(a, 4, [9; 16]).unwrap();
        mux.attach(now, b, &[9; 16]).unwrap();
        mux.reserve_command(a, 0x30, 1).unwrap();
        for (from, msgid, to) in
            [(a, range.first, b), (b, range.first + 3, b), (a, 5, a), (b, 6, b)]
        {
            mux.send(now, from, command(msgid)).unwrap();
            serve(&mut mux, now, |_| vec![0]);
            let got = inbox(&mut mux, to);
            assert_eq!((got.len(), got[0].msgid), (1, msgid));
        }
        mux.send(now, c, Send { cmd: 2, ..command(range.first) }).unwrap();
        serve(&mut mux, now, |_| vec![0]);
        assert_eq!(inbox(&mut mux, c).len(), 1, "a stranger's number is its own affair");
        mux.close(now, a);
        mux.send(now, c, command(1)).unwrap();
        assert_eq!(answer(&mut mux, c), [0xd4], "what is reserved lives with the last member");
        mux.close(now, b);
        mux.send(now, c, command(1)).unwrap();
        serve(&mut mux, now, |_| vec![0]);
        assert_eq!(answer(&mut mux, c), [0]);
    }

    #[test]
    fn flags_and_enables_are_ones_own() {
        let (mut mux, now) = mux();
        let (a, b) = (mux.open(now, owner(0)).unwrap(), mux.open(now, owner(0)).unwrap());
        let app = |cmd, data: &[u8]| Send { netfn: 6, cmd, data: data.to_vec(), ..command(1) };
        for id in [a, b] {
            mux.set_gets_events(id, true).unwrap();
        }
        mux.handle_event(&reply(&[0; 16]));
        mux.send(now, a, app(0x30, &[0x02])).unwrap();
        assert_eq!(answer(&mut mux, a), [0], "its own event is gone");
        mux.send(now, b, app(0x31, &[])).unwrap();
        let got = inbox(&mut mux, b);
        assert_eq!(got[1].data, [0, 0x02], "the other's is not");

        mux.send(now, a, app(0x2e, &[0x08])).unwrap();
        let asked = serve(&mut mux, now, |out| if out.cmd == 0x2f { vec![0, 1] } else { vec![0] });
        assert_eq!(asked, [(6, 0x2f), (6, 0x2e)]);
        answer(&mut mux, a);
        mux.send(now, b, app(0x2f, &[])).unwrap();
        assert_eq!(answer(&mut mux, b), [0, 1]);
        mux.close(now, a);
        let out = sends(&mut mux);
        assert_eq!((out[0].cmd, &out[0].data[..]), (0x2e, &[1][..]), "as it was");
    }

    #[test]
    fn a_policy_is_kept_before_anything_else() {
        let (mut mux, now) = mux();
        let policy = Arc::new(Policy::monitor());
        mux.set_rules(0, NodeRules { policy, background: false });
        let a = mux.open(now, owner(0)).unwrap();
        mux.send(now, a, Send { netfn: 0, cmd: 2, data: vec![0], ..command(1) }).unwrap();
        assert_eq!(answer(&mut mux, a), [CompletionCode::INSUFFICIENT_PRIVILEGE.0]);
        assert_eq!(sends(&mut mux), []);
        assert_eq!(mux.reserve_command(a, 6, 1), Err(Errno::EPERM));
    }
}
