// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which commands the handles of a node may send: allow-lists by network function and command.
//!
//! A message that carries another one (IPMI 2.0 sections 22.7 and 22.11) passes when it is listed
//! itself and all that it carries passes too. What cannot be read passes under `full` alone.

use std::collections::BTreeSet;

use ipmi::ipmb::{self, Ipmb};
use thiserror::Error;

use crate::addr::Kind;
use crate::command::{Effect, Privilege, effect, on_the_wire, privilege};
use crate::devintf::Send;

/// Messages inside messages that are looked at: two are used (a controller behind another one), and
/// each could be read in two ways.
pub const MAX_NESTING: usize = 4;

/// The BMC's own address on its IPMB.
const BMC_ADDRESS: u8 = 0x20;

/// A command that the policy does not allow, here or inside another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
#[error("the node's policy does not allow {netfn:02x}/{cmd:02x}{}", named(*netfn, *cmd))]
pub struct Denied {
    /// Network function as it would reach the BMC, 0x00 to 0x3f.
    pub netfn: u8,
    /// Command.
    pub cmd: u8,
}

fn named(netfn: u8, cmd: u8) -> String {
    ipmi::names::name(netfn, cmd).map(|name| format!(" ({name})")).unwrap_or_default()
}

/// What a policy of one's own allows besides what it extends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// All commands of a network function.
    NetFn(u8),
    /// One command.
    Command(u8, u8),
}

impl Rule {
    /// Reads `NN/CC` or `NN/*` in hexadecimal, or the name of a standard command, in any case.
    /// A network function is 00 to 3f.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let Some((netfn, cmd)) = text.split_once('/') else {
            return Self::by_name(text);
        };
        let byte = |digits: &str| {
            let plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
        };
        // Four names have a slash themselves.
        let Some(netfn) = byte(netfn).filter(|netfn| *netfn < 0x40) else {
            return Self::by_name(text);
        };
        if cmd == "*" { Some(Self::NetFn(netfn)) } else { Some(Self::Command(netfn, byte(cmd)?)) }
    }

    fn by_name(text: &str) -> Option<Self> {
        let mut all = ipmi::names::all();
        let (netfn, cmd, _) = all.find(|(_, _, name)| name.eq_ignore_ascii_case(text))?;
        Some(Self::Command(netfn, cmd))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Nothing,
    Monitor,
    Operator,
    Full,
}

/// An allow-list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    name: String,
    base: Base,
    rules: BTreeSet<Rule>,
    may_reserve: bool,
}

impl Policy {
    /// Names of those that are built in.
    pub const BUILT_IN: [&'static str; 3] = ["full", "operator", "monitor"];

    fn of(name: &str, base: Base, may_reserve: bool) -> Self {
        Self { name: name.to_owned(), base, rules: BTreeSet::new(), may_reserve }
    }

    /// Everything, even what cannot be read.
    #[must_use]
    pub fn full() -> Self {
        Self::of("full", Base::Full, true)
    }

    /// What runs a machine without configuring its BMC: commands that take the privilege User or
    /// Operator in IPMI 2.0 appendix G, and all that [`Policy::monitor`] allows. The latter matters
    /// for the two reads to which appendix G gives the privilege Administrator (04/15, 0C/15): they
    /// show less than the event log does.
    #[must_use]
    pub fn operator() -> Self {
        Self::of("operator", Base::Operator, true)
    }

    /// What changes nothing, except reads that reveal secrets or what comes close to them: Get
    /// AuthCode, Get Serial/Modem Configuration (passwords of dial-in accounts), and of Get LAN
    /// Configuration Parameters the SNMP community. Reservations of record stores are allowed, since
    /// nothing can be read without.
    #[must_use]
    pub fn monitor() -> Self {
        Self::of("monitor", Base::Monitor, false)
    }

    /// The one that is built in under this name.
    #[must_use]
    pub fn built_in(name: &str) -> Option<Self> {
        match name {
            "full" => Some(Self::full()),
            "operator" => Some(Self::operator()),
            "monitor" => Some(Self::monitor()),
            _ => None,
        }
    }

    /// One of one's own: what `extends` allows, if anything, and `rules`.
    #[must_use]
    pub fn own(
        name: &str,
        extends: Option<&Self>,
        rules: impl IntoIterator<Item = Rule>,
        may_reserve: bool,
    ) -> Self {
        let mut policy = Self::of(name, extends.map_or(Base::Nothing, |e| e.base), may_reserve);
        policy.rules.extend(extends.iter().flat_map(|e| &e.rules));
        policy.rules.extend(rules);
        policy
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether handles of its nodes may reserve commands for themselves.
    #[must_use]
    pub fn may_reserve(&self) -> bool {
        self.may_reserve
    }

    /// Whether the command is allowed with some data or other.
    #[must_use]
    pub fn lists_command(&self, netfn: u8, cmd: u8) -> bool {
        let netfn = on_the_wire(netfn);
        self.base == Base::Full || self.lists(netfn, cmd, &[], true)
    }

    /// Whether a message may be sent, to whatever address: a controller behind the BMC has the same
    /// list.
    ///
    /// # Errors
    /// The command that is not allowed, which may be one inside the message.
    pub fn check(&self, send: &Send) -> Result<(), Denied> {
        if self.base == Base::Full {
            return Ok(());
        }
        let to_bmc = send.addr.kind() == Kind::SystemInterface && send.addr.lun() == 0;
        self.message(send.netfn, send.cmd, &send.data, to_bmc, 0)
    }

    fn message(
        &self,
        netfn: u8,
        cmd: u8,
        data: &[u8],
        to_bmc: bool,
        level: usize,
    ) -> Result<(), Denied> {
        let netfn = on_the_wire(netfn);
        let denied = Denied { netfn, cmd };
        if !self.lists(netfn, cmd, data, to_bmc) {
            return Err(denied);
        }
        let Some(carried) = carried(netfn, cmd, data) else { return Ok(()) };
        if carried.is_empty() || level == MAX_NESTING {
            return Err(denied);
        }
        carried.iter().try_for_each(|inner| {
            self.message(inner.netfn.get(), inner.cmd, &inner.data, false, level + 1)
        })
    }

    fn lists(&self, netfn: u8, cmd: u8, data: &[u8], to_bmc: bool) -> bool {
        let by_rule = [Rule::NetFn(netfn), Rule::Command(netfn, cmd)];
        let monitored = || match effect(netfn, cmd, data) {
            Effect::Read(_) => !reveals(netfn, cmd, data),
            // Elsewhere nobody keeps the flags per handle, and to clear them loses messages. A
            // reservation only makes another client start again.
            Effect::Private => to_bmc || netfn != 0x06,
            Effect::Change => false,
        };
        let by_base = match self.base {
            Base::Nothing => false,
            Base::Monitor => monitored(),
            Base::Operator => monitored() || privilege(netfn, cmd, data) <= Privilege::Operator,
            Base::Full => true,
        };
        by_base || by_rule.iter().any(|rule| self.rules.contains(rule))
    }
}

/// The commands that the BMC itself carries out for a message to it: the message's own, and what it
/// carries that comes back to the BMC's address.
#[must_use]
pub fn commands_for_bmc(send: &Send) -> Vec<(u8, u8)> {
    let mut found = vec![(on_the_wire(send.netfn), send.cmd)];
    let mut inside = carried(found[0].0, send.cmd, &send.data).unwrap_or_default();
    for _ in 0..MAX_NESTING {
        let deeper = |m: &Ipmb| carried(m.netfn.get(), m.cmd, &m.data).unwrap_or_default();
        let to_bmc = inside.iter().filter(|m| m.to == BMC_ADDRESS);
        found.extend(to_bmc.map(|m| (m.netfn.get(), m.cmd)));
        inside = inside.iter().flat_map(deeper).collect();
    }
    found
}

/// Reads whose answer holds a secret, or helps to find one.
fn reveals(netfn: u8, cmd: u8, data: &[u8]) -> bool {
    /// Community String, IPMI 2.0 table 23-4.
    const COMMUNITY: u8 = 16;
    match (netfn, cmd) {
        // Get AuthCode; Get Serial/Modem Configuration.
        (0x06, 0x3f) | (0x0c, 0x11) => true,
        (0x0c, 0x02) => data.get(1) == Some(&COMMUNITY),
        _ => false,
    }
}

/// The messages that a message carries, in each way in which they could be read; `None` where it
/// carries none, empty where they cannot be read.
fn carried(netfn: u8, cmd: u8, data: &[u8]) -> Option<Vec<Ipmb>> {
    match (netfn, cmd, data) {
        // Master Write-Read: bit 0 of the first byte is set for a private bus (section 22.11).
        (0x06, 0x52, [bus, ..]) if bus & 1 != 0 => None,
        (0x06, 0x52, [_, address, _, written @ ..]) => {
            // Bit 0 of the address is reserved: on the bus it says read or write.
            Some(readable(&[&[address & !1], written].concat()))
        }
        // Send Message: the channel comes first (section 22.7).
        (0x06, 0x34, [_, message @ ..]) => Some(readable(message)),
        // Bridge Request, Bridge Message, Forwarded Command: not read.
        (0x06, 0x34 | 0x52, _) | (0x02, 0x20 | 0x21, _) | (0x0c, 0x30, _) => Some(vec![]),
        _ => None,
    }
}

/// A message on an IPMB; or behind one more byte, which is the zero of a broadcast or the session
/// handle of a LAN channel. Bytes can be made that are valid in both ways.
fn readable(bytes: &[u8]) -> Vec<Ipmb> {
    let ways = [Some(bytes), bytes.get(1..)];
    ways.into_iter().flatten().filter_map(|bytes| ipmb::decode(bytes).ok()).collect()
}

#[cfg(test)]
mod tests;
