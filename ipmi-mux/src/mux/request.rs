// SPDX-License-Identifier: MIT OR Apache-2.0
//! A request between its send and its answer.

use std::time::{Duration, Instant};

use ipmi::NetFn;
use kernel_abi::ipmi_devintf::{IPMI_MAX_MSG_LENGTH, IpmiTimingParms};
use nix::errno::Errno;

use super::cache;
use super::enables::Setting;
use super::jobs::Job;
use super::leases;
use super::scheduler::Class;
use super::{HandleId, Limits, Outgoing};
use crate::addr::Kind;
use crate::command::{self, Keep};
use crate::devintf::Send;

/// Names a request towards the back end. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Who waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    Handle(HandleId),
    /// The mux itself.
    Job(Job),
    /// Nobody any more; the BMC still has it.
    Nobody,
}

/// When a command was handed to the BMC, and its number: of two at the same instant the BMC serves the
/// one with the lower number first.
pub(super) type Moment = (Instant, u64);

/// Where a request is.
#[derive(Debug)]
pub(super) enum Place {
    /// In the scheduler.
    Waiting,
    /// Behind something the mux asks first.
    Parked(Job),
    /// Behind an identical read with the BMC.
    Following(Token),
    /// With the BMC.
    Sent(Box<Sent>),
}

/// What is remembered of a request that is with the BMC.
#[derive(Debug)]
pub(super) struct Sent {
    pub at: Instant,
    /// How many were handed to the BMC before it, and itself: it serves them in this order.
    pub number: u64,
    /// [`cache::Cache::epoch`] then.
    pub epoch: u64,
    /// Of its repository then, where one is known and its info was read.
    pub generation: Option<u64>,
    /// The real reservation in it.
    pub real: Option<u16>,
    /// Under what the answer is shared and kept.
    pub read: Option<(cache::Key, Keep)>,
    /// A lease that it takes.
    pub leased: Option<leases::Key>,
    /// The global enables that it sets.
    pub enables: Option<Setting>,
    /// Identical reads that get the same answer.
    pub followers: Vec<Token>,
}

impl Sent {
    pub fn moment(&self) -> Moment {
        (self.at, self.number)
    }
}

#[derive(Debug)]
pub(super) struct Request {
    pub token: Token,
    pub asker: Asker,
    /// The handle that sent it; its answer may go to another, see [`super::sequences`].
    pub sender: HandleId,
    /// The virtual controller of the sender.
    pub controller: HandleId,
    pub class: Class,
    /// When the send was accepted.
    pub accepted: Instant,
    /// How many commands had been handed to the BMC when it was accepted.
    pub asked_after: u64,
    pub deadline: Instant,
    pub timing: IpmiTimingParms,
    pub source: (u8, u8),
    pub send: Send,
    pub place: Place,
    /// How often it was sent again because its reservation was cancelled.
    pub replays: u8,
}

impl Request {
    /// What goes to the BMC; `data` in place of the caller's where there is some.
    pub fn outgoing(&self, data: Option<Vec<u8>>) -> Outgoing {
        Outgoing {
            token: self.token,
            msgid: self.send.msgid,
            addr: self.send.addr,
            source: self.source,
            netfn: self.send.netfn,
            cmd: self.send.cmd,
            data: data.unwrap_or_else(|| self.send.data.clone()),
            timing: self.timing,
        }
    }

    /// Whether it goes to the BMC itself.
    pub fn is_direct(&self) -> bool {
        self.send.addr.kind() == Kind::SystemInterface
    }
}

/// `i_ipmi_req_sysintf`: what the driver refuses to send to the BMC itself.
pub(super) fn check_system_interface(send: &Send) -> Result<(), Errno> {
    // The driver keeps the sequence numbers of bridged messages and the event queue to itself:
    // Get Message, Send Message, Read Event Message Buffer.
    let drivers_own = send.netfn == NetFn::APP.get() && matches!(send.cmd, 0x33..=0x35);
    if send.netfn & 1 != 0 || send.addr.lun() > 3 || drivers_own {
        return Err(Errno::EINVAL);
    }
    if send.data.len() + 2 > IPMI_MAX_MSG_LENGTH {
        return Err(Errno::EMSGSIZE);
    }
    Ok(())
}

/// Retries and time between them that the kernel's driver takes where a caller names none:
/// `default_max_retries` and `default_retry_ms` of `ipmi_msghandler`.
const DEFAULT_RETRIES: u32 = 4;
const DEFAULT_RETRY_MS: u32 = 2000;

/// Longest a caller may make a bridged message wait.
const BRIDGED_AT_MOST: Duration = Duration::from_secs(120);

/// From acceptance to the answer at the latest.
#[must_use]
pub fn deadline_class(limits: &Limits, send: &Send, timing: IpmiTimingParms) -> Duration {
    if send.addr.kind() != Kind::SystemInterface {
        // The driver sends it again itself and tells when it gave up; ours must not come first.
        let retries = u32::try_from(timing.retries).unwrap_or(DEFAULT_RETRIES);
        let each = if timing.retry_time_ms == 0 { DEFAULT_RETRY_MS } else { timing.retry_time_ms };
        let all = Duration::from_millis(u64::from(each) * (u64::from(retries) + 1));
        return (limits.deadline + all).min(BRIDGED_AT_MOST).max(limits.deadline);
    }
    let long = command::takes_long(send.netfn, send.cmd);
    if long { limits.long_deadline } else { limits.deadline }
}
