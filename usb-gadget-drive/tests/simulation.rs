// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shares, leases, and overlays in simulated worlds: blades that write, flush, pause, and come back late; an operator
//! who hands over, commits, and discards; and a server that is killed or loses its power at any step, on a disk that
//! forgets and tears what was not synced. A seed decides everything; time is virtual.
//!
//! `cargo test` runs seeds for [`TIME_BOX`], from a base that differs each time. `SIM_SEED=n` lives
//! through one seed, and prints what happened in it; `SIM_SEEDS=n` runs so many, `SIM_BASE=n` from there.

#[path = "simulation/disk.rs"]
mod disk;
#[path = "simulation/life.rs"]
mod life;
#[path = "simulation/model.rs"]
mod model;
#[path = "simulation/plain.rs"]
mod plain;
#[path = "simulation/rng.rs"]
mod rng;
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
const ENOUGH: u64 = 300;
/// Lines printed of a seed that failed: the end of its log.
const LOG_LINES: usize = 400;

fn from_env(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is to be a number, not {value:?}")))
}

/// Lives through a seed; a panic of the code is a failure as others are.
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
    let what = &first.what;
    format!(
        "{log}\nseed {seed}: {what}\nagain: SIM_SEED={seed} cargo test -p usb-gadget-drive --test simulation"
    )
}

#[test]
fn whatever_happens_nothing_acknowledged_is_lost_and_one_writes() {
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
    let figures: Mutex<BTreeMap<&str, u64>> = Mutex::default();
    let until = Instant::now() + TIME_BOX;
    let work = || {
        while failed.lock().expect("no panic holds it").is_none() {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if count.map_or(Instant::now() >= until, |count| at >= count) {
                break;
            }
            let seed = base.wrapping_add(at);
            match live(seed, false) {
                Ok(world) => {
                    let mut figures = figures.lock().expect("no panic holds it");
                    *figures.entry("worlds").or_default() += 1;
                    for (name, count) in world.counts {
                        *figures.entry(name).or_default() += count;
                    }
                }
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
    for (name, count) in &figures {
        println!("{count:>12} {name}");
    }
    if let Some((seed, failure)) = failed.into_inner().expect("no panic holds it") {
        panic!("{}", report(seed, &failure));
    }
    check(&figures);
}

/// A simulation in which something never happens proves nothing of it.
fn check(figures: &BTreeMap<&str, u64>) {
    if figures.get("worlds").is_none_or(|worlds| *worlds < ENOUGH) {
        return;
    }
    for name in [
        "hand-overs",
        "commits",
        "discards",
        "ejects",
        "cuts",
        "late requests",
        "power cuts",
        "kills",
        "failed syncs",
        "stores failed",
        "refusals",
    ] {
        assert!(figures.get(name).is_some_and(|count| *count > 0), "no {name}");
    }
}
