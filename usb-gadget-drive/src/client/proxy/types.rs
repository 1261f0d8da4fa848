// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the core is told and what it says.

use std::fmt;
use std::time::Duration;

use crate::client::replay::Payload;
#[cfg(doc)]
use crate::nbd::request::{command, flag};
use crate::nbd::{ErrorCode, flags};

/// An export as the server describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Export {
    /// Bytes.
    pub size: u64,
    /// Of [`flags`], only those that matter here ([`Export::new`]).
    pub flags: u16,
}

impl Export {
    /// Of a server's flags those count that change what a host may do.
    #[must_use]
    pub fn new(size: u64, wire: u16) -> Self {
        let known = flags::HAS_FLAGS | flags::READ_ONLY | flags::SEND_FLUSH | flags::SEND_FUA;
        Self { size, flags: (wire & known) | flags::HAS_FLAGS }
    }

    /// It cannot be written.
    #[must_use]
    pub fn is_read_only(self) -> bool {
        self.flags & flags::READ_ONLY != 0
    }

    /// It has a flush.
    #[must_use]
    pub fn can_flush(self) -> bool {
        self.flags & flags::SEND_FLUSH != 0
    }

    /// Single writes can be stable when they are answered.
    #[must_use]
    pub fn can_fua(self) -> bool {
        self.flags & flags::SEND_FUA != 0
    }
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, flags {:#x}", self.size, self.flags)
    }
}

/// What the kernel asks.
#[derive(Debug, Clone)]
pub struct Request {
    /// The kernel's name for it.
    pub cookie: u64,
    /// Of [`flag`].
    pub flags: u16,
    /// Of [`command`].
    pub command: u16,
    /// Bytes.
    pub offset: u64,
    /// Bytes.
    pub len: u32,
    /// What is to be written, `len` bytes; empty otherwise.
    pub data: Payload,
}

/// Our name for a request towards the server; never used twice.
pub type Tag = u64;

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The server refused what was written.
    #[error("the server failed a {what}: {code}")]
    Refused {
        /// Write, flush or replay.
        what: &'static str,
        /// Its reason.
        code: ErrorCode,
    },
    /// A write or flush could not be done in time.
    #[error("a {what} could not be done for {} s: {why}", held.as_secs())]
    Outage {
        /// Write or flush.
        what: &'static str,
        /// How long it waited.
        held: Duration,
        /// What is wrong with the connection.
        why: String,
    },
    /// It is another drive now.
    #[error("the export changed while the connection was away: it had {was}, now {is}")]
    Changed {
        /// Before.
        was: Export,
        /// After.
        is: Export,
    },
}

/// What is worth telling an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The connection ended.
    Lost {
        /// Why.
        why: String,
    },
    /// It is still away, and for another reason.
    Waiting {
        /// Which.
        why: String,
    },
    /// Requests are answered with errors from now on.
    Failing {
        /// What is wrong with the connection.
        why: String,
    },
    /// All is as before.
    Back {
        /// How long it was away.
        away: Duration,
        /// Bytes written again.
        replayed: usize,
    },
}

/// What the shell is to do.
#[derive(Debug, Clone)]
#[must_use]
pub enum Action {
    /// Send a request to the server.
    Send {
        /// Its cookie.
        tag: Tag,
        /// Of [`flag`].
        flags: u16,
        /// Of [`command`].
        command: u16,
        /// Bytes.
        offset: u64,
        /// Bytes.
        len: u32,
        /// Payload of a write.
        data: Payload,
    },
    /// Answer the kernel.
    Reply {
        /// Of the request.
        cookie: u64,
        /// What went wrong, if anything.
        error: Option<ErrorCode>,
        /// Data of a read.
        data: Payload,
    },
    /// Try once to connect; `handle_connected` or `handle_refused` follows.
    Dial,
    /// Close the connection, with what is on its way.
    Hangup,
    /// Eject the drive, and begin anew when the server is back. Comes once.
    End(Cause),
    /// For the log.
    Notice(Notice),
}
