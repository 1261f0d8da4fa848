// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verbs that ask a daemon, and what they show.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon_kit::client::{Client, ClientError};
use daemon_kit::table::{Table, printable};
use daemon_kit::utc::date_time;
use serde::Serialize;

use crate::args::AskArgs;
use crate::config::format::format;
use crate::config::{lmc, rmm};
use crate::shell::lmc::{LineStatus, Status as LmcStatus};
use crate::shell::rmm::Status;
use crate::shell::rmm::control::{Done, PowerAction, PowerOrder, Select};

/// A choice may wait for a blade that is silent, and a BMC is slow.
const LIMIT: Duration = Duration::from_secs(30);

fn rmm_client(ask: &AskArgs) -> Client {
    let socket = ask.socket.clone();
    let default = || Path::new(rmm::DEFAULT_RUNTIME_DIR).join("control.sock");
    Client::new("kvm-bus-rmm", socket.unwrap_or_else(default)).with_timeout(LIMIT)
}

fn shown<T: Serialize>(ask: &AskArgs, what: &T, show: impl FnOnce(&T) -> String) -> String {
    if !ask.json {
        return show(what);
    }
    let mut text = serde_json::to_string_pretty(what).expect("what came as JSON goes as JSON");
    text.push('\n');
    text
}

/// `status`.
///
/// # Errors
/// The daemon cannot be asked; so for all.
pub async fn status(ask: &AskArgs, of_lmc: bool) -> Result<String, ClientError> {
    if of_lmc {
        let default = || PathBuf::from(lmc::DEFAULT_RUNTIME_DIR).join("control.sock");
        let socket = ask.socket.clone().unwrap_or_else(default);
        let status: LmcStatus = Client::new("kvm-bus-lmc", socket).get_json("/v1/status").await?;
        return Ok(shown(ask, &status, lmc_table));
    }
    let status: Status = rmm_client(ask).get_json("/v1/status").await?;
    Ok(shown(ask, &status, rmm_table))
}

/// `sessions`.
///
/// # Errors
/// As [`status`].
pub async fn sessions(ask: &AskArgs) -> Result<String, ClientError> {
    let status: Status = rmm_client(ask).get_json("/v1/status").await?;
    Ok(shown(ask, &status.sessions, |sessions| {
        let mut table = Table::new(["ID", "WHAT", "BLADE", "WHO", "WRITES", "SINCE"]);
        for session in sessions {
            let what = match session.what {
                crate::attach::What::Console => "console",
                crate::attach::What::Screen => "screen",
            };
            table.row([
                &session.id.to_string(),
                what,
                session.blade.as_deref().unwrap_or(""),
                &session.who,
                if session.writes { "yes" } else { "no" },
                &format!("{} UTC", date_time(session.since)),
            ]);
        }
        table.to_string()
    }))
}

/// `select`.
///
/// # Errors
/// As [`status`], and that it was not done.
pub async fn select(ask: &AskArgs, blade: Option<String>) -> Result<String, ClientError> {
    let done: Done = rmm_client(ask).post_json("/v1/select", &Select { blade }).await?;
    Ok(shown(ask, &done, |done| format!("coupled: {}\n", printable(&done.text))))
}

/// `power`.
///
/// # Errors
/// As [`status`], and that it was not done.
pub async fn power(
    ask: &AskArgs,
    blade: String,
    action: PowerAction,
) -> Result<String, ClientError> {
    let done: Done = rmm_client(ask).post_json("/v1/power", &PowerOrder { blade, action }).await?;
    Ok(shown(ask, &done, |done| format!("{}\n", printable(&done.text))))
}

/// `replay`.
///
/// # Errors
/// As [`status`].
pub async fn replay(ask: &AskArgs, blade: &str, lines: usize) -> Result<String, ClientError> {
    let blade: String = blade.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let text = rmm_client(ask).get_text(&format!("/v1/replay/{blade}/{lines}")).await?;
    // What a console said is not to steer a terminal: each line alone.
    Ok(shown(ask, &text, |text| {
        text.lines()
            .map(|line| format!("{}\n", printable(&line.replace('\t', "        "))))
            .collect()
    }))
}

fn lines_table(lines: &[LineStatus]) -> String {
    let mut table =
        Table::new(["LINE", "PLACE", "BAUD", "FRAMES", "BYTES", "DROPPED", "DAMAGED", "STATE"]);
    for line in lines {
        let errors = line.errors;
        table.row([
            &line.name,
            &line.place,
            &line.baud.map(|baud| baud.to_string()).unwrap_or_default(),
            &line.sent.frames.to_string(),
            &line.sent.bytes.to_string(),
            &line.sent.dropped.to_string(),
            &(errors.damaged + errors.too_long + errors.version + errors.fields).to_string(),
            line.error.as_deref().unwrap_or(if line.baud.is_some() { "open" } else { "opening" }),
        ]);
    }
    table.to_string()
}

fn rmm_table(status: &Status) -> String {
    let mut out = format!(
        "kvm-bus {}, up {} s\n\n{}\n",
        status.version,
        status.uptime_s,
        lines_table(&status.lines)
    );
    if status.blades.is_empty() {
        out.push_str("no blade was heard yet\n");
        return out;
    }
    let mut table = Table::new([
        "SLOT", "BLADE", "STATE", "END", "HOPS", "MS", "AGAIN", "CONSOLE", "SCREEN", "KEYBOARD",
        "POWER",
    ]);
    for blade in &status.blades {
        let state = match (blade.there, blade.coupled) {
            (false, _) => "away",
            (true, true) => "coupled",
            (true, false) => "there",
        };
        let ms =
            blade.round_trip_us.map(|us| format!("{:.1}", us as f64 / 1000.0)).unwrap_or_default();
        let sources = &blade.sources;
        let word = |source: &Option<String>| source.clone().unwrap_or_default();
        table.row([
            &blade.slot.to_string(),
            &blade.name,
            state,
            blade.by_end.as_deref().unwrap_or(""),
            &blade.hops.map(|hops| hops.to_string()).unwrap_or_default(),
            &ms,
            &blade.sent_again.to_string(),
            &word(&sources.console),
            &word(&sources.screen),
            &word(&sources.keyboard),
            &word(&sources.power),
        ]);
    }
    let _ = write!(out, "{table}");
    out
}

fn lmc_table(status: &LmcStatus) -> String {
    let mut out = format!(
        "kvm-bus {}, {} in slot {}\n\n{}\n",
        status.version,
        printable(&status.name),
        status.slot,
        lines_table(&status.lines)
    );
    let mut table = Table::new(["WHAT", "WHERE"]);
    let sources = &status.sources;
    for (what, source) in [
        ("console", &sources.console),
        ("screen", &sources.screen),
        ("keyboard", &sources.keyboard),
        ("power", &sources.power),
    ] {
        table.row([what, source.as_deref().unwrap_or("")]);
    }
    table.row(["sessions with", &status.rmms.join(", ")]);
    table.row(["coupled by", status.coupled_by.as_deref().unwrap_or("")]);
    let _ = write!(out, "{table}");
    out
}

/// What `check rmm` says of a good configuration.
#[must_use]
pub fn describe_rmm(config: &rmm::Config) -> String {
    let mut out = "configuration is valid\n".to_owned();
    for (name, place) in ["near", "far"].into_iter().zip(&config.bus) {
        if let Some(place) = place {
            let _ = writeln!(out, "bus, {name} end: {place}");
        }
    }
    match &config.control {
        Some(place) => {
            let _ = writeln!(out, "control bus: {place}");
        }
        None => out.push_str("no control bus: blades are chosen on the bus itself\n"),
    }
    let _ = writeln!(out, "console logs: {}", config.logs.dir.display());
    out
}

/// What `check lmc` says of a good configuration.
#[must_use]
pub fn describe_lmc(config: &lmc::Config) -> String {
    let mut out = format!("configuration is valid: {} in {}\n", config.name, config.addr);
    for (name, place) in ["up", "down"].into_iter().zip(&config.bus) {
        if let Some(place) = place {
            let _ = writeln!(out, "bus, {name}: {place}");
        }
    }
    for (name, place) in ["up", "down"].into_iter().zip(&config.control) {
        if let Some(place) = place {
            let _ = writeln!(out, "control bus, {name}: {place}");
        }
    }
    match &config.console {
        Some(lmc::Console { path, settings, flow }) => {
            let (path, baud, format) = (path.display(), settings.baud, format(*settings));
            let _ = writeln!(out, "console: {path} at {baud} baud, {format}, flow control {flow}");
        }
        None => out.push_str("no console: set `console` in [blade]\n"),
    }
    out
}
