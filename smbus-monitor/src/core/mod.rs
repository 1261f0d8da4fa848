// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a member knows and decides: values, their history, limits, alerts. It is told what was read and what time it is,
//! and answers with what happened. No clock, no file, no task.

pub mod alerts;
mod entry;
pub mod history;
pub mod rules;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::metric::{Meta, Reading, cut};
pub use entry::Entry;

use alerts::{Alert, AlertKey, Alerts, Change, Event, Kind, Wanted};
use history::Depth;
use rules::{Edge, Rules, Severity};

/// Most metrics of one place.
pub const MAX_METRICS: usize = 10_000;
/// Most places: members, slots, and what is the chassis' own.
pub const MAX_PLACES: usize = 256;
/// What gave no value for so long is forgotten, in milliseconds; an operator has seen its alert or never will.
pub const FORGET_MS: u64 = 24 * 3_600_000;

/// Ticks come every second; when they are so far apart, in milliseconds, this machine stood still.
const STALL_MS: u64 = 2_500;
/// After that its sources have so long to catch up.
const LENIENT_MS: u64 = 5_000;

/// A moment, by two clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds by the clock that never goes back and counts while the machine sleeps.
    pub mono: u64,
    /// Milliseconds since 1970, for people; it may jump.
    pub wall: u64,
}

/// What a source has read.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Which source: what stands before the first `/` of its metrics' ids.
    pub source: String,
    /// The values.
    pub readings: Vec<Reading>,
    /// What is not among them is no more: a file system that was unmounted. A sensor that is not among them is missed.
    pub complete: bool,
}

/// A place's metrics.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// By id.
    pub metrics: BTreeMap<String, Entry>,
    /// Whether this member judges them; else their owner does.
    pub judged: bool,
    /// Metrics that found no room.
    pub dropped: u64,
}

/// Something happened, and, if it is about one, the alert as it is now, or as it was when it ended.
#[must_use]
#[derive(Debug, Clone, PartialEq)]
pub struct Happened {
    /// For the log.
    pub event: Event,
    /// For the actions.
    pub alert: Option<Alert>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Core {
    places: BTreeMap<String, Place>,
    rules: Rules,
    alerts: Alerts,
    seq: u64,
    depth: Option<Depth>,
    /// When the last tick was, and until when nobody is accused of being late: this machine itself was.
    ticked: u64,
    lenient: u64,
    out: Vec<Happened>,
}

impl Core {
    /// Nothing yet, in a boot. The events' numbers go on after `seq`.
    #[must_use]
    pub fn new(boot: &str, seq: u64, rules: Rules) -> Self {
        Self { alerts: Alerts::new(boot), seq, rules, ..Self::default() }
    }

    /// All places.
    pub fn places(&self) -> impl Iterator<Item = (&String, &Place)> {
        self.places.iter()
    }

    /// One of them.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<&Place> {
        self.places.get(name)
    }

    /// The alerts of what this member judges.
    #[must_use]
    pub fn alerts(&self) -> &Alerts {
        &self.alerts
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// There are other rules. What has no limit any more ends its alerts with its next value.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
        for (name, place) in &mut self.places {
            for entry in place.metrics.values_mut() {
                entry.effective = self.rules.effective(name, &entry.meta);
            }
        }
    }

    /// A source of a place has read its metrics. `judged`: they are this member's to judge.
    pub fn batch(&mut self, now: Now, place: &str, judged: bool, batch: &Batch) -> Vec<Happened> {
        if !self.places.contains_key(place) && self.places.len() >= MAX_PLACES {
            return vec![];
        }
        let depth = self.depth();
        let at = self.places.entry(place.to_owned()).or_default();
        at.judged = judged;
        let (mut grown, mut fresh) = (false, false);
        let source: Arc<str> = batch.source.as_str().into();
        for reading in &batch.readings {
            let id = &reading.meta.id;
            if !at.metrics.contains_key(id) {
                if at.metrics.len() >= MAX_METRICS {
                    at.dropped += 1;
                    continue;
                }
                let effective = self.rules.effective(place, &reading.meta);
                at.metrics
                    .insert(id.clone(), Entry::new(reading.meta.clone(), &source, now, effective));
                grown = true;
            }
            let Some(entry) = at.metrics.get_mut(id) else { continue };
            if entry.meta != reading.meta {
                entry.meta = reading.meta.clone();
                entry.effective = self.rules.effective(place, &reading.meta);
            }
            entry.take(now, reading, depth);
            fresh |= reading.value.is_ok();
        }
        if judged && fresh {
            self.want(now, (place.to_owned(), batch.source.clone(), Edge::Stale), None);
        }
        if grown {
            self.depth = None;
        }
        if batch.complete {
            self.drop_missing(now, place, batch);
        }
        if judged {
            let ids: Vec<String> = batch.readings.iter().map(|r| r.meta.id.clone()).collect();
            for id in ids {
                self.judge(now, place, &id);
            }
        }
        std::mem::take(&mut self.out)
    }

    /// What another member measured before this program's start, at a time of the wall. What was heard since is newer.
    pub fn recall(&mut self, now: Now, wall: u64, place: &str, values: Vec<(Meta, f64)>) {
        if self.places.contains_key(place) || self.places.len() >= MAX_PLACES {
            return;
        }
        let at = self.places.entry(place.to_owned()).or_default();
        for (meta, value) in values.into_iter().take(MAX_METRICS) {
            let (meta, source) = (Arc::new(meta), Arc::from(""));
            let effective = self.rules.effective(place, &meta);
            let mut entry = Entry::new(meta.clone(), &source, now, effective);
            (entry.value, entry.at.wall) = (Some(value), wall);
            (entry.stale, entry.recalled) = (true, true);
            at.metrics.insert(meta.id.clone(), entry);
        }
        self.depth = None;
    }

    fn depth(&mut self) -> Depth {
        let places = &self.places;
        let count = || Depth::of(places.values().map(|place| place.metrics.len()).sum());
        *self.depth.get_or_insert_with(count)
    }

    fn drop_missing(&mut self, now: Now, place: &str, batch: &Batch) {
        let Some(at) = self.places.get_mut(place) else { return };
        let there: BTreeSet<&str> = batch.readings.iter().map(|r| r.meta.id.as_str()).collect();
        let of = |id: &str| id.split('/').next() == Some(batch.source.as_str());
        let gone = at.metrics.keys().filter(|id| of(id) && !there.contains(id.as_str()));
        for id in gone.cloned().collect::<Vec<_>>() {
            self.forget(now, place, &id);
        }
    }

    fn forget(&mut self, now: Now, place: &str, id: &str) {
        if let Some(at) = self.places.get_mut(place)
            && let Some(gone) = at.metrics.remove(id)
            && !at.metrics.values().any(|entry| entry.source == gone.source)
        {
            self.want(now, (place.to_owned(), gone.source.to_string(), Edge::Stale), None);
        }
        for change in self.alerts.end(place, id) {
            self.changed(now, change);
        }
    }

    /// A place is no more.
    pub fn remove_place(&mut self, now: Now, place: &str) -> Vec<Happened> {
        let ids = self.places.get(place).map(|at| at.metrics.keys().cloned().collect::<Vec<_>>());
        for id in ids.unwrap_or_default() {
            self.forget(now, place, &id);
        }
        self.places.remove(place);
        std::mem::take(&mut self.out)
    }

    /// Places whose metrics this member judges no more: another is the manager. Their alerts are its.
    pub fn stop_judging(&mut self, place: &str) {
        if let Some(at) = self.places.get_mut(place) {
            at.judged = false;
            let ids: Vec<String> = at.metrics.keys().cloned().collect();
            for id in ids {
                drop(self.alerts.end(place, &id));
            }
        }
    }

    /// Time has passed: once a second.
    pub fn tick(&mut self, now: Now) -> Vec<Happened> {
        // Whoever stood still himself has heard nobody meanwhile.
        if now.mono > self.ticked + STALL_MS {
            self.lenient = now.mono + LENIENT_MS;
        }
        self.ticked = now.mono;
        let (mut late, mut old, mut silent) = (vec![], vec![], vec![]);
        for (name, place) in &mut self.places {
            let mut sources: BTreeMap<Arc<str>, Source> = BTreeMap::new();
            for (id, entry) in &mut place.metrics {
                let age = entry.age_ms(now);
                let stale = age > u64::from(entry.meta.good_for_ms);
                if stale && (entry.stale || now.mono >= self.lenient) {
                    entry.stale = true;
                }
                if age > FORGET_MS {
                    old.push((name.clone(), id.clone()));
                }
                let of = sources.entry(entry.source.clone()).or_default();
                of.fresh |= !entry.stale;
                of.error = of.error.take().or_else(|| entry.error.clone());
                if entry.stale {
                    of.late.push(id.clone());
                }
            }
            for (source, of) in sources.into_iter().filter(|_| place.judged) {
                if of.fresh {
                    late.extend(of.late.into_iter().map(|id| (name.clone(), id)));
                } else {
                    silent.push(((name.clone(), source.to_string(), Edge::Stale), of));
                }
            }
        }
        for (place, id) in late {
            self.judge_late(now, &place, &id);
        }
        for (key, of) in silent {
            // One alert for all of it.
            for id in &of.late {
                self.want(now, (key.0.clone(), id.clone(), Edge::Stale), None);
            }
            self.want(now, key, Some(of.wanted()));
        }
        for (place, id) in old {
            self.forget(now, &place, &id);
        }
        std::mem::take(&mut self.out)
    }

    fn judge_late(&mut self, now: Now, place: &str, id: &str) {
        let entry = self.places.get(place).and_then(|at| at.metrics.get(id));
        let Some(wanted) = entry.map(|entry| entry.watch.missed(&entry.meta, entry)) else {
            return;
        };
        self.want(now, (place.to_owned(), id.to_owned(), Edge::Stale), Some(wanted));
    }

    /// Compares a metric with what holds for it.
    fn judge(&mut self, now: Now, place: &str, id: &str) {
        let Some(entry) = self.places.get_mut(place).and_then(|at| at.metrics.get_mut(id)) else {
            return;
        };
        for (edge, wanted) in entry.judge(now) {
            self.want(now, (place.to_owned(), id.to_owned(), edge), wanted);
        }
    }

    /// Something that is no metric is wrong, or is not wrong any more.
    pub fn condition(&mut self, now: Now, key: AlertKey, wanted: Option<Wanted>) -> Vec<Happened> {
        self.want(now, key, wanted);
        std::mem::take(&mut self.out)
    }

    /// An alert is another member's to judge from now on: it is not over.
    pub fn hand_over(&mut self, key: &AlertKey) {
        self.alerts.hand_over(key);
    }

    fn want(&mut self, now: Now, key: AlertKey, wanted: Option<Wanted>) {
        if let Some(change) = self.alerts.set(now, key, wanted) {
            self.changed(now, change);
        }
    }

    /// Somebody takes note of an alert; nothing happens if there is no such alert.
    pub fn acknowledge(&mut self, now: Now, id: &str, by: &str) -> Vec<Happened> {
        if let Some(change) = self.alerts.acknowledge(now, id, by) {
            self.changed(now, change);
        }
        std::mem::take(&mut self.out)
    }

    fn changed(&mut self, now: Now, Change { kind, alert }: Change) {
        let text = match kind {
            Kind::Cleared => format!("over: {}", alert.text),
            Kind::Acknowledged => {
                let by = alert.acknowledged.as_ref().map_or("", |ack| &ack.by);
                format!("acknowledged by {by}: {}", alert.text)
            }
            _ => alert.text.clone(),
        };
        let severity = (kind != Kind::Cleared).then_some(alert.severity);
        let mut happened = self.event(now, kind, &alert.place, severity, &text);
        happened.event.metric.clone_from(&alert.metric);
        happened.event.alert = Some(alert.id.clone());
        happened.alert = Some(alert);
        self.out.push(happened);
    }

    /// Something else happened.
    pub fn event(
        &mut self,
        now: Now,
        kind: Kind,
        place: &str,
        severity: Option<Severity>,
        text: &str,
    ) -> Happened {
        self.seq += 1;
        let event = Event {
            seq: self.seq,
            at_ms: now.wall,
            kind,
            place: place.to_owned(),
            metric: String::new(),
            severity,
            text: cut(text, alerts::MAX_TEXT),
            alert: None,
        };
        Happened { event, alert: None }
    }

    /// Bytes that the histories take.
    #[must_use]
    pub fn history_bytes(&self) -> usize {
        let entries = self.places.values().flat_map(|place| place.metrics.values());
        entries.map(|entry| entry.history.bytes()).sum()
    }
}

/// What is late of a source.
#[derive(Debug, Default)]
struct Source {
    fresh: bool,
    late: Vec<String>,
    error: Option<String>,
}

impl Source {
    fn wanted(&self) -> Wanted {
        let why = self.error.as_deref().unwrap_or("it is late, or hangs");
        let count = self.late.len();
        Wanted::plain(
            Severity::Warning,
            format!("none of its {count} metrics has a new value: {why}"),
        )
    }
}

#[cfg(test)]
mod tests;
