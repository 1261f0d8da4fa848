// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many handles of one node, each used as if it had a BMC of its own: all reserve the sensor data
//! records, then all read with their own reservation; all listen, and each gets each event once.
//!
//! With --events it prints `listening` when all do, and ends when each has so many. Prints JSON.
//! Exit status: 0 when every handle had what it would have had alone, else 1; 2 for usage.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use kernel_abi::ipmi_devintf::{
    self as abi, IPMI_ASYNC_EVENT_RECV_TYPE, IPMI_RESPONSE_RECV_TYPE, Incoming, IpmiTimingParms,
    Outgoing,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Many handles, each used as if it had a BMC of its own
#[derive(Debug, Parser)]
struct Args {
    /// The node
    #[arg(long)]
    node: PathBuf,
    /// How many handles
    #[arg(long, default_value_t = 300)]
    handles: usize,
    /// Reads of each handle with its reservation
    #[arg(long, default_value_t = 2)]
    reads: u32,
    /// Events that each handle waits for
    #[arg(long, default_value_t = 0)]
    events: usize,
    /// Seconds for each phase
    #[arg(long, default_value_t = 60)]
    limit: u64,
}

/// `IPMI_SYSTEM_INTERFACE_ADDR_TYPE`, channel 15, LUN 0.
fn bmc() -> [u8; 8] {
    let mut addr = [0; 8];
    addr[..4].copy_from_slice(&0x0ci32.to_ne_bytes());
    addr[4..6].copy_from_slice(&15i16.to_ne_bytes());
    addr
}

fn send(handle: &File, msgid: i64, cmd: u8, data: &[u8]) -> anyhow::Result<()> {
    let addr = bmc();
    let timing = IpmiTimingParms { retries: -1, retry_time_ms: 0 };
    let message = Outgoing { addr: &addr, msgid, netfn: 0x0a, cmd, data, timing };
    abi::send(handle, message).with_context(|| format!("cannot send 0a/{cmd:02x}"))
}

/// Waits until `take` says of every handle that it has what it waits for.
fn collect(
    handles: &[File],
    limit: Duration,
    mut take: impl FnMut(usize, Incoming) -> bool,
) -> anyhow::Result<()> {
    let end = Instant::now() + limit;
    let mut waiting: BTreeMap<usize, &File> = handles.iter().enumerate().collect();
    while !waiting.is_empty() {
        let Some(left) = end.checked_duration_since(Instant::now()) else {
            bail!("{} of {} handles wait in vain", waiting.len(), handles.len());
        };
        let flags = PollFlags::POLLIN;
        let mut fds: Vec<_> = waiting.values().map(|f| PollFd::new(f.as_fd(), flags)).collect();
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        poll(&mut fds, timeout).context("cannot poll")?;
        let ready: Vec<usize> = waiting
            .keys()
            .zip(&fds)
            .filter(|(_, fd)| fd.any().unwrap_or(false))
            .map(|(at, _)| *at)
            .collect();
        for at in ready {
            match abi::receive(&handles[at]) {
                Ok(got) => {
                    if take(at, got) {
                        waiting.remove(&at);
                    }
                }
                Err(Errno::EAGAIN) => {}
                Err(errno) => return Err(errno).context("cannot receive"),
            }
        }
    }
    Ok(())
}

fn reserved_reads(args: &Args, handles: &[File]) -> anyhow::Result<usize> {
    const RESERVE: u8 = 0x22;
    const GET: u8 = 0x23;
    let limit = Duration::from_secs(args.limit);
    let mut reservations = vec![[0u8; 2]; handles.len()];
    for handle in handles {
        send(handle, 1, RESERVE, &[])?;
    }
    let mut wrong = vec![];
    collect(handles, limit, |at, got| match &got.data[..] {
        [0, low, high] if (got.msgid, got.cmd) == (1, RESERVE) => {
            reservations[at] = [*low, *high];
            true
        }
        data => {
            wrong.push(format!("handle {at}: reserve: {data:02x?}"));
            true
        }
    })?;
    let mut contents = HashSet::new();
    for read in 0..args.reads {
        let msgid = 2 + i64::from(read);
        for (handle, [low, high]) in handles.iter().zip(&reservations) {
            // Eight bytes from the middle of the first record, for which a reservation is needed.
            send(handle, msgid, GET, &[*low, *high, 0, 0, 5, 8])?;
        }
        collect(handles, limit, |at, got| {
            let good = got.recv_type == IPMI_RESPONSE_RECV_TYPE
                && (got.msgid, got.cmd, got.data.len()) == (msgid, GET, 11)
                && got.data[0] == 0;
            if good {
                contents.insert(got.data);
            } else {
                wrong.push(format!("handle {at}: read: {:02x?}", got.data));
            }
            true
        })?;
    }
    for line in wrong.iter().take(10) {
        eprintln!("{line}");
    }
    if contents.len() > 1 {
        bail!("the same record read as {} different ones", contents.len());
    }
    Ok(wrong.len())
}

fn events(args: &Args, handles: &[File]) -> anyhow::Result<usize> {
    for handle in handles {
        abi::set_gets_events(handle, true).context("cannot ask for events")?;
    }
    println!("listening");
    let mut seen: Vec<Vec<Vec<u8>>> = vec![vec![]; handles.len()];
    collect(handles, Duration::from_secs(args.limit), |at, got| {
        if got.recv_type == IPMI_ASYNC_EVENT_RECV_TYPE {
            seen[at].push(got.data);
        }
        seen[at].len() >= args.events
    })?;
    let twice = |got: &&Vec<Vec<u8>>| got.iter().collect::<HashSet<_>>().len() != got.len();
    let more = handles.iter().filter(|handle| abi::receive(handle).is_ok()).count();
    let order = seen.iter().filter(|got| **got != seen[0]).count();
    Ok(seen.iter().filter(twice).count() + more + order)
}

fn run(args: &Args) -> anyhow::Result<bool> {
    let open = || File::options().read(true).write(true).open(&args.node);
    let handles: Result<Vec<File>, _> = (0..args.handles).map(|_| open()).collect();
    let handles = handles.with_context(|| format!("cannot open {}", args.node.display()))?;
    let wrong_reads = reserved_reads(args, &handles)?;
    let wrong_events = if args.events > 0 { events(args, &handles)? } else { 0 };
    let report = serde_json::json!({
        "handles": handles.len(),
        "reads": u64::from(args.reads) * handles.len() as u64,
        "wrong_reads": wrong_reads,
        "events": args.events * handles.len(),
        "wrong_events": wrong_events,
    });
    println!("{report}");
    Ok(wrong_reads + wrong_events == 0)
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ipmi-controllers: {error:#}");
            ExitCode::FAILURE
        }
    }
}
