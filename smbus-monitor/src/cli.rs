// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verbs that ask the daemon, and what they show.

pub mod group;
mod plot;

use std::fmt::Write;

use daemon_kit::client::{Client, ClientError};
use daemon_kit::table::{Table, printable};
use daemon_kit::utc::date_time;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::args::AskArgs;
use crate::config::{Config, How, PowerHow, Syslog};
use crate::metric::{Limits, Unit, shown};
use crate::report::{
    AckRequest, Alert, Event, HistoryReport, RuleReport, Sensor, SlotReport, Status,
};
use crate::sources::Whose;

pub(crate) fn client(ask: &AskArgs) -> Client {
    Client::new("smbus-monitor", &ask.socket)
}

pub(crate) async fn get<T: DeserializeOwned>(ask: &AskArgs, path: &str) -> Result<T, ClientError> {
    client(ask).get_json(path).await
}

/// As JSON, or as people read it.
pub(crate) fn told<T: Serialize>(
    ask: &AskArgs,
    what: &T,
    show: impl FnOnce(&T) -> String,
) -> String {
    if !ask.json {
        return show(what);
    }
    let mut text = serde_json::to_string_pretty(what).expect("what came as JSON goes as JSON");
    text.push('\n');
    text
}

/// A text in a query.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    text.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// `status`.
///
/// # Errors
/// The daemon cannot be asked; so for all.
pub async fn status(ask: &AskArgs) -> Result<String, ClientError> {
    let status: Status = get(ask, "/v1/status").await?;
    Ok(told(ask, &status, status_text))
}

fn status_text(status: &Status) -> String {
    let Status { version, name, place, sees, of, critical, warnings, .. } = status;
    let mut out = format!(
        "smbus-monitor {version} on {}, up {}\n",
        printable(name),
        age(status.uptime_s as f64)
    );
    let who = &status.identity;
    let parts = [
        ("chassis", &who.chassis),
        ("slot", &who.slot),
        ("module", &who.module),
        ("serial", &who.serial),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(what, value)| format!("{what} {}", printable(value)))
        .collect();
    let is =
        if parts.is_empty() { format!("place {}", printable(place)) } else { parts.join(", ") };
    let _ = writeln!(out, "this machine: {is}; {} metrics", status.metrics);
    match (&status.group, &status.manager) {
        (None, _) => out.push_str("in no group\n"),
        (Some(group), manager) => {
            let manager = manager.as_deref().unwrap_or("nobody");
            let _ = writeln!(
                out,
                "group {group}: {sees} of {of} members are here; the manager is {manager}"
            );
        }
    }
    let _ = match status.worst {
        None => writeln!(out, "nothing is wrong"),
        Some(_) => writeln!(out, "ALERTS: {critical} critical, {warnings} warnings"),
    };
    if let Some(error) = &status.log_error {
        let _ = writeln!(
            out,
            "EVENTS ARE NOT WRITTEN, {} wait: {}",
            status.log_waiting,
            printable(error)
        );
    }
    if status.group.is_some() {
        let _ = write!(out, "\n{}", slots_text(&status.slots));
    }
    out
}

/// Slots as a table.
pub(crate) fn slots_text(slots: &[SlotReport]) -> String {
    let mut table = Table::new(["SLOT", "NAME", "MEMBER", "STATE", "MODULE", "SERIAL", "PROBLEM"]);
    for one in slots {
        let module =
            if one.identity.module.is_empty() { &one.assigned } else { &one.identity.module };
        let problems = one.problems.join("; ");
        table.row([
            &one.place,
            &one.name,
            &one.member,
            &one.state,
            module,
            &one.identity.serial,
            &problems,
        ]);
    }
    table.to_string()
}

/// `sensors`.
///
/// # Errors
/// See [`status`].
pub async fn sensors(ask: &AskArgs, place: Option<&str>) -> Result<String, ClientError> {
    let path = match place {
        Some("all") => "/v1/sensors".to_owned(),
        Some(place) => format!("/v1/sensors?place={}", quoted(place)),
        None => {
            let status: Status = get(ask, "/v1/status").await?;
            format!("/v1/sensors?place={}", quoted(&status.place))
        }
    };
    let sensors: Vec<Sensor> = get(ask, &path).await?;
    Ok(told(ask, &sensors, |all| sensors_text(all)))
}

fn sensors_text(sensors: &[Sensor]) -> String {
    let mut table = Table::new(["PLACE", "METRIC", "VALUE", "STATE", "LIMITS", "AGE", "LABEL"]);
    for one in sensors {
        let value = one.value.map_or_else(String::new, |value| shown(value, one.unit));
        let limits = limits_text(&one.limits, one.unit);
        table.row([
            &one.place,
            &one.metric,
            &value,
            &one.state,
            &limits,
            &age(one.age_s),
            &one.label,
        ]);
    }
    table.to_string()
}

/// `low critical, low warning .. high warning, high critical`.
pub(crate) fn limits_text(limits: &Limits, unit: Unit) -> String {
    if limits.is_empty() {
        return String::new();
    }
    let text = |limit: Option<f64>| limit.map(|limit| shown(limit, unit));
    let side =
        |limits: [Option<String>; 2]| limits.into_iter().flatten().collect::<Vec<_>>().join("/");
    let low = side([text(limits.low_critical), text(limits.low_warning)]);
    let high = side([text(limits.high_warning), text(limits.high_critical)]);
    format!("{low}..{high}")
}

/// `alerts`.
///
/// # Errors
/// See [`status`].
pub async fn alerts(ask: &AskArgs) -> Result<String, ClientError> {
    let alerts: Vec<Alert> = get(ask, "/v1/alerts").await?;
    Ok(told(ask, &alerts, |alerts| {
        if alerts.is_empty() {
            return "nothing is wrong\n".to_owned();
        }
        let mut table = Table::new([
            "ID",
            "SEVERITY",
            "PLACE",
            "METRIC",
            "EDGE",
            "SINCE",
            "TIMES",
            "ACKNOWLEDGED",
            "WHAT",
        ]);
        for one in alerts {
            let by = one.acknowledged.as_ref().map_or("", |ack| &ack.by);
            let since = date_time(one.since_ms / 1000);
            let (count, edge, severity) =
                (one.count.to_string(), one.edge.word(), one.severity.word());
            table.row([
                &one.id,
                severity,
                &one.place,
                &one.metric,
                edge,
                &since,
                &count,
                by,
                &one.text,
            ]);
        }
        table.to_string()
    }))
}

/// `ack`.
///
/// # Errors
/// See [`status`].
pub async fn acknowledge(ask: &AskArgs, id: &str) -> Result<String, ClientError> {
    let request = AckRequest { id: id.to_owned() };
    client(ask).post_json::<_, ()>("/v1/ack", &request).await?;
    Ok(String::new())
}

/// `threshold list`.
///
/// # Errors
/// See [`status`].
pub async fn thresholds(ask: &AskArgs) -> Result<String, ClientError> {
    let rules: Vec<RuleReport> = get(ask, "/v1/thresholds").await?;
    Ok(told(ask, &rules, |rules| {
        if rules.is_empty() {
            return "no rules: what the hardware says holds\n".to_owned();
        }
        let mut table = Table::new([
            "NAME",
            "BY",
            "METRIC",
            "PLACE",
            "LIMITS",
            "HYSTERESIS",
            "SAMPLES",
            "TREND",
        ]);
        for RuleReport { by, rule } in rules {
            let limits = limits_text(&rule.limits, Unit::Number);
            let hysteresis = rule.limits.hysteresis.map_or_else(String::new, |h| h.to_string());
            let trend =
                if rule.trend_ms == 0 { String::new() } else { age(rule.trend_ms as f64 / 1000.0) };
            let (metric, place) = (rule.metric.to_string(), rule.place.to_string());
            table.row([
                &rule.name,
                by,
                &metric,
                &place,
                &limits,
                &hysteresis,
                &rule.samples.to_string(),
                &trend,
            ]);
        }
        table.to_string()
    }))
}

/// `history`.
///
/// # Errors
/// See [`status`].
pub async fn history(
    ask: &AskArgs,
    metric: &str,
    place: Option<&str>,
    seconds: u64,
) -> Result<String, ClientError> {
    let place = place.map_or_else(String::new, |place| format!("&place={}", quoted(place)));
    let path = format!("/v1/history?metric={}&seconds={seconds}{place}", quoted(metric));
    let history: HistoryReport = get(ask, &path).await?;
    Ok(told(ask, &history, |history| plot::plot(history, seconds as f64)))
}

/// An event as a line.
pub(crate) fn event_line(event: &Event) -> String {
    let severity = event.severity.map_or("", |severity| severity.word());
    let kind = serde_json::to_value(event.kind).ok();
    let kind = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or("").to_owned();
    let (time, place) = (date_time(event.at_ms / 1000), printable(&event.place));
    format!("{time}  {kind:<12}  {severity:<8}  {place:<10}  {}\n", printable(&event.text))
}

/// `watch --last`.
///
/// # Errors
/// See [`status`].
pub async fn last_events(ask: &AskArgs, last: usize) -> Result<String, ClientError> {
    let events: Vec<Event> = get(ask, &format!("/v1/events?last={last}")).await?;
    Ok(told(ask, &events, |events| events.iter().map(event_line).collect()))
}

/// `watch`: calls `print` with each event until the daemon ends it, or `print` has had enough.
///
/// # Errors
/// See [`status`].
pub async fn watch(
    ask: &AskArgs,
    mut print: impl FnMut(String) -> bool,
) -> Result<(), ClientError> {
    let mut lines = client(ask).get_lines("/v1/watch").await?;
    while let Some(line) = lines.next().await? {
        let text = match serde_json::from_str::<Event>(&line) {
            Ok(event) if !ask.json => event_line(&event),
            _ => line + "\n",
        };
        if !print(text) {
            break;
        }
    }
    Ok(())
}

/// A time, for people.
#[must_use]
pub fn age(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1}s"),
        s if s < 60.0 => format!("{s:.0}s"),
        s if s < 3_600.0 => format!("{:.0}m", s / 60.0),
        s if s < 86_400.0 => format!("{:.0}h", s / 3_600.0),
        s => format!("{:.0}d", s / 86_400.0),
    }
}

/// What `check` says of a good configuration.
#[must_use]
pub fn describe(config: &Config) -> String {
    let mut out = "configuration is valid\n".to_owned();
    let s = &config.sources;
    let every = [
        ("system", s.system),
        ("file systems", s.filesystems),
        ("hwmon", s.hwmon),
        ("IPMI", s.ipmi),
    ];
    for (name, interval) in every {
        let _ = match interval {
            Some(interval) => writeln!(out, "  {name}: every {}", age(interval.as_secs_f64())),
            None => writeln!(out, "  {name}: not read"),
        };
    }
    for device in &config.devices {
        let whose =
            if device.whose == Whose::Midplane { ", read by the manager alone" } else { "" };
        let _ = writeln!(
            out,
            "  chip {}: {:?} address {:#04x}{whose}",
            device.name, device.bus, device.address
        );
    }
    for rule in &config.rules {
        let limits = limits_text(&rule.limits, Unit::Number);
        let _ =
            writeln!(out, "  threshold {}: {} at {}: {limits}", rule.name, rule.metric, rule.place);
    }
    for action in &config.actions {
        let how = match &action.how {
            How::Command(argv) => format!("command {}", argv.join(" ")),
            How::Webhook(url) => format!("webhook http://{}{}", url.host, url.path),
            How::Syslog(Syslog::Unix(path)) => format!("syslog {}", path.display()),
            How::Syslog(Syslog::Udp(host)) => format!("syslog udp://{host}"),
        };
        let _ = writeln!(
            out,
            "  action {} from {} on: {}",
            action.name,
            action.on.word(),
            printable(&how)
        );
    }
    for power in &config.power {
        let how = match &power.how {
            PowerHow::Command(argv) => format!("command {}", argv.join(" ")),
            PowerHow::WakeOnLan(..) => "Wake-on-LAN".to_owned(),
        };
        let _ = writeln!(out, "  power of {}: {}", printable(&power.place), printable(&how));
    }
    for address in &config.listen {
        let _ = writeln!(out, "  HTTP to be read by all on {address}");
    }
    out
}
