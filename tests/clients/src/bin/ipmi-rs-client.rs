// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a Rust program does with an IPMI node: the crate ipmi-rs asks for the device id, walks the SDR
//! repository and reads the head of the SEL. Readings and times are left out, so that the output of two
//! nodes of one BMC is the same.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use clap::Parser;
use ipmi_rs::app::GetDeviceId;
use ipmi_rs::storage::sdr::record::{RecordContents, SensorId};
use ipmi_rs::storage::sdr::{GetDeviceSdr, GetSdrRepositoryInfo, Record, RecordId};
use ipmi_rs::storage::sel::GetSelInfo;
use ipmi_rs::{File, Ipmi};

/// Longest wait for an answer: what a caller is promised.
const LIMIT: Duration = Duration::from_secs(10);

/// Records a repository can have: their ids are 16 bits wide, and two of them are reserved.
const MAX_RECORDS: usize = 0xfffe;

/// Asks an IPMI node for its device id, SDRs and SEL with the crate ipmi-rs.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The node
    #[arg(default_value = "/dev/ipmi0")]
    node: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("ipmi-rs-client: {}: {err:#}", args.node.display());
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let mut ipmi = Ipmi::new(File::new(&args.node, LIMIT).context("cannot open")?);
    device_id(&mut ipmi)?;
    sdrs(&mut ipmi)?;
    sel(&mut ipmi)
}

fn device_id(ipmi: &mut Ipmi<File>) -> anyhow::Result<()> {
    let id = ipmi.send_recv(GetDeviceId).map_err(|err| anyhow!("Get Device ID: {err:?}"))?;
    println!(
        "device {:#04x} revision {} firmware {}.{:02} ipmi {}.{} manufacturer {:#08x} product {:#06x}",
        id.device_id,
        id.device_revision,
        id.major_fw_revision,
        id.minor_fw_revision,
        id.major_version,
        id.minor_version,
        id.manufacturer_id,
        id.product_id
    );
    Ok(())
}

/// Walks the repository. Not by `Ipmi::sdrs`: that ends in silence where a record cannot be read.
fn sdrs(ipmi: &mut Ipmi<File>) -> anyhow::Result<()> {
    let info = ipmi
        .send_recv(GetSdrRepositoryInfo)
        .map_err(|err| anyhow!("Get SDR Repository Info: {err:?}"))?;
    println!(
        "sdr version {}.{} records {}",
        info.version_major, info.version_minor, info.record_count
    );
    let mut next = RecordId::FIRST;
    let mut count = 0;
    while !next.is_last() {
        let answer = ipmi
            .send_recv(GetDeviceSdr::new(None, next))
            .map_err(|err| anyhow!("Get SDR {:#06x}: {err:?}", next.value()))?;
        println!("{}", line(&answer.record));
        count += 1;
        ensure!(count <= MAX_RECORDS, "the SDR repository has no end");
        next = answer.next_entry;
    }
    ensure!(
        count == usize::from(info.record_count),
        "walked {count} SDRs of {}",
        info.record_count
    );
    Ok(())
}

fn line(record: &Record) -> String {
    let kind = match &record.contents {
        RecordContents::FullSensor(_) => "full sensor",
        RecordContents::CompactSensor(_) => "compact sensor",
        RecordContents::EventOnlySensor(_) => "event-only sensor",
        RecordContents::GenericDeviceLocator(_) => "device",
        RecordContents::FruDeviceLocator(_) => "fru",
        RecordContents::McDeviceLocator(_) => "controller",
        RecordContents::Unknown { .. } => "unknown",
    };
    let number = record.sensor_number().map_or("--".into(), |n| format!("{:02x}", n.get()));
    let name = record.id().map(SensorId::to_string).unwrap_or_default();
    format!("record {:04x} {number} {kind}: {name}", record.header.id.value())
}

fn sel(ipmi: &mut Ipmi<File>) -> anyhow::Result<()> {
    let info = ipmi.send_recv(GetSelInfo).map_err(|err| anyhow!("Get SEL Info: {err:?}"))?;
    println!(
        "sel version {}.{} entries {} free {} overflow {} commands {:?}",
        info.version_maj,
        info.version_min,
        info.entries,
        info.bytes_free,
        info.overflow,
        info.supported_cmds
    );
    Ok(())
}
