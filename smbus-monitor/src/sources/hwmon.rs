// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sensors that a driver of the kernel reads: Documentation/hwmon/sysfs-interface.rst. A chip is known by the path of its
//! device, which is its place in the machine; `hwmonN` is another one after each boot.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::kept::Kept;
use super::{Source, ms};
use crate::core::{Batch, Now};
use crate::metric::{Exported, Limits, Meta, Reading, Unit};

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

/// What a kind of file holds.
struct Kind {
    begins: &'static str,
    ends: &'static str,
    unit: Unit,
    scale: f64,
    exported: &'static str,
}

const KINDS: [Kind; 8] = [
    Kind {
        begins: "temp",
        ends: "_input",
        unit: Unit::Celsius,
        scale: 1e-3,
        exported: "node_hwmon_temp_celsius",
    },
    Kind {
        begins: "in",
        ends: "_input",
        unit: Unit::Volts,
        scale: 1e-3,
        exported: "node_hwmon_in_volts",
    },
    Kind {
        begins: "fan",
        ends: "_input",
        unit: Unit::Rpm,
        scale: 1.0,
        exported: "node_hwmon_fan_rpm",
    },
    Kind {
        begins: "curr",
        ends: "_input",
        unit: Unit::Amperes,
        scale: 1e-3,
        exported: "node_hwmon_curr_amps",
    },
    Kind {
        begins: "power",
        ends: "_input",
        unit: Unit::Watts,
        scale: 1e-6,
        exported: "node_hwmon_power_watt",
    },
    Kind {
        begins: "power",
        ends: "_average",
        unit: Unit::Watts,
        scale: 1e-6,
        exported: "node_hwmon_power_average_watt",
    },
    Kind {
        begins: "energy",
        ends: "_input",
        unit: Unit::Joules,
        scale: 1e-6,
        exported: "node_hwmon_energy_joule_total",
    },
    Kind {
        begins: "intrusion",
        ends: "_alarm",
        unit: Unit::Alarm,
        scale: 1.0,
        exported: "node_hwmon_intrusion_alarm",
    },
];

/// The sensor that a file is of: `temp1` of `temp1_input`.
fn sensor(file: &str) -> Option<(&str, &'static Kind)> {
    KINDS.iter().find_map(|kind| {
        let sensor = file.strip_suffix(kind.ends)?;
        let number = sensor.strip_prefix(kind.begins)?;
        let is = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        is.then_some((sensor, kind))
    })
}

#[derive(Debug)]
struct Sensor {
    file: Kept,
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
        files.sort();
        let mut old: BTreeMap<PathBuf, Sensor> = std::mem::take(&mut self.sensors)
            .into_iter()
            .map(|sensor| (sensor.file.path().to_owned(), sensor))
            .collect();
        for file in files {
            let Some((name, kind)) = sensor(&file) else { continue };
            if self.sensors.len() == MAX_SENSORS {
                break;
            }
            let path = self.chip.folder.join(&file);
            let turned = old.get(&path).is_some_and(|sensor| sensor.turned);
            let meta = Arc::new(self.meta(name, kind, turned));
            let sensor = match old.remove(&path) {
                Some(sensor) if sensor.meta == meta => sensor,
                Some(sensor) => Sensor { meta, ..sensor },
                None => Sensor { file: Kept::new(&path), meta, scale: kind.scale, turned },
            };
            self.sensors.push(sensor);
        }
    }

    fn meta(&self, sensor: &str, kind: &Kind, turned: bool) -> Meta {
        let read = |what: &str| {
            let path = self.chip.folder.join(format!("{sensor}_{what}"));
            fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
        };
        let label = read("label").unwrap_or_default();
        let label = if label.is_empty() { format!("{} {sensor}", self.chip.name) } else { label };
        let number = |what: &str| Some(read(what)?.parse::<f64>().ok()? * kind.scale);
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
        let id = format!("{}/{sensor}", self.name);
        Meta::new(&id, &label, kind.unit, ms(self.interval))
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
        let readings = self.sensors.iter_mut().map(|sensor| match sensor.file.number() {
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
mod tests {
    use super::*;

    const NOW: Now = Now { mono: 0, wall: 0 };

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("devices/i2c-1/1-0048");
        let hwmon = root.path().join("hwmon/hwmon7");
        fs::create_dir_all(&device).unwrap();
        fs::create_dir_all(&hwmon).unwrap();
        std::os::unix::fs::symlink(device, hwmon.join("device")).unwrap();
        for (name, text) in files {
            fs::write(hwmon.join(name), text).unwrap();
        }
        root
    }

    fn source(root: &tempfile::TempDir) -> HwmonSource {
        let chips = scan(&root.path().join("hwmon"));
        assert_eq!(chips.len(), 1);
        HwmonSource::new(chips[0].clone(), Duration::from_secs(1))
    }

    #[test]
    fn a_chip_is_known_by_its_place() {
        let root = folder(&[
            ("name", "lm75\n"),
            ("temp1_input", "25000\n"),
            ("temp1_max", "80000\n"),
            ("temp1_max_hyst", "75000\n"),
        ]);
        let mut source = source(&root);
        assert_eq!((source.chip.bus, source.chip.thread().as_str()), (Some(1), "i2c-1"));
        let batch = source.read(NOW);
        let meta = &batch.readings[0].meta;
        assert_eq!(
            (meta.id.as_str(), meta.label.as_str()),
            ("hwmon/1-0048/lm75/temp1", "lm75 temp1")
        );
        assert_eq!((meta.limits.high_warning, meta.limits.hysteresis), (Some(80.0), Some(5.0)));
        assert_eq!(batch.readings[0].value, Ok(25.0));
        let labels: Vec<_> = meta.exported.labels.iter().map(|label| label.1.as_str()).collect();
        assert_eq!(labels, ["i2c_1_1_0048", "temp1"]);
    }

    #[test]
    fn a_fan_that_has_turned_is_to_go_on() {
        let root = folder(&[
            ("name", "lm85"),
            ("fan1_input", "2942\n"),
            ("fan2_input", "0\n"),
            ("fan10_label", "x"),
            ("fan_input", "1"),
            ("in1_input", "garbage"),
        ]);
        let mut source = source(&root);
        let _ = source.read(NOW);
        let batch = source.read(NOW);
        let of = |id: &str| batch.readings.iter().find(|r| r.meta.id.ends_with(id)).unwrap();
        assert_eq!(of("fan1").meta.limits.low_critical, Some(1.0));
        assert_eq!(of("fan2").meta.limits.low_critical, None);
        assert!(of("in1").value.is_err());
        assert_eq!(batch.readings.len(), 3);
        fs::remove_dir_all(root.path().join("hwmon")).unwrap();
        assert_eq!(scan(&root.path().join("hwmon")), []);
        assert_eq!(source.read(NOW).readings[0].meta.limits.low_critical, Some(1.0));
    }
}
