// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parses the command line and runs the verb.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use daemon_kit::{exit, logging};
use usb_gadget_drive::args::{CertFor, Cli, Command, OverlayCommand};
use usb_gadget_drive::config::Config;
use usb_gadget_drive::manager::control::{Eject, HandOver, Insert, OverlayOf, Swap};
use usb_gadget_drive::{agent, cert, cli, run};

fn main() -> ExitCode {
    match act(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("usb-gadget-drive: {error:#}");
            let asked = error.downcast_ref::<daemon_kit::client::ClientError>();
            ExitCode::from(asked.map_or(exit::FAILED, daemon_kit::client::ClientError::exit_code))
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn act(command: Command) -> anyhow::Result<()> {
    let text = match command {
        Command::Serve(args) => {
            logging::init("usb-gadget-drive", args.verbose)?;
            return run::serve(&args).await;
        }
        Command::Agent(args) => {
            logging::init("usb-gadget-drive", args.verbose)?;
            return Ok(agent::run::run(&args).await?);
        }
        Command::Check { agent: true, config } => {
            cli::describe_agent(&agent::config::Config::load(config.config.as_deref())?)?
        }
        Command::Check { agent: false, config } => {
            cli::describe(&Config::load(config.config.as_deref())?)
        }
        Command::Status { ask } => cli::status(&ask).await?,
        Command::Shares { ask } => cli::shares(&ask).await?,
        Command::Insert { share, blade, kind, read_only, ask } => {
            cli::act(&ask, "/v1/insert", &share.clone(), &Insert { share, blade, kind, read_only })
                .await?
        }
        Command::Eject { share, blade, force, ask } => {
            cli::act(&ask, "/v1/eject", &share.clone(), &Eject { share, blade, force }).await?
        }
        Command::Swap { old, new, blade, force, ask } => {
            cli::act(&ask, "/v1/swap", &old.clone(), &Swap { old, new, blade, force }).await?
        }
        Command::Handover { share, to, from, force, ask } => {
            cli::act(&ask, "/v1/handover", &share.clone(), &HandOver { share, from, to, force })
                .await?
        }
        Command::Overlay { what: OverlayCommand::List { ask } } => cli::overlays(&ask).await?,
        Command::Overlay { what: OverlayCommand::Commit { share, blade, ask } } => {
            cli::act(&ask, "/v1/overlay/commit", &share.clone(), &OverlayOf { share, blade })
                .await?
        }
        Command::Overlay { what: OverlayCommand::Discard { share, blade, ask } } => {
            cli::act(&ask, "/v1/overlay/discard", &share.clone(), &OverlayOf { share, blade })
                .await?
        }
        Command::Cert { dir, whom } => certificate(&dir, &whom)?,
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever read has seen enough, as in `usb-gadget-drive status | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot write the answer")?,
    }
    Ok(())
}

fn certificate(dir: &std::path::Path, whom: &CertFor) -> anyhow::Result<String> {
    match whom {
        CertFor::Ca => cert::make_ca(dir)?,
        CertFor::Server { name } => drop(cert::make(dir, cert::Kind::Server, name)?),
        CertFor::Client { name } => {
            let folder = cert::make(dir, cert::Kind::Client, name)?;
            return Ok(format!("{}\n", folder.display()));
        }
    }
    Ok(String::new())
}
