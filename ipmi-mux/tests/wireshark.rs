// SPDX-License-Identifier: MIT OR Apache-2.0
//! Wireshark understands a capture of `watch`: names, completion codes, and which answer belongs to which
//! request. Needs tshark; tests/check-capture installs it and runs this.

use std::process::Command;

use ipmi_mux::watch::pcap::Writer;
use ipmi_mux::watch::{Kind, Message, Origin, Record, Who};

const START: u64 = 1_700_000_000_000_000;

fn record(at_ms: u64, handle: u64, netfn: u8, cmd: u8, request: &[u8], answer: &[u8]) -> Record {
    Record {
        who: Some(Who {
            handle,
            node: format!("/dev/ipmi/{handle}"),
            uid: 0,
            pid: 100,
            process: Some("ipmitool".to_owned()),
        }),
        message: Some(Message {
            msgid: 1,
            channel: 15,
            target: None,
            lun: 0,
            netfn,
            cmd,
            request: Some(request.to_vec()),
            answer: Some(answer.to_vec()),
            blanked: false,
        }),
        took_us: Some(20_000),
        origin: Some(Origin::Bmc),
        ..Record::new(START + at_ms * 1000, Kind::Answer)
    }
}

fn bridged(mut record: Record) -> Record {
    let message = record.message.as_mut().expect("records here have one");
    (message.channel, message.target) = (0, Some(0x82));
    record
}

/// What tshark shows of each packet: these fields, with `|` between.
fn dissect(records: &[Record], fields: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a place for the capture");
    let path = dir.path().join("watch.pcapng");
    let file = std::fs::File::create(&path).expect("the capture can be made");
    let mut writer = Writer::new(file).expect("and begun");
    for record in records {
        writer.write(record).expect("and written");
    }
    let mut tshark = Command::new("tshark");
    tshark.args(["-o", "ipmi.dissect_bus_commands:TRUE", "-T", "fields", "-E", "separator=|"]);
    tshark.arg("-r").arg(&path);
    for field in fields {
        tshark.args(["-e", field]);
    }
    let done = tshark.output().expect("tshark is installed");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("tshark writes text").lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "needs tshark; run by tests/check-capture"]
fn names_codes_and_pairs_are_shown() {
    let device_id = [0, 0x20, 1, 1, 2, 2, 0xbf, 0x57, 1, 0, 0x34, 0x12];
    let mut event =
        record(60, 1, 7, 0x35, &[], &[0, 0, 2, 0, 0, 0, 0, 0x20, 0, 4, 1, 3, 1, 0x59, 0, 0]);
    event.kind = Kind::Event;
    event.message.as_mut().unwrap().request = None;
    let mut refused = record(70, 2, 6, 1, &[], &[]);
    refused.kind = Kind::Refused;
    refused.errno = Some("EBUSY".to_owned());
    let records = [
        // The same command of two handles at once, the second answered first.
        record(30, 2, 0x0a, 0x23, &[1, 0, 6, 0, 0, 16], &[0xc5]),
        record(31, 1, 0x0a, 0x23, &[1, 0, 5, 0, 0, 16], &[0, 6, 0, 1, 2]),
        record(40, 1, 6, 1, &[], &device_id),
        bridged(record(50, 1, 6, 1, &[], &device_id)),
        event,
        refused,
    ];
    let fields = ["_ws.col.Info", "ipmi.response_to", "frame.interface_name", "frame.comment"];
    let one = "/dev/ipmi/1|ipmitool[100] uid 0, handle 1";
    let two = "/dev/ipmi/2|ipmitool[100] uid 0, handle 2";
    let canceled = "Rsp, Get SDR, Reservation Canceled or Invalid Reservation ID (c5h)";
    let ok = "Command Completed Normally (00h)";
    assert_eq!(
        dissect(&records, &fields),
        [
            format!("Req, Get SDR||{two}"),
            format!("{canceled}|1|{two}"),
            format!("Req, Get SDR||{one}"),
            format!("Rsp, Get SDR, {ok}|3|{one}"),
            format!("Req, Get Device ID||{one}"),
            format!("Rsp, Get Device ID, {ok}|5|{one}"),
            format!("Req, Get Device ID||{one}"),
            format!("Rsp, Get Device ID, {ok}|7|{one}"),
            format!("Rsp, Read Event Message Buffer, {ok}||{one}"),
            format!("Get Device ID: EBUSY||{two}"),
        ]
    );
}

#[test]
#[ignore = "needs tshark; run by tests/check-capture"]
fn data_is_dissected_and_checksums_are_right() {
    let sdr = record(30, 1, 0x0a, 0x23, &[0x34, 0x12, 6, 0, 0, 16], &[0, 7, 0, 1]);
    // Beside the comment an expert's message would tell of a bad checksum.
    let comment = "ipmitool[100] uid 0, handle 1";
    let fields =
        ["frame.time_epoch", "ipmi.st23.rsrv_id", "ipmi.header.source", "_ws.expert.message"];
    assert_eq!(
        dissect(&[bridged(sdr)], &fields),
        [
            format!("1700000000.010000000|0x1234|0x20|{comment}"),
            format!("1700000000.030000000||0x82|{comment}"),
        ]
    );
}
