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
    let Command::Key { root, what } = cli.command;
    let store = root.store();
    let text = match what {
        KeyCommand::Create(args) => verbs::create(&store, &args)?,
        KeyCommand::Join(args) => join::join(&store, &args).await?,
        KeyCommand::Rotate(args) => rotate::rotate(&store, &args).await?,
        KeyCommand::Status(args) => status::status(&store, &args).await?,
        KeyCommand::Revoke { member } => verbs::revoke(&store, &member)?,
        KeyCommand::Forget { member } => verbs::forget(&store, &member)?,
        KeyCommand::Serve(args) => {
            logging::init("midplane-key", args.verbose)?;
            return serve::serve(&store, &args).await;
        }
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever read has seen enough, as in `midplane key status | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot write the answer")?,
    }
    Ok(())
}
