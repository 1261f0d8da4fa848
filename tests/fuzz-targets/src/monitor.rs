// SPDX-License-Identifier: MIT OR Apache-2.0
//! What smbus-monitor decodes: numbers of PMBus, inventories and tables of firmware, records of sensors, files of proc, what
//! members tell one another, lines of its log, and its configuration.

use std::path::Path;
use std::sync::Arc;

use ipmi::sdr::{Body, Record};
use smbus_monitor::config::{Config, MAX_DEVICES};
use smbus_monitor::core::alerts::Alert;
use smbus_monitor::formats::{pmbus, proc, records, smbios};
use smbus_monitor::metric::{MAX_ID, MAX_LABEL, Meta, Reading, Unit};
use smbus_monitor::shell::kept;
use smbus_monitor::shell::log;
use smbus_monitor::shell::publish::Follower;

use crate::Reached;
use crate::config::{FILE, check_error};

/// The first byte says what the rest is.
///
/// # Panics
/// Where a decoder keeps something that it must not, or reads what was written otherwise than it was meant.
pub fn monitor(data: &[u8]) -> Reached {
    let Some((what, rest)) = data.split_first() else { return Reached::new() };
    match what % 8 {
        0 => numbers(rest),
        1 => table(rest),
        2 => sensor(rest),
        3 => files(rest),
        4 => told(rest),
        5 => line(rest),
        6 => set(rest),
        _ => configuration(rest),
    }
}

fn numbers(data: &[u8]) -> Reached {
    let [a, b, mode, c, d, e, f, g, ..] = *data else { return Reached::from(["short"]) };
    let word = u16::from_le_bytes([a, b]);
    assert!(pmbus::linear11(word).is_finite());
    let direct =
        pmbus::Direct { m: i16::from_le_bytes([c, d]), b: i16::from_le_bytes([e, f]), r: g as i8 };
    let volts = pmbus::vout(word, pmbus::vout_mode(mode), Some(direct));
    let meta = Arc::new(Meta::new("smbus/x/vout", "", Unit::Volts, 1000));
    match volts.map(|volts| Reading::new(&meta, volts).value) {
        None => Reached::from(["no voltage"]),
        Some(Err(_)) => Reached::from(["impossible voltage"]),
        Some(Ok(value)) => {
            assert!(value.is_finite() && value.abs() <= 1000.0);
            Reached::from(["voltage"])
        }
    }
}

fn table(data: &[u8]) -> Reached {
    let mut reached = Reached::new();
    if let Some(location) = smbios::location_in_chassis(data) {
        assert!(!location.is_empty());
        reached.insert("location");
    }
    if let Ok(found) = ipmi::fru::Inventory::decode(data) {
        reached.insert(if found.product.is_some() { "product" } else { "inventory" });
    }
    reached
}

fn sensor(data: &[u8]) -> Reached {
    let Some((raw, data)) = data.split_first() else { return Reached::from(["short"]) };
    match Record::decode(data) {
        Ok(Record { body: Body::Full(full), .. }) => {
            let value = full.value(*raw);
            assert!(value.is_none_or(f64::is_finite));
            Reached::from([if value.is_some() { "reading" } else { "no reading" }])
        }
        Ok(_) => Reached::from(["other record"]),
        Err(_) => Reached::from(["no record"]),
    }
}

fn files(data: &[u8]) -> Reached {
    let text = String::from_utf8_lossy(data);
    let mut reached = Reached::new();
    let stat = proc::stat(&text);
    assert!(stat.each.len() <= text.lines().count());
    let _ = stat.all.total();
    let found = [
        ("processor", stat.all.total() > 0),
        ("memory", proc::meminfo(&text).total > 0),
        ("load", proc::numbers::<3>(&text).is_some()),
        ("disk", proc::diskstats(&text).next().is_some()),
        ("interface", proc::net_dev(&text).next().is_some()),
        ("mount", proc::mounts(&text).next().is_some()),
    ];
    reached.extend(found.into_iter().filter(|one| one.1).map(|one| one.0));
    reached
}

/// Records as they come: a key's length, a value's length, both.
fn told(mut data: &[u8]) -> Reached {
    let mut all: Vec<(String, u64, Arc<[u8]>)> = vec![];
    while let [key, low, high, rest @ ..] = data {
        let (key, value) = (usize::from(*key), usize::from(u16::from_le_bytes([*low, *high])));
        let Some((name, rest)) = rest.split_at_checked(key) else { break };
        let (value, rest) = rest.split_at(value.min(rest.len()));
        if let Some(one) = records::decode::<records::Values>(value) {
            assert_eq!(
                records::decode(&records::encode(&one)).map(|again: records::Values| again.of),
                Some(one.of)
            );
        }
        all.push((String::from_utf8_lossy(name).into_owned(), all.len() as u64, value.into()));
        data = rest;
    }
    all.sort();
    let news = Follower::default().follow(&all);
    let mut reached = Reached::new();
    reached.extend(news.identity.map(|_| "identity"));
    reached.extend(news.acted.map(|_| "acted"));
    reached.extend(news.alerts.filter(|alerts: &Vec<Alert>| !alerts.is_empty()).map(|_| "alerts"));
    for (_, batch) in news.batches {
        reached.insert("values");
        for reading in batch.readings {
            assert!(reading.value.is_err() || reading.value.is_ok_and(f64::is_finite));
        }
    }
    reached
}

fn line(data: &[u8]) -> Reached {
    Reached::from([if log::parse(data).is_some() { "event" } else { "no event" }])
}

fn set(data: &[u8]) -> Reached {
    let at = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (key, value) = (String::from_utf8_lossy(&data[..at]), data.get(at + 1..).unwrap_or(&[]));
    let good = kept::check(&key, value).is_ok();
    let kept = kept::read([(&*key, value)].into_iter());
    assert_eq!(good, kept.rules.len() + kept.slots.len() == 1, "what may be set is read");
    match (kept.rules.first(), good) {
        (Some(rule), _) => {
            assert_eq!(rule.check(), Ok(()));
            Reached::from(["rule"])
        }
        (None, true) => Reached::from(["slot"]),
        (None, false) => Reached::from(["not set"]),
    }
}

fn configuration(data: &[u8]) -> Reached {
    let Ok(text) = std::str::from_utf8(data) else { return Reached::from(["not text"]) };
    match Config::parse(text, Path::new(FILE)) {
        Ok(config) => {
            assert!(config.devices.len() <= MAX_DEVICES);
            for device in &config.devices {
                assert!((0x08..=0x77).contains(&device.address));
                assert!(device.name.len() <= MAX_ID && device.name.len() <= MAX_LABEL);
            }
            assert!(config.rules.iter().all(|rule| rule.check().is_ok()));
            Reached::from([if config.devices.is_empty() { "configuration" } else { "chips" }])
        }
        Err(error) => {
            check_error(text, &error.to_string());
            Reached::from(["refused"])
        }
    }
}
