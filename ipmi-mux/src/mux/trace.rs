// SPDX-License-Identifier: MIT OR Apache-2.0
//! What passes through the core, for `watch`. Nothing is kept while nobody watches.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::request::Request;
use super::{HandleId, Incoming, Mux, Origin, Owner};
use crate::addr::Addr;
use crate::devintf::Send;

/// Traces waiting for [`Mux::next_trace`]. The shell takes them after every event, so this only cuts
/// what a single event can cause: thousands of deadlines passing at once.
pub const MAX_TRACES: usize = 4096;

/// Something that passed between a handle and the BMC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The handle.
    pub handle: Option<HandleId>,
    /// Who opened it.
    pub owner: Option<Owner>,
    /// What passed.
    pub what: What,
}

/// A message as its sender or receiver sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Msg {
    /// The caller's message id; of a command its sequence number, of an event 0.
    pub msgid: i64,
    /// The other side.
    pub addr: Addr,
    /// Network function, any byte; the wire carries its low 6 bits. Odd in events and where a handle
    /// itself answers another controller.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
    /// Data.
    pub data: Vec<u8>,
}

/// What passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A handle sent this and it was accepted.
    Request(Msg),
    /// A handle sent this and its send failed.
    Refused(Msg, Errno),
    /// A handle's request was answered.
    Answer {
        /// The request.
        request: Msg,
        /// Completion code and data of the answer.
        answer: Vec<u8>,
        /// Who answered.
        origin: Origin,
        /// From acceptance to answer.
        took: Duration,
    },
    /// A handle was closed before this request of it was answered.
    Unanswered {
        /// The request.
        request: Msg,
        /// Whether the BMC has it: then it acts on it all the same.
        sent: bool,
        /// From acceptance to the close.
        after: Duration,
    },
    /// An event from the BMC was put into the inbox of a handle.
    Event(Msg),
    /// A command of another controller was put into the inbox of a handle.
    Command(Msg),
    /// So many traces were lost because more than [`MAX_TRACES`] came at once.
    Missed(u64),
}

impl From<&Send> for Msg {
    fn from(send: &Send) -> Self {
        let Send { addr, msgid, netfn, cmd, ref data, .. } = *send;
        Self { msgid, addr, netfn, cmd, data: data.clone() }
    }
}

/// The traces not yet taken.
#[derive(Debug, Default)]
pub(super) struct Traces {
    watched: bool,
    queue: VecDeque<Trace>,
    missed: u64,
}

impl Traces {
    /// Keeps what `what` makes, which is called only while somebody watches.
    pub fn push(&mut self, id: HandleId, owner: Owner, what: impl FnOnce() -> What) {
        if !self.watched {
            return;
        }
        if self.queue.len() < MAX_TRACES {
            let trace = Trace { handle: Some(id), owner: Some(owner), what: what() };
            self.queue.push_back(trace);
        } else {
            self.missed += 1;
        }
    }

    pub fn answer(
        &mut self,
        now: Instant,
        id: HandleId,
        owner: Owner,
        origin: Origin,
        request: &Request,
        answer: &[u8],
    ) {
        self.push(id, owner, || What::Answer {
            request: Msg::from(&request.send),
            answer: answer.to_vec(),
            origin,
            took: now.saturating_duration_since(request.accepted),
        });
    }

    pub fn unanswered(
        &mut self,
        now: Instant,
        id: HandleId,
        owner: Owner,
        request: &Request,
        sent: bool,
    ) {
        self.push(id, owner, || What::Unanswered {
            request: Msg::from(&request.send),
            sent,
            after: now.saturating_duration_since(request.accepted),
        });
    }
}

impl Msg {
    pub(super) fn unsolicited(msgid: i64, from: &Incoming) -> Self {
        let Incoming { addr, netfn, cmd, ref data } = *from;
        Self { msgid, addr, netfn, cmd, data: data.clone() }
    }
}

impl Mux {
    /// Begins or ends keeping traces; what was kept is dropped at the end.
    pub fn set_watched(&mut self, watched: bool) {
        if self.traces.watched != watched {
            self.traces = Traces { watched, ..Traces::default() };
        }
    }

    /// What passed, in order.
    pub fn next_trace(&mut self) -> Option<Trace> {
        let Traces { queue, missed, .. } = &mut self.traces;
        queue.pop_front().or_else(|| {
            let what = What::Missed(std::mem::take(missed));
            (what != What::Missed(0)).then_some(Trace { handle: None, owner: None, what })
        })
    }
}

#[cfg(test)]
mod tests;
