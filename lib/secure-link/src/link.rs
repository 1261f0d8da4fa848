// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why links do not come about, or end: the same for both shells.

use std::io;

use crate::handshake::HandshakeError;
use crate::session::OpenError;

/// Most bytes of a message by default: a snapshot of settings in parts of a convenient size.
pub const MAX_MESSAGE: usize = 1 << 20;

/// Why a link does not come about, or ends.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The connection's.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The other end is not let in, or does not let us in.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// It took too long.
    #[error("the other end did not finish the handshake in time")]
    Late,
    /// What came is not what was sent.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The connection ended without the other end's saying so: what it sent last may be missing.
    #[error("the connection was cut")]
    Cut,
    /// A message is longer than this end takes.
    #[error("a message has more than {0} bytes")]
    Long(usize),
}

impl From<LinkError> for io::Error {
    fn from(error: LinkError) -> Self {
        let kind = match error {
            LinkError::Io(error) => return error,
            LinkError::Handshake(_) => io::ErrorKind::PermissionDenied,
            LinkError::Late => io::ErrorKind::TimedOut,
            LinkError::Open(_) | LinkError::Long(_) => io::ErrorKind::InvalidData,
            LinkError::Cut => io::ErrorKind::UnexpectedEof,
        };
        Self::new(kind, error)
    }
}
