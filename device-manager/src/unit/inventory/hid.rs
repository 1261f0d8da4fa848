// SPDX-License-Identifier: MIT OR Apache-2.0
//! HID devices in sysfs: those of USB interfaces, and those that `/dev/uhid` made.

use std::fs;
use std::path::{Path, PathBuf};

use kernel_abi::hid::HID_MAX_DESCRIPTOR_SIZE;

use super::folders::{inner, line, name, under};
use crate::hid::kinds;

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

/// A bus, a vendor, a product and a number: `0003:046D:C31C.0001`.
fn is_hid(name: &str) -> bool {
    matches!(name.as_bytes(), [_, _, _, _, b':', _, _, _, _, b':', ..])
}

/// What drivers tell of the reports of a device.
pub(super) struct Told {
    /// As [`kinds`] has it, of all interfaces.
    pub kinds: Vec<&'static str>,
    /// Whether each HID interface of the device has told.
    pub all: bool,
}

impl Told {
    /// Of a device with these folders in those of its interfaces. One that is not configured yet has fewer interfaces than it says.
    pub fn by(path: &Path, inner: &[PathBuf]) -> Self {
        const HID_CLASS: &str = "03";
        let interfaces = under(path, |name| name.contains(':'));
        let number = line(path, "bNumInterfaces").and_then(|text| text.trim().parse().ok());
        let mut told = Self { kinds: vec![], all: interfaces.len() >= number.unwrap_or(1) };
        for interface in interfaces {
            let of_it = inner.iter().filter(|hid| hid.parent() == Some(&interface));
            let own = of_it.filter(|hid| is_hid(&name(hid)));
            let all = own.flat_map(|hid| under(hid, is_hid).into_iter().chain([hid.clone()]));
            let descriptors: Vec<_> = all.filter_map(|hid| report_descriptor(&hid)).collect();
            told.kinds.extend(descriptors.iter().flat_map(|descriptor| kinds(descriptor)));
            let is_hid = line(&interface, "bInterfaceClass").as_deref() == Some(HID_CLASS);
            told.all &= !is_hid || !descriptors.is_empty();
        }
        told
    }
}

/// The report descriptor of a HID device; none if there is nothing in it.
fn report_descriptor(hid: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(hid.join("report_descriptor")).ok()?;
    bytes.truncate(HID_MAX_DESCRIPTOR_SIZE);
    Some(bytes).filter(|bytes| !bytes.is_empty())
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
