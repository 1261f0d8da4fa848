// SPDX-License-Identifier: MIT OR Apache-2.0
//! What simulations have in common: random numbers that a seed decides, and a test that lives through seeds.
//!
//! `cargo test` runs seeds for [`TIME_BOX`], from a base that differs each time. `SIM_SEED=n` lives
//! through one seed, and prints what happened in it; `SIM_SEEDS=n` runs so many, `SIM_BASE=n` from there.
#![forbid(unsafe_code)]

mod rng;

pub use rng::Rng;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// How long `cargo test` takes.
pub const TIME_BOX: Duration = Duration::from_secs(15);
/// Lines printed of a seed that failed: the end of its log.
const LOG_LINES: usize = 40;

/// What was wrong, and what had happened before if that was written down.
#[derive(Debug)]
pub struct Failure {
    /// In words.
    pub what: String,
    /// Line by line.
    pub log: Vec<String>,
}

/// What was lived through, by name.
pub type Figures = BTreeMap<&'static str, u64>;

/// Lives through seeds with `live`, which is told the seed and whether to write a log, and returns what happened. Of
/// worlds so many as `enough` each thing that it names must have happened once: a simulation in which something never
/// happens proves nothing of it.
///
/// # Panics
/// With the log of the first seed that fails, and how to run it again; a panic of the code is a failure as others are.
pub fn run(package: &str, enough: u64, live: fn(u64, bool) -> Result<Figures, Failure>) {
    if let Some(seed) = from_env("SIM_SEED") {
        match live(seed, true) {
            Ok(_) => println!("seed {seed} is fine"),
            Err(failure) => panic!("{}\nseed {seed}: {}", failure.log.join("\n"), failure.what),
        }
        return;
    }
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let base = from_env("SIM_BASE").unwrap_or(clock.as_nanos() as u64 >> 10);
    println!("seeds from {base}");
    let (worlds, figures, failed) = run_from(base, from_env("SIM_SEEDS"), live);
    println!("{worlds:>12} worlds");
    for (name, count) in &figures {
        println!("{count:>12} {name}");
    }
    if let Some((seed, failure)) = failed {
        let again = catch(live, seed, true).err();
        let log = again.map(|failure| failure.log).unwrap_or_default();
        let log = log[log.len().saturating_sub(LOG_LINES)..].join("\n");
        let what = failure.what;
        panic!(
            "{log}\nseed {seed}: {what}\nagain: SIM_SEED={seed} cargo test -p {package} --test simulation"
        );
    }
    for (name, count) in figures {
        assert!(count > 0 || worlds < enough, "{name}: it did not happen");
    }
}

fn from_env(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is to be a number, not {value:?}")))
}

fn catch(
    live: fn(u64, bool) -> Result<Figures, Failure>,
    seed: u64,
    logging: bool,
) -> Result<Figures, Failure> {
    catch_unwind(AssertUnwindSafe(|| live(seed, logging))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Failure { what: format!("panic: {text:?}"), log: vec![] })
    })
}

/// So many seeds, or as many as fit in [`TIME_BOX`], until one fails.
fn run_from(
    base: u64,
    count: Option<u64>,
    live: fn(u64, bool) -> Result<Figures, Failure>,
) -> (u64, Figures, Option<(u64, Failure)>) {
    let next = AtomicU64::new(0);
    let lived = Mutex::new((0, Figures::new(), None));
    let until = Instant::now() + TIME_BOX;
    let work = || {
        while lived.lock().expect("no panic holds it").2.is_none() {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if count.map_or(Instant::now() >= until, |count| at >= count) {
                break;
            }
            let seed = base.wrapping_add(at);
            let found = catch(live, seed, false);
            let mut lived = lived.lock().expect("no panic holds it");
            match found {
                Ok(found) => {
                    lived.0 += 1;
                    for (name, count) in found {
                        *lived.1.entry(name).or_default() += count;
                    }
                }
                Err(failure) => {
                    lived.2.get_or_insert((seed, failure));
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
    lived.into_inner().expect("no panic holds it")
}
