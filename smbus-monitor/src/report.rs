// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is told over HTTP and shown by the verbs: one form for all faces.

use serde::{Deserialize, Serialize};

pub use crate::core::alerts::{Ack, Alert, Event};
pub use crate::core::history::Point;
use crate::core::rules::{Rule, Severity};
use crate::metric::{Limits, Unit};

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// This machine's name: in the group, else the host's.
    pub name: String,
    /// Its place, under which its metrics are.
    pub place: String,
    /// Who it is.
    pub identity: IdentityReport,
    /// The group's name; none outside of one.
    pub group: Option<String>,
    /// The active manager's name; this machine's outside of a group.
    pub manager: Option<String>,
    /// Where its HTTP is reached.
    pub manager_http: Option<String>,
    /// Members that are here, this one counted, and all of the list.
    pub sees: usize,
    /// See `sees`.
    pub of: usize,
    /// The worst that is wrong anywhere.
    pub worst: Option<Severity>,
    /// Alerts of that severity and of the other.
    pub critical: usize,
    /// See `critical`.
    pub warnings: usize,
    /// Metrics of this machine, and of all.
    pub metrics: usize,
    /// See `metrics`.
    pub metrics_of_all: usize,
    /// Why events are not written; none if they are.
    pub log_error: Option<String>,
    /// Events that wait to be written.
    pub log_waiting: usize,
    /// Events that were lost for want of room.
    pub log_lost: u64,
    /// Slots, with who is there.
    pub slots: Vec<SlotReport>,
}

/// Who a machine is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IdentityReport {
    /// The chassis.
    pub chassis: String,
    /// The slot.
    pub slot: String,
    /// The kind of module.
    pub module: String,
    /// Its maker.
    pub maker: String,
    /// Its serial number.
    pub serial: String,
}

/// A slot, and who is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReport {
    /// Its place: the slot's number or name, or the member's name if it does not know its slot.
    pub place: String,
    /// What users call it.
    pub name: String,
    /// The kind of module that belongs there, as a user has said.
    pub assigned: String,
    /// The member there, or who was there last.
    pub member: String,
    /// `here`, `last known`, or `empty`.
    pub state: String,
    /// Who that is.
    pub identity: IdentityReport,
    /// What does not fit; empty if all does.
    pub problems: Vec<String>,
}

/// `GET /v1/sensors`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sensor {
    /// Where.
    pub place: String,
    /// The metric.
    pub metric: String,
    /// What it is called.
    pub label: String,
    /// Its last value.
    pub value: Option<f64>,
    /// Its unit.
    pub unit: Unit,
    /// `ok`, `warning`, `critical`, `stale`, `last known`.
    pub state: String,
    /// Seconds since that was read.
    pub age_s: f64,
    /// What holds for it.
    pub limits: Limits,
    /// By which rule; none if the limits are the hardware's.
    pub rule: Option<String>,
    /// Why there is no newer value.
    pub error: Option<String>,
}

/// `GET /v1/history`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryReport {
    /// Where.
    pub place: String,
    /// The metric.
    pub metric: String,
    /// Its unit.
    pub unit: Unit,
    /// What holds for it.
    pub limits: Limits,
    /// What it was, oldest first.
    pub points: Vec<Point>,
}

/// `GET /v1/thresholds`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleReport {
    /// `user` or `configuration`.
    pub by: String,
    /// It.
    #[serde(flatten)]
    pub rule: Rule,
}

/// `POST /v1/ack`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckRequest {
    /// The alert's id.
    pub id: String,
}

/// `POST /v1/power`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerRequest {
    /// Which slot or member.
    pub place: String,
    /// What is to be.
    pub action: PowerAction,
    /// The order's id, 32 hexadecimal digits; chosen at random if there is none. The same again is the same order.
    #[serde(default)]
    pub id: Option<String>,
    /// Do it by this member, not by the one that is chosen.
    #[serde(default)]
    pub by: Option<String>,
}

/// What power is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerAction {
    /// On.
    On,
    /// Off at once.
    Off,
    /// Off after the system has ended in order.
    Shutdown,
    /// Started anew: once, and only if it still is in the boot that was seen.
    Reset,
}

impl PowerAction {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Shutdown => "shutdown",
            Self::Reset => "reset",
        }
    }
}

/// What came of a power order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerReport {
    /// The order's id.
    pub id: String,
    /// Of which place.
    pub place: String,
    /// What was to be.
    pub action: String,
    /// Who was to do it.
    pub by: String,
    /// `under way`, `done`, `failed`, `not begun`.
    pub state: String,
    /// What the one who did it says.
    pub text: String,
}

/// `POST /v1/slot`: what users say of a slot. What is none stays as it is; an empty text takes it away.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SlotRequest {
    /// Which slot.
    pub place: String,
    /// What it is to be called.
    #[serde(default)]
    pub name: Option<String>,
    /// The kind of module that belongs there.
    #[serde(default)]
    pub module: Option<String>,
}

/// `POST /v1/override`: to go on without a majority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverrideRequest {
    /// Who votes from now on, this member among them.
    pub members: Vec<String>,
    /// Why; it is written down for good.
    pub reason: String,
}
