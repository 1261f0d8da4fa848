// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is done about alerts: programs, webhooks, syslog. Each alert is told of once when it comes, when it matters more
//! or less, and when it is over; each action has a limit of times, beyond which it is done once more, to say how many
//! it did not tell of.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::{UdpSocket, UnixDatagram};
use tokio::process::Command;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::webhook;
use crate::config::{Action, How, Syslog};
use crate::core::Happened;
use crate::core::alerts::{Alert, Event, Kind};
use crate::core::rules::Severity;

/// Things to be done that wait; more are left out, and counted.
const MAX_WAITING: usize = 256;
/// At a time.
const MAX_RUNNING: usize = 4;
/// A program that runs longer is ended.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// Attempts for a webhook, and the pause before the second; each next one is twice as long.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_secs(2);
/// Alerts whose telling is remembered.
const MAX_TOLD: usize = 10_000;

/// What is told.
#[derive(Debug, Clone, Serialize)]
pub struct Told {
    /// Which machine tells it.
    pub teller: String,
    /// The chassis.
    pub chassis: String,
    /// What happened.
    pub event: Event,
    /// The alert.
    pub alert: Alert,
    /// So many were not told of before it, as there were too many.
    pub suppressed: u32,
}

/// Which alerts were told of.
#[derive(Debug, Default)]
pub struct Ledger(BTreeMap<String, Severity>);

impl Ledger {
    /// What the log says was told of: alerts that came, and are not over.
    pub fn from_log<'a>(events: impl Iterator<Item = &'a Event>) -> Self {
        let mut ledger = Self::default();
        for event in events {
            if let Some(id) = &event.alert {
                ledger.note(event.kind, id, event.severity);
            }
        }
        ledger
    }

    fn note(&mut self, kind: Kind, id: &str, severity: Option<Severity>) {
        match (kind, severity) {
            (Kind::Raised | Kind::Changed, Some(severity)) if self.0.len() < MAX_TOLD => {
                self.0.insert(id.to_owned(), severity);
            }
            (Kind::Cleared, _) => drop(self.0.remove(id)),
            _ => {}
        }
    }

    /// Whether this is to be told of; it is taken to be told then.
    pub fn tell(&mut self, kind: Kind, alert: &Alert) -> bool {
        let known = self.0.get(&alert.id).copied();
        let new = match kind {
            Kind::Raised | Kind::Changed => known != Some(alert.severity),
            Kind::Cleared => known.is_some(),
            _ => false,
        };
        self.note(kind, &alert.id, Some(alert.severity));
        new
    }

    /// The manager has told of these, and of nothing else that still is.
    pub fn adopt(&mut self, told: Vec<(String, Severity)>) {
        self.0 = told.into_iter().take(MAX_TOLD).collect();
    }

    /// All that was told of.
    #[must_use]
    pub fn all(&self) -> Vec<(String, Severity)> {
        self.0.iter().map(|(id, severity)| (id.clone(), *severity)).collect()
    }
}

/// How often an action may still be done.
#[derive(Debug, Default)]
struct Bucket {
    /// In thousandths, as time gives parts.
    room: u64,
    at: u64,
    suppressed: u32,
}

impl Bucket {
    fn take(&mut self, now: u64, action: &Action) -> Option<u32> {
        let full = u64::from(action.limit) * 1_000;
        let per = u64::try_from(action.per.as_millis()).unwrap_or(u64::MAX).max(1);
        let passed = now.saturating_sub(self.at);
        let first = self.at == 0;
        self.room = if first {
            full
        } else {
            full.min(self.room.saturating_add(full.saturating_mul(passed) / per))
        };
        self.at = now.max(1);
        if self.room < 1_000 {
            self.suppressed += 1;
            return None;
        }
        self.room -= 1_000;
        Some(std::mem::take(&mut self.suppressed))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Actions {
    actions: Vec<(Arc<Action>, Bucket)>,
    queue: mpsc::Sender<(Arc<Action>, Told)>,
    /// Left out, for want of room.
    pub dropped: u64,
}

impl Actions {
    /// With a task that does them.
    #[must_use]
    pub fn start(actions: Vec<Action>) -> Self {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(work(waiting));
        let actions = actions.into_iter().map(|one| (Arc::new(one), Bucket::default())).collect();
        Self { actions, queue, dropped: 0 }
    }

    /// Something happened that is to be told of.
    pub fn tell(&mut self, now: u64, teller: (&str, &str), happened: &Happened) {
        let Some(alert) = &happened.alert else { return };
        for (action, bucket) in &mut self.actions {
            let concerned = alert.severity >= action.on
                && action.metric.matches(&alert.metric)
                && action.place.matches(&alert.place);
            if !concerned {
                continue;
            }
            let Some(suppressed) = bucket.take(now, action) else { continue };
            let (teller, chassis) = (teller.0.to_owned(), teller.1.to_owned());
            let event = happened.event.clone();
            let told = Told { teller, chassis, event, alert: alert.clone(), suppressed };
            if self.queue.try_send((action.clone(), told)).is_err() {
                self.dropped += 1;
            }
        }
    }
}

async fn work(mut waiting: mpsc::Receiver<(Arc<Action>, Told)>) {
    let places = Arc::new(Semaphore::new(MAX_RUNNING));
    while let Some((action, told)) = waiting.recv().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        tokio::spawn(async move {
            let done = match &action.how {
                How::Command(argv) => run(argv, &told).await,
                How::Webhook(url) => {
                    let body = serde_json::to_vec(&told).unwrap_or_default();
                    let mut done = webhook::post(url, body.clone()).await;
                    for attempt in 1..ATTEMPTS {
                        if done.is_ok() {
                            break;
                        }
                        tokio::time::sleep(PAUSE * 2_u32.pow(attempt - 1)).await;
                        done = webhook::post(url, body.clone()).await;
                    }
                    done
                }
                How::Syslog(place) => log(place, &told).await,
            };
            if let Err(error) = done {
                tracing::warn!(action = action.name, alert = told.alert.id, error, "not told");
            }
            drop(place);
        });
    }
}

async fn run(argv: &[String], told: &Told) -> Result<(), String> {
    let Some((program, arguments)) = argv.split_first() else { return Ok(()) };
    let failed = |error: std::io::Error| format!("{program}: {error}");
    let (event, alert) = (&told.event, &told.alert);
    let kind = serde_json::to_value(event.kind).ok();
    let mut child = Command::new(program)
        .args(arguments)
        .env("ALERT_ID", &alert.id)
        .env("ALERT_KIND", kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or(""))
        .env("ALERT_PLACE", &alert.place)
        .env("ALERT_METRIC", &alert.metric)
        .env("ALERT_SEVERITY", alert.severity.word())
        .env("ALERT_TEXT", &event.text)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let body = serde_json::to_vec(told).unwrap_or_default();
    let talk = async {
        if let Some(mut input) = child.stdin.take() {
            // A program that does not read its input is not at fault.
            let _ = input.write_all(&body).await;
        }
        child.wait().await
    };
    match timeout(COMMAND_LIMIT, talk).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{program} ended with {status}")),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(format!("{program} ran for {} s and was ended", COMMAND_LIMIT.as_secs())),
    }
}

/// A message as RFC 3164 has it, which all daemons of syslog read; facility 3 is of daemons.
fn message(told: &Told) -> String {
    let severity = match (told.event.kind, told.alert.severity) {
        (Kind::Cleared, _) => 5,
        (_, Severity::Critical) => 2,
        (_, Severity::Warning) => 4,
    };
    let priority = 3 * 8 + severity;
    let (alert, text) = (&told.alert, &told.event.text);
    format!("<{priority}>smbus-monitor: [{}] {} {}: {text}", alert.id, alert.place, alert.metric)
}

async fn log(place: &Syslog, told: &Told) -> Result<(), String> {
    let text = message(told);
    let (name, sent) = match place {
        Syslog::Unix(path) => {
            let socket = UnixDatagram::unbound().map_err(|error| error.to_string())?;
            (path.display().to_string(), socket.send_to(text.as_bytes(), path).await)
        }
        Syslog::Udp(host) => {
            let found = tokio::net::lookup_host(host).await.map_err(|e| format!("{host}: {e}"))?;
            let Some(to) = found.into_iter().next() else {
                return Err(format!("{host}: no address"));
            };
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).await.map_err(|error| error.to_string())?;
            (host.clone(), socket.send_to(text.as_bytes(), to).await)
        }
    };
    sent.map(drop).map_err(|error| format!("{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Now;
    use crate::core::alerts::Alerts;
    use crate::core::alerts::Wanted;
    use crate::core::rules::Edge;

    fn alert(severity: Severity) -> Alert {
        let key = ("1".to_owned(), "t".to_owned(), Edge::High);
        let now = Now { mono: 0, wall: 0 };
        let wanted = Wanted::plain(severity, "hot".to_owned());
        Alerts::new("b").set(now, key, Some(wanted)).unwrap().alert
    }

    #[test]
    fn an_alert_is_told_of_once() {
        let mut ledger = Ledger::default();
        let (warning, critical) = (alert(Severity::Warning), alert(Severity::Critical));
        assert!(ledger.tell(Kind::Raised, &warning));
        assert!(!ledger.tell(Kind::Raised, &warning), "the daemon was started again");
        assert!(ledger.tell(Kind::Changed, &critical));
        assert!(!ledger.tell(Kind::Acknowledged, &critical));
        assert!(ledger.tell(Kind::Cleared, &critical));
        assert!(!ledger.tell(Kind::Cleared, &critical));
        ledger.adopt(vec![(warning.id.clone(), Severity::Warning)]);
        assert!(!ledger.tell(Kind::Raised, &warning), "another manager has told of it");
        ledger.adopt(vec![]);
        assert!(ledger.tell(Kind::Raised, &warning), "it was over, and came again");
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let action = Action {
            name: "a".to_owned(),
            on: Severity::Warning,
            metric: crate::pattern::Pattern::any(),
            place: crate::pattern::Pattern::any(),
            how: How::Command(vec![]),
            limit: 2,
            per: Duration::from_secs(60),
        };
        let mut bucket = Bucket::default();
        let taken: Vec<_> = (1..=6).map(|n| bucket.take(n * 1_000, &action)).collect();
        assert_eq!(taken, [Some(0), Some(0), None, None, None, None]);
        assert_eq!(bucket.take(40_000, &action), Some(4));
        assert_eq!(bucket.take(41_000, &action), None);
        let hour: usize =
            (0..3_600).filter(|s| bucket.take(41_000 + s * 1_000, &action).is_some()).count();
        assert!((118..=123).contains(&hour), "{hour}");
    }
}
