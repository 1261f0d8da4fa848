// SPDX-License-Identifier: MIT OR Apache-2.0
//! A request between its send and its answer.

use std::time::{Duration, Instant};

use ipmi::NetFn;
use kernel_abi::ipmi_devintf::{IPMI_MAX_MSG_LENGTH, IpmiTimingParms};
use nix::errno::Errno;

use super::{HandleId, Limits, Outgoing};
use crate::addr::Kind;
use crate::devintf::Send;

/// Names a request towards the back end. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

#[derive(Debug, Clone)]
pub(super) struct Request {
    pub token: Token,
    /// Who waits for the answer; nobody once it was given up.
    pub handle: Option<HandleId>,
    pub deadline: Instant,
    pub timing: IpmiTimingParms,
    pub source: (u8, u8),
    pub send: Send,
}

impl Request {
    pub fn outgoing(&self) -> Outgoing {
        Outgoing {
            token: self.token,
            msgid: self.send.msgid,
            addr: self.send.addr,
            source: self.source,
            netfn: self.send.netfn,
            cmd: self.send.cmd,
            data: self.send.data.clone(),
            timing: self.timing,
        }
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
    if takes_long(send.netfn, send.cmd) { limits.long_deadline } else { limits.deadline }
}

/// Commands that may keep a BMC busy for many seconds. IPMI wants every answer within 5 s (IPMI 2.0 section
/// 9.12), so these are those known to break that: resets and self test, erasing, firmware.
fn takes_long(netfn: u8, cmd: u8) -> bool {
    let Some(netfn) = NetFn::new(netfn) else { return false };
    match netfn {
        // Cold reset, warm reset, get self test results.
        NetFn::APP => matches!(cmd, 0x02..=0x04),
        // Clear SDR repository, run initialization agent, clear SEL.
        NetFn::STORAGE => matches!(cmd, 0x27 | 0x2c | 0x47),
        NetFn::FIRMWARE => true,
        _ => false,
    }
}
