// SPDX-License-Identifier: MIT OR Apache-2.0
//! A week of virtual time (six hours of it, unless `SMBUS_MONITOR_HOURS=168` says so): sixty simulated metrics at one a second, the real store, limits, log and ledger. Memory does not
//! grow after the histories are full, and every alert is raised and cleared exactly when it has to be.

use std::path::Path;
use std::sync::Arc;

use smbus_monitor::core::alerts::Kind;
use smbus_monitor::core::rules::{Edge, Rule, Rules};
use smbus_monitor::core::{Batch, Core, Now};
use smbus_monitor::metric::{Limits, Meta, Reading, Unit};
use smbus_monitor::pattern::Pattern;
use smbus_monitor::shell::actions::Ledger;
use smbus_monitor::shell::log::EventLog;

const METRICS: u64 = 60;
/// A metric's hot spells, in seconds: how far apart they begin, and how long each is.
const EVERY: u64 = 3_600;
const HOT: u64 = 120;
/// The first one's source hangs at the end of each of these.
const SHIFT: u64 = 3 * 3_600;
const HANG: u64 = 60;

/// What metric `n` reads at a second; none while its source hangs. Whole steps, so that what is due is exact.
fn reading(n: u64, second: u64) -> Option<f64> {
    let at = (second + n * 37) % EVERY;
    let hangs = n == 0 && second % SHIFT >= SHIFT - HANG;
    // Single wrong values in between, which count for nothing.
    let glitch = second % 997 == n && at >= 2 * HOT;
    let value = if at < HOT || glitch { 90.0 } else { 50.0 + (second % 7) as f64 };
    (!hangs).then_some(value)
}

/// Begins and ends of hot spells within the week, as the rules have it: the second value raises, the first good one clears.
fn due(n: u64, seconds: u64) -> (usize, usize) {
    let (mut raised, mut cleared, mut run, mut hot) = (0, 0, 0, false);
    for second in 0..seconds {
        let Some(value) = reading(n, second) else { continue };
        run = if value > 80.0 { run + 1 } else { 0 };
        if !hot && run == 2 {
            (hot, raised) = (true, raised + 1);
        } else if hot && run == 0 {
            (hot, cleared) = (false, cleared + 1);
        }
    }
    (raised, cleared)
}

#[test]
fn a_week_shows_no_growth_and_exact_alerts() {
    let hours = std::env::var("SMBUS_MONITOR_HOURS").ok().and_then(|text| text.parse().ok());
    let seconds: u64 = hours.unwrap_or(6_u64).next_multiple_of(3) * 3_600;
    let folder = tempfile::tempdir().expect("a folder");
    let (log, past) = EventLog::open(folder.path()).expect("a log");
    assert!(past.is_empty());
    let limits = Limits { high_critical: Some(80.0), hysteresis: Some(5.0), ..Limits::default() };
    let rule = Rule {
        name: "hot".to_owned(),
        metric: Pattern::any(),
        place: Pattern::any(),
        limits,
        samples: 2,
        trend_ms: 0,
    };
    let mut core = Core::new("boot", 0, Rules { users: vec![rule], configured: vec![] });
    let mut ledger = Ledger::default();
    let metas: Vec<Arc<Meta>> = (0..METRICS)
        .map(|n| Arc::new(Meta::new(&format!("s{n}/t"), "", Unit::Celsius, 1000)))
        .collect();
    let mut seen = vec![(0, 0); METRICS as usize];
    let (mut stale, mut told, mut seq) = ((0, 0), 0, 0);
    let mut full = 0;
    for second in 0..seconds {
        let now = Now { mono: 1_000_000 + second * 1000, wall: 1_700_000_000_000 + second * 1000 };
        let mut happened = vec![];
        for (n, meta) in (0..METRICS).zip(&metas) {
            let Some(value) = reading(n, second) else { continue };
            let readings = vec![Reading::new(meta, value)];
            let batch = Batch { source: format!("s{n}"), readings, complete: false };
            happened.extend(core.batch(now, "1", true, &batch));
        }
        happened.extend(core.tick(now));
        for one in happened {
            assert_eq!(one.event.seq, seq + 1, "events are numbered without a gap");
            seq = one.event.seq;
            let alert = one.alert.as_ref().expect("all events here are about alerts");
            told += usize::from(ledger.tell(one.event.kind, alert));
            let counted = match alert.edge {
                Edge::Stale => &mut stale,
                _ => {
                    let n: usize =
                        alert.metric[1..].split('/').next().unwrap_or("").parse().expect("sN/t");
                    &mut seen[n]
                }
            };
            match one.event.kind {
                Kind::Raised => counted.0 += 1,
                Kind::Cleared => counted.1 += 1,
                other => panic!("{other:?}: {}", one.event.text),
            }
            log.write(one.event);
            // The disk of a test is slower than its clock: the log is given the time that a week has.
            while log.state().waiting > 500 {
                std::thread::yield_now();
            }
        }
        // Two days fill the histories.
        if second == seconds - seconds / 3 {
            full = core.history_bytes();
        }
    }
    for n in 0..METRICS {
        assert_eq!(seen[n as usize], due(n, seconds), "metric {n}");
    }
    let shifts = (seconds / SHIFT) as usize;
    assert_eq!(stale, (shifts, shifts - 1), "one hang a shift, the last one still on");
    let all: usize = seen.iter().map(|(raised, cleared)| raised + cleared).sum();
    assert_eq!(told, all + 2 * shifts - 1, "each was told of once");
    let grown = core.history_bytes() - full;
    assert!(seconds < 4 * 86_400 || grown == 0, "{grown} bytes more after {full}");
    assert!(core.history_bytes() < 8 << 20, "{}", core.history_bytes());
    assert_eq!(log.state().lost, 0);
    wait_for_log(&log, folder.path(), seq);
}

/// All of it is on disk in the end, in files whose number and size are bounded.
fn wait_for_log(log: &EventLog, folder: &Path, seq: u64) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let (_, past) = EventLog::open(folder).expect("the log");
        if past.back().is_some_and(|event| event.seq == seq) && log.state().waiting == 0 {
            assert!(past.iter().zip(past.iter().skip(1)).all(|(a, b)| b.seq == a.seq + 1));
            break;
        }
        assert!(std::time::Instant::now() < end, "the log does not come to its end");
        std::thread::yield_now();
    }
    let files: Vec<_> = std::fs::read_dir(folder).expect("a folder").flatten().collect();
    let bytes: u64 =
        files.iter().filter_map(|file| file.metadata().ok()).map(|data| data.len()).sum();
    assert!(files.len() <= 8 && bytes < 10 << 20, "{} files, {bytes} bytes", files.len());
}
