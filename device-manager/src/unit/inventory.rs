// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is plugged in, as sysfs tells (`Documentation/ABI/testing/sysfs-bus-usb`), and the BMCs that are offered by their nodes.
//!
//! A device is known by vendor, product and serial number, wherever it is plugged in; one without a serial number, or with that of another, by
//! its port as well. What it is comes from its descriptors (USB 2.0, section 9.6), which are there also while it is given
//! away and has no interfaces here.

pub mod bmc;
mod hid;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use hid::{HidDevice, event_of, hids, nodes_of_hid};

use crate::pattern::Pattern;
use crate::record::{DISK, Device, DeviceId, Found, Function, HID, Machine, SERIAL, Stamp, cut};

/// Most bytes of a device's descriptors that are read: a device with many configurations has a few KiB.
const MAX_DESCRIPTORS: usize = 64 * 1024;
/// Class code of hubs.
const HUB: &str = "09";

/// What of it is offered.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// A device that fits one of these; all if there are none.
    pub offer: Vec<Pattern>,
    /// Never those that fit one of these.
    pub never: Vec<Pattern>,
    /// What a machine needs itself is given away only if it fits one of these.
    pub named: Vec<Pattern>,
    /// Those that fit one of these are set up before their parts are given away.
    pub setup: Vec<Pattern>,
    /// Nodes of BMCs; those alone, and whatever `offer` says.
    pub bmcs: Vec<PathBuf>,
}

/// Types without which a machine may not be reached any more.
const SENSITIVE: [&str; 3] = ["keyboard", "network", "hid-boot"];

/// Looks at all devices of the machine.
#[must_use]
pub fn scan(sys: &Path, unit: &Machine, offer: &Offer) -> Vec<Found> {
    let mut all: BTreeMap<String, Found> = BTreeMap::new();
    for found in offer.bmcs.iter().filter_map(|node| bmc::look(sys, node)) {
        let device = shown(unit, &found);
        if !offer.never.iter().any(|pattern| pattern.fits(&device)) {
            all.insert(found.key.clone(), found);
        }
    }
    for path in under(&sys.join("bus/usb/devices"), |_| true) {
        let Some(mut found) = look(&path) else { continue };
        if all.contains_key(&found.key) {
            found.key = format!("{} at {}", found.key, found.path);
        }
        let device = shown(unit, &found);
        let fits = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.fits(&device));
        if fits(&offer.never)
            || !(offer.offer.is_empty() || fits(&offer.offer) || fits(&offer.named))
        {
            continue;
        }
        let named = fits(&offer.named);
        found.needs_setup = fits(&offer.setup);
        found.unavailable = withheld(&path, &found).filter(|_| !named);
        if let Some(why) = kept_keyboard(&found).filter(|_| !named) {
            let parts = found.parts.iter().filter(|(kind, _)| kind == HID);
            let kept = parts.map(|(_, node)| (node.clone(), why.clone()));
            found.busy.extend(kept.collect::<Vec<_>>());
        }
        found.types.retain(|kind| kind != "hid-boot");
        all.insert(found.key.clone(), found);
    }
    all.into_values().collect()
}

/// Why a machine keeps a device for itself, unless it is named.
#[must_use]
pub fn withheld(path: &Path, found: &Found) -> Option<String> {
    sensitive(found, &SENSITIVE)
        .or_else(|| in_use(path).map(|what| format!("{what} is in use at its unit")))
}

/// Why it keeps the HID parts of a device for itself: any of them may be what the keyboard's keys come from.
#[must_use]
pub fn kept_keyboard(found: &Found) -> Option<String> {
    sensitive(found, &["keyboard", "hid-boot"])
}

fn sensitive(found: &Found, kinds: &[&str]) -> Option<String> {
    let kind = found.types.iter().find(|kind| kinds.contains(&kind.as_str()))?;
    let kind = if kind == "hid-boot" { "keyboard" } else { kind };
    Some(format!("a {kind} is given away only if the unit's configuration names it"))
}

/// As patterns see it.
fn shown(unit: &Machine, found: &Found) -> Device {
    Device {
        id: DeviceId::new(unit, &found.key),
        unit: unit.clone(),
        gen_no: 0,
        found: found.clone(),
        functions: vec![Function::new("whole", None)],
        stamp: Stamp { epoch: 0, seq: 0, at: 0 },
    }
}

/// A line of sysfs; nothing if it is not there.
#[must_use]
pub fn line(path: &Path, name: &str) -> Option<String> {
    let bytes = fs::read(path.join(name)).ok()?;
    Some(cut(String::from_utf8_lossy(&bytes).trim_end()))
}

/// Looks at one device: none if it is a hub, an interface, half gone, or itself from another machine.
#[must_use]
pub fn look(path: &Path) -> Option<Found> {
    let name = path.file_name()?.to_str()?;
    // `2-1` and `2-1.4` are devices, `usb2` is a root hub, `2-1:1.0` an interface.
    if name.contains(':') || !name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let real = fs::canonicalize(path).ok()?;
    if real.iter().any(|part| part.to_string_lossy().starts_with("vhci_hcd")) {
        return None;
    }
    if line(path, "bDeviceClass")? == HUB {
        return None;
    }
    let bytes = fs::read(path.join("descriptors")).ok()?;
    let bytes = &bytes[..bytes.len().min(MAX_DESCRIPTORS)];
    let (vendor, product) = (line(path, "idVendor")?, line(path, "idProduct")?);
    let text = |name| line(path, name).unwrap_or_default();
    let serial = text("serial");
    let key = match serial.as_str() {
        "" => format!("{vendor}:{product} at {name}"),
        serial => format!("{vendor}:{product} {serial}"),
    };
    let disks = disks(path);
    let busy = disks.iter().filter_map(|disk| {
        let what = in_use(disk.folder.parent()?)?;
        Some((disk.node.clone(), format!("{what} is in use at its unit")))
    });
    let busy = busy.collect();
    let disks = disks.into_iter().map(|disk| (DISK.to_owned(), disk.node));
    let hids = hids(path).into_iter().map(|hid| (HID.to_owned(), hid.node));
    // Media come and go: the others keep their places.
    let parts: Vec<_> = nodes(path).into_iter().chain(hids).chain(disks).collect();
    let mut types = types(bytes);
    for (kind, _) in &parts {
        if !types.contains(kind) {
            types.push(kind.clone());
        }
    }
    Some(Found {
        key: cut(&key),
        bus: "usb".to_owned(),
        path: name.to_owned(),
        types,
        vendor,
        product,
        manufacturer: text("manufacturer"),
        model: text("product"),
        serial,
        descriptors: digest(bytes),
        parts,
        unavailable: None,
        busy,
        needs_setup: false,
    })
}

/// What tells one set of descriptors from another.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    u64::from_le_bytes(std::array::from_fn(|i| digest[i]))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What is in a folder and has a name like that.
fn under(path: &Path, like: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let all =
        fs::read_dir(path).map(|all| all.filter_map(|entry| Some(entry.ok()?.path())).collect());
    let mut all: Vec<PathBuf> = all.unwrap_or_default();
    all.retain(|path| like(&name(path)));
    all.sort();
    all
}

fn interfaces(path: &Path) -> Vec<PathBuf> {
    under(path, |name| name.contains(':'))
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
    let mut folders = interfaces(path);
    for like in ["host", "target", "", "block", "sd"] {
        let inner = folders.iter().flat_map(|path| under(path, |name| name.starts_with(like)));
        folders = inner.collect();
    }
    folders.retain(|path| line(path, "size").is_some_and(|size| size != "0"));
    let disk = |folder: PathBuf| BlockDevice { node: format!("/dev/{}", name(&folder)), folder };
    folders.into_iter().map(disk).collect()
}

/// Nodes of serial lines: `INTERFACE/tty/ttyACM0`, or `INTERFACE/ttyUSB0/tty/ttyUSB0`.
fn nodes(path: &Path) -> Vec<(String, String)> {
    let mut found = vec![];
    for interface in interfaces(path) {
        for folder in under(&interface, |name| name.starts_with("tty")) {
            let at = if folder.join("tty").is_dir() { folder.join("tty") } else { folder };
            for node in under(&at, |name| name.starts_with("tty")) {
                if node.join("dev").exists() {
                    found.push((SERIAL.to_owned(), format!("/dev/{}", name(&node))));
                }
            }
        }
    }
    found.sort();
    found
}

/// A block device of this one that is mounted, swapped to, or part of another; its name.
#[must_use]
pub fn in_use(path: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let mounted: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    let mut folders = vec![(path.to_owned(), 0)];
    // Device, interface, host, target, unit, `block`, disk, partition.
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.filter_map(Result::ok) {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || depth >= 8 {
                continue;
            }
            let at = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_block = at.join("dev").exists() && at.join("size").exists();
            if is_block {
                let number = line(&at, "dev").unwrap_or_default();
                let held =
                    fs::read_dir(at.join("holders")).is_ok_and(|mut all| all.next().is_some());
                let swapped = swaps.lines().any(|line| line.starts_with(&format!("/dev/{name} ")));
                if held || swapped || mounted.contains(&number.as_str()) {
                    return Some(name);
                }
            }
            folders.push((at, depth + 1));
        }
    }
    None
}

/// What a device is, by the classes of its interfaces (the USB-IF's list of class codes).
#[must_use]
pub fn types(descriptors: &[u8]) -> Vec<String> {
    const INTERFACE: u8 = 4;
    let mut types: Vec<&str> = vec![];
    let mut rest = descriptors;
    while let [len, kind, ..] = *rest {
        let len = usize::from(len).max(2);
        let Some((descriptor, next)) = rest.split_at_checked(len) else { break };
        rest = next;
        let [_, _, _, alternate, _, class, sub, protocol, ..] = *descriptor else { continue };
        if kind != INTERFACE || alternate != 0 {
            continue;
        }
        let one: &[&str] = match (class, sub, protocol) {
            (1, ..) => &["audio"],
            (2, 2, _) => &["serial"],
            (2, 6 | 0x0a..=0x0e, _) => &["network"],
            (3, 1, 1) => &["keyboard", "hid"],
            (3, 1, 2) => &["mouse", "hid"],
            (3, 1, _) => &["hid-boot", "hid"],
            (3, ..) => &["hid"],
            (6, ..) => &["camera"],
            (7, ..) => &["printer"],
            (8, ..) => &["disk"],
            (0x0b, ..) => &["smartcard"],
            (0x0e, ..) => &["video"],
            (0xe0, 1, 1) => &["bluetooth"],
            (0xe0, 1, 3) => &["network"],
            (0xff, ..) => &["vendor"],
            _ => &[],
        };
        for kind in one {
            if !types.contains(kind) {
                types.push(kind);
            }
        }
    }
    types.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn plug(sys: &Path, controller: &str, name: &str, files: &[(&str, &[u8])]) {
        let real = sys.join("devices").join(controller).join(name);
        fs::create_dir_all(&real).unwrap();
        for (file, bytes) in files {
            fs::write(real.join(file), bytes).unwrap();
        }
        let bus = sys.join("bus/usb/devices");
        fs::create_dir_all(&bus).unwrap();
        symlink(real, bus.join(name)).unwrap();
    }

    const DISK: [u8; 9] = [9, 4, 0, 0, 2, 8, 6, 0x50, 0];
    const KEYS: [u8; 9] = [9, 4, 0, 0, 1, 3, 1, 1, 0];

    fn files<'a>(serial: &'a [u8], descriptors: &'a [u8]) -> Vec<(&'static str, &'a [u8])> {
        vec![
            ("bDeviceClass", b"00\n"),
            ("idVendor", b"0781\n"),
            ("idProduct", b"5567\n"),
            ("serial", serial),
            ("product", b"Cruzer \xff\n"),
            ("descriptors", descriptors),
        ]
    }

    fn found(sys: &Path, offer: &Offer) -> Vec<(String, Option<String>)> {
        let all = scan(sys, &"u".parse().unwrap(), offer);
        all.into_iter().map(|found| (found.key, found.unavailable)).collect()
    }

    #[test]
    fn devices_are_known_by_what_they_are() {
        let sys = tempfile::tempdir().unwrap();
        let sys = sys.path();
        plug(sys, "pci", "1-1", &files(b"A\n", &DISK));
        plug(sys, "pci", "1-2", &files(b"A\n", &DISK));
        plug(sys, "pci", "1-3", &files(b"", &KEYS));
        plug(sys, "vhci_hcd.0/usb3", "3-1", &files(b"B\n", &DISK));
        plug(sys, "pci", "usb1", &files(b"C\n", &DISK));
        plug(sys, "pci", "1-1:1.0", &[]);
        let mut hub = files(b"H\n", &DISK);
        hub[0].1 = b"09\n";
        plug(sys, "pci", "1-4", &hub);
        let all = found(sys, &Offer::default());
        let keys: Vec<&str> = all.iter().map(|one| one.0.as_str()).collect();
        assert_eq!(keys, ["0781:5567 A", "0781:5567 A at 1-2", "0781:5567 at 1-3"]);
        assert!(all[0].1.is_none() && all[2].1.as_ref().unwrap().contains("keyboard"), "{all:?}");
        let pattern = |text: &str| vec![text.parse::<Pattern>().unwrap()];
        let named = Offer { named: pattern("type=keyboard"), ..Offer::default() };
        assert_eq!(found(sys, &named)[2].1, None);
        let never = Offer { never: pattern("type=disk"), ..Offer::default() };
        assert_eq!(found(sys, &never).len(), 1);
        let some = Offer { offer: pattern("path=1-2"), ..Offer::default() };
        assert_eq!(found(sys, &some).len(), 1);
    }

    #[test]
    fn types_come_from_interfaces_and_nonsense_is_none() {
        assert_eq!(types(&[&[2, 1][..], &KEYS, &DISK].concat()), ["keyboard", "hid", "disk"]);
        for nonsense in [&[0][..], &[0, 0, 0], &[9, 4, 0, 0], &[255; 30], &[1; 9]] {
            let _ = types(nonsense);
        }
    }

    #[test]
    fn serial_lines_are_parts() {
        let sys = tempfile::tempdir().unwrap();
        plug(sys.path(), "pci", "1-1", &files(b"A\n", &DISK));
        let device = sys.path().join("devices/pci/1-1");
        for node in ["1-1:1.0/tty/ttyACM0", "1-1:1.2/ttyUSB3/tty/ttyUSB3"] {
            fs::create_dir_all(device.join(node)).unwrap();
            fs::write(device.join(node).join("dev"), "1:1\n").unwrap();
        }
        let all = scan(sys.path(), &"u".parse().unwrap(), &Offer::default());
        let parts: Vec<&str> = all[0].parts.iter().map(|part| part.1.as_str()).collect();
        assert_eq!(parts, ["/dev/ttyACM0", "/dev/ttyUSB3"]);
        assert!(all[0].types.contains(&"serial".to_owned()));
    }

    #[test]
    fn hid_devices_are_parts_unless_a_keyboard_is_kept() {
        let sys = tempfile::tempdir().unwrap();
        let descriptors = [&KEYS[..], &DISK].concat();
        plug(sys.path(), "pci", "1-1", &files(b"A\n", &descriptors));
        let hid = sys.path().join("devices/pci/1-1/1-1:1.0/0003:046D:C52B.0001");
        for folder in ["hidraw/hidraw0", "input/input3/event2", "input/input3/mouse0"] {
            fs::create_dir_all(hid.join(folder)).unwrap();
        }
        for folder in ["hidraw/hidraw1", "input/input4/event5"] {
            fs::create_dir_all(hid.join("0003:046D:4024.0002").join(folder)).unwrap();
        }
        let all = hids(&sys.path().join("bus/usb/devices/1-1"));
        assert_eq!(all.len(), 1, "what is below it belongs to it");
        let events: Vec<_> =
            all[0].inputs.iter().map(|input| name(&event_of(input).unwrap())).collect();
        assert_eq!(
            (all[0].node.as_str(), events),
            ("/dev/hidraw0", vec!["event5".into(), "event2".into()])
        );
        let mut offer = Offer::default();
        let found = scan(sys.path(), &"u".parse().unwrap(), &offer).remove(0);
        assert_eq!(found.parts, [("hid".to_owned(), "/dev/hidraw0".to_owned())]);
        assert!(found.busy[0].0 == "/dev/hidraw0" && found.busy[0].1.contains("keyboard"));
        offer.named = vec!["type=keyboard".parse().unwrap()];
        assert_eq!(scan(sys.path(), &"u".parse().unwrap(), &offer).remove(0).busy, []);
        let bus = sys.path().join("bus/hid/devices");
        fs::create_dir_all(&bus).unwrap();
        symlink(&hid, bus.join("0003:046D:C52B.0001")).unwrap();
        fs::write(hid.join("uevent"), "HID_ID=3\nHID_PHYS=there/1\n").unwrap();
        assert_eq!(nodes_of_hid(sys.path(), "there/1"), ["/dev/input/event2", "/dev/hidraw0"]);
        assert_eq!(nodes_of_hid(sys.path(), "there/11"), [""; 0]);
    }

    #[test]
    fn disks_with_a_medium_are_parts_and_one_in_use_is_told() {
        let sys = tempfile::tempdir().unwrap();
        plug(sys.path(), "pci", "1-1", &files(b"A\n", &DISK));
        let target = sys.path().join("devices/pci/1-1/1-1:1.0/host2/target2:0:0");
        for (lun, name, size) in [(0, "sdb", "16\n"), (1, "sdc", "16\n"), (2, "sdd", "0\n")] {
            let disk = target.join(format!("2:0:0:{lun}/block/{name}"));
            fs::create_dir_all(disk.join("holders")).unwrap();
            for (file, text) in [("dev", "8:16\n"), ("size", size)] {
                fs::write(disk.join(file), text).unwrap();
            }
        }
        let look = || scan(sys.path(), &"u".parse().unwrap(), &Offer::default()).remove(0);
        let parts = |found: &Found| -> Vec<String> {
            assert!(found.parts.iter().all(|part| part.0 == "disk"));
            found.parts.iter().map(|part| part.1.clone()).collect()
        };
        let free = look();
        assert_eq!(parts(&free), ["/dev/sdb", "/dev/sdc"]);
        assert_eq!((free.unavailable, free.busy), (None, vec![]));
        fs::write(target.join("2:0:0:1/block/sdc/holders/dm-0"), "").unwrap();
        let used = look();
        assert_eq!(parts(&used), ["/dev/sdb", "/dev/sdc"]);
        assert!(used.unavailable.unwrap().contains("sdc is in use"), "all of it");
        let why = "sdc is in use at its unit".to_owned();
        assert_eq!(used.busy, [("/dev/sdc".to_owned(), why)], "and the one disk");
    }
}
