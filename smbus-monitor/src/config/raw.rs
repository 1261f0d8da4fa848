// SPDX-License-Identifier: MIT OR Apache-2.0
//! The file as it is written.

use std::net::SocketAddr;
use std::path::PathBuf;

use daemon_kit::config::{HumanDuration, Spanned};
use serde::Deserialize;

use crate::core::rules::Severity;
use crate::metric::Unit;
use crate::pattern::Pattern;
use crate::sources::smbus::{Quantity, Width};

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Raw {
    pub(super) sources: RawSources,
    pub(super) smbus: Vec<RawSmbus>,
    pub(super) threshold: Vec<RawThreshold>,
    pub(super) action: Vec<RawAction>,
    pub(super) identity: RawIdentity,
    pub(super) group: RawGroup,
    pub(super) power: Vec<RawPower>,
    pub(super) listen: Vec<Spanned<SocketAddr>>,
    pub(super) insecure: bool,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) runtime_dir: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawSources {
    pub interval: Option<Spanned<HumanDuration>>,
    pub system: Option<bool>,
    pub per_cpu: bool,
    pub filesystems: Option<bool>,
    pub filesystem_interval: Option<Spanned<HumanDuration>>,
    pub hwmon: Option<bool>,
    pub ipmi: Option<bool>,
    pub ipmi_device: Option<PathBuf>,
    pub ipmi_interval: Option<Spanned<HumanDuration>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(untagged, expecting = "a bus's number, or its adapter's name in quotes")]
pub(super) enum RawBus {
    Number(u32),
    Named(String),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawChip {
    Lm75,
    Pmbus,
    Registers,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSmbus {
    pub name: Spanned<String>,
    pub bus: RawBus,
    pub address: Spanned<u16>,
    pub chip: RawChip,
    #[serde(default)]
    pub midplane: bool,
    pub interval: Option<Spanned<HumanDuration>>,
    #[serde(default)]
    pub pec: bool,
    pub quantities: Option<Vec<Quantity>>,
    pub page: Option<u8>,
    pub direct: Option<[i16; 3]>,
    #[serde(default)]
    pub registers: Vec<RawRegister>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRegister {
    pub name: String,
    pub register: u8,
    #[serde(default)]
    pub width: Width,
    pub unit: Unit,
    pub scale: Option<f64>,
    #[serde(default)]
    pub offset: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawThreshold {
    pub name: Spanned<String>,
    pub metric: Pattern,
    pub place: Option<Pattern>,
    pub high_critical: Option<f64>,
    pub high_warning: Option<f64>,
    pub low_warning: Option<f64>,
    pub low_critical: Option<f64>,
    pub hysteresis: Option<f64>,
    pub samples: Option<u8>,
    pub trend: Option<HumanDuration>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAction {
    pub name: Spanned<String>,
    pub on: Option<Severity>,
    pub metric: Option<Pattern>,
    pub place: Option<Pattern>,
    pub command: Option<Vec<String>>,
    pub webhook: Option<String>,
    pub authorities: Option<PathBuf>,
    pub syslog: Option<String>,
    pub limit: Option<u32>,
    pub per: Option<HumanDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawIdentity {
    pub chassis: Option<String>,
    pub slot: Option<String>,
    pub module: Option<String>,
    pub serial: Option<String>,
    pub eeprom: Option<PathBuf>,
    pub eeprom_bus: Option<RawBus>,
    pub eeprom_address: Option<u16>,
    pub dmi: Option<bool>,
    pub dmi_folder: Option<PathBuf>,
    pub smbios: Option<PathBuf>,
    pub ipmi: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawGroup {
    pub enabled: Option<bool>,
    pub list: Option<PathBuf>,
    pub port: Option<u16>,
    pub root: Option<PathBuf>,
    pub leads: Option<bool>,
    pub replicate: Option<Vec<Pattern>>,
    pub keep: Vec<Pattern>,
    pub interval: Option<HumanDuration>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPower {
    pub place: Spanned<String>,
    pub command: Option<Vec<String>>,
    pub wake_on_lan: Option<String>,
    pub broadcast: Option<SocketAddr>,
}
