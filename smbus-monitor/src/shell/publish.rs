// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the members tell one another of their metrics: what they are once, their values as they come; and what is made of
//! what others tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use group::core::records::Change;
use group::wire::{Class, Key};

use crate::config::GroupConfig;
use crate::core::Batch;
use crate::core::alerts::Alert;
use crate::core::rules::Severity;
use crate::formats::records::{Identity, Metas, PART, Values, decode, encode, hash};
use crate::metric::{Meta, Reading};
use crate::sources::Whose;

/// Alerts of one record.
const ALERTS: usize = 60;
/// Parts of one source that are read of another member.
const MAX_PARTS: usize = 512;

fn set(key: &str, class: Class, value: Vec<u8>) -> Option<Change> {
    Some(Change::Set(key.parse::<Key>().ok()?, class, value.into()))
}

/// What a source last told.
#[derive(Debug, Default)]
struct Source {
    metas: Vec<Arc<Meta>>,
    hashes: Vec<u32>,
    at: u64,
    midplane: bool,
}

/// What this member tells.
#[derive(Debug, Default)]
pub struct Publisher {
    sources: BTreeMap<String, Source>,
    alerts: usize,
}

fn goes_out(config: &GroupConfig, id: &str) -> bool {
    config.replicate.iter().any(|p| p.matches(id)) && !config.keep.iter().any(|p| p.matches(id))
}

impl Publisher {
    /// A source was read.
    pub fn batch(
        &mut self,
        config: &GroupConfig,
        now: u64,
        whose: Whose,
        batch: &Batch,
    ) -> Vec<Change> {
        let mut out = vec![];
        let source = self.sources.entry(batch.source.clone()).or_default();
        let interval = u64::try_from(config.interval.as_millis()).unwrap_or(u64::MAX);
        // A tenth earlier: sources are read at whole multiples, and some a little late.
        if now < source.at.saturating_add(interval - interval / 10) {
            return out;
        }
        source.at = now;
        source.midplane = whose == Whose::Midplane;
        let told: Vec<&Reading> =
            batch.readings.iter().filter(|r| goes_out(config, &r.meta.id)).collect();
        let same = source.metas.len() == told.len()
            && source
                .metas
                .iter()
                .zip(&told)
                .all(|(meta, one)| Arc::ptr_eq(meta, &one.meta) || **meta == *one.meta);
        if !same {
            let parts = source.hashes.len();
            source.metas = told.iter().map(|one| one.meta.clone()).collect();
            source.hashes.clear();
            for (n, part) in told.chunks(PART).enumerate() {
                let metas = part.iter().map(|one| Meta::clone(&one.meta)).collect();
                let bytes = encode(&Metas { midplane: source.midplane, metas });
                source.hashes.push(hash(&bytes));
                out.extend(set(&format!("metas/{}/{n}", batch.source), Class::Static, bytes));
            }
            for n in source.hashes.len()..parts {
                out.extend(removed(&batch.source, n));
            }
        }
        for (n, part) in told.chunks(PART).enumerate() {
            let any_total = part.iter().any(|one| one.total.is_some());
            let totals = part.iter().map(|one| one.total).collect();
            let error = |(at, one): (usize, &&Reading)| {
                Some((at as u16, one.value.as_ref().err()?.clone()))
            };
            let values = Values {
                of: source.hashes.get(n).copied().unwrap_or(0),
                values: part.iter().map(|one| one.value.as_ref().ok().copied()).collect(),
                totals: if any_total { totals } else { vec![] },
                errors: part.iter().enumerate().filter_map(error).collect(),
            };
            out.extend(set(
                &format!("values/{}/{n}", batch.source),
                Class::Dynamic,
                encode(&values),
            ));
        }
        out
    }

    /// This member is the manager no more: the midplane is somebody else's to tell of.
    pub fn forget_midplane(&mut self) -> Vec<Change> {
        let gone: Vec<String> = self
            .sources
            .iter()
            .filter(|(_, source)| source.midplane)
            .map(|(name, _)| name.clone())
            .collect();
        let mut out = vec![];
        for name in gone {
            let parts = self.sources.remove(&name).map_or(0, |source| source.hashes.len());
            out.extend((0..parts).flat_map(|n| removed(&name, n)));
        }
        out
    }

    /// All alerts of this member.
    pub fn alerts<'a>(&mut self, alerts: impl Iterator<Item = &'a Alert>) -> Vec<Change> {
        let all: Vec<&Alert> = alerts.collect();
        let mut out: Vec<Change> = all
            .chunks(ALERTS)
            .enumerate()
            .filter_map(|(n, part)| set(&format!("alerts/{n}"), Class::Dynamic, encode(&part)))
            .collect();
        let parts = out.len();
        let gone = (parts..self.alerts).filter_map(|n| format!("alerts/{n}").parse().ok());
        out.extend(gone.map(Change::Remove));
        self.alerts = parts;
        out
    }
}

fn removed(source: &str, n: usize) -> Vec<Change> {
    let keys = ["metas", "values"].map(|what| format!("{what}/{source}/{n}").parse().ok());
    keys.into_iter().flatten().map(Change::Remove).collect()
}

/// Who this member is.
#[must_use]
pub fn identity(identity: &Identity) -> Option<Change> {
    set("identity", Class::Static, encode(identity))
}

/// Which alerts the manager has told of. As many as find room: the others would be told again.
#[must_use]
pub fn acted(told: &[(String, Severity)]) -> Option<Change> {
    let told = &told[..told.len().min(3_000)];
    set("acted", Class::Dynamic, encode(&told))
}

/// A record of another member: its key, its version, what it says.
pub type Told = (String, u64, Arc<[u8]>);

/// What is made of another member's records.
#[derive(Debug, Default)]
pub struct Follower {
    metas: BTreeMap<String, (u32, bool, Vec<Arc<Meta>>)>,
    seen: BTreeMap<String, u64>,
    alerts: BTreeMap<String, Vec<Alert>>,
}

/// News of a member.
#[derive(Debug, Default)]
pub struct News {
    /// Who it is, if that is new.
    pub identity: Option<Identity>,
    /// New values, and whose they are.
    pub batches: Vec<(Whose, Batch)>,
    /// All its alerts, if they changed.
    pub alerts: Option<Vec<Alert>>,
    /// Which alerts it has told of, if that changed.
    pub acted: Option<Vec<(String, Severity)>>,
}

impl Follower {
    /// All its alerts, as far as it has told them in this life.
    #[must_use]
    pub fn alerts(&self) -> Vec<Alert> {
        self.alerts.values().flatten().cloned().collect()
    }

    /// It is the manager now: what it tells as such, and what was not taken from it before, is news again.
    pub fn hear_again_as_manager(&mut self) {
        let of_manager = self.metas.iter().filter(|(_, (_, midplane, _))| *midplane);
        for (part, _) in of_manager {
            self.seen.remove(&format!("values/{part}"));
        }
        self.seen.remove("acted");
    }

    /// All its records, as they are now. What makes no sense is left out: it is of a newer version, or of a member that
    /// lies, which can do so of itself alone.
    pub fn follow(&mut self, records: &[Told]) -> News {
        let mut news = News::default();
        let there: BTreeSet<&str> = records.iter().map(|record| record.0.as_str()).collect();
        let gone = self.alerts.len();
        self.alerts.retain(|key, _| there.contains(key.as_str()));
        let mut alerts = self.alerts.len() != gone;
        self.metas.retain(|key, _| there.contains(format!("metas/{key}").as_str()));
        self.seen.retain(|key, _| there.contains(key.as_str()));
        // Keys come in their order: metas before values.
        for (key, version, bytes) in records {
            if self.seen.insert(key.clone(), *version) == Some(*version) {
                continue;
            }
            if key == "identity" {
                news.identity = decode(bytes);
            } else if key == "acted" {
                news.acted = decode(bytes);
            } else if key.starts_with("alerts/") {
                self.alerts.insert(key.clone(), decode(bytes).unwrap_or_default());
                alerts = true;
            } else if let Some(part) = key.strip_prefix("metas/") {
                if let Some(Metas { midplane, metas }) = decode(bytes)
                    && self.metas.len() < MAX_PARTS
                {
                    let metas = metas.into_iter().map(Arc::new).collect();
                    self.metas.insert(part.to_owned(), (hash(bytes), midplane, metas));
                    // Values of before are of other metas.
                    self.seen.remove(&format!("values/{part}"));
                }
            } else if let Some(part) = key.strip_prefix("values/") {
                news.batches.extend(self.values(part, bytes));
            }
        }
        if alerts {
            news.alerts = Some(self.alerts());
        }
        news
    }

    fn values(&self, part: &str, bytes: &[u8]) -> Option<(Whose, Batch)> {
        let Values { of, values, totals, errors } = decode(bytes)?;
        let (hash, midplane, metas) = self.metas.get(part)?;
        if of != *hash || values.len() != metas.len() {
            return None;
        }
        let errors: BTreeMap<u16, String> = errors.into_iter().collect();
        let reading = |(at, (meta, value)): (usize, (&Arc<Meta>, Option<f64>))| {
            let why = || errors.get(&(at as u16)).map_or("", String::as_str);
            let reading = match value {
                Some(value) => Reading::new(meta, value),
                None => Reading::failed(meta, why()),
            };
            Reading { total: totals.get(at).copied().flatten(), ..reading }
        };
        let readings = metas.iter().zip(values).enumerate().map(reading).collect();
        let source = part.rsplit_once('/').map_or(part, |(source, _)| source).to_owned();
        let whose = if *midplane { Whose::Midplane } else { Whose::Own };
        // Its owner has other parts of the same source, and forgets what is no more by itself.
        Some((whose, Batch { source, readings, complete: false }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Unit;
    use crate::pattern::Pattern;

    fn config() -> GroupConfig {
        GroupConfig {
            list: "x".into(),
            port: 1,
            root: None,
            leads: true,
            replicate: vec![Pattern::any()],
            keep: vec!["secret/*".parse().unwrap()],
            interval: std::time::Duration::from_secs(1),
        }
    }

    fn batch(values: &[(&str, f64)]) -> Batch {
        let reading = |(id, value): &(&str, f64)| {
            let meta = Arc::new(Meta::new(id, "", Unit::Number, 1000));
            Reading { total: Some(7.0), ..Reading::new(&meta, *value) }
        };
        Batch {
            source: "x".to_owned(),
            readings: values.iter().map(reading).collect(),
            complete: true,
        }
    }

    /// Records as a member holds them.
    #[derive(Default)]
    struct Held(BTreeMap<String, (u64, Arc<[u8]>)>, u64);

    impl Held {
        fn take(&mut self, changes: Vec<Change>) -> Vec<Told> {
            for change in changes {
                self.1 += 1;
                match change {
                    Change::Set(key, _, value) => {
                        drop(self.0.insert(key.to_string(), (self.1, value)));
                    }
                    Change::Remove(key) => drop(self.0.remove(key.as_str())),
                }
            }
            self.0
                .iter()
                .map(|(key, (version, value))| (key.clone(), *version, value.clone()))
                .collect()
        }
    }

    #[test]
    fn values_arrive_as_they_were_told_and_metas_once() {
        let (mut publisher, mut held, mut follower) =
            (Publisher::default(), Held::default(), Follower::default());
        let first = publisher.batch(
            &config(),
            1_000,
            Whose::Own,
            &batch(&[("x/a", 1.0), ("secret/b", 2.0)]),
        );
        assert_eq!(first.len(), 2);
        let news = follower.follow(&held.take(first));
        let (whose, got) = &news.batches[0];
        assert_eq!((*whose, got.source.as_str(), got.readings.len()), (Whose::Own, "x", 1));
        assert_eq!((got.readings[0].value.clone(), got.readings[0].total), (Ok(1.0), Some(7.0)));
        assert!(
            publisher.batch(&config(), 1_100, Whose::Own, &batch(&[("x/a", 9.0)])).is_empty(),
            "too soon"
        );
        let second = publisher.batch(&config(), 2_000, Whose::Own, &batch(&[("x/a", 3.0)]));
        assert_eq!(second.len(), 1, "the values alone");
        let news = follower.follow(&held.take(second));
        assert_eq!(news.batches[0].1.readings[0].value, Ok(3.0));
        assert!(follower.follow(&held.take(vec![])).batches.is_empty(), "nothing is new");
        let more =
            publisher.batch(&config(), 3_000, Whose::Own, &batch(&[("x/a", 4.0), ("x/c", 5.0)]));
        assert_eq!(follower.follow(&held.take(more)).batches[0].1.readings.len(), 2);
        let many: Vec<_> = (0..PART + 1).map(|n| (format!("x/{n}"), 1.0)).collect();
        let many: Vec<(&str, f64)> = many.iter().map(|(id, value)| (id.as_str(), *value)).collect();
        let parts = publisher.batch(&config(), 4_000, Whose::Midplane, &batch(&many));
        let news = follower.follow(&held.take(parts));
        assert_eq!(
            news.batches.iter().map(|batch| batch.1.readings.len()).sum::<usize>(),
            PART + 1
        );
        let gone = publisher.forget_midplane();
        assert_eq!((gone.len(), held.take(gone).len()), (4, 0));
    }

    #[test]
    fn ten_thousand_metrics_reach_another_member_and_stay_within_bounds() {
        use crate::core::history::BUDGET;
        use crate::core::rules::Rules;
        use crate::core::{Core, MAX_METRICS, Now};
        use group::core::records::{MAX_BYTES, MAX_RECORDS};
        let many: Vec<String> = (0..MAX_METRICS).map(|n| format!("x/sensor {n}")).collect();
        let all = batch(&many.iter().map(|id| (id.as_str(), 1.5)).collect::<Vec<_>>());
        let (mut publisher, mut held, mut follower) =
            (Publisher::default(), Held::default(), Follower::default());
        let mut core = Core::new("boot", 0, Rules::default());
        for second in 1..=100 {
            let now = Now { mono: second * 1_000, wall: 0 };
            let told = publisher.batch(&config(), now.mono, Whose::Own, &all);
            let parts = MAX_METRICS.div_ceil(PART);
            assert_eq!(told.len(), if second == 1 { 2 * parts } else { parts });
            for (_, batch) in follower.follow(&held.take(told)).batches {
                assert!(core.batch(now, "2", false, &batch).is_empty());
            }
        }
        let bytes: usize = held.0.iter().map(|(key, (_, value))| key.len() + value.len()).sum();
        assert!(held.0.len() < MAX_RECORDS && bytes < MAX_BYTES, "{} {bytes}", held.0.len());
        let place = core.place("2").unwrap();
        assert_eq!((place.metrics.len(), place.dropped), (MAX_METRICS, 0));
        assert!(place.metrics.values().all(|entry| entry.value == Some(1.5)));
        assert!(core.history_bytes() <= BUDGET, "{}", core.history_bytes());
    }

    #[test]
    fn what_a_manager_told_before_it_was_known_as_one_is_news_again() {
        let (mut publisher, mut held, mut follower) =
            (Publisher::default(), Held::default(), Follower::default());
        let own = publisher.batch(&config(), 1_000, Whose::Own, &batch(&[("x/a", 1.0)]));
        held.take(own);
        let chassis = Batch { source: "psu".to_owned(), ..batch(&[("psu/volts", 12.0)]) };
        held.take(publisher.batch(&config(), 1_000, Whose::Midplane, &chassis));
        let all = held.take(acted(&[]).into_iter().collect());
        let whose = |news: &News| news.batches.iter().map(|(whose, _)| *whose).collect::<Vec<_>>();
        assert_eq!(whose(&follower.follow(&all)), [Whose::Midplane, Whose::Own]);
        follower.hear_again_as_manager();
        let news = follower.follow(&all);
        assert_eq!((whose(&news), news.acted), (vec![Whose::Midplane], Some(vec![])));
    }

    #[test]
    fn garbage_is_left_out() {
        let mut follower = Follower::default();
        let told = |key: &str| (key.to_owned(), 1, Arc::from([1, 255, 255, 3].as_slice()));
        let all = ["acted", "alerts/0", "identity", "metas/x/0", "values/x/0"].map(told);
        let news = follower.follow(&all);
        assert!(news.batches.is_empty() && news.identity.is_none() && news.alerts == Some(vec![]));
    }
}
