// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be seen of the whole chassis from here.

use std::collections::BTreeMap;

use super::monitor::{Inner, identity_report};
use crate::core::Now;
use crate::core::alerts::Alert;
use crate::core::rules::{Edge, Severity};
use crate::report::{HistoryReport, IdentityReport, Sensor, SlotReport};
use crate::sources::now;

impl Inner {
    /// Where the manager's HTTP is reached.
    pub(super) fn manager_http(&self) -> Option<String> {
        let manager = self.manager.as_ref()?;
        let identity = if *manager == self.name {
            &self.identity
        } else {
            &self.others.get(manager)?.identity
        };
        Some(identity.http.clone()).filter(|http| !http.is_empty())
    }

    /// All alerts, ours and those that others tell of; each once.
    #[must_use]
    pub fn all_alerts(&self) -> Vec<Alert> {
        let own = self.core.alerts().iter();
        let others = self.others.values().filter(|other| other.here).flat_map(|o| &o.alerts);
        let mut all: BTreeMap<&str, &Alert> =
            others.map(|alert| (alert.id.as_str(), alert)).collect();
        all.extend(own.map(|alert| (alert.id.as_str(), alert)));
        let mut all: Vec<Alert> = all.into_values().cloned().collect();
        all.sort_by(|a, b| (b.severity, b.since_ms, &a.id).cmp(&(a.severity, a.since_ms, &b.id)));
        all
    }

    /// What users call a place.
    #[must_use]
    pub fn name_of(&self, place: &str) -> String {
        let named = self.slots.get(place).filter(|slot| !slot.name.is_empty());
        named.map_or_else(|| place.to_owned(), |slot| slot.name.clone())
    }

    /// The place that a user means: a place, a name that was given to one, or a member's name.
    #[must_use]
    pub fn place_named(&self, text: &str) -> Option<String> {
        let known = |place: &String| {
            *place == self.place
                || self.slots.contains_key(place)
                || self.core.place(place).is_some()
        };
        let text = text.to_owned();
        if known(&text) {
            return Some(text);
        }
        if let Some((place, _)) = self.slots.iter().find(|(_, slot)| slot.name == text) {
            return Some(place.clone());
        }
        if text == self.name {
            return Some(self.place.clone());
        }
        self.others.get(&text).map(|other| other.place.clone())
    }

    fn is_last_known(&self, place: &str) -> bool {
        let of = self.others.values().filter(|other| other.place == place);
        place != self.place && of.clone().count() > 0 && of.clone().all(|other| !other.here)
    }

    /// The metrics of a place, or of all.
    #[must_use]
    pub fn sensors(&self, place: Option<&str>, now: Now) -> Vec<Sensor> {
        let mut out = vec![];
        for (name, found) in self.core.places().filter(|(name, _)| place.is_none_or(|p| p == *name))
        {
            let last_known = self.is_last_known(name);
            for (id, entry) in &found.metrics {
                let state = match entry.level() {
                    _ if last_known => "last known",
                    _ if entry.stale || entry.value.is_none() => "stale",
                    Some(severity) => severity.word(),
                    None => self.level_told(name, id),
                };
                out.push(Sensor {
                    place: name.clone(),
                    metric: id.clone(),
                    label: entry.meta.label.clone(),
                    value: entry.value,
                    unit: entry.meta.unit,
                    state: state.to_owned(),
                    age_s: entry.age_ms(now) as f64 / 1000.0,
                    limits: entry.effective.limits,
                    rule: entry.effective.rule.clone(),
                    error: entry.error.clone(),
                });
            }
        }
        out
    }

    /// What another member says of its metric.
    fn level_told(&self, place: &str, metric: &str) -> &'static str {
        let of = self.others.values().filter(|other| other.place == place).flat_map(|o| &o.alerts);
        let of = of.filter(|alert| alert.metric == metric && alert.limit.is_some());
        of.map(|alert| alert.severity).max().map_or("ok", Severity::word)
    }

    /// What a metric was.
    #[must_use]
    pub fn history(&self, place: &str, metric: &str, window_ms: u64) -> Option<HistoryReport> {
        let entry = self.core.place(place)?.metrics.get(metric)?;
        Some(HistoryReport {
            place: place.to_owned(),
            metric: metric.to_owned(),
            unit: entry.meta.unit,
            limits: entry.effective.limits,
            points: entry.points(now(), window_ms),
        })
    }

    /// All slots, with who is there.
    #[must_use]
    pub fn slot_reports(&self) -> Vec<SlotReport> {
        let own = (self.name.clone(), self.place.clone(), &self.identity, true);
        let others =
            self.others.iter().map(|(n, o)| (n.clone(), o.place.clone(), &o.identity, o.here));
        let mut out: Vec<SlotReport> = vec![];
        for (member, place, identity, here) in std::iter::once(own).chain(others) {
            let setting = self.slots.get(&place).cloned().unwrap_or_default();
            let identity = identity_report(identity);
            let state = if here { "here" } else { "last known" }.to_owned();
            let (name, assigned) = (setting.name, setting.module);
            out.push(SlotReport {
                place,
                name,
                assigned,
                member,
                state,
                identity,
                problems: vec![],
            });
        }
        for (place, setting) in &self.slots {
            if !out.iter().any(|one| one.place == *place) {
                out.push(SlotReport {
                    place: place.clone(),
                    name: setting.name.clone(),
                    assigned: setting.module.clone(),
                    member: String::new(),
                    state: "empty".to_owned(),
                    identity: IdentityReport::default(),
                    problems: vec![],
                });
            }
        }
        let misplaced: Vec<_> =
            self.all_alerts().into_iter().filter(|alert| alert.edge == Edge::Misplaced).collect();
        for one in &mut out {
            let of = misplaced.iter().filter(|alert| alert.place == one.place);
            one.problems = of.map(|alert| alert.text.clone()).collect();
        }
        let number = |place: &str| (place.parse::<u32>().unwrap_or(u32::MAX), place.to_owned());
        out.sort_by_key(|one| (number(&one.place), one.member.clone()));
        out
    }
}
