// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the core and the shell tell each other.

use std::sync::Arc;
use std::time::Duration;

use kernel_abi::ipmi_devintf::IpmiTimingParms;

use super::{HandleId, Holder, Owner, Token};
use crate::addr::Addr;
use crate::devintf::CommandSpec;
use crate::policy::{Denied, Policy};

/// What the operator sets.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From a send to its answer at the latest.
    pub deadline: Duration,
    /// The same for commands that are known to take long: erasing, resets, firmware.
    pub long_deadline: Duration,
    /// Requests with the BMC at a time.
    pub window: usize,
    /// How long a request that was given up still counts as being with the BMC: zero where the back
    /// end can drop it.
    pub abandoned_for: Duration,
    /// How old a sensor's reading may be when another client gets it too; zero for never.
    pub sensor_age: Duration,
    /// How a command is answered that is reserved for others.
    pub reserved_code: ipmi::CompletionCode,
}

/// What the shell is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Action {
    /// Hand this to the BMC; then tell `handle_reply` or `handle_refusal` with its token.
    Send(Outgoing),
    /// This handle has something to receive: wake who polls it.
    Wake(HandleId),
    /// Whether the back end should deliver events.
    SetGetsEvents(bool),
    /// Nobody waits for this request any more, and the BMC had time enough.
    Forget(Token),
    /// Ask the back end for that command no more.
    Unregister(CommandSpec),
    /// The interface's maintenance mode, `IPMI_MAINTENANCE_MODE_*`.
    SetMaintenanceMode(i32),
    /// For the log: a command that may have changed something was answered by the BMC.
    Audit(Audited),
    /// For the log: a command that the node's policy does not allow.
    Denied(HandleId, Owner, Denied),
    /// For the log: the BMC answers no more, or again.
    Breaker {
        /// Whether commands are refused now.
        open: bool,
    },
}

/// A command that may have changed the BMC's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audited {
    /// The handle that sent it.
    pub handle: HandleId,
    /// Who opened that.
    pub owner: Owner,
    /// Where it went.
    pub addr: Addr,
    /// Network function, as the caller gave it.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
    /// Data; may hold a password.
    pub data: Vec<u8>,
    /// Completion code; none where the answer was empty.
    pub code: Option<u8>,
}

/// Something that one handle or node has alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Who.
    pub holder: Holder,
    /// What, in words.
    pub what: String,
}

/// What holds for the handles of a node.
#[derive(Debug, Clone)]
pub struct NodeRules {
    /// What they may send, and whether they may reserve.
    pub policy: Arc<Policy>,
    /// Whether their requests go behind those of other nodes.
    pub background: bool,
}

/// A request on its way to the BMC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Names it in `handle_reply`.
    pub token: Token,
    /// The caller's message id. For a response its low 6 bits are the sequence number on the wire.
    pub msgid: i64,
    /// Where to.
    pub addr: Addr,
    /// Our own address and LUN on that channel, as the handle has set them.
    pub source: (u8, u8),
    /// Network function, as the caller gave it.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
    /// Data.
    pub data: Vec<u8>,
    /// Retries of a bridged message.
    pub timing: IpmiTimingParms,
}

/// Something the back end received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Where from.
    pub addr: Addr,
    /// Network function.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
    /// Data; of an answer the completion code comes first.
    pub data: Vec<u8>,
}
