// SPDX-License-Identifier: MIT OR Apache-2.0
//! One LUN of a mass-storage function: its attributes in configfs (`Documentation/ABI/testing/configfs-usb-gadget-mass-storage`).
//!
//! What the kernel does and does not tell (`f_mass_storage.c`, `storage_common.c`): `ro`, `cdrom` and `nofua` cannot be
//! changed while a medium is loaded; an ejection is refused while the host has locked the medium, which it does while
//! it is mounted or open; a CD image that is too large is cut without an error; a file that cannot be written is
//! loaded read-only without an error. So each change is checked before and read back after.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::layout::{Kind, LunId};

/// Largest CD that the kernel presents whole, bytes: 1,151,999 blocks (`fsg_lun_open`: 256 minutes).
pub const MAX_CD: u64 = 1_151_999 * 2048;
/// Smallest medium, bytes: one sector, and for a CD 300 of its own (`fsg_lun_open`).
const MIN_DISK: u64 = 512;
const MIN_CD: u64 = 300 * 2048;

/// The kernel's `EBUSY`, `EINVAL`, `ENOSPC`, `ENOENT`, the same on all of Linux.
const ENOENT: i32 = 2;
const EBUSY: i32 = 16;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;

/// A medium to be inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    /// A regular file or a block device.
    pub file: PathBuf,
    /// The host may not write. A CD is read-only whatever this says.
    pub read_only: bool,
    /// The host's FUA bit is ignored: faster, and what it wrote may be lost with the power.
    pub no_fua: bool,
}

/// What is presented, as configfs says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LunState {
    /// The medium; none where the LUN is empty.
    pub file: Option<PathBuf>,
    /// The host may not write.
    pub read_only: bool,
    /// The kind.
    pub kind: Kind,
    /// FUA is ignored.
    pub no_fua: bool,
}

/// Why a LUN is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum LunError {
    /// There is no such LUN in the layout.
    #[error("{id}: there is no such lun")]
    NoSuchLun {
        /// The LUN.
        id: LunId,
    },
    /// It has a medium.
    #[error("{id}: {} is in it; eject it first", file.display())]
    Occupied {
        /// The LUN.
        id: LunId,
        /// Its medium.
        file: PathBuf,
    },
    /// The host holds the medium (`EBUSY`).
    #[error(
        "{id}: the host has it mounted or open; unmount it there, try again in a second, or eject by force"
    )]
    HostHolds {
        /// The LUN.
        id: LunId,
    },
    /// The kernel refuses the value (`EINVAL`).
    #[error("{id}: the kernel refuses {value:?} for {attribute}; is it a file or a block device?")]
    Refused {
        /// The LUN.
        id: LunId,
        /// The attribute.
        attribute: &'static str,
        /// What was written.
        value: String,
    },
    /// The file is not there (`ENOENT`).
    #[error("{id}: {}: no such file", file.display())]
    NoFile {
        /// The LUN.
        id: LunId,
        /// The medium.
        file: PathBuf,
    },
    /// No room (`ENOSPC`).
    #[error("{id}: no space left for {attribute}")]
    NoSpace {
        /// The LUN.
        id: LunId,
        /// The attribute.
        attribute: &'static str,
    },
    /// The image would be cut.
    #[error(
        "{id}: {} has {size} bytes, but the kernel presents at most {MAX_CD} of a CD; insert it as a disk if it boots as one",
        file.display()
    )]
    CdTooLarge {
        /// The LUN.
        id: LunId,
        /// The medium.
        file: PathBuf,
        /// Its bytes.
        size: u64,
    },
    /// The medium has no block.
    #[error("{id}: {} has {size} bytes, too few for a medium", file.display())]
    TooSmall {
        /// The LUN.
        id: LunId,
        /// The medium.
        file: PathBuf,
        /// Its bytes.
        size: u64,
    },
    /// The LUN is of the other kind.
    #[error(
        "{id}: it is a {is}, and a host would not notice a change without losing all its drives; use a {wanted} lun"
    )]
    WrongKind {
        /// The LUN.
        id: LunId,
        /// What it is.
        is: Kind,
        /// What it should be.
        wanted: Kind,
    },
    /// What configfs says afterwards is not what was written.
    #[error("{id}: {attribute} was set to {wanted:?} but is {found:?}")]
    NotTaken {
        /// The LUN.
        id: LunId,
        /// The attribute.
        attribute: &'static str,
        /// What was written.
        wanted: String,
        /// What is read.
        found: String,
    },
    /// Anything else.
    #[error("{id}: {attribute}: {source}")]
    Io {
        /// The LUN.
        id: LunId,
        /// The attribute.
        attribute: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
}

/// The attributes of one LUN.
#[derive(Debug)]
pub(crate) struct Attributes {
    id: LunId,
    dir: PathBuf,
}

impl Attributes {
    pub fn new(id: LunId, dir: PathBuf) -> Self {
        Self { id, dir }
    }

    pub fn state(&self) -> Result<LunState, LunError> {
        let file = self.read("file")?;
        Ok(LunState {
            file: (!file.is_empty()).then(|| file.into()),
            read_only: self.flag("ro")?,
            kind: if self.flag("cdrom")? { Kind::Cd } else { Kind::Disk },
            no_fua: self.flag("nofua")?,
        })
    }

    /// Whether there is no medium: one attribute, for who asks often.
    pub fn is_empty(&self) -> Result<bool, LunError> {
        Ok(self.read("file")?.is_empty())
    }

    /// Loads a medium of `size` bytes; what the LUN is then.
    pub fn insert(&self, insert: &Insert, size: u64) -> Result<LunState, LunError> {
        let id = self.id;
        let before = self.state()?;
        if let Some(file) = before.file {
            return Err(LunError::Occupied { id, file });
        }
        // What the kernel will show as the file is without links.
        let file = insert.file.canonicalize().map_err(|e| self.file_error(&insert.file, e))?;
        let smallest = if before.kind == Kind::Cd { MIN_CD } else { MIN_DISK };
        if before.kind == Kind::Cd && size > MAX_CD {
            return Err(LunError::CdTooLarge { id, file, size });
        }
        if size < smallest {
            return Err(LunError::TooSmall { id, file, size });
        }
        let read_only = insert.read_only || before.kind == Kind::Cd;
        self.write("ro", bit(read_only))?;
        self.write("nofua", bit(insert.no_fua))?;
        let value = file.to_str().ok_or_else(|| {
            let value = file.to_string_lossy().into_owned();
            LunError::Refused { id, attribute: "file", value }
        })?;
        match self.write("file", value) {
            Err(LunError::Io { source, .. }) => return Err(self.file_error(&file, source)),
            other => other?,
        }
        let state = self.state()?;
        self.same(
            "file",
            value,
            &state.file.as_deref().unwrap_or(Path::new("")).to_string_lossy(),
        )?;
        if read_only && !state.read_only {
            self.same("ro", "1", "0")?;
        }
        Ok(state)
    }

    /// Takes the medium out if the host lets it.
    pub fn eject(&self) -> Result<(), LunError> {
        // An empty write would not reach the kernel at all.
        self.write("file", "\n")?;
        self.expect_empty()
    }

    /// Takes the medium out. The host gets errors if it uses it.
    pub fn force_eject(&self) -> Result<(), LunError> {
        self.write("forced_eject", "1")?;
        self.expect_empty()
    }

    fn expect_empty(&self) -> Result<(), LunError> {
        self.same("file", "", &self.read("file")?)
    }

    fn same(&self, attribute: &'static str, wanted: &str, found: &str) -> Result<(), LunError> {
        if wanted == found {
            return Ok(());
        }
        let (wanted, found) = (wanted.to_owned(), found.to_owned());
        Err(LunError::NotTaken { id: self.id, attribute, wanted, found })
    }

    fn flag(&self, attribute: &'static str) -> Result<bool, LunError> {
        Ok(self.read(attribute)? != "0")
    }

    fn read(&self, attribute: &'static str) -> Result<String, LunError> {
        let text = fs::read_to_string(self.dir.join(attribute));
        let text = text.map_err(|source| LunError::Io { id: self.id, attribute, source })?;
        Ok(text.trim_end_matches('\n').to_owned())
    }

    fn write(&self, attribute: &'static str, value: &str) -> Result<(), LunError> {
        let written = fs::write(self.dir.join(attribute), value);
        written.map_err(|source| explain(self.id, attribute, value, source))
    }

    fn file_error(&self, file: &Path, source: io::Error) -> LunError {
        match source.raw_os_error() {
            Some(ENOENT) => LunError::NoFile { id: self.id, file: file.to_owned() },
            _ => LunError::Io { id: self.id, attribute: "file", source },
        }
    }
}

fn bit(value: bool) -> &'static str {
    if value { "1" } else { "0" }
}

fn explain(id: LunId, attribute: &'static str, value: &str, source: io::Error) -> LunError {
    match source.raw_os_error() {
        Some(EBUSY) => LunError::HostHolds { id },
        Some(EINVAL) => LunError::Refused { id, attribute, value: value.trim_end().to_owned() },
        Some(ENOSPC) => LunError::NoSpace { id, attribute },
        _ => LunError::Io { id, attribute, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: LunId = LunId { function: 0, lun: 3 };

    fn lun(cdrom: &str) -> (tempfile::TempDir, Attributes) {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in
            [("file", ""), ("ro", "0\n"), ("cdrom", cdrom), ("nofua", "0\n"), ("forced_eject", "")]
        {
            fs::write(dir.path().join(name), value).unwrap();
        }
        let attributes = Attributes::new(ID, dir.path().to_owned());
        (dir, attributes)
    }

    fn medium(dir: &Path) -> Insert {
        let file = dir.join("image");
        fs::write(&file, "x").unwrap();
        Insert { file, read_only: false, no_fua: false }
    }

    #[test]
    fn what_is_inserted_is_read_back() {
        let (dir, lun) = lun("0\n");
        let link = dir.path().join("link");
        let insert = medium(dir.path());
        std::os::unix::fs::symlink(&insert.file, &link).unwrap();
        let state =
            lun.insert(&Insert { file: link, read_only: true, no_fua: true }, 1 << 20).unwrap();
        let file = Some(insert.file.canonicalize().unwrap());
        assert_eq!(state, LunState { file, read_only: true, kind: Kind::Disk, no_fua: true });
        assert!(matches!(lun.insert(&insert, 1 << 20), Err(LunError::Occupied { .. })));
    }

    #[test]
    fn an_ejection_that_did_nothing_is_no_success() {
        let (dir, lun) = lun("0\n");
        lun.insert(&medium(dir.path()), 1 << 20).unwrap();
        let error = lun.force_eject().unwrap_err();
        assert!(matches!(error, LunError::NotTaken { attribute: "file", .. }), "{error}");
        lun.eject().unwrap();
        assert_eq!(lun.state().unwrap().file, None);
    }

    #[test]
    fn a_cd_that_would_be_cut_is_refused() {
        let (dir, lun) = lun("1\n");
        let insert = medium(dir.path());
        assert!(
            matches!(lun.insert(&insert, MAX_CD + 1), Err(LunError::CdTooLarge { size, .. }) if size == MAX_CD + 1)
        );
        assert!(matches!(lun.insert(&insert, 2048), Err(LunError::TooSmall { .. })));
        let state = lun.insert(&insert, MAX_CD).unwrap();
        assert!(state.read_only, "whatever was asked for");
    }

    #[test]
    fn errors_are_told_apart() {
        let error = |errno| explain(ID, "file", "/x\n", io::Error::from_raw_os_error(errno));
        assert!(matches!(error(EBUSY), LunError::HostHolds { .. }));
        assert!(matches!(error(EINVAL), LunError::Refused { value, .. } if value == "/x"));
        assert!(matches!(error(ENOSPC), LunError::NoSpace { .. }));
        assert!(matches!(error(5), LunError::Io { .. }));
        let (dir, lun) = lun("0\n");
        let gone = Insert { file: dir.path().join("gone"), read_only: false, no_fua: false };
        assert!(matches!(lun.insert(&gone, 512), Err(LunError::NoFile { .. })));
    }
}
