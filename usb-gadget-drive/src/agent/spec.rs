// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a drive is, as it is written on the command line: `unix:PATH:EXPORT`, `tcp:HOST:PORT:EXPORT` or `file:PATH`,
//! each with `:ro` or `:cd` behind it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use gadget::Kind;

use crate::arbiter::{Access, Claim};
use crate::client::connect::{Connect, Tcp, Unix};
use crate::client::tls::{Manager, Share};
use crate::link::export_name::ExportName;

/// Longest description, characters: it is part of the identifier that the kernel keeps.
pub const MAX_SPEC: usize = 512;

/// Where the blocks are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A server on a Unix socket.
    Unix {
        /// The socket.
        path: PathBuf,
        /// The export.
        export: String,
    },
    /// A server on TCP, in clear.
    Tcp {
        /// Host and port.
        address: String,
        /// The export.
        export: String,
    },
    /// A file or block device of this machine.
    File(PathBuf),
    /// A share of the management module.
    Share(ExportName),
}

/// One drive for the blade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Where its blocks are.
    pub place: Place,
    /// What the host sees.
    pub kind: Kind,
    /// The host may not write.
    pub read_only: bool,
}

/// A description that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no drive; write unix:/PATH:EXPORT, tcp:HOST:PORT:EXPORT or file:/PATH, with :ro or :cd behind it"
)]
pub struct SpecError {
    text: String,
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let error = || SpecError { text: text.chars().take(MAX_SPEC).collect() };
        if text.len() > MAX_SPEC || text.chars().any(char::is_control) {
            return Err(error());
        }
        let (place, kind, read_only) = match text.rsplit_once(':') {
            Some((place, "ro")) => (place, Kind::Disk, true),
            Some((place, "cd")) => (place, Kind::Cd, true),
            _ => (text, Kind::Disk, false),
        };
        let (scheme, rest) = place.split_once(':').ok_or_else(error)?;
        let with_export = || rest.rsplit_once(':').ok_or_else(error);
        let place = match scheme {
            "share" => Place::Share(rest.parse().map_err(|()| error())?),
            "file" if rest.starts_with('/') => Place::File(rest.into()),
            "unix" if rest.starts_with('/') => {
                let (path, export) = with_export()?;
                Place::Unix { path: path.into(), export: export.to_owned() }
            }
            "tcp" => {
                let (address, export) = with_export()?;
                let port = address
                    .rsplit_once(':')
                    .and_then(|(host, port)| (!host.is_empty()).then_some(port));
                port.and_then(|port| port.parse::<u16>().ok()).ok_or_else(error)?;
                Place::Tcp { address: address.to_owned(), export: export.to_owned() }
            }
            _ => return Err(error()),
        };
        Ok(Self { place, kind, read_only })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Unix { path, export } => write!(f, "unix:{}:{export}", path.display())?,
            Place::Tcp { address, export } => write!(f, "tcp:{address}:{export}")?,
            Place::File(path) => write!(f, "file:{}", path.display())?,
            Place::Share(export) => write!(f, "share:{export}")?,
        }
        match (self.kind, self.read_only) {
            (Kind::Cd, _) => f.write_str(":cd"),
            (Kind::Disk, true) => f.write_str(":ro"),
            (Kind::Disk, false) => Ok(()),
        }
    }
}

impl Spec {
    /// The same with what the management module has granted, for who comes back to it.
    #[must_use]
    pub fn granted(&self, claim: Option<Claim>) -> Self {
        let mut spec = self.clone();
        if let (Place::Share(export), Some(claim)) = (&mut spec.place, claim) {
            export.claim = claim;
        }
        spec
    }

    /// How to get to it; none for what is on this machine.
    #[must_use]
    pub fn connect(&self, manager: Option<&Manager>) -> Option<Arc<dyn Connect>> {
        match &self.place {
            Place::Unix { path, export } => {
                Some(Arc::new(Unix { path: path.clone(), export: export.clone() }))
            }
            Place::Tcp { address, export } => {
                Some(Arc::new(Tcp { address: address.clone(), export: export.clone() }))
            }
            Place::Share(ExportName { share, access, claim }) => Some(Arc::new(Share {
                manager: manager?.clone(),
                share: share.clone(),
                access: access.unwrap_or(Access::Read),
                claim: Mutex::new(*claim),
            })),
            Place::File(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in [
            "unix:/run/n.sock:disk",
            "unix:/run/n.sock::ro",
            "tcp:[::1]:10809:a b:cd",
            "file:/a:b/c:ro",
            "file:/x",
        ] {
            assert_eq!(text.parse::<Spec>().unwrap().to_string(), text);
        }
        let cd: Spec = "file:/x.iso:cd".parse().unwrap();
        assert!(cd.read_only && cd.kind == Kind::Cd);
    }

    #[test]
    fn what_is_none_is_refused() {
        let long = format!("file:/{}", "x".repeat(MAX_SPEC));
        for text in [
            "",
            "x",
            "file:x",
            "unix:/a",
            "tcp:host:export",
            "tcp::1:e",
            "http:/x",
            "file:/a\nb",
            &long,
        ] {
            assert!(text.parse::<Spec>().is_err(), "{text}");
        }
    }
}
