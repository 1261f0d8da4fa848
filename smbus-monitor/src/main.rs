// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parses the command line and runs the verb.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use daemon_kit::client::ClientError;
use daemon_kit::{exit, logging};
use smbus_monitor::args::{Cli, Command};
use smbus_monitor::config::Config;
use smbus_monitor::{cli, shell};

fn main() -> ExitCode {
    match act(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smbus-monitor: {error:#}");
            let asked = error.downcast_ref::<ClientError>();
            ExitCode::from(asked.map_or(exit::FAILED, ClientError::exit_code))
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn act(command: Command) -> anyhow::Result<()> {
    let text = match command {
        Command::Serve(args) => {
            kernel_abi::heap::give_back_large_blocks();
            logging::init("smbus-monitor", args.verbose)?;
            return shell::run::serve(&args).await;
        }
        Command::Check { config } => cli::describe(&Config::load(config.config.as_deref())?),
        Command::Status { ask } => cli::status(&ask).await?,
        Command::Sensors { place, ask } => cli::sensors(&ask, place.as_deref()).await?,
        Command::Watch { last: Some(last), ask } => cli::last_events(&ask, last).await?,
        Command::Watch { last: None, ask } => {
            return Ok(cli::watch(&ask, |line| print(&line).unwrap_or(false)).await?);
        }
        Command::Alerts { ask } => cli::alerts(&ask).await?,
        Command::Ack { id, ask } => cli::acknowledge(&ask, &id).await?,
        Command::Threshold { what } => cli::group::threshold(what).await?,
        Command::Members { ask } => cli::group::members(&ask).await?,
        Command::Manager { ask } => cli::group::manager(&ask).await?,
        Command::Slot { what } => cli::group::slot(what).await?,
        Command::Power { place, action, id, by, ask } => {
            cli::group::power(&ask, place, action, id, by).await?
        }
        Command::Override { members, reason, ask } => {
            cli::group::override_majority(&ask, members, reason).await?
        }
        Command::History { metric, place, since, ask } => {
            cli::history(&ask, &metric, place.as_deref(), since.get().as_secs()).await?
        }
    };
    print(&text).context("cannot write the answer")?;
    Ok(())
}

/// Whether somebody still reads: they may have seen enough, as in `smbus-monitor sensors | head`.
fn print(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}
