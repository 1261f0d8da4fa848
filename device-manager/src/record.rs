// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices, their functions and leases, as units tell of them and managers keep them.

use std::fmt;
use std::str::FromStr;

use secure_link::Name;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Most devices of one unit: every port of a machine full of hubs.
pub const MAX_DEVICES: usize = 1024;
/// Most functions of one device, the whole of it counted; USB allows 32 interfaces.
pub const MAX_FUNCTIONS: usize = 33;
/// Longest text of a descriptor that is kept, bytes: a USB string has at most 126 UTF-16 units.
pub const MAX_TEXT: usize = 384;

/// A machine of the group, by the name that is pinned to its key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Machine(pub Name);

impl TryFrom<String> for Machine {
    type Error = secure_link::NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl From<Machine> for String {
    fn from(machine: Machine) -> Self {
        machine.0.as_str().to_owned()
    }
}

impl From<Name> for Machine {
    fn from(name: Name) -> Self {
        Self(name)
    }
}

impl FromStr for Machine {
    type Err = secure_link::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Greatest epoch of a unit: it is half of the number of a lease. A program that starts every minute comes to it in thirty years.
pub const MAX_EPOCH: u64 = (1 << 31) - 1;

/// When something was said, by the unit that said it. Only `epoch` and `seq` decide what is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The unit's life: raised at each start, on its disk before it is told.
    pub epoch: u64,
    /// Counts what the unit says in that life.
    pub seq: u64,
    /// By the group's clock when it was made, microseconds since 1970: for people and audits.
    pub at: i64,
}

impl Stamp {
    /// Whether a unit can have said it.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.epoch <= MAX_EPOCH
    }

    /// What decides.
    #[must_use]
    pub fn order(&self) -> (u64, u64) {
        (self.epoch, self.seq)
    }
}

/// Names a device wherever it is plugged in at its unit: a hash of the unit and what identifies the device. 16
/// hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(pub [u8; 8]);

impl DeviceId {
    /// Of a unit's device with this key.
    #[must_use]
    pub fn new(unit: &Machine, key: &str) -> Self {
        let mut digest = Sha256::new();
        for part in ["midplane device", unit.0.as_str(), key] {
            digest.update(part.as_bytes());
            digest.update([0]);
        }
        let digest = digest.finalize();
        Self(std::array::from_fn(|i| digest[i]))
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is no [`DeviceId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a device's id has 16 hexadecimal digits")]
pub struct IdError;

impl FromStr for DeviceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| digits).ok_or(IdError)?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl TryFrom<String> for DeviceId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.to_string()
    }
}

/// Who has a device, or wants it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Holder {
    /// Its machine, known by key.
    pub machine: Machine,
    /// Its user there, by that machine's word.
    pub uid: u32,
    /// The names of that user's groups, likewise; at most [`Holder::MAX_GROUPS`].
    pub groups: Vec<String>,
}

impl Holder {
    /// Most groups that are told.
    pub const MAX_GROUPS: usize = 64;
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {} on {}", self.uid, self.machine)
    }
}

/// A lease as everybody may know it: without its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseInfo {
    /// Greater than that of any lease that the unit gave before.
    pub no: u64,
    /// Whose it is.
    pub holder: Holder,
    /// The manager that asked for it.
    pub through: Machine,
    /// Since when, by the group's clock, microseconds since 1970.
    pub since: i64,
    /// When it ends even if it is renewed, by the same clock; none if it does not.
    pub until: Option<i64>,
    /// Whether the holder has come for it.
    pub in_use: bool,
}

/// A part of a device that can be used by itself. The first is always all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// What it is: `whole`, or a type such as `serial`.
    pub kind: String,
    /// Its node at the unit, for functions that have one.
    pub node: Option<String>,
    /// Who has it.
    pub lease: Option<LeaseInfo>,
    /// Why nobody can have it now, though nobody has it.
    pub unavailable: Option<String>,
}

/// How a BMC is attached.
pub const BMC_BUS: &str = "ipmi";
/// All of a device.
pub const WHOLE: u8 = 0;
/// The kind of a function that is a disk.
pub const DISK: &str = "disk";
/// The kind of one that is a keyboard, a mouse, or another HID device.
pub const HID: &str = "hid";
/// The kind of one that is a BMC, by its requests and answers.
pub const IPMI: &str = "ipmi";
/// The kind of one that is a serial line.
pub const SERIAL: &str = "serial";

impl Function {
    /// A free one.
    #[must_use]
    pub fn new(kind: &str, node: Option<String>) -> Self {
        Self { kind: kind.to_owned(), node, lease: None, unavailable: None }
    }
}

/// What a device is, as its unit finds it: nothing of it changes while it stays plugged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What tells it from all others of its unit, wherever it is plugged in if it has a serial number.
    pub key: String,
    /// How it is attached: `usb`, or `ipmi` for a BMC.
    pub bus: String,
    /// Where: the kernel's name of the port, such as `2-1`, or a BMC's node.
    pub path: String,
    /// What it is, such as `disk`; several for one with several functions.
    pub types: Vec<String>,
    /// Vendor and product numbers, four hexadecimal digits each.
    pub vendor: String,
    /// See `vendor`.
    pub product: String,
    /// What its descriptors say. Anybody may have written that.
    pub manufacturer: String,
    /// See `manufacturer`.
    pub model: String,
    /// See `manufacturer`.
    pub serial: String,
    /// A hash of its descriptors: another one under the same name is another device.
    pub descriptors: u64,
    /// Its parts that can be used by themselves, by type and node. As a unit tells of them each keeps its place: one that is gone may
    /// stand before others.
    pub parts: Vec<(String, String)>,
    /// Why it is not for use now.
    pub unavailable: Option<String>,
    /// Why some of its parts are not, by node. Only at the unit: others see that at the functions.
    #[serde(skip)]
    pub busy: Vec<(String, String)>,
    /// Whether it is to be set up before its parts are used by themselves. Only at the unit, likewise.
    #[serde(skip)]
    pub needs_setup: bool,
    /// Tells this time that it is plugged in from all others since the machine's boot: the number of its folder in sysfs, 0 for
    /// a BMC. Only at the unit, likewise.
    #[serde(skip)]
    pub instance: u64,
}

impl Found {
    /// Whether all of it can be carried, as only a USB device can.
    #[must_use]
    pub fn has_whole(&self) -> bool {
        self.bus != BMC_BUS
    }
}

/// A device, as its unit tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its name in the group.
    pub id: DeviceId,
    /// Where it is.
    pub unit: Machine,
    /// This time that it is plugged in: greater than any before at this unit.
    pub gen_no: u64,
    /// What it is.
    pub found: Found,
    /// All of it, and its parts.
    pub functions: Vec<Function>,
    /// When the unit said this.
    pub stamp: Stamp,
}

impl Device {
    /// The lease of this number, if it is of this device.
    #[must_use]
    pub fn lease(&self, no: u64) -> Option<&LeaseInfo> {
        self.functions.iter().filter_map(|f| f.lease.as_ref()).find(|lease| lease.no == no)
    }

    /// Whether somebody has all of it.
    #[must_use]
    pub fn is_leased_whole(&self) -> bool {
        self.functions.first().is_some_and(|whole| whole.lease.is_some())
    }

    /// Why a function cannot be leased now; nothing if it can. The whole excludes each part, and each part the whole.
    #[must_use]
    pub fn taken(&self, function: u8) -> Option<Taken<'_>> {
        let own = self.functions.get(usize::from(function));
        let Some(own) = own else { return Some(Taken::Unavailable("it has no such function")) };
        if let Some(why) = &own.unavailable {
            return Some(Taken::Unavailable(why));
        }
        let mut others = self.functions.iter().enumerate();
        let lease = others.find_map(|(at, other)| {
            let excludes =
                at == usize::from(function) || function == WHOLE || at == usize::from(WHOLE);
            other.lease.as_ref().filter(|_| excludes)
        });
        lease.map(Taken::Leased)
    }

    /// One word for its state.
    #[must_use]
    pub fn state(&self) -> &'static str {
        let leased = |function: &Function| function.lease.as_ref().map(|lease| lease.in_use);
        match self.functions.iter().find_map(leased) {
            Some(true) => "in use",
            Some(false) => "leased",
            None if self.functions.iter().all(|f| f.unavailable.is_some()) => "unavailable",
            None => "free",
        }
    }
}

/// Why a function cannot be leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken<'a> {
    /// Somebody has it, or what excludes it.
    Leased(&'a LeaseInfo),
    /// It is not for use now.
    Unavailable(&'a str),
}

/// Cuts a text from outside at a character.
#[must_use]
pub fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn device(unit: &str, serial: &str) -> Device {
        let unit: Machine = unit.parse().unwrap();
        let found = Found {
            key: serial.to_owned(),
            bus: "usb".to_owned(),
            path: "1-1".to_owned(),
            types: vec!["disk".to_owned()],
            vendor: "0781".to_owned(),
            product: "5567".to_owned(),
            manufacturer: "Maker".to_owned(),
            model: "Cruzer Blade".to_owned(),
            serial: serial.to_owned(),
            descriptors: 7,
            parts: vec![],
            unavailable: None,
            busy: vec![],
            needs_setup: false,
            instance: 0,
        };
        Device {
            id: DeviceId::new(&unit, serial),
            unit,
            gen_no: 1,
            found,
            functions: vec![Function::new("whole", None), Function::new("serial", None)],
            stamp: Stamp { epoch: 1, seq: 1, at: 0 },
        }
    }

    #[test]
    fn the_whole_and_its_parts_exclude_one_another() {
        let lease = LeaseInfo {
            no: 1,
            holder: Holder { machine: "a".parse().unwrap(), uid: 0, groups: vec![] },
            through: "a".parse().unwrap(),
            since: 0,
            until: None,
            in_use: false,
        };
        let mut device = device("b", "1");
        device.functions.push(Function::new("disk", None));
        assert_eq!((device.taken(0), device.taken(2)), (None, None));
        device.functions[1].lease = Some(lease.clone());
        assert_eq!(device.taken(0), Some(Taken::Leased(&lease)));
        assert_eq!(device.taken(1), Some(Taken::Leased(&lease)));
        assert_eq!(device.taken(2), None, "another part");
        device.functions.swap(0, 1);
        assert_eq!(device.taken(2), Some(Taken::Leased(&lease)), "the whole is taken");
        assert!(matches!(device.taken(9), Some(Taken::Unavailable(_))));
    }

    #[test]
    fn ids_are_text_and_differ_by_unit() {
        let (a, b) = (device("a", "1").id, device("b", "1").id);
        assert_ne!(a, b);
        assert_eq!(a.to_string().parse(), Ok(a));
        for bad in ["", "+123456789abcdef", "0123456789abcdefg", "xyz"] {
            assert_eq!(bad.parse::<DeviceId>(), Err(IdError), "{bad}");
        }
    }
}
