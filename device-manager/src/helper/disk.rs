// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opens a disk of a USB device for the unit, which may not open it itself.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::usbip::{Identity, Usbip, UsbipError};
use crate::record::Found;
use crate::unit::inventory::{BlockDevice, InUse, disks, line};

/// Who had it last has closed it within this time.
const CLOSED: Duration = Duration::from_secs(1);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(20);

/// Opens the disk `node` of a device, if the device is the one that it is to be, `check` lets it go, and nobody uses the disk: not
/// mounted, not part of another, and from now on neither (`O_EXCL`). Whether it can only be read: it is so wanted, or the disk is
/// protected.
///
/// # Errors
/// See [`UsbipError`].
pub fn open(
    usbip: &Usbip,
    bus_id: &str,
    wanted: &Identity,
    (node, read_only): (&str, bool),
    check: impl Fn(&Found) -> Option<String>,
) -> Result<(File, bool), UsbipError> {
    let (path, found) = usbip.identified(bus_id, wanted)?;
    if let Some(why) = check(&found) {
        return Err(UsbipError::Withheld(why));
    }
    let disk = disk_of(&path, node)?;
    let read_only = read_only || line(&disk.folder, "ro").as_deref() != Some("0");
    let opened = exclusive(Path::new(node), !read_only).map_err(|error| refused(node, error))?;
    // As of now it is open, and so its number is nobody else's.
    usbip.identified(bus_id, wanted)?;
    let disk = disk_of(&path, node)?;
    let meta = opened.metadata().map_err(|error| refused(node, error))?;
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let is_it = line(&disk.folder, "dev") == Some(format!("{major}:{minor}"));
    if !meta.file_type().is_block_device() || !is_it {
        return Err(UsbipError::Another(node.to_owned()));
    }
    Ok((opened, read_only))
}

fn disk_of(path: &Path, node: &str) -> Result<BlockDevice, UsbipError> {
    let disk = disks(path).into_iter().find(|disk| disk.node == node);
    let disk = disk.ok_or_else(|| {
        UsbipError::Withheld(format!("{node}: there is no such disk any more, or no medium in it"))
    })?;
    match disk.folder.parent().and_then(|folder| InUse::now().any(vec![folder.to_owned()])) {
        Some(what) => Err(UsbipError::Withheld(format!("{what} is in use at its unit"))),
        None => Ok(disk),
    }
}

fn exclusive(node: &Path, write: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(write).custom_flags(OFlags::EXCL.bits() as i32);
    let end = Instant::now() + CLOSED;
    loop {
        match options.open(node) {
            Err(error) if is(&error, Errno::BUSY) && Instant::now() < end => {
                std::thread::sleep(AGAIN);
            }
            done => return done,
        }
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    Errno::from_io_error(error) == Some(errno)
}

fn refused(node: &str, error: io::Error) -> UsbipError {
    if is(&error, Errno::BUSY) {
        return UsbipError::Withheld(format!("{node} is in use at its unit"));
    }
    UsbipError::File { path: node.into(), source: error }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::unit::inventory::look;

    /// A machine with one device with one disk, `/dev/sdzz9`, which is nowhere.
    fn machine() -> (tempfile::TempDir, Usbip, Identity) {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("bus/usb/devices/1-1");
        let disk = device.join("1-1:1.0/host0/target0:0:0/0:0:0:0/block/sdzz9");
        fs::create_dir_all(disk.join("holders")).unwrap();
        for (name, text) in
            [("bDeviceClass", "00"), ("idVendor", "1d6b"), ("idProduct", "0104"), ("serial", "X")]
        {
            fs::write(device.join(name), text).unwrap();
        }
        fs::write(device.join("descriptors"), [9, 4, 0, 0, 2, 8, 6, 0x50, 0]).unwrap();
        for (name, text) in [("dev", "8:9999"), ("size", "16"), ("ro", "0")] {
            fs::write(disk.join(name), text).unwrap();
        }
        let identity = Identity::of(&look(&device).unwrap());
        let usbip = Usbip::new(sys.path());
        (sys, usbip, identity)
    }

    const NODE: &str = "/dev/sdzz9";

    #[test]
    fn only_a_disk_of_the_very_device_is_opened() {
        let (_sys, usbip, wanted) = machine();
        let fails = |bus_id, wanted: &Identity, node| {
            open(&usbip, bus_id, wanted, (node, false), |_| None).unwrap_err()
        };
        let other = Identity { serial: "Y".to_owned(), ..wanted.clone() };
        assert!(matches!(fails("1-1", &other, NODE), UsbipError::Another(_)));
        assert!(matches!(fails("../1-1", &wanted, NODE), UsbipError::NoDevice(_)));
        for node in ["/dev/sda", "/etc/passwd", "/dev/../dev/sdzz9", ""] {
            let why = fails("1-1", &wanted, node).to_string();
            assert!(why.contains("no such disk"), "{node}: {why}");
        }
        // It passed: what fails is the opening.
        assert!(matches!(fails("1-1", &wanted, NODE), UsbipError::File { .. }));
    }

    #[test]
    fn what_is_in_use_or_kept_is_not_opened() {
        let (sys, usbip, wanted) = machine();
        let fails = |kept: Option<&str>| {
            let check = |_: &Found| kept.map(str::to_owned);
            open(&usbip, "1-1", &wanted, (NODE, false), check).unwrap_err().to_string()
        };
        assert_eq!(fails(Some("mine")), "mine");
        let disk =
            sys.path().join("bus/usb/devices/1-1/1-1:1.0/host0/target0:0:0/0:0:0:0/block/sdzz9");
        fs::write(disk.join("holders/dm-0"), "").unwrap();
        assert_eq!(fails(None), "sdzz9 is in use at its unit");
        fs::remove_file(disk.join("holders/dm-0")).unwrap();
        fs::write(disk.join("size"), "0").unwrap();
        assert!(fails(None).contains("no medium"));
    }

    #[test]
    fn who_has_it_is_waited_for_a_moment_and_then_told_of() {
        let busy = refused(NODE, Errno::BUSY.into());
        assert_eq!(busy.to_string(), "/dev/sdzz9 is in use at its unit");
    }
}
