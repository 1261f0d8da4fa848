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

/// Seconds since 1970 as a date and time in UTC.
pub fn utc(unix: u64) -> String {
    let (days, secs) = (unix / 86400, unix % 86400);
    // The civil calendar, with years that begin in March and eras of 400 of them (146,097 days).
    let z = days + 719_468;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = z / 146_097 * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn dates() {
        for (unix, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(unix), text);
        }
    }
}
