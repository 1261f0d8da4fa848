// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/midplane/usb-gadget-drive-agent.toml`: who manages the blade's drives, and which it has of its own.

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use daemon_kit::config::{self, ConfigError, Loaded, Spanned};
use rustls::pki_types::ServerName;
use serde::Deserialize;

use crate::arbiter::ShareName;
use crate::link::message::{Kind, MAX_DRIVES};

/// Where the configuration is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/midplane/usb-gadget-drive-agent.toml";
/// Where the certificates are when nothing else is said.
pub const DEFAULT_TLS: &str = "/etc/midplane/usb-gadget-drive/tls";
/// The port of a management module's NBD server.
const NBD_PORT: u16 = 10809;

/// The file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    manager: Option<Spanned<String>>,
    nbd: Option<Spanned<String>>,
    tls: Option<PathBuf>,
    #[serde(default)]
    drives: Vec<Spanned<RawDrive>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDrive {
    name: String,
    path: PathBuf,
    #[serde(default)]
    cd: bool,
    #[serde(default)]
    writable: bool,
}

/// The configuration, checked.
#[derive(Debug, Default)]
pub struct Config {
    /// The management module, if there is one.
    pub manager: Option<ManagerConfig>,
    /// Drives of the blade's own.
    pub drives: Vec<LocalDrive>,
}

/// A management module.
#[derive(Debug)]
pub struct ManagerConfig {
    /// Where agents connect, `HOST:PORT`.
    pub address: String,
    /// Its NBD server, `HOST:PORT`.
    pub nbd: String,
    /// The name in its certificate.
    pub name: ServerName<'static>,
    /// Folder of the blade's certificate.
    pub tls: PathBuf,
}

/// A drive of the blade's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalDrive {
    /// What it is called.
    pub name: ShareName,
    /// A file or a block device.
    pub path: PathBuf,
    /// As what the host sees it.
    pub kind: Kind,
    /// Whether the host may write.
    pub writable: bool,
}

impl Config {
    /// Reads a file, or the default one if it is there.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and remedy.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        Self::check(config::load_or_default(path, Path::new(DEFAULT_PATH))?)
    }

    /// The same from text; `path` is for messages.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and remedy.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::check(config::parse(text, path)?)
    }

    fn check(loaded: Loaded<Raw>) -> Result<Self, ConfigError> {
        let Loaded { value: raw, source } = loaded;
        let address = |text: &Spanned<String>| {
            let parts = text.get_ref().rsplit_once(':').filter(|(host, _)| !host.is_empty());
            let parts =
                parts.and_then(|(host, port)| Some((host, port.parse::<NonZeroU16>().ok()?)));
            let wrong = || {
                let message = format!("`{}` is no address", text.get_ref());
                source.error_at(text.span(), message, "write HOST:PORT, such as mm.example:7463")
            };
            parts.map(|(host, _)| host.trim_matches(['[', ']']).to_owned()).ok_or_else(wrong)
        };
        let manager = match raw.manager {
            None => None,
            Some(manager) => {
                let host = address(&manager)?;
                let name = ServerName::try_from(host.clone()).map_err(|_| {
                    let remedy = "write the name that its certificate is for";
                    source.error_at(manager.span(), format!("`{host}` is no host's name"), remedy)
                })?;
                if let Some(nbd) = &raw.nbd {
                    address(nbd)?;
                }
                let bracketed = if host.contains(':') { format!("[{host}]") } else { host };
                let nbd =
                    raw.nbd.map_or_else(|| format!("{bracketed}:{NBD_PORT}"), Spanned::into_inner);
                let tls = raw.tls.unwrap_or_else(|| DEFAULT_TLS.into());
                Some(ManagerConfig { address: manager.into_inner(), nbd, name, tls })
            }
        };
        let mut drives: Vec<LocalDrive> = vec![];
        for drive in raw.drives {
            let span = drive.span();
            let RawDrive { name, path, cd, writable } = drive.into_inner();
            let invalid = |message: String, remedy| source.error_at(span.clone(), message, remedy);
            let name: ShareName =
                name.parse().map_err(|error| invalid(format!("{error}"), "rename it"))?;
            if cd && writable {
                return Err(invalid(
                    "a CD-ROM cannot be written".to_owned(),
                    "take `writable` out",
                ));
            }
            if drives.iter().any(|other| other.name == name) {
                return Err(invalid(format!("there are two drives called {name}"), "rename one"));
            }
            if drives.len() >= MAX_DRIVES {
                return Err(invalid(
                    format!("there are over {MAX_DRIVES} drives"),
                    "take some out",
                ));
            }
            let kind = if cd { Kind::Cd } else { Kind::Disk };
            drives.push(LocalDrive { name, path, kind, writable });
        }
        Ok(Self { manager, drives })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("agent.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_manager_is_known_by_its_host() {
        let config = parse("manager = \"[fd00::1]:7463\"").unwrap().manager.unwrap();
        assert_eq!(
            (config.nbd.as_str(), config.address.as_str()),
            ("[fd00::1]:10809", "[fd00::1]:7463")
        );
        let config = parse("manager = \"mm:7463\"\nnbd = \"mm:1\"\n").unwrap().manager.unwrap();
        assert_eq!(
            (config.nbd.as_str(), config.name),
            ("mm:1", ServerName::try_from("mm").unwrap())
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        for (text, wanted) in [
            ("manager = \"mm\"", "is no address"),
            ("manager = \":1\"", "is no address"),
            ("manager = \"mm:0\"", "is no address"),
            ("manager = \"a b:1\"", "is no host's name"),
            ("[[drives]]\nname = \"a/b\"\npath = \"/x\"\n", "is no name"),
            (
                "[[drives]]\nname = \"a\"\npath = \"/x\"\ncd = true\nwritable = true\n",
                "cannot be written",
            ),
            (
                "[[drives]]\nname = \"a\"\npath = \"/x\"\n[[drives]]\nname = \"a\"\npath = \"/y\"\n",
                "two drives",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted) && error.contains("agent.toml:"), "{error}");
        }
    }
}
