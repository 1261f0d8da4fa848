// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parses the command line and runs the verb.
#![forbid(unsafe_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use daemon_kit::client::ClientError;
use daemon_kit::{exit, logging};
use device_manager::args::{Cli, Command, HoldArgs};
use device_manager::service::run::{NotHeld, NotLeased, Options, Wanted};
use device_manager::trust::below;
use device_manager::{cli, helper, manager, service, unit};

const PROGRAM: &str = "device-manager";

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{PROGRAM}: {error:#}");
            let asked = error.downcast_ref::<ClientError>().map(ClientError::exit_code);
            let refused = error.downcast_ref::<NotLeased>().map(|why| match why {
                NotLeased::Client(error) => error.exit_code(),
                why if why.later() => exit::BUSY,
                _ => exit::FAILED,
            });
            let lost = error.downcast_ref::<NotHeld>().map(|_| exit::BUSY);
            ExitCode::from(asked.or(refused).or(lost).unwrap_or(exit::FAILED))
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    // The helper is threads that wait for the kernel, and needs no runtime.
    if let Command::Helper(args) = command {
        logging::init(PROGRAM, args.verbose)?;
        let (socket, config) = (args.helper, args.config.config);
        return helper::server::serve(helper::server::Options {
            socket,
            config,
            sys: "/sys".into(),
        });
    }
    act(command)
}

fn state(root: Option<&Path>, name: &str) -> PathBuf {
    below(root, &format!("/var/lib/midplane/{name}"))
}

fn runtime(root: Option<&Path>, name: &str) -> PathBuf {
    below(root, &format!("/run/midplane/{name}"))
}

#[tokio::main(flavor = "current_thread")]
async fn act(command: Command) -> anyhow::Result<()> {
    let text = match command {
        Command::Serve(args) => {
            kernel_abi::heap::give_back_large_blocks();
            logging::init(PROGRAM, args.places.root.verbose)?;
            let root = args.places.root.root;
            return manager::run::run(manager::run::Paths {
                config: args.config.config,
                list: args.places.list,
                state: state(root.as_deref(), "device-manager"),
                runtime: runtime(root.as_deref(), "device-manager"),
                root,
            })
            .await;
        }
        Command::Unit(args) => {
            kernel_abi::heap::give_back_large_blocks();
            logging::init("device-manager-unit", args.places.root.verbose)?;
            let root = args.places.root.root;
            return unit::run::run(unit::run::Paths {
                config: args.config.config,
                list: args.places.list,
                state: state(root.as_deref(), "device-manager-unit"),
                runtime: runtime(root.as_deref(), "device-manager-unit"),
                manager: runtime(root.as_deref(), "device-manager").join("units.sock"),
                helper: args.helper,
                root,
            })
            .await;
        }
        Command::Helper(_) => unreachable!("it is run before"),
        Command::Lease(hold) => return held(hold, false, false, (None, false)).await,
        Command::Attach { hold, keep, link, group } => {
            return held(hold, true, keep, (link, group)).await;
        }
        Command::Check { config } => cli::check(config.config.as_deref())?,
        Command::Status { ask } => cli::status(&ask).await?,
        Command::Devices { pattern, ask } => cli::devices(&ask, &pattern).await?,
        Command::Units { ask } => cli::units(&ask).await?,
        Command::Managers { ask } => cli::managers(&ask).await?,
        Command::Find { pattern, watch, scope, ask } => {
            cli::find(&ask, &pattern, scope.into(), watch).await?
        }
        Command::Explain { device, ask } => cli::explain(&ask, device).await?,
        Command::Queue { ask } => cli::queue(&ask).await?,
        Command::Release { lease, ask } => cli::release(&ask, lease).await?,
        Command::Detach { device, ask } => cli::detach(&ask, device).await?,
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever read has seen enough, as in `device-manager devices | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot write the answer")?,
    }
    Ok(())
}

async fn held(
    hold: HoldArgs,
    attach: bool,
    keep: bool,
    (link, group): (Option<PathBuf>, bool),
) -> anyhow::Result<()> {
    logging::init("device-manager-attach", hold.places.verbose)?;
    let root = hold.places.root;
    let text = hold.pattern.to_string();
    // An id alone is one device, whatever else has these digits in its name.
    let by_id = text.parse::<device_manager::record::DeviceId>().ok();
    let pattern = match by_id {
        Some(id) => format!("id={id}").parse()?,
        None => hold.pattern,
    };
    let (function, any, queue, limit_s) = (hold.function, hold.any, hold.queue, hold.limit);
    service::run::run(Options {
        wanted: Wanted { pattern, function, any, queue, limit_s },
        attach,
        keep,
        link,
        group,
        socket: hold.socket,
        state: state(root.as_deref(), "device-manager-attach"),
        runtime: runtime(root.as_deref(), "device-manager-attach"),
        unit: runtime(root.as_deref(), "device-manager-unit").join("holders.sock"),
        helper: hold.helper,
        root,
    })
    .await
}
