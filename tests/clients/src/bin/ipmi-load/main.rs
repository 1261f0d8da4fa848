// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opens many handles of IPMI nodes, keeps one command of each outstanding, and checks that every
//! answer belongs to its own command. One thread, so that what it measures is the node's doing.
//!
//! Exit status: 0 when all handles were opened and all commands answered rightly, else 1; 2 for usage.
#![forbid(unsafe_code)]

mod args;
mod command;
mod handles;
mod tally;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;

use args::Args;
use handles::{Handles, Until};
use tally::Tally;

/// Commands of each handle without --commands and --seconds.
const DEFAULT_COMMANDS: u64 = 20;

/// With --never-read: a handle that takes so many messages has no bound.
const UNBOUNDED: u64 = 10_000;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("ipmi-load: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether all went well.
fn run(args: &Args) -> anyhow::Result<bool> {
    let mut tally = Tally::default();
    let mut handles = Handles::open(&args.nodes, args.handles, &mut tally)?;
    let opened = tally.refused.is_empty() || args.allow_refused;
    if !args.hold && !args.never_read {
        return Ok(load(args, &mut handles, tally)? && opened);
    }
    println!("{}", tally.opening());
    let mut good = opened;
    if args.never_read {
        let accepted = handles.fill(&args.command(), UNBOUNDED, &mut tally);
        println!("{}", tally.filling(&accepted));
        good &= tally.errors.keys().eq(["EBUSY"]) && !accepted.contains(&UNBOUNDED);
    }
    if good {
        println!("ready");
        let mut input = std::io::stdin();
        std::io::copy(&mut input, &mut std::io::sink()).context("cannot read standard input")?;
    }
    Ok(good)
}

fn load(args: &Args, handles: &mut Handles, mut tally: Tally) -> anyhow::Result<bool> {
    let command = args.command();
    if args.warmup > 0 {
        let mut unmeasured = Tally::default();
        handles.work(&command, Until::Commands(args.warmup), args.limit, &mut unmeasured)?;
        // Only what went well is not counted.
        tally.adopt_failures(unmeasured);
    }
    let until = match args.seconds {
        Some(seconds) => Until::Time(Instant::now() + seconds),
        None => Until::Commands(args.commands.unwrap_or(DEFAULT_COMMANDS)),
    };
    let elapsed = match args.pause {
        None => handles.work(&command, until, args.limit, &mut tally)?,
        Some(pause) => {
            let mut elapsed = Duration::ZERO;
            for _ in 0..args.commands.unwrap_or(DEFAULT_COMMANDS) {
                elapsed += handles.work(&command, Until::Commands(1), args.limit, &mut tally)?;
                std::thread::sleep(pause);
            }
            elapsed
        }
    };
    handles.look_for_more(&mut tally);
    let good = tally.all_right() && tally.opened > 0;
    let report = tally.report(elapsed, &handles.completed());
    if args.json {
        println!("{}", serde_json::to_string(&report).context("cannot write JSON")?);
    } else {
        println!("{report}");
    }
    Ok(good)
}
