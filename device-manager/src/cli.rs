// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verbs that ask the manager, and what they show.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use daemon_kit::client::ClientError;
use daemon_kit::table::Table;
use daemon_kit::utc::date_time;
use serde::Serialize;

use crate::args::AskArgs;
use crate::config::Config;
use crate::manager::api::{
    Explained, Known, Line, ManagerStatus, Release, Status, UnitStatus, Waiting,
};
use crate::manager::core::Scope;
use crate::pattern::Pattern;
use crate::record::DeviceId;
use crate::service::run::{Finding, client};
use crate::service::socket::place;

/// Between two attempts to reach a manager.
const AGAIN: Duration = Duration::from_millis(300);

fn shown<T: Serialize>(ask: &AskArgs, what: &T, show: impl FnOnce(&T) -> String) -> String {
    if !ask.json {
        return show(what);
    }
    let mut text = serde_json::to_string_pretty(what).expect("what came as JSON goes as JSON");
    text.push('\n');
    text
}

async fn get(ask: &AskArgs) -> Result<Status, ClientError> {
    client(&ask.socket).get_json("/v1/status").await
}

/// Where a disk or a BMC that this machine holds by itself is reached; the folder is beside that of the manager's socket.
fn own_socket(control: &Path, device: DeviceId, function: usize) -> Option<String> {
    let runtime = control.parent()?.parent()?.join("device-manager-attach");
    let path = place(&runtime, device, u8::try_from(function).ok()?);
    path.exists().then(|| path.display().to_string())
}

/// Seconds since 1970 of microseconds.
fn date(us: i64) -> String {
    date_time(u64::try_from(us / 1_000_000).unwrap_or(0))
}

/// `status`.
///
/// # Errors
/// The manager cannot be asked; so for all.
pub async fn status(ask: &AskArgs) -> Result<String, ClientError> {
    Ok(shown(ask, &get(ask).await?, |status| {
        let Status { version, machine, replication, devices, .. } = status;
        let mut out = format!("device-manager {version} on {machine}, lists: {replication}\n\n");
        let _ = writeln!(out, "{}", units_table(&status.units));
        let mut table = Table::new([
            "DEVICE", "PART", "MODEL", "AT", "LEASE", "HOLDER", "SINCE", "UNTIL", "THROUGH",
            "SOCKET",
        ]);
        for known in devices {
            let device = &known.device;
            let leased = device.functions.iter().enumerate();
            for (at, part, info) in leased.filter_map(|(at, f)| Some((at, f, f.lease.as_ref()?))) {
                let until = info.until.map_or_else(|| "released".to_owned(), date);
                table.row([
                    &device.id.to_string(),
                    &part.kind,
                    &device.found.model,
                    &device.unit.to_string(),
                    &info.no.to_string(),
                    &info.holder.to_string(),
                    &date(info.since),
                    &until,
                    &info.through.to_string(),
                    &own_socket(&ask.socket, device.id, at).unwrap_or_default(),
                ]);
            }
        }
        let leases = devices.iter().flat_map(|k| &k.device.functions).any(|f| f.lease.is_some());
        out.push_str(&if leases {
            table.to_string()
        } else {
            format!("{} devices, none leased\n", devices.len())
        });
        out
    }))
}

/// `devices`.
///
/// # Errors
/// As [`status`].
pub async fn devices(ask: &AskArgs, pattern: &Pattern) -> Result<String, ClientError> {
    let mut all = get(ask).await?.devices;
    all.retain(|known| pattern.fits(&known.device));
    Ok(shown(ask, &all, |all| devices_table(all)))
}

fn devices_table(all: &[Known]) -> String {
    if all.is_empty() {
        return "no device fits\n".to_owned();
    }
    let mut table =
        Table::new(["DEVICE", "UNIT", "TYPE", "VENDOR:PRODUCT", "MODEL", "SERIAL", "STATE", "WHY"]);
    for Known { device, .. } in all {
        let found = &device.found;
        let leased =
            device.functions.iter().find_map(|f| f.lease.as_ref()).map(|l| l.holder.to_string());
        let why = leased.or_else(|| device.functions[0].unavailable.clone()).unwrap_or_default();
        table.row([
            &device.id.to_string(),
            &device.unit.to_string(),
            &found.types.join(","),
            &format!("{}:{}", found.vendor, found.product),
            &found.model,
            &found.serial,
            device.state(),
            &why,
        ]);
    }
    table.to_string()
}

/// `units`.
///
/// # Errors
/// As [`status`].
pub async fn units(ask: &AskArgs) -> Result<String, ClientError> {
    Ok(shown(ask, &get(ask).await?.units, |units| units_table(units)))
}

fn units_table(units: &[UnitStatus]) -> String {
    if units.is_empty() {
        return "no unit is known\n".to_owned();
    }
    let mut table = Table::new(["UNIT", "MANAGER", "SINCE", "DEVICES"]);
    for unit in units {
        let (name, manager) = (unit.unit.to_string(), unit.manager.to_string());
        table.row([&name, &manager, &date(unit.since), &unit.devices.to_string()]);
    }
    table.to_string()
}

/// `managers`.
///
/// # Errors
/// As [`status`].
pub async fn managers(ask: &AskArgs) -> Result<String, ClientError> {
    Ok(shown(ask, &get(ask).await?.managers, |managers| {
        let mut table = Table::new(["MANAGER", "UNITS"]);
        for ManagerStatus { manager, own, units } in managers {
            let name = if *own { format!("{manager} (this one)") } else { manager.to_string() };
            let units: Vec<String> = units.iter().map(ToString::to_string).collect();
            table.row([&name, &units.join(" ")]);
        }
        table.to_string()
    }))
}

/// `find`.
///
/// # Errors
/// As [`status`].
pub async fn find(
    ask: &AskArgs,
    pattern: &Pattern,
    scope: Scope,
    watch: bool,
) -> Result<String, ClientError> {
    let client = client(&ask.socket);
    let asks = get(ask).await?.replication == "own";
    let mut finding = Finding::begin(&client, pattern, scope).await?;
    if !watch {
        let all = finding.all(asks && scope == Scope::Group).await?;
        return Ok(shown(ask, &all, |all| devices_table(all)));
    }
    loop {
        let ended = match finding.next().await {
            Ok(Some(line)) => {
                told(ask, &line);
                continue;
            }
            Ok(None) => "the manager ended it".to_owned(),
            Err(error) => error.to_string(),
        };
        eprintln!("device-manager: {ended}; looking again");
        // A manager that is started again is told what is looked for, and tells all that there is.
        finding = loop {
            tokio::time::sleep(AGAIN).await;
            if let Ok(finding) = Finding::begin(&client, pattern, scope).await {
                break finding;
            }
        };
    }
}

/// A line of `find --watch`.
fn told(ask: &AskArgs, line: &Line) {
    if ask.json {
        println!("{}", serde_json::to_string(line).expect("what came as JSON goes as JSON"));
        return;
    }
    match line {
        Line::Match(known) => println!("+ {}", one(known)),
        Line::Changed(known) => println!("~ {}", one(known)),
        Line::Gone(id) => println!("- {id}"),
        Line::Complete => {}
    }
}

fn one(known: &Known) -> String {
    let device = &known.device;
    let found = &device.found;
    let text = format!(
        "{} {} {} {} {}",
        device.id,
        device.unit,
        found.types.join(","),
        found.model,
        device.state()
    );
    daemon_kit::table::printable(&text).into_owned()
}

/// `explain`.
///
/// # Errors
/// As [`status`].
pub async fn explain(ask: &AskArgs, device: DeviceId) -> Result<String, ClientError> {
    let told: Explained =
        client(&ask.socket).get_json(&format!("/v1/explain?device={device}")).await?;
    Ok(shown(ask, &told, |told| {
        let (device, found) = (&told.known.device, &told.known.device.found);
        let mut out = format!(
            "{} {} {}, serial number {}\n",
            found.manufacturer,
            found.model,
            found.types.join(","),
            found.serial
        );
        let _ = writeln!(
            out,
            "plugged into {} of {}, which is with manager {}",
            found.path, device.unit, told.known.manager
        );
        for function in device.functions.iter().skip(1) {
            let _ = writeln!(
                out,
                "has a part of its own: {} {}",
                function.kind,
                function.node.as_deref().unwrap_or("")
            );
        }
        let _ = match &told.taken {
            Some(why) => writeln!(out, "not free: {why}"),
            None => writeln!(out, "free"),
        };
        let _ = writeln!(out, "policy: {}", told.policy);
        out.lines().map(|line| format!("{}\n", daemon_kit::table::printable(line))).collect()
    }))
}

/// `queue`.
///
/// # Errors
/// As [`status`].
pub async fn queue(ask: &AskArgs) -> Result<String, ClientError> {
    let all: Vec<Waiting> = client(&ask.socket).get_json("/v1/queue").await?;
    Ok(shown(ask, &all, |all| {
        if all.is_empty() {
            return "nobody waits\n".to_owned();
        }
        let mut table = Table::new(["DEVICE", "HOLDER", "SINCE"]);
        for waiting in all {
            let since = date_time(waiting.since_ms / 1000);
            table.row([&waiting.device.to_string(), &waiting.holder.to_string(), &since]);
        }
        table.to_string()
    }))
}

/// `release`.
///
/// # Errors
/// As [`status`].
pub async fn release(ask: &AskArgs, lease: u64) -> Result<String, ClientError> {
    let () = client(&ask.socket).post_json("/v1/release", &Release { lease }).await?;
    Ok(String::new())
}

/// `detach`: ends what this machine holds of a device.
///
/// # Errors
/// As [`status`], or it holds nothing.
pub async fn detach(ask: &AskArgs, device: DeviceId) -> anyhow::Result<String> {
    let status = get(ask).await?;
    let known = status.devices.iter().filter(|known| known.device.id == device);
    let leases = known.flat_map(|known| &known.device.functions).filter_map(|f| f.lease.as_ref());
    let ours: Vec<u64> =
        leases.filter(|l| l.holder.machine == status.machine).map(|l| l.no).collect();
    anyhow::ensure!(!ours.is_empty(), "this machine does not hold {device}");
    for lease in ours {
        release(ask, lease).await?;
    }
    Ok(String::new())
}

/// What `check` says of a good configuration.
///
/// # Errors
/// What is wrong in it.
pub fn check(config: Option<&Path>) -> anyhow::Result<String> {
    let config = Config::load(config)?;
    let mut out = format!("configuration is valid, rules: {}\n", config.policy.rules.len());
    if config.policy.rules.is_empty() {
        out.push_str("without rules, whoever may use the control socket of a machine of the group may lease everything\n");
    }
    if config.insecure {
        out.push_str("DATA ARE CARRIED IN CLEAR\n");
    }
    Ok(out)
}
