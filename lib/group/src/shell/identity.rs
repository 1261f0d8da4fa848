// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who this member is and whom it knows, from files that change while it runs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use secure_link::store::StoreError;
use secure_link::{
    KeyId, Local, Met, Name, Newcomers, NodeId, NodeKey, Peer, Refusal, Roster, Standing, Store,
    Versions,
};

/// As it was last read.
#[derive(Debug)]
pub(super) struct Identity {
    store: Store,
    met: Met,
    pub local: Arc<Local>,
    /// This machine's roster, and whom this program has met besides.
    pub roster: Arc<Roster>,
}

/// The word on each that was to be written, or why none of them was.
pub(super) type Written = Result<Vec<Result<(), Refusal>>, StoreError>;

impl Identity {
    /// Reads it; none if this program has no part of the group key.
    pub fn load(
        (store, state): (&Store, &Path),
        program: &Name,
        node: &NodeKey,
    ) -> Result<Option<Self>, StoreError> {
        Self::read(store, Met::new(state), program, node)
    }

    fn read(
        store: &Store,
        met: Met,
        program: &Name,
        node: &NodeKey,
    ) -> Result<Option<Self>, StoreError> {
        let Some(file) = store.program(program)? else { return Ok(None) };
        let local = Local {
            node: node.clone(),
            keys: file.keys,
            group: file.group,
            program: program.clone(),
            versions: Versions::SPOKEN,
            name: file.name,
            addresses: vec![],
            note: vec![],
            // Who has the group key and is in the group's list.
            newcomers: Newcomers::Admit,
        };
        let mut roster = store.roster()?;
        for member in met.load()?.members() {
            // What root has said of a key or a name stands.
            roster.learn(local.identity(), member);
        }
        let (local, roster) = (Arc::new(local), Arc::new(roster));
        Ok(Some(Self { store: store.clone(), met, local, roster }))
    }

    /// Reads it again. Returns whether it is different.
    pub fn reload(&mut self) -> Result<bool, StoreError> {
        let program = self.local.program.clone();
        let read = Self::read(&self.store, self.met.clone(), &program, &self.local.node)?;
        // Without a key nobody is let in any more; what is said by those who are is ended by `stands`.
        let Some(new) = read else {
            let changed = self.roster.members().count() > 0;
            self.roster = Arc::default();
            return Ok(changed);
        };
        let keys = new.local.keys.state() != self.local.keys.state();
        if keys || new.roster != self.roster {
            *self = new;
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether somebody new may be pinned, as far as this machine's roster goes.
    pub fn judge(&self, peer: &Peer) -> Result<(), Refusal> {
        self.roster.judge(self.local.identity(), &peer.key, &peer.hello, Newcomers::Admit).map(drop)
    }

    /// What writes new members to disk, away from the loop, which no disk may hold up: with the word on each.
    pub fn to_disk(&self, peers: Vec<Peer>) -> impl FnOnce() -> Written + Send + 'static {
        let (met, local) = (self.met.clone(), Arc::clone(&self.local));
        move || {
            let mut roster = met.load()?;
            let pin = |peer: &Peer| roster.pin(local.identity(), &peer.key, &peer.hello).map(drop);
            let pinned = peers.iter().map(pin).collect();
            met.store(&roster)?;
            Ok(pinned)
        }
    }

    /// Counts on somebody new, who is on disk.
    pub fn pin(&mut self, peer: &Peer) -> Result<(), Refusal> {
        let roster = Arc::make_mut(&mut self.roster);
        roster.pin(self.local.identity(), &peer.key, &peer.hello).map(drop)
    }

    /// Whether a member that was let in still would be.
    pub fn stands(&self, node: NodeId, admitted_by: KeyId) -> bool {
        let member = self.roster.get(node).is_some_and(|m| m.standing == Standing::Member);
        member && self.local.keys.state().accepts(admitted_by)
    }

    /// The key under which a name is pinned.
    pub fn node(&self, name: &Name) -> Option<NodeId> {
        self.roster.by_name(name).map(|member| member.key.id())
    }
}

/// Where a member's program asks to be connected to.
pub(super) fn ask(own: &Name) -> Vec<u8> {
    [&ASK[..], own.as_str().as_bytes()].concat()
}

/// Who asks, in clear: it can bring an attempt forward and nothing else.
pub(super) fn asks(datagram: &[u8]) -> Option<Name> {
    std::str::from_utf8(datagram.strip_prefix(&ASK)?).ok()?.parse().ok()
}

const ASK: [u8; 5] = *b"MPGA\x01";

/// Whether an address is one of those.
pub(super) fn is_at(from: SocketAddr, addresses: &[Option<std::net::IpAddr>]) -> bool {
    addresses.iter().flatten().any(|address| *address == from.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_says_its_name() {
        let name: Name = "blade7".parse().unwrap();
        assert_eq!(asks(&ask(&name)), Some(name));
        for bad in [&b"MPGA\x01"[..], b"MPGA\x02a", b"MPGA\x01a b", b"MPGA\x01\xff", b""] {
            assert_eq!(asks(bad), None, "{bad:?}");
        }
    }
}
