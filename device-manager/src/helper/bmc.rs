// SPDX-License-Identifier: MIT OR Apache-2.0
//! Opens the node of a BMC for the unit, if the configuration offers it.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::usbip::UsbipError;
use crate::record::Found;
use crate::unit::inventory::{Offer, bmc};

/// Opens `node`, if it is one of those that are offered, and the BMC that it is to be; `check` lets it go.
///
/// # Errors
/// See [`UsbipError`].
pub fn open(
    sys: &Path,
    (node, descriptors): (&str, u64),
    offer: &Offer,
    check: impl Fn(&Found) -> Option<String>,
) -> Result<OwnedFd, UsbipError> {
    let path = Path::new(node);
    if !offer.bmcs.iter().any(|offered| offered == path) {
        let why = format!("{node} is not offered by the unit's configuration");
        return Err(UsbipError::Withheld(why));
    }
    let identified = || {
        let found = bmc::look(sys, path).ok_or_else(|| UsbipError::NoDevice(node.to_owned()))?;
        if found.descriptors != descriptors {
            return Err(UsbipError::Another(node.to_owned()));
        }
        Ok(found)
    };
    if let Some(why) = check(&identified()?) {
        return Err(UsbipError::Withheld(why));
    }
    let at = |source| UsbipError::File { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
    let file = options.open(path).map_err(at)?;
    // As of now it is open, and so its number is nobody else's.
    let found = identified()?;
    let number = file.metadata().map_err(at)?.rdev();
    let is_it = bmc::digest_of(&found.model, number) == descriptors;
    if is_it { Ok(file.into()) } else { Err(UsbipError::Another(node.to_owned())) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// `/dev/null`, 1:3, stands for a node.
    #[test]
    fn only_what_is_offered_and_the_same_still_is_opened() {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("dev/char/1:3");
        for folder in [&device, &sys.path().join("class/ipmi")] {
            std::fs::create_dir_all(folder).unwrap();
        }
        symlink(sys.path().join("class/ipmi"), device.join("subsystem")).unwrap();
        let node = "/dev/null";
        let found = bmc::look(sys.path(), Path::new(node)).unwrap();
        let open = |node, descriptors, bmcs: &[&str], kept: Option<&str>| {
            let bmcs = bmcs.iter().map(Into::into).collect();
            let offer = Offer { bmcs, ..Offer::default() };
            let opened = open(sys.path(), (node, descriptors), &offer, |_| kept.map(str::to_owned));
            opened.map_err(|error| error.to_string())
        };
        let good = found.descriptors;
        assert!(open(node, good, &[node], None).is_ok());
        let why = |opened: Result<OwnedFd, String>| opened.unwrap_err();
        assert!(why(open(node, good, &[], None)).contains("not offered"));
        assert!(why(open("/dev/zero", good, &[node], None)).contains("not offered"));
        assert!(why(open(node, good ^ 1, &[node], None)).contains("another device"));
        assert_eq!(why(open(node, good, &[node], Some("mine"))), "mine");
        let other = "/dev/zero";
        assert!(why(open(other, good, &[other], None)).contains("no such device"));
    }
}
