// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/midplane/smbus-monitor.toml`: what is read, what is too much, and what is done then.

mod raw;
mod tables;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon_kit::config::{self, ConfigError, HumanDuration, Loaded, Source, Spanned};

use crate::core::rules::{MAX_RULES, Rule, Severity};
use crate::pattern::Pattern;
use crate::shell::identity::{DMI, SMBIOS};
use crate::sources::smbus::{Bus, Device};
pub use raw::Raw;
use raw::RawSmbus;
pub use tables::parse_mac;
use tables::{action, bus, device, power, rule};

/// Where the configuration is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/midplane/smbus-monitor.toml";
/// What must outlive a restart.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/midplane/smbus-monitor";
/// Where the control socket is.
pub const DEFAULT_RUNTIME_DIR: &str = "/run/midplane/smbus-monitor";
/// Where the group's members connect, over TCP and UDP.
pub const DEFAULT_PORT: u16 = 7460;
/// Most chips of the configuration.
pub const MAX_DEVICES: usize = 128;
/// Most actions.
pub const MAX_ACTIONS: usize = 32;
/// Most slots with a way to power them.
pub const MAX_POWER: usize = 128;
/// Shortest interval of a source.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// The configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// What is read.
    pub sources: Sources,
    /// Chips without a driver.
    pub devices: Vec<Device>,
    /// Limits.
    pub rules: Vec<Rule>,
    /// What is done about alerts.
    pub actions: Vec<Action>,
    /// Who this machine is, and where that is read.
    pub identity: IdentityConfig,
    /// The group; none if this machine is to stand alone.
    pub group: Option<GroupConfig>,
    /// Ways to power slots.
    pub power: Vec<Power>,
    /// HTTP that can be read by all who reach it.
    pub listen: Vec<SocketAddr>,
    /// What must outlive a restart.
    pub state_dir: PathBuf,
    /// Where the control socket is.
    pub runtime_dir: PathBuf,
}

/// Which sources there are, and how often they are read.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Processors, memory, disks, network; none: not.
    pub system: Option<Duration>,
    /// Each processor by itself.
    pub per_cpu: bool,
    /// File systems.
    pub filesystems: Option<Duration>,
    /// Chips with a driver.
    pub hwmon: Option<Duration>,
    /// A BMC's sensors.
    pub ipmi: Option<Duration>,
    /// By this node; else the first that is there.
    pub ipmi_device: Option<PathBuf>,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// Its name.
    pub name: String,
    /// From which severity on.
    pub on: Severity,
    /// For which metrics.
    pub metric: Pattern,
    /// For which places.
    pub place: Pattern,
    /// How.
    pub how: How,
    /// Most times in `per`.
    pub limit: u32,
    /// See `limit`.
    pub per: Duration,
}

/// How something is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// A program with its arguments; the event comes as JSON on its standard input, and in its environment.
    Command(Vec<String>),
    /// The event is posted as JSON there.
    Webhook(Url),
    /// A line for syslog: a Unix socket, or a host and port over UDP.
    Syslog(Syslog),
}

/// Debian's authorities.
pub const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A place on the web.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// `HOST:PORT`.
    pub host: String,
    /// What follows it, with `/`.
    pub path: String,
    /// For `https`: the file of the authorities whose certificates are good.
    pub authorities: Option<PathBuf>,
}

/// Where syslog is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Syslog {
    /// A Unix socket.
    Unix(PathBuf),
    /// A host and port.
    Udp(String),
}

/// Who this machine is.
#[derive(Debug, Clone, Default)]
pub struct IdentityConfig {
    /// As configured; it goes before what is read.
    pub chassis: Option<String>,
    /// See `chassis`.
    pub slot: Option<String>,
    /// See `chassis`.
    pub module: Option<String>,
    /// See `chassis`.
    pub serial: Option<String>,
    /// A file with a FRU inventory, such as the one which the `at24` driver makes.
    pub eeprom: Option<PathBuf>,
    /// An EEPROM without a driver.
    pub eeprom_at: Option<(Bus, u16)>,
    /// The folder of DMI texts; none: not looked at.
    pub dmi: Option<PathBuf>,
    /// The SMBIOS table.
    pub smbios: Option<PathBuf>,
    /// The BMC's inventory.
    pub ipmi: bool,
}

/// How this machine is in its group.
#[derive(Debug, Clone)]
pub struct GroupConfig {
    /// The group's list.
    pub list: PathBuf,
    /// The port of all members, over TCP and UDP.
    pub port: u16,
    /// The root below which the keys are.
    pub root: Option<PathBuf>,
    /// Whether this member can be the manager.
    pub leads: bool,
    /// Which metrics the others get.
    pub replicate: Vec<Pattern>,
    /// And of those, which not.
    pub keep: Vec<Pattern>,
    /// How often values go out at most.
    pub interval: Duration,
}

/// A way to power a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Power {
    /// The slot, or a member's name.
    pub place: String,
    /// How.
    pub how: PowerHow,
}

/// How a slot is powered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PowerHow {
    /// A program, with `{place}` and `{action}` in its arguments.
    Command(Vec<String>),
    /// A packet that wakes the machine at this MAC address: it can switch on and nothing else.
    WakeOnLan([u8; 6], SocketAddr),
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

    /// Where the control socket is.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.runtime_dir.join("control.sock")
    }

    fn check(loaded: Loaded<Raw>) -> Result<Self, ConfigError> {
        let Loaded { value: raw, source } = loaded;
        let sources = sources(&raw.sources, &source)?;
        let mut names = BTreeSet::new();
        let mut unique = |name: &Spanned<String>, what: &str| {
            check_name(name, &source)?;
            if names.insert(format!("{what} {}", name.get_ref())) {
                return Ok(());
            }
            Err(source.error_at(name.span(), format!("two {what}s have this name"), "rename one"))
        };
        let mut addresses = BTreeSet::new();
        for device in &raw.smbus {
            unique(&device.name, "chip")?;
            // A part with several outputs has a page for each.
            if !addresses.insert((&device.bus, *device.address.get_ref(), device.page)) {
                let what = "two chips have this address of the same bus";
                return Err(source.error_at(device.address.span(), what, "remove one"));
            }
        }
        for rule in &raw.threshold {
            unique(&rule.name, "threshold")?;
        }
        for action in &raw.action {
            unique(&action.name, "action")?;
        }
        for (len, most, key) in [
            (raw.smbus.len(), MAX_DEVICES, "smbus"),
            (raw.threshold.len(), MAX_RULES, "threshold"),
            (raw.action.len(), MAX_ACTIONS, "action"),
            (raw.power.len(), MAX_POWER, "power"),
        ] {
            if len > most {
                return Err(ConfigError::invalid(source.path(), key, format!("more than {most}")));
            }
        }
        for address in &raw.listen {
            if !address.get_ref().ip().is_loopback() && !raw.insecure {
                let what = "beyond loopback everybody who reaches it can read everything";
                return Err(source.error_at(
                    address.span(),
                    what,
                    "add `insecure = true` if that is meant",
                ));
            }
        }
        let default = HumanDuration::from_millis(1_000);
        let chip = |one: RawSmbus| device(one, sources.hwmon.unwrap_or(default.get()), &source);
        let identity = raw.identity;
        let bus = identity.eeprom_bus.map(bus);
        let eeprom_at = bus.zip(identity.eeprom_address);
        let dmi = identity.dmi.unwrap_or(true);
        let group = raw.group;
        Ok(Self {
            devices: raw.smbus.into_iter().map(chip).collect::<Result<_, _>>()?,
            rules: raw.threshold.into_iter().map(|r| rule(r, &source)).collect::<Result<_, _>>()?,
            actions: raw
                .action
                .into_iter()
                .map(|a| action(a, &source))
                .collect::<Result<_, _>>()?,
            power: raw.power.into_iter().map(|p| power(p, &source)).collect::<Result<_, _>>()?,
            identity: IdentityConfig {
                chassis: identity.chassis,
                slot: identity.slot,
                module: identity.module,
                serial: identity.serial,
                eeprom: identity.eeprom,
                eeprom_at,
                dmi: dmi.then(|| identity.dmi_folder.unwrap_or_else(|| DMI.into())),
                smbios: dmi.then(|| identity.smbios.unwrap_or_else(|| SMBIOS.into())),
                ipmi: identity.ipmi.unwrap_or(true),
            },
            group: group.enabled.unwrap_or(true).then(|| GroupConfig {
                list: group.list.unwrap_or_else(|| group::list::PATH.into()),
                port: group.port.unwrap_or(DEFAULT_PORT),
                root: group.root,
                leads: group.leads.unwrap_or(true),
                replicate: group.replicate.unwrap_or_else(|| vec![Pattern::any()]),
                keep: group.keep,
                interval: group.interval.map_or(Duration::from_secs(1), HumanDuration::get),
            }),
            listen: raw.listen.into_iter().map(Spanned::into_inner).collect(),
            sources,
            state_dir: raw.state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
            runtime_dir: raw.runtime_dir.unwrap_or_else(|| DEFAULT_RUNTIME_DIR.into()),
        })
    }
}

fn check_name(name: &Spanned<String>, source: &Source) -> Result<(), ConfigError> {
    let text = name.get_ref();
    let fits = (1..=48).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if fits {
        return Ok(());
    }
    let what = "a name has 1 to 48 letters, digits, `-`, `_` and `.`";
    Err(source.error_at(name.span(), what, "choose another"))
}

fn interval(
    value: Option<&Spanned<HumanDuration>>,
    default: u64,
    source: &Source,
) -> Result<Duration, ConfigError> {
    let Some(value) = value else { return Ok(Duration::from_millis(default)) };
    let interval = value.get_ref().get();
    if interval < MIN_INTERVAL {
        return Err(source.error_at(value.span(), "shorter than 100ms", "make it longer"));
    }
    Ok(interval)
}

fn sources(raw: &raw::RawSources, source: &Source) -> Result<Sources, ConfigError> {
    let every = interval(raw.interval.as_ref(), 1_000, source)?;
    let filesystems = interval(raw.filesystem_interval.as_ref(), 10_000, source)?;
    let ipmi = interval(raw.ipmi_interval.as_ref(), 10_000, source)?;
    let on = |is: Option<bool>, every: Duration| is.unwrap_or(true).then_some(every);
    Ok(Sources {
        system: on(raw.system, every),
        per_cpu: raw.per_cpu,
        filesystems: on(raw.filesystems, filesystems),
        hwmon: on(raw.hwmon, every),
        ipmi: on(raw.ipmi, ipmi),
        ipmi_device: raw.ipmi_device.clone(),
    })
}

#[cfg(test)]
mod tests;
