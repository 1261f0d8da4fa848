// SPDX-License-Identifier: MIT OR Apache-2.0
//! HID devices: opens one of a USB device for the unit, with what the kernel made of it; and makes one by `/dev/uhid` for who holds
//! one. That file stays here, and so does the say over what is made: who has it could type at this machine's console.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kernel_abi::hid::{Create, FromKernel, ToKernel, UHID_EVENT_LEN, grab};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::MAX_FDS;
use super::usbip::{Identity, Usbip, UsbipError};
use crate::hid::{About, FromDevice, KEYBOARD, MAX_REPORT, ToDevice, kinds};
use crate::record::Found;
use crate::streams::Bytes;
use crate::unit::inventory::{HidDevice, event_of, hids, line};
use crate::wire::Bounded;

/// Where the kernel makes devices.
const UHID: &str = "/dev/uhid";
/// `BUS_USB` (`linux/input.h`).
const BUS_USB: u16 = 3;
/// Most devices that are made at a time; a thread each.
const MAX_MADE: usize = 64;
/// A driver begins with a device within this time: it may have to be loaded.
const START: Duration = Duration::from_secs(5);

/// Opens the HID device `node` of a device, if the device is the one that it is to be and `check` lets it go, and grabs all input
/// devices that the kernel made of it: what is typed is told to nobody else as long as one of the descriptors is open.
///
/// # Errors
/// See [`UsbipError`].
pub fn open(
    usbip: &Usbip,
    bus_id: &str,
    wanted: &Identity,
    node: &str,
    check: impl Fn(&Found) -> Option<String>,
) -> Result<Vec<OwnedFd>, UsbipError> {
    let (path, found) = usbip.identified(bus_id, wanted)?;
    if let Some(why) = check(&found) {
        return Err(UsbipError::Withheld(why));
    }
    let hid = hid_of(&path, node)?;
    if hid.inputs.len() >= MAX_FDS {
        return Err(UsbipError::Withheld(format!("{node}: too many input devices are made of it")));
    }
    let mut all = vec![opened(Path::new(node), &hid.folder, true)?];
    for input in &hid.inputs {
        // One that no node stands for could not be kept from the console.
        let late = || UsbipError::Withheld(format!("{node}: an input device is not ready yet"));
        let folder = event_of(input).ok_or_else(late)?;
        let name = folder.file_name().unwrap_or_default();
        // For reading: who may write to it may type.
        all.push(opened(&Path::new("/dev/input").join(name), &folder, false)?);
    }
    // As of now they are open, and so their numbers are nobody else's.
    usbip.identified(bus_id, wanted)?;
    if hid_of(&path, node)? != hid {
        return Err(UsbipError::Another(node.to_owned()));
    }
    for event in &all[1..] {
        grab(event.as_fd()).map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::BUSY) => UsbipError::Withheld(format!("{node} is in use at its unit")),
            _ => UsbipError::File { path: node.into(), source: error },
        })?;
    }
    Ok(all)
}

fn hid_of(path: &Path, node: &str) -> Result<HidDevice, UsbipError> {
    let gone = || UsbipError::Withheld(format!("{node}: there is no such HID device any more"));
    hids(path).into_iter().find(|hid| hid.node == node).ok_or_else(gone)
}

/// A node, if it is the one of this folder of sysfs.
fn opened(node: &Path, folder: &Path, write: bool) -> Result<OwnedFd, UsbipError> {
    let at = |source| UsbipError::File { path: node.to_owned(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(write).custom_flags(OFlags::NONBLOCK.bits() as i32);
    let file = options.open(node).map_err(at)?;
    let meta = file.metadata().map_err(at)?;
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let is_it = line(folder, "dev") == Some(format!("{major}:{minor}"));
    if !meta.file_type().is_char_device() || !is_it {
        return Err(UsbipError::Another(node.display().to_string()));
    }
    Ok(file.into())
}

/// A device that was made. It goes with this, and the kernel lets go of all keys then.
#[derive(Debug)]
pub struct Made {
    uhid: File,
    socket: OwnedFd,
    place: Place,
}

/// One of [`MAX_MADE`].
#[derive(Debug)]
struct Place(usize);

static PLACES: AtomicUsize = AtomicUsize::new(0);
static NUMBERS: AtomicUsize = AtomicUsize::new(0);

impl Place {
    fn take() -> Option<Self> {
        let more = |taken| (taken < MAX_MADE).then_some(taken + 1);
        PLACES.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Self(NUMBERS.fetch_add(1, Ordering::SeqCst)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        PLACES.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Made {
    /// Makes a device, if it is what was leased, of these types, and a driver takes it.
    ///
    /// # Errors
    /// See [`UsbipError`].
    pub fn new(
        about: &About,
        wanted: &Identity,
        types: &[String],
        socket: OwnedFd,
    ) -> Result<Self, UsbipError> {
        let ids = |vendor, product| (format!("{vendor:04x}"), format!("{product:04x}"));
        let is_it = ids(about.vendor, about.product)
            == (wanted.vendor.to_lowercase(), wanted.product.to_lowercase());
        if !is_it || about.bus != BUS_USB || !about.is_bounded() {
            return Err(UsbipError::Hid("is not what was leased"));
        }
        // Who leased a mouse did not mean to let its unit type here.
        let types_keys = kinds(&about.descriptor.0).contains(&KEYBOARD);
        if types_keys && !types.iter().any(|kind| kind == KEYBOARD) {
            return Err(UsbipError::Hid("has keys, and what was leased is no keyboard"));
        }
        let place = Place::take().ok_or(UsbipError::Hid("finds no place: there are too many"))?;
        let at = |source| UsbipError::File { path: UHID.into(), source };
        let uhid = OpenOptions::new().read(true).write(true).open(UHID).map_err(at)?;
        let mut made = Self { uhid, socket, place };
        let create = Create {
            name: &about.name,
            phys: &made.phys(),
            uniq: &wanted.serial,
            bus: about.bus,
            ids: (about.vendor, about.product),
            descriptor: &about.descriptor.0,
        };
        made.uhid.write_all(&ToKernel::Create(create).encode()).map_err(at)?;
        let limit = Timespec { tv_sec: START.as_secs() as i64, tv_nsec: 0 };
        let mut event = [0; UHID_EVENT_LEN];
        let mut told = || -> io::Result<bool> {
            if poll(&mut [PollFd::new(&made.uhid, PollFlags::IN)], Some(&limit))? == 0 {
                return Ok(false);
            }
            let len = made.uhid.read(&mut event)?;
            Ok(FromKernel::decode(&event[..len]) == Some(FromKernel::Start))
        };
        if told().map_err(at)? { Ok(made) } else { Err(UsbipError::Hid("is taken by no driver")) }
    }

    /// Where it is, in words that no other device has.
    #[must_use]
    pub fn phys(&self) -> String {
        format!("midplane-{}/{}", std::process::id(), self.place.0)
    }

    /// Moves reports until the socket or the device ends.
    pub fn carry(mut self) {
        if let Err(error) = pump(&mut self.uhid, &self.socket) {
            tracing::debug!(%error, "a HID device is over");
        }
        let _ = self.uhid.write_all(&ToKernel::Destroy.encode());
    }
}

fn pump(uhid: &mut File, socket: &OwnedFd) -> io::Result<()> {
    let mut event = [0; UHID_EVENT_LEN];
    let mut message = [0; MAX_REPORT + 64];
    // What is to be sent. As long as that waits, the kernel keeps 31 events more, and then drops some.
    let mut waiting: Option<Vec<u8>> = None;
    loop {
        let out = if waiting.is_some() { PollFlags::OUT } else { PollFlags::empty() };
        let news = if waiting.is_some() { PollFlags::empty() } else { PollFlags::IN };
        let mut ready = [PollFd::new(socket, PollFlags::IN | out), PollFd::new(&*uhid, news)];
        poll(&mut ready, None)?;
        let (socket_is, uhid_is) = (ready[0].revents(), ready[1].revents());
        if socket_is.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            let (len, _) = recv(socket, &mut message, RecvFlags::DONTWAIT)?;
            if len == 0 {
                return Ok(());
            }
            tell(uhid, &FromDevice::decode(&message[..len]).map_err(io::Error::other)?)?;
        }
        if uhid_is.intersects(PollFlags::ERR | PollFlags::HUP) {
            return Ok(());
        }
        if uhid_is.contains(PollFlags::IN) {
            let len = uhid.read(&mut event)?;
            waiting = FromKernel::decode(&event[..len]).and_then(asked).map(|said| said.encode());
        }
        if let Some(bytes) = &waiting {
            match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Err(Errno::AGAIN) => {}
                sent => {
                    sent?;
                    waiting = None;
                }
            }
        }
    }
}

fn asked(event: FromKernel<'_>) -> Option<ToDevice> {
    Some(match event {
        FromKernel::Output(report) => ToDevice::Output(Bytes(report.to_vec())),
        FromKernel::Get(id, kind, number) => ToDevice::Get(id, kind.into(), number),
        FromKernel::Set(id, kind, number, report) => {
            ToDevice::Set(id, kind.into(), number, Bytes(report.to_vec()))
        }
        FromKernel::Start | FromKernel::Stop | FromKernel::Other(_) => return None,
    })
}

fn tell(uhid: &mut File, said: &FromDevice) -> io::Result<()> {
    let event = match said {
        FromDevice::Input(Bytes(report)) => ToKernel::Input(report),
        FromDevice::Got(id, report) => {
            ToKernel::Got(*id, report.as_ref().map(|Bytes(report)| report.as_slice()))
        }
        FromDevice::Set(id, done) => ToKernel::Set(*id, *done),
    };
    uhid.write_all(&event.encode())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::unit::inventory::look;

    /// A machine with one keyboard, `/dev/hidraw9999`, which is nowhere.
    fn machine() -> (tempfile::TempDir, Usbip, Identity) {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("bus/usb/devices/1-1");
        let hid = device.join("1-1:1.0/0003:1D6B:0104.0001");
        for folder in ["hidraw/hidraw9999", "input/input3"] {
            fs::create_dir_all(hid.join(folder)).unwrap();
        }
        for (name, text) in
            [("bDeviceClass", "00"), ("idVendor", "1d6b"), ("idProduct", "0104"), ("serial", "X")]
        {
            fs::write(device.join(name), text).unwrap();
        }
        fs::write(device.join("descriptors"), [9, 4, 0, 0, 2, 3, 1, 1, 0]).unwrap();
        let identity = Identity::of(&look(&device).unwrap());
        let usbip = Usbip::new(sys.path());
        (sys, usbip, identity)
    }

    const NODE: &str = "/dev/hidraw9999";

    #[test]
    fn only_a_hid_device_of_the_very_device_is_opened() {
        let (_sys, usbip, wanted) = machine();
        let fails = |bus_id, wanted: &Identity, node, kept: Option<&str>| {
            open(&usbip, bus_id, wanted, node, |_| kept.map(str::to_owned)).unwrap_err()
        };
        let other = Identity { serial: "Y".to_owned(), ..wanted.clone() };
        assert!(matches!(fails("1-1", &other, NODE, None), UsbipError::Another(_)));
        assert_eq!(fails("1-1", &wanted, NODE, Some("mine")).to_string(), "mine");
        for node in ["/dev/hidraw0", "/dev/mem", "/dev/../dev/hidraw9999", ""] {
            let why = fails("1-1", &wanted, node, None).to_string();
            assert!(why.contains("no such HID device"), "{node}: {why}");
        }
        // It passed: what fails is the opening.
        assert!(matches!(fails("1-1", &wanted, NODE, None), UsbipError::File { .. }));
    }

    #[test]
    fn a_node_is_the_one_that_sysfs_tells_of() {
        let sys = tempfile::tempdir().unwrap();
        for (told, fits) in [("1:3", true), ("1:5", false)] {
            fs::write(sys.path().join("dev"), told).unwrap();
            assert_eq!(opened(Path::new("/dev/null"), sys.path(), true).is_ok(), fits);
        }
    }

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn only_what_was_leased_is_made() {
        let (_sys, _, wanted) = machine();
        let about = About {
            name: "Keys".to_owned(),
            bus: BUS_USB,
            vendor: 0x1d6b,
            product: 0x104,
            descriptor: Bytes(vec![5]),
        };
        for wrong in [
            About { vendor: 0x1d6c, ..about.clone() },
            About { product: 0x105, ..about.clone() },
            About { bus: 5, ..about.clone() },
            About { descriptor: Bytes(vec![]), ..about.clone() },
            About { descriptor: Bytes(vec![5, 7, 0x81, 0]), ..about },
        ] {
            let made = Made::new(&wrong, &wanted, &["mouse".to_owned()], pair().0);
            assert!(matches!(made, Err(UsbipError::Hid(_))), "{wrong:?}");
        }
    }

    /// A socket stands for `/dev/uhid`.
    #[test]
    fn reports_alone_go_between_holder_and_kernel() {
        let ((uhid, kernel), (socket, holder)) = (pair(), pair());
        let made = Made { uhid: uhid.into(), socket, place: Place::take().unwrap() };
        let carrying = std::thread::spawn(move || made.carry());
        let mut kernel = File::from(kernel);
        let mut buffer = [0; UHID_EVENT_LEN];
        let mut set = [&13_u32.to_ne_bytes()[..], &[7, 0, 0, 0, 1, 0, 2, 0, 1, 9]].concat();
        set.resize(UHID_EVENT_LEN, 0);
        // Somebody opens it, which is nobody's business.
        let mut opened = 4_u32.to_ne_bytes().to_vec();
        opened.resize(UHID_EVENT_LEN, 0);
        for event in [&opened, &set] {
            kernel.write_all(event).unwrap();
        }
        let (len, _) = recv(&holder, &mut buffer, RecvFlags::empty()).unwrap();
        let asked = ToDevice::Set(7, crate::hid::Kind::Feature, 1, Bytes(vec![1, 9]));
        assert_eq!(ToDevice::decode(&buffer[..len]), Ok(asked));
        for (said, event) in [
            (FromDevice::Set(7, true), ToKernel::Set(7, true)),
            (FromDevice::Input(Bytes(vec![1, 4])), ToKernel::Input(&[1, 4])),
        ] {
            send(&holder, &said.encode(), SendFlags::empty()).unwrap();
            let len = kernel.read(&mut buffer).unwrap();
            assert_eq!(buffer[..len], event.encode());
        }
        // What is no report ends it, with all keys up.
        send(&holder, &ToKernel::Destroy.encode(), SendFlags::empty()).unwrap();
        let len = kernel.read(&mut buffer).unwrap();
        assert_eq!(buffer[..len], ToKernel::Destroy.encode());
        carrying.join().unwrap();
    }
}
