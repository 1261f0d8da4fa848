// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use crate::devintf::{Message, Send};

const ABANDONED_FOR: Duration = Duration::from_secs(60);

const LIMITS: Limits = Limits {
    deadline: Duration::from_secs(5),
    long_deadline: Duration::from_secs(60),
    window: 2,
    abandoned_for: ABANDONED_FOR,
    sensor_age: Duration::from_secs(1),
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
