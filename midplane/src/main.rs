// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parses the command line and runs the verb.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use daemon_kit::{exit, logging};
use midplane::args::{Cli, Command, KeyCommand};
use midplane::key::{Incomplete, join, rotate, serve, status, verbs};
use midplane::status as group_status;
use secure_link::Store;

fn main() -> ExitCode {
    match act(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("midplane: {error:#}");
            ExitCode::from(match error.downcast_ref::<Incomplete>() {
                Some(_) => exit::BUSY,
                None => exit::FAILED,
            })
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn act(cli: Cli) -> anyhow::Result<()> {
    let text = match cli.command {
        Command::Status(args) if args.watch => return group_status::watch(&args).await,
        Command::Status(args) => group_status::status(&args).await?,
        Command::Key { root, what } => match key(&root.store(), what).await? {
            Some(text) => text,
            None => return Ok(()),
        },
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever read has seen enough, as in `midplane key status | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot write the answer")?,
    }
    Ok(())
}

/// What it has to say; none if it was a service.
async fn key(store: &Store, what: KeyCommand) -> anyhow::Result<Option<String>> {
    Ok(Some(match what {
        KeyCommand::Create(args) => verbs::create(store, &args)?,
        KeyCommand::Join(args) => join::join(store, &args).await?,
        KeyCommand::Rotate(args) => rotate::rotate(store, &args).await?,
        KeyCommand::Status(args) => status::status(store, &args).await?,
        KeyCommand::Revoke { member } => verbs::revoke(store, &member)?,
        KeyCommand::Forget { member } => verbs::forget(store, &member)?,
        KeyCommand::Serve(args) => {
            logging::init("midplane-key", args.verbose)?;
            serve::serve(store, &args).await?;
            return Ok(None);
        }
    }))
}
