// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/midplane/usb-gadget-drive.toml`: what is served, and where.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use daemon_kit::config::{self, ConfigError, Loaded, Source, Spanned};
use serde::Deserialize;

use crate::arbiter::{Access, BladeName, MAX_SHARES, Mode, Share, ShareName};
use crate::link::message::Kind;
use crate::manager::Configured;
use crate::source::cache::DEFAULT_CACHE;
use crate::source::place::Place;
use crate::source::uri::UriError;

/// Where the configuration is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/midplane/usb-gadget-drive.toml";
/// Where clients of this machine are served when nothing else is said; the port that IANA has for NBD.
pub const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10809);
/// What must outlive a restart.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/midplane/usb-gadget-drive";
/// Where the control socket is.
pub const DEFAULT_RUNTIME_DIR: &str = "/run/midplane/usb-gadget-drive";
/// What may be said of the memory for what is read from other servers, MiB.
const CACHE_MIB: RangeInclusive<u32> = 2..=65536;
/// All blades, in the rights of a share.
const ALL: &str = "*";

/// The file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    #[serde(default)]
    serve: RawServe,
    #[serde(default)]
    shares: BTreeMap<String, Spanned<RawShare>>,
    state_dir: Option<PathBuf>,
    runtime_dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawServe {
    #[serde(default)]
    listen: Vec<SocketAddr>,
    #[serde(default)]
    unix: Vec<PathBuf>,
    agents: Option<Spanned<SocketAddr>>,
    tls: Option<PathBuf>,
    cache_mib: Option<Spanned<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawShare {
    path: Option<PathBuf>,
    nbd: Option<Spanned<String>>,
    #[serde(default)]
    mode: RawMode,
    kind: Option<RawKind>,
    #[serde(default)]
    description: String,
    read: Option<Vec<Spanned<String>>>,
    write: Option<Vec<Spanned<String>>>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawMode {
    #[default]
    ReadOnly,
    Exclusive,
    Private,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawKind {
    Disk,
    Cd,
}

/// The configuration, checked.
#[derive(Debug)]
pub struct Config {
    /// TCP addresses of the NBD server.
    pub listen: Vec<SocketAddr>,
    /// Its Unix sockets.
    pub unix: Vec<PathBuf>,
    /// Where agents connect.
    pub agents: Option<SocketAddr>,
    /// Folder of certificates.
    pub tls: Option<PathBuf>,
    /// Memory for what is read from other servers, bytes.
    pub cache: u64,
    /// Shares by name.
    pub shares: BTreeMap<ShareName, Configured>,
    /// What must outlive a restart.
    pub state_dir: PathBuf,
    /// Where the control socket is.
    pub runtime_dir: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![],
            unix: vec![],
            agents: None,
            tls: None,
            cache: DEFAULT_CACHE,
            shares: BTreeMap::new(),
            state_dir: DEFAULT_STATE_DIR.into(),
            runtime_dir: DEFAULT_RUNTIME_DIR.into(),
        }
    }
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
        if raw.shares.len() > MAX_SHARES {
            let message = format!("there are more than {MAX_SHARES} shares");
            return Err(source.error_at(0..0, message, "take some out"));
        }
        if let Some(agents) = raw.serve.agents.as_ref().filter(|_| raw.serve.tls.is_none()) {
            let remedy = "set `tls` to a folder made by `usb-gadget-drive cert`";
            return Err(source.error_at(agents.span(), "agents are known by certificates", remedy));
        }
        let mut shares = BTreeMap::new();
        for (name, share) in raw.shares {
            let span = share.span();
            let invalid = |error| source.error_at(span.clone(), format!("{error}"), "rename it");
            let name: ShareName = name.parse().map_err(invalid)?;
            shares.insert(name, configured(share, &source)?);
        }
        let default = Self::default();
        let cache = match raw.serve.cache_mib {
            Some(mib) if !CACHE_MIB.contains(mib.get_ref()) => {
                let (least, most) = CACHE_MIB.into_inner();
                let remedy = format!("write {least} to {most}");
                return Err(source.error_at(mib.span(), "`cache_mib` is out of range", remedy));
            }
            Some(mib) => u64::from(mib.into_inner()) << 20,
            None => default.cache,
        };
        Ok(Self {
            listen: raw.serve.listen,
            unix: raw.serve.unix,
            agents: raw.serve.agents.map(Spanned::into_inner),
            tls: raw.serve.tls,
            cache,
            shares,
            state_dir: raw.state_dir.unwrap_or(default.state_dir),
            runtime_dir: raw.runtime_dir.unwrap_or(default.runtime_dir),
        })
    }

    /// Where the control socket is.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.runtime_dir.join("control.sock")
    }
}

fn configured(share: Spanned<RawShare>, source: &Source) -> Result<Configured, ConfigError> {
    let span = share.span();
    let RawShare { path, nbd, mode, kind, description, read, write } = share.into_inner();
    let place = match (path, nbd) {
        (Some(path), None) => Place::File(path),
        (None, Some(uri)) => {
            let invalid = |error: UriError| {
                source.error_at(
                    uri.span(),
                    format!("{error}"),
                    "see nbd in usb-gadget-drive.toml(5)",
                )
            };
            Place::Nbd(uri.get_ref().parse().map_err(invalid)?)
        }
        _ => {
            let what = "a share has one place";
            return Err(source.error_at(span, what, "write either `path` or `nbd`"));
        }
    };
    let mode = match mode {
        RawMode::ReadOnly => Mode::ReadOnly,
        RawMode::Exclusive => Mode::Exclusive,
        RawMode::Private => Mode::Private,
    };
    if mode == Mode::Exclusive && write.is_none() {
        let remedy = "add write = [\"BLADE\", …], or [\"*\"] for all";
        return Err(source.error_at(span, "an exclusive share must say who may write", remedy));
    }
    if mode == Mode::ReadOnly
        && let Some(first) = write.iter().flatten().next()
    {
        let remedy = "take `write` out, or set mode = \"exclusive\" or \"private\"";
        return Err(source.error_at(first.span(), "nobody may write to a read-only share", remedy));
    }
    // Who says nothing: all may read, and write where that disturbs nobody.
    let is_silent = read.is_none() && write.is_none();
    let default = if mode == Mode::Private { Access::Write } else { Access::Read };
    let mut others = is_silent.then_some(default);
    let mut rights: BTreeMap<BladeName, Access> = BTreeMap::new();
    for (names, access) in [(read, Access::Read), (write, Access::Write)] {
        for name in names.into_iter().flatten() {
            if name.get_ref() == ALL {
                others = others.max(Some(access));
                continue;
            }
            let invalid = |error| source.error_at(name.span(), format!("{error}"), "correct it");
            let blade: BladeName = name.get_ref().parse().map_err(invalid)?;
            let right = rights.entry(blade).or_insert(access);
            *right = (*right).max(access);
        }
    }
    let kind = match kind {
        Some(RawKind::Cd) => Kind::Cd,
        Some(RawKind::Disk) => Kind::Disk,
        None if place.is_iso() => Kind::Cd,
        None => Kind::Disk,
    };
    let is_writable = mode != Mode::ReadOnly;
    let share = Share { mode, rights, others, is_writable, size: 0 };
    Ok(Configured { share, place, description, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("test.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn rights_are_read_as_written() {
        let config = parse(
            "[shares.a]\npath = \"/a.ISO\"\n\
             [shares.r]\nnbd = \"nbd://h/r.iso\"\n\
             [shares.b]\npath = \"/b\"\nmode = \"private\"\n\
             [shares.c]\npath = \"/c\"\nmode = \"exclusive\"\nread = [\"*\"]\nwrite = [\"b1\"]\n",
        )
        .unwrap();
        let share = |name: &str| &config.shares[name];
        assert_eq!((share("a").kind, share("a").share.others), (Kind::Cd, Some(Access::Read)));
        assert_eq!(
            (share("r").kind, share("r").place.to_string()),
            (Kind::Cd, "nbd://h/r.iso".into())
        );
        assert_eq!((share("b").kind, share("b").share.others), (Kind::Disk, Some(Access::Write)));
        let c = &share("c").share;
        assert_eq!((c.others, c.rights.get("b1")), (Some(Access::Read), Some(&Access::Write)));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        for (text, wanted) in [
            ("[shares.a]\n", "either `path` or `nbd`"),
            ("[shares.a]\npath = \"/a\"\nnbd = \"nbd://h/a\"\n", "either `path` or `nbd`"),
            ("[shares.a]\nnbd = \"http://h/a\"\n", "is no NBD URI"),
            ("[serve]\ncache_mib = 1\n", "write 2 to 65536"),
            ("[shares.a]\npath = \"/a\"\nmode = \"exclusive\"\n", "must say who may write"),
            ("[shares.a]\npath = \"/a\"\nwrite = [\"b\"]\n", "read-only share"),
            ("[shares.\"a b\"]\npath = \"/a\"\n", "is no name"),
            ("[shares.a]\npath = \"/a\"\nread = [\"b/1\"]\n", "is no name"),
            ("[serve]\nagents = \"0.0.0.0:7463\"\n", "certificates"),
            ("[shares.a]\npth = \"/a\"\n", "did you mean `path`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted) && error.contains("test.toml:"), "{error}");
        }
    }
}
