// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sensors of a BMC. BMCs are slow and some take a minute for a walk, so this has a thread of its own, what describes the
//! sensors is read once and again when the BMC says that it changed, and a walk that takes long makes the next one later.

mod client;
mod states;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipmi::sdr::{Body, FullSensor, Record, Sensor as Common, SensorKey};

pub use client::{Client, IpmiError, Whom};

use super::{Source, ms};
use crate::core::{Batch, Now};
use crate::metric::{Exported, Limits, MAX_ID, Meta, Reading, Unit, cut};
use states::{State, metas, shared};

/// Where a BMC is looked for: the first node of ipmi-mux, then the kernel's.
pub const NODES: [&str; 2] = ["/dev/ipmi/1", "/dev/ipmi0"];
/// Most sensors of a BMC, and metrics of all of them.
const MAX_SENSORS: usize = 1_000;
/// Most records of its repository, so that one which links in a circle ends.
const MAX_RECORDS: usize = 4_000;
/// Bytes of a record that are read at a time; more do not fit into a message on the IPMB.
const PART: u8 = 16;
/// The reservation was cancelled by another user, or by a change.
const CANCELLED: u8 = 0xc5;
const RETRIES: usize = 8;
/// After so many answers that did not come, the rest of a walk is left out.
const MAX_LATE: usize = 2;
/// A walk may take this part of its interval; else the interval is longer.
const SHARE: u32 = 2;
/// Longest interval.
const MAX_INTERVAL: Duration = Duration::from_secs(120);

struct Sensor {
    whom: Whom,
    number: u8,
    what: What,
}

/// What a sensor tells.
enum What {
    Value(Box<FullSensor>, Arc<Meta>),
    States(Vec<(State, Arc<Meta>)>),
}

impl Sensor {
    fn metas(&mut self) -> Vec<&mut Arc<Meta>> {
        match &mut self.what {
            What::Value(_, meta) => vec![meta],
            What::States(all) => all.iter_mut().map(|(_, meta)| meta).collect(),
        }
    }

    fn failed(&mut self, error: &IpmiError) -> Vec<Reading> {
        self.metas().into_iter().map(|meta| Reading::failed(meta, error)).collect()
    }
}

/// See the module.
pub struct IpmiSource {
    path: Option<PathBuf>,
    wanted: Duration,
    interval: Duration,
    client: Option<Client>,
    sensors: Vec<Sensor>,
    /// When the repository was changed, by the BMC's clock.
    stamp: Option<[u8; 8]>,
    told: bool,
}

impl IpmiSource {
    /// By a node, or by the first of [`NODES`] that is there.
    #[must_use]
    pub fn new(path: Option<PathBuf>, interval: Duration) -> Self {
        Self {
            path,
            wanted: interval,
            interval,
            client: None,
            sensors: vec![],
            stamp: None,
            told: false,
        }
    }

    fn walk(&mut self) -> Result<Vec<Reading>, IpmiError> {
        if self.client.is_none() {
            let path = node(self.path.as_deref());
            self.client = Some(Client::open(&path)?);
        }
        let client = self.client.as_mut().expect("it was opened above");
        let stamp = repository(client)?;
        if self.stamp != Some(stamp) {
            self.sensors = sensors(client, ms(self.interval))?;
            self.stamp = Some(stamp);
        }
        let (mut readings, mut late) = (vec![], 0);
        for sensor in &mut self.sensors {
            if late >= MAX_LATE {
                readings.extend(sensor.failed(&IpmiError::Late));
                continue;
            }
            match read(client, sensor) {
                Ok(told) => readings.extend(told),
                Err(error) => {
                    late += usize::from(matches!(error, IpmiError::Late));
                    readings.extend(sensor.failed(&error));
                }
            }
        }
        if late >= MAX_LATE {
            self.client = None;
        }
        Ok(readings)
    }
}

/// The node to use.
#[must_use]
pub fn node(path: Option<&Path>) -> PathBuf {
    let there = || NODES.iter().map(Path::new).find(|path| path.exists());
    path.or_else(there).unwrap_or(Path::new(NODES[1])).to_owned()
}

/// When the repository was last added to and erased (33.9).
fn repository(client: &mut Client) -> Result<[u8; 8], IpmiError> {
    let info = client.ask(Whom::BMC, 0x0a, 0x20, &[])?;
    let stamp = info.get(5..13).and_then(|stamp| stamp.try_into().ok());
    stamp.ok_or(IpmiError::Short)
}

fn reserve(client: &mut Client) -> Result<[u8; 2], IpmiError> {
    let id = client.ask(Whom::BMC, 0x0a, 0x22, &[])?;
    id.get(..2).and_then(|id| id.try_into().ok()).ok_or(IpmiError::Short)
}

/// One record, and the id of the next (33.12).
fn record(
    client: &mut Client,
    reservation: &mut [u8; 2],
    id: [u8; 2],
) -> Result<([u8; 2], Vec<u8>), IpmiError> {
    let (mut bytes, mut next, mut retries) = (Vec::new(), id, 0);
    let mut wanted = 5_usize;
    while bytes.len() < wanted {
        let count = (wanted - bytes.len()).min(PART.into()) as u8;
        let [r0, r1] = *reservation;
        let request = [r0, r1, id[0], id[1], bytes.len() as u8, count];
        match client.ask(Whom::BMC, 0x0a, 0x23, &request) {
            Ok(answer) => {
                let Some((head, part)) = answer.split_at_checked(2) else {
                    return Err(IpmiError::Short);
                };
                if part.is_empty() {
                    return Err(IpmiError::Short);
                }
                next = [head[0], head[1]];
                bytes.extend_from_slice(part);
                if bytes.len() >= 5 {
                    wanted = 5 + usize::from(bytes[4]);
                }
            }
            Err(IpmiError::Code(CANCELLED)) if retries < RETRIES => {
                retries += 1;
                *reservation = reserve(client)?;
                bytes.clear();
                wanted = 5;
            }
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(wanted);
    Ok((next, bytes))
}

fn sensors(client: &mut Client, interval_ms: u32) -> Result<Vec<Sensor>, IpmiError> {
    let mut reservation = reserve(client)?;
    let mut id = [0, 0];
    let mut found = Found { names: BTreeSet::new(), sensors: vec![], count: 0, interval_ms };
    for _ in 0..MAX_RECORDS {
        let (next, bytes) = record(client, &mut reservation, id)?;
        match Record::decode(&bytes).map(|record| record.body) {
            Ok(Body::Full(full)) if full.value(0).is_some() => found.value(client, full),
            Ok(Body::Full(full)) => found.states(&full.sensor, full.sensor.key.number, &full.name),
            Ok(Body::Compact(compact)) => {
                for (number, name) in shared(&compact) {
                    found.states(&compact.sensor, number, &name);
                }
            }
            _ => {}
        }
        if next == [0xff, 0xff] || next == id {
            break;
        }
        id = next;
    }
    Ok(found.sensors)
}

/// The sensors of a BMC, as its records are gone through.
struct Found {
    names: BTreeSet<String>,
    sensors: Vec<Sensor>,
    /// Metrics of them all.
    count: usize,
    interval_ms: u32,
}

impl Found {
    fn take(&mut self, key: SensorKey, number: u8, what: What) {
        let count = match &what {
            What::Value(..) => 1,
            What::States(all) => all.len(),
        };
        if count > 0 && self.count + count <= MAX_SENSORS {
            self.count += count;
            self.sensors.push(Sensor { whom: whom(key), number, what });
        }
    }

    /// The id and the name of a sensor.
    fn named(&mut self, key: SensorKey, number: u8, name: &str) -> (String, String) {
        let name = if name.is_empty() { format!("sensor {number}") } else { name.to_owned() };
        let place = name.replace('/', "_");
        let mut id = cut(&format!("ipmi/{place}"), MAX_ID);
        if !self.names.insert(id.clone()) {
            id = cut(&format!("ipmi/{place} {:02x}.{number:02x}", key.owner), MAX_ID);
            self.names.insert(id.clone());
        }
        (id, name)
    }

    fn value(&mut self, client: &mut Client, record: FullSensor) {
        let key = record.sensor.key;
        let (id, name) = self.named(key, key.number, &record.name);
        let unit = unit(&record);
        let number = key.number.to_string();
        let kind = format!("{:02x}", record.sensor.sensor_type);
        let labels = [("id", number.as_str()), ("name", name.as_str())];
        let exported = match unit {
            Unit::Celsius => Exported::gauge("ipmi_temperature_celsius", &labels),
            Unit::Rpm => Exported::gauge("ipmi_fan_speed_rpm", &labels),
            Unit::Volts => Exported::gauge("ipmi_voltage_volts", &labels),
            Unit::Amperes => Exported::gauge("ipmi_current_amperes", &labels),
            Unit::Watts => Exported::gauge("ipmi_power_watts", &labels),
            _ => Exported::gauge("ipmi_sensor_value", &[labels[0], labels[1], ("type", &kind)]),
        };
        let limits = limits(client, whom(key), &record);
        let meta = Meta::new(&id, &name, unit, self.interval_ms).limits(limits).exported(exported);
        self.take(key, key.number, What::Value(Box::new(record), Arc::new(meta)));
    }

    fn states(&mut self, sensor: &Common, number: u8, name: &str) {
        let (id, name) = self.named(sensor.key, number, name);
        let all = metas(sensor, number, (&id, &name), self.interval_ms);
        self.take(sensor.key, number, What::States(all));
    }
}

fn whom(key: SensorKey) -> Whom {
    Whom { owner: key.owner, channel: key.lun >> 4, lun: key.lun & 0x03 }
}

/// Table 43-15, as far as sensors of machines have them.
fn unit(record: &FullSensor) -> Unit {
    let sensor = &record.sensor;
    match sensor.base_unit {
        _ if sensor.units & 1 == 1 => Unit::Percent,
        1 => Unit::Celsius,
        4 => Unit::Volts,
        5 => Unit::Amperes,
        6 => Unit::Watts,
        7 => Unit::Joules,
        18 => Unit::Rpm,
        21 => Unit::Seconds,
        _ => Unit::Number,
    }
}

/// The thresholds that can be read (35.9): non-critical is a warning.
fn limits(client: &mut Client, whom: Whom, record: &FullSensor) -> Limits {
    let Ok(answer) = client.ask(whom, 0x04, 0x27, &[record.sensor.key.number]) else {
        return Limits::default();
    };
    let [mask, lnc, lc, _, unc, uc, ..] = answer[..] else { return Limits::default() };
    let at = |bit: u8, raw: u8| (mask >> bit & 1 == 1).then(|| record.value(raw)).flatten();
    // A difference of raw values, which an offset does not change.
    let step = |raw: u8| Some((record.value(raw)? - record.value(0)?).abs());
    let hysteresis =
        step(record.hysteresis_down).filter(|_| !matches!(record.hysteresis_down, 0 | 0xff));
    Limits {
        high_critical: at(4, uc),
        high_warning: at(3, unc),
        low_warning: at(0, lnc),
        low_critical: at(1, lc),
        hysteresis,
    }
}

/// Get Sensor Reading (35.14). What is not read at present, such as the fan of a module that is not there, is no metric.
fn read(client: &mut Client, sensor: &Sensor) -> Result<Vec<Reading>, IpmiError> {
    let answer = match client.ask(sensor.whom, 0x04, 0x2d, &[sensor.number]) {
        // Not present, or not in this state: a module that was pulled.
        Err(IpmiError::Code(0xcb | 0xd5)) => return Ok(vec![]),
        answer => answer?,
    };
    let [raw, flags, states @ ..] = &answer[..] else { return Err(IpmiError::Short) };
    // Bit 5: unavailable; bit 6: scanning is on.
    if flags & 0x20 != 0 || flags & 0x40 == 0 {
        return Ok(vec![]);
    }
    Ok(match &sensor.what {
        What::Value(record, meta) => {
            record.value(*raw).map(|value| Reading::new(meta, value)).into_iter().collect()
        }
        What::States(all) => {
            let holds = |state: State| f64::from(u8::from(state.holds(states)));
            all.iter().map(|(state, meta)| Reading::new(meta, holds(*state))).collect()
        }
    })
}

impl Source for IpmiSource {
    fn name(&self) -> &str {
        "ipmi"
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn read(&mut self, _: Now) -> Batch {
        let begun = Instant::now();
        let readings = match self.walk() {
            Ok(readings) => {
                self.told = false;
                readings
            }
            Err(error) => {
                (self.client, self.stamp) = (None, None);
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(%error, "the BMC's sensors are not read");
                }
                self.sensors.iter_mut().flat_map(|sensor| sensor.failed(&error)).collect()
            }
        };
        // The first walk reads the records as well; what follows is what counts.
        let interval = (begun.elapsed() * SHARE).clamp(self.wanted, MAX_INTERVAL.max(self.wanted));
        if interval > self.interval * 2 || interval < self.interval / 2 {
            tracing::info!(
                seconds = interval.as_secs(),
                "the BMC's sensors are read in this interval"
            );
            self.interval = interval;
            for meta in self.sensors.iter_mut().flat_map(Sensor::metas) {
                let good_for_ms = Meta::new("", "", meta.unit, ms(interval)).good_for_ms;
                *meta = Arc::new(Meta { good_for_ms, ..Meta::clone(meta) });
            }
        }
        Batch { source: "ipmi".to_owned(), readings, complete: false }
    }
}
