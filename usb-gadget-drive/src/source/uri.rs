// SPDX-License-Identifier: MIT OR Apache-2.0
//! NBD URIs (uri.md of the NBD project): `nbd://HOST[:PORT]/EXPORT`, `nbds://HOST[:PORT]/EXPORT?tls-certificates=DIR`
//! and `nbd+unix:///EXPORT?socket=PATH`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;

use crate::client::connect::{Connect, Tcp, Unix};
use crate::client::tls::{self, Secured};
use crate::serve::tls::TlsError;

/// Longest that is read, bytes: a Unix socket's path and the longest name of an export go into it.
pub const MAX_URI: usize = 4400;
/// What IANA has for NBD.
const PORT: u16 = 10809;

/// A drive of an NBD server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NbdUri {
    text: String,
    server: Server,
    export: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Server {
    /// `HOST:PORT`.
    Tcp(String),
    Tls {
        address: String,
        name: ServerName<'static>,
        certificates: PathBuf,
    },
    Unix(PathBuf),
}

/// What is no such URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// It begins otherwise, or has parts that these have not.
    #[error(
        "{0:?} is no NBD URI; write nbd://HOST:PORT/EXPORT, nbds://HOST:PORT/EXPORT?tls-certificates=DIR or nbd+unix:///EXPORT?socket=PATH"
    )]
    Form(String),
    /// It is longer than any that makes sense.
    #[error("an NBD URI may have at most {MAX_URI} bytes")]
    Long,
}

impl FromStr for NbdUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if text.len() > MAX_URI {
            return Err(UriError::Long);
        }
        parse(text).ok_or_else(|| UriError::Form(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<NbdUri> {
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) || text.contains('#') {
        return None;
    }
    let (scheme, rest) = text.split_once("://")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, export) = rest.split_once('/').unwrap_or((rest, ""));
    let (mut socket, mut certificates) = (None, None);
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=')? {
            ("socket", path) => socket = Some(absolute(path)?),
            ("tls-certificates", path) => certificates = Some(absolute(path)?),
            _ => return None,
        }
    }
    let server = match (scheme, socket, certificates) {
        ("nbd", None, None) => Server::Tcp(address(authority)?.0),
        ("nbds", None, Some(certificates)) => {
            let (address, host) = address(authority)?;
            Server::Tls { address, name: ServerName::try_from(host).ok()?, certificates }
        }
        ("nbd+unix", Some(path), None) if authority.is_empty() => Server::Unix(path),
        _ => return None,
    };
    Some(NbdUri { text: text.to_owned(), server, export: decoded(export)? })
}

/// With the port that it has if it says none, and the host alone.
fn address(authority: &str) -> Option<(String, String)> {
    // Names with passwords are for other protocols.
    if authority.is_empty() || authority.contains(['@', '%']) {
        return None;
    }
    let host_end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let (host, port) = authority.split_at(host_end);
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None if port.is_empty() => PORT,
        None => return None,
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    (!bare.is_empty()).then(|| (format!("{host}:{port}"), bare.to_owned()))
}

fn absolute(path: &str) -> Option<PathBuf> {
    decoded(path).filter(|path| path.starts_with('/')).map(PathBuf::from)
}

fn decoded(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    (!text.contains('\0')).then(|| text.into_owned())
}

impl fmt::Display for NbdUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl NbdUri {
    /// How to get there.
    ///
    /// # Errors
    /// The certificates cannot be read.
    pub fn connect(&self) -> Result<Arc<dyn Connect>, TlsError> {
        let export = self.export.clone();
        Ok(match &self.server {
            Server::Tcp(address) => Arc::new(Tcp { address: address.clone(), export }),
            Server::Unix(path) => Arc::new(Unix { path: path.clone(), export }),
            Server::Tls { address, name, certificates } => {
                let (nbd, name) = (address.clone(), name.clone());
                let server = tls::Manager { nbd, name, tls: tls::load(certificates)? };
                Arc::new(Secured { server, export })
            }
        })
    }

    /// The last part of the export's name, for what it may tell of the drive.
    #[must_use]
    pub fn export(&self) -> &str {
        &self.export
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> (Server, String) {
        let uri: NbdUri = text.parse().unwrap();
        assert_eq!(uri.to_string(), text);
        (uri.server, uri.export)
    }

    #[test]
    fn servers_are_read_as_written() {
        let tcp = |address: &str, export: &str| (Server::Tcp(address.into()), export.to_owned());
        assert_eq!(server("nbd://host"), tcp("host:10809", ""));
        assert_eq!(server("nbd://host:7/a/b%20c.iso"), tcp("host:7", "a/b c.iso"));
        assert_eq!(server("nbd://[fe80::1]:7/x"), tcp("[fe80::1]:7", "x"));
        assert_eq!(server("nbd://[::1]"), tcp("[::1]:10809", ""));
        assert_eq!(
            server("nbd+unix:///disk?socket=/run/a%3Fb.sock"),
            (Server::Unix("/run/a?b.sock".into()), "disk".to_owned())
        );
        let (secured, export) = server("nbds://store.example/disk?tls-certificates=/etc/tls");
        let Server::Tls { address, name, certificates } = secured else { panic!("{secured:?}") };
        assert_eq!((address.as_str(), export.as_str()), ("store.example:10809", "disk"));
        assert_eq!((name.to_str().as_ref(), certificates), ("store.example", "/etc/tls".into()));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "/a/path",
            "http://host/x",
            "nbd://",
            "nbd:///x",
            "nbd://host:0/x",
            "nbd://host:99999/x",
            "nbd://[::1/x",
            "nbd://[::1]7/x",
            "nbd://user@host/x",
            "nbd://host/a b",
            "nbd://host/%00",
            "nbd://host/%ff",
            "nbd://host/x#y",
            "nbd://host/x?socket=/s",
            "nbd://host/x?unknown=1",
            "nbds://host/x",
            "nbds://host/x?tls-certificates=relative",
            "nbd+unix:///x",
            "nbd+unix://host/x?socket=/s",
            &format!("nbd://host/{}", "x".repeat(MAX_URI)),
        ] {
            assert!(text.parse::<NbdUri>().is_err(), "{text}");
        }
    }
}
