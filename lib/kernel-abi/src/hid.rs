// SPDX-License-Identifier: MIT OR Apache-2.0
//! HID devices from both sides: those that the kernel has, by `/dev/hidrawN` (`linux/hidraw.h`) and the input devices made of them
//! (`EVIOCGRAB`, `linux/input.h`); and those that we make, by `/dev/uhid` (`linux/uhid.h`).
//!
//! An event of `/dev/uhid` is a number and a packed structure, in the byte order of the machine. The kernel takes one that is cut
//! behind its data for one that is filled up with zeros, and writes its own in full.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Most bytes of a report that `/dev/uhid` carries.
pub const UHID_DATA_MAX: usize = 4096;
/// Most bytes of a report descriptor.
pub const HID_MAX_DESCRIPTOR_SIZE: usize = 4096;
/// `sizeof(struct uhid_event)`: the longest structure is that of `UHID_CREATE2`, and all are filled up to eight bytes.
pub const UHID_EVENT_LEN: usize =
    4 + (size_of::<UhidCreate2Req>() + HID_MAX_DESCRIPTOR_SIZE).next_multiple_of(8);
/// `UHID_DESTROY`.
pub const UHID_DESTROY: u32 = 1;
/// `UHID_START`.
pub const UHID_START: u32 = 2;
/// `UHID_STOP`.
pub const UHID_STOP: u32 = 3;
/// `UHID_OUTPUT`.
pub const UHID_OUTPUT: u32 = 6;
/// `UHID_GET_REPORT`.
pub const UHID_GET_REPORT: u32 = 9;
/// `UHID_GET_REPORT_REPLY`.
pub const UHID_GET_REPORT_REPLY: u32 = 10;
/// `UHID_CREATE2`.
pub const UHID_CREATE2: u32 = 11;
/// `UHID_INPUT2`.
pub const UHID_INPUT2: u32 = 12;
/// `UHID_SET_REPORT`.
pub const UHID_SET_REPORT: u32 = 13;
/// `UHID_SET_REPORT_REPLY`.
pub const UHID_SET_REPORT_REPLY: u32 = 14;

/// `struct uhid_create2_req` before `rd_data`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
pub struct UhidCreate2Req {
    /// Ends with a zero.
    pub name: [u8; 128],
    /// Ends with a zero.
    pub phys: [u8; 64],
    /// Ends with a zero.
    pub uniq: [u8; 64],
    /// Bytes of `rd_data`.
    pub rd_size: u16,
    /// `BUS_*` of `linux/input.h`.
    pub bus: u16,
    /// Vendor.
    pub vendor: u32,
    /// Product.
    pub product: u32,
    /// Version.
    pub version: u32,
    /// Country, for keyboards.
    pub country: u32,
}

/// `struct uhid_get_report_reply_req` before `data`; without `size`, `struct uhid_set_report_reply_req`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
pub struct UhidGetReportReplyReq {
    /// Of the request.
    pub id: u32,
    /// Not zero: there is none.
    pub err: u16,
    /// Bytes of `data`.
    pub size: u16,
}

/// `struct uhid_set_report_req` before `data`; without `size`, `struct uhid_get_report_req`.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C, packed)]
pub struct UhidSetReportReq {
    /// Names the request in its reply.
    pub id: u32,
    /// Number of the report.
    pub rnum: u8,
    /// [`ReportKind`].
    pub rtype: u8,
    /// Bytes of `data`.
    pub size: u16,
}

/// `enum uhid_report_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ReportKind {
    /// `UHID_FEATURE_REPORT`.
    Feature,
    /// `UHID_OUTPUT_REPORT`.
    Output,
    /// `UHID_INPUT_REPORT`.
    Input,
}

/// A device that is to be made. Texts and the descriptor are cut to what the kernel takes.
#[derive(Debug, Clone, Copy)]
pub struct Create<'a> {
    /// As people see it.
    pub name: &'a str,
    /// Where it is, in whichever words.
    pub phys: &'a str,
    /// Its serial number.
    pub uniq: &'a str,
    /// `BUS_*` of `linux/input.h`.
    pub bus: u16,
    /// Vendor and product.
    pub ids: (u16, u16),
    /// Its report descriptor.
    pub descriptor: &'a [u8],
}

/// What `/dev/uhid` is told; reports are cut to [`UHID_DATA_MAX`].
#[derive(Debug, Clone, Copy)]
pub enum ToKernel<'a> {
    /// First of all.
    Create(Create<'a>),
    /// The device is gone.
    Destroy,
    /// An input report.
    Input(&'a [u8]),
    /// Answers [`FromKernel::Get`]; none if there is no such report.
    Got(u32, Option<&'a [u8]>),
    /// Answers [`FromKernel::Set`]: whether it was done.
    Set(u32, bool),
}

/// What `/dev/uhid` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromKernel<'a> {
    /// A driver begins to use it.
    Start,
    /// It uses it no more.
    Stop,
    /// An output report, which nobody answers.
    Output(&'a [u8]),
    /// A report is wanted, by this number, kind, and number of the report.
    Get(u32, ReportKind, u8),
    /// A report is to be set, likewise.
    Set(u32, ReportKind, u8, &'a [u8]),
    /// Anything else.
    Other(u32),
}

fn text<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [0; N];
    let len = text.len().min(N - 1);
    field[..len].copy_from_slice(&text.as_bytes()[..len]);
    field
}

/// Cut to what there may be, and how long it is then.
fn cut(bytes: &[u8], most: usize) -> (&[u8], u16) {
    let bytes = &bytes[..bytes.len().min(most)];
    (bytes, u16::try_from(bytes.len()).unwrap_or(u16::MAX))
}

impl ToKernel<'_> {
    /// As an event.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let event = |kind: u32, head: &[u8], data: &[u8]| [kind.as_bytes(), head, data].concat();
        match *self {
            Self::Create(Create { name, phys, uniq, bus, ids, descriptor }) => {
                let (data, rd_size) = cut(descriptor, HID_MAX_DESCRIPTOR_SIZE);
                let (name, phys, uniq) = (text(name), text(phys), text(uniq));
                let (vendor, product) = (ids.0.into(), ids.1.into());
                let (version, country) = (0, 0);
                let head = UhidCreate2Req {
                    name,
                    phys,
                    uniq,
                    rd_size,
                    bus,
                    vendor,
                    product,
                    version,
                    country,
                };
                event(UHID_CREATE2, head.as_bytes(), data)
            }
            Self::Destroy => event(UHID_DESTROY, &[], &[]),
            Self::Input(report) => {
                let (data, size) = cut(report, UHID_DATA_MAX);
                event(UHID_INPUT2, size.as_bytes(), data)
            }
            Self::Got(id, report) => {
                let (data, size) = cut(report.unwrap_or_default(), UHID_DATA_MAX);
                let err = u16::from(report.is_none());
                let head = UhidGetReportReplyReq { id, err, size };
                event(UHID_GET_REPORT_REPLY, head.as_bytes(), data)
            }
            Self::Set(id, done) => {
                let head = UhidGetReportReplyReq { id, err: u16::from(!done), size: 0 };
                event(UHID_SET_REPORT_REPLY, head.as_bytes(), &[])
            }
        }
    }
}

impl<'a> FromKernel<'a> {
    /// Of an event; none if it is cut short.
    #[must_use]
    pub fn decode(event: &'a [u8]) -> Option<Self> {
        let (kind, body) = u32::read_from_prefix(event).ok()?;
        let set = || {
            let (head, data) = UhidSetReportReq::read_from_prefix(body).ok()?;
            let kind = match head.rtype {
                0 => ReportKind::Feature,
                1 => ReportKind::Output,
                2 => ReportKind::Input,
                _ => return None,
            };
            Some((head, kind, data))
        };
        Some(match kind {
            UHID_START => Self::Start,
            UHID_STOP => Self::Stop,
            UHID_OUTPUT => {
                // `struct uhid_output_req`: the data come first, in full.
                let (data, rest) = body.split_at_checked(UHID_DATA_MAX)?;
                let (size, _) = u16::read_from_prefix(rest).ok()?;
                Self::Output(data.get(..size.into())?)
            }
            UHID_GET_REPORT => {
                let (head, kind, _) = set()?;
                Self::Get(head.id, kind, head.rnum)
            }
            UHID_SET_REPORT => {
                let (head, kind, data) = set()?;
                Self::Set(head.id, kind, head.rnum, data.get(..head.size.into())?)
            }
            other => Self::Other(other),
        })
    }
}

/// `struct hidraw_report_descriptor`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct HidrawReportDescriptor {
    /// Bytes of `value`.
    pub size: u32,
    /// The descriptor.
    pub value: [u8; HID_MAX_DESCRIPTOR_SIZE],
}

/// `struct hidraw_devinfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct HidrawDevinfo {
    /// `BUS_*` of `linux/input.h`.
    pub bustype: u32,
    /// Vendor.
    pub vendor: i16,
    /// Product.
    pub product: i16,
}

mod ioctl {
    #![allow(missing_docs, reason = "the macro makes a function and passes on no comment")]
    use super::{HidrawDevinfo, HidrawReportDescriptor};
    nix::ioctl_read!(descriptor_size, b'H', 0x01, libc::c_int);
    nix::ioctl_read!(descriptor, b'H', 0x02, HidrawReportDescriptor);
    nix::ioctl_read!(info, b'H', 0x03, HidrawDevinfo);
    nix::ioctl_read_buf!(name, b'H', 0x04, u8);
    nix::ioctl_write_int!(grab, b'E', 0x90);
}

/// The report descriptor of an open `/dev/hidrawN`.
///
/// # Errors
/// `EIO` or `ENODEV` once it is gone.
pub fn descriptor(hidraw: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut size = 0;
    // SAFETY: the kernel writes one int to the pointer, which is good for the call; the descriptor is borrowed and so open.
    unsafe { ioctl::descriptor_size(hidraw.as_raw_fd(), &raw mut size) }?;
    let size = u32::try_from(size).unwrap_or(0).min(HID_MAX_DESCRIPTOR_SIZE as u32);
    let mut all = HidrawReportDescriptor { size, value: [0; HID_MAX_DESCRIPTOR_SIZE] };
    // SAFETY: the kernel reads `size` and writes as many bytes behind it, or refuses if that is more than `value` has room for; the
    // pointer is good for the call.
    unsafe { ioctl::descriptor(hidraw.as_raw_fd(), &raw mut all) }?;
    Ok(all.value[..size as usize].to_vec())
}

/// Bus, vendor and product of an open `/dev/hidrawN`.
///
/// # Errors
/// As [`descriptor`].
pub fn info(hidraw: BorrowedFd<'_>) -> io::Result<HidrawDevinfo> {
    let mut info = HidrawDevinfo::default();
    // SAFETY: the kernel writes one `struct hidraw_devinfo` to the pointer, which is to one of ours.
    unsafe { ioctl::info(hidraw.as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

/// The name of an open `/dev/hidrawN`, which anybody may have written.
///
/// # Errors
/// As [`descriptor`].
pub fn name(hidraw: BorrowedFd<'_>) -> io::Result<String> {
    let mut name = [0; 128];
    // SAFETY: the size of the slice is part of the request, and the kernel writes no more than that.
    unsafe { ioctl::name(hidraw.as_raw_fd(), &mut name) }?;
    let len = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..len]).into_owned())
}

/// Asks an open `/dev/hidrawN` for a report, whose number stands in the first byte of `report`, 0 for one without. Returns its
/// bytes with that one. The kernel waits for the device for up to 5 s.
///
/// # Errors
/// The device's; `EINVAL` for a kind that the kernel does not ask for.
pub fn get_report(
    hidraw: BorrowedFd<'_>,
    kind: ReportKind,
    report: &mut [u8],
) -> io::Result<usize> {
    let nr = match kind {
        ReportKind::Feature => 0x07,
        ReportKind::Input => 0x0a,
        ReportKind::Output => 0x0c,
    };
    let request = nix::request_code_readwrite!(b'H', nr, report.len());
    // SAFETY: the length of the slice is part of the request: the kernel reads its first byte and writes no more than that length.
    let len = unsafe { libc::ioctl(hidraw.as_raw_fd(), request as _, report.as_mut_ptr()) };
    let len = Errno::result(len)?;
    Ok(usize::try_from(len).unwrap_or(0).min(report.len()))
}

/// Sets a report of an open `/dev/hidrawN`, whose number stands in its first byte, 0 for one without. Waits as [`get_report`].
///
/// # Errors
/// See [`get_report`].
pub fn set_report(hidraw: BorrowedFd<'_>, kind: ReportKind, report: &[u8]) -> io::Result<()> {
    let nr = match kind {
        ReportKind::Feature => 0x06,
        ReportKind::Input => 0x09,
        ReportKind::Output => 0x0b,
    };
    let request = nix::request_code_readwrite!(b'H', nr, report.len());
    // SAFETY: the length of the slice is part of the request; the kernel only reads so much (`hidraw_send_report`).
    let done = unsafe { libc::ioctl(hidraw.as_raw_fd(), request as _, report.as_ptr()) };
    Errno::result(done)?;
    Ok(())
}

/// From now on what an open `/dev/input/eventN` tells is told to this handle alone, until its last copy is closed.
///
/// # Errors
/// `EBUSY` if somebody else has it so.
pub fn grab(event: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the argument is a value, not a pointer (`evdev_do_ioctl`); the descriptor is borrowed and so open.
    unsafe { ioctl::grab(event.as_raw_fd(), 1) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_is_no_device_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let fd = file.as_fd();
        assert!(descriptor(fd).is_err() && info(fd).is_err() && name(fd).is_err());
        assert!(get_report(fd, ReportKind::Feature, &mut [0; 9]).is_err());
        assert!(set_report(fd, ReportKind::Output, &[0; 9]).is_err());
        assert!(grab(fd).is_err());
    }

    #[test]
    fn what_is_too_long_is_cut_and_what_is_cut_is_none() {
        let long = [7; UHID_DATA_MAX + 1];
        assert_eq!(ToKernel::Input(&long).encode().len(), 4 + 2 + UHID_DATA_MAX);
        let name = "n".repeat(300);
        let (phys, uniq) = (name.as_str(), "");
        let create =
            Create { name: &name, phys, uniq, bus: 3, ids: (1, 2), descriptor: &[1; 5000] };
        let made = ToKernel::Create(create).encode();
        assert_eq!((made.len(), made[4 + 126], made[4 + 127]), (UHID_EVENT_LEN - 4, b'n', 0));
        let mut event = vec![0; UHID_EVENT_LEN];
        event[..4].copy_from_slice(UHID_OUTPUT.as_bytes());
        event[4 + UHID_DATA_MAX..][..2].copy_from_slice(4097_u16.as_bytes());
        assert_eq!(FromKernel::decode(&event), None, "longer than its data");
        assert_eq!(FromKernel::decode(&event[..9]), None);
        for short in 0..12 {
            let set = [UHID_SET_REPORT.as_bytes(), &[0, 0, 0, 0, 1, 1, 1, 0]].concat();
            assert_eq!(FromKernel::decode(&set[..short]), None);
        }
    }
}
