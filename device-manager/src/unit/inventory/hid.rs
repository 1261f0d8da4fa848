// SPDX-License-Identifier: MIT OR Apache-2.0
//! HID devices in sysfs: those of USB interfaces, and those that `/dev/uhid` made.

use std::fs;
use std::path::{Path, PathBuf};

use super::folders::{inner, name, under};

/// A HID device of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HidDevice {
    /// `/dev/hidraw0`.
    pub node: String,
    /// Its folder in sysfs.
    pub folder: PathBuf,
    /// Folders of the input devices that the kernel made of it, `input3`.
    pub inputs: Vec<PathBuf>,
}

/// HID devices of a device: `INTERFACE/0003:046D:C31C.0001/hidraw/hidraw0`, with `input/input3` beside that. What a receiver makes of
/// its own protocol is below: it belongs to the one above.
#[must_use]
pub fn hids(path: &Path) -> Vec<HidDevice> {
    hids_in(&inner(path))
}

pub(super) fn hids_in(inner: &[PathBuf]) -> Vec<HidDevice> {
    let is_hid = |name: &str| matches!(name.as_bytes(), [_, _, _, _, b':', _, _, _, _, b':', ..]);
    let mut found = vec![];
    for hid in inner.iter().filter(|path| is_hid(&name(path))) {
        let all = under(hid, is_hid).into_iter().chain([hid.clone()]);
        let inputs =
            all.flat_map(|hid| under(&hid.join("input"), |name| name.starts_with("input")));
        let inputs: Vec<PathBuf> = inputs.collect();
        for folder in under(&hid.join("hidraw"), |name| name.starts_with("hidraw")) {
            let node = format!("/dev/{}", name(&folder));
            found.push(HidDevice { node, folder, inputs: inputs.clone() });
        }
    }
    found
}

/// The folder of the event node of an input device, `event4`.
#[must_use]
pub fn event_of(input: &Path) -> Option<PathBuf> {
    under(input, |name| name.starts_with("event")).pop()
}

/// Nodes of a HID device that has these words for where it is (`HID_PHYS`), such as one made by `/dev/uhid`; those of programs that
/// want raw reports last, as the kernel makes them last.
#[must_use]
pub fn nodes_of_hid(sys: &Path, phys: &str) -> Vec<String> {
    let wanted = format!("HID_PHYS={phys}");
    let is_it = |path: &PathBuf| {
        let told = fs::read_to_string(path.join("uevent")).unwrap_or_default();
        told.lines().any(|line| line == wanted)
    };
    let Some(hid) = under(&sys.join("bus/hid/devices"), |_| true).into_iter().find(is_it) else {
        return vec![];
    };
    let inputs = under(&hid.join("input"), |name| name.starts_with("input"));
    let events = inputs.iter().filter_map(|input| event_of(input));
    let raw = under(&hid.join("hidraw"), |name| name.starts_with("hidraw"));
    let events = events.map(|folder| format!("/dev/input/{}", name(&folder)));
    events.chain(raw.iter().map(|folder| format!("/dev/{}", name(folder)))).collect()
}
