// SPDX-License-Identifier: MIT OR Apache-2.0
//! Folders of sysfs below a device, and what drivers made of it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::record::cut;

/// Device, interface, host, target, unit, `block`, disk, partition.
const DEPTH: usize = 8;

/// A line of sysfs; nothing if it is not there.
#[must_use]
pub fn line(path: &Path, name: &str) -> Option<String> {
    let bytes = fs::read(path.join(name)).ok()?;
    Some(cut(String::from_utf8_lossy(&bytes).trim_end()))
}

pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What is in a folder and has a name like that.
pub(super) fn under(path: &Path, like: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let all =
        fs::read_dir(path).map(|all| all.filter_map(|entry| Some(entry.ok()?.path())).collect());
    let mut all: Vec<PathBuf> = all.unwrap_or_default();
    all.retain(|path| like(&name(path)));
    all.sort();
    all
}

/// Folders in a folder; neither those of endpoints nor that of power, of which each device has many.
fn folders(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return vec![] };
    let entries = entries.filter_map(Result::ok);
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut all: Vec<PathBuf> = dirs.map(|entry| entry.path()).collect();
    all.retain(|path| {
        let name = name(path);
        name != "power" && !name.starts_with("ep_")
    });
    all.sort();
    all
}

/// The folders in those of a device's interfaces: what its drivers made.
pub(super) fn inner(path: &Path) -> Vec<PathBuf> {
    let interfaces = under(path, |name| name.contains(':'));
    interfaces.iter().flat_map(|interface| folders(interface)).collect()
}

/// A disk of a device: a logical unit with a medium.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDevice {
    /// `/dev/sda`.
    pub node: String,
    /// Its folder in sysfs.
    pub folder: PathBuf,
}

/// Disks of a device: `INTERFACE/host0/target0:0:0/0:0:0:0/block/sda`.
#[must_use]
pub fn disks(path: &Path) -> Vec<BlockDevice> {
    disks_in(&inner(path))
}

pub(super) fn disks_in(inner: &[PathBuf]) -> Vec<BlockDevice> {
    let hosts = inner.iter().filter(|path| name(path).starts_with("host"));
    let mut folders: Vec<PathBuf> = hosts.cloned().collect();
    for like in ["target", "", "block", "sd"] {
        let inner = folders.iter().flat_map(|path| under(path, |name| name.starts_with(like)));
        folders = inner.collect();
    }
    folders.retain(|path| line(path, "size").is_some_and(|size| size != "0"));
    let disk = |folder: PathBuf| BlockDevice { node: format!("/dev/{}", name(&folder)), folder };
    folders.into_iter().map(disk).collect()
}

/// Nodes of serial lines: `INTERFACE/tty/ttyACM0`, or `INTERFACE/ttyUSB0/tty/ttyUSB0`.
pub(super) fn lines_in(inner: &[PathBuf]) -> Vec<String> {
    let mut found = vec![];
    for folder in inner.iter().filter(|path| name(path).starts_with("tty")) {
        let at = if folder.join("tty").is_dir() { folder.join("tty") } else { folder.clone() };
        let nodes = under(&at, |name| name.starts_with("tty"));
        let nodes = nodes.iter().filter(|node| node.join("dev").exists());
        found.extend(nodes.map(|node| format!("/dev/{}", name(node))));
    }
    found.sort();
    found
}

/// What is mounted and swapped to on this machine.
#[derive(Debug)]
pub struct InUse {
    /// Major and minor number of each file system's device.
    mounted: Vec<String>,
    swaps: String,
}

impl InUse {
    /// As it is now.
    #[must_use]
    pub fn now() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounted = mounts.lines().filter_map(|line| line.split(' ').nth(2)).map(str::to_owned);
        let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
        Self { mounted: mounted.collect(), swaps }
    }

    /// A block device in or below one of these folders that is mounted, swapped to, or part of another; its name.
    #[must_use]
    pub fn any(&self, within: Vec<PathBuf>) -> Option<String> {
        let mut rest: Vec<_> = within.into_iter().map(|path| (path, 0)).collect();
        while let Some((folder, depth)) = rest.pop() {
            let is_block = folder.join("dev").exists() && folder.join("size").exists();
            if is_block {
                let (name, number) = (name(&folder), line(&folder, "dev").unwrap_or_default());
                let held =
                    fs::read_dir(folder.join("holders")).is_ok_and(|mut all| all.next().is_some());
                let swap = format!("/dev/{name} ");
                let swapped = self.swaps.lines().any(|line| line.starts_with(&swap));
                if held || swapped || self.mounted.contains(&number) {
                    return Some(name);
                }
            }
            if depth < DEPTH {
                rest.extend(folders(&folder).into_iter().map(|path| (path, depth + 1)));
            }
        }
        None
    }
}
