// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is wrong now, and what happened. There is one alert for a metric and an edge; in one boot it has one id,
//! however often it comes, and wherever it is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Now;
use super::rules::{Edge, Severity};
use crate::metric::{Unit, cut};

/// Most alerts at a time; what comes beyond them is counted and in the log.
pub const MAX_ALERTS: usize = 1_000;
/// Ids whose number of times is remembered.
const MAX_COUNTED: usize = 10_000;
/// Most bytes of a text.
pub const MAX_TEXT: usize = 400;

/// The place of what is the chassis' own.
pub const MIDPLANE: &str = "midplane";
/// The place of what is the group's as a whole.
pub const GROUP: &str = "group";

/// Something is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Eight hexadecimal digits made of place, metric, edge, and, where a member judges itself, its boot.
    pub id: String,
    /// Where: a slot, a member, `midplane`, `group`.
    pub place: String,
    /// Which metric; for the edges `lost` and `misplaced`, what is concerned.
    pub metric: String,
    /// Which limit.
    pub edge: Edge,
    /// How much it matters.
    pub severity: Severity,
    /// The last value that mattered to it.
    pub value: Option<f64>,
    /// The limit.
    pub limit: Option<f64>,
    /// Of both.
    pub unit: Option<Unit>,
    /// In words.
    pub text: String,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// How often it came in this boot.
    pub count: u32,
    /// Who has taken note of it, and when.
    pub acknowledged: Option<Ack>,
}

/// Somebody has taken note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Who.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An alert came.
    Raised,
    /// An alert matters more or less than before.
    Changed,
    /// An alert is over.
    Cleared,
    /// Somebody has taken note of an alert.
    Acknowledged,
    /// A member came or went, or another is the manager.
    Group,
    /// A module came, went, or is another one.
    Module,
    /// Power was switched, or was to be.
    Power,
    /// The program: it started, it stopped, its log had no room.
    Program,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// One more than that of the event before; with the epoch the order is certain, whatever the clock did.
    pub seq: u64,
    /// When, in milliseconds since 1970, by this machine's clock.
    pub at_ms: u64,
    /// What.
    pub kind: Kind,
    /// Where.
    pub place: String,
    /// Of which metric, or nothing.
    pub metric: String,
    /// How much it matters; none for what is as it should be.
    pub severity: Option<Severity>,
    /// In words.
    pub text: String,
    /// Of which alert.
    pub alert: Option<String>,
}

/// Names an alert.
pub type AlertKey = (String, String, Edge);

/// All alerts of one member.
#[derive(Debug, Clone, Default)]
pub struct Alerts {
    boot: String,
    active: BTreeMap<AlertKey, Alert>,
    counts: BTreeMap<String, u32>,
    /// Those that found no room.
    pub dropped: u64,
}

/// A change, with the alert as it is now; when it was cleared, as it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// `Raised`, `Changed`, `Cleared` or `Acknowledged`.
    pub kind: Kind,
    /// The alert.
    pub alert: Alert,
}

/// What an alert is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// How much it matters.
    pub severity: Severity,
    /// Value, limit, and their unit.
    pub value: Option<f64>,
    /// See `value`.
    pub limit: Option<f64>,
    /// See `value`.
    pub unit: Option<Unit>,
    /// In words.
    pub text: String,
}

impl Wanted {
    /// One that is about no number.
    #[must_use]
    pub fn plain(severity: Severity, text: String) -> Self {
        Self { severity, value: None, limit: None, unit: None, text }
    }
}

impl Alerts {
    /// None, in a boot.
    #[must_use]
    pub fn new(boot: &str) -> Self {
        Self { boot: boot.to_owned(), ..Self::default() }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Alert> {
        self.active.values()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, key: &AlertKey) -> Option<&Alert> {
        self.active.get(key)
    }

    fn id(&self, (place, metric, edge): &AlertKey) -> String {
        // What the manager judges is the same alert when another is the manager, in whatever boot that is.
        let of_manager = [MIDPLANE, GROUP].contains(&place.as_str())
            || matches!(edge, Edge::Lost | Edge::Misplaced);
        let boot = if of_manager { "" } else { &self.boot };
        let text = format!("{place}\0{metric}\0{}\0{boot}", edge.word());
        format!("{:08x}", crc32fast::hash(text.as_bytes()))
    }

    /// An alert is to be there like this, or not at all.
    pub fn set(&mut self, now: Now, key: AlertKey, wanted: Option<Wanted>) -> Option<Change> {
        let Some(Wanted { severity, value, limit, unit, text }) = wanted else {
            let alert = self.active.remove(&key)?;
            return Some(Change { kind: Kind::Cleared, alert });
        };
        let text = cut(&text, MAX_TEXT);
        if let Some(alert) = self.active.get_mut(&key) {
            let same = alert.severity == severity;
            *alert = Alert { severity, value, limit, unit, text, ..alert.clone() };
            if same {
                return None;
            }
            // What is worse than what somebody has taken note of is new.
            alert.acknowledged = None;
            return Some(Change { kind: Kind::Changed, alert: alert.clone() });
        }
        if self.active.len() >= MAX_ALERTS {
            self.dropped += 1;
            return None;
        }
        let id = self.id(&key);
        if self.counts.len() >= MAX_COUNTED {
            self.counts.clear();
        }
        let count = self.counts.entry(id.clone()).or_default();
        *count = count.saturating_add(1);
        let (place, metric, edge) = key.clone();
        let (since_ms, count) = (now.wall, *count);
        let alert = Alert {
            id,
            place,
            metric,
            edge,
            severity,
            value,
            limit,
            unit,
            text,
            since_ms,
            count,
            acknowledged: None,
        };
        self.active.insert(key, alert.clone());
        Some(Change { kind: Kind::Raised, alert })
    }

    /// Somebody takes note of an alert. None if there is no such alert; it may have been taken note of before.
    pub fn acknowledge(&mut self, now: Now, id: &str, by: &str) -> Option<Change> {
        let alert = self.active.values_mut().find(|alert| alert.id == id)?;
        alert.acknowledged = Some(Ack { by: cut(by, 64), at_ms: now.wall });
        Some(Change { kind: Kind::Acknowledged, alert: alert.clone() })
    }

    /// An alert is another's from now on.
    pub fn hand_over(&mut self, key: &AlertKey) {
        self.active.remove(key);
    }

    /// The alerts of a metric are over: it is no more.
    pub fn end(&mut self, place: &str, metric: &str) -> Vec<Change> {
        let of = |key: &AlertKey| key.0 == place && key.1 == metric;
        let gone: Vec<_> = self.active.keys().filter(|key| of(key)).cloned().collect();
        let gone = gone.into_iter().filter_map(|key| self.active.remove(&key));
        gone.map(|alert| Change { kind: Kind::Cleared, alert }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now { mono: 1000, wall: 5000 };

    fn key(edge: Edge) -> AlertKey {
        ("1".to_owned(), "t".to_owned(), edge)
    }

    fn wanted(severity: Severity) -> Option<Wanted> {
        Some(Wanted::plain(severity, "hot".to_owned()))
    }

    #[test]
    fn it_comes_changes_and_goes_once() {
        let mut alerts = Alerts::new("boot");
        let raised = alerts.set(NOW, key(Edge::High), wanted(Severity::Warning)).unwrap();
        assert_eq!((raised.kind, raised.alert.count), (Kind::Raised, 1));
        assert_eq!(alerts.set(NOW, key(Edge::High), wanted(Severity::Warning)), None);
        let id = raised.alert.id;
        assert!(alerts.acknowledge(NOW, &id, "anna").is_some());
        assert!(alerts.acknowledge(NOW, "00000000", "anna").is_none());
        let worse = alerts.set(NOW, key(Edge::High), wanted(Severity::Critical)).unwrap();
        assert_eq!((worse.kind, worse.alert.acknowledged), (Kind::Changed, None));
        let cleared = alerts.set(NOW, key(Edge::High), None).unwrap();
        assert_eq!(cleared.kind, Kind::Cleared);
        assert_eq!(alerts.set(NOW, key(Edge::High), None), None);
        let again = alerts.set(NOW, key(Edge::High), wanted(Severity::Warning)).unwrap().alert;
        assert_eq!((again.id.as_str(), again.count), (id.as_str(), 2));
        let other = alerts.set(NOW, key(Edge::Low), wanted(Severity::Warning)).unwrap().alert;
        assert_ne!(other.id, id);
        assert_eq!(alerts.end("1", "t").len(), 2);
        let mut boot = Alerts::new("another");
        let of_chassis = (MIDPLANE.to_owned(), "t".to_owned(), Edge::High);
        let [a, b] = [&mut alerts, &mut boot].map(|one| {
            one.set(NOW, of_chassis.clone(), wanted(Severity::Warning)).unwrap().alert.id
        });
        assert_eq!(a, b, "another manager judges the same");
        assert_ne!(boot.set(NOW, key(Edge::High), wanted(Severity::Warning)).unwrap().alert.id, id);
    }

    #[test]
    fn there_is_an_end_to_them() {
        let mut alerts = Alerts::new("boot");
        for n in 0..=MAX_ALERTS {
            let key = ("1".to_owned(), n.to_string(), Edge::High);
            alerts.set(NOW, key, wanted(Severity::Warning));
        }
        assert_eq!((alerts.iter().count(), alerts.dropped), (MAX_ALERTS, 1));
    }
}
