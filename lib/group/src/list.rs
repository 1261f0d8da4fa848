// SPDX-License-Identifier: MIT OR Apache-2.0
//! `group.toml`: who belongs to the group, and where each is reached. The same file on every machine.
//!
//! ```toml
//! [[member]]
//! name = "blade1"
//! addresses = ["10.0.0.1", "blade1.data.example"]   # one for each network, the same order for all
//! leads = true     # false: it is never the manager, nor the settings' leader, such as a tenant's blade
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use daemon_kit::config::{self, ConfigError};
use secure_link::Name;
use serde::Deserialize;

use crate::core::MAX_NETWORKS;

/// Where it is.
pub const PATH: &str = "/etc/midplane/group.toml";
/// Most members of a group, as of `secure-link`'s roster.
pub const MAX_MEMBERS: usize = secure_link::roster::MAX_MEMBERS;

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// The members, in any order.
    #[serde(default)]
    pub member: Vec<Entry>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name, as `midplane key` knows it.
    #[serde(deserialize_with = "name")]
    pub name: Name,
    /// Addresses, or host names to be resolved: one for each network, 1 to [`MAX_NETWORKS`]. The first decides
    /// the order in which members become the manager.
    pub addresses: Vec<String>,
    /// Whether it may be the manager, and lead the settings' log. Not who gave its root to somebody else.
    #[serde(default = "yes")]
    pub leads: bool,
}

fn yes() -> bool {
    true
}

fn name<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Name, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

/// A member, and where it is reached: an address for each network, none where the name is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Its name.
    pub name: Name,
    /// Its addresses, one for each network.
    pub addresses: Vec<Option<IpAddr>>,
    /// See [`Entry::leads`].
    pub leads: bool,
}

impl List {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// It cannot be read, or says what cannot be.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let list = config::load::<Self>(path)?.value;
        list.check().map_err(|what| ConfigError::invalid(path, "member", what))?;
        Ok(list)
    }

    fn check(&self) -> Result<(), String> {
        if self.member.len() > MAX_MEMBERS {
            return Err(format!("a group has at most {MAX_MEMBERS} members"));
        }
        let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
        for Entry { name, addresses, .. } in &self.member {
            if !names.insert(name) {
                return Err(format!("{name} is there twice"));
            }
            if addresses.is_empty() || addresses.len() > MAX_NETWORKS {
                return Err(format!("{name} needs 1 to {MAX_NETWORKS} addresses"));
            }
            for address in addresses {
                if address.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified() || ip.is_multicast())
                {
                    return Err(format!("{address} is no address of a machine"));
                }
                if !places.insert(address) {
                    return Err(format!("{address} is there twice"));
                }
            }
        }
        Ok(())
    }

    /// Finds the addresses of host names.
    pub async fn resolve(&self) -> Vec<Resolved> {
        let mut all = vec![];
        for Entry { name, addresses, leads } in &self.member {
            let mut resolved = vec![];
            for address in addresses {
                resolved.push(match address.parse() {
                    Ok(ip) => Some(ip),
                    Err(_) => lookup(name, address).await,
                });
            }
            all.push(Resolved { name: name.clone(), addresses: resolved, leads: *leads });
        }
        all
    }
}

/// The lowest of a host's addresses, so that all members take the same.
async fn lookup(name: &Name, host: &str) -> Option<IpAddr> {
    match tokio::net::lookup_host((host, 0)).await {
        Ok(found) => found.map(|address| address.ip().to_canonical()).min(),
        Err(error) => {
            tracing::warn!(member = %name, host, %error, "the host's address is not known");
            None
        }
    }
}

/// The file that was read, and when it was written, to see when it is another.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    stamp: Option<(std::time::SystemTime, u64)>,
}

impl Watched {
    /// Nothing was read yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), stamp: None }
    }

    /// The list, if the file is another than the last time.
    ///
    /// # Errors
    /// As [`List::load`]; each state of the file is complained of once.
    pub fn changed(&mut self) -> Result<Option<List>, ConfigError> {
        let metadata = std::fs::metadata(&self.path).ok();
        let stamp = metadata.and_then(|data| Some((data.modified().ok()?, data.len())));
        if stamp.is_some() && stamp == self.stamp {
            return Ok(None);
        }
        let was_missing = self.stamp.is_none();
        self.stamp = stamp;
        match List::load(&self.path) {
            Err(_) if stamp.is_none() && !was_missing => Ok(None),
            read => read.map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<List, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("group.toml");
        std::fs::write(&path, text).unwrap();
        List::load(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn members_are_told_apart() {
        let two = "[[member]]\nname = 'a'\naddresses = ['10.0.0.1', 'a.example']\n\
                   [[member]]\nname = 'b'\naddresses = ['10.0.0.2']\n";
        assert_eq!(parse(two).unwrap().member.len(), 2);
        assert_eq!(parse("").unwrap(), List::default());
        for (text, complaint) in [
            (two.replace("'b'", "'a'"), "a is there twice"),
            (two.replace("0.2", "0.1"), "10.0.0.1 is there twice"),
            (two.replace("'10.0.0.2'", ""), "b needs 1 to 4 addresses"),
            (two.replace("10.0.0.2", "0.0.0.0"), "0.0.0.0 is no address"),
            (two.replace("'b'", "'b/c'"), "is no name"),
            (two.replace("addresses", "adresses"), "addresses"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
