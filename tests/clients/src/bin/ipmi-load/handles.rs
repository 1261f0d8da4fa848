// SPDX-License-Identifier: MIT OR Apache-2.0
//! The open handles, and the loop that keeps one command of each outstanding.
//!
//! It waits with epoll, not poll: of a CUSE node, poll asks the server about every handle at every call.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use kernel_abi::ipmi_devintf::{
    IPMI_BMC_CHANNEL, IPMI_SYSTEM_INTERFACE_ADDR_TYPE, IpmiTimingParms, Outgoing, receive, send,
};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::command::{Command, Id, Verdict};
use crate::tally::Tally;

/// Descriptors beside the handles: the standard ones and epoll's.
const OTHER_DESCRIPTORS: u64 = 16;

/// Events taken from epoll at once.
const BATCH: usize = 256;

/// When a handle has done enough.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// So many of its commands were answered.
    Commands(u64),
    /// It is that late.
    Time(Instant),
}

#[derive(Debug)]
struct Handle {
    file: File,
    index: u32,
    number: u32,
    waiting: Option<Waiting>,
    /// Commands of this run that were answered, in whatever way.
    answered: u64,
    /// Those among them that were answered rightly.
    completed: u64,
    /// It failed, and takes no further part.
    broken: bool,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    id: Id,
    since: Instant,
}

impl Handle {
    fn id(&mut self) -> Id {
        self.number += 1;
        Id { pid: std::process::id(), handle: self.index, number: self.number }
    }

    fn send(&mut self, command: &Command) -> Result<(), Errno> {
        let id = self.id();
        let since = Instant::now();
        send(
            &self.file,
            Outgoing {
                addr: &bmc(),
                msgid: id.msgid(),
                netfn: command.netfn,
                cmd: command.cmd,
                data: &command.payload(id),
                // What open gives: the driver's own.
                timing: IpmiTimingParms { retries: -1, retry_time_ms: 0 },
            },
        )?;
        self.waiting = Some(Waiting { id, since });
        Ok(())
    }
}

/// `struct ipmi_system_interface_addr` of LUN 0.
fn bmc() -> [u8; 8] {
    let mut addr = [0; 8];
    addr[..4].copy_from_slice(&IPMI_SYSTEM_INTERFACE_ADDR_TYPE.to_ne_bytes());
    addr[4..6].copy_from_slice(&IPMI_BMC_CHANNEL.to_ne_bytes());
    addr
}

/// All handles of this process.
#[derive(Debug)]
pub struct Handles {
    all: Vec<Handle>,
    epoll: Epoll,
}

impl Handles {
    /// Opens `count` handles, of the nodes in turn. What cannot be opened is counted and left out.
    pub fn open(nodes: &[PathBuf], count: u32, tally: &mut Tally) -> anyhow::Result<Self> {
        allow_descriptors(u64::from(count) + OTHER_DESCRIPTORS)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("cannot make an epoll")?;
        let mut all = vec![];
        for (index, node) in (0..count).zip(nodes.iter().cycle()) {
            match File::options().read(true).write(true).open(node) {
                Ok(file) => {
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, all.len() as u64);
                    epoll
                        .add(&file, event)
                        .with_context(|| format!("cannot poll {}", node.display()))?;
                    all.push(Handle {
                        file,
                        index,
                        number: 0,
                        waiting: None,
                        answered: 0,
                        completed: 0,
                        broken: false,
                    });
                    tally.opened += 1;
                }
                Err(err) => match err.raw_os_error() {
                    Some(errno) => tally.refuse(format!("{:?}", Errno::from_raw(errno))),
                    None => tally.refuse(err),
                },
            }
        }
        Ok(Self { all, epoll })
    }

    /// Commands of the last run that each handle completed.
    pub fn completed(&self) -> Vec<u64> {
        self.all.iter().map(|h| h.completed).collect()
    }

    /// A run: keeps each handle at work until it has done enough, and waits for the answers of what was
    /// sent. Returns how long it took.
    pub fn work(
        &mut self,
        command: &Command,
        until: Until,
        limit: Duration,
        tally: &mut Tally,
    ) -> anyhow::Result<Duration> {
        let start = Instant::now();
        for handle in &mut self.all {
            (handle.answered, handle.completed) = (0, 0);
            go_on(handle, command, until, tally);
        }
        let mut events = [EpollEvent::empty(); BATCH];
        while let Some(oldest) = self.all.iter().filter_map(|h| h.waiting).map(|w| w.since).min() {
            let patience = (oldest + limit).saturating_duration_since(Instant::now());
            // Rounded up, or the last millisecond would be spun away.
            let wait = EpollTimeout::try_from(patience + Duration::from_millis(1))
                .unwrap_or(EpollTimeout::MAX);
            let count = match self.epoll.wait(&mut events, wait) {
                Err(Errno::EINTR) => continue,
                other => other.context("cannot wait for answers")?,
            };
            for event in &events[..count] {
                let handle = &mut self.all[event.data() as usize];
                take_answer(handle, event.events(), command, tally);
                go_on(handle, command, until, tally);
            }
            self.give_up(command, until, limit, tally);
            self.forget_broken();
        }
        Ok(start.elapsed())
    }

    /// Gives up on handles that have waited for too long.
    fn give_up(&mut self, command: &Command, until: Until, limit: Duration, tally: &mut Tally) {
        for handle in &mut self.all {
            if handle.waiting.is_none_or(|w| w.since.elapsed() < limit) {
                continue;
            }
            // The answer may be there, and we too slow: with many handles on a busy machine a round takes long.
            take_answer(handle, EpollFlags::EPOLLIN, command, tally);
            if handle.waiting.is_some_and(|w| w.since.elapsed() >= limit) {
                tally.error("no answer");
                retire(handle);
            }
            go_on(handle, command, until, tally);
        }
    }

    /// epoll would report a dead node for ever.
    fn forget_broken(&mut self) {
        for handle in self.all.iter().filter(|h| h.broken) {
            // ENOENT once it has been done.
            let _ = self.epoll.delete(&handle.file);
        }
    }

    /// Counts what came without having been asked for: each command has one answer.
    pub fn look_for_more(&mut self, tally: &mut Tally) {
        for handle in self.all.iter().filter(|h| !h.broken) {
            while receive(&handle.file).is_ok() {
                *tally.wrong.entry("one too many").or_default() += 1;
            }
        }
    }

    /// Sends on every handle until it is refused, at most `most` times. Returns how many were accepted.
    pub fn fill(&mut self, command: &Command, most: u64, tally: &mut Tally) -> Vec<u64> {
        let fill = |handle: &mut Handle| {
            for sent in 0..most {
                if let Err(errno) = handle.send(command) {
                    tally.error(format!("{errno:?}"));
                    return sent;
                }
            }
            most
        };
        self.all.iter_mut().map(fill).collect()
    }
}

fn retire(handle: &mut Handle) {
    handle.waiting = None;
    handle.broken = true;
}

/// Sends the next command where one is due.
fn go_on(handle: &mut Handle, command: &Command, until: Until, tally: &mut Tally) {
    let enough = match until {
        Until::Commands(count) => handle.answered >= count,
        Until::Time(end) => Instant::now() >= end,
    };
    if enough || handle.broken || handle.waiting.is_some() {
        return;
    }
    if let Err(errno) = handle.send(command) {
        tally.error(format!("{errno:?}"));
        retire(handle);
    }
}

fn take_answer(handle: &mut Handle, events: EpollFlags, command: &Command, tally: &mut Tally) {
    let answer = match receive(handle.file.as_fd()) {
        Ok(answer) => answer,
        Err(Errno::EAGAIN) if events.contains(EpollFlags::EPOLLIN) => return,
        Err(errno) => {
            tally.error(format!("{errno:?}"));
            return retire(handle);
        }
    };
    let Some(Waiting { id, since }) = handle.waiting else {
        *tally.wrong.entry("one too many").or_default() += 1;
        return;
    };
    let verdict = command.judge(id, &answer);
    match verdict {
        Verdict::Right => {
            handle.completed += 1;
            tally.complete(since.elapsed());
        }
        Verdict::TimedOut => tally.timeouts += 1,
        Verdict::Refused(code) => tally.error(format!("completion code {code:02x}")),
        Verdict::Wrong(why) => *tally.wrong.entry(why).or_default() += 1,
    }
    // An answer to something else leaves us waiting for our own.
    if !matches!(verdict, Verdict::Wrong("msgid" | "type")) {
        handle.waiting = None;
        handle.answered += 1;
    }
}

/// Raises this process's limit of descriptors as far as it needs.
fn allow_descriptors(needed: u64) -> anyhow::Result<()> {
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    if soft >= needed {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed))
        .with_context(|| format!("cannot raise the limit of open files to {needed}"))
}
