// SPDX-License-Identifier: MIT OR Apache-2.0
//! The controller as a host sees it: requests, time, and what comes back.

use ipmi::ipmb::{self, Ipmb};
use ipmi::sdr::{Body, Record};
use ipmi::sel;
use ipmi::{Lun, MAX_MESSAGE_LEN};
use proptest::prelude::*;

use super::*;

const EMPTY: CompletionCode = CompletionCode(0x80);

/// A controller with a clock that the test turns.
struct Host {
    bmc: Bmc,
    now: Duration,
    actions: Vec<Action>,
    notes: Vec<String>,
}

impl Host {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let now = Duration::from_secs(10);
        Self { bmc: Bmc::new(config), now, actions: vec![], notes: vec![] }
    }

    fn take(&mut self, handled: Handled) -> Option<Response> {
        self.actions.extend(handled.actions);
        self.notes.extend(handled.notes);
        handled.response
    }

    fn send(&mut self, request: &Request) -> Option<Response> {
        let handled = self.bmc.handle(self.now, request);
        self.take(handled)
    }

    fn ask(&mut self, netfn: u8, cmd: u8, data: &[u8]) -> Answer {
        let request = Request::new(NetFn::new(netfn).unwrap(), cmd, data);
        let response = self.send(&request).expect("the controller is silent");
        assert_eq!(response.command(), request.command());
        if response.ccode.is_ok() { Ok(response.data) } else { Err(response.ccode) }
    }

    /// Time passes in steps, as it does for the engine.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.bmc.next_timeout(self.now).min(end);
            let handled = self.bmc.handle_timeout(self.now);
            self.take(handled);
        }
    }

    fn outside<T>(&mut self, change: impl FnOnce(&mut Bmc) -> T) -> T {
        let (value, handled) = self.bmc.outside(self.now, change);
        self.take(handled);
        value
    }

    fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const ATTENTION: Action = Action::Attention { set: true, interrupt: true };
const NO_ATTENTION: Action = Action::Attention { set: false, interrupt: false };

#[test]
fn device_id() {
    let mut host = Host::new();
    assert_eq!(
        host.ask(0x06, 0x01, &[]),
        Ok(vec![
            0x20, 0x81, 0x01, 0x02, 0x02,
            0xbf, // id, revision, firmware, IPMI 2.0, capabilities
            0xde, 0xb1, 0x0a, 0x01, 0x00, // manufacturer, product
            0, 0, 0, 0,
        ])
    );
}

#[test]
fn wrong_requests_have_their_codes() {
    let mut host = Host::new();
    assert_eq!(host.ask(0x06, 0xf0, &[]), Err(CompletionCode::INVALID_COMMAND));
    assert_eq!(host.ask(0x2c, 0x00, &[0]), Err(CompletionCode::INVALID_COMMAND));
    assert_eq!(host.ask(0x06, 0x01, &[1]), Err(CompletionCode::DATA_LENGTH_INVALID));
    assert_eq!(host.ask(0x04, 0x2d, &[0xee]), Err(CompletionCode::NOT_PRESENT));
    let mut request = Request::new(NetFn::APP, 0x01, []);
    request.lun = Lun::new(1).unwrap();
    assert_eq!(host.send(&request).unwrap().ccode, CompletionCode::INVALID_FOR_LUN);
    // Our own commands take any LUN, and it comes back.
    let mut request = Request::new(NetFn::OEM, oem::ECHO, [7]);
    request.lun = Lun::new(3).unwrap();
    let response = host.send(&request).unwrap();
    assert_eq!((response.lun.get(), response.data), (3, vec![7]));
}

#[test]
fn the_whole_repository_can_be_read() {
    let mut host = Host::new();
    let info = host.ask(0x0a, 0x20, &[]).unwrap();
    let count = u16::from_le_bytes([info[1], info[2]]);
    let mut id = [0, 0];
    let mut records = Vec::new();
    while id != [0xff, 0xff] {
        let answer = host.ask(0x0a, 0x23, &[0, 0, id[0], id[1], 0, 0xff]).unwrap();
        id = [answer[0], answer[1]];
        records.push(Record::decode(&answer[2..]).unwrap());
    }
    assert_eq!(records.len(), usize::from(count));
    let of = |wanted: fn(&Body) -> bool| records.iter().filter(|r| wanted(&r.body)).count();
    assert_eq!(of(|body| matches!(body, Body::Full(_))), 92);
    assert_eq!(of(|body| matches!(body, Body::Compact(_))), 10);
    assert_eq!(of(|body| matches!(body, Body::McLocator(_))), 2);
    assert_eq!(of(|body| matches!(body, Body::FruLocator(_))), 1);
}

#[test]
fn readings_follow_from_record_and_thresholds() {
    let mut host = Host::new();
    assert_eq!(host.ask(0x04, 0x27, &[2]), Ok(vec![0x3f, 5, 0, 0xfb, 85, 95, 105]));
    let reading = host.ask(0x04, 0x2d, &[2]).unwrap();
    assert_eq!(&reading[1..], [0xc0, 0xc0]);
    host.outside(|bmc| bmc.force_sensor(ms(10_000), 2, Some(96)));
    assert_eq!(host.ask(0x04, 0x2d, &[2]), Ok(vec![96, 0xc0, 0xd8]));
    assert_eq!(host.bmc.sel().len(), 2);
    assert_eq!(host.ask(0x04, 0x26, &[2, 0x18, 0, 0, 0, 100, 101, 0]), Ok(vec![]));
    host.wait(ms(1000));
    assert_eq!(host.ask(0x04, 0x2d, &[2]), Ok(vec![96, 0xc0, 0xc0]));
    assert_eq!(host.bmc.sel().len(), 4);
    assert_eq!(host.ask(0x04, 0x27, &[1]), Err(CompletionCode::ILLEGAL_FOR_SENSOR));
}

#[test]
fn events_are_logged_announced_and_none_is_lost() {
    let mut host = Host::new();
    assert_eq!(host.ask(0x06, 0x2e, &[0x0f]), Ok(vec![]));
    assert_eq!(host.take_actions(), [Action::Interrupts(true)]);
    let now = host.now;
    let made = host.outside(|bmc| bmc.make_events(now, None, MAX_EVENTS as u32));
    assert_eq!(made, (10_000, 1));
    assert_eq!(host.take_actions(), [ATTENTION]);
    assert_eq!(host.ask(0x06, 0x31, &[]), Ok(vec![0x02]));
    for count in 1..=10_000u16 {
        let event = host.ask(0x06, 0x35, &[]).unwrap();
        assert_eq!(event.len(), sel::LEN);
        assert_eq!(u16::from_le_bytes([event[14], event[15]]), count);
    }
    assert_eq!(host.take_actions(), [NO_ATTENTION]);
    assert_eq!(host.ask(0x06, 0x35, &[]), Err(EMPTY));
    assert_eq!(host.bmc.messaging().dropped(), 0);
    // The log is smaller, and says so.
    let info = host.ask(0x0a, 0x40, &[]).unwrap();
    assert_eq!(u16::from_le_bytes([info[1], info[2]]), 1000);
    assert_eq!(info[13] & 0x80, 0x80);
    let now = host.now;
    host.outside(|bmc| bmc.make_events(now, Some(2), MAX_EVENTS as u32 + 1));
    assert_eq!(host.bmc.messaging().dropped(), 1);
}

#[test]
fn events_wait_only_when_the_buffer_is_on() {
    let mut host = Host::new();
    let now = host.now;
    host.outside(|bmc| bmc.make_events(now, Some(2), 1));
    assert_eq!(host.take_actions(), []);
    assert_eq!(host.ask(0x06, 0x35, &[]), Err(EMPTY));
    assert_eq!(host.bmc.sel().len(), 1);
    // Buffer on, interrupt and logging off.
    host.ask(0x06, 0x2e, &[0x04]).unwrap();
    host.outside(|bmc| bmc.make_events(now, Some(2), 1));
    assert_eq!(host.take_actions(), [Action::Attention { set: true, interrupt: false }]);
    assert_eq!(host.bmc.sel().len(), 1);
    // The interrupt is raised for what waits when it is switched on.
    host.ask(0x06, 0x2e, &[0x06]).unwrap();
    assert_eq!(host.take_actions(), [Action::Interrupts(true), ATTENTION]);
    host.ask(0x06, 0x30, &[0x02]).unwrap();
    assert_eq!(host.take_actions(), [NO_ATTENTION]);
}

#[test]
fn platform_events_of_software_are_kept_as_sent() {
    let mut host = Host::new();
    host.ask(0x06, 0x2e, &[0x0f]).unwrap();
    assert_eq!(host.ask(0x04, 0x02, &[0x41, 4, 1, 0x30, 0x01, 0x59, 0, 0]), Ok(vec![]));
    let event = host.ask(0x06, 0x35, &[]).unwrap();
    assert_eq!(event[..3], [1, 0, 0x02]);
    assert_eq!(event[7..], [0x41, 0x00, 4, 1, 0x30, 0x01, 0x59, 0, 0]);
    let entry = host.ask(0x0a, 0x43, &[0, 0, 0, 0, 0, 0xff]).unwrap();
    assert_eq!(entry[..2], [0xff, 0xff]);
    assert_eq!(entry[2..], event);
}

#[test]
fn log_reservations_end_on_delete_and_clear() {
    let mut host = Host::new();
    let now = host.now;
    host.outside(|bmc| bmc.make_events(now, None, 3));
    let c5 = Err(CompletionCode::RESERVATION_CANCELLED);
    let reserve =
        |host: &mut Host| <[u8; 2]>::try_from(host.ask(0x0a, 0x42, &[]).unwrap()).unwrap();
    let [a0, a1] = reserve(&mut host);
    let [b0, b1] = reserve(&mut host);
    assert_eq!(host.ask(0x0a, 0x46, &[a0, a1, 2, 0]), c5);
    assert_eq!(host.ask(0x0a, 0x43, &[a0, a1, 1, 0, 3, 4]), c5);
    assert!(host.ask(0x0a, 0x43, &[b0, b1, 1, 0, 3, 4]).is_ok());
    // Adding does not end it, deleting does.
    host.outside(|bmc| bmc.make_events(now, None, 1));
    assert_eq!(host.ask(0x0a, 0x46, &[b0, b1, 2, 0]), Ok(vec![2, 0]));
    assert_eq!(host.ask(0x0a, 0x46, &[b0, b1, 3, 0]), c5);
    assert_eq!(host.ask(0x0a, 0x43, &[0, 0, 1, 0, 0, 0xff]).unwrap()[..2], [3, 0]);
    let [c0, c1] = reserve(&mut host);
    assert_eq!(host.ask(0x0a, 0x47, &[c0, c1, b'C', b'L', b'R', 0xaa]), Ok(vec![1]));
    assert_eq!(host.ask(0x0a, 0x47, &[c0, c1, b'C', b'L', b'R', 0xaa]), c5);
    assert_eq!(host.ask(0x0a, 0x47, &[c0, c1, b'C', b'L', b'R', 0x00]), Ok(vec![1]));
    assert_eq!(host.ask(0x0a, 0x43, &[0, 0, 0, 0, 0, 0xff]), Err(CompletionCode::NOT_PRESENT));
    let record = [0, 0, 0xe0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13];
    assert_eq!(host.ask(0x0a, 0x44, &record), Ok(vec![5, 0]));
    assert_eq!(host.ask(0x0a, 0x43, &[0, 0, 5, 0, 0, 0xff]).unwrap()[4..], record[2..]);
}

/// SMS/OS timer, messaging interrupt one second before the end, hard reset, two seconds.
const TIMER: [u8; 6] = [0x04, 0x31, 1, 0x10, 20, 0];

#[test]
fn the_watchdog_warns_and_expires() {
    let mut host = Host::new();
    host.ask(0x06, 0x2e, &[0x0f]).unwrap();
    assert_eq!(host.ask(0x06, 0x22, &[]), Err(EMPTY));
    assert_eq!(host.ask(0x06, 0x24, &TIMER), Ok(vec![]));
    host.wait(ms(5000));
    assert_eq!(host.ask(0x06, 0x25, &[]), Ok(vec![0x04, 0x31, 1, 0, 20, 0, 20, 0]));
    host.ask(0x06, 0x22, &[]).unwrap();
    host.wait(ms(500));
    assert_eq!(host.ask(0x06, 0x25, &[]), Ok(vec![0x44, 0x31, 1, 0, 20, 0, 15, 0]));
    host.ask(0x06, 0x22, &[]).unwrap();
    host.take_actions();
    host.wait(ms(1000));
    assert_eq!(host.ask(0x06, 0x31, &[]), Ok(vec![0x0a]));
    assert_eq!(host.take_actions(), [ATTENTION]);
    host.wait(ms(999));
    assert_eq!(host.ask(0x06, 0x25, &[]).unwrap()[0], 0x44);
    host.wait(ms(1));
    assert_eq!(host.ask(0x06, 0x25, &[]), Ok(vec![0x04, 0x31, 1, 0x10, 20, 0, 0, 0]));
    let events: Vec<_> = (0..2).map(|_| host.ask(0x06, 0x35, &[]).unwrap()).collect();
    assert_eq!(events[0][10..], [0x23, 1, 0x6f, 0xc8, 0x34, 0xff]);
    assert_eq!(events[1][10..], [0x23, 1, 0x6f, 0xc1, 0x34, 0xff]);
    assert_eq!(host.bmc.chassis().ignored(), [(Power::Reset, Cause::Watchdog)]);
    host.ask(0x06, 0x30, &[0x08]).unwrap();
    assert_eq!(host.take_actions(), [NO_ATTENTION]);
    // The expiration flags are cleared by writing ones.
    host.ask(0x06, 0x24, &TIMER).unwrap();
    assert_eq!(host.ask(0x06, 0x25, &[]).unwrap()[3], 0);
}

#[test]
fn the_watchdog_switches_the_host_only_when_told_to() {
    let mut host = Host::with(Config { honour_power: true, ..Config::default() });
    host.ask(0x06, 0x24, &[0x84, 0x02, 0, 0, 1, 0]).unwrap();
    host.ask(0x06, 0x22, &[]).unwrap();
    host.wait(ms(100));
    assert_eq!(host.take_actions(), [Action::Power(Power::Off)]);
    // "Don't log" was set.
    assert_eq!(host.bmc.sel().len(), 0);
    assert_eq!(host.ask(0x00, 0x01, &[]).unwrap()[0], 0);
    assert_eq!(host.ask(0x00, 0x07, &[]), Ok(vec![0x04, 0x0f]));
}

#[test]
fn setting_a_running_watchdog_stops_it_unless_asked_not_to() {
    let mut host = Host::new();
    host.ask(0x06, 0x24, &TIMER).unwrap();
    host.ask(0x06, 0x22, &[]).unwrap();
    let mut keep = TIMER;
    keep[0] |= 0x40;
    host.ask(0x06, 0x24, &keep).unwrap();
    assert_eq!(host.ask(0x06, 0x25, &[]).unwrap()[0], 0x44);
    host.ask(0x06, 0x24, &TIMER).unwrap();
    assert_eq!(host.ask(0x06, 0x25, &[]).unwrap()[0], 0x04);
    host.wait(ms(10_000));
    assert_eq!(host.bmc.sel().len(), 0);
    let early = [0x04, 0x31, 3, 0, 20, 0];
    assert_eq!(host.ask(0x06, 0x24, &early), Err(CompletionCode::INVALID_DATA_FIELD));
}

#[test]
fn power_commands_are_recorded_not_carried_out() {
    let mut host = Host::new();
    assert_eq!(host.ask(0x00, 0x02, &[0]), Ok(vec![]));
    assert_eq!(host.take_actions(), []);
    assert_eq!(host.bmc.chassis().ignored(), [(Power::Off, Cause::Command)]);
    assert_eq!(host.ask(0x00, 0x01, &[]).unwrap()[0] & 1, 1);
    assert_eq!(host.ask(0x00, 0x02, &[9]), Err(CompletionCode::INVALID_DATA_FIELD));
}

fn bridged(host: &mut Host, control: u8, message: &Ipmb) -> Answer {
    let mut data = vec![control];
    data.extend(ipmb::encode(message));
    host.ask(0x06, 0x34, &data)
}

fn to_satellite(cmd: u8, netfn: NetFn, data: &[u8]) -> Ipmb {
    Ipmb {
        to: SATELLITE_ADDRESS,
        to_lun: Lun::BMC,
        netfn,
        from: BMC_ADDRESS,
        from_lun: Lun::SMS,
        seq: 0x2a,
        cmd,
        data: data.to_vec(),
    }
}

/// Get Message, with the address of the BMC put back in place of the channel.
fn received(host: &mut Host) -> Ipmb {
    let mut bytes = host.ask(0x06, 0x33, &[]).unwrap();
    assert_eq!(bytes[0], 0);
    bytes[0] = BMC_ADDRESS;
    ipmb::decode(&bytes).unwrap()
}

#[test]
fn a_bridged_request_is_answered_through_the_receive_queue() {
    let mut host = Host::new();
    host.ask(0x06, 0x2e, &[0x01]).unwrap();
    host.take_actions();
    let request = to_satellite(0x01, NetFn::APP, &[]);
    assert_eq!(bridged(&mut host, 0x00, &request), Ok(vec![]));
    assert_eq!(host.ask(0x06, 0x33, &[]), Err(EMPTY));
    host.wait(ms(10));
    assert_eq!(host.take_actions(), [ATTENTION]);
    assert_eq!(host.ask(0x06, 0x31, &[]), Ok(vec![0x01]));
    let response = received(&mut host);
    assert_eq!((response.netfn.get(), response.cmd, response.seq), (0x07, 0x01, 0x2a));
    assert_eq!((response.to_lun, response.from), (Lun::SMS, SATELLITE_ADDRESS));
    assert_eq!(response.data[..2], [0x00, 0x21]);
    assert_eq!(host.take_actions(), [NO_ATTENTION]);
}

#[test]
fn the_requesters_lun_and_tracking_decide_where_the_answer_goes() {
    let mut host = Host::new();
    let mut request = to_satellite(0x01, NetFn::APP, &[]);
    request.from_lun = Lun::BMC;
    bridged(&mut host, 0x00, &request).unwrap();
    host.wait(ms(10));
    assert_eq!(host.ask(0x06, 0x33, &[]), Err(EMPTY));
    bridged(&mut host, 0x40, &request).unwrap();
    host.wait(ms(10));
    assert_eq!(received(&mut host).seq, 0x2a);
    assert_eq!(bridged(&mut host, 0xc0, &request), Err(CompletionCode::INVALID_DATA_FIELD));
}

#[test]
fn the_second_controller_has_its_own_sensors_and_errors() {
    let mut host = Host::new();
    let ask = |host: &mut Host, request: &Ipmb| {
        bridged(host, 0x00, request).unwrap();
        host.wait(ms(10));
        received(host).data
    };
    let reading = ask(&mut host, &to_satellite(0x2d, NetFn::SENSOR_EVENT, &[1]));
    assert_eq!((reading[0], reading.len()), (0, 4));
    assert_eq!(ask(&mut host, &to_satellite(0x2d, NetFn::SENSOR_EVENT, &[9])), [0xcb]);
    assert_eq!(ask(&mut host, &to_satellite(0x2d, NetFn::SENSOR_EVENT, &[])), [0xc7]);
    assert_eq!(ask(&mut host, &to_satellite(0x77, NetFn::APP, &[])), [0xc1]);
    let mut other_lun = to_satellite(0x01, NetFn::APP, &[]);
    other_lun.to_lun = Lun::new(1).unwrap();
    assert_eq!(ask(&mut host, &other_lun), [0xc2]);
    let mut nobody = to_satellite(0x01, NetFn::APP, &[]);
    nobody.to = 0x84;
    assert_eq!(bridged(&mut host, 0x00, &nobody), Err(CompletionCode(0x83)));
    let mut broken = vec![0];
    broken.extend(ipmb::encode(&to_satellite(0x01, NetFn::APP, &[])));
    broken[3] ^= 1;
    assert_eq!(host.ask(0x06, 0x34, &broken), Err(CompletionCode::INVALID_DATA_FIELD));
    let mut broadcast = vec![0, 0];
    broadcast.extend(ipmb::encode(&to_satellite(0x01, NetFn::APP, &[])));
    assert_eq!(host.ask(0x06, 0x34, &broadcast), Ok(vec![]));
    host.wait(ms(10));
    assert_eq!(received(&mut host).data[1], 0x21);
}

#[test]
fn the_journal_tells_what_changed_at_the_second_controller() {
    let mut host = Host::new();
    let mut notes = |cmd, netfn, data: &[u8]| {
        let bytes = [&[0], &ipmb::encode(&to_satellite(cmd, netfn, data))[..]].concat();
        host.bmc.handle(host.now, &Request::new(NetFn::APP, 0x34, bytes)).notes
    };
    assert_eq!(notes(0x01, NetFn::APP, &[]), ["bridged 06/01"]);
    assert_eq!(notes(0x02, NetFn::APP, &[]), ["bridged 06/02", "satellite: Cold Reset"]);
    assert_eq!(notes(0x26, NetFn::SENSOR_EVENT, &[1]), ["bridged 04/26"]);
    let set = notes(0x26, NetFn::SENSOR_EVENT, &[1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(set[1], "satellite: Set Sensor Thresholds");
    let reserve = notes(0x22, NetFn::SENSOR_EVENT, &[]);
    assert!(reserve[1].ends_with("reservation"));
}

#[test]
fn system_software_is_asked_and_its_answer_is_kept() {
    let mut host = Host::new();
    let now = host.now;
    let request = Request::new(NetFn::OEM, 0x05, [1, 2]);
    let seq = host.outside(|bmc| bmc.incoming(now, &request));
    let asked = received(&mut host);
    assert_eq!((asked.netfn, asked.cmd, asked.seq), (NetFn::OEM, 0x05, seq));
    assert_eq!((asked.to_lun, asked.data.as_slice()), (Lun::SMS, &[1, 2][..]));
    let answer = asked.respond(vec![0x00, 9]);
    assert_eq!(bridged(&mut host, 0x00, &answer), Ok(vec![]));
    let seen: Vec<_> = host.bmc.messaging().responses().collect();
    assert_eq!((seen.len(), &seen[0].message), (1, &answer));
}

#[test]
fn a_reset_keeps_silent_and_forgets() {
    let mut host = Host::new();
    host.ask(0x06, 0x2e, &[0x0f]).unwrap();
    host.ask(0x06, 0x24, &TIMER).unwrap();
    host.ask(0x06, 0x22, &[]).unwrap();
    let now = host.now;
    host.outside(|bmc| bmc.make_events(now, None, 3));
    let reservation = host.ask(0x0a, 0x22, &[]).unwrap();
    host.take_actions();
    assert_eq!(host.ask(0x06, 0x02, &[]), Ok(vec![]));
    assert_eq!(host.take_actions(), [Action::Interrupts(false), NO_ATTENTION]);
    assert_eq!(host.send(&Request::new(NetFn::APP, 0x01, [])), None);
    host.wait(ms(1999));
    assert_eq!(host.send(&Request::new(NetFn::APP, 0x01, [])), None);
    host.wait(ms(1));
    assert!(host.ask(0x06, 0x01, &[]).is_ok());
    let get = [reservation[0], reservation[1], 1, 0, 5, 4];
    assert_eq!(host.ask(0x0a, 0x23, &get), Err(CompletionCode::RESERVATION_CANCELLED));
    assert_eq!(host.ask(0x06, 0x31, &[]), Ok(vec![0]));
    assert_eq!(host.ask(0x06, 0x2f, &[]), Ok(vec![0x08]));
    assert_eq!(host.ask(0x06, 0x25, &[]).unwrap()[0], 0);
    // The log survives.
    assert_eq!(host.bmc.sel().len(), 3);
}

#[test]
fn inventory_is_read_and_written() {
    let mut host = Host::new();
    assert_eq!(host.ask(0x0a, 0x10, &[0]), Ok(vec![0, 8, 0]));
    assert_eq!(host.ask(0x0a, 0x10, &[1]), Err(CompletionCode::NOT_PRESENT));
    let mut bytes = Vec::new();
    for offset in (0u16..2048).step_by(128) {
        let [low, high] = offset.to_le_bytes();
        let answer = host.ask(0x0a, 0x11, &[0, low, high, 128]).unwrap();
        assert_eq!(answer[0], 128);
        bytes.extend_from_slice(&answer[1..]);
    }
    let inventory = ipmi::fru::Inventory::decode(&bytes).unwrap();
    assert_eq!(inventory.product.unwrap().product, "Midplane bmc-sim");
    assert_eq!(host.ask(0x0a, 0x12, &[0, 0, 7, 1, 2, 3]), Ok(vec![3]));
    assert_eq!(host.ask(0x0a, 0x11, &[0, 0, 7, 4]), Ok(vec![4, 1, 2, 3, 0]));
    assert_eq!(host.ask(0x0a, 0x11, &[0, 0xfe, 7, 9]), Ok(vec![2, 0, 0]));
    assert_eq!(host.ask(0x0a, 0x11, &[0, 0, 8, 1]), Err(CompletionCode::OUT_OF_RANGE));
    assert_eq!(host.ask(0x0a, 0x12, &[0, 0xff, 7, 1, 2]), Err(CompletionCode::OUT_OF_RANGE));
}

#[test]
fn the_clock_can_be_set() {
    let mut host = Host::new();
    host.ask(0x0a, 0x49, &1000u32.to_le_bytes()).unwrap();
    host.wait(ms(5000));
    assert_eq!(host.ask(0x0a, 0x48, &[]), Ok(1005u32.to_le_bytes().to_vec()));
    assert_eq!(host.ask(0x0a, 0x28, &[]), Ok(1005u32.to_le_bytes().to_vec()));
}

#[test]
fn changes_are_noted_and_reads_are_not() {
    let mut host = Host::new();
    for (netfn, cmd, data) in [(0x06, 0x01, &[][..]), (0x0a, 0x20, &[]), (0x04, 0x2d, &[2])] {
        host.ask(netfn, cmd, data).unwrap();
    }
    assert_eq!(host.notes, [""; 0]);
    host.ask(0x0a, 0x22, &[]).unwrap();
    host.ask(0x00, 0x06, &[1]).unwrap();
    assert_eq!(host.notes, ["SDR reservation 0x0001", "Set Power Restore Policy"]);
    host.ask(0x0c, 0x01, &[1, 5]).unwrap_err();
    assert_eq!(host.notes.len(), 2);
}

#[test]
fn our_own_commands() {
    let mut host = Host::new();
    let long = vec![0x5a; MAX_MESSAGE_LEN];
    assert_eq!(host.ask(oem::NETFN, oem::ECHO, &long), Ok(long.clone()));
    let request = Request::new(NetFn::OEM, oem::SLEEP, [0x2c, 0x01, 7]);
    let handled = host.bmc.handle(host.now, &request);
    assert_eq!(handled.delay, ms(300));
    assert_eq!(handled.response.unwrap().data, [7]);
    assert_eq!(host.ask(oem::NETFN, oem::COUNTER, &[9]), Ok(vec![1, 0, 0, 0, 0, 0, 0, 0, 9]));
    assert_eq!(host.ask(oem::NETFN, oem::COUNTER, &long).unwrap().len(), MAX_MESSAGE_LEN);
}

#[test]
fn configuration_parameters_are_behind_their_commands() {
    let mut host = Host::new();
    assert_eq!(host.ask(0x0c, 0x02, &[1, 3, 0, 0]), Ok(vec![0x11, 192, 0, 2, 10]));
    assert_eq!(host.ask(0x0c, 0x02, &[0x81, 3, 0, 0]), Ok(vec![0x11]));
    assert_eq!(host.ask(0x0c, 0x02, &[2, 3, 0, 0]), Err(CompletionCode::INVALID_DATA_FIELD));
    assert_eq!(host.ask(0x0c, 0x01, &[1, 0, 1]), Ok(vec![]));
    assert_eq!(host.ask(0x0c, 0x01, &[1, 0, 1]), Err(CompletionCode(0x81)));
    assert_eq!(host.ask(0x00, 0x08, &[5, 0x80, 4, 0, 0, 0]), Ok(vec![]));
    assert_eq!(host.ask(0x00, 0x09, &[5, 0, 0]), Ok(vec![1, 5, 0x80, 4, 0, 0, 0]));
    assert_eq!(host.ask(0x00, 0x08, &[0x85]), Ok(vec![]));
    assert_eq!(host.ask(0x00, 0x09, &[5, 0, 0]).unwrap()[1], 0x85);
    assert_eq!(host.ask(0x00, 0x08, &[0x70]), Err(CompletionCode(0x80)));
}

#[test]
fn passwords_are_tested() {
    let mut host = Host::new();
    let with = |op, byte| {
        let mut data = vec![2, op];
        data.resize(18, byte);
        data
    };
    assert_eq!(host.ask(0x06, 0x47, &with(3, 1)), Err(CompletionCode(0x81)));
    assert_eq!(host.ask(0x06, 0x47, &with(2, 1)), Ok(vec![]));
    assert_eq!(host.ask(0x06, 0x47, &with(3, 1)), Ok(vec![]));
    assert_eq!(host.ask(0x06, 0x47, &with(3, 2)), Err(CompletionCode(0x80)));
    assert_eq!(host.ask(0x06, 0x47, &[2, 2, 1]), Err(CompletionCode::DATA_LENGTH_INVALID));
    assert_eq!(host.ask(0x06, 0x46, &[11]), Err(CompletionCode::OUT_OF_RANGE));
    assert_eq!(host.ask(0x06, 0x46, &[0]), Err(CompletionCode::OUT_OF_RANGE));
}

fn any_request() -> impl Strategy<Value = Request> {
    let known = (0..table::ROWS.len()).prop_map(|at| (table::ROWS[at].netfn, table::ROWS[at].cmd));
    let unknown = (0u8..32, any::<u8>()).prop_map(|(netfn, cmd)| (netfn * 2, cmd));
    let data = prop_oneof![
        4 => proptest::collection::vec(any::<u8>(), 0..10),
        1 => proptest::collection::vec(any::<u8>(), 0..=MAX_MESSAGE_LEN),
    ];
    (prop_oneof![9 => known, 1 => unknown], data)
        .prop_map(|((netfn, cmd), data)| Request::new(NetFn::new(netfn).unwrap(), cmd, data))
}

proptest! {
    /// Whatever a host sends, in any order and at any time, there is a response that fits.
    #[test]
    fn any_requests_are_survived(
        requests in proptest::collection::vec((any_request(), 0u64..3000), 1..60)
    ) {
        let mut host = Host::with(Config { sensors: 12, reset_time: ms(500), ..Config::default() });
        for (request, pause) in requests {
            host.wait(ms(pause));
            if let Some(response) = host.send(&request) {
                prop_assert!(response.data.len() <= MAX_MESSAGE_LEN);
                prop_assert_eq!(response.command(), request.command());
            }
        }
    }
}
