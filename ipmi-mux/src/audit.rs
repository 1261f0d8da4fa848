// SPDX-License-Identifier: MIT OR Apache-2.0
//! The audit log: commands that may have changed the BMC's state, with who sent them, in the journal.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::mux::{Audited, HandleId, Owner};
use crate::policy::Denied;

/// Vendors' commands are not known to change anything and may come by the hundred a second: of each
/// handle and command one line is written in this time, with the number of those left out.
const REPEATED_EVERY: Duration = Duration::from_secs(1);
/// Handles and commands whose repetitions are counted; with more, counting begins again. Also the refusals
/// that are written, over all handles that are open: who tries all commands does not fill the journal.
const MAX_REPEATED: usize = 1024;

/// Writes the audit log.
#[derive(Debug, Default)]
pub struct Audit {
    repeated: HashMap<(HandleId, u8, u8), (Instant, u64)>,
    denied: HashSet<(HandleId, Denied)>,
}

impl Audit {
    /// Writes a line, or counts one more repetition. `node` is the node's path.
    pub fn log(&mut self, now: Instant, audited: &Audited, node: &str) {
        let (netfn, cmd) = (audited.netfn & 0x3f, audited.cmd);
        let name = ipmi::names::name(netfn, cmd);
        // Who resets a watchdog does so all the time.
        let repeats = name.is_none() || (netfn, cmd) == (0x06, 0x22);
        let left_out = if repeats { self.repetition(now, audited) } else { Some(0) };
        let Some(left_out) = left_out else { return };
        let (uid, pid) = (audited.owner.uid, audited.owner.pid);
        let command = format!("{netfn:02x}/{cmd:02x}");
        let code = audited.code.map_or("no answer".to_owned(), |code| format!("{code:02x}"));
        // The message alone is what journalctl shows; the fields are for searching.
        tracing::info!(
            target: "audit",
            node, uid, pid, command, code, left_out, handle = audited.handle.0,
            "audit: {command} {} [{}] to {}: {code}; by uid {uid}, pid {pid} on {node}{}",
            name.unwrap_or("vendor's command"),
            Hex(shown_data(netfn, cmd, &audited.data)),
            audited.addr,
            if left_out > 0 { format!("; {left_out} like it not written") } else { String::new() },
        );
    }

    /// Writes that a node's policy did not allow a command: once for each handle and command.
    pub fn denied(&mut self, handle: HandleId, owner: Owner, node: &str, denied: Denied) {
        if self.denied.len() >= MAX_REPEATED {
            return;
        }
        if self.denied.insert((handle, denied)) {
            let (uid, pid) = (owner.uid, owner.pid);
            tracing::warn!(target: "audit", node, uid, pid, "{denied}: uid {uid}, pid {pid} on {node}");
        }
    }

    /// A handle was closed.
    pub fn forget(&mut self, id: HandleId) {
        self.repeated.retain(|(handle, ..), _| *handle != id);
        self.denied.retain(|(handle, _)| *handle != id);
    }

    /// How many were left out before this one, or that this is one of them.
    fn repetition(&mut self, now: Instant, audited: &Audited) -> Option<u64> {
        let key = (audited.handle, audited.netfn, audited.cmd);
        if self.repeated.len() >= MAX_REPEATED && !self.repeated.contains_key(&key) {
            self.repeated.clear();
        }
        match self.repeated.get_mut(&key) {
            Some((at, left_out)) if now.saturating_duration_since(*at) < REPEATED_EVERY => {
                *left_out += 1;
                None
            }
            Some((at, left_out)) => {
                *at = now;
                Some(std::mem::take(left_out))
            }
            None => {
                self.repeated.insert(key, (now, 0));
                Some(0)
            }
        }
    }
}

/// Set User Password, Activate Session, Set Channel Security Keys; and what may carry them inside.
fn shown_data(netfn: u8, cmd: u8, data: &[u8]) -> Option<&[u8]> {
    let secret = netfn == 0x06 && matches!(cmd, 0x34 | 0x3a | 0x47 | 0x52 | 0x56 | 0x58);
    // LAN parameters 16 and 20 to 24 hold the community string and keys.
    let community = (netfn, cmd) == (0x0c, 0x01) && data.get(1).is_some_and(|p| *p >= 16);
    (!secret && !community).then_some(data)
}

struct Hex<'a>(Option<&'a [u8]>);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            None => f.write_str("not shown"),
            Some(data) => data.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Addr;

    #[test]
    fn repetitions_are_counted_and_not_written() {
        let (mut audit, now) = (Audit::default(), Instant::now());
        let audited = Audited {
            handle: HandleId(1),
            owner: Owner { node: 0, uid: 0, gid: 0, pid: 1 },
            addr: Addr::system_interface(0),
            netfn: 0x30,
            cmd: 1,
            data: vec![],
            code: Some(0),
        };
        assert_eq!(audit.repetition(now, &audited), Some(0));
        assert_eq!(audit.repetition(now, &audited), None);
        assert_eq!(audit.repetition(now, &audited), None);
        assert_eq!(audit.repetition(now + REPEATED_EVERY, &audited), Some(2));
        let other = Audited { handle: HandleId(2), ..audited };
        assert_eq!(audit.repetition(now, &other), Some(0));
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(shown_data(0x06, 0x47, &[1, 2, 3]), None);
        assert_eq!(shown_data(0x0c, 0x01, &[1, 16, 0x70]), None);
        assert_eq!(shown_data(0x00, 0x02, &[0]), Some(&[0][..]));
    }
}
