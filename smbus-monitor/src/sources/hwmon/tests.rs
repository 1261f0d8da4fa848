// SPDX-License-Identifier: MIT OR Apache-2.0

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
    assert_eq!((meta.id.as_str(), meta.label.as_str()), ("hwmon/1-0048/lm75/temp1", "lm75 temp1"));
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

#[test]
fn a_broken_sensor_has_no_value() {
    let root = folder(&[("name", "lm90"), ("temp2_input", "25000"), ("temp2_fault", "1\n")]);
    let mut source = source(&root);
    let why = source.read(NOW).readings[0].value.clone();
    assert_eq!(why, Err("its chip says that the sensor is broken".to_owned()));
    fs::write(root.path().join("hwmon/hwmon7/temp2_fault"), "0\n").unwrap();
    assert_eq!(source.read(NOW).readings[0].value, Ok(25.0));
}

#[test]
fn alarms_of_a_chip_count_where_its_limits_were_set() {
    let root = folder(&[
        ("name", "lm85"),
        ("fan1_alarm", "1\n"),
        ("fan1_input", "0\n"),
        ("fan1_min", "0\n"),
        ("in1_alarm", "1\n"),
        ("in1_input", "2250\n"),
        ("in1_max", "2200\n"),
        ("in2_alarm", "1\n"),
        ("in2_input", "2250\n"),
        ("in2_max", "0\n"),
        ("temp1_crit_alarm", "0\n"),
        ("temp1_input", "25000\n"),
        ("temp1_alarm_x", "1\n"),
        ("intrusion0_alarm", "1\n"),
    ]);
    let mut source = source(&root);
    let batch = source.read(NOW);
    let of = |id: &str| batch.readings.iter().find(|r| r.meta.id.ends_with(id)).unwrap();
    let limits = |id: &str| (of(id).meta.limits.high_warning, of(id).meta.limits.high_critical);
    assert_eq!(
        (of("/in1_alarm").value.clone(), limits("/in1_alarm")),
        (Ok(1.0), (Some(0.5), None))
    );
    assert_eq!(limits("/in2_alarm"), (None, None), "nobody has set its limits");
    assert_eq!(limits("/fan1_alarm"), (None, None), "there is no fan");
    assert_eq!(limits("/temp1_crit_alarm"), (None, Some(0.5)));
    assert_eq!(of("/temp1_crit_alarm").meta.label, "lm85 temp1 crit alarm");
    assert_eq!(of("/temp1_crit_alarm").meta.exported.name, "node_hwmon_temp_crit_alarm");
    assert_eq!(batch.readings.len(), 9);
}
