// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn readings_move_but_agree_for_the_same_seed() {
    let (a, b) = (Bank::bmc(100, 7), Bank::bmc(100, 7));
    let readings = |bank: &Bank, at| -> Vec<u8> {
        bank.sensors().iter().map(|s| s.reading(seconds(at), bank.seed())).collect()
    };
    assert_eq!(readings(&a, 30), readings(&b, 30));
    assert_ne!(readings(&a, 30), readings(&a, 60));
    assert_ne!(readings(&a, 30), readings(&Bank::bmc(100, 8), 30));
}

#[test]
fn normal_readings_send_no_events() {
    let mut bank = Bank::bmc(100, 3);
    // Longer than the slowest sensor's period.
    for second in 0..300 {
        assert_eq!(bank.evaluate(seconds(second)), []);
    }
}

#[test]
fn a_threshold_sends_an_event_each_way_with_hysteresis() {
    let mut bank = Bank::bmc(10, 1);
    bank.evaluate(seconds(0));
    let sensor = bank.get_mut(2).unwrap();
    sensor.thresholds[3] = 60;
    sensor.hysteresis = [0, 5];
    bank.force(2, Some(61));
    let events = bank.evaluate(seconds(1));
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].sensor, events[0].deassertion), (2, false));
    assert_eq!(events[0].data, [0x57, 61, 60]);
    bank.force(2, Some(57));
    assert_eq!(bank.evaluate(seconds(2)), []);
    bank.force(2, Some(54));
    let events = bank.evaluate(seconds(3));
    assert_eq!(events.len(), 1);
    assert!(events[0].deassertion);
}

#[test]
fn disabled_events_are_not_sent() {
    let mut bank = Bank::bmc(10, 1);
    bank.evaluate(seconds(0));
    bank.get_mut(2).unwrap().enables.events = false;
    bank.force(2, Some(0x7f));
    assert_eq!(bank.evaluate(seconds(1)), []);
    bank.force(2, None);
    bank.evaluate(seconds(2));
    let sensor = bank.get_mut(2).unwrap();
    sensor.enables.events = true;
    sensor.enables.assertions = 1 << 9;
    bank.force(2, Some(0x7f));
    let events = bank.evaluate(seconds(3));
    assert_eq!(events.iter().map(|e| e.data[0] & 0x0f).collect::<Vec<_>>(), [9]);
}

#[test]
fn discrete_states_send_events() {
    let mut bank = Bank::bmc(20, 1);
    bank.evaluate(seconds(0));
    bank.force(11, Some(0x0002));
    let events = bank.evaluate(seconds(1));
    let seen: Vec<_> = events.iter().map(|e| (e.data[0], e.deassertion)).collect();
    assert_eq!(seen, [(0, true), (1, false)]);
}

#[test]
fn names_are_unique_and_fit() {
    let bank = Bank::bmc(250, 1);
    let mut names: Vec<_> = bank.sensors().iter().map(State::name).collect();
    assert!(names.iter().all(|name| name.len() <= ipmi::sdr::MAX_NAME));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 250);
}
