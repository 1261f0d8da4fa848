// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verbs that ask the daemon, and what they show.

use std::fmt::Write;
use std::time::Duration;

use daemon_kit::client::{Client, ClientError};
use daemon_kit::table::Table;
use daemon_kit::utc::date_time;
use serde::Serialize;

use crate::agent;
use crate::agent::config::{LocalDrive, ManagerConfig};
use crate::arbiter::{BladeName, ShareName};
use crate::args::AskArgs;
use crate::client;
use crate::config::Config;
use crate::link::message::Kind;
use crate::manager::Copied;
use crate::manager::control::{Done, OverlayStatus, ShareStatus, Status, Work, mode_name};
use crate::progress;
use crate::serve::tls::TlsError;
use crate::source::place::Place;

/// A hand-over may wait for two agents, each for its host, and a commit for a disk.
const LIMIT: Duration = Duration::from_secs(3600);

async fn get(ask: &AskArgs) -> Result<Status, ClientError> {
    Client::new("usb-gadget-drive", &ask.socket).get_json("/v1/status").await
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
pub async fn status(ask: &AskArgs) -> Result<String, ClientError> {
    Ok(shown(ask, &get(ask).await?, status_table))
}

/// `shares`.
///
/// # Errors
/// As [`status`].
pub async fn shares(ask: &AskArgs) -> Result<String, ClientError> {
    Ok(shown(ask, &get(ask).await?.shares, |shares| shares_table(shares)))
}

/// `overlay list`.
///
/// # Errors
/// As [`status`].
pub async fn overlays(ask: &AskArgs) -> Result<String, ClientError> {
    let named =
        |share: ShareStatus| share.overlays.into_iter().map(move |o| (share.name.clone(), o));
    let all: Vec<(String, OverlayStatus)> =
        get(ask).await?.shares.into_iter().flat_map(named).collect();
    Ok(shown(ask, &all, |all| {
        if all.is_empty() {
            return "no blade has written to a private share\n".to_owned();
        }
        let mut table = Table::new(["SHARE", "BLADE", "SINCE", "STATE"]);
        for (share, overlay) in all {
            table.row([share, overlay.blade.as_str(), &date(overlay.since), &overlay.phase]);
        }
        table.to_string()
    }))
}

/// Has the daemon do something with a share, and shows how far it is.
///
/// # Errors
/// As [`status`], and that it was not done.
pub async fn act(
    ask: &AskArgs,
    path: &str,
    share: &ShareName,
    body: &impl Serialize,
) -> Result<String, ClientError> {
    let client = Client::new("usb-gadget-drive", &ask.socket).with_timeout(LIMIT);
    let done = client.post_json(path, body);
    let done: Done =
        if ask.json { done.await? } else { progress::shown(&client, share, done).await? };
    Ok(shown(ask, &done, |done| done.note.iter().map(|note| format!("{note}\n")).collect()))
}

fn status_table(status: &Status) -> String {
    let mut out = format!("usb-gadget-drive {}, up {}\n", status.version, age(status.uptime_s));
    if let Some(error) = &status.storage_error {
        let _ = writeln!(out, "CANNOT STORE ITS STATE, grants nothing: {error}");
    }
    let _ = write!(out, "\n{}", shares_table(&status.shares));
    if status.blades.is_empty() {
        out.push_str("\nno blade is connected\n");
        return out;
    }
    let mut table = Table::new(["BLADE", "DRIVE", "AS", "LUN", "STATE", "CAUSE"]);
    for blade in &status.blades {
        let name = match blade.connected_since {
            Some(_) => blade.name.to_string(),
            None => format!("{} (not connected)", blade.name),
        };
        if blade.drives.is_empty() {
            table.row([&name, "-", "-", "-", "-", ""]);
        }
        for drive in &blade.drives {
            let what =
                if drive.local { format!("{} (its own)", drive.name) } else { drive.name.clone() };
            let lun = drive.lun.map_or_else(|| "-".to_owned(), |lun| lun.to_string());
            let cause = drive.reason.as_deref().unwrap_or("");
            table.row([
                &name,
                &what,
                kind_name(drive.kind, drive.writable),
                &lun,
                &drive.state,
                cause,
            ]);
        }
    }
    let _ = write!(out, "\n{table}");
    out
}

fn kind_name(kind: Kind, writable: bool) -> &'static str {
    match (kind, writable) {
        (Kind::Cd, _) => "cd",
        (Kind::Disk, true) => "disk",
        (Kind::Disk, false) => "disk, read-only",
    }
}

fn shares_table(shares: &[ShareStatus]) -> String {
    if shares.is_empty() {
        return "no share is configured\n".to_owned();
    }
    let mut table = Table::new(["SHARE", "MODE", "SIZE", "USED BY", "STATE"]);
    for share in shares {
        let size = share.size.map_or_else(|| "-".to_owned(), size);
        let mut users: Vec<String> = share
            .sessions
            .iter()
            .map(|s| format!("{}{}", s.blade, if s.writes { " (writes)" } else { "" }))
            .collect();
        let has = |blade: &BladeName| share.sessions.iter().any(|s| s.blade == *blade);
        if let Some(writer) = share.writer.as_ref().filter(|writer| !has(&writer.blade)) {
            users.push(format!("{} (may write)", writer.blade));
        }
        let mut state = match &share.error {
            Some(error) => error.clone(),
            None if share.work.is_empty() => "ready".to_owned(),
            None => share.work.iter().map(work).collect::<Vec<_>>().join("; "),
        };
        for failure in &share.failures {
            let _ = write!(state, "; {failure}");
        }
        table.row([&share.name, &share.mode, &size, &users.join(", "), &state]);
    }
    table.to_string()
}

/// What `check` says of a good configuration.
#[must_use]
pub fn describe(config: &Config) -> String {
    let mut out = format!("configuration is valid, shares: {}\n", config.shares.len());
    for (name, share) in &config.shares {
        let mode = mode_name(share.share.mode);
        let _ = writeln!(out, "  {name}: {mode}, {}", share.place);
        if let Place::File(path) = &share.place
            && let Err(error) = std::fs::metadata(path)
        {
            let _ = writeln!(out, "    but {}: {error}", path.display());
        }
    }
    match config.agents {
        Some(address) => {
            let _ = writeln!(out, "agents connect to {address}");
        }
        None => out.push_str("no agents: set `agents` in [serve] to have blades present drives\n"),
    }
    out
}

/// What `check --agent` says of a good configuration.
///
/// # Errors
/// The blade's certificate cannot be used.
pub fn describe_agent(config: &agent::config::Config) -> Result<String, TlsError> {
    let mut out = format!("configuration is valid, drives of its own: {}\n", config.drives.len());
    for LocalDrive { name, path, kind, writable } in &config.drives {
        let _ = writeln!(out, "  {name}: {}, {}", kind_name(*kind, *writable), path.display());
        if let Err(error) = std::fs::metadata(path) {
            let _ = writeln!(out, "    but {}: {error}", path.display());
        }
    }
    match &config.manager {
        Some(ManagerConfig { address, nbd, tls, .. }) => {
            client::tls::load(tls)?;
            let tls = tls.display();
            let _ = writeln!(out, "manager at {address}, NBD at {nbd}, certificate in {tls}");
        }
        None => out.push_str("no management module: set `manager` to have shares inserted\n"),
    }
    Ok(out)
}

fn work(work: &Work) -> String {
    let Some(Copied { done, total }) = work.copied else { return work.what.clone() };
    format!("{}: {} of {}", work.what, size(done), size(total))
}

/// Bytes, for people.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A time, for people.
#[must_use]
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

fn date(unix: u64) -> String {
    format!("{} UTC", date_time(unix))
}
