// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verbs about the group: members, manager, slots, limits for all, power.

use std::time::Duration;

use daemon_kit::client::{Client, ClientError};
use daemon_kit::table::Table;
use group::report::Report;

use super::{age, client, get, quoted, slots_text, told};
use crate::args::{AskArgs, PowerWord, SlotCommand, ThresholdCommand};
use crate::core::rules::Rule;
use crate::metric::Limits;
use crate::report::{
    OverrideRequest, PowerAction, PowerReport, PowerRequest, SlotReport, SlotRequest, Status,
};

/// A change waits for a majority, and an order for who carries it out.
const LIMIT: Duration = Duration::from_secs(30);

fn patient(ask: &AskArgs) -> Client {
    client(ask).with_timeout(LIMIT)
}

/// `members`.
///
/// # Errors
/// The daemon cannot be asked, or is in no group; so for all.
pub async fn members(ask: &AskArgs) -> Result<String, ClientError> {
    let report: Report = get(ask, "/v1/group").await?;
    Ok(told(ask, &report, |report| {
        let mut table = Table::new(["MEMBER", "ADDRESS", "STATE", "FOR", "MANAGER", "RECORDS"]);
        let own = if report.manager.as_deref() == Some(&report.name) {
            "is it"
        } else {
            &report.standing
        };
        table.row([&report.name, "", "this machine", "", own, ""]);
        for one in &report.members {
            let manager = match (one.active, one.eligible) {
                (true, _) => "is it",
                (false, true) => "eligible",
                (false, false) => "",
            };
            let records = if one.current {
                one.records.to_string()
            } else {
                format!("{} last known", one.records)
            };
            table.row([
                &one.name,
                &one.address,
                &one.state,
                &age(one.for_s as f64),
                manager,
                &records,
            ]);
        }
        format!(
            "group {}: {} of {} members are here\n{table}",
            report.group, report.sees, report.of
        )
    }))
}

/// `manager`.
///
/// # Errors
/// See [`members`].
pub async fn manager(ask: &AskArgs) -> Result<String, ClientError> {
    let status: Status = get(ask, "/v1/status").await?;
    let shown = serde_json::json!({ "manager": status.manager, "http": status.manager_http });
    Ok(told(ask, &shown, |_| match (&status.manager, &status.manager_http) {
        (None, _) => "nobody is the manager\n".to_owned(),
        (Some(name), Some(http)) => format!("{name} http://{http}\n"),
        (Some(name), None) => format!("{name}\n"),
    }))
}

/// `slot list`, `slot set`.
///
/// # Errors
/// See [`members`].
pub async fn slot(what: SlotCommand) -> Result<String, ClientError> {
    match what {
        SlotCommand::List { ask } => {
            let slots: Vec<SlotReport> = get(&ask, "/v1/slots").await?;
            Ok(told(&ask, &slots, |slots| slots_text(slots)))
        }
        SlotCommand::Set { place, name, module, ask } => {
            let request = SlotRequest { place, name, module };
            patient(&ask).post_json::<_, ()>("/v1/slot", &request).await?;
            Ok(String::new())
        }
    }
}

/// `threshold list`, `threshold set`, `threshold remove`.
///
/// # Errors
/// See [`members`].
pub async fn threshold(what: ThresholdCommand) -> Result<String, ClientError> {
    match what {
        ThresholdCommand::List { ask } => super::thresholds(&ask).await,
        ThresholdCommand::Set {
            name,
            metric,
            place,
            high_critical,
            high_warning,
            low_warning,
            low_critical,
            hysteresis,
            samples,
            trend,
            ask,
        } => {
            let limits =
                Limits { high_critical, high_warning, low_warning, low_critical, hysteresis };
            let trend_ms =
                trend.map_or(0, |t| u64::try_from(t.get().as_millis()).unwrap_or(u64::MAX));
            let path = format!("/v1/thresholds/{}", quoted(&name));
            let rule = Rule { name, metric, place, limits, samples, trend_ms };
            patient(&ask).post_json::<_, ()>(&path, &rule).await?;
            Ok(String::new())
        }
        ThresholdCommand::Remove { name, ask } => {
            let path = format!("/v1/thresholds/{}/remove", quoted(&name));
            patient(&ask).post_json::<_, ()>(&path, &()).await?;
            Ok(String::new())
        }
    }
}

fn power_text(report: &PowerReport) -> String {
    let PowerReport { id, place, action, by, state, text } = report;
    let by = if by.is_empty() { String::new() } else { format!(" by {by}") };
    let text = if text.is_empty() { String::new() } else { format!(": {text}") };
    format!("{place} {action}{by}: {state}{text} (order {id})\n")
}

/// `power`.
///
/// # Errors
/// See [`members`].
pub async fn power(
    ask: &AskArgs,
    place: String,
    action: PowerWord,
    id: Option<String>,
    by: Option<String>,
) -> Result<String, ClientError> {
    let action = match action {
        PowerWord::On => PowerAction::On,
        PowerWord::Off => PowerAction::Off,
        PowerWord::Shutdown => PowerAction::Shutdown,
        PowerWord::Reset => PowerAction::Reset,
        PowerWord::Show => {
            let path = format!("/v1/power/{}", quoted(id.as_deref().unwrap_or("0")));
            return Ok(told(ask, &get::<PowerReport>(ask, &path).await?, power_text));
        }
    };
    let request = PowerRequest { place, action, id, by };
    let report: PowerReport = patient(ask).post_json("/v1/power", &request).await?;
    Ok(told(ask, &report, power_text))
}

/// `override`.
///
/// # Errors
/// See [`members`].
pub async fn override_majority(
    ask: &AskArgs,
    members: Vec<String>,
    reason: String,
) -> Result<String, ClientError> {
    let request = OverrideRequest { members, reason };
    patient(ask).post_json::<_, ()>("/v1/override", &request).await?;
    Ok(String::new())
}
