// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sensors that a driver of the kernel reads: Documentation/hwmon/sysfs-interface.rst. A chip is known by the path of its
//! device, which is its place in the machine; `hwmonN` is another one after each boot.

mod names;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::kept::Kept;
use super::{Source, ms};
use crate::core::rules::Severity;
use crate::core::{Batch, Now};
use crate::metric::{Exported, Limits, Meta, Reading, Unit};
use names::{Alarm, Kind, alarm, sensor};

/// Most chips, and sensors of one chip.
pub const MAX_CHIPS: usize = 256;
const MAX_SENSORS: usize = 256;

/// A chip, as it was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chip {
    /// Its folder, `/sys/class/hwmon/hwmonN`.
    pub folder: PathBuf,
    /// Its place, such as `1-0048` or `coretemp.0`.
    pub place: String,
    /// What its driver calls it.
    pub name: String,
    /// The I2C bus it is on, if it is on one.
    pub bus: Option<u32>,
    /// As node_exporter calls it.
    exported: String,
}

impl Chip {
    /// The thread that reads it.
    #[must_use]
    pub fn thread(&self) -> String {
        self.bus.map_or_else(|| "hwmon".to_owned(), |bus| format!("i2c-{bus}"))
    }

    /// Its name among the sources.
    #[must_use]
    pub fn source_name(&self) -> String {
        format!("hwmon/{}/{}", self.place, self.name)
    }
}

/// Which chips there are. No chip is spoken to.
#[must_use]
pub fn scan(root: &Path) -> Vec<Chip> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut chips: Vec<Chip> = entries.filter_map(|entry| chip(&entry.path())).collect();
    chips.sort_by(|a, b| (&a.place, &a.name, &a.folder).cmp(&(&b.place, &b.name, &b.folder)));
    // A device may have several: they are told apart by their drivers' names, or not at all.
    chips.dedup_by(|a, b| (&a.place, &a.name) == (&b.place, &b.name));
    chips.truncate(MAX_CHIPS);
    chips
}

fn chip(folder: &Path) -> Option<Chip> {
    let name = fs::read_to_string(folder.join("name")).ok()?.trim().to_owned();
    let device = fs::canonicalize(folder.join("device")).ok();
    let last = |path: &Path| Some(path.file_name()?.to_string_lossy().into_owned());
    let place = device.as_deref().and_then(last);
    let parent = device.as_deref().and_then(Path::parent).and_then(last);
    let bus = parent.as_deref().and_then(|parent| parent.strip_prefix("i2c-")?.parse().ok());
    let exported = match (&parent, &place) {
        (Some(parent), Some(place)) => format!("{}_{}", cleaned(parent), cleaned(place)),
        _ => cleaned(&name),
    };
    // What is on no device, such as a thermal zone, has its driver's name.
    let place = place.unwrap_or_else(|| name.clone());
    Some(Chip { folder: folder.to_owned(), place, name, bus, exported })
}

/// As node_exporter makes a label of a name (`cleanMetricName` in collector/hwmon_linux.go).
fn cleaned(name: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let text: String = name.chars().map(clean).collect();
    text.trim_matches('_').to_owned()
}

#[derive(Debug)]
struct Sensor {
    file: Kept,
    /// Whether the chip knows it to be broken: an open wire, a diode that is not there.
    fault: Option<Kept>,
    meta: Arc<Meta>,
    scale: f64,
    /// A fan that has turned is to go on; a socket without a fan never turns.
    turned: bool,
}

/// A chip as a source. Its labels and limits are read with its first values, by the thread that reads those.
#[derive(Debug)]
pub struct HwmonSource {
    chip: Chip,
    name: String,
    interval: Duration,
    sensors: Vec<Sensor>,
    looked: Option<u64>,
}

/// Limits are looked at again after so long: another program may set them.
const LOOK_MS: u64 = 60_000;

impl HwmonSource {
    /// Of a chip that is read so often.
    #[must_use]
    pub fn new(chip: Chip, interval: Duration) -> Self {
        let name = chip.source_name();
        Self { chip, name, interval, sensors: vec![], looked: None }
    }

    fn look(&mut self) {
        let entries = fs::read_dir(&self.chip.folder).into_iter().flatten().flatten();
        let mut files: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        // An alarm is judged by the limits of its sensor, which is known then.
        files.sort_by_cached_key(|file| (alarm(file).is_some(), file.clone()));
        let mut old: BTreeMap<PathBuf, Sensor> = std::mem::take(&mut self.sensors)
            .into_iter()
            .map(|sensor| (sensor.file.path().to_owned(), sensor))
            .collect();
        for file in files {
            let path = self.chip.folder.join(&file);
            let turned = old.get(&path).is_some_and(|sensor| sensor.turned);
            let (meta, scale, fault) = if let Some((name, kind)) = sensor(&file) {
                let fault = self.chip.folder.join(format!("{name}_fault"));
                (self.meta(name, kind, turned), kind.scale, fault.exists().then_some(fault))
            } else if let Some(alarm) = alarm(&file) {
                (self.alarm(&alarm), 1.0, None)
            } else {
                continue;
            };
            if self.sensors.len() == MAX_SENSORS {
                break;
            }
            let meta = Arc::new(meta);
            let sensor = match old.remove(&path) {
                Some(sensor) if sensor.meta == meta => sensor,
                Some(sensor) => Sensor { meta, ..sensor },
                None => {
                    let fault = fault.as_deref().map(Kept::new);
                    Sensor { file: Kept::new(&path), fault, meta, scale, turned }
                }
            };
            self.sensors.push(sensor);
        }
    }

    /// What an attribute of a sensor says.
    fn attribute(&self, sensor: &str, what: &str) -> Option<String> {
        let path = self.chip.folder.join(format!("{sensor}_{what}"));
        fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
    }

    fn label(&self, sensor: &str) -> String {
        let label = self.attribute(sensor, "label").filter(|label| !label.is_empty());
        label.unwrap_or_else(|| format!("{} {sensor}", self.chip.name))
    }

    /// The alarm of a sensor with limits that nobody has set says nothing, and neither does that of a socket without a fan.
    fn alarm(&self, alarm: &Alarm<'_>) -> Meta {
        let input = self.sensor_id(alarm.sensor);
        let of = self.sensors.iter().find(|one| one.meta.id == input);
        let has = |what: &str| self.attribute(alarm.sensor, what).is_some();
        let meant = match of {
            Some(sensor) => !sensor.meta.limits.is_empty() || !(has("min") || has("max")),
            None => !has("input"),
        };
        let limit = meant.then_some(0.5);
        let limits = match alarm.severity {
            Severity::Critical => Limits { high_critical: limit, ..Limits::default() },
            Severity::Warning => Limits { high_warning: limit, ..Limits::default() },
        };
        let labels = [("chip", self.chip.exported.as_str()), ("sensor", alarm.sensor)];
        let exported = format!("node_hwmon_{}_{}", alarm.kind, alarm.what);
        let label = format!("{} {}", self.label(alarm.sensor), alarm.what.replace('_', " "));
        let id = format!("{input}_{}", alarm.what);
        Meta::new(&id, &label, Unit::Alarm, ms(self.interval))
            .limits(limits)
            .exported(Exported::gauge(&exported, &labels))
    }

    fn sensor_id(&self, sensor: &str) -> String {
        format!("{}/{sensor}", self.name)
    }

    fn meta(&self, sensor: &str, kind: &Kind, turned: bool) -> Meta {
        let label = self.label(sensor);
        let number =
            |what: &str| Some(self.attribute(sensor, what)?.parse::<f64>().ok()? * kind.scale);
        // A limit of a temperature of 127 degrees and more, or of 0 V and RPM, was never set.
        let limits = match kind.unit {
            Unit::Celsius => {
                let set = |limit: &f64| (-60.0..127.0).contains(limit);
                let high_warning = number("max").filter(set);
                let back = |limit: f64| number("max_hyst").map(|hyst| limit - hyst);
                Limits {
                    high_critical: number("crit").filter(set),
                    high_warning,
                    // A low limit of 0 degrees or less is what chips have from the start.
                    low_warning: number("min").filter(|limit| set(limit) && *limit > 0.0),
                    low_critical: number("lcrit").filter(|limit| set(limit) && *limit > 0.0),
                    hysteresis: high_warning.and_then(back).filter(|h| (0.0..50.0).contains(h)),
                }
            }
            Unit::Volts | Unit::Amperes | Unit::Watts => Limits {
                high_critical: number("crit").filter(|limit| *limit > 0.0),
                high_warning: number("max").filter(|limit| *limit > 0.0),
                low_warning: number("min").filter(|limit| *limit > 0.0),
                low_critical: number("lcrit").filter(|limit| *limit > 0.0),
                hysteresis: None,
            },
            Unit::Rpm => {
                let least = number("min").filter(|least| *least > 0.0).or(turned.then_some(1.0));
                Limits { low_critical: least, ..Limits::default() }
            }
            Unit::Alarm => Limits { high_critical: Some(0.5), ..Limits::default() },
            _ => Limits::default(),
        };
        let labels = [("chip", self.chip.exported.as_str()), ("sensor", sensor)];
        Meta::new(&self.sensor_id(sensor), &label, kind.unit, ms(self.interval))
            .limits(limits)
            .exported(Exported::gauge(kind.exported, &labels))
    }
}

impl Source for HwmonSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn read(&mut self, now: Now) -> Batch {
        if self.looked.is_none_or(|then| now.mono >= then + LOOK_MS) {
            self.look();
            self.looked = Some(now.mono);
        }
        let broken = |fault: &mut Kept| fault.number().is_ok_and(|fault| fault != 0);
        let readings = self.sensors.iter_mut().map(|sensor| match sensor.file.number() {
            // What a broken sensor measures is no value, however likely it looks.
            Ok(_) if sensor.fault.as_mut().is_some_and(broken) => {
                Reading::failed(&sensor.meta, "its chip says that the sensor is broken")
            }
            Ok(number) => {
                if sensor.meta.unit == Unit::Rpm && number > 0 && !sensor.turned {
                    sensor.turned = true;
                    self.looked = None;
                }
                Reading::new(&sensor.meta, number as f64 * sensor.scale)
            }
            Err(error) => Reading::failed(&sensor.meta, error),
        });
        Batch { source: self.name.clone(), readings: readings.collect(), complete: false }
    }
}

#[cfg(test)]
mod tests;
