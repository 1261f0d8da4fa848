// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/midplane/kvm-bus-rmm.toml`: the bus, how blades are chosen, and where consoles are offered.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use daemon_kit::config::{self, ConfigError, Loaded, Spanned};
use serde::Deserialize;

use super::{DEFAULT_BAUD, LineSettings, METRICS, listen, place};
use crate::core::hotkey::DEFAULT_KEYS;
use crate::core::layout::Layout;
use crate::core::rmm::By;
use crate::shell::stream::Place;
use crate::wire::Addr;

/// Where it is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/midplane/kvm-bus-rmm.toml";
/// Where its sockets are.
pub const DEFAULT_RUNTIME_DIR: &str = "/run/midplane/kvm-bus";
/// Where it keeps its epoch and where consoles stand.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/midplane/kvm-bus";
/// Where console logs are.
pub const DEFAULT_LOG_DIR: &str = "/var/log/midplane/kvm-bus";
/// Whose keys are let in by SSH.
pub const DEFAULT_KEYS_FILE: &str = "/etc/midplane/kvm-bus/authorized_keys";
/// Bytes of a console log until the next is begun, and how many are kept.
const LOG_SIZE: u64 = 1 << 20;
const LOGS_KEPT: u32 = 4;

/// The file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    #[serde(default)]
    number: u8,
    runtime_dir: Option<PathBuf>,
    metrics_listen: Option<Spanned<String>>,
    state_dir: Option<PathBuf>,
    #[serde(default)]
    bus: RawBus,
    #[serde(default)]
    control: RawControl,
    #[serde(default)]
    choose: RawChoose,
    #[serde(default)]
    console: RawConsole,
    #[serde(default)]
    ssh: RawSsh,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBus {
    near: Option<Spanned<String>>,
    far: Option<Spanned<String>>,
    baud: Option<u32>,
    #[serde(default)]
    rs485: bool,
    #[serde(default)]
    insecure: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawControl {
    line: Option<Spanned<String>>,
    baud: Option<u32>,
    #[serde(default)]
    rs485: bool,
    #[serde(default)]
    insecure: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChoose {
    by: Option<Spanned<By>>,
    keyboard: Option<PathBuf>,
    hot_keys: Option<Vec<u16>>,
    #[serde(default)]
    layout: Layout,
    modem_lines: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConsole {
    log_dir: Option<PathBuf>,
    log_size: Option<u64>,
    logs_kept: Option<u32>,
    telnet: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSsh {
    authorized_keys: Option<PathBuf>,
}

/// The configuration, checked.
#[derive(Debug)]
pub struct Config {
    /// The RMM's address.
    pub addr: Addr,
    /// Where the sockets are.
    pub runtime_dir: PathBuf,
    /// Where Prometheus finds its metrics, beside the control socket.
    pub metrics_listen: Option<SocketAddr>,
    /// Where the state is.
    pub state_dir: PathBuf,
    /// Near and far end of the bus.
    pub bus: [Option<Place>; 2],
    /// The control bus.
    pub control: Option<Place>,
    /// By which way choices are told.
    pub by: By,
    /// The operator's keyboard at this machine.
    pub keyboard: Option<PathBuf>,
    /// Its hot keys, by Linux key code.
    pub hot_keys: Vec<u16>,
    /// How blades' keyboards are set, for text that is typed.
    pub layout: Layout,
    /// A line whose DTR and RTS drive a multiplexor in hardware.
    pub modem_lines: Option<PathBuf>,
    /// Console logs.
    pub logs: Logs,
    /// Telnet: the port of slot 0.
    pub telnet: Option<SocketAddr>,
    /// Whose keys.
    pub authorized_keys: PathBuf,
}

/// Where consoles are logged.
#[derive(Debug, Clone)]
pub struct Logs {
    /// The folder.
    pub dir: PathBuf,
    /// Bytes of one file.
    pub size: u64,
    /// Files of a blade, beside the one being written.
    pub kept: u32,
}

impl Config {
    /// Reads a file, or the default one.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and remedy.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        Self::check(config::load(path.unwrap_or(Path::new(DEFAULT_PATH)))?)
    }

    /// The same from text; `path` is for messages.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line and remedy.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::check(config::parse(text, path)?)
    }

    /// Where the daemon is asked.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.runtime_dir.join("control.sock")
    }

    /// Where consoles and screens are attached to.
    #[must_use]
    pub fn console_socket(&self) -> PathBuf {
        self.runtime_dir.join("console.sock")
    }

    fn check(loaded: Loaded<Raw>) -> Result<Self, ConfigError> {
        let Loaded { value: raw, source } = loaded;
        let settings = |baud: Option<u32>, rs485, insecure| LineSettings {
            baud: baud.unwrap_or(DEFAULT_BAUD),
            rs485,
            insecure,
        };
        let of_bus = settings(raw.bus.baud, raw.bus.rs485, raw.bus.insecure);
        let bus = [
            place(raw.bus.near.as_ref(), of_bus, &source)?,
            place(raw.bus.far.as_ref(), of_bus, &source)?,
        ];
        if bus.iter().all(Option::is_none) {
            let message = "`near` is missing; write the device that leads to the first blade";
            return Err(ConfigError::invalid(source.path(), "bus", message));
        }
        let of_control = settings(raw.control.baud, raw.control.rs485, raw.control.insecure);
        let control = place(raw.control.line.as_ref(), of_control, &source)?;
        let by = match (&raw.choose.by, &control) {
            (None, None) => By::HotKey,
            (None, Some(_)) => By::ControlBus,
            (Some(by), None) if *by.get_ref() == By::ControlBus => {
                let remedy = "set `line` in [control], or take `by` out";
                return Err(source.error_at(by.span(), "there is no control bus", remedy));
            }
            (Some(by), _) => *by.get_ref(),
        };
        let addr = Addr::rmm(raw.number)
            .ok_or_else(|| ConfigError::invalid(source.path(), "number", "RMMs are 0 to 7"))?;
        let telnet = raw.console.telnet.as_ref().map(|text| {
            listen(
                text,
                &source,
                "telnet sends all in plain text: listen on loopback, and use SSH from afar",
            )
        });
        let metrics = raw.metrics_listen.as_ref().map(|text| listen(text, &source, METRICS));
        let path = |path: Option<PathBuf>, default: &str| path.unwrap_or_else(|| default.into());
        Ok(Self {
            addr,
            runtime_dir: path(raw.runtime_dir, DEFAULT_RUNTIME_DIR),
            metrics_listen: metrics.transpose()?,
            state_dir: path(raw.state_dir, DEFAULT_STATE_DIR),
            bus,
            control,
            by,
            keyboard: raw.choose.keyboard,
            hot_keys: raw.choose.hot_keys.unwrap_or_else(|| DEFAULT_KEYS.to_vec()),
            layout: raw.choose.layout,
            modem_lines: raw.choose.modem_lines,
            logs: Logs {
                dir: path(raw.console.log_dir, DEFAULT_LOG_DIR),
                size: raw.console.log_size.unwrap_or(LOG_SIZE).max(4096),
                kept: raw.console.logs_kept.unwrap_or(LOGS_KEPT).min(1000),
            },
            telnet: telnet.transpose()?,
            authorized_keys: path(raw.ssh.authorized_keys, DEFAULT_KEYS_FILE),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("rmm.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_is_enough() {
        let config = parse("[bus]\nnear = \"/dev/ttyS4\"\n").unwrap();
        assert_eq!((config.by, config.telnet), (By::HotKey, None));
        let config =
            parse("[bus]\nnear = \"/dev/ttyS4\"\n[control]\nline = \"/dev/ttyS5\"\n").unwrap();
        assert_eq!(config.by, By::ControlBus);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let bus = "[bus]\nnear = \"/dev/ttyS4\"\n";
        for (text, wanted) in [
            ("", "`near` is missing"),
            (&format!("{bus}[choose]\nby = \"control-bus\"\n"), "there is no control bus"),
            (&format!("{bus}[console]\ntelnet = \"0.0.0.0:7500\"\n"), "beyond loopback"),
            (&format!("{bus}[console]\ntelnet = \"x\"\n"), "is no address"),
            (&format!("number = 8\n{bus}"), "RMMs are 0 to 7"),
            (&format!("metrics_listen = \"[::]:9100\"\n{bus}"), "[::]:9100 is beyond loopback"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
