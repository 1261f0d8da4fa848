// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nothing but a member of a group: what the programs that span machines have in common, by itself, to be tried
//! and measured.
//!
//! On its control socket: `GET /v1/group`; `GET /v1/records/MEMBER`; `PUT /v1/records` with keys and values as a JSON
//! object, where null removes; `PUT /v1/draining` with true or false; `GET` and `PUT /v1/settings` likewise; `POST
//! /v1/orders` with `to`, `subject`, `what` and perhaps `id`, `GET /v1/orders/ID`. An order is carried out by
//! appending a line to the file that `--orders` names.
#![forbid(unsafe_code)]

mod agreed;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use axum::extract::{Path, State};
use axum::routing::{get, put};
use axum::{Json, Router};
use clap::Parser;
use daemon_kit::control::{ApiError, ControlServer, Policy};
use daemon_kit::signals::{Signal, Signals};
use daemon_kit::{exit, logging, notify};
use group::core::records::Change;
use group::core::{Notice, Replication, Unfit};
use group::shell::{Group, Options};
use group::wire::Class;
use secure_link::{Name, Store};

/// A member of a group that does nothing else.
#[derive(Debug, Parser)]
struct Args {
    /// Use etc/midplane and var/lib/midplane below this folder
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Whose part of the group key to use
    #[arg(long, default_value = "smbus-monitor")]
    program: Name,
    /// The port, over TCP and UDP
    #[arg(long, default_value_t = 7460)]
    port: u16,
    /// The group's list
    #[arg(long, value_name = "FILE", default_value = group::list::PATH)]
    list: PathBuf,
    /// Where to remember what must be remembered
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The control socket
    #[arg(long, value_name = "SOCKET")]
    control: PathBuf,
    /// Hold nobody else's records
    #[arg(long)]
    own: bool,
    /// Never be the manager
    #[arg(long)]
    follow: bool,
    /// Carry orders out by appending a line to this file
    #[arg(long, value_name = "FILE")]
    orders: Option<PathBuf>,
    /// Write notices here, a line of JSON each, with the time in microseconds
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Log more; twice for the most
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("group-member: {error:#}");
            ExitCode::from(exit::FAILED)
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(args: Args) -> anyhow::Result<()> {
    kernel_abi::heap::give_back_large_blocks();
    logging::init("group-member", args.verbose)?;
    let store = args.root.as_deref().map_or_else(Store::default, Store::below);
    let node = match secure_link::store::given_node()? {
        Some(node) => node,
        None => store.node()?.context("this machine has no key; use `midplane key`")?,
    };
    let options = Options {
        program: args.program,
        port: args.port,
        list: args.list,
        state: args.state,
        store,
        node,
        replication: if args.own { Replication::Own } else { Replication::All },
        leads: !args.follow,
    };
    let state = options.state.clone();
    let (group, incoming) = Group::start(options).await?;
    let settings = agreed::open(&group, incoming.settings, &state, args.orders).await?;
    if let Some(path) = args.events {
        let file = std::fs::File::create(&path).with_context(|| path.display().to_string())?;
        tokio::spawn(write_events(file, incoming.notices));
    }
    let router = Router::new()
        .route("/v1/records/{member}", get(records))
        .route("/v1/records", put(set_records))
        .route("/v1/draining", put(set_draining))
        .with_state(group.clone())
        .merge(agreed::routes(group.clone(), settings.clone()));
    let server = ControlServer::bind(&args.control, router, Policy::system()).await?;
    let mut signals = Signals::new().context("cannot handle signals")?;
    notify::ready("a member");
    let stop = async {
        loop {
            match signals.next().await {
                Signal::Stop => return,
                _ => drop(group.reload().await),
            }
        }
    };
    server.run(stop).await;
    notify::stopping();
    settings.close().await;
    group.leave().await;
    Ok(())
}

/// A line for each change of members or manager.
async fn write_events(
    mut file: std::fs::File,
    mut notices: tokio::sync::broadcast::Receiver<Notice>,
) {
    while let Ok(notice) = notices.recv().await {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros());
        let event = match notice {
            Notice::Here(name) => serde_json::json!({ "us": time, "here": name.as_str() }),
            Notice::Away(name, why) => {
                let why = group::report::state(Some(why));
                serde_json::json!({ "us": time, "away": name.as_str(), "why": why })
            }
            Notice::Manager(name) => {
                serde_json::json!({ "us": time, "manager": name.as_ref().map(Name::as_str) })
            }
            Notice::Records(name) => serde_json::json!({ "us": time, "records": name.as_str() }),
        };
        if let Err(error) = writeln!(file, "{event}") {
            tracing::warn!(%error, "an event is not written");
        }
    }
}

#[derive(Debug, serde::Serialize)]
struct Records {
    current: bool,
    records: BTreeMap<String, String>,
}

async fn records(
    State(group): State<Group>,
    Path(member): Path<String>,
) -> Result<Json<Records>, ApiError> {
    let name: Name = member.parse().map_err(|_| ApiError::not_found("no such member"))?;
    let found = group.look(move |core, _| {
        let records = core.records(&name)?;
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let shown = records.iter().map(|record| (record.key.to_string(), text(&record.value)));
        Some(Records { current: records.current, records: shown.collect() })
    });
    let found = found.await.map_err(|gone| ApiError::internal(gone.to_string()))?;
    found.map(Json).ok_or_else(|| ApiError::not_found("nothing is known of that member"))
}

async fn set_records(
    State(group): State<Group>,
    Json(records): Json<BTreeMap<String, Option<String>>>,
) -> Result<(), ApiError> {
    let mut changes = vec![];
    for (key, value) in records {
        let key = key.parse().map_err(|error| ApiError::bad_request(format!("{key}: {error}")))?;
        changes.push(match value {
            Some(value) => Change::Set(key, Class::Dynamic, value.into_bytes().into()),
            None => Change::Remove(key),
        });
    }
    group.change(changes).await.map_err(|error| ApiError::conflict(error.to_string()))
}

async fn set_draining(State(group): State<Group>, Json(is): Json<bool>) -> Result<(), ApiError> {
    let set = group.set_unfit(Unfit::Draining, is).await;
    set.map_err(|gone| ApiError::internal(gone.to_string()))
}
