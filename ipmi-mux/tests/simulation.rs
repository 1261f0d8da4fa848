// SPDX-License-Identifier: MIT OR Apache-2.0
//! The core of the daemon in simulated worlds: clients that come, ask, fight, and die, before a BMC that
//! is busy, hangs, loses answers, and is reset. A seed decides everything; time is virtual.
//!
//! `cargo test` runs seeds for [`TIME_BOX`], from a base that differs each time. `SIM_SEED=n` lives
//! through one seed, and prints what happened in it; `SIM_SEEDS=n` runs so many, `SIM_BASE=n` from there.

#[path = "simulation/back_end.rs"]
mod back_end;
#[path = "simulation/checks.rs"]
mod checks;
#[path = "simulation/clients.rs"]
mod clients;
#[path = "simulation/model.rs"]
mod model;
#[path = "simulation/oracle.rs"]
mod oracle;
#[path = "simulation/phases.rs"]
mod phases;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/rng.rs"]
mod rng;
#[path = "simulation/scripts.rs"]
mod scripts;
#[path = "simulation/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use world::{Failure, World};

/// How long `cargo test` takes.
const TIME_BOX: Duration = Duration::from_secs(15);
/// Worlds in which everything happens somewhere.
const ENOUGH: u64 = 2000;
/// Steps printed of a seed that failed: the end of its log.
const LOG_LINES: usize = 400;

/// What the look each second at a repository does not catch, and the BMC itself would.
const MIXED: &str = "records with versions mixed";

/// What was lived through, by name.
#[derive(Debug, Default)]
struct Figures(BTreeMap<&'static str, u64>);

fn from_env(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is to be a number, not {value:?}")))
}

/// Lives through a seed; a panic of the core is a failure as others are.
fn live(seed: u64, logging: bool) -> Result<World, Failure> {
    catch_unwind(AssertUnwindSafe(|| World::run(seed, logging))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Failure { what: format!("panic: {text:?}"), log: vec![] })
    })
}

fn report(seed: u64, first: &Failure) -> String {
    let again = live(seed, true).err();
    let log = again.map(|failure| failure.log).unwrap_or_default();
    let from = log.len().saturating_sub(LOG_LINES);
    let log = log[from..].join("\n");
    format!(
        "{log}\nseed {seed}: {}\nagain: SIM_SEED={seed} cargo test --test simulation",
        first.what
    )
}

#[test]
fn whatever_happens_each_client_has_a_controller_of_its_own() {
    if let Some(seed) = from_env("SIM_SEED") {
        match live(seed, true) {
            Ok(_) => println!("seed {seed} is fine"),
            Err(failure) => panic!("{}\nseed {seed}: {}", failure.log.join("\n"), failure.what),
        }
        return;
    }
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let base = from_env("SIM_BASE").unwrap_or(clock.as_nanos() as u64 >> 10);
    let count = from_env("SIM_SEEDS");
    println!("seeds from {base}");
    let (next, failed) = (AtomicU64::new(0), Mutex::new(None));
    let figures = Mutex::new(Figures::default());
    let until = Instant::now() + TIME_BOX;
    let work = || {
        while failed.lock().expect("no panic holds it").is_none() {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if count.map_or(Instant::now() >= until, |count| at >= count) {
                break;
            }
            let seed = base.wrapping_add(at);
            match live(seed, false) {
                Ok(world) => figures.lock().expect("no panic holds it").add(&world),
                Err(failure) => {
                    failed.lock().expect("no panic holds it").get_or_insert((seed, failure));
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let figures = figures.into_inner().expect("no panic holds it");
    figures.show();
    if let Some((seed, failure)) = failed.into_inner().expect("no panic holds it") {
        panic!("{}", report(seed, &failure));
    }
    figures.check();
}

impl Figures {
    fn add(&mut self, world: &World) {
        let stats = world.mux.stats();
        for (name, count) in [
            ("worlds", 1),
            ("sends", world.orders.len() as u64),
            ("virtual seconds", world.now / model::SECOND),
            (MIXED, world.mixed_records),
            ("to the BMC", stats.to_bmc),
            ("time-outs", stats.timeouts),
            ("late answers", stats.late_replies),
            ("never answered", stats.never_answered),
            ("refused by the back end", stats.refused_by_back_end),
            ("from the cache", stats.cache_hits),
            ("shared", stats.shared),
            ("replays", stats.replays),
            ("reservations void", stats.reservations_void),
            ("refused for a lease", stats.lease_refusals),
            ("breaker openings", stats.breaker_openings),
            ("events", stats.events),
        ] {
            *self.0.entry(name).or_default() += count;
        }
    }

    fn show(&self) {
        for (name, count) in &self.0 {
            println!("{count:>12} {name}");
        }
    }

    /// Where something never happens, nothing is shown of it.
    fn check(&self) {
        for (name, count) in &self.0 {
            let may_lack = self.0["worlds"] < ENOUGH || *name == MIXED;
            assert!(*count > 0 || may_lack, "{name}: it did not happen");
        }
    }
}
