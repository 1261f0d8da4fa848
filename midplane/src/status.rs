// SPDX-License-Identifier: MIT OR Apache-2.0
//! `status`: the group as each program on this machine sees it.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon_kit::client::{Client, ClientError};
use daemon_kit::table::{Table, printable};
use daemon_kit::utc::date_time;
use group::report::{MemberReport, Report};
use serde::Serialize;

use crate::args::GroupStatusArgs;

/// A daemon that does not answer for so long is not waited for.
const LIMIT: Duration = Duration::from_secs(3);
/// Between two looks with `--watch`.
const AGAIN: Duration = Duration::from_secs(1);

/// Nothing on this machine is a member of a group.
#[derive(Debug, thiserror::Error)]
#[error(
    "no program that is a member of a group runs here ({}/*/control.sock); `systemctl status` tells more",
    .0.display()
)]
pub struct NoMember(PathBuf);

/// What one daemon says.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer {
    Report(Box<Report>),
    Silent { program: String, error: String },
}

/// Asks all daemons at once.
async fn ask(folder: &Path) -> Vec<Answer> {
    let mut sockets: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.path().join("control.sock"))).collect())
        .unwrap_or_default();
    sockets.retain(|socket| socket.exists());
    sockets.sort();
    let asked = sockets.into_iter().map(|socket| {
        tokio::spawn(async move {
            let folder = socket.parent().and_then(Path::file_name);
            let program = folder.unwrap_or_default().to_string_lossy().into_owned();
            let client = Client::new(program.clone(), socket).with_timeout(LIMIT);
            match client.get_json::<Report>("/v1/group").await {
                Ok(report) => Some(Answer::Report(Box::new(report))),
                // It is in no group, by its nature or as it is configured.
                Err(ClientError::Refused { status: 404, .. }) => None,
                Err(error) => Some(Answer::Silent { program, error: error.to_string() }),
            }
        })
    });
    let mut answers = vec![];
    for one in asked.collect::<Vec<_>>() {
        answers.extend(one.await.ok().flatten());
    }
    answers
}

/// `status`, once.
///
/// # Errors
/// [`NoMember`].
pub async fn status(args: &GroupStatusArgs) -> Result<String, NoMember> {
    let answers = ask(&args.sockets).await;
    if answers.is_empty() {
        return Err(NoMember(args.sockets.clone()));
    }
    if args.json {
        let text = if args.watch { serde_json::to_string } else { serde_json::to_string_pretty };
        return Ok(text(&answers).expect("what came as JSON goes as JSON") + "\n");
    }
    let shown = answers.iter().map(|answer| match answer {
        Answer::Report(report) => text(report),
        Answer::Silent { program, error } => {
            format!("{}: {}\n", printable(program), printable(error))
        }
    });
    Ok(shown.collect::<Vec<_>>().join("\n"))
}

/// `status --watch`, until it is interrupted or nobody reads any more.
///
/// # Errors
/// As [`status`]; or the answer cannot be written.
pub async fn watch(args: &GroupStatusArgs) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    loop {
        let text = status(args).await.or_else(|error| match args.json {
            true => Err(error),
            // It may come back while somebody watches.
            false => Ok(format!("{error}\n")),
        })?;
        // Home, and nothing below.
        let clear = if out.is_terminal() && !args.json { "\x1b[H\x1b[2J" } else { "" };
        write!(out, "{clear}{text}")?;
        out.flush()?;
        tokio::time::sleep(AGAIN).await;
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let Report { program, group, name, sees, of, .. } = report;
    let one = |text: &str| printable(text).into_owned();
    let _ =
        writeln!(text, "{} in group {}: {sees} of {of} members are here", one(program), one(group));
    let manager = match &report.manager {
        Some(manager) if manager == name => "this machine".to_owned(),
        Some(manager) => one(manager),
        None => "none yet".to_owned(),
    };
    let _ = writeln!(text, "manager:  {manager}");
    let _ = writeln!(text, "here:     {}, {}", one(name), one(&report.standing));
    let clock = match report.time_error_us {
        Some(error) => format!("{} ± {}", date(report.time_us), short(error)),
        None => "not known yet".to_owned(),
    };
    let _ = writeln!(text, "clock:    {clock}");
    if let Some(settings) = &report.settings {
        let leader = settings.leader.as_deref().unwrap_or("none");
        let health = if settings.health == "good" { "" } else { &settings.health };
        let voters = settings.voters.len();
        let _ = writeln!(
            text,
            "settings: leader {}, term {}, {voters} voters, entry {}{}{}",
            one(leader),
            settings.term,
            settings.applied.map_or_else(|| "-".to_owned(), |at| at.to_string()),
            if health.is_empty() { "" } else { "; " },
            one(health)
        );
    }
    let key = match &report.other_key {
        Some(other) => format!("{}, accepts {} too: it is being changed", report.key, other),
        None => report.key.clone(),
    };
    let _ = writeln!(text, "key:      {}", one(&key));
    let header = [
        "MEMBER",
        "ADDRESS",
        "STATE",
        "FOR",
        "MANAGER",
        "SEES",
        "NETWORKS",
        "ROUND TRIP",
        "RECORDS",
    ];
    let mut table = Table::new(header);
    for member in &report.members {
        table.row(row(member, report).each_ref().map(String::as_str));
    }
    let _ = write!(text, "\n{table}");
    text
}

fn row(member: &MemberReport, report: &Report) -> [String; 9] {
    let here = member.state == "here";
    let manager = match &member.manager {
        Some(_) if member.active => "itself".to_owned(),
        manager => manager.clone().unwrap_or_default(),
    };
    // All but those that it does not see.
    let mut missing = vec![];
    for other in std::iter::once(&report.name).chain(report.members.iter().map(|m| &m.name)) {
        if *other != member.name && !member.sees.contains(other) {
            missing.push(other.as_str());
        }
    }
    let sees = match missing.len() {
        _ if !here => String::new(),
        0 => "all".to_owned(),
        n if n + 1 == report.of => "nobody".to_owned(),
        n if n > 4 => format!("{} of {}", report.of - n, report.of),
        _ => format!("not {}", missing.join(", ")),
    };
    let networks: Vec<String> = member.networks.iter().map(ToString::to_string).collect();
    let records = match (member.records, member.current) {
        (0, false) => String::new(),
        (count, true) => count.to_string(),
        (count, false) => format!("{count}, last known"),
    };
    [
        member.name.clone(),
        member.address.clone(),
        member.state.clone(),
        ago(member.for_s),
        manager,
        sees,
        networks.join(", "),
        member.round_trip_us.filter(|_| here).map(short).unwrap_or_default(),
        records,
    ]
}

fn short(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

fn ago(s: u64) -> String {
    match s {
        0..120 => format!("{s} s"),
        120..7_200 => format!("{} min", s / 60),
        7_200..172_800 => format!("{} h", s / 3600),
        _ => format!("{} d", s / 86_400),
    }
}

/// A time in UTC, to the millisecond.
fn date(us: i64) -> String {
    let ms = u64::try_from(us).unwrap_or(0) / 1_000;
    format!("{}.{:03} UTC", date_time(ms / 1_000), ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_spans() {
        assert_eq!(date(1_795_268_645_123_456), "2026-11-21 13:44:05.123 UTC");
        assert_eq!((short(999).as_str(), short(1_500).as_str()), ("999 µs", "1.5 ms"));
        assert_eq!((ago(119).as_str(), ago(7_199).as_str()), ("119 s", "119 min"));
    }
}
