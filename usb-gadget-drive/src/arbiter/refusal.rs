// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why something was not done, and what to do about it.

use super::{BladeName, ShareName};

/// Something was not done. Nothing of it is left behind, unless the text says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not configured.
    #[error("UNKNOWN: there is no share {share}; `usb-gadget-drive shares` lists them")]
    Unknown {
        /// What was asked for.
        share: ShareName,
    },
    /// It has no such overlay.
    #[error(
        "UNKNOWN: share {share} has no overlay for blade {blade}; `usb-gadget-drive overlay list` lists them"
    )]
    NoOverlay {
        /// The share.
        share: ShareName,
        /// Whose was asked for.
        blade: BladeName,
    },
    /// Not by this blade, or not at all.
    #[error("DENIED: blade {blade} is not allowed {what} share {share}: {remedy}")]
    Denied {
        /// The share.
        share: ShareName,
        /// Who.
        blade: BladeName,
        /// "to read" or "to write to".
        what: &'static str,
        /// What would have to change.
        remedy: String,
    },
    /// Not now.
    #[error("BUSY: share {share} {by}; {remedy}")]
    Busy {
        /// The share.
        share: ShareName,
        /// Who has it, and since when.
        by: String,
        /// How to get it.
        remedy: String,
    },
    /// What it wants to go on with is over.
    #[error(
        "STALE: what blade {blade} had of share {share} is over ({had}, now {is}); eject it there and insert it again"
    )]
    Stale {
        /// The share.
        share: ShareName,
        /// Who.
        blade: BladeName,
        /// What it had.
        had: String,
        /// What there is.
        is: String,
    },
    /// It was tried.
    #[error("FAILED: share {share}, blade {blade}: {what}; {remedy}")]
    Failed {
        /// The share.
        share: ShareName,
        /// Who.
        blade: BladeName,
        /// What went wrong.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// A bound was met.
    #[error("FULL: share {share} cannot have another of its {max} {what}; end some first")]
    Full {
        /// The share.
        share: ShareName,
        /// What of.
        what: &'static str,
        /// How many there can be.
        max: usize,
    },
    /// What must be remembered cannot be.
    #[error("FAILED: the state cannot be stored ({reason}): nothing is granted until it can")]
    Storage {
        /// The system's words.
        reason: String,
    },
}

impl Refusal {
    /// The same may succeed later without a change of the configuration.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Full { .. } | Self::Storage { .. })
    }
}
