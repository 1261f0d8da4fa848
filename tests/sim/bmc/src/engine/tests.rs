// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections, service time, faults and control, on a clock that the test turns.

use ipmi::vm::VmResponse;
use ipmi::{NetFn, Request};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::model::oem;

const A: PeerId = PeerId(1);
const B: PeerId = PeerId(2);
const ALL: Capabilities = Capabilities(0x3f);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What came out: when, on which connection, which frame.
type Seen = (u64, PeerId, Result<Frame, ipmi::vm::FrameError>);

struct Bench {
    engine: Engine,
    now: Duration,
    seen: Vec<Seen>,
    quit: bool,
}

impl Bench {
    fn new(service_time: u64) -> Self {
        Self::with(Config::default(), service_time)
    }

    fn with(config: Config, service_time: u64) -> Self {
        let engine = Engine::new(config, ms(service_time));
        let mut bench = Self { engine, now: ms(1000), seen: vec![], quit: false };
        for peer in [A, B] {
            let outputs = bench.engine.connected(bench.now, peer);
            bench.take(outputs);
            bench.bytes(peer, &Control::Capabilities(ALL).encode());
        }
        bench.seen.clear();
        bench
    }

    fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { peer, bytes } => {
                    let mut decoder = Decoder::new();
                    let mut input = &bytes[..];
                    while let Some(frame) = decoder.next_frame(&mut input) {
                        self.seen.push((self.now.as_millis() as u64 - 1000, peer, frame));
                    }
                }
                Output::Log(_) => {}
                Output::Quit => self.quit = true,
            }
        }
    }

    fn bytes(&mut self, peer: PeerId, bytes: &[u8]) {
        let outputs = self.engine.received(self.now, peer, bytes);
        self.take(outputs);
    }

    fn request(&mut self, peer: PeerId, seq: u8, request: Request) {
        self.bytes(peer, &VmRequest { seq, request }.encode().unwrap());
    }

    fn echo(&mut self, peer: PeerId, seq: u8) {
        self.request(peer, seq, Request::new(NetFn::OEM, oem::ECHO, [seq]));
    }

    fn wait(&mut self, time: u64) {
        let end = self.now + ms(time);
        while self.now < end {
            self.now = self.engine.next_timeout(self.now).min(end);
            let outputs = self.engine.handle_timeout(self.now);
            self.take(outputs);
        }
    }

    fn control(&mut self, line: &str) -> Value {
        let (answer, outputs) = self.engine.control(self.now, line);
        self.take(outputs);
        serde_json::from_str(&answer).unwrap()
    }

    /// Replies so far: when, on which connection, sequence number, completion code.
    fn replies(&mut self) -> Vec<(u64, PeerId, u8, u8)> {
        let seen = std::mem::take(&mut self.seen);
        let reply = |(at, peer, frame): Seen| match frame {
            Ok(Frame::Message(body)) => {
                let VmResponse { seq, response } = VmResponse::parse(&body).unwrap();
                Some((at, peer, seq, response.ccode.0))
            }
            _ => None,
        };
        seen.into_iter().filter_map(reply).collect()
    }

    /// Controls so far.
    fn controls(&mut self) -> Vec<(PeerId, Control)> {
        let seen = std::mem::take(&mut self.seen);
        let control = |(_, peer, frame)| match frame {
            Ok(Frame::Control(control)) => Some((peer, control)),
            _ => None,
        };
        seen.into_iter().filter_map(control).collect()
    }
}

#[test]
fn one_request_at_a_time_over_all_connections() {
    let mut bench = Bench::new(3);
    bench.echo(A, 1);
    bench.echo(B, 1);
    bench.echo(A, 2);
    bench.wait(20);
    assert_eq!(bench.replies(), [(3, A, 1, 0), (6, B, 1, 0), (9, A, 2, 0)]);
}

#[test]
fn without_service_time_the_answer_is_there_at_once() {
    let mut bench = Bench::new(0);
    bench.echo(A, 1);
    bench.echo(A, 2);
    assert_eq!(bench.replies(), [(0, A, 1, 0), (0, A, 2, 0)]);
}

#[test]
fn a_sleeping_request_holds_nobody_up() {
    let mut bench = Bench::new(1);
    bench.request(A, 1, Request::new(NetFn::OEM, oem::SLEEP, [50, 0]));
    bench.echo(A, 2);
    bench.wait(100);
    assert_eq!(bench.replies(), [(2, A, 2, 0), (51, A, 1, 0)]);
}

#[test]
fn a_full_queue_answers_busy() {
    let mut bench = Bench::new(1);
    for _ in 0..MAX_QUEUE {
        bench.echo(A, 1);
    }
    bench.echo(A, 2);
    assert_eq!(bench.replies(), [(0, A, 2, 0xc0)]);
    bench.wait(MAX_QUEUE as u64);
    assert_eq!(bench.replies().len(), MAX_QUEUE);
    assert_eq!(bench.control("stats")["overflows"], 1);
}

#[test]
fn faults_strike_what_they_are_meant_for() {
    let mut bench = Bench::new(1);
    assert_eq!(bench.control("fault late 1 30/01 20ms")["ok"], true);
    bench.control("fault busy 1 30/01");
    bench.control("fault lost 1 30/03");
    bench.control("fault damaged");
    for seq in 1..=4 {
        bench.echo(A, seq);
    }
    bench.request(B, 9, Request::new(NetFn::OEM, oem::COUNTER, []));
    bench.request(B, 10, Request::new(NetFn::OEM, oem::COUNTER, []));
    bench.wait(100);
    let damaged = |(_, _, frame): &&Seen| frame.is_err();
    assert_eq!(bench.seen.iter().filter(damaged).count(), 1);
    // Late, busy, damaged, good; lost but counted, good.
    assert_eq!(bench.replies(), [(2, A, 2, 0xc0), (4, A, 4, 0), (6, B, 10, 0), (21, A, 1, 0)]);
    assert_eq!(bench.control("faults")["faults"], serde_json::json!([]));
    let log = bench.control("log --last 2");
    assert_eq!(log["entries"][0]["changed"][0], "counter 1");
    assert_eq!(log["entries"][1]["changed"][0], "counter 2");
}

#[test]
fn a_duplicate_comes_twice_in_order() {
    let mut bench = Bench::new(1);
    bench.control("fault duplicate 2 10ms");
    bench.echo(A, 1);
    bench.echo(A, 2);
    bench.wait(50);
    assert_eq!(bench.replies(), [(1, A, 1, 0), (2, A, 2, 0), (11, A, 1, 0), (12, A, 2, 0)]);
}

#[test]
fn a_hung_bmc_recovers_when_told() {
    let mut bench = Bench::new(1);
    bench.control("fault hang");
    bench.echo(A, 1);
    bench.wait(10_000);
    bench.request(A, 2, Request::new(NetFn::OEM, oem::COUNTER, []));
    bench.wait(10_000);
    assert_eq!(bench.replies(), []);
    bench.control("fault clear");
    bench.request(A, 3, Request::new(NetFn::OEM, oem::COUNTER, []));
    bench.wait(10);
    assert_eq!(bench.replies().len(), 1);
    // The one that hung was not carried out.
    assert_eq!(bench.control("log --last 1")["entries"][0]["changed"][0], "counter 1");
}

#[test]
fn garbage_and_wrong_messages_are_counted_and_survived() {
    let mut bench = Bench::new(0);
    bench.bytes(A, &[0x55; 5000]);
    bench.bytes(A, &[0xa0, 0x01, 0x1c, 0x01, 0x00, 0xa0]);
    // A response from a host makes no sense.
    let request = Request::new(NetFn::APP, 0x01, []);
    let response = VmResponse { seq: 1, response: request.respond(CompletionCode::OK, []) };
    bench.bytes(A, &response.encode().unwrap());
    bench.echo(A, 7);
    assert_eq!(bench.replies(), [(0, A, 7, 0)]);
    assert_eq!(bench.control("stats")["bad_frames"], 3);
}

#[test]
fn a_request_of_a_lost_connection_is_carried_out() {
    let mut bench = Bench::new(5);
    bench.request(A, 1, Request::new(NetFn::OEM, oem::COUNTER, []));
    bench.engine.disconnected(A);
    bench.wait(10);
    assert_eq!(bench.control("stats")["commands"]["30/03"]["count"], 1);
    assert_eq!(bench.control("stats")["connections"], 1);
    let outputs = bench.engine.connected(bench.now, A);
    bench.take(outputs);
    assert_eq!(bench.controls().last(), Some(&(A, Control::Version(1))));
}

#[test]
fn attention_follows_the_reply_and_goes_to_all_who_can() {
    let mut bench = Bench::new(0);
    bench.request(A, 1, Request::new(NetFn::APP, 0x2e, [0x0f]));
    let on = Control::EnableInterrupt;
    assert!(matches!(bench.seen[0], (0, A, Ok(Frame::Message(_)))));
    assert_eq!(bench.controls(), [(A, on), (B, on)]);
    // One that said nothing of its abilities is told nothing.
    let outputs = bench.engine.connected(bench.now, PeerId(3));
    bench.take(outputs);
    bench.seen.clear();
    assert_eq!(bench.control("event 2")["first"], 1);
    let attention = Control::AttentionInterrupt;
    assert_eq!(bench.controls(), [(A, attention), (B, attention)]);
    // Who comes later, or was reset, is told how things stand.
    bench.bytes(PeerId(3), &Control::Capabilities(ALL).encode());
    assert_eq!(bench.controls(), [(PeerId(3), on), (PeerId(3), attention)]);
    bench.bytes(B, &Control::Reset.encode());
    assert_eq!(bench.controls(), [(B, on), (B, attention)]);
}

#[test]
fn power_is_switched_only_when_allowed() {
    let control = |cmd| Request::new(NetFn::CHASSIS, 0x02, [cmd]);
    let mut bench = Bench::new(0);
    bench.request(A, 1, control(2));
    assert_eq!(bench.controls(), []);
    let power = bench.control("power");
    assert_eq!(power["not_honoured"][0]["power"], "reset");
    let mut bench = Bench::with(Config { honour_power: true, ..Config::default() }, 0);
    for cmd in [0, 2, 4, 5] {
        bench.request(A, 1, control(cmd));
    }
    let to_a: Vec<_> = bench.controls().into_iter().filter(|(p, _)| *p == A).collect();
    let expected = [Control::PowerOff, Control::Reset, Control::SendNmi, Control::GracefulShutdown];
    assert_eq!(to_a, expected.map(|control| (A, control)));
}

#[test]
fn a_walk_breaks_where_it_was_ordered_to() {
    let mut bench = Bench::new(0);
    bench.request(A, 1, Request::new(NetFn::STORAGE, 0x22, []));
    bench.control("change-sdr --after 1");
    let get = || Request::new(NetFn::STORAGE, 0x23, [1, 0, 1, 0, 5, 4]);
    bench.request(A, 2, get());
    bench.request(A, 3, get());
    assert_eq!(bench.replies(), [(0, A, 1, 0), (0, A, 2, 0), (0, A, 3, 0xc5)]);
}

#[test]
fn reset_by_control_is_silent_for_as_long_as_said() {
    let mut bench = Bench::new(0);
    assert_eq!(bench.control("reset 50")["silent_ms"], 50);
    bench.echo(A, 1);
    bench.wait(49);
    bench.echo(A, 2);
    bench.wait(1);
    bench.echo(A, 3);
    assert_eq!(bench.replies(), [(50, A, 3, 0)]);
}

#[test]
fn incoming_requests_come_back_with_their_answers() {
    let mut bench = Bench::new(0);
    let seq = bench.control("incoming 30 05 0102")["seq"].as_u64().unwrap();
    assert_eq!(bench.control("messages")["messages"], 1);
    bench.seen.clear();
    bench.request(A, 1, Request::new(NetFn::APP, 0x33, []));
    let Some((_, _, Ok(Frame::Message(body)))) = bench.seen.first() else { panic!() };
    let mut bytes = VmResponse::parse(body).unwrap().response.data;
    bytes[0] = 0x20;
    let message = ipmi::ipmb::decode(&bytes).unwrap();
    let mut data = vec![0];
    data.extend(ipmi::ipmb::encode(&message.respond(vec![0xc1])));
    bench.request(A, 2, Request::new(NetFn::APP, 0x34, data));
    let responses = bench.control("responses");
    assert_eq!(responses["responses"][0]["seq"], seq);
    assert_eq!(responses["responses"][0]["ccode"], "c1");
}

#[test]
fn answers_carry_tag_and_errors() {
    let mut bench = Bench::new(0);
    assert_eq!(bench.control("@x1 version")["tag"], "x1");
    let wrong = bench.control("@x2 event 200");
    assert_eq!((&wrong["ok"], &wrong["tag"]), (&false.into(), &"x2".into()));
    assert_eq!(wrong["error"], "there is no sensor 200");
    assert_eq!(bench.control("dance")["ok"], false);
    for line in ["sensors", "watchdog", "stats --clear", "log --clear", "service-time 9"] {
        assert_eq!(bench.control(line)["ok"], true, "{line}");
    }
    assert_eq!(bench.control("sensors")["sensors"].as_array().unwrap().len(), 100);
    assert_eq!(bench.control("stats")["service_time_ms"], 9);
    bench.control("quit");
    assert!(bench.quit);
}

proptest! {
    /// Any bytes on the wire and any words on the control line leave a working simulator.
    #[test]
    fn any_input_is_survived(
        steps in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..80), "[a-z0-9/ -]{0,20}", 0u64..50),
            1..20,
        )
    ) {
        let mut bench = Bench::new(1);
        for (mut bytes, line, pause) in steps {
            bytes.push(0xa0);
            let outputs = bench.engine.received(bench.now, A, &bytes);
            drop(outputs);
            bench.control(&line);
            let _ = bench.engine.handle_timeout(bench.now + ms(pause));
            bench.now += ms(pause);
        }
        bench.control("fault clear");
        bench.wait(5000);
        bench.seen.clear();
        bench.echo(B, 77);
        bench.wait(100);
        prop_assert_eq!(bench.replies().len(), 1);
    }
}
