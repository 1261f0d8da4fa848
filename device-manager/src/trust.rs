// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who this machine is and whom it knows, and links by that: of units to managers, and of holders to units.
//!
//! The files are read for each link: keys and members change while programs run.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secure_link::store::StoreError;
use secure_link::stream::{self, LinkError};
use secure_link::{
    Dial, Door, Endpoints, HandshakeError, Local, Met, Name, Newcomers, NodeKey, Refusal, Roster,
    Session, Store, Versions,
};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::record::Machine;

/// The program, whose part of the group key all of its parts use.
pub const PROGRAM: &str = "device-manager";
/// A machine that does not answer is given up.
const CONNECT: Duration = Duration::from_secs(1);
/// What is sent and not acknowledged for so long ends a connection, milliseconds.
const USER_TIMEOUT: u32 = 3_000;

/// As what an end of a link takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It has units.
    Manager,
    /// It has devices.
    Unit,
    /// It has leases.
    Holder,
}

impl Role {
    fn name(self) -> Name {
        let text = match self {
            Self::Manager => "manager",
            Self::Unit => "unit",
            Self::Holder => "holder",
        };
        text.parse().expect("these are names")
    }
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// No part of the group key.
    #[error("this machine is in no group; use `midplane key create` or `midplane key join`")]
    NoGroup,
    /// No key of its own.
    #[error("this machine has no key; use `midplane key create` or `midplane key join`")]
    NoNode,
    /// The files cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not let in, or does not let us in.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It is another machine than the one that was to be reached.
    #[error("{0} answers there")]
    Other(Machine),
    /// It is not pinned.
    #[error(transparent)]
    Pin(#[from] Refusal),
    /// No address answers.
    #[error("it is not reached")]
    Unreached(#[source] Option<io::Error>),
    /// The system's.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Keys and members of this machine.
#[derive(Debug, Clone)]
pub struct Trust {
    store: Store,
    met: Met,
    node: NodeKey,
    program: Name,
}

impl Trust {
    /// Below another root than `/`, if one is given; `state` is the process' own folder for whom it meets.
    ///
    /// # Errors
    /// [`TrustError::NoNode`], and those of the files.
    pub fn open(root: Option<&Path>, state: &Path) -> Result<Self, TrustError> {
        let store = root.map_or_else(Store::default, Store::below);
        let node = match secure_link::store::given_node()? {
            Some(node) => node,
            None => store.node()?.ok_or(TrustError::NoNode)?,
        };
        let program = PROGRAM.parse().expect("it is a name");
        Ok(Self { store, met: Met::new(state), node, program })
    }

    /// The store, for the group.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// This machine's key.
    #[must_use]
    pub fn node(&self) -> &NodeKey {
        &self.node
    }

    /// The program's name.
    #[must_use]
    pub fn program(&self) -> &Name {
        &self.program
    }

    /// This machine's name in its group.
    ///
    /// # Errors
    /// [`TrustError::NoGroup`], and those of the files.
    pub fn name(&self) -> Result<Machine, TrustError> {
        Ok(Machine(self.store.program(&self.program)?.ok_or(TrustError::NoGroup)?.name))
    }

    fn read(&self) -> Result<(Arc<Local>, Roster), TrustError> {
        let file = self.store.program(&self.program)?.ok_or(TrustError::NoGroup)?;
        let local = Local {
            node: self.node.clone(),
            keys: file.keys,
            group: file.group,
            program: self.program.clone(),
            versions: Versions::SPOKEN,
            name: file.name,
            addresses: vec![],
            note: vec![],
            newcomers: Newcomers::Admit,
        };
        let mut roster = self.store.roster()?;
        for member in self.met.load()?.members() {
            // What root has said of a key or a name stands.
            roster.learn(local.identity(), member);
        }
        Ok((Arc::new(local), roster))
    }

    /// Pins who is new, on disk, before anything it says counts.
    fn pin(&self, local: &Local, session: &Session) -> Result<Machine, TrustError> {
        let peer = &session.peer;
        if peer.is_new {
            let mut met = self.met.load()?;
            met.pin(local.identity(), &peer.key, &peer.hello)?;
            self.met.store(&met)?;
        }
        Ok(Machine(peer.hello.name.clone()))
    }

    /// Connects to a machine at the first of its addresses that answers. `from` is this end's address, where that matters.
    ///
    /// # Errors
    /// [`TrustError`].
    pub async fn connect(
        &self,
        addresses: &[SocketAddr],
        machine: &Machine,
        (from, to): (Role, Role),
    ) -> Result<(TcpStream, Session), TrustError> {
        let mut failed = None;
        for address in addresses {
            match self.connect_to(*address, machine, (from, to)).await {
                Err(TrustError::Io(error)) => failed = Some(error),
                other => return other,
            }
        }
        Err(TrustError::Unreached(failed))
    }

    async fn connect_to(
        &self,
        address: SocketAddr,
        machine: &Machine,
        (from, to): (Role, Role),
    ) -> Result<(TcpStream, Session), TrustError> {
        let (local, roster) = self.read()?;
        let mut dial = Dial::new(&local, from.name(), to.name());
        dial.expect = roster.by_name(&machine.0).map(|member| member.key.id());
        loop {
            let mut stream = dial_one(address).await?;
            dial.endpoints = Some(endpoints(stream.local_addr()?, stream.peer_addr()?));
            let known = || roster.clone();
            match stream::connect(&mut stream, Arc::clone(&local), dial.clone(), known).await {
                Ok(session) => {
                    let name = self.pin(&local, &session)?;
                    return if name == *machine {
                        Ok((stream, session))
                    } else {
                        Err(TrustError::Other(name))
                    };
                }
                Err(LinkError::Handshake(HandshakeError::RefusedThere { refusal, proved })) => {
                    // With another key or version it may be let in.
                    let refused = HandshakeError::RefusedThere { refusal, proved };
                    dial = dial.again(&local, refusal).ok_or(LinkError::Handshake(refused))?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for the other end of an accepted connection to prove who it is.
    ///
    /// # Errors
    /// [`TrustError`].
    pub async fn accept(
        &self,
        stream: &mut TcpStream,
        role: Role,
        from: Role,
    ) -> Result<(Machine, Session), TrustError> {
        prepare(stream)?;
        let (local, roster) = self.read()?;
        let addresses = Some(endpoints(stream.peer_addr()?, stream.local_addr()?));
        let door = Door { role: role.name(), from: vec![from.name()], endpoints: addresses };
        let session = stream::accept(stream, Arc::clone(&local), door, || roster.clone()).await?;
        let name = self.pin(&local, &session)?;
        Ok((name, session))
    }
}

fn endpoints(initiator: SocketAddr, responder: SocketAddr) -> Endpoints {
    let canonical =
        |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    Endpoints { initiator: canonical(initiator), responder: canonical(responder) }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_tcp_user_timeout(stream, USER_TIMEOUT)?;
    Ok(())
}

async fn dial_one(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    let stream =
        timeout(CONNECT, socket.connect(to)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    prepare(&stream)?;
    Ok(stream)
}

/// Where a path is below another root.
#[must_use]
pub fn below(root: Option<&Path>, path: &str) -> PathBuf {
    root.map_or_else(|| path.into(), |root| root.join(path.trim_start_matches('/')))
}
