// SPDX-License-Identifier: MIT OR Apache-2.0
//! HID devices as functions of their own: what is said of reports between the interface at the unit, by `/dev/hidrawN`, and the
//! device that stands for it at the holder, by `/dev/uhid` (*Device Class Definition for HID*, 1.11).
//!
//! The kernel at the holder asks for one report at a time and waits 5 s for it; the one at the unit waits as long for the device.
//! What either end cannot take stays in the connection, whose writes have a limit, and in the 64 reports that `hidraw` keeps.

use kernel_abi::hid::{HID_MAX_DESCRIPTOR_SIZE, ReportKind, UHID_DATA_MAX};
use serde::{Deserialize, Serialize};

use crate::streams::Bytes;
use crate::wire::Bounded;

/// Most bytes of a report: what `/dev/uhid` takes.
pub const MAX_REPORT: usize = UHID_DATA_MAX;
/// Most bytes of a device's name: what `/dev/uhid` takes.
pub const MAX_NAME: usize = 127;

/// The type of a device that one can type with.
pub const KEYBOARD: &str = "keyboard";
/// The type of a mouse.
pub const MOUSE: &str = "mouse";

/// What a device is. Anybody may have written its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// As people see it.
    pub name: String,
    /// `BUS_*` of `linux/input.h`.
    pub bus: u16,
    /// Vendor.
    pub vendor: u16,
    /// Product.
    pub product: u16,
    /// Its report descriptor, at most 4096 bytes.
    pub descriptor: Bytes,
}

impl About {
    /// Whether it keeps to its bounds.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let descriptor = 1..=HID_MAX_DESCRIPTOR_SIZE;
        self.name.len() <= MAX_NAME && descriptor.contains(&self.descriptor.0.len())
    }
}

/// Which reports are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Settings, both ways.
    Feature,
    /// To the device.
    Output,
    /// From it.
    Input,
}

impl From<Kind> for ReportKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Feature => Self::Feature,
            Kind::Output => Self::Output,
            Kind::Input => Self::Input,
        }
    }
}

impl From<ReportKind> for Kind {
    fn from(kind: ReportKind) -> Self {
        match kind {
            ReportKind::Feature => Self::Feature,
            ReportKind::Output => Self::Output,
            ReportKind::Input => Self::Input,
        }
    }
}

/// What a device tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromDevice {
    /// An input report.
    Input(Bytes),
    /// Answers [`ToDevice::Get`]; nothing if it has no such report.
    Got(u32, Option<Bytes>),
    /// Answers [`ToDevice::Set`]: whether it was done.
    Set(u32, bool),
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToDevice {
    /// An output report, such as which lights are on.
    Output(Bytes),
    /// It is asked for the report of this kind and number.
    Get(u32, Kind, u8),
    /// It is to take one over.
    Set(u32, Kind, u8, Bytes),
}

impl Bounded for FromDevice {
    fn is_bounded(&self) -> bool {
        match self {
            Self::Input(Bytes(report)) | Self::Got(_, Some(Bytes(report))) => {
                report.len() <= MAX_REPORT
            }
            Self::Got(_, None) | Self::Set(..) => true,
        }
    }
}

impl Bounded for ToDevice {
    fn is_bounded(&self) -> bool {
        match self {
            Self::Output(Bytes(report)) | Self::Set(_, _, _, Bytes(report)) => {
                report.len() <= MAX_REPORT
            }
            Self::Get(..) => true,
        }
    }
}

/// One item of a report descriptor (section 6.2.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Item {
    /// Type and tag: the item's first byte without the size; [`LONG`] for one that is reserved.
    tag: u8,
    /// Bytes of data: 0, 1, 2 or 4.
    len: usize,
    value: u32,
}

/// A long item, of which none is defined (section 6.2.2.3).
const LONG: u8 = 0xfe;
/// Main items.
const INPUT: u8 = 0x80;
const OUTPUT: u8 = 0x90;
const FEATURE: u8 = 0xb0;
const COLLECTION: u8 = 0xa0;
const END_COLLECTION: u8 = 0xc0;
/// Global items.
const USAGE_PAGE: u8 = 0x04;
const REPORT_SIZE: u8 = 0x74;
const REPORT_ID: u8 = 0x84;
const REPORT_COUNT: u8 = 0x94;
const PUSH: u8 = 0xa4;
const POP: u8 = 0xb4;
/// Local items.
const USAGE: u8 = 0x08;
const USAGE_MINIMUM: u8 = 0x18;
const USAGE_MAXIMUM: u8 = 0x28;

/// The items of a report descriptor, up to the first that is cut short.
fn items(descriptor: &[u8]) -> impl Iterator<Item = Item> {
    let mut rest = descriptor;
    std::iter::from_fn(move || {
        let [head, tail @ ..] = rest else { return None };
        let len = match (*head, tail.first()) {
            (LONG, Some(len)) => usize::from(*len) + 2,
            (head, _) => [0, 1, 2, 4][usize::from(head & 3)],
        };
        let (data, next) = tail.split_at_checked(len)?;
        rest = next;
        let mut value = [0; 4];
        value[..len.min(4)].copy_from_slice(&data[..len.min(4)]);
        let tag = if *head == LONG { LONG } else { head & 0xfc };
        Some(Item { tag, len, value: u32::from_le_bytes(value) })
    })
}

/// What a HID device is by its report descriptor, whatever its interface says of itself: `keyboard` if any of its input is of the
/// keyboard's usage page, as the kernel makes keys of that in any collection (`hidinput_configure_usage`), and `mouse` if it has a
/// collection of that name (*HID Usage Tables*, 3 and 4).
#[must_use]
pub fn kinds(descriptor: &[u8]) -> Vec<&'static str> {
    const KEYS: u32 = 0x07;
    const MOUSE: u32 = 0x0001_0002;
    const APPLICATION: u32 = 1;
    let (mut page, mut pushed, mut usages) = (0, vec![], vec![]);
    let (mut keyboard, mut mouse) = (false, false);
    for item in items(descriptor) {
        match item.tag {
            USAGE_PAGE => page = item.value,
            PUSH => pushed.push(page),
            POP => page = pushed.pop().unwrap_or(page),
            // One of four bytes has its page with it; for another it is the one that was told last, here or at the main item.
            USAGE | USAGE_MINIMUM | USAGE_MAXIMUM if item.len == 4 => usages.push(item.value),
            USAGE | USAGE_MINIMUM | USAGE_MAXIMUM => usages.push(page << 16 | item.value),
            INPUT => {
                keyboard |= page == KEYS || usages.iter().any(|usage| usage >> 16 == KEYS);
                usages.clear();
            }
            COLLECTION => {
                mouse |= item.value == APPLICATION && usages.contains(&MOUSE);
                usages.clear();
            }
            OUTPUT | FEATURE | END_COLLECTION => usages.clear(),
            _ => {}
        }
    }
    let all = [(KEYBOARD, keyboard), (self::MOUSE, mouse)];
    all.into_iter().filter(|(_, is)| *is).map(|(kind, _)| kind).collect()
}

/// What has to be known of a device's reports to hand them on: of a device with one report of a kind, `/dev/uhid` tells it with a
/// zero before it or without, depending on who sent it, while `/dev/hidrawN` wants the zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layout {
    numbered: bool,
    /// Bits of all output reports, and of all feature reports.
    output: u64,
    feature: u64,
}

impl Layout {
    /// By a report descriptor (section 6.2.2); of one that makes no sense, something.
    #[must_use]
    pub fn of(descriptor: &[u8]) -> Self {
        let mut layout = Self::default();
        let (mut size, mut count, mut pushed) = (0_u32, 0_u32, vec![]);
        for item in items(descriptor) {
            let bits = u64::from(size) * u64::from(count);
            match item.tag {
                REPORT_SIZE => size = item.value,
                REPORT_COUNT => count = item.value,
                REPORT_ID => layout.numbered = true,
                PUSH => pushed.push((size, count)),
                POP => (size, count) = pushed.pop().unwrap_or((size, count)),
                OUTPUT => layout.output = layout.output.saturating_add(bits),
                FEATURE => layout.feature = layout.feature.saturating_add(bits),
                _ => {}
            }
        }
        layout
    }

    /// A report as `/dev/hidrawN` takes it: with its number, or a zero.
    #[must_use]
    pub fn for_hidraw(&self, kind: Kind, mut report: Vec<u8>) -> Vec<u8> {
        let bits = if kind == Kind::Output { self.output } else { self.feature };
        let with_zero = report.first() == Some(&0) && report.len() as u64 == bits.div_ceil(8) + 1;
        if !self.numbered && !with_zero {
            report.insert(0, 0);
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Carried, ToHolder, WireError};

    /// A boot keyboard (appendix B.1): five lights out.
    const KEYS: &[u8] = &[
        0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, 0x15, 0x00, 0x25,
        0x01, 0x75, 0x01, 0x95, 0x08, 0x81, 0x02, 0x95, 0x01, 0x75, 0x08, 0x81, 0x03, 0x95, 0x05,
        0x75, 0x01, 0x05, 0x08, 0x19, 0x01, 0x29, 0x05, 0x91, 0x02, 0x95, 0x01, 0x75, 0x03, 0x91,
        0x03, 0x95, 0x06, 0x75, 0x08, 0x15, 0x00, 0x25, 0x65, 0x05, 0x07, 0x19, 0x00, 0x29, 0x65,
        0x81, 0x00, 0xc0,
    ];

    fn about(name: usize, descriptor: usize) -> About {
        let (name, descriptor) = ("n".repeat(name), Bytes(vec![5; descriptor]));
        About { name, bus: 3, vendor: 0x1d6b, product: 0x104, descriptor }
    }

    /// Other releases read these bytes: they are never changed.
    #[test]
    fn golden_bytes() {
        assert_eq!(FromDevice::Input(Bytes(vec![0, 4])).encode(), [1, 0, 2, 0, 4]);
        assert_eq!(FromDevice::Got(300, Some(Bytes(vec![9]))).encode(), [1, 1, 0xac, 2, 1, 1, 9]);
        assert_eq!(FromDevice::Got(1, None).encode(), [1, 1, 1, 0]);
        assert_eq!(FromDevice::Set(1, true).encode(), [1, 2, 1, 1]);
        assert_eq!(ToDevice::Output(Bytes(vec![2])).encode(), [1, 0, 1, 2]);
        assert_eq!(ToDevice::Get(1, Kind::Input, 7).encode(), [1, 1, 1, 2, 7]);
        let set = ToDevice::Set(1, Kind::Feature, 7, Bytes(vec![7, 8]));
        assert_eq!(set.encode(), [1, 2, 1, 0, 7, 2, 7, 8]);
        let go = ToHolder::Go(Carried::Hid(about(1, 1)));
        assert_eq!(go.encode(), [1, 1, 3, 1, b'n', 3, 0xeb, 0x3a, 0x84, 2, 1, 5]);
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let report = |len| Bytes(vec![0; len]);
        let most = FromDevice::Input(report(MAX_REPORT));
        assert_eq!(FromDevice::decode(&most.encode()), Ok(most));
        let long = || report(MAX_REPORT + 1);
        for long in [FromDevice::Input(long()), FromDevice::Got(1, Some(long()))] {
            assert_eq!(FromDevice::decode(&long.encode()), Err(WireError::Long));
        }
        for long in [ToDevice::Output(long()), ToDevice::Set(1, Kind::Output, 0, long())] {
            assert_eq!(ToDevice::decode(&long.encode()), Err(WireError::Long));
        }
        for (name, descriptor) in [(MAX_NAME + 1, 1), (1, 4097), (1, 0)] {
            let go = ToHolder::Go(Carried::Hid(about(name, descriptor))).encode();
            assert_eq!(ToHolder::decode(&go), Err(WireError::Long));
        }
    }

    #[test]
    fn a_report_without_a_number_goes_with_one_zero() {
        let lights = Layout::of(KEYS);
        assert_eq!(lights, Layout { numbered: false, output: 8, feature: 0 });
        // From the lights of an input device; from a program at `/dev/hidrawN`.
        for report in [&[2][..], &[0, 2]] {
            assert_eq!(lights.for_hidraw(Kind::Output, report.to_vec()), [0, 2]);
        }
        assert_eq!(lights.for_hidraw(Kind::Output, vec![0]), [0, 0], "all off");
        let numbered = Layout::of(&[&[0x85, 1], KEYS].concat());
        assert_eq!(numbered.for_hidraw(Kind::Output, vec![1, 2]), [1, 2]);
    }

    #[test]
    fn what_types_is_a_keyboard_whatever_it_calls_itself() {
        // A boot mouse (appendix B.2): three buttons, two axes.
        let mouse = [
            0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00, 0x05, 0x09, 0x19, 0x01,
            0x29, 0x03, 0x15, 0x00, 0x25, 0x01, 0x95, 0x03, 0x75, 0x01, 0x81, 0x02, 0x95, 0x01,
            0x75, 0x05, 0x81, 0x01, 0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x15, 0x81, 0x25, 0x7f,
            0x75, 0x08, 0x95, 0x02, 0x81, 0x06, 0xc0, 0xc0,
        ];
        assert_eq!(kinds(KEYS), ["keyboard"]);
        assert_eq!(kinds(&mouse), ["mouse"]);
        assert_eq!(kinds(&[KEYS, &mouse].concat()), ["keyboard", "mouse"]);
        // Keys in a collection of a consumer control; with the page in the usages; with one that is told after them.
        let consumer = [0x05, 0x0c, 0x09, 0x01, 0xa1, 0x01];
        let plain = [0x05, 7, 0x19, 4, 0x29, 0x1d, 0x81, 0];
        let long = [0x1b, 4, 0, 7, 0, 0x2b, 0x1d, 0, 7, 0, 0x81, 0];
        let late = [0x09, 4, 0x05, 7, 0x81, 0];
        let pushed = [0x05, 7, 0xa4, 0x05, 1, 0xb4, 0x81, 0];
        for keys in [&plain[..], &long, &late, &pushed] {
            assert_eq!(kinds(&[&consumer, keys].concat()), ["keyboard"], "{keys:?}");
        }
        // Lights of a keyboard alone; its page for what is sent to the device.
        for none in [&consumer[..], &[0x05, 8, 0x19, 1, 0x29, 5, 0x91, 2], &[0x05, 7, 0x91, 2]] {
            assert!(kinds(none).is_empty(), "{none:?}");
        }
        // The collection of a pointer within another is no mouse of its own; usages end with their item.
        assert!(kinds(&[0x05, 1, 0x09, 2, 0xa1, 0]).is_empty());
        assert!(kinds(&[0x05, 1, 0x09, 2, 0xb1, 0, 0xa1, 1]).is_empty());
    }

    #[test]
    fn descriptors_that_make_no_sense_do_no_harm() {
        let pushed = [0x75, 8, 0x96, 64, 0, 0xa4, 0x95, 1, 0x75, 1, 0xb4, 0xb1, 0];
        assert_eq!(Layout::of(&pushed).feature, 512);
        assert_eq!(
            Layout::of(&[&[0xfe, 1, 0, 9], &pushed[..]].concat()).feature,
            512,
            "a long one"
        );
        let huge = [0x77, 255, 255, 255, 255, 0x97, 255, 255, 255, 255, 0x90, 0x90, 0x90];
        assert_eq!(Layout::of(&huge).output, u64::MAX);
        for bad in [&[][..], &[0x77], &[0xfe], &[0xfe, 9], &[0xb4, 0xff], &[0; 9]] {
            assert_eq!((Layout::of(bad), kinds(bad)), (Layout::default(), vec![]), "{bad:?}");
        }
    }
}
