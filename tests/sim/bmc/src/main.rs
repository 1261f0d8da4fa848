// SPDX-License-Identifier: MIT OR Apache-2.0
//! `bmc-sim`: see [`bmc_sim`].
#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use bmc_sim::args::{Args, Command};
use bmc_sim::{ctl, server};
use clap::Parser;

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bmc-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Serve(options) => {
            let filter = tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| "info".into());
            tracing_subscriber::fmt()
                .with_env_filter(filter)
                .with_writer(std::io::stderr)
                .with_ansi(std::io::stderr().is_terminal())
                .with_target(false)
                .init();
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start the runtime")?
                .block_on(server::run(options))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Ctl(options) => {
            let answer = ctl::run(&options)?;
            // A reader that has seen enough (`| head`) is no error.
            let _ = writeln!(std::io::stdout(), "{answer}");
            Ok(if answer["ok"] == true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
