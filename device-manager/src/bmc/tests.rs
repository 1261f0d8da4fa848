// SPDX-License-Identifier: MIT OR Apache-2.0
use ipmi::Response;
use ipmi::vm::Decoder;

use super::*;

const CHASSIS_CONTROL: u8 = 0x02;

fn request(seq: u8, netfn: NetFn, cmd: u8, data: &[u8]) -> Frame {
    let bytes = VmRequest { seq, request: Request::new(netfn, cmd, data) }.encode().unwrap();
    let (mut decoder, mut input) = (Decoder::new(), &bytes[..]);
    decoder.next_frame(&mut input).unwrap().unwrap()
}

/// What a client is told: sequence numbers and responses.
fn told(actions: &[Action], client: ClientNo) -> Vec<(u8, Response)> {
    let mut all = vec![];
    for action in actions {
        let Action::Tell(to, bytes) = action else { continue };
        let (mut decoder, mut input) = (Decoder::new(), &bytes[..]);
        while let Some(Ok(frame)) = decoder.next_frame(&mut input) {
            if let (Frame::Message(body), true) = (frame, *to == client) {
                let VmResponse { seq, response } = VmResponse::parse(&body).unwrap();
                all.push((seq, response));
            }
        }
    }
    all
}

fn sent(actions: &[Action]) -> Vec<RequestId> {
    let sent = actions.iter().filter_map(|action| match action {
        Action::Send(id, _) => Some(*id),
        _ => None,
    });
    sent.collect()
}

fn codes(actions: &[Action], client: ClientNo) -> Vec<(u8, u8)> {
    told(actions, client).iter().map(|(seq, response)| (*seq, response.ccode.0)).collect()
}

#[test]
fn requests_go_to_the_node_and_answers_to_who_asked() {
    let (mut desk, now) = (Desk::new(8), Instant::now());
    let hello = Action::Tell(1, Control::Version(1).encode());
    assert_eq!((desk.came(1), desk.came(2).len()), (vec![hello], 1));
    let first = desk.said(now, 1, request(7, NetFn::APP, 1, &[]));
    let second = desk.said(now, 2, request(7, NetFn::STORAGE, 0x23, &[1, 2]));
    assert_eq!(first, [Action::Send(1, Request::new(NetFn::APP, 1, []))]);
    assert_eq!(sent(&second), [2]);
    assert_eq!(desk.answered(1, (7, 2), &[0]), [], "to another command");
    let answer = desk.answered(2, (0x0b, 0x23), &[0, 9]);
    assert_eq!((told(&answer, 1), told(&answer, 2)[0].1.data.clone()), (vec![], vec![9]));
    assert_eq!(codes(&desk.answered(1, (7, 1), &[]), 1), [(7, 0xff)], "nothing is no answer");
    assert_eq!(desk.answered(1, (7, 1), &[0]), [], "once");
    assert_eq!(desk.with_node(), 0);
}

#[test]
fn the_node_has_no_more_than_its_window_and_what_is_too_much_is_said() {
    let (mut desk, now) = (Desk::new(1), Instant::now());
    let _ = desk.came(1);
    let ask = |desk: &mut Desk, seq| desk.said(now, 1, request(seq, NetFn::CHASSIS, 1, &[]));
    assert_eq!(sent(&ask(&mut desk, 0)), [1]);
    for seq in 1..=MAX_WAITING as u8 {
        assert_eq!(ask(&mut desk, seq), []);
    }
    assert_eq!(codes(&ask(&mut desk, 99), 1), [(99, 0xc0)]);
    let next = desk.answered(1, (1, 1), &[0]);
    assert_eq!((codes(&next, 1), sent(&next)), (vec![(0, 0)], vec![2]));
    let next = desk.refused(2, CompletionCode::DATA_LENGTH_INVALID);
    assert_eq!((codes(&next, 1), sent(&next)), (vec![(1, 0xc7)], vec![3]));
}

#[test]
fn what_a_bmc_does_not_answer_is_answered_and_holds_no_place() {
    let (mut desk, now) = (Desk::new(1), Instant::now());
    let _ = (desk.came(1), desk.said(now, 1, request(1, NetFn::APP, 1, &[])));
    let later = now + Duration::from_secs(1);
    let _ = desk.said(later, 1, request(2, NetFn::APP, 1, &[]));
    assert_eq!(desk.next(), Some(now + LIMIT));
    let over = desk.tick(now + LIMIT);
    assert_eq!((codes(&over, 1), sent(&over)), (vec![(1, 0xc3)], vec![2]));
    assert_eq!(desk.answered(1, (7, 1), &[0]), [], "late");
    let _ = desk.said(later, 1, request(3, NetFn::APP, 1, &[]));
    assert_eq!(codes(&desk.tick(later + LIMIT), 1), [(3, 0xc3), (2, 0xc3)]);
    assert_eq!((desk.next(), desk.with_node()), (None, 0));
}

#[test]
fn what_waits_when_the_lease_ends_or_its_client_goes_is_not_begun() {
    for lease_ends in [true, false] {
        let (mut desk, now) = (Desk::new(1), Instant::now());
        let _ = desk.came(1);
        for seq in 0..3 {
            let _ = desk.said(now, 1, request(seq, NetFn::CHASSIS, CHASSIS_CONTROL, &[1]));
        }
        if lease_ends {
            desk.end();
        } else {
            assert_eq!(desk.left(1), []);
        }
        assert_eq!(desk.with_node(), 1, "it cannot be taken back");
        assert_eq!(desk.answered(1, (1, CHASSIS_CONTROL), &[0]), [], "lease ends: {lease_ends}");
        assert_eq!((desk.with_node(), desk.next()), (0, None));
        assert_eq!(desk.said(now, 1, request(9, NetFn::CHASSIS, CHASSIS_CONTROL, &[1])), []);
    }
}

#[test]
fn events_are_fetched_from_here_and_flags_never_from_the_bmc() {
    let (mut desk, now) = (Desk::new(8), Instant::now());
    let _ = desk.came(1);
    let ask = |desk: &mut Desk, cmd, data: &[u8]| {
        let actions = desk.said(now, 1, request(0, NetFn::APP, cmd, data));
        assert_eq!(sent(&actions), [0; 0], "{cmd:02x}");
        let (_, response) = told(&actions, 1).remove(0);
        (response.ccode.0, response.data)
    };
    assert_eq!(ask(&mut desk, GET_MESSAGE_FLAGS, &[]), (0, vec![0]));
    assert_eq!(ask(&mut desk, READ_EVENT_MESSAGE_BUFFER, &[]), (0x80, vec![]));
    assert_eq!(ask(&mut desk, GET_MESSAGE, &[]), (0x80, vec![]));
    for (enables, events) in [(0x09, false), (0x0e, true), (0x0e, false)] {
        let set = desk.said(now, 1, request(0, NetFn::APP, SET_GLOBAL_ENABLES, &[enables]));
        assert_eq!((set.contains(&Action::Events), sent(&set).len()), (events, 1), "{enables}");
    }
    for event in 0..=MAX_EVENTS as u8 {
        let told = desk.event(vec![event; 16]);
        assert_eq!(told, [Action::Tell(1, Control::AttentionInterrupt.encode())]);
    }
    assert_eq!(desk.came(2).len(), 2, "who comes later is told as well");
    for event in 0..2 {
        assert_eq!(ask(&mut desk, GET_MESSAGE_FLAGS, &[]), (0, vec![EVENT_BUFFER_FULL]));
        assert_eq!(ask(&mut desk, READ_EVENT_MESSAGE_BUFFER, &[]), (0, vec![event; 16]));
    }
    assert_eq!(desk.events.len(), MAX_EVENTS - 2, "the last was one too many");
    assert_eq!(ask(&mut desk, CLEAR_MESSAGE_FLAGS, &[EVENT_BUFFER_FULL]), (0, vec![]));
    assert_eq!(ask(&mut desk, GET_MESSAGE_FLAGS, &[]), (0, vec![0]));
}

#[test]
fn what_is_no_request_is_left_out() {
    let (mut desk, now) = (Desk::new(8), Instant::now());
    let _ = desk.came(1);
    for frame in [
        Frame::Control(Control::Reset),
        Frame::Control(Control::Version(9)),
        Frame::Message(vec![1]),
        Frame::Message(vec![1, 7 << 2, 1, 0]),
    ] {
        assert_eq!(desk.said(now, 1, frame), []);
    }
    assert_eq!(desk.said(now, 2, request(1, NetFn::APP, 1, &[])), [], "nobody knows it");
    let long = vec![0; ipmi::MAX_MESSAGE_LEN + 2];
    let _ = desk.said(now, 1, request(1, NetFn::APP, 1, &[]));
    assert_eq!(codes(&desk.answered(1, (7, 1), &long), 1), [(1, 0xca)]);
}
