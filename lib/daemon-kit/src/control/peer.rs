// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is at the other end of the control socket and what they may do, from the credentials that
//! the kernel recorded when the peer connected (unix(7), `SO_PEERCRED`;
//! socket(7), `SO_PEERGROUPS`).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use axum::extract::FromRequestParts;
use axum::http::Method;
use axum::http::request::Parts;
use kernel_abi::peer_groups::peer_groups;
use nix::unistd::{Group, Uid};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::sync::watch;

use super::ApiError;

/// Members may do everything.
pub const CHANGE_GROUP: &str = "midplane";
/// Members may read.
pub const READ_GROUP: &str = "midplane-read";

/// What a peer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `GET` and `HEAD`.
    Reader,
    /// Every method.
    Changer,
}

impl Role {
    pub(super) fn allows(self, method: &Method) -> bool {
        self == Self::Changer || method == Method::GET || method == Method::HEAD
    }
}

/// The process that sent a request; an extractor for handlers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user when it connected.
    pub uid: u32,
    /// Its effective group when it connected.
    pub gid: u32,
    /// Its process; that may be gone and the number taken by another.
    pub pid: Option<i32>,
    /// What it may do.
    pub role: Role,
}

/// The connection that carries a request; an extractor for handlers. What a client holds ends
/// with its connection: keep it until [`closed`](Self::closed).
#[derive(Debug, Clone)]
pub struct Connection {
    pub(super) id: u64,
    pub(super) open: watch::Receiver<()>,
}

impl Connection {
    /// A number that no other connection of this server has or had.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Ends when the connection has ended.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut open = self.open.clone();
        async move { while open.changed().await.is_ok() {} }
    }
}

macro_rules! extract_extension {
    ($type:ty) => {
        impl<S: Sync> FromRequestParts<S> for $type {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
                let found = parts.extensions.get::<Self>().cloned();
                found.ok_or_else(|| ApiError::internal("the request came without a peer"))
            }
        }
    };
}

extract_extension!(Peer);
extract_extension!(Connection);

/// Finds the groups of the peer on a socket, given its uid.
type GroupsOf = Box<dyn Fn(BorrowedFd<'_>, u32) -> io::Result<Vec<u32>> + Send + Sync>;

/// Who gets which [`Role`].
pub struct Policy {
    /// Users who may do everything.
    changer_uids: Vec<u32>,
    /// Groups, where they exist.
    changer_gid: Option<u32>,
    reader_gid: Option<u32>,
    groups_of: GroupsOf,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { changer_uids, changer_gid, reader_gid, groups_of: _ } = self;
        write!(f, "Policy {{ {changer_uids:?}, {changer_gid:?}, {reader_gid:?} }}")
    }
}

impl Policy {
    /// The policy of all our programs: root, the daemon's own user and [`CHANGE_GROUP`] may
    /// change, [`READ_GROUP`] may read. Groups are looked up now; one that does not exist gives
    /// nobody anything until the next start.
    pub fn system() -> Self {
        let gid = |name| match Group::from_name(name) {
            Ok(Some(group)) => Some(group.gid.as_raw()),
            Ok(None) => None,
            Err(err) => {
                tracing::warn!(group = name, %err, "cannot look up the group; its members get no access");
                None
            }
        };
        Self {
            changer_uids: vec![0, Uid::effective().as_raw()],
            changer_gid: gid(CHANGE_GROUP),
            reader_gid: gid(READ_GROUP),
            groups_of: Box::new(|socket, _| peer_groups(socket)),
        }
    }

    /// A policy with everything given, for tests: these users may change, members of the two
    /// groups may change and read, `groups_of` tells the groups of a uid.
    pub fn with_groups(
        changer_uids: &[u32],
        changer_gid: u32,
        reader_gid: u32,
        groups_of: impl Fn(u32) -> io::Result<Vec<u32>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            changer_uids: changer_uids.to_vec(),
            changer_gid: Some(changer_gid),
            reader_gid: Some(reader_gid),
            groups_of: Box::new(move |_, uid| groups_of(uid)),
        }
    }

    /// The peer of `stream`, or its uid when it may do nothing.
    ///
    /// # Errors
    /// The system does not say who it is.
    pub fn admit(&self, stream: &UnixStream) -> io::Result<Result<Peer, u32>> {
        let cred = stream.peer_cred()?;
        let peer = |role| Peer { uid: cred.uid(), gid: cred.gid(), pid: cred.pid(), role };
        Ok(self.role(stream.as_fd(), &cred).map(peer).ok_or(cred.uid()))
    }

    fn role(&self, socket: BorrowedFd<'_>, cred: &UCred) -> Option<Role> {
        if self.changer_uids.contains(&cred.uid()) {
            return Some(Role::Changer);
        }
        let mut groups = (self.groups_of)(socket, cred.uid()).unwrap_or_else(|err| {
            tracing::debug!(uid = cred.uid(), %err, "cannot find the groups of a peer");
            Vec::new()
        });
        groups.push(cred.gid());
        let member = |gid: Option<u32>| gid.is_some_and(|gid| groups.contains(&gid));
        if member(self.changer_gid) {
            Some(Role::Changer)
        } else if member(self.reader_gid) {
            Some(Role::Reader)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What this process may do by a policy that reads real credentials.
    fn own_role(changer_gid: Option<u32>, reader_gid: Option<u32>) -> Option<Role> {
        let (_client, server) = std::os::unix::net::UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let server = UnixStream::from_std(server).unwrap();
        let groups_of: GroupsOf = Box::new(|socket, _| peer_groups(socket));
        let policy = Policy { changer_uids: Vec::new(), changer_gid, reader_gid, groups_of };
        policy.admit(&server).unwrap().ok().map(|peer| peer.role)
    }

    #[tokio::test]
    async fn groups_of_the_process_decide() {
        let own = nix::unistd::getegid().as_raw();
        let foreign = Some(4_000_000);
        assert_eq!(own_role(Some(own), None), Some(Role::Changer));
        assert_eq!(own_role(foreign, Some(own)), Some(Role::Reader));
        assert_eq!(own_role(foreign, foreign), None);
        assert_eq!(own_role(None, None), None, "groups that do not exist admit nobody");
        for group in nix::unistd::getgroups().unwrap() {
            assert_eq!(own_role(None, Some(group.as_raw())), Some(Role::Reader));
        }
    }
}
