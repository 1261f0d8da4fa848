// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verbs that ask the running daemon, and `check`.

use std::fmt::Write as _;

use daemon_kit::client::{Client as ControlClient, ClientError};
use daemon_kit::table::Table;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args::AskArgs;
use crate::config::Config;
use crate::control::{Client, Status};

/// `status`.
///
/// # Errors
/// The daemon cannot be asked.
pub async fn status(ask: &AskArgs) -> Result<String, ClientError> {
    query::<Status>(ask, "/v1/status", status_table).await
}

/// `clients`.
///
/// # Errors
/// The daemon cannot be asked.
pub async fn clients(ask: &AskArgs) -> Result<String, ClientError> {
    query::<Vec<Client>>(ask, "/v1/clients", |clients| clients_table(clients)).await
}

async fn query<T: Serialize + DeserializeOwned>(
    ask: &AskArgs,
    path: &str,
    show: impl FnOnce(&T) -> String,
) -> Result<String, ClientError> {
    let answer: T = ControlClient::new("ipmi-mux", &ask.socket).get_json(path).await?;
    if !ask.json {
        return Ok(show(&answer));
    }
    let mut text = serde_json::to_string_pretty(&answer).expect("what came as JSON goes as JSON");
    text.push('\n');
    Ok(text)
}

fn status_table(status: &Status) -> String {
    let mut out = format!("ipmi-mux {}, up {}\n", status.version, age(status.uptime_s));
    let bmc = &status.bmc;
    let state = if bmc.reachable { "reachable" } else { "not reachable" };
    let _ = write!(out, "BMC {}", bmc.address);
    if let Some(hardware) = &bmc.hardware_node {
        let _ = write!(out, ", taken over from {hardware}");
    }
    let _ = write!(out, ": {state}");
    if let (Some(firmware), Some(ipmi)) = (&bmc.firmware, &bmc.ipmi_version) {
        let _ = write!(out, ", firmware {firmware}, IPMI {ipmi}");
    }
    if let Some(manufacturer) = bmc.manufacturer {
        let _ = write!(out, ", manufacturer {manufacturer}");
    }
    out.push('\n');
    if !bmc.kernel_users.is_empty() {
        let _ = writeln!(out, "Beside us in the kernel: {}", bmc.kernel_users.join(", "));
    }
    let mut nodes = Table::new(["NODE", "DEVICE", "GROUP", "MODE", "HANDLES"]);
    for node in &status.nodes {
        let handles = node.handles.to_string();
        nodes.row([&node.path, &node.device, &node.group, &node.mode, &handles]);
    }
    let _ = write!(out, "\n{nodes}\n");
    if !status.held.is_empty() {
        let mut held = Table::new(["HELD ALONE", "NODE", "HANDLE", "UID", "PID", "COMMAND"]);
        let number = |n: Option<u32>| n.map_or("-".to_owned(), |n| n.to_string());
        for h in &status.held {
            let handle = h.handle.map_or("all".to_owned(), |handle| handle.to_string());
            let command = h.command.as_deref().unwrap_or("-");
            held.row([&h.what, &h.node, &handle, &number(h.uid), &number(h.pid), command]);
        }
        let _ = writeln!(out, "{held}");
    }
    let mut counters = Table::new(["COUNTER", "VALUE"]);
    for (name, value) in &status.counters {
        counters.row([name, &value.to_string()]);
    }
    let _ = write!(out, "{counters}");
    out
}

fn clients_table(clients: &[Client]) -> String {
    if clients.is_empty() {
        return "no handle is open\n".to_owned();
    }
    let mut table = Table::new([
        "HANDLE", "NODE", "UID", "PID", "COMMAND", "AGE", "SENT", "ANSWERED", "TIMEOUTS",
        "WAITING", "EVENTS",
    ]);
    for c in clients {
        table.row([
            &c.handle.to_string(),
            &c.node,
            &c.uid.to_string(),
            &c.pid.to_string(),
            c.command.as_deref().unwrap_or("-"),
            &age(c.age_s),
            &c.sent.to_string(),
            &c.answered.to_string(),
            &c.timeouts.to_string(),
            &(c.queued + c.in_flight).to_string(),
            if c.events { "yes" } else { "no" },
        ]);
    }
    table.to_string()
}

/// Seconds for people.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// What `check` says of a valid configuration.
#[must_use]
pub fn describe(config: &Config) -> String {
    let (first, last) = (config.nodes.first(), config.nodes.last());
    let names = match (first, last) {
        (Some(first), Some(last)) if first != last => {
            format!("{} nodes, /dev/{} … /dev/{}", config.nodes.len(), first.name, last.name)
        }
        (Some(only), _) => format!("/dev/{}", only.name),
        (None, _) => "no node".to_owned(),
    };
    let taken_over = if config.take_over.is_some() { ", its name taken over," } else { "" };
    format!("configuration is valid: BMC {}{taken_over} as {names}\n", config.bmc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        assert_eq!([5, 65, 3700, 90_000].map(age), ["5s", "1m05s", "1h01m", "1d01h"]);
    }
}
