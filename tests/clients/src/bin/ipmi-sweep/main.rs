// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sends every command there can be through IPMI nodes, directly and wrapped up in others, and counts what
//! becomes of each. Meant for a node whose policy lets nothing through that changes state: through any
//! other it resets, erases and switches off what it reaches.
//!
//! Exit status: 0 when each message was answered once or refused with an errno, else 1; 2 for usage.
#![forbid(unsafe_code)]

mod args;
mod handles;
mod plan;
mod tally;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;

use args::Args;
use handles::Handles;
use tally::Tally;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("ipmi-sweep: {err:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether each message had its answer.
fn run(args: &Args) -> anyhow::Result<bool> {
    let mut tally = Tally::default();
    let mut handles = Handles::open(&args.node, args.handles, args.outstanding)?;
    for message in args.plan().messages() {
        handles.send(&message, args.limit, &mut tally)?;
    }
    handles.finish(args.limit, &mut tally)?;
    let report = tally.report();
    println!("{}", serde_json::to_string(&report).context("cannot write JSON")?);
    Ok(report.all_answered())
}
