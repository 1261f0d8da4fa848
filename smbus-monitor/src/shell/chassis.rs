// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the active manager judges for the whole chassis: members that are lost, modules that are not where they belong, and
//! the load of all together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::identity::disagreements;
use super::monitor::{GROUP, Inner, Monitor};
use crate::core::alerts::{AlertKey, Wanted};
use crate::core::rules::{Edge, Severity};
use crate::core::{Batch, Happened};
use crate::formats::records::Identity;
use crate::metric::{Exported, Meta, Reading, Unit};
use crate::sources::{Whose, now};

/// How often the group's metrics are made, milliseconds.
const INTERVAL_MS: u32 = 1_000;
/// What is told of a module under this name.
const MODULE: &str = "module";
/// What is told of a member under this name.
const MEMBER: &str = "member";

/// Wanted alerts by key.
type Conditions = BTreeMap<AlertKey, Wanted>;

/// What disagrees about where this machine is; each member tells that of itself.
pub fn check_own(monitor: &Monitor) {
    let mut inner = monitor.lock();
    let told = disagreements(&inner.identity);
    let wanted = (!told.is_empty()).then(|| Wanted::plain(Severity::Warning, told.join("; ")));
    let key = (inner.place.clone(), "identity".to_owned(), Edge::Misplaced);
    let happened = inner.core.condition(now(), key, wanted);
    monitor.happened(&mut inner, happened);
}

impl Inner {
    fn modules(&self) -> impl Iterator<Item = (&str, &str, &Identity)> {
        let own = std::iter::once((self.name.as_str(), self.place.as_str(), &self.identity));
        let here = self.others.iter().filter(|(_, other)| other.here);
        own.chain(here.map(|(name, other)| (name.as_str(), other.place.as_str(), &other.identity)))
    }

    /// What is wrong with the members.
    fn conditions(&self) -> Conditions {
        let mut out = Conditions::new();
        for (name, other) in self.others.iter().filter(|(_, other)| other.missed) {
            let text = format!("member {name} is not there: {}", other.away);
            let key = (other.place.clone(), MEMBER.to_owned(), Edge::Lost);
            out.insert(key, Wanted::plain(Severity::Critical, text));
        }
        let mut slots: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, place, identity) in self.modules() {
            if !identity.slot.is_empty() {
                slots.entry(&identity.slot).or_default().push(name);
            }
            let mut wrong = vec![];
            let assigned = self.slots.get(place).map_or("", |slot| &slot.module);
            if !assigned.is_empty() && !identity.module.is_empty() && assigned != identity.module {
                wrong.push(format!("a module {} is where a {assigned} belongs", identity.module));
            }
            let chassis = &self.identity.chassis;
            if !chassis.is_empty() && !identity.chassis.is_empty() && *chassis != identity.chassis {
                wrong.push(format!(
                    "it is in chassis {}, the manager in {chassis}",
                    identity.chassis
                ));
            }
            if !wrong.is_empty() {
                let key = (place.to_owned(), MODULE.to_owned(), Edge::Misplaced);
                out.insert(key, Wanted::plain(Severity::Warning, wrong.join("; ")));
            }
        }
        for (slot, names) in slots.into_iter().filter(|(_, names)| names.len() > 1) {
            let text = format!("{} all say to be in slot {slot}", names.join(", "));
            let key = (slot.to_owned(), "slot".to_owned(), Edge::Misplaced);
            out.insert(key, Wanted::plain(Severity::Critical, text));
        }
        out
    }

    /// A metric of each member that is here.
    fn each(&self, id: &str) -> Vec<f64> {
        let of = |place: &str| {
            let entry = self.core.place(place)?.metrics.get(id)?;
            entry.value.filter(|_| !entry.stale)
        };
        self.modules().filter_map(|(_, place, _)| of(place)).collect()
    }

    fn group_metrics(&self) -> Batch {
        let mean =
            |all: &[f64]| (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64);
        let most = |all: &[f64]| all.iter().copied().reduce(f64::max);
        let (cpu, memory) = (self.each("system/cpu/usage"), self.each("system/memory_used"));
        let here = self.modules().count() as f64;
        let all = [
            ("group/members", Unit::Number, Some(here)),
            ("group/cpu_usage", Unit::Percent, mean(&cpu)),
            ("group/cpu_usage_most", Unit::Percent, most(&cpu)),
            ("group/memory_used", Unit::Percent, mean(&memory)),
            ("group/load1", Unit::Number, Some(self.each("system/load1").iter().sum())),
        ];
        let readings = all.into_iter().filter_map(|(id, unit, value)| {
            let name = format!("smbus_monitor_{}", id.replace('/', "_"));
            let meta = Meta::new(id, "", unit, INTERVAL_MS).exported(Exported::gauge(&name, &[]));
            Some(Reading::new(&Arc::new(meta), value?))
        });
        Batch { source: GROUP.to_owned(), readings: readings.collect(), complete: true }
    }
}

/// Once a second: judges, if this machine is the active manager.
pub fn judge(monitor: &Monitor) -> Option<Batch> {
    let mut inner = monitor.lock();
    let mut wanted = if inner.group.is_some() && monitor.manages() {
        inner.conditions()
    } else {
        Conditions::new()
    };
    let is_ours = |key: &AlertKey| {
        matches!(key.2, Edge::Lost) || (key.2 == Edge::Misplaced && key.1 != "identity")
    };
    let old = inner.core.alerts().iter().map(|a| (a.place.clone(), a.metric.clone(), a.edge));
    let old: Vec<AlertKey> = old.filter(|key| is_ours(key) && !wanted.contains_key(key)).collect();
    if !monitor.manages() {
        // They are the new manager's now, and not over.
        for key in old {
            inner.core.hand_over(&key);
        }
        return None;
    }
    let mut happened: Vec<Happened> = vec![];
    for key in old {
        happened.extend(inner.core.condition(now(), key, None));
    }
    while let Some((key, one)) = wanted.pop_first() {
        happened.extend(inner.core.condition(now(), key, Some(one)));
    }
    let batch = inner.group.is_some().then(|| inner.group_metrics());
    if let Some(batch) = &batch {
        happened.extend(inner.core.batch(now(), GROUP, true, batch));
    }
    monitor.happened(&mut inner, happened);
    batch
}

/// Whose the group's metrics are.
pub const WHOSE: Whose = Whose::Midplane;
/// How often the group is judged.
pub const EVERY: Duration = Duration::from_millis(INTERVAL_MS as u64);
