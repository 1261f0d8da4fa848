// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commands that one handle, or the handles of one node, have for themselves.

use std::collections::BTreeMap;

use super::HandleId;

/// Commands reserved at a time, over all holders: there are 8192 (32 network functions of requests with 256
/// each), and nobody needs most of them alone.
pub const MAX_RESERVED: usize = 1024;

/// Bits of a network function.
const NETFN_BITS: u8 = 0x3f;

/// Who has a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// All handles of the node with this index.
    Node(usize),
    /// One handle.
    Handle(HandleId),
}

/// A command was not reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// Somebody else has it.
    Busy {
        /// Who.
        holder: Holder,
    },
    /// There are [`MAX_RESERVED`] reservations.
    Full,
}

/// The table of reserved commands. A network function is its low 6 bits; a LUN makes no difference.
#[derive(Debug, Default)]
pub struct Exclusive(BTreeMap<(u8, u8), Holder>);

impl Exclusive {
    /// Gives a command to a holder, who may have it already.
    ///
    /// # Errors
    /// [`Unavailable`]: nothing has changed.
    pub fn reserve(&mut self, holder: Holder, netfn: u8, cmd: u8) -> Result<(), Unavailable> {
        match self.holder(netfn, cmd) {
            Some(other) if other != holder => return Err(Unavailable::Busy { holder: other }),
            None if self.0.len() >= MAX_RESERVED => return Err(Unavailable::Full),
            _ => {}
        }
        self.0.insert(key(netfn, cmd), holder);
        Ok(())
    }

    /// Gives a command back; returns whether the holder had it.
    pub fn release(&mut self, holder: Holder, netfn: u8, cmd: u8) -> bool {
        let had = self.holder(netfn, cmd) == Some(holder);
        if had {
            self.0.remove(&key(netfn, cmd));
        }
        had
    }

    /// Gives back all that a holder has.
    pub fn release_all(&mut self, holder: Holder) {
        self.0.retain(|_, other| *other != holder);
    }

    /// Who has a command.
    #[must_use]
    pub fn holder(&self, netfn: u8, cmd: u8) -> Option<Holder> {
        self.0.get(&key(netfn, cmd)).copied()
    }

    /// All that is reserved: network function, command, holder.
    pub fn all(&self) -> impl Iterator<Item = (u8, u8, Holder)> {
        self.0.iter().map(|((netfn, cmd), holder)| (*netfn, *cmd, *holder))
    }

    /// Whether a handle of a node may use a command: nobody has it, or it is the holder.
    #[must_use]
    pub fn allows(&self, handle: HandleId, node: usize, netfn: u8, cmd: u8) -> bool {
        match self.holder(netfn, cmd) {
            None => true,
            Some(Holder::Node(holder)) => holder == node,
            Some(Holder::Handle(holder)) => holder == handle,
        }
    }
}

fn key(netfn: u8, cmd: u8) -> (u8, u8) {
    (netfn & NETFN_BITS, cmd)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: HandleId = HandleId(1);
    const B: HandleId = HandleId(2);

    #[test]
    fn a_command_is_its_holders_alone() {
        let mut table = Exclusive::default();
        assert!(table.allows(A, 0, 0, 2));
        table.reserve(Holder::Handle(A), 0, 2).unwrap();
        table.reserve(Holder::Handle(A), 0, 2).expect("again by the same holder is fine");
        assert!(table.allows(A, 0, 0, 2));
        assert!(!table.allows(B, 0, 0, 2), "not even another handle of the same node");
        assert!(
            !table.allows(B, 0, 0x40, 2),
            "bits beyond the network function do not get round it"
        );
        assert!(table.allows(B, 0, 0, 3) && table.allows(B, 0, 6, 2), "other commands are free");
        let busy = Unavailable::Busy { holder: Holder::Handle(A) };
        assert_eq!(table.reserve(Holder::Handle(B), 0, 2), Err(busy));
        assert_eq!(table.reserve(Holder::Node(0), 0xc0, 2), Err(busy));
    }

    #[test]
    fn a_node_is_all_its_handles() {
        let mut table = Exclusive::default();
        table.reserve(Holder::Node(9), 6, 1).unwrap();
        assert!(table.allows(A, 9, 6, 1) && table.allows(B, 9, 6, 1));
        assert!(!table.allows(A, 8, 6, 1));
        assert_eq!(table.holder(6, 1), Some(Holder::Node(9)));
    }

    #[test]
    fn only_the_holder_gives_back() {
        let mut table = Exclusive::default();
        table.reserve(Holder::Node(9), 6, 1).unwrap();
        table.reserve(Holder::Node(9), 6, 2).unwrap();
        table.reserve(Holder::Handle(A), 6, 3).unwrap();
        assert!(!table.release(Holder::Node(8), 6, 1));
        assert!(!table.allows(A, 8, 6, 1));
        assert!(table.release(Holder::Node(9), 6, 1));
        assert!(!table.release(Holder::Node(9), 6, 1));
        assert!(table.allows(A, 8, 6, 1));
        table.release_all(Holder::Node(9));
        assert!(table.allows(A, 8, 6, 2));
        assert_eq!(table.holder(6, 3), Some(Holder::Handle(A)), "others keep theirs");
    }

    #[test]
    fn the_table_is_bounded() {
        let mut table = Exclusive::default();
        let mut commands = (0..32u8).flat_map(|netfn| (0..=255u8).map(move |cmd| (netfn * 2, cmd)));
        for (netfn, cmd) in commands.by_ref().take(MAX_RESERVED) {
            table.reserve(Holder::Node(1), netfn, cmd).unwrap();
        }
        let (netfn, cmd) = commands.next().unwrap();
        assert_eq!(table.reserve(Holder::Node(1), netfn, cmd), Err(Unavailable::Full));
        table.reserve(Holder::Node(1), 0, 0).expect("what it has it keeps");
        assert!(table.release(Holder::Node(1), 0, 0));
        table.reserve(Holder::Node(1), netfn, cmd).unwrap();
    }
}
