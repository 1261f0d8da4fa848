// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/midplane/ipmi-mux.toml`: what it may say, its defaults, and what is checked beyond its shape.

mod policies;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use daemon_kit::config::{self, ConfigError, HumanDuration, Loaded, Mode, Spanned};
use ipmi::CompletionCode;
use serde::Deserialize;

use crate::policy::Policy;
use crate::takeover;
use policies::{Policies, RawPolicy};

/// Where the configuration is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/midplane/ipmi-mux.toml";
/// Where the daemon keeps its socket and what must outlive a restart.
pub const DEFAULT_RUNTIME_DIR: &str = "/run/midplane/ipmi-mux";
/// Nodes one daemon serves. Each has a descriptor; systemd gives a service 524,288 of them.
pub const MAX_NODES: usize = 1024;
/// BMCs look at their sensors about once a second.
pub const MAX_SENSOR_AGE: Duration = Duration::from_secs(1);
/// Longest node name, bytes.
const MAX_NAME: usize = 64;
/// Who owns a node that does not say.
const DEFAULT_OWNER: &str = "root";
const DEFAULT_GROUP: &str = "midplane";
const DEFAULT_MODE: Mode = Mode::new(0o660);

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    #[serde(default)]
    bmc: RawBmc,
    #[serde(default)]
    policies: BTreeMap<String, Spanned<RawPolicy>>,
    #[serde(default = "default_nodes")]
    nodes: Spanned<Vec<RawNode>>,
    metrics_listen: Option<SocketAddr>,
    runtime_dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBmc {
    device: Option<Spanned<PathBuf>>,
    vm: Option<Spanned<String>>,
    take_over: Option<Spanned<bool>>,
    deadline: Option<Spanned<HumanDuration>>,
    long_deadline: Option<Spanned<HumanDuration>>,
    sensor_age: Option<Spanned<HumanDuration>>,
    reserved_code: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNode {
    name: Spanned<String>,
    owner: Option<Spanned<String>>,
    group: Option<Spanned<String>>,
    mode: Option<Mode>,
    policy: Option<Spanned<String>>,
    #[serde(default)]
    class: Class,
    #[serde(default)]
    reserve: Vec<Spanned<String>>,
}

fn default_nodes() -> Spanned<Vec<RawNode>> {
    let node = RawNode {
        name: Spanned::new(0..0, "ipmi/1..8".to_owned()),
        owner: None,
        group: None,
        mode: None,
        policy: None,
        class: Class::Normal,
        reserve: vec![],
    };
    Spanned::new(0..0, vec![node])
}

/// Whose requests go first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// In turn with the others of this class.
    #[default]
    Normal,
    /// Behind those of the other class.
    Background,
}

/// Where the BMC is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BmcAddress {
    /// A node of the kernel's driver.
    Device(PathBuf),
    /// A simulator that speaks the VM serial protocol, over TCP.
    Tcp(String),
    /// The same over a Unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for BmcAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One device node to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSpec {
    /// Name under `/dev`, such as `ipmi/1`.
    pub name: String,
    /// Owning user, by name.
    pub owner: String,
    /// Owning group, by name.
    pub group: String,
    /// Permission bits.
    pub mode: Mode,
    /// What its handles may send.
    pub policy: Arc<Policy>,
    /// Whether its requests go behind those of others.
    pub class: Class,
    /// Commands that only its handles may send: network function (even, up to 0x3e) and command.
    /// No two nodes have the same.
    pub reserve: Vec<(u8, u8)>,
}

/// The configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the BMC is.
    pub bmc: BmcAddress,
    /// Number N of the kernel's node `/dev/ipmiN` whose name is taken over.
    pub take_over: Option<u32>,
    /// From a send to its answer.
    pub deadline: Duration,
    /// The same for commands that take long.
    pub long_deadline: Duration,
    /// How old a sensor's reading may be when another client gets it too, at most [`MAX_SENSOR_AGE`].
    pub sensor_age: Duration,
    /// How a command is answered that is reserved for others.
    pub reserved_code: CompletionCode,
    /// The nodes in order; 1 to [`MAX_NODES`].
    pub nodes: Vec<NodeSpec>,
    /// Where Prometheus may ask over TCP.
    pub metrics_listen: Option<SocketAddr>,
    /// Directory of the control socket and of what outlives a restart.
    pub runtime_dir: PathBuf,
}

impl Config {
    /// Reads the named file, or the default one, which may be missing.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and remedy.
    pub fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        Self::check(config::load_or_default(named, Path::new(DEFAULT_PATH))?)
    }

    /// As [`Config::load`], from text; `path` is for messages.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and remedy.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::check(config::parse(text, path)?)
    }

    fn check(loaded: Loaded<Raw>) -> Result<Self, ConfigError> {
        let Loaded { value: raw, source } = &loaded;
        let deadline = duration(&loaded, raw.bmc.deadline.as_ref(), Duration::from_secs(5))?;
        let long = duration(&loaded, raw.bmc.long_deadline.as_ref(), Duration::from_secs(60))?;
        if long < deadline {
            let span = raw.bmc.long_deadline.as_ref().or(raw.bmc.deadline.as_ref());
            return Err(source.error_at(
                span.map_or(0..0, Spanned::span),
                "`long_deadline` is shorter than `deadline`",
                "make it at least as long",
            ));
        }
        let bmc = bmc_address(&loaded)?;
        let take_over = take_over(&loaded, &bmc)?;
        Ok(Self {
            bmc,
            take_over,
            deadline,
            long_deadline: long,
            sensor_age: sensor_age(&loaded)?,
            reserved_code: reserved_code(&loaded)?,
            nodes: nodes(&loaded, take_over)?,
            metrics_listen: raw.metrics_listen,
            runtime_dir: raw.runtime_dir.clone().unwrap_or_else(|| DEFAULT_RUNTIME_DIR.into()),
        })
    }

    /// Where the kernel's node is while its name is taken over.
    #[must_use]
    pub fn hardware(&self) -> Option<PathBuf> {
        self.take_over.map(takeover::hardware_path)
    }

    /// The socket of the control interface.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.runtime_dir.join("control.sock")
    }
}

/// Shorter than any BMC answers, and longer than anyone waits.
const DEADLINES: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(600);

fn duration(
    loaded: &Loaded<Raw>,
    given: Option<&Spanned<HumanDuration>>,
    default: Duration,
) -> Result<Duration, ConfigError> {
    let Some(given) = given else { return Ok(default) };
    let value = given.get_ref().get();
    if DEADLINES.contains(&value) {
        return Ok(value);
    }
    let message = format!("{} is no useful deadline", given.get_ref());
    Err(loaded.error_at(given.span(), message, "choose one from 100ms to 10m"))
}

fn sensor_age(loaded: &Loaded<Raw>) -> Result<Duration, ConfigError> {
    let Some(given) = &loaded.value.bmc.sensor_age else { return Ok(MAX_SENSOR_AGE) };
    let value = given.get_ref().get();
    if value <= MAX_SENSOR_AGE {
        return Ok(value);
    }
    let message = format!("a reading {} old is not one of now", given.get_ref());
    Err(loaded.error_at(given.span(), message, "choose one up to 1s, or 0s to ask each time"))
}

fn reserved_code(loaded: &Loaded<Raw>) -> Result<CompletionCode, ConfigError> {
    let Some(given) = &loaded.value.bmc.reserved_code else {
        return Ok(CompletionCode::INSUFFICIENT_PRIVILEGE);
    };
    let text = given.get_ref();
    let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_hexdigit());
    match u8::from_str_radix(text, 16) {
        // 00 would be success.
        Ok(code @ 1..) if digits => Ok(CompletionCode(code)),
        _ => {
            let message = format!("`{text}` is no completion code of an error");
            let remedy = "write two hexadecimal digits, such as d4, c0 or c1";
            Err(loaded.error_at(given.span(), message, remedy))
        }
    }
}

fn bmc_address(loaded: &Loaded<Raw>) -> Result<BmcAddress, ConfigError> {
    let RawBmc { device, vm, .. } = &loaded.value.bmc;
    match (device, vm) {
        (None, None) => Ok(BmcAddress::Device("/dev/ipmi0".into())),
        (Some(device), None) => Ok(BmcAddress::Device(device.get_ref().clone())),
        (None, Some(vm)) => parse_vm(vm.get_ref()).ok_or_else(|| {
            let message = format!("`{}` is no address", vm.get_ref());
            loaded.error_at(vm.span(), message, "write tcp:HOST:PORT or unix:/PATH")
        }),
        (Some(_), Some(vm)) => Err(loaded.error_at(
            vm.span(),
            "a BMC is reached by `device` or by `vm`, not by both",
            "remove one of them",
        )),
    }
}

fn parse_vm(text: &str) -> Option<BmcAddress> {
    match text.split_once(':')? {
        ("unix", path) if path.starts_with('/') => Some(BmcAddress::Unix(path.into())),
        ("tcp", address) => {
            let (host, port) = address.rsplit_once(':')?;
            let valid = !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0);
            valid.then(|| BmcAddress::Tcp(address.to_owned()))
        }
        _ => None,
    }
}

/// The number of the kernel's node where its name is to be taken over.
fn take_over(loaded: &Loaded<Raw>, bmc: &BmcAddress) -> Result<Option<u32>, ConfigError> {
    let Some(given) = loaded.value.bmc.take_over.as_ref().filter(|t| *t.get_ref()) else {
        return Ok(None);
    };
    let number = match bmc {
        BmcAddress::Device(path) => kernel_number(path),
        _ => None,
    };
    number.map(Some).ok_or_else(|| {
        let message = format!("{bmc} has no name of the kernel's to take over");
        loaded.error_at(given.span(), message, "it goes with a `device` such as /dev/ipmi0 only")
    })
}

/// N of `/dev/ipmiN`, as the kernel writes it.
fn kernel_number(path: &Path) -> Option<u32> {
    let number = path.to_str()?.strip_prefix("/dev/ipmi")?.parse().ok()?;
    (path == Path::new(&format!("/dev/ipmi{number}"))).then_some(number)
}

fn nodes(loaded: &Loaded<Raw>, take_over: Option<u32>) -> Result<Vec<NodeSpec>, ConfigError> {
    let list = &loaded.value.nodes;
    let policies = Policies::read(loaded)?;
    let mut specs: Vec<NodeSpec> = vec![];
    for raw in list.get_ref() {
        let span = raw.name.span();
        let owner = account(loaded, raw.owner.as_ref(), DEFAULT_OWNER)?;
        let group = account(loaded, raw.group.as_ref(), DEFAULT_GROUP)?;
        let policy = policies.of_node(raw.policy.as_ref())?;
        let fail = |message: String, remedy| loaded.error_at(span.clone(), message, remedy);
        let names = expand(raw.name.get_ref()).map_err(|why| {
            let remedy = "write a name below /dev such as ipmi/1, or a range such as ipmi/1..8";
            fail(format!("`{}` is no node name: {why}", raw.name.get_ref()), remedy)
        })?;
        for name in names {
            if specs.iter().any(|s| s.name == name) {
                return Err(fail(format!("node `{name}` is named twice"), "remove one of them"));
            }
            if specs.len() == MAX_NODES {
                let message = format!("more than {MAX_NODES} nodes");
                return Err(fail(message, "any number of programs can open one node"));
            }
            specs.push(NodeSpec {
                name,
                owner: owner.clone(),
                group: group.clone(),
                mode: raw.mode.unwrap_or(DEFAULT_MODE),
                policy: Arc::clone(&policy),
                class: raw.class,
                reserve: policies::reserved(loaded, &raw.reserve, &specs)?,
            });
        }
    }
    let taken_over = take_over.map(|number| format!("ipmi{number}"));
    if let Some(name) = taken_over.filter(|name| !specs.iter().any(|s| s.name == *name)) {
        if specs.len() == MAX_NODES {
            let message = format!("more than {MAX_NODES} nodes, with the one that is taken over");
            return Err(loaded.error_at(list.span(), message, "remove one of them"));
        }
        let (owner, group) = (DEFAULT_OWNER.to_owned(), DEFAULT_GROUP.to_owned());
        specs.push(NodeSpec {
            name,
            owner,
            group,
            mode: DEFAULT_MODE,
            policy: Arc::new(Policy::full()),
            class: Class::Normal,
            reserve: vec![],
        });
    }
    if specs.is_empty() {
        return Err(loaded.error_at(
            list.span(),
            "there is no node to serve",
            "leave `nodes` out for /dev/ipmi/1 to 8",
        ));
    }
    Ok(specs)
}

/// The name of a user or group, as useradd(8) allows them: it goes into udev's properties.
fn account(
    loaded: &Loaded<Raw>,
    given: Option<&Spanned<String>>,
    default: &str,
) -> Result<String, ConfigError> {
    let Some(given) = given else { return Ok(default.to_owned()) };
    let name = given.get_ref();
    let valid = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if (1..=32).contains(&name.len()) && name.chars().all(valid) {
        return Ok(name.clone());
    }
    let message = format!("`{name}` is no name of a user or group");
    Err(loaded.error_at(given.span(), message, "write it as in /etc/passwd or /etc/group"))
}

/// `ipmi/1..3` is `ipmi/1`, `ipmi/2`, `ipmi/3`.
fn expand(text: &str) -> Result<Vec<String>, String> {
    let Some((first, last)) = text.split_once("..") else {
        return check_name(text).map(|()| vec![text.to_owned()]);
    };
    let digits = first.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (stem, first) = first.split_at(first.len() - digits);
    let range = first.parse::<u32>().ok().zip(last.parse::<u32>().ok());
    let Some((first, last)) = range.filter(|(first, last)| first <= last) else {
        return Err("a range is two whole numbers, the smaller first".to_owned());
    };
    if (last - first) as usize >= MAX_NODES {
        return Err(format!("the range has more than {MAX_NODES} nodes"));
    }
    let names: Vec<String> = (first..=last).map(|n| format!("{stem}{n}")).collect();
    // They differ in their numbers alone, so the last is the longest.
    check_name(&names[names.len() - 1])?;
    Ok(names)
}

fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.:".contains(c);
    let part = |p: &str| !p.is_empty() && !p.starts_with('.') && p.chars().all(plain);
    if name.len() > MAX_NAME {
        return Err(format!("it is longer than {MAX_NAME} bytes"));
    }
    if !name.split('/').all(part) {
        return Err("it has letters, digits, _ - . : and single slashes only".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("ipmi-mux.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn the_shipped_default_is_what_an_empty_file_means() {
        let shipped = parse(include_str!("../ipmi-mux.toml")).unwrap();
        assert_eq!(format!("{shipped:?}"), format!("{:?}", parse("").unwrap()));
        assert_eq!(shipped.nodes.len(), 8);
        assert_eq!(shipped.bmc, BmcAddress::Device("/dev/ipmi0".into()));
    }

    /// Every line that the shipped file comments out must be valid too, or it misleads.
    #[test]
    fn what_the_shipped_default_comments_out_is_valid() {
        let text = include_str!("../ipmi-mux.toml");
        let enabled: Vec<&str> = text
            .lines()
            .map(|l| l.strip_prefix("#").filter(|l| !l.starts_with([' ', '#'])).unwrap_or(l))
            .filter(|l| !l.starts_with("vm ="))
            .collect();
        assert!(enabled.len() > 10);
        parse(&enabled.join("\n")).unwrap();
    }

    #[test]
    fn a_range_is_its_members() {
        let config = parse("[[nodes]]\nname = \"ipmi/9..11\"\nmode = \"0600\"").unwrap();
        let names: Vec<_> = config.nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["ipmi/9", "ipmi/10", "ipmi/11"]);
        assert_eq!(config.nodes[2].mode, Mode::new(0o600));
    }

    #[test]
    fn take_over_serves_the_kernels_name_too() {
        let config = parse("[bmc]\ntake_over = true").unwrap();
        assert_eq!((config.take_over, config.nodes.len()), (Some(0), 9));
        let last = &config.nodes[8];
        assert_eq!(
            (&last.name[..], &last.group[..], last.mode.bits()),
            ("ipmi0", "midplane", 0o660)
        );
        let text = "[bmc]\ndevice = \"/dev/ipmi12\"\ntake_over = true\n\
            [[nodes]]\nname = \"ipmi12\"\nmode = \"0600\"";
        let config = parse(text).unwrap();
        assert_eq!((config.take_over, config.nodes.len()), (Some(12), 1));
        assert_eq!(config.nodes[0].mode, Mode::new(0o600));
        assert_eq!(config.hardware(), Some("/dev/ipmi-hw/12".into()));
        assert_eq!(parse("[bmc]\ntake_over = false").unwrap().take_over, None);
    }

    #[test]
    fn mistakes_name_file_line_and_remedy() {
        for (text, wanted) in [
            ("[bmc]\ndevise = \"/dev/ipmi0\"", "ipmi-mux.toml:2:1: unknown key `devise`"),
            ("\n[[nodes]]\nname = \"../sda\"", "ipmi-mux.toml:3:8: `../sda` is no node name"),
            ("[[nodes]]\nname = \"ipmi/8..1\"", "two whole numbers, the smaller first"),
            ("[[nodes]]\nname = \"a\"\n[[nodes]]\nname = \"a\"", ":4:8: node `a` is named twice"),
            ("nodes = []", ":1:9: there is no node to serve"),
            ("[bmc]\nvm = \"9002\"", ":2:6: `9002` is no address; write tcp:HOST:PORT"),
            ("[bmc]\ndevice = \"/x\"\nvm = \"tcp:h:1\"", ":3:6: a BMC is reached by"),
            ("[[nodes]]\nname = \"a\"\ngroup = \"a\\nb\"", ":3:9: `a\\nb` is no name of a user"),
            ("[bmc]\ndeadline = \"1ms\"", ":2:12: 1ms is no useful deadline"),
            ("[bmc]\ndeadline = \"2m\"", "`long_deadline` is shorter than `deadline`"),
            ("[bmc]\ndeadline = 5", ":2:12:"),
            ("[bmc]\nreserved_code = \"00\"", ":2:17: `00` is no completion code of an error"),
            ("[bmc]\nsensor_age = \"2s\"", ":2:14: a reading 2s old is not one of now"),
            ("[[nodes]]\nname = \"ipmi/1..9999\"", "more than 1024 nodes"),
            ("[bmc]\ndevice = \"/dev/ipmi/1\"\ntake_over = true", ":3:13: /dev/ipmi/1 has no name"),
            ("[bmc]\ndevice = \"/dev/ipmi01\"\ntake_over = true", ":3:13: /dev/ipmi01 has no name"),
            ("[bmc]\nvm = \"tcp:h:1\"\ntake_over = true", ":3:13: tcp:h:1 has no name"),
            ("[bmc]\ntake_over = true\n[[nodes]]\nname = \"a1..1024\"", "with the one that is"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted), "{text:?} gives {error:?}");
        }
    }
}
