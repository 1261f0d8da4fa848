// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is plugged in, as sysfs tells (`Documentation/ABI/testing/sysfs-bus-usb`), and the BMCs that are offered by their nodes.
//!
//! A device is known by vendor, product and serial number, wherever it is plugged in; one without a serial number, or with that of another, by
//! its port as well. What it is comes from its descriptors (USB 2.0, section 9.6), which are there also while it is given
//! away and has no interfaces here.

pub mod bmc;
mod folders;
mod hid;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use folders::{BlockDevice, InUse, disks, line};
use folders::{disks_in, inner, lines_in, under};
pub use hid::{HidDevice, event_of, hids, nodes_of_hid};
use hid::{Told, hids_in};

use crate::hid::{KEYBOARD, MOUSE};
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

/// What stands among the types of a HID device as long as no driver has told what its reports are: only here, never told.
const UNTOLD: &str = "hid-untold";
/// Types without which a machine may not be reached any more.
const SENSITIVE: [&str; 3] = [KEYBOARD, "network", UNTOLD];
/// Has a device that is given away.
const USBIP_HOST: &str = "usbip-host";

/// All devices of a machine, looked at again and again. What stays the same as long as a device is plugged in is read once: a machine may
/// have hundreds, and is looked at whenever something happens to one.
#[derive(Debug)]
pub struct Inventory {
    sys: PathBuf,
    unit: Machine,
    /// By their folders; none for what is not offered. Types are added as drivers tell them, and stay: a device that is given away has
    /// no drivers.
    known: BTreeMap<PathBuf, (Mark, Option<Found>)>,
}

/// Tells a device from another that has its folder later. The kernel tells the texts of a device only while it is authorised
/// (`usb_authorize_device`).
#[derive(Debug, PartialEq, Eq)]
struct Mark {
    inode: u64,
    authorized: Option<String>,
}

impl Mark {
    fn of(path: &Path) -> Option<Self> {
        let inode = fs::metadata(path).ok()?.ino();
        Some(Self { inode, authorized: line(path, "authorized") })
    }
}

impl Inventory {
    /// Of nothing yet.
    #[must_use]
    pub fn new(sys: &Path, unit: Machine) -> Self {
        Self { sys: sys.to_owned(), unit, known: BTreeMap::new() }
    }

    /// Looks at all of them.
    pub fn scan(&mut self, offer: &Offer) -> Vec<Found> {
        let mut all: BTreeMap<String, Found> = BTreeMap::new();
        for found in offer.bmcs.iter().filter_map(|node| bmc::look(&self.sys, node)) {
            let device = shown(&self.unit, &found);
            if !offer.never.iter().any(|pattern| pattern.fits(&device)) {
                all.insert(found.key.clone(), found);
            }
        }
        let in_use = InUse::now();
        let paths = under(&self.sys.join("bus/usb/devices"), is_device);
        let mut before = std::mem::take(&mut self.known);
        for path in paths {
            let Some(mark) = Mark::of(&path) else { continue };
            let mut known = match before.remove(&path) {
                Some((old, known)) if old == mark => known,
                _ => identity(&path),
            };
            let looked = known.clone().map(|found| parts(&path, found, &in_use));
            if let Some((known, (found, _))) = known.as_mut().zip(looked.as_ref()) {
                known.types.clone_from(&found.types);
            }
            self.known.insert(path, (mark, known));
            let Some((mut found, used)) = looked else { continue };
            if all.contains_key(&found.key) {
                found.key = format!("{} at {}", found.key, found.path);
            }
            if let Some(found) = self.offered(found, used, offer) {
                all.insert(found.key.clone(), found);
            }
        }
        all.into_values().collect()
    }

    fn offered(&self, mut found: Found, used: Option<String>, offer: &Offer) -> Option<Found> {
        let device = shown(&self.unit, &found);
        let fits = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.fits(&device));
        if fits(&offer.never)
            || !(offer.offer.is_empty() || fits(&offer.offer) || fits(&offer.named))
        {
            return None;
        }
        let named = fits(&offer.named);
        found.needs_setup = fits(&offer.setup);
        found.unavailable = kept(&found, used).filter(|_| !named);
        if let Some(why) = kept_keyboard(&found).filter(|_| !named) {
            let parts = found.parts.iter().filter(|(kind, _)| kind == HID);
            let kept = parts.map(|(_, node)| (node.clone(), why.clone()));
            found.busy.extend(kept.collect::<Vec<_>>());
        }
        found.types.retain(|kind| kind != UNTOLD);
        Some(found)
    }
}

/// Why a machine keeps a device for itself, unless it is named.
#[must_use]
pub fn withheld(path: &Path, found: &Found) -> Option<String> {
    kept(found, InUse::now().any(inner(path)))
}

fn kept(found: &Found, used: Option<String>) -> Option<String> {
    sensitive(found, &SENSITIVE).or_else(|| used.map(|what| at_its_unit(&what)))
}

fn at_its_unit(what: &str) -> String {
    format!("{what} is in use at its unit")
}

/// Why it keeps the HID parts of a device for itself: any of them may be what the keyboard's keys come from.
#[must_use]
pub fn kept_keyboard(found: &Found) -> Option<String> {
    sensitive(found, &[KEYBOARD, UNTOLD])
}

fn sensitive(found: &Found, kinds: &[&str]) -> Option<String> {
    let kind = found.types.iter().find(|kind| kinds.contains(&kind.as_str()))?;
    let kind = if kind == UNTOLD { "device that may be a keyboard" } else { kind };
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

/// `2-1` and `2-1.4` are devices, `usb2` is a root hub, `2-1:1.0` an interface.
fn is_device(name: &str) -> bool {
    !name.contains(':') && name.starts_with(|c: char| c.is_ascii_digit())
}

/// Looks at one device: none if it is a hub, an interface, half gone, or itself from another machine.
#[must_use]
pub fn look(path: &Path) -> Option<Found> {
    identity(path).map(|found| parts(path, found, &InUse::now()).0)
}

/// What stays the same.
fn identity(path: &Path) -> Option<Found> {
    let name = path.file_name()?.to_str().filter(|name| is_device(name))?;
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
    Some(Found {
        key: cut(&key),
        bus: "usb".to_owned(),
        path: name.to_owned(),
        types: untold(types(bytes)),
        vendor,
        product,
        manufacturer: text("manufacturer"),
        model: text("product"),
        serial,
        descriptors: digest(bytes),
        parts: vec![],
        unavailable: None,
        busy: vec![],
        needs_setup: false,
        instance: fs::metadata(path).ok()?.ino(),
    })
}

fn untold(mut types: Vec<String>) -> Vec<String> {
    if types.iter().any(|kind| kind == HID) {
        types.push(UNTOLD.to_owned());
    }
    types
}

/// What drivers make of a device, and what of it is in use.
fn parts(path: &Path, mut found: Found, in_use: &InUse) -> (Found, Option<String>) {
    let folders = inner(path);
    let disks = disks_in(&folders);
    let busy = disks.iter().filter_map(|disk| {
        let what = in_use.any(vec![disk.folder.parent()?.to_owned()])?;
        Some((disk.node.clone(), at_its_unit(&what)))
    });
    found.busy = busy.collect();
    let lines = lines_in(&folders).into_iter().map(|node| (SERIAL.to_owned(), node));
    let hids = hids_in(&folders).into_iter().map(|hid| (HID.to_owned(), hid.node));
    let disks = disks.into_iter().map(|disk| (DISK.to_owned(), disk.node));
    // Media come and go: the others keep their places.
    found.parts = lines.chain(hids).chain(disks).collect();
    let mut types: Vec<&str> = found.parts.iter().map(|(kind, _)| kind.as_str()).collect();
    if types.contains(&HID) || found.types.iter().any(|kind| kind == HID) {
        let told = Told::by(path, &folders);
        types.extend(told.kinds);
        if told.all || driver(path).as_deref() == Some(USBIP_HOST) {
            found.types.retain(|kind| kind != UNTOLD);
        }
    }
    for kind in types {
        if !found.types.iter().any(|known| known == kind) {
            found.types.push(kind.to_owned());
        }
    }
    (found, in_use.any(folders))
}

fn driver(path: &Path) -> Option<String> {
    let driver = fs::read_link(path.join("driver")).ok()?;
    Some(driver.file_name()?.to_string_lossy().into_owned())
}

/// What tells one set of descriptors from another.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    u64::from_le_bytes(std::array::from_fn(|i| digest[i]))
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
            (3, 1, 1) => &[KEYBOARD, HID],
            (3, 1, 2) => &[MOUSE, HID],
            (3, ..) => &[HID],
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

    use super::folders::name;
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

    fn scan(sys: &Path, offer: &Offer) -> Vec<Found> {
        Inventory::new(sys, "u".parse().unwrap()).scan(offer)
    }

    fn found(sys: &Path, offer: &Offer) -> Vec<(String, Option<String>)> {
        let all = scan(sys, offer);
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
    fn a_device_is_read_again_when_it_is_another_or_is_authorized() {
        let sys = tempfile::tempdir().unwrap();
        let sys = sys.path();
        plug(sys, "pci", "1-1", &files(b"A\n", &DISK));
        let mut inventory = Inventory::new(sys, "u".parse().unwrap());
        let mut serial = || inventory.scan(&Offer::default()).pop().map(|found| found.serial);
        assert_eq!(serial().unwrap(), "A");
        let folder = sys.join("devices/pci/1-1");
        fs::write(folder.join("serial"), "B\n").unwrap();
        assert_eq!(serial().unwrap(), "A", "it is not read each time");
        fs::write(folder.join("authorized"), "1\n").unwrap();
        assert_eq!(serial().unwrap(), "B");
        fs::rename(&folder, sys.join("old")).unwrap();
        assert_eq!(serial(), None);
        fs::remove_file(sys.join("bus/usb/devices/1-1")).unwrap();
        plug(sys, "pci", "1-1", &files(b"C\n", &DISK));
        assert_eq!(serial().unwrap(), "C");
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
        let all = scan(sys.path(), &Offer::default());
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
        let found = scan(sys.path(), &offer).remove(0);
        assert_eq!(found.parts, [("hid".to_owned(), "/dev/hidraw0".to_owned())]);
        assert!(found.busy[0].0 == "/dev/hidraw0" && found.busy[0].1.contains("keyboard"));
        offer.named = vec!["type=keyboard".parse().unwrap()];
        assert_eq!(scan(sys.path(), &offer).remove(0).busy, []);
        let bus = sys.path().join("bus/hid/devices");
        fs::create_dir_all(&bus).unwrap();
        symlink(&hid, bus.join("0003:046D:C52B.0001")).unwrap();
        fs::write(hid.join("uevent"), "HID_ID=3\nHID_PHYS=there/1\n").unwrap();
        assert_eq!(nodes_of_hid(sys.path(), "there/1"), ["/dev/input/event2", "/dev/hidraw0"]);
        assert_eq!(nodes_of_hid(sys.path(), "there/11"), [""; 0]);
    }

    #[test]
    fn what_a_hid_device_is_comes_from_its_reports() {
        let sys = tempfile::tempdir().unwrap();
        let other = [9, 4, 0, 0, 1, 3, 0, 0, 0];
        plug(sys.path(), "pci", "1-1", &files(b"A\n", &[other, other].concat()));
        let device = sys.path().join("devices/pci/1-1");
        let mut inventory = Inventory::new(sys.path(), "u".parse().unwrap());
        let mut look = || {
            let found = inventory.scan(&Offer::default()).remove(0);
            (
                found.types.join(" "),
                found.unavailable.map_or(String::new(), |why| why[..18].to_owned()),
            )
        };
        let is = |types: &str, why: &str| (types.to_owned(), why.to_owned());
        assert_eq!(look(), is("hid", "a device that may "), "it has no interfaces yet");
        fs::write(device.join("bNumInterfaces"), " 2\n").unwrap();
        let told = |at: u8, bytes: &[u8]| {
            let hid = device.join(format!("1-1:1.{at}/0003:046D:C52B.000{at}"));
            fs::create_dir_all(&hid).unwrap();
            fs::write(device.join(format!("1-1:1.{at}/bInterfaceClass")), "03\n").unwrap();
            fs::write(hid.join("report_descriptor"), bytes).unwrap();
        };
        let mouse = [5, 1, 9, 2, 0xa1, 1, 0xc0];
        told(0, &mouse);
        assert_eq!(look(), is("hid mouse", "a device that may "), "one is not there yet");
        told(1, &[]);
        assert_eq!(look(), is("hid mouse", "a device that may "), "nobody has looked at it");
        told(1, &mouse);
        assert_eq!(look(), is("hid mouse", ""));
        told(1, &[5, 7, 0x19, 4, 0x29, 9, 0x81, 0]);
        assert_eq!(look(), is("hid mouse keyboard", "a keyboard is give"));
        // It is given away: what was told of it is known still.
        for at in [0, 1] {
            fs::remove_dir_all(device.join(format!("1-1:1.{at}"))).unwrap();
        }
        assert_eq!(look(), is("hid mouse keyboard", "a keyboard is give"));
        // So is one that was given away in an earlier life, as far as it does not matter.
        symlink("../../drivers/usbip-host", device.join("driver")).unwrap();
        assert_eq!(scan(sys.path(), &Offer::default()).remove(0).unavailable, None);
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
        let look = || scan(sys.path(), &Offer::default()).remove(0);
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
