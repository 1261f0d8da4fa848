// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/midplane/device-manager.toml`: the same file for all parts on a machine.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use daemon_kit::config::{self, ConfigError, HumanDuration};
use group::core::Replication;
use serde::Deserialize;

use crate::pattern::Pattern;
use crate::policy::{MAX_RULES, Policy, Rule, Verdict};
use crate::record::{MAX_TEXT, Machine};
use crate::unit::inventory::Offer;

/// Where it is.
pub const PATH: &str = "/etc/midplane/device-manager.toml";
/// Shortest and longest time after which a lease that is not renewed ends.
const TTL: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));
/// Most BMCs of one machine.
const MAX_BMCS: usize = 16;
/// Longest time for which a device stays reserved for who lost it.
const MAX_QUARANTINE: Duration = Duration::from_secs(600);

/// The file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    manager: RawManager,
    unit: RawUnit,
    rule: Vec<RawRule>,
}

/// Of the manager.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawManager {
    replication: RawReplication,
    port: u16,
    units_port: u16,
}

impl Default for RawManager {
    fn default() -> Self {
        Self { replication: RawReplication::All, port: 7461, units_port: 7464 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawReplication {
    All,
    Own,
}

/// Of the unit.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawUnit {
    managers: Vec<Machine>,
    addresses: Vec<std::net::IpAddr>,
    port: u16,
    ttl: HumanDuration,
    quarantine: HumanDuration,
    insecure: bool,
    offer: Vec<Pattern>,
    never: Vec<Pattern>,
    named: Vec<Pattern>,
    setup: Vec<Pattern>,
    bmcs: Vec<PathBuf>,
}

impl Default for RawUnit {
    fn default() -> Self {
        Self {
            managers: vec![],
            addresses: vec![],
            port: 7462,
            ttl: HumanDuration::from_millis(30_000),
            quarantine: HumanDuration::from_millis(0),
            insecure: false,
            offer: vec![],
            never: vec![],
            named: vec![],
            setup: vec![],
            bmcs: vec![],
        }
    }
}

/// A rule of the policy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRule {
    devices: Option<Pattern>,
    #[serde(default)]
    machines: Vec<Machine>,
    #[serde(default)]
    users: Vec<u32>,
    #[serde(default)]
    groups: Vec<String>,
    verdict: Verdict,
    limit: Option<HumanDuration>,
    #[serde(default)]
    read_only: bool,
    #[serde(default = "yes")]
    queue: bool,
    reason: Option<String>,
}

fn yes() -> bool {
    true
}

/// What it says.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose lists a manager holds.
    pub replication: Replication,
    /// Of managers among one another, over TCP and UDP.
    pub port: u16,
    /// Where units come to managers.
    pub units_port: u16,
    /// Those that a unit prefers, the best first; all others after them.
    pub managers: Vec<Machine>,
    /// Where holders reach a unit; all of its addresses in the group's list if there are none.
    pub addresses: Vec<std::net::IpAddr>,
    /// Where holders come to units.
    pub leases_port: u16,
    /// A lease that is not renewed for so long ends.
    pub ttl: Duration,
    /// How long a device stays reserved for who lost it.
    pub quarantine: Duration,
    /// Whether data are carried in clear.
    pub insecure: bool,
    /// Which devices a unit offers.
    pub offer: Offer,
    /// Who may have what.
    pub policy: Policy,
}

impl Config {
    /// Reads it; what is not there is as usual.
    ///
    /// # Errors
    /// What is wrong in it.
    pub fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        let raw = config::load_or_default::<Raw>(named, Path::new(PATH))?;
        let path: PathBuf = raw.source.path().to_owned();
        Self::check(raw.value).map_err(|(key, what)| ConfigError::invalid(&path, key, what))
    }

    fn check(raw: Raw) -> Result<Self, (&'static str, String)> {
        let Raw { manager, unit, rule } = raw;
        let (ttl, quarantine) = (unit.ttl.get(), unit.quarantine.get());
        if !(TTL.0..=TTL.1).contains(&ttl) {
            return Err(("ttl", "it is from 5s to 1h".to_owned()));
        }
        if quarantine > MAX_QUARANTINE {
            return Err(("quarantine", "it is at most 10m".to_owned()));
        }
        if rule.len() > MAX_RULES {
            return Err(("rule", format!("there are at most {MAX_RULES}")));
        }
        let vague = unit.named.iter().find(|pattern| !pattern.names());
        if let Some(pattern) = vague {
            let what = format!(
                "`{pattern}` names no device; say what it is, such as `type=keyboard vendor=046d`"
            );
            return Err(("named", what));
        }
        if unit.bmcs.len() > MAX_BMCS {
            return Err(("bmcs", format!("there are at most {MAX_BMCS}")));
        }
        if let Some(node) = unit.bmcs.iter().find(|node| !is_node(node)) {
            let what = format!("`{}` is no node; write such as /dev/ipmi/1", node.display());
            return Err(("bmcs", what));
        }
        let rules = rule.into_iter().map(|rule| {
            let limit_s =
                rule.limit.map(|limit| u32::try_from(limit.get().as_secs()).unwrap_or(u32::MAX));
            let RawRule {
                devices, machines, users, groups, verdict, read_only, queue, reason, ..
            } = rule;
            Rule { devices, machines, users, groups, verdict, limit_s, read_only, queue, reason }
        });
        Ok(Self {
            replication: match manager.replication {
                RawReplication::All => Replication::All,
                RawReplication::Own => Replication::Own,
            },
            port: manager.port,
            units_port: manager.units_port,
            managers: unit.managers,
            addresses: unit.addresses,
            leases_port: unit.port,
            ttl,
            quarantine,
            insecure: unit.insecure,
            offer: Offer {
                offer: unit.offer,
                never: unit.never,
                named: unit.named,
                setup: unit.setup,
                bmcs: unit.bmcs,
            },
            policy: Policy { rules: rules.collect() },
        })
    }
}

/// Something below `/dev`, and nowhere else, short enough to be told.
fn is_node(path: &Path) -> bool {
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    let short = path.to_str().is_some_and(|text| text.len() < MAX_TEXT / 2);
    short && path.starts_with("/dev") && path != Path::new("/dev") && path.components().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(Some(file.path())).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_as_usual_and_the_shipped_one_says_so() {
        let (empty, shipped) =
            (load("").unwrap(), load(include_str!("../device-manager.toml")).unwrap());
        assert_eq!(format!("{empty:?}"), format!("{shipped:?}"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (text, complaint) in [
            ("[unit]\nttl = '1s'", "from 5s to 1h"),
            ("[unit]\nnamed = ['']", "names no device"),
            ("[unit]\noffer = ['tpye=x']", "is no key"),
            ("[unit]\nmangers = []", "did you mean `managers`"),
            ("[unit]\nbmcs = ['ipmi0']", "is no node"),
            ("[unit]\nbmcs = ['/dev/../etc/x']", "is no node"),
            ("[unit]\nbmcs = ['/dev']", "is no node"),
            ("[[rule]]\n", "verdict"),
            ("[manager]\nreplication = 'some'", "unknown value"),
        ] {
            let error = load(text).unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
        let rules = load("[[rule]]\nverdict = 'deny'\nmachines = ['a']\nlimit = '2m'")
            .unwrap()
            .policy
            .rules;
        assert_eq!(
            (rules[0].verdict, rules[0].limit_s, rules[0].queue),
            (Verdict::Deny, Some(120), true)
        );
    }
}
