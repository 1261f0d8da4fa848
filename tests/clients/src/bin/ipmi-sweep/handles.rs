// SPDX-License-Identifier: MIT OR Apache-2.0
//! The open handles, each with several messages outstanding.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use kernel_abi::ipmi_devintf::{
    IPMI_RESPONSE_RECV_TYPE, IPMI_RESPONSE_RESPONSE_TYPE, IpmiTimingParms, Outgoing, receive, send,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::plan::{Message, Way};
use crate::tally::Tally;

#[derive(Debug)]
struct Handle {
    file: File,
    waiting: HashMap<i64, (Way, (u8, u8))>,
}

#[derive(Debug)]
pub struct Handles {
    all: Vec<Handle>,
    outstanding: usize,
    next: usize,
    number: i64,
}

impl Handles {
    pub fn open(node: &Path, count: u32, outstanding: u32) -> anyhow::Result<Self> {
        let open = |_| {
            let file = File::options().read(true).write(true).open(node)?;
            Ok(Handle { file, waiting: HashMap::new() })
        };
        let all: std::io::Result<Vec<_>> = (0..count).map(open).collect();
        let all = all.with_context(|| format!("cannot open {}", node.display()))?;
        Ok(Self { all, outstanding: outstanding as usize, next: 0, number: 0 })
    }

    /// Sends a message on the next handle, once it waits for few enough answers.
    pub fn send(
        &mut self,
        message: &Message,
        limit: Duration,
        tally: &mut Tally,
    ) -> anyhow::Result<()> {
        self.next = (self.next + 1) % self.all.len();
        let handle = &mut self.all[self.next];
        if handle.waiting.len() >= self.outstanding {
            // Half of them, so that sending and receiving do not take turns one by one.
            handle.receive(self.outstanding / 2, limit, tally)?;
        }
        self.number += 1;
        let outgoing = Outgoing {
            addr: &message.addr,
            msgid: self.number,
            netfn: message.netfn,
            cmd: message.cmd,
            data: &message.data,
            // What open gives: the driver's own.
            timing: IpmiTimingParms { retries: -1, retry_time_ms: 0 },
        };
        match send(&handle.file, outgoing) {
            Ok(()) => {
                tally.sent();
                handle.waiting.insert(self.number, (message.way, message.tried));
            }
            Err(errno) => tally.refused(errno),
        }
        Ok(())
    }

    /// Waits for all answers, and then looks whether there is one too many.
    pub fn finish(&mut self, limit: Duration, tally: &mut Tally) -> anyhow::Result<()> {
        for handle in &mut self.all {
            handle.receive(0, limit, tally)?;
            while handle.take(tally)? {}
        }
        Ok(())
    }
}

impl Handle {
    /// Receives until no more than `left` answers are missing, or none came for so long.
    fn receive(&mut self, left: usize, limit: Duration, tally: &mut Tally) -> anyhow::Result<()> {
        let mut heard = Instant::now();
        while self.waiting.len() > left {
            if self.take(tally)? {
                heard = Instant::now();
                continue;
            }
            let patience = limit.saturating_sub(heard.elapsed());
            if patience.is_zero() {
                // They are missing in the report.
                self.waiting.clear();
                return Ok(());
            }
            let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
            poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)], timeout)
                .context("cannot wait for answers")?;
        }
        Ok(())
    }

    /// Takes one message. Returns whether there was one.
    fn take(&mut self, tally: &mut Tally) -> anyhow::Result<bool> {
        let answer = match receive(&self.file) {
            Ok(answer) => answer,
            Err(Errno::EAGAIN) => return Ok(false),
            Err(errno) => return Err(errno).context("cannot receive"),
        };
        if !matches!(answer.recv_type, IPMI_RESPONSE_RECV_TYPE | IPMI_RESPONSE_RESPONSE_TYPE) {
            return Ok(true);
        }
        match (self.waiting.remove(&answer.msgid), answer.data.first()) {
            (Some((way, tried)), Some(code)) => tally.answered(way, tried, *code),
            _ => tally.unexpected(),
        }
        Ok(true)
    }
}
