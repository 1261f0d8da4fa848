// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use crate::mux::{Action, Channels, Limits, MAX_MESSAGES, Token};

const DEADLINE: Duration = Duration::from_secs(5);
const OWNER: Owner = Owner { node: 1, uid: 1000, gid: 1000, pid: 7 };

fn mux() -> (Mux, Instant, HandleId) {
    let limits = Limits {
        deadline: DEADLINE,
        long_deadline: DEADLINE,
        window: 2,
        abandoned_for: Duration::from_secs(60),
        sensor_age: Duration::from_secs(1),
        reserved_code: ipmi::CompletionCode::INSUFFICIENT_PRIVILEGE,
    };
    let mut mux = Mux::new(limits, Channels::default(), [(0x20, 2); 16]);
    let now = Instant::now();
    let id = mux.open(now, OWNER).unwrap();
    mux.set_watched(true);
    (mux, now, id)
}

fn send(msgid: i64, cmd: u8, data: &[u8]) -> Send {
    let addr = Addr::system_interface(0);
    Send { addr, msgid, netfn: 6, cmd, data: data.to_vec(), timing: None }
}

fn incoming(netfn: u8, cmd: u8, data: &[u8]) -> Incoming {
    Incoming { addr: Addr::system_interface(0), netfn, cmd, data: data.to_vec() }
}

fn tokens(mux: &mut Mux) -> Vec<Token> {
    let all = std::iter::from_fn(|| mux.next_action());
    all.filter_map(|a| if let Action::Send(out) = a { Some(out.token) } else { None }).collect()
}

fn traces(mux: &mut Mux) -> Vec<What> {
    std::iter::from_fn(|| mux.next_trace()).map(|trace| trace.what).collect()
}

#[test]
fn a_request_and_its_answer_are_seen_with_their_owner() {
    let (mut mux, now, id) = mux();
    mux.send(now, id, send(5, 0x44, &[1, 2])).unwrap();
    let request = mux.next_trace().unwrap();
    assert_eq!((request.handle, request.owner), (Some(id), Some(OWNER)));
    assert_eq!(request.what, What::Request(Msg::from(&send(5, 0x44, &[1, 2]))));
    let token = tokens(&mut mux)[0];
    let took = Duration::from_millis(3);
    mux.handle_reply(now + took, token, incoming(7, 0x44, &[0, 9]));
    let request = Msg::from(&send(5, 0x44, &[1, 2]));
    let expected = What::Answer { request, answer: vec![0, 9], origin: Origin::Bmc, took };
    assert_eq!(traces(&mut mux), [expected]);
}

#[test]
fn what_the_mux_answers_or_refuses_itself_says_so() {
    let (mut mux, now, id) = mux();
    assert_eq!(mux.send(now, id, send(1, 0x34, &[0])), Err(Errno::EINVAL));
    for msgid in 0..MAX_MESSAGES as i64 {
        mux.send(now, id, send(msgid, 1, &[])).unwrap();
    }
    assert_eq!(mux.send(now, id, send(100, 1, &[])), Err(Errno::EBUSY));
    let seen = traces(&mut mux);
    assert!(matches!(&seen[0], What::Refused(msg, Errno::EINVAL) if msg.cmd == 0x34));
    assert!(
        matches!(&seen[MAX_MESSAGES + 1], What::Refused(msg, Errno::EBUSY) if msg.msgid == 100)
    );
    mux.handle_timeout(now + DEADLINE);
    let timed_out = |what: &What| {
        matches!(what, What::Answer { answer, origin: Origin::Mux, took: DEADLINE, .. }
            if answer == &[0xc3])
    };
    assert_eq!(traces(&mut mux).iter().filter(|what| timed_out(what)).count(), MAX_MESSAGES);
}

#[test]
fn a_close_tells_what_was_not_answered_and_whether_the_bmc_has_it() {
    let (mut mux, now, id) = mux();
    for msgid in 0..3 {
        mux.send(now, id, send(msgid, 0x22, &[])).unwrap();
    }
    traces(&mut mux);
    mux.close(now, id);
    let mut seen: Vec<_> = traces(&mut mux)
        .into_iter()
        .map(|what| match what {
            What::Unanswered { request, sent, .. } => (request.msgid, sent),
            other => panic!("{other:?}"),
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, [(0, true), (1, true), (2, false)]);
}

#[test]
fn events_are_seen_once_for_each_handle_that_gets_them() {
    let (mut mux, now, id) = mux();
    let deaf = mux.open(now, OWNER).unwrap();
    mux.set_gets_events(id, true).unwrap();
    mux.handle_event(&incoming(7, 0x35, &[2; 16]));
    let seen: Vec<_> = std::iter::from_fn(|| mux.next_trace()).collect();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].handle, Some(id));
    assert!(matches!(&seen[0].what, What::Event(msg) if msg.data == [2; 16]));
    assert_ne!(deaf, id);
}

#[test]
fn nothing_is_kept_unwatched_and_a_burst_is_cut_and_counted() {
    let (mut mux, now, id) = mux();
    mux.set_gets_events(id, true).unwrap();
    for _ in 0..MAX_TRACES + 3 {
        mux.handle_event(&incoming(7, 0x35, &[2; 16]));
    }
    let seen = traces(&mut mux);
    assert_eq!(seen.len(), MAX_TRACES + 1);
    assert_eq!(seen.last(), Some(&What::Missed(3)));

    mux.send(now, id, send(1, 1, &[])).unwrap();
    mux.set_watched(false);
    mux.send(now, id, send(2, 1, &[])).unwrap();
    assert_eq!(mux.next_trace(), None);
}
