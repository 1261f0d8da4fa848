// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parses the command line and runs the verb.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use daemon_kit::{exit, logging};
use ipmi_mux::args::{Cli, Command};
use ipmi_mux::config::Config;
use ipmi_mux::reserve::verb;
use ipmi_mux::{cli, run, takeover, watch};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match act(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ipmi-mux: {error:#}");
            let asked = error.downcast_ref::<daemon_kit::client::ClientError>();
            ExitCode::from(asked.map_or(exit::FAILED, daemon_kit::client::ClientError::exit_code))
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn act(cli: &Cli) -> anyhow::Result<ExitCode> {
    let text = match &cli.command {
        Command::Serve { verbose, config } => {
            logging::init("ipmi-mux", *verbose)?;
            let config = Config::load(config.config.as_deref())?;
            return Ok(match run::serve(config).await? {
                // systemd takes this for "try again": the device came back before we were gone.
                run::End::Removed { back_again: true } => ExitCode::from(exit::BUSY),
                _ => ExitCode::SUCCESS,
            });
        }
        Command::Check { config } => cli::describe(&Config::load(config.config.as_deref())?),
        Command::TakeOver { config } => {
            if let Some(number) = Config::load(config.config.as_deref())?.take_over {
                takeover::take_over(number)?;
            }
            String::new()
        }
        Command::PutBack => {
            takeover::put_back()?;
            String::new()
        }
        Command::Reserve { reserve } => return Ok(verb::run(reserve).await?.into()),
        Command::Status { ask } => cli::status(ask).await?,
        Command::Clients { ask } => cli::clients(ask).await?,
        Command::Watch(args) => {
            watch::verb::watch(args).await?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever read has seen enough, as in `ipmi-mux clients | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot write the answer")?,
    }
    Ok(ExitCode::SUCCESS)
}
