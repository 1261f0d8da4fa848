// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the control socket says and is asked, in JSON. Times are microseconds since 1970 by the group's clock.

use serde::{Deserialize, Serialize};

use crate::record::{Device, DeviceId, Holder, Machine};
use crate::wire::Grant;

/// A device, and the manager that has its unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The device.
    pub device: Device,
    /// The manager.
    pub manager: Machine,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Of this program.
    pub version: String,
    /// This machine.
    pub machine: Machine,
    /// `all` or `own`.
    pub replication: String,
    /// The group's clock.
    pub now: i64,
    /// Units that are known here.
    pub units: Vec<UnitStatus>,
    /// Managers that are here, this one first.
    pub managers: Vec<ManagerStatus>,
    /// Devices that are known here.
    pub devices: Vec<Known>,
    /// Finders of services here, and those that others forward.
    pub finders: (usize, usize),
}

/// A unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitStatus {
    /// Its name.
    pub unit: Machine,
    /// The manager that has it.
    pub manager: Machine,
    /// Since when, by the unit's word.
    pub since: i64,
    /// The life of the unit.
    pub epoch: u64,
    /// Devices of it that are known here.
    pub devices: usize,
}

/// A manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagerStatus {
    /// Its name.
    pub manager: Machine,
    /// Whether it is this one.
    pub own: bool,
    /// The units that it has.
    pub units: Vec<Machine>,
}

/// A line of `GET /v1/find`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// A device fits.
    Match(Box<Known>),
    /// One that fitted before is different.
    Changed(Box<Known>),
    /// One that fitted before is gone, or fits no more.
    Gone(DeviceId),
    /// All that is known here now was told.
    Complete,
}

/// `POST /v1/lease`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The device.
    pub device: DeviceId,
    /// Which part of it; 0 is all of it.
    #[serde(default)]
    pub function: u8,
    /// Whether to wait for it.
    #[serde(default)]
    pub queue: bool,
    /// For how long at most, seconds.
    #[serde(default)]
    pub limit_s: Option<u32>,
}

/// A line of the answer; the last is `granted` or `refused`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Leased {
    /// It waits, at this place from 1.
    Waits(u32),
    /// The lease; its holder comes to the unit within 10 s.
    Granted(Box<Grant>),
    /// Why there is none.
    Refused {
        /// In words.
        reason: String,
        /// Whether it may be had later.
        later: bool,
    },
}

/// `POST /v1/release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The lease.
    pub lease: u64,
}

/// One who waits, of `GET /v1/queue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// For what.
    pub device: DeviceId,
    /// Who.
    pub holder: Holder,
    /// Since when, milliseconds since 1970.
    pub since_ms: u64,
}

/// `GET /v1/explain`: why somebody could lease a device now, or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The device.
    pub known: Known,
    /// Why its first function is not free; none if it is.
    pub taken: Option<String>,
    /// What policy says to the one who asks: only the manager that has the unit knows.
    pub policy: String,
}
