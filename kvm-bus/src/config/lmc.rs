// SPDX-License-Identifier: MIT OR Apache-2.0
//! `/etc/midplane/kvm-bus-lmc.toml`: the blade's place on the bus, and what of it is on the bus.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use daemon_kit::config::{self, ConfigError, Loaded, Source, Spanned};
use serde::Deserialize;

use super::format::{Flow, with_format};
use super::{DEFAULT_BAUD, Device, LineSettings, METRICS, listen, place};
use crate::shell::stream::Place;
use crate::wire::{Addr, ConsoleSettings};

/// Where it is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/midplane/kvm-bus-lmc.toml";
/// Where its control socket is.
pub const DEFAULT_RUNTIME_DIR: &str = "/run/midplane/kvm-bus-lmc";
/// Longest name of a blade, characters.
const LONGEST_NAME: usize = 16;

/// The file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    slot: Option<Spanned<u8>>,
    name: Option<Spanned<String>>,
    runtime_dir: Option<PathBuf>,
    metrics_listen: Option<Spanned<String>>,
    #[serde(default)]
    bus: RawBus,
    #[serde(default)]
    control: RawBus,
    #[serde(default)]
    blade: RawBlade,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBus {
    up: Option<Spanned<String>>,
    down: Option<Spanned<String>>,
    baud: Option<u32>,
    #[serde(default)]
    rs485: bool,
    #[serde(default)]
    insecure: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBlade {
    console: Option<PathBuf>,
    console_baud: Option<Spanned<u32>>,
    console_format: Option<Spanned<String>>,
    #[serde(default)]
    console_flow: Flow,
    screen: Option<Device>,
    keyboard: Option<Device>,
    power: Option<Device>,
}

/// The serial console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Console {
    /// Its device.
    pub path: PathBuf,
    /// How its line is set.
    pub settings: ConsoleSettings,
    /// Who may hold back whom.
    pub flow: Flow,
}

/// The configuration, checked.
#[derive(Debug)]
pub struct Config {
    /// The blade's address.
    pub addr: Addr,
    /// Its name.
    pub name: String,
    /// Where the control socket is.
    pub runtime_dir: PathBuf,
    /// Where Prometheus finds its metrics, beside the control socket.
    pub metrics_listen: Option<SocketAddr>,
    /// Upper and lower segment of the bus.
    pub bus: [Option<Place>; 2],
    /// Upper and lower segment of the control bus.
    pub control: [Option<Place>; 2],
    /// The serial console.
    pub console: Option<Console>,
    /// The text screen.
    pub screen: Device,
    /// Where keys go.
    pub keyboard: Device,
    /// Where power orders go.
    pub power: Device,
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

    fn check(loaded: Loaded<Raw>) -> Result<Self, ConfigError> {
        let Loaded { value: raw, source } = loaded;
        let Some(slot) = raw.slot else {
            return Err(ConfigError::invalid(
                source.path(),
                "slot",
                "is missing; write the blade's slot, 1 to 239",
            ));
        };
        let addr = Addr::blade(*slot.get_ref()).ok_or_else(|| {
            source.error_at(
                slot.span(),
                format!("there is no slot {}", slot.get_ref()),
                "slots are 1 to 239",
            )
        })?;
        let name = match raw.name {
            None => host_name(),
            Some(name) => {
                let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
                let text = name.get_ref();
                if text.is_empty() || text.len() > LONGEST_NAME || !text.chars().all(good) {
                    let remedy = "a name has up to 16 letters, digits, hyphens, dots";
                    return Err(source.error_at(
                        name.span(),
                        format!("`{text}` is no name"),
                        remedy,
                    ));
                }
                name.into_inner()
            }
        };
        let bus = |raw: &RawBus| {
            let settings = LineSettings {
                baud: raw.baud.unwrap_or(DEFAULT_BAUD),
                rs485: raw.rs485,
                insecure: raw.insecure,
            };
            Ok([
                place(raw.up.as_ref(), settings, &source)?,
                place(raw.down.as_ref(), settings, &source)?,
            ])
        };
        let (data, control) = (bus(&raw.bus)?, bus(&raw.control)?);
        if data.iter().all(Option::is_none) {
            let message = "`up` is missing; write the device that leads towards the RMM";
            return Err(ConfigError::invalid(source.path(), "bus", message));
        }
        let metrics = raw.metrics_listen.as_ref().map(|text| listen(text, &source, METRICS));
        let settings = console_settings(&raw.blade, &source)?;
        let flow = raw.blade.console_flow;
        Ok(Self {
            addr,
            name,
            // systemd's, which is another one for each instance of the unit.
            runtime_dir: raw.runtime_dir.unwrap_or_else(|| {
                std::env::var_os("RUNTIME_DIRECTORY")
                    .unwrap_or_else(|| DEFAULT_RUNTIME_DIR.into())
                    .into()
            }),
            metrics_listen: metrics.transpose()?,
            bus: data,
            control,
            console: raw.blade.console.map(|path| Console { path, settings, flow }),
            screen: raw.blade.screen.unwrap_or(Device::Auto),
            keyboard: raw.blade.keyboard.unwrap_or(Device::Auto),
            power: raw.blade.power.unwrap_or(Device::Auto),
        })
    }
}

fn console_settings(raw: &RawBlade, source: &Source) -> Result<ConsoleSettings, ConfigError> {
    let mut settings = ConsoleSettings::default();
    if let Some(baud) = &raw.console_baud {
        if *baud.get_ref() == 0 {
            return Err(source.error_at(
                baud.span(),
                "0 baud is no speed",
                "write bits per second",
            ));
        }
        settings.baud = *baud.get_ref();
    }
    let Some(text) = &raw.console_format else { return Ok(settings) };
    with_format(settings, text.get_ref()).ok_or_else(|| {
        let remedy = "write data bits 5 to 8, parity N, E or O, and stop bits 1 or 2, such as 8N1";
        source.error_at(text.span(), format!("`{}` is no format", text.get_ref()), remedy)
    })
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let good = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
    let name: String = name.chars().filter(good).take(LONGEST_NAME).collect();
    if name.is_empty() { "blade".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("lmc.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_slot_and_a_line_are_enough() {
        let config = parse("slot = 3\n[bus]\nup = \"/dev/ttyS4\"\n").unwrap();
        assert_eq!(config.addr, Addr::blade(3).unwrap());
        let up = Place::Tty { path: "/dev/ttyS4".into(), baud: 115_200, rs485: false };
        assert_eq!(config.bus, [Some(up), None]);
        assert_eq!((config.screen, config.console), (Device::Auto, None));
    }

    #[test]
    fn a_console_is_set_as_it_is_told() {
        let console = |keys: &str| {
            let text = format!(
                "slot = 1\n[bus]\nup = \"/dev/ttyS4\"\n[blade]\nconsole = \"/dev/ttyS0\"\n{keys}"
            );
            parse(&text).map(|config| config.console.unwrap())
        };
        let plain = console("").unwrap();
        assert_eq!((plain.settings, plain.flow), (ConsoleSettings::default(), Flow::None));
        let told = "console_baud = 9600\nconsole_format = \"7e1\"\nconsole_flow = \"rts-cts\"\n";
        let told = console(told).unwrap();
        assert_eq!((told.settings.baud, told.flow), (9600, Flow::RtsCts));
        assert_eq!(crate::config::format::format(told.settings), "7E1");
        for (keys, wanted) in [
            ("console_format = \"8N3\"\n", "lmc.toml:6:18: `8N3` is no format"),
            ("console_baud = 0\n", "lmc.toml:6:16: 0 baud"),
            ("console_flow = \"dtr\"\n", "unknown value `dtr`"),
        ] {
            let error = console(keys).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        for (text, wanted) in [
            ("[bus]\nup = \"/dev/ttyS4\"\n", "slot"),
            ("slot = 240\n[bus]\nup = \"/dev/ttyS4\"\n", "there is no slot 240"),
            ("slot = 1\n", "`up` is missing"),
            ("slot = 1\n[bus]\nup = \"ttyS4\"\n", "is no line"),
            ("slot = 1\n[bus]\nup = \"tcp:rmm.example:1\"\n", "has every console"),
            ("slot = 1\n[bus]\nup = \"tcp:10.0.0.1\"\n", "is no line"),
            ("slot = 1\nname = \"a b\"\n[bus]\nup = \"/dev/ttyS4\"\n", "is no name"),
            (
                "slot = 1\nmetrics_listen = \"10.0.0.1:9100\"\n[bus]\nup = \"/dev/ttyS4\"\n",
                "is beyond loopback",
            ),
            ("slot = 1\n[bus]\nupp = \"/dev/ttyS4\"\n", "upp"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
        assert!(parse("slot = 1\n[bus]\nup = \"tcp:127.0.0.1:99\"\n").is_ok());
        assert!(parse("slot = 1\n[bus]\ninsecure = true\nup = \"tcp:rmm.example:1\"\n").is_ok());
    }
}
