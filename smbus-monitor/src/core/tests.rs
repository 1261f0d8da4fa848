// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use crate::metric::{Limits, Unit};
use crate::pattern::Pattern;

fn now(second: u64) -> Now {
    Now { mono: second * 1000, wall: 1_700_000_000_000 + second * 1000 }
}

fn meta(limits: Limits) -> Arc<Meta> {
    Arc::new(Meta::new("hwmon/1-0048/temp1", "CPU", Unit::Celsius, 1000).limits(limits))
}

fn hot() -> Limits {
    Limits { high_critical: Some(80.0), hysteresis: Some(5.0), ..Limits::default() }
}

fn batch(readings: Vec<Reading>) -> Batch {
    Batch { source: "hwmon".to_owned(), readings, complete: false }
}

fn kinds(happened: &[Happened]) -> Vec<(Kind, Option<Edge>)> {
    happened.iter().map(|h| (h.event.kind, h.alert.as_ref().map(|a| a.edge))).collect()
}

struct World {
    core: Core,
    meta: Arc<Meta>,
    second: u64,
}

impl World {
    fn new(limits: Limits) -> Self {
        Self { core: Core::new("boot", 0, Rules::default()), meta: meta(limits), second: 0 }
    }

    fn read(&mut self, value: f64) -> Vec<(Kind, Option<Edge>)> {
        self.second += 1;
        let batch = batch(vec![Reading::new(&self.meta, value)]);
        let mut happened = self.core.batch(now(self.second), "1", true, &batch);
        happened.extend(self.core.tick(now(self.second)));
        kinds(&happened)
    }

    fn pass(&mut self, seconds: u64) -> Vec<(Kind, Option<Edge>)> {
        let mut all = vec![];
        for _ in 0..seconds {
            self.second += 1;
            all.extend(kinds(&self.core.tick(now(self.second))));
        }
        all
    }
}

#[test]
fn two_values_raise_it_and_one_beyond_the_hysteresis_clears_it() {
    let mut world = World::new(hot());
    assert_eq!(world.read(85.0), []);
    assert_eq!(world.read(20.0), []);
    assert_eq!(world.read(85.0), []);
    assert_eq!(world.read(86.0), [(Kind::Raised, Some(Edge::High))]);
    assert_eq!(world.read(87.0), []);
    assert_eq!(world.core.alerts().iter().next().unwrap().value, Some(87.0));
    assert_eq!(world.read(76.0), []);
    assert_eq!(world.read(75.0), [(Kind::Cleared, Some(Edge::High))]);
    assert_eq!(world.core.alerts().iter().count(), 0);
}

#[test]
fn what_gives_no_value_is_stale_by_itself_and_forgotten_in_a_day() {
    let mut world = World::new(hot());
    assert_eq!(world.read(25.0), []);
    assert_eq!(world.pass(3), []);
    assert_eq!(world.pass(1), [(Kind::Raised, Some(Edge::Stale))]);
    assert_eq!(world.pass(100), []);
    assert_eq!(world.read(26.0), [(Kind::Cleared, Some(Edge::Stale))]);
    assert_eq!(world.pass(86_399), [(Kind::Raised, Some(Edge::Stale))]);
    assert_eq!(world.pass(2), [(Kind::Cleared, Some(Edge::Stale))]);
    assert_eq!(world.core.place("1").unwrap().metrics.len(), 0);
}

#[test]
fn an_error_keeps_the_last_value_and_tells_why_it_is_stale() {
    let mut world = World::new(hot());
    let _ = world.read(85.0);
    let failed = batch(vec![Reading::failed(&world.meta, "Device or resource busy")]);
    for second in 2..10 {
        let _ = world.core.batch(now(second), "1", true, &failed);
        let _ = world.core.tick(now(second));
    }
    let entry = &world.core.place("1").unwrap().metrics["hwmon/1-0048/temp1"];
    assert_eq!((entry.value, entry.stale), (Some(85.0), true));
    let alert = world.core.alerts().iter().next().unwrap();
    assert!(
        alert.edge == Edge::Stale && alert.text.contains("Device or resource busy"),
        "{alert:?}"
    );
}

#[test]
fn one_sensor_of_many_that_gives_no_value_is_told_of_by_itself() {
    let mut core = Core::new("boot", 0, Rules::default());
    let [one, two] =
        ["hwmon/a", "hwmon/b"].map(|id| Arc::new(Meta::new(id, "", Unit::Volts, 1000)));
    let mut seen = vec![];
    for second in 0..10 {
        let failed =
            if second < 2 { Reading::new(&two, 1.0) } else { Reading::failed(&two, "EIO") };
        seen.extend(core.batch(
            now(second),
            "1",
            true,
            &batch(vec![Reading::new(&one, 1.0), failed]),
        ));
        seen.extend(core.tick(now(second)));
    }
    assert_eq!(kinds(&seen), [(Kind::Raised, Some(Edge::Stale))]);
    assert_eq!(seen[0].event.metric, "hwmon/b");
    for second in 10..20 {
        seen.extend(core.tick(now(second)));
    }
    let late = [
        (Kind::Raised, Some(Edge::Stale)),
        (Kind::Cleared, Some(Edge::Stale)),
        (Kind::Raised, Some(Edge::Stale)),
    ];
    assert_eq!(kinds(&seen), late);
    assert_eq!(
        (seen[1].event.metric.as_str(), seen[2].event.metric.as_str()),
        ("hwmon/b", "hwmon")
    );
}

#[test]
fn who_stood_still_accuses_nobody() {
    let mut world = World::new(hot());
    assert_eq!(world.read(25.0), []);
    world.second += 20;
    assert_eq!(world.pass(1), []);
    assert_eq!(world.read(25.0), []);
    assert_eq!(world.pass(8), [(Kind::Raised, Some(Edge::Stale))]);
}

#[test]
fn a_file_system_that_was_unmounted_is_no_more() {
    let mut core = Core::new("boot", 7, Rules::default());
    let used = |id: &str| Reading::new(&Arc::new(Meta::new(id, "", Unit::Percent, 1000)), 50.0);
    let two = Batch { complete: true, ..batch(vec![used("fs/a"), used("fs/b"), used("hwmon/x")]) };
    let two = Batch { source: "fs".to_owned(), ..two };
    assert_eq!(core.batch(now(1), "1", true, &two), []);
    let one = Batch { readings: vec![used("fs/a")], ..two };
    assert_eq!(core.batch(now(2), "1", true, &one), []);
    let left: Vec<_> = core.place("1").unwrap().metrics.keys().cloned().collect();
    assert_eq!(left, ["fs/a", "hwmon/x"]);
}

#[test]
fn a_rule_holds_at_once_and_its_end_ends_its_alerts() {
    let mut world = World::new(Limits::default());
    assert_eq!(world.read(60.0), []);
    let rule = rules::Rule {
        name: "cool".to_owned(),
        metric: "*temp*".parse().unwrap(),
        place: Pattern::any(),
        limits: Limits { high_warning: Some(50.0), ..Limits::default() },
        samples: 1,
        trend_ms: 0,
    };
    world.core.set_rules(Rules { users: vec![rule], configured: vec![] });
    assert_eq!(world.read(60.0), [(Kind::Raised, Some(Edge::High))]);
    world.core.set_rules(Rules::default());
    assert_eq!(world.read(60.0), [(Kind::Cleared, Some(Edge::High))]);
}

#[test]
fn a_trend_warns_before_the_limit_and_gives_way_to_it() {
    let mut world = World::new(Limits::default());
    let rule = rules::Rule {
        name: "soon".to_owned(),
        metric: Pattern::any(),
        place: Pattern::any(),
        limits: Limits { high_warning: Some(70.0), ..Limits::default() },
        samples: 1,
        trend_ms: 600_000,
    };
    world.core.set_rules(Rules { users: vec![rule], configured: vec![] });
    let mut seen = vec![];
    for second in 0..260 {
        let happened = world.read(50.0 + f64::from(second) * 0.1);
        seen.extend(happened.into_iter().map(|what| (second, what)));
    }
    let edges: Vec<_> = seen.iter().map(|(_, what)| *what).collect();
    let expected = [
        (Kind::Raised, Some(Edge::Trend)),
        (Kind::Raised, Some(Edge::High)),
        (Kind::Cleared, Some(Edge::Trend)),
    ];
    assert_eq!(edges, expected, "{seen:?}");
    assert!(seen[0].0 < 60, "{seen:?}");
}

#[test]
fn what_was_last_known_before_a_start_is_shown_with_its_age_and_gives_way() {
    let mut core = Core::new("boot", 0, Rules::default());
    let known = Meta::clone(&meta(hot()));
    let start = Now { mono: 1_000, wall: 5_000_000 };
    core.recall(start, 2_000_000, "2", vec![(known.clone(), 90.0)]);
    core.recall(start, 2_000_000, "2", vec![(known.clone(), 80.0)]);
    let later = Now { mono: 3_000, wall: 5_002_000 };
    assert_eq!(kinds(&core.tick(later)), [], "its owner judges it, not who remembers");
    let entry = &core.place("2").unwrap().metrics[&known.id];
    assert_eq!((entry.value, entry.stale, entry.age_ms(later)), (Some(90.0), true, 3_002_000));
    assert!(entry.points(later, 60_000).is_empty(), "no history is made of it");
    let heard = batch(vec![Reading::new(&meta(hot()), 25.0)]);
    assert!(core.batch(later, "2", false, &heard).is_empty());
    let entry = &core.place("2").unwrap().metrics[&known.id];
    assert_eq!((entry.value, entry.stale, entry.age_ms(later)), (Some(25.0), false, 0));
    core.recall(later, 2_000_000, "2", vec![(known.clone(), 90.0)]);
    assert_eq!(core.place("2").unwrap().metrics[&known.id].value, Some(25.0), "it is newer");
}

#[test]
fn places_and_metrics_have_their_bounds() {
    let mut core = Core::new("boot", 0, Rules::default());
    let many = (0..=MAX_METRICS).map(|n| {
        Reading::new(&Arc::new(Meta::new(&format!("x/{n}"), "", Unit::Number, 1000)), 1.0)
    });
    let many = batch(many.collect());
    for second in 0..20 {
        assert_eq!(core.batch(now(second), "1", true, &many), []);
    }
    let place = core.place("1").unwrap();
    assert_eq!((place.metrics.len(), place.dropped), (MAX_METRICS, 20));
    assert!(core.history_bytes() < 2 * history::BUDGET, "{}", core.history_bytes());
    for n in 0..2 * MAX_PLACES {
        let _ = core.batch(now(30), &format!("p{n}"), false, &batch(vec![]));
    }
    assert_eq!(core.places().count(), MAX_PLACES);
}
