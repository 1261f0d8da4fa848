// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must not be forgotten. `state` keeps it in a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{BladeName, ShareName};

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Also of shares that are not configured any more: they may come back.
    pub shares: BTreeMap<ShareName, ShareState>,
}

/// What is remembered of a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareState {
    /// Counts the contents that readers may have seen, from 1: raised when a writer closes, and by a commit.
    pub generation: u64,
    /// The last one that was given to anybody. Never goes back.
    pub epoch: u64,
    /// Who writes to it, if it is `exclusive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// By blade, if it is `private`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub overlays: BTreeMap<BladeName, OverlayState>,
}

impl Default for ShareState {
    fn default() -> Self {
        Self { generation: 1, epoch: 0, lease: None, overlays: BTreeMap::new() }
    }
}

/// The right of one blade to write to an exclusive share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Who.
    pub blade: BladeName,
    /// What its sessions carry.
    pub epoch: u64,
    /// When it began, seconds since 1970.
    pub since: u64,
    /// The blade knows of it. After a hand-over the drive is still to be inserted there until this is so.
    pub is_known: bool,
}

/// What is remembered of an overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OverlayState {
    /// The epoch it was made in; in the header of its file.
    pub id: u64,
    /// What its sessions carry.
    pub epoch: u64,
    /// Of the share below.
    pub generation: u64,
    /// When it was made, seconds since 1970.
    pub since: u64,
    /// What is happening to it.
    pub phase: Phase,
}

/// What is happening to an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Its file may be there or not; nobody has it.
    Making,
    /// It can be used.
    Ready,
    /// The share below is part old, part new. Only a commit ends this.
    Committing,
    /// Its file may be there or not; nothing in it counts any more.
    Removing,
}
