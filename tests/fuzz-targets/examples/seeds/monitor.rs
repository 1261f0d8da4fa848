// SPDX-License-Identifier: MIT OR Apache-2.0
//! What smbus-monitor reads.

use fuzz_targets::monitor as target;
use ipmi::fru::{Chassis, Inventory, Product};
use ipmi::sdr::{
    Analog, Body, Factors, FullSensor, McLocator, Record, Sensor, SensorKey, Thresholds,
};
use smbus_monitor::core::Now;
use smbus_monitor::core::alerts::{Alerts, Wanted};
use smbus_monitor::core::rules::{Edge, Severity};
use smbus_monitor::formats::records::{Identity, Metas, Values, encode, hash};
use smbus_monitor::metric::{Meta, Unit};

use crate::seed;

fn write_one(what: u8, name: &str, wanted: &str, rest: &[u8]) {
    seed(target, "monitor", name, wanted, &[&[what], rest].concat());
}

fn full(format: Analog) -> Record {
    let sensor = Sensor {
        key: SensorKey { owner: 0x20, lun: 0, number: 1 },
        entity: 3,
        instance: 1,
        initialization: 0x7f,
        capabilities: 0x68,
        sensor_type: 1,
        event_type: 1,
        masks: [0; 3],
        format,
        units: 0,
        base_unit: 1,
        modifier_unit: 0,
    };
    let full = FullSensor {
        sensor,
        factors: Factors::linear(1, 0, 0, 0),
        analog_flags: 0,
        nominal: 0,
        normal_max: 0,
        normal_min: 0,
        sensor_max: 255,
        sensor_min: 0,
        thresholds: Thresholds::default(),
        hysteresis_up: 0,
        hysteresis_down: 0,
        name: "CPU".to_owned(),
    };
    Record { id: 1, body: Body::Full(full) }
}

fn records(all: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![];
    for (key, value) in all {
        out.push(u8::try_from(key.len()).expect("a short key"));
        out.extend(u16::try_from(value.len()).expect("a short value").to_le_bytes());
        out.extend(key.as_bytes());
        out.extend(value);
    }
    out
}

pub fn write() {
    write_one(0, "volts", "voltage", &[0, 0x18, 0x17, 1, 0, 0, 0, 2]);
    write_one(0, "vid", "no voltage", &[0, 0x18, 0x20, 1, 0, 0, 0, 2]);
    write_one(0, "too-high", "impossible voltage", &[255, 255, 0x0f, 1, 0, 0, 0, 2]);
    let board = [&[2, 15, 0, 2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 10, 0][..], b"Slot 7\0\0"].concat();
    write_one(1, "location", "location", &board);
    let chassis = Chassis { kind: 0x1c, serial: "C".into(), ..Chassis::default() };
    let inventory = Inventory { chassis: Some(chassis), board: None, product: None };
    write_one(1, "inventory", "inventory", &inventory.encode().expect("it is short"));
    let product = Product { product: "Blade".into(), ..Product::default() };
    let inventory = Inventory { product: Some(product), ..inventory };
    write_one(1, "product", "product", &inventory.encode().expect("it is short"));
    let bytes = |record: Record| [vec![50], record.encode().expect("it is short")].concat();
    write_one(2, "reading", "reading", &bytes(full(Analog::Unsigned)));
    write_one(2, "no-reading", "no reading", &bytes(full(Analog::None)));
    let locator = McLocator {
        address: 0x20,
        channel: 0,
        notification: 0,
        capabilities: 0,
        entity: 0,
        instance: 0,
        name: "MC".into(),
    };
    write_one(
        2,
        "locator",
        "other record",
        &bytes(Record { id: 2, body: Body::McLocator(locator) }),
    );
    write_one(2, "no-record", "no record", &[1, 2, 3]);
    for (name, wanted, text) in [
        ("stat", "processor", "cpu  10 1 20 300 4 5 6 7\ncpu0 1 2 3 4 5 6 7 8\nbtime 5\n"),
        ("meminfo", "memory", "MemTotal: 2048 kB\n"),
        ("loadavg", "load", "0.1 0.2 0.3 1/2 3\n"),
        ("diskstats", "disk", "254 0 vda 1 2 3 4 5 6 7 8 9 10 11\n"),
        ("net", "interface", " eth0: 1 2 3 4 5 6 7 8 9 10 11 12\n"),
        ("mounts", "mount", "/dev/vda /a\\040b ext4 rw 0 0\n"),
    ] {
        write_one(3, name, wanted, text.as_bytes());
    }
    let identity = Identity { slot: "3".into(), serial: "S".into(), ..Identity::default() };
    write_one(4, "identity", "identity", &records(&[("identity", encode(&identity))]));
    let acted = vec![("0a".to_owned(), Severity::Warning)];
    write_one(4, "acted", "acted", &records(&[("acted", encode(&acted))]));
    let mut alerts = Alerts::new("b");
    let key = ("1".to_owned(), "t".to_owned(), Edge::High);
    let wanted = Wanted::plain(Severity::Warning, "hot".to_owned());
    let _ = alerts.set(Now { mono: 1, wall: 1 }, key, Some(wanted));
    let all: Vec<_> = alerts.iter().cloned().collect();
    write_one(4, "alerts", "alerts", &records(&[("alerts/0", encode(&all))]));
    let metas =
        encode(&Metas { midplane: false, metas: vec![Meta::new("x/a", "", Unit::Volts, 1000)] });
    let of = hash(&metas);
    let values = Values { of, values: vec![Some(1.0)], totals: vec![], errors: vec![] };
    write_one(
        4,
        "values",
        "values",
        &records(&[("metas/x/0", metas), ("values/x/0", encode(&values))]),
    );
    let json = r#"{"seq":1,"at_ms":2,"kind":"program","place":"1","metric":"","severity":null,"text":"x","alert":null}"#;
    let line = format!("{:08x} {json}", crc32fast::hash(json.as_bytes()));
    write_one(5, "event", "event", line.as_bytes());
    write_one(5, "no-event", "no event", &line.as_bytes()[..40]);
    let rule = r#"{"name":"hot","metric":"*","place":"*","limits":{"high_warning":1.0},"samples":1,"trend_ms":0}"#;
    write_one(6, "rule", "rule", format!("thresholds/hot\0{rule}").as_bytes());
    write_one(6, "slot", "slot", b"slots/3\0{\"name\":\"db\",\"module\":\"\"}");
    write_one(6, "not-set", "not set", b"x\0{}");
    write_one(7, "empty.toml", "configuration", b"");
    let chip = "[[smbus]]\nname = 'a'\nbus = 1\naddress = 72\nchip = 'lm75'\n";
    write_one(7, "chip.toml", "chips", chip.as_bytes());
    write_one(7, "refused.toml", "refused", b"sensors = 1");
    write_one(7, "latin1.toml", "not text", &[0xff]);
}
