// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parses the command line and runs the verb.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use daemon_kit::{exit, logging};
use kvm_bus::args::{Cli, Command, End, EndName};
use kvm_bus::attach::What;
use kvm_bus::config::{lmc, rmm};
#[cfg(feature = "ssh")]
use kvm_bus::ssh;
use kvm_bus::{cli, import, shell, terminal};

fn main() -> ExitCode {
    match act(Cli::parse().command) {
        Ok(()) => finish(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("kvm-bus: {error:#}");
            let asked = error.downcast_ref::<daemon_kit::client::ClientError>();
            let code = asked.map_or(exit::FAILED, daemon_kit::client::ClientError::exit_code);
            finish(ExitCode::from(code))
        }
    }
}

/// A thread that waits for the terminal's next byte would be waited for.
fn finish(code: ExitCode) -> ExitCode {
    let _ = std::io::stdout().flush();
    code
}

fn act(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(run(command));
    runtime.shutdown_background();
    done
}

async fn run(command: Command) -> anyhow::Result<()> {
    let text = match command {
        Command::Serve { end: End::Rmm(args) } => {
            logging::init("kvm-bus-rmm", args.verbose)?;
            return shell::rmm::serve(rmm::Config::load(args.config.as_deref())?).await;
        }
        Command::Serve { end: End::Lmc(args) } => {
            logging::init("kvm-bus-lmc", args.verbose)?;
            return shell::lmc::serve(lmc::Config::load(args.config.as_deref())?).await;
        }
        #[cfg(feature = "ssh")]
        Command::Serve { end: End::Ssh(args) } => {
            logging::init("kvm-bus-ssh", args.verbose)?;
            return ssh::serve(rmm::Config::load(args.config.as_deref())?, args.host_key).await;
        }
        Command::Check { end: EndName::Rmm, config } => {
            cli::describe_rmm(&rmm::Config::load(config.as_deref())?)
        }
        Command::Check { end: EndName::Lmc, config } => {
            cli::describe_lmc(&lmc::Config::load(config.as_deref())?)
        }
        Command::Import(args) => import::command(&args)?,
        Command::Status { lmc, ask } => cli::status(&ask, lmc).await?,
        Command::Select { blade, none: _, ask } => cli::select(&ask, blade).await?,
        Command::Console { blade, attach } => {
            return terminal::sit(What::Console, Some(blade), &attach).await;
        }
        Command::Screen { blade, attach } => {
            return terminal::sit(What::Screen, blade, &attach).await;
        }
        Command::Sessions { ask } => cli::sessions(&ask).await?,
        Command::Replay { blade, lines, ask } => cli::replay(&ask, &blade, lines).await?,
        Command::Power { blade, action, ask } => cli::power(&ask, blade, action).await?,
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever read has seen enough, as in `kvm-bus status | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot write the answer")?,
    }
    Ok(())
}
