// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the blocks of a share are, as its configuration says.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::Source;
use super::cache::{Cache, Cached};
use super::file::{self, FileSource};
use super::remote::{self, RemoteSource};
use super::uri::NbdUri;
use crate::serve::tls::TlsError;

/// Where blocks are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file or a block device of this machine.
    File(PathBuf),
    /// A drive of another NBD server.
    Nbd(NbdUri),
}

/// Why a place cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A file or block device.
    #[error(transparent)]
    File(#[from] file::OpenError),
    /// Another server.
    #[error(transparent)]
    Remote(#[from] remote::OpenError),
    /// Its certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Place {
    /// Opens it. What is remote is read through `cache`. May block for as long as a device or a server does, the
    /// latter for seconds.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn open(&self, writable: bool, cache: &Arc<Cache>) -> Result<Arc<dyn Source>, PlaceError> {
        match self {
            Self::File(path) => Ok(Arc::new(FileSource::open(path, writable)?)),
            Self::Nbd(uri) => {
                let remote = RemoteSource::open(&uri.to_string(), uri.connect()?, writable)?;
                Ok(Arc::new(Cached::new(remote, Arc::clone(cache))))
            }
        }
    }

    /// The name under which it is known where it is; hosts are shown what ends in `.iso` as a CD-ROM.
    #[must_use]
    pub fn is_iso(&self) -> bool {
        let name = match self {
            Self::File(path) => path.to_string_lossy(),
            Self::Nbd(uri) => uri.export().into(),
        };
        name.len() > 4 && name.to_ascii_lowercase().ends_with(".iso")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Nbd(uri) => uri.fmt(f),
        }
    }
}
