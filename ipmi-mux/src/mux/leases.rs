// SPDX-License-Identifier: MIT OR Apache-2.0
//! Leases: parts of the BMC that one virtual controller at a time may set.
//!
//! A BMC has one watchdog timer and one set of boot options; two programs that set them undo each
//! other's work. Whoever sets one first holds it until it closes (or says "set complete", where the
//! specification has that); others are answered with D5, "not supported in present state".

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use ipmi::NetFn;

use super::HandleId;
use crate::addr::Addr;
use crate::devintf::Send;

/// A FRU lease ends when its holder has written nothing for so long: unlike the others nothing tells
/// that the writing is done.
const FRU_IDLE: Duration = Duration::from_secs(60);
/// Leases at once; a lease belongs to a part of a controller, of which there are few. With more the
/// commands pass as they would without us.
pub const MAX_LEASES: usize = 256;

/// What is leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The watchdog timer.
    Watchdog,
    /// The boot options, between "set in progress" and "set complete".
    BootOptions,
    /// The inventory of this FRU device.
    Fru(u8),
    /// The LAN configuration of this channel, between "set in progress" and "set complete".
    Lan(u8),
    /// The serial over LAN configuration of this channel, likewise.
    Sol(u8),
    /// The platform event filters, likewise.
    Pef,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Watchdog => f.write_str("watchdog"),
            Self::BootOptions => f.write_str("boot options"),
            Self::Fru(id) => write!(f, "FRU {id}"),
            Self::Lan(channel) => write!(f, "LAN configuration of channel {channel}"),
            Self::Sol(channel) => write!(f, "SOL configuration of channel {channel}"),
            Self::Pef => f.write_str("PEF configuration"),
        }
    }
}

/// A part of the controller at an address.
pub(super) type Key = (Addr, Part);

/// What a command does with a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Takes it.
    Take(Part),
    /// Passes unless another has it.
    Use(Part),
    /// Gives it back.
    GiveBack(Part),
}

impl Wish {
    pub fn part(self) -> Part {
        let (Self::Take(part) | Self::Use(part) | Self::GiveBack(part)) = self;
        part
    }

    /// What a command wants of a lease, if anything.
    pub fn of(send: &Send) -> Option<Self> {
        let netfn = NetFn::new(send.netfn & 0x3f)?;
        let data = &send.data[..];
        Some(match (netfn, send.cmd, data) {
            // Reset and Set Watchdog Timer, IPMI 2.0 sections 27.5 and 27.6.
            (NetFn::APP, 0x22, _) => Self::Use(Part::Watchdog),
            (NetFn::APP, 0x24, _) => Self::Take(Part::Watchdog),
            // Set System Boot Options, section 28.12; bit 7 marks a parameter invalid.
            (NetFn::CHASSIS, 0x08, [parameter, value @ ..]) => {
                Self::set_parameter(Part::BootOptions, parameter & 0x7f, value)
            }
            // Write FRU Data, section 34.3.
            (NetFn::STORAGE, 0x12, [id, ..]) => Self::Take(Part::Fru(*id)),
            // Set LAN and SOL Configuration Parameters, sections 23.1 and 26.2: channel, parameter, value.
            (NetFn::TRANSPORT, 0x01, [channel, parameter, value @ ..]) => {
                Self::set_parameter(Part::Lan(channel & 0x0f), *parameter, value)
            }
            (NetFn::TRANSPORT, 0x21, [channel, parameter, value @ ..]) => {
                Self::set_parameter(Part::Sol(channel & 0x0f), *parameter, value)
            }
            // Set PEF Configuration Parameters, section 30.3; bit 7 is reserved.
            (NetFn::SENSOR_EVENT, 0x12, [parameter, value @ ..]) => {
                Self::set_parameter(Part::Pef, parameter & 0x7f, value)
            }
            _ => return None,
        })
    }

    /// Parameter 0 of all these is "set in progress": 0 complete, 1 in progress, 2 commit.
    fn set_parameter(part: Part, parameter: u8, value: &[u8]) -> Self {
        match (parameter, value.first().map(|v| v & 3)) {
            (0, Some(1)) => Self::Take(part),
            (0, Some(0)) => Self::GiveBack(part),
            _ => Self::Use(part),
        }
    }
}

/// The command that says "set complete" for a part whose holder is gone; `None` where there is none,
/// as for the watchdog, which has to run on then: that is what it is for.
pub(super) fn roll_back(part: Part) -> Option<(u8, u8, Vec<u8>)> {
    let (netfn, cmd, data) = match part {
        Part::Watchdog | Part::Fru(_) => return None,
        Part::BootOptions => (NetFn::CHASSIS, 0x08, vec![0, 0]),
        Part::Lan(channel) => (NetFn::TRANSPORT, 0x01, vec![channel, 0, 0]),
        Part::Sol(channel) => (NetFn::TRANSPORT, 0x21, vec![channel, 0, 0]),
        Part::Pef => (NetFn::SENSOR_EVENT, 0x12, vec![0, 0]),
    };
    Some((netfn.get(), cmd, data))
}

#[derive(Debug)]
struct Lease {
    holder: HandleId,
    used: Instant,
    /// Numbers of the commands that take it and are with the BMC, at most the window.
    taking: BTreeSet<u64>,
    /// The number of the last that may have worked.
    held: Option<u64>,
}

/// What became of a command that takes a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Done,
    Failed,
    Unknown,
}

#[derive(Debug, Default)]
pub(super) struct Leases(HashMap<Key, Lease>);

impl Leases {
    /// Whether a controller may do this now.
    pub fn allows(&self, now: Instant, controller: HandleId, key: Key) -> bool {
        self.0.get(&key).is_none_or(|lease| {
            let idle = now.saturating_duration_since(lease.used) >= FRU_IDLE;
            lease.holder == controller || matches!(key.1, Part::Fru(_)) && idle
        })
    }

    /// Gives a lease that [`Leases::allows`] to a controller whose command `number` goes to the BMC.
    /// Returns whether there is room to remember it.
    pub fn take(&mut self, now: Instant, controller: HandleId, key: Key, number: u64) -> bool {
        if self.0.len() >= MAX_LEASES && !self.0.contains_key(&key) {
            return false;
        }
        let new = || Lease { holder: controller, used: now, taking: BTreeSet::new(), held: None };
        let lease = self.0.entry(key).or_insert_with(new);
        if lease.holder != controller {
            *lease = new();
        }
        lease.used = now;
        lease.taking.insert(number);
        true
    }

    /// A command that took a lease has its answer.
    pub fn taken(&mut self, controller: HandleId, key: Key, number: u64, how: Taken) {
        let Some(lease) = self.0.get_mut(&key).filter(|l| l.holder == controller) else { return };
        // One that was handed over before the lease was given back means nothing any more.
        if lease.taking.remove(&number) && how != Taken::Failed {
            lease.held = lease.held.max(Some(number));
        }
        self.drop_unheld(key);
    }

    /// A controller's command `number` gave a lease back, and what it took before with it.
    pub fn give_back(&mut self, controller: HandleId, key: Key, number: u64) {
        let Some(lease) = self.0.get_mut(&key).filter(|l| l.holder == controller) else { return };
        lease.held = lease.held.filter(|held| *held > number);
        lease.taking.retain(|taking| *taking > number);
        self.drop_unheld(key);
    }

    fn drop_unheld(&mut self, key: Key) {
        if self.0.get(&key).is_some_and(|lease| lease.held.is_none() && lease.taking.is_empty()) {
            self.0.remove(&key);
        }
    }

    /// A controller is gone; these were its leases.
    pub fn forget(&mut self, controller: HandleId) -> Vec<Key> {
        let mut gone: Vec<Key> =
            self.0.extract_if(|_, lease| lease.holder == controller).map(|(key, _)| key).collect();
        gone.sort_unstable();
        gone
    }

    pub fn holder(&self, key: Key) -> Option<HandleId> {
        self.0.get(&key).map(|lease| lease.holder)
    }

    /// All leases with their holders.
    pub fn all(&self) -> impl Iterator<Item = (Key, HandleId)> {
        self.0.iter().map(|(key, lease)| (*key, lease.holder))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(netfn: u8, cmd: u8, data: &[u8]) -> Send {
        let addr = Addr::system_interface(0);
        Send { addr, msgid: 0, netfn, cmd, data: data.to_vec(), timing: None }
    }

    #[test]
    fn what_commands_want_of_leases() {
        use Part::{BootOptions, Fru, Lan, Pef, Sol, Watchdog};
        for (netfn, cmd, data, wish) in [
            (0x06, 0x24, &[0x44, 1, 0, 0, 100, 0][..], Some(Wish::Take(Watchdog))),
            (0x46, 0x24, &[], Some(Wish::Take(Watchdog))),
            (0x06, 0x22, &[], Some(Wish::Use(Watchdog))),
            (0x06, 0x25, &[], None),
            (0x00, 0x08, &[0x00, 0x01], Some(Wish::Take(BootOptions))),
            (0x00, 0x08, &[0x80, 0x01], Some(Wish::Take(BootOptions))),
            (0x00, 0x08, &[0x00, 0x02], Some(Wish::Use(BootOptions))),
            (0x00, 0x08, &[0x05, 0x80, 8, 0, 0, 0], Some(Wish::Use(BootOptions))),
            (0x00, 0x08, &[0x00, 0x00], Some(Wish::GiveBack(BootOptions))),
            (0x00, 0x08, &[], None),
            (0x0a, 0x12, &[3, 0, 0, 1], Some(Wish::Take(Fru(3)))),
            (0x0c, 0x01, &[0x11, 0, 1], Some(Wish::Take(Lan(1)))),
            (0x0c, 0x01, &[1, 3, 1], Some(Wish::Use(Lan(1)))),
            (0x0c, 0x21, &[2, 0, 0], Some(Wish::GiveBack(Sol(2)))),
            (0x04, 0x12, &[0, 1], Some(Wish::Take(Pef))),
        ] {
            assert_eq!(
                Wish::of(&send(netfn, cmd, data)),
                wish,
                "{netfn:02x}/{cmd:02x} {data:02x?}"
            );
        }
    }

    #[test]
    fn one_holder_until_it_gives_back_or_goes() {
        let (now, a, b) = (Instant::now(), HandleId(1), HandleId(2));
        let key = (Addr::system_interface(0), Part::Watchdog);
        let mut leases = Leases::default();
        assert!(leases.take(now, a, key, 1));
        assert!(!leases.allows(now + 10 * FRU_IDLE, b, key));
        leases.give_back(b, key, 2);
        assert!(!leases.allows(now, b, key));
        assert_eq!(leases.forget(a), [key]);
        assert!(leases.allows(now, b, key));
    }

    #[test]
    fn a_lease_is_free_when_no_command_that_took_it_may_have_worked() {
        let (now, a) = (Instant::now(), HandleId(1));
        let key = (Addr::system_interface(0), Part::BootOptions);
        let mut leases = Leases::default();
        leases.take(now, a, key, 1);
        leases.take(now, a, key, 2);
        leases.taken(a, key, 1, Taken::Failed);
        assert_eq!(leases.holder(key), Some(a), "another is on its way");
        leases.taken(a, key, 2, Taken::Failed);
        assert_eq!(leases.holder(key), None);
        leases.take(now, a, key, 3);
        leases.taken(a, key, 3, Taken::Unknown);
        leases.take(now, a, key, 5);
        leases.give_back(a, key, 4);
        leases.taken(a, key, 5, Taken::Failed);
        assert_eq!(leases.holder(key), None);
        leases.take(now, a, key, 7);
        leases.taken(a, key, 7, Taken::Done);
        leases.give_back(a, key, 6);
        leases.taken(a, key, 4, Taken::Failed);
        assert_eq!(leases.holder(key), Some(a), "it was given back before it was taken again");
    }

    #[test]
    fn a_fru_lease_ends_when_nothing_is_written() {
        let (now, a, b) = (Instant::now(), HandleId(1), HandleId(2));
        let key = (Addr::system_interface(0), Part::Fru(0));
        let mut leases = Leases::default();
        leases.take(now, a, key, 1);
        assert!(!leases.allows(now + FRU_IDLE / 2, b, key));
        assert!(leases.allows(now + FRU_IDLE, b, key));
        assert!(leases.take(now + FRU_IDLE, b, key, 2));
        assert!(!leases.allows(now + FRU_IDLE, a, key));
    }
}
