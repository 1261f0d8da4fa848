// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which LUN is what, fixed before the first bind.

use std::fmt;

/// LUNs of one mass-storage function: a Linux host looks at no more, since the function calls itself SCSI-2.
pub const MAX_LUNS: u8 = 8;
/// Mass-storage functions. Each takes two endpoints, and small controllers have six or seven.
const MAX_FUNCTIONS: u8 = 2;

/// What a LUN says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A disk of 512-byte blocks.
    Disk,
    /// A CD-ROM of 2048-byte blocks, read-only.
    Cd,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disk => "disk",
            Self::Cd => "cd",
        })
    }
}

/// One LUN of the gadget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LunId {
    /// The mass-storage function, from 0.
    pub function: u8,
    /// Its LUN, from 0.
    pub lun: u8,
}

impl fmt::Display for LunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lun {}.{}", self.function, self.lun)
    }
}

/// How many drives of which kind. Disks come first in each function: firmware that boots from LUN 0 alone wants one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    functions: u8,
    disks: u8,
    cds: u8,
    input: bool,
}

/// A layout that the kernel or the host would not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a gadget has 1 or 2 storage functions with 1 to 8 LUNs each, not {functions} with {disks} disks and {cds} CDs"
)]
pub struct LayoutError {
    functions: u8,
    disks: u8,
    cds: u8,
}

impl Default for Layout {
    /// 12 disks and 4 CDs. Installation media are mostly written as disk images today; two CDs of each function hold
    /// an installer and its drivers.
    fn default() -> Self {
        Self { functions: 2, disks: 6, cds: 2, input: true }
    }
}

impl Layout {
    /// `functions` with `disks` and `cds` each.
    ///
    /// # Errors
    /// [`LayoutError`] where that is none, or more than [`MAX_LUNS`] a function.
    pub fn new(functions: u8, disks: u8, cds: u8) -> Result<Self, LayoutError> {
        let luns = disks.saturating_add(cds);
        if !(1..=MAX_FUNCTIONS).contains(&functions) || !(1..=MAX_LUNS).contains(&luns) {
            return Err(LayoutError { functions, disks, cds });
        }
        Ok(Self { functions, disks, cds, input: true })
    }

    /// The same without keyboard and mouse: the kernel has four HID devices for all gadgets of a machine
    /// (`HIDG_MINORS`), so with more than two controllers some must do without.
    #[must_use]
    pub fn without_input(self) -> Self {
        Self { input: false, ..self }
    }

    /// There are a keyboard and a mouse.
    #[must_use]
    pub fn has_input(&self) -> bool {
        self.input
    }

    /// Mass-storage functions.
    #[must_use]
    pub fn functions(&self) -> u8 {
        self.functions
    }

    /// LUNs of each function.
    #[must_use]
    pub fn luns(&self) -> u8 {
        self.disks + self.cds
    }

    /// What a LUN is; none where there is no such LUN.
    #[must_use]
    pub fn kind(&self, id: LunId) -> Option<Kind> {
        if id.function >= self.functions || id.lun >= self.luns() {
            return None;
        }
        Some(if id.lun < self.disks { Kind::Disk } else { Kind::Cd })
    }

    /// All LUNs of a kind, in the order in which they are to be filled.
    pub fn of_kind(self, kind: Kind) -> impl Iterator<Item = LunId> {
        self.all().filter(move |id| self.kind(*id) == Some(kind))
    }

    /// All LUNs.
    pub fn all(self) -> impl Iterator<Item = LunId> {
        let luns = self.luns();
        (0..self.functions)
            .flat_map(move |function| (0..luns).map(move |lun| LunId { function, lun }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_has_sixteen_drives() {
        let layout = Layout::default();
        assert_eq!(layout.all().count(), 16);
        assert_eq!(layout.of_kind(Kind::Cd).count(), 4);
        let first_cd = layout.of_kind(Kind::Cd).next().unwrap();
        assert_eq!(first_cd, LunId { function: 0, lun: 6 });
        assert_eq!(layout.kind(LunId { function: 1, lun: 5 }), Some(Kind::Disk));
        assert_eq!(layout.kind(LunId { function: 2, lun: 0 }), None);
        assert_eq!(layout.kind(LunId { function: 0, lun: 8 }), None);
    }

    #[test]
    fn a_layout_that_no_host_would_see_is_refused() {
        for (functions, disks, cds) in [(0, 1, 0), (3, 1, 0), (1, 0, 0), (1, 8, 1), (1, 255, 255)] {
            assert!(Layout::new(functions, disks, cds).is_err(), "{functions} {disks} {cds}");
        }
        assert!(Layout::new(1, 0, 8).is_ok());
    }
}
