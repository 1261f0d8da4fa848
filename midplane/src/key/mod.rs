// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keys: made, given to those who are to have them, changed.

pub mod ask;
pub mod join;
pub mod message;
pub mod rotate;
pub mod serve;
pub mod status;
pub mod verbs;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use secure_link::{Keyring, Local, Name, Newcomers, NodeKey, Peer, Roster, Store, Versions};

/// Where `midplane key serve` listens.
pub const PORT: u16 = 7459;

/// The programs that get a part of the group key.
const PROGRAMS: [&str; 5] =
    ["device-manager", "ipmi-mux", "kvm-bus", "smbus-monitor", "usb-gadget-drive"];

/// Something was begun and cannot be finished now; the same command goes on with it later.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Incomplete(pub String);

fn name(text: &str) -> Name {
    text.parse().expect("names in this program are names")
}

/// This machine, which is in a group.
#[derive(Debug, Clone)]
pub struct Own {
    /// Its files.
    pub store: Store,
    /// Its key.
    pub node: NodeKey,
    /// The group's.
    pub keyring: Keyring,
}

impl Own {
    /// As it is now.
    ///
    /// # Errors
    /// It is in no group, or its files cannot be read.
    pub fn load(store: &Store) -> anyhow::Result<Self> {
        let none = "this machine is in no group; use `midplane key create` or `midplane key join`";
        let keyring = store.keyring()?.context(none)?;
        let node = store.node()?.context("this machine has a group key, but no key of its own")?;
        Ok(Self { store: store.clone(), node, keyring })
    }

    /// What it is towards other members.
    #[must_use]
    pub fn local(&self) -> Arc<Local> {
        let program = name("midplane");
        Arc::new(Local {
            node: self.node.clone(),
            keys: self.keyring.program(&program),
            group: self.keyring.group.clone(),
            program,
            versions: Versions::SPOKEN,
            name: self.keyring.name.clone(),
            addresses: self.keyring.addresses.clone(),
            note: vec![],
            newcomers: Newcomers::Admit,
        })
    }

    /// Pins a peer, or notes what it now says. `reached` is where it is if it does not say.
    ///
    /// # Errors
    /// It is refused, or that cannot be stored.
    pub fn meet(&self, peer: &Peer, reached: SocketAddr) -> anyhow::Result<()> {
        let mut hello = peer.hello.clone();
        if hello.addresses.is_empty() {
            hello.addresses.push(reached);
        }
        self.change_roster(|roster, own| roster.pin(own, &peer.key, &hello)).map(drop)
    }

    /// Adds those members of another's roster that are not known here. Returns whether there were any.
    ///
    /// # Errors
    /// That cannot be stored.
    pub fn learn(&self, others: &Roster) -> anyhow::Result<bool> {
        self.change_roster(|roster, own| {
            let learned = others.members().filter(|member| roster.learn(own, member)).count();
            Ok::<_, secure_link::Refusal>(learned > 0)
        })
    }

    fn change_roster<E: std::error::Error + Send + Sync + 'static>(
        &self,
        change: impl FnOnce(&mut Roster, (&secure_link::PublicKey, &Name)) -> Result<bool, E>,
    ) -> anyhow::Result<bool> {
        let _lock = self.store.lock()?;
        let mut roster = self.store.roster()?;
        let changed = change(&mut roster, (self.node.public(), &self.keyring.name))?;
        if changed {
            self.store.set_roster(&roster)?;
        }
        Ok(changed)
    }
}

/// Stores group keys, and their parts for the programs; each may be read by the system group of its program's name,
/// where that exists.
fn store_keyring(store: &Store, keyring: &Keyring) -> anyhow::Result<()> {
    let mut programs = vec![];
    for program in PROGRAMS {
        let group = nix::unistd::Group::from_name(program)?;
        programs.push((name(program), group.map(|group| group.gid.as_raw())));
    }
    Ok(store.set_keyring(keyring, &programs)?)
}
