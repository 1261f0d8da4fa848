// SPDX-License-Identifier: MIT OR Apache-2.0
//! A handle: what one open file of a node has.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use kernel_abi::ipmi_devintf::{
    IPMI_ASYNC_EVENT_RECV_TYPE, IPMI_CMD_RECV_TYPE, IPMI_NUM_CHANNELS, IpmiTimingParms,
};

use super::request::Token;
use crate::devintf::Message;

/// Messages a handle may have sent and not yet received the answers of: the kernel's
/// `max_msgs_per_user`.
pub const MAX_MESSAGES: usize = 100;

/// Events and commands that wait for a handle to receive them. Of more, the oldest is dropped and
/// counted: a reader that comes back wants to know how things are now.
pub const EVENT_BACKLOG: usize = 256;

/// "Use the low-level defaults", as `ipmi_open` does.
pub(super) const DEFAULT_TIMING: IpmiTimingParms =
    IpmiTimingParms { retries: -1, retry_time_ms: 0 };

/// Names a handle; the `fh` of its CUSE requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId(pub u64);

/// Who opened a handle, as the kernel said at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Index of the node in the configuration.
    pub node: usize,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Thread id of the opener; its process may have passed the handle on since.
    pub pid: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub sent: u64,
    pub answered: u64,
    pub timeouts: u64,
    pub refused: u64,
    pub dropped: u64,
}

#[derive(Debug)]
pub(super) struct Handle {
    pub owner: Owner,
    opened: Instant,
    /// The virtual controller it belongs to: its own, or that of the handle it attached to.
    pub controller: HandleId,
    /// Requests whose answers it waits for.
    pub pending: BTreeSet<Token>,
    pub inbox: VecDeque<Message>,
    /// Events and commands among the inbox.
    unsolicited: usize,
    pub gets_events: bool,
    /// Our address and LUN per channel.
    pub source: [(u8, u8); IPMI_NUM_CHANNELS],
    pub timing: IpmiTimingParms,
    pub counters: Counters,
}

/// What `clients` shows of a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Who opened it.
    pub owner: Owner,
    /// The virtual controller it belongs to, named by the handle it began with.
    pub controller: HandleId,
    /// When it was opened.
    pub opened: Instant,
    /// Messages accepted.
    pub sent: u64,
    /// Answers put into its inbox, time-outs among them.
    pub answered: u64,
    /// Answers that were completion code C3 for a deadline of ours.
    pub timeouts: u64,
    /// Messages refused with an errno.
    pub refused: u64,
    /// Events and commands dropped because it did not receive.
    pub dropped: u64,
    /// Messages that wait for their turn.
    pub queued: usize,
    /// Messages with the BMC.
    pub in_flight: usize,
    /// Messages it has not received yet.
    pub unread: usize,
    /// Whether it asked for events.
    pub gets_events: bool,
}

impl Handle {
    pub fn new(
        now: Instant,
        id: HandleId,
        owner: Owner,
        source: [(u8, u8); IPMI_NUM_CHANNELS],
    ) -> Self {
        Self {
            owner,
            opened: now,
            controller: id,
            pending: BTreeSet::new(),
            inbox: VecDeque::new(),
            unsolicited: 0,
            gets_events: false,
            source,
            timing: DEFAULT_TIMING,
            counters: Counters::default(),
        }
    }

    /// Messages that count against [`MAX_MESSAGES`].
    pub fn messages(&self) -> usize {
        self.pending.len() + (self.inbox.len() - self.unsolicited)
    }

    /// Queues an event or command; returns whether an older one had to go.
    pub fn push_unsolicited(&mut self, message: Message) -> bool {
        let full = self.unsolicited >= EVENT_BACKLOG;
        if full {
            let oldest = self.inbox.iter().position(is_unsolicited);
            self.inbox.remove(oldest.expect("the count is that of the inbox"));
            self.counters.dropped += 1;
        } else {
            self.unsolicited += 1;
        }
        self.inbox.push_back(message);
        full
    }

    pub fn take(&mut self) {
        if self.inbox.pop_front().is_some_and(|m| is_unsolicited(&m)) {
            self.unsolicited -= 1;
        }
    }

    /// Whether events and commands wait in the inbox.
    pub fn unsolicited_kinds(&self) -> (bool, bool) {
        let has = |kind| self.inbox.iter().any(|message| message.recv_type == kind);
        (has(IPMI_ASYNC_EVENT_RECV_TYPE), has(IPMI_CMD_RECV_TYPE))
    }

    /// Drops the events, the commands, or both from the inbox.
    pub fn drop_unsolicited(&mut self, events: bool, commands: bool) {
        let drops = |kind| match kind {
            IPMI_ASYNC_EVENT_RECV_TYPE => events,
            IPMI_CMD_RECV_TYPE => commands,
            _ => false,
        };
        self.inbox.retain(|message| !drops(message.recv_type));
        self.unsolicited = self.inbox.iter().filter(|m| is_unsolicited(m)).count();
    }

    /// `in_flight` of its requests are with the BMC.
    pub fn info(&self, in_flight: usize) -> Info {
        let Counters { sent, answered, timeouts, refused, dropped } = self.counters;
        Info {
            owner: self.owner,
            controller: self.controller,
            opened: self.opened,
            sent,
            answered,
            timeouts,
            refused,
            dropped,
            queued: self.pending.len() - in_flight,
            in_flight,
            unread: self.inbox.len(),
            gets_events: self.gets_events,
        }
    }
}

fn is_unsolicited(message: &Message) -> bool {
    matches!(message.recv_type, IPMI_ASYNC_EVENT_RECV_TYPE | IPMI_CMD_RECV_TYPE)
}
