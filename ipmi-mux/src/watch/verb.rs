// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verb `watch`.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use anyhow::{Context, bail};
use daemon_kit::client::Client;
use daemon_kit::signals::Signals;
use kernel_abi::async_fd::watch_errors;
use tokio::io::Interest;

use super::filter::short_node;
use super::pcap::Writer;
use super::show::{Explained, Lines};
use super::{Kind, Record};
use crate::args::WatchArgs;
use crate::control::{NodeStatus, Status};

/// Shows what passes until the count is reached, a signal comes, or nobody reads any more.
///
/// # Errors
/// The daemon cannot be asked, stops, or the output cannot be written.
pub async fn watch(args: &WatchArgs) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot handle signals")?;
    let daemon = Client::new("ipmi-mux", &args.ask.socket);
    if let Some(node) = &args.filter.node {
        let status: Status = daemon.get_json("/v1/status").await?;
        check_node(node, &status.nodes)?;
    }
    let mut records = daemon.get_lines("/v1/watch").await?;
    let Some(mut output) = quiet(Output::open(args))? else { return Ok(()) };
    let mut left = args.count;
    while left != Some(0) {
        let line = tokio::select! {
            biased;
            // A hang-up as well: nobody is there to read.
            _ = signals.next() => return Ok(()),
            () = reader_gone() => return Ok(()),
            line = records.next() => line?,
        };
        let Some(line) = line else { bail!("the daemon has stopped") };
        let record: Record = serde_json::from_str(&line)
            .context("the daemon tells what this version does not know; restart it")?;
        if !args.filter.admits(&record) {
            continue;
        }
        if quiet(output.write(&record))?.is_none() {
            return Ok(());
        }
        if record.kind != Kind::Missed {
            left = left.map(|left| left - 1);
        }
    }
    Ok(())
}

/// Nobody shall wait for what passes on a node that there is not.
fn check_node(node: &str, nodes: &[NodeStatus]) -> anyhow::Result<()> {
    if nodes.iter().any(|n| short_node(&n.path) == short_node(node)) {
        return Ok(());
    }
    let paths: Vec<&str> = nodes.iter().map(|n| n.path.as_str()).collect();
    bail!("there is no node {node}; there are {}", paths.join(", "))
}

/// Ends when the pipe that we write to has lost its reader, also while there is nothing to write. Other
/// outputs have no such end.
async fn reader_gone() {
    let output = io::stdout().as_fd().try_clone_to_owned().and_then(watch_errors);
    match output {
        Ok(output) if output.ready(Interest::ERROR).await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// `None` where whoever read has seen enough, as in `ipmi-mux watch | head`.
fn quiet<T>(done: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    let closed = |error: &anyhow::Error| {
        error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    };
    match done {
        Err(error) if closed(&error) => Ok(None),
        done => done.map(Some),
    }
}

enum Output {
    Text(Lines),
    Json,
    Capture(Writer<Box<dyn Write>>),
}

impl Output {
    fn open(args: &WatchArgs) -> anyhow::Result<Self> {
        let Some(path) = &args.pcap else {
            if args.ask.json {
                return Ok(Self::Json);
            }
            let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let mut lines = Lines::new(!plain && io::stdout().is_terminal());
            print(&lines.header())?;
            return Ok(Self::Text(lines));
        };
        let out: Box<dyn Write> = if path.as_os_str() == "-" {
            if io::stdout().is_terminal() {
                bail!(
                    "a capture is not for a terminal; give a file, or pipe it into wireshark -k -i -"
                );
            }
            Box::new(io::stdout())
        } else {
            let file = File::create(path);
            Box::new(file.with_context(|| format!("cannot write {}", path.display()))?)
        };
        Ok(Self::Capture(Writer::new(out)?))
    }

    fn write(&mut self, record: &Record) -> anyhow::Result<()> {
        match self {
            Self::Text(lines) => print(&lines.line(record)),
            Self::Json => {
                let mut line = serde_json::to_string(&Explained::of(record))?;
                line.push('\n');
                print(&line)
            }
            Self::Capture(writer) => Ok(writer.write(record)?),
        }
    }
}

/// Whole lines at once, so that programs behind a pipe see each as it happens.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
