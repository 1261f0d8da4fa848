// SPDX-License-Identifier: MIT OR Apache-2.0
//! Streams of the VM serial protocol and one of each record.

use fuzz_targets::vm_protocol;
use ipmi::sdr::{
    Analog, Body, CompactSensor, Factors, FruLocator, FullSensor, McLocator, Record, Sensor,
    SensorKey, Thresholds,
};
use ipmi::vm::{Capabilities, Control, MAX_FRAME_LEN, VmRequest, VmResponse};
use ipmi::{CompletionCode, Lun, NetFn, Request, fru, ipmb, sel};

use crate::seed;

pub fn write() {
    let seed = |name: &str, wanted: &str, bytes: &[u8]| {
        seed(vm_protocol, "vm_protocol", name, wanted, bytes);
    };
    let stream = |pieces: &[&[u8]]| [&[0, 4], &pieces.concat()[..]].concat();
    let request = Request::new(NetFn::APP, 0x01, []);
    let answer = request.respond(CompletionCode::OK, [0x20, 1, 2, 0xa0, 0xa1, 0xaa, 0xb0]);
    let get = VmRequest { seq: 1, request }.encode().expect("short");
    let got = VmResponse { seq: 0xa0, response: answer }.encode().expect("short");
    let greeting = [
        Control::Version(1).encode(),
        Control::Capabilities(Capabilities(0x3f)).encode(),
        Control::AttentionInterrupt.encode(),
        Control::Reset.encode(),
        Control::Unknown(0xaa).encode(),
    ]
    .concat();
    seed("greeting", "control", &stream(&[&greeting]));
    seed("request", "request", &stream(&[&greeting, &get]));
    seed("response", "response", &stream(&[&got, &get]));
    seed("bad-checksum", "checksum", &stream(&[&[1, 0x18, 1, 0xe7, 0xa0], &get]));
    seed("too-short", "too short", &stream(&[&[0xa0, 0xa1, 0xff, 0xa1], &get]));
    seed(
        "in-escape",
        "ends in escape",
        &stream(&[&[1, 0x18, 0xaa, 0xa0], &[0x11, 0x18, 1, 0xd6, 0xa0]]),
    );
    seed("too-long", "too long", &stream(&[&[0x55; MAX_FRAME_LEN + 1], &[0xa0], &get]));
    seed("no-end", "request", &stream(&[&get, &[0x55; 4 * MAX_FRAME_LEN]]));
    // A response of three bytes lacks its completion code.
    seed("no-code", "refused", &stream(&[&[1, 0x1c, 1, 0xe2, 0xa0]]));
    seed("built", "built", &[1, 9, 0xb2, 1, 0, 0xa0, 0xa1, 0xaa, 0x10]);
    seed("built-too-large", "too large to build", &[1; 300]);

    let bridged = ipmb::Ipmb {
        to: 0x82,
        to_lun: Lun::BMC,
        netfn: NetFn::APP,
        from: 0x20,
        from_lun: Lun::SMS,
        seq: 5,
        cmd: 0x01,
        data: vec![1, 2, 3],
    };
    seed("ipmb", "ipmb", &[&[2], &ipmb::encode(&bridged)[..]].concat());
    record_seeds(&seed);
}

fn record_seeds(seed: &impl Fn(&str, &str, &[u8])) {
    let sdr = |body| {
        let bytes = Record { id: 7, body }.encode().expect("short names");
        [&[3], &bytes[..]].concat()
    };
    let sensor = Sensor {
        key: SensorKey { owner: 0x20, lun: 0, number: 0x30 },
        entity: 3,
        instance: 1,
        initialization: 0x7f,
        capabilities: 0x68,
        sensor_type: 0x01,
        event_type: 0x01,
        masks: [0x7a95, 0x7a95, 0x3f3f],
        format: Analog::TwosComplement,
        units: 0,
        base_unit: 1,
        modifier_unit: 0,
    };
    let full = FullSensor {
        sensor: sensor.clone(),
        factors: Factors::linear(5, -64, 1, -2),
        analog_flags: 0x07,
        nominal: 35,
        normal_max: 60,
        normal_min: 10,
        sensor_max: 0x7f,
        sensor_min: 0x80,
        thresholds: Thresholds { upper_critical: 90, ..Thresholds::default() },
        hysteresis_up: 2,
        hysteresis_down: 3,
        name: "CPU1 Temp".into(),
    };
    seed("sdr-full", "full sensor", &sdr(Body::Full(full)));
    let compact = CompactSensor {
        sensor,
        sharing: [1, 0],
        hysteresis_up: 1,
        hysteresis_down: 2,
        name: "Watchdog".into(),
    };
    seed("sdr-compact", "compact sensor", &sdr(Body::Compact(compact)));
    let locator = FruLocator {
        owner: 0x20,
        device: 0,
        access: 0x80,
        channel: 0,
        device_type: 0x10,
        modifier: 0,
        entity: 7,
        instance: 1,
        name: "FRU".into(),
    };
    seed("sdr-fru", "FRU locator", &sdr(Body::FruLocator(locator)));
    let locator = McLocator {
        address: 0x20,
        channel: 0,
        notification: 0,
        capabilities: 0xbf,
        entity: 6,
        instance: 1,
        name: "BMC".into(),
    };
    seed("sdr-mc", "MC locator", &sdr(Body::McLocator(locator.clone())));
    let mut cut = sdr(Body::McLocator(locator));
    cut.pop();
    seed("sdr-cut", "", &cut);
    seed("sdr-oem", "other record", &sdr(Body::Other { kind: 0xc0, bytes: vec![1, 2, 3] }));

    let watchdog = [2, 1, 2, 0, 0x21, 0x43, 0x65, 0x20, 0, 4, 0x23, 1, 0x6f, 0xc1, 4, 0xff];
    assert_eq!(watchdog.len(), sel::LEN);
    let sel = |kind| {
        let mut entry = watchdog;
        entry[2] = kind;
        [&[4], &entry[..]].concat()
    };
    seed("sel-system", "system event", &sel(sel::SYSTEM_EVENT));
    seed("sel-oem-time", "OEM event with time", &sel(sel::OEM_TIMESTAMPED));
    seed("sel-oem", "OEM event", &sel(sel::OEM_PLAIN));

    let inventory = fru::Inventory {
        chassis: Some(fru::Chassis { kind: 0x1c, part: "CH-1".into(), ..Default::default() }),
        board: Some(fru::Board {
            made: 0x0012_3456,
            manufacturer: "Maker".into(),
            custom: vec!["more".into()],
            ..Default::default()
        }),
        product: Some(fru::Product { product: "Thing".into(), ..Default::default() }),
    };
    let mut bytes = inventory.encode().expect("short fields");
    // Text in the other packings: binary, BCD plus, 6-bit ASCII.
    let at = bytes.windows(5).position(|field| field == b"\xc4more").expect("a custom field");
    bytes[at] = 0x84;
    seed("fru", "product", &[&[5], &bytes[..]].concat());
    bytes[at] = 0x44;
    seed("fru-bcd", "board", &[&[5], &bytes[..]].concat());
    bytes[at] = 0x04;
    seed("fru-binary", "chassis", &[&[5], &bytes[..]].concat());
    // A field that would end beyond its area.
    bytes[at] = 0xff;
    seed("fru-cut", "", &[&[5], &bytes[..]].concat());
}
