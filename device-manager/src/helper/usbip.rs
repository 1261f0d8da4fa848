// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's USB/IP by sysfs: `usbip-host` at the machine with a device, `vhci_hcd` at the one that uses it
//! (`drivers/usb/usbip/stub_dev.c`, `stub_main.c` and `vhci_sysfs.c` of Linux 6.1). All of it takes root.
//!
//! The kernel takes a reference of the socket: nobody needs to live for data to flow. Its own threads begin with
//! commands; what `usbip` says before that is not the kernel's business, and is done by us in our own way.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::record::Found;
use crate::unit::inventory::{digest, line, look};

/// A device is given back, and free, within this time.
const FREE: Duration = Duration::from_secs(5);
/// A device that is attached is enumerated within this time, slow links and all.
const ENUMERATE: Duration = Duration::from_secs(10);
/// Between two looks at sysfs, which tells nobody of changes.
const LOOK: Duration = Duration::from_millis(20);
/// `SDEV_ST_AVAILABLE` and `SDEV_ST_USED` (`include/uapi/linux/usbip.h`).
const AVAILABLE: &str = "1";
/// See [`AVAILABLE`].
const USED: &str = "2";
/// `VDEV_ST_NULL` and `VDEV_ST_USED`.
const PORT_FREE: &str = "004";
/// See [`PORT_FREE`].
const PORT_USED: &str = "006";

/// Why it is not done.
#[derive(Debug, thiserror::Error)]
pub enum UsbipError {
    /// A file of sysfs.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not there.
    #[error("{0}: there is no such device")]
    NoDevice(String),
    /// Another one is plugged in there.
    #[error("{0}: it is another device than the one that was leased")]
    Another(String),
    /// The machine keeps it.
    #[error("{0}")]
    Withheld(String),
    /// The driver has it for somebody else.
    #[error("{0}: it is given away already")]
    Busy(String),
    /// A module is missing.
    #[error("the kernel's {0} driver is not loaded (modprobe {0})")]
    NoDriver(&'static str),
    /// All ports of the virtual controller are in use.
    #[error("all ports of vhci_hcd for that speed are in use")]
    NoPort,
    /// It did not come up.
    #[error("port {0}: the device does not come up")]
    Silent(u32),
    /// What came is not what was leased.
    #[error("port {0}: what came over the network is not what was leased: {1}")]
    Forged(u32, String),
    /// So with a HID device, or the kernel does not take it.
    #[error("the HID device that came over the network {0}")]
    Hid(&'static str),
}

type Result<T> = std::result::Result<T, UsbipError>;

/// What a device is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// As [`Found::vendor`].
    pub vendor: String,
    /// As [`Found::product`].
    pub product: String,
    /// As [`Found::serial`].
    pub serial: String,
    /// As [`Found::descriptors`].
    pub descriptors: u64,
}

impl Identity {
    /// Of what was found.
    #[must_use]
    pub fn of(found: &Found) -> Self {
        let (vendor, product) = (found.vendor.clone(), found.product.clone());
        Self { vendor, product, serial: found.serial.clone(), descriptors: found.descriptors }
    }
}

/// What the other end needs to know of a device that is given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// `busnum << 16 | devnum`.
    pub devid: u32,
    /// As `enum usb_device_speed` counts.
    pub speed: u32,
}

/// sysfs, or what stands for it in tests.
#[derive(Debug, Clone)]
pub struct Usbip {
    sys: PathBuf,
}

fn write(path: &Path, text: &str) -> Result<()> {
    let at = |source| UsbipError::File { path: path.to_owned(), source };
    let mut file = fs::OpenOptions::new().write(true).open(path).map_err(at)?;
    file.write_all(text.as_bytes())
        .map_err(|source| UsbipError::File { path: path.to_owned(), source })
}

fn until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

/// A name of a port, and nothing that leads out of its folder.
fn is_bus_id(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_digit() || b == b'-' || b == b'.';
    (3..=31).contains(&text.len())
        && text.bytes().all(plain)
        && !text.contains("..")
        && text.starts_with(|c: char| c.is_ascii_digit())
}

impl Usbip {
    /// Usually of `/sys`.
    #[must_use]
    pub fn new(sys: &Path) -> Self {
        Self { sys: sys.to_owned() }
    }

    fn device(&self, bus_id: &str) -> PathBuf {
        self.sys.join("bus/usb/devices").join(bus_id)
    }

    fn host(&self) -> PathBuf {
        self.sys.join("bus/usb/drivers/usbip-host")
    }

    /// The state of a device that is with `usbip-host`.
    fn status(&self, bus_id: &str) -> Option<String> {
        line(&self.device(bus_id), "usbip_status")
    }

    /// What the other end needs to know of a device.
    #[must_use]
    pub fn look(&self, bus_id: &str) -> Option<Exported> {
        let path = self.device(bus_id);
        let number = |name| line(&path, name).and_then(|text| text.parse::<u32>().ok());
        let speed = line(&path, "speed").and_then(|text| speed(&text))?;
        Some(Exported { devid: number("busnum")? << 16 | number("devnum")?, speed })
    }

    /// A device, if it is the one that it is to be, and its folder.
    ///
    /// # Errors
    /// It is not there, or another is.
    pub fn identified(&self, bus_id: &str, wanted: &Identity) -> Result<(PathBuf, Found)> {
        let path = self.device(bus_id);
        let found = Some(&path).filter(|_| is_bus_id(bus_id)).and_then(|path| look(path));
        let found = found.ok_or_else(|| UsbipError::NoDevice(bus_id.to_owned()))?;
        if Identity::of(&found) != *wanted {
            return Err(UsbipError::Another(bus_id.to_owned()));
        }
        Ok((path, found))
    }

    /// Whether data of a device flow.
    #[must_use]
    pub fn is_used(&self, bus_id: &str) -> bool {
        self.status(bus_id).as_deref() == Some(USED)
    }

    /// Gives a device away over a connected stream socket, if it is the one that it is to be and `check` lets it go.
    ///
    /// # Errors
    /// See [`UsbipError`]; the device is where it was then.
    pub fn export(
        &self,
        bus_id: &str,
        wanted: &Identity,
        socket: BorrowedFd<'_>,
        check: impl Fn(&Path, &Found) -> Option<String>,
    ) -> Result<Exported> {
        let (path, found) = self.identified(bus_id, wanted)?;
        let none = || UsbipError::NoDevice(bus_id.to_owned());
        if let Some(why) = check(&path, &found) {
            return Err(UsbipError::Withheld(why));
        }
        if !self.host().is_dir() {
            return Err(UsbipError::NoDriver("usbip-host"));
        }
        match self.status(bus_id).as_deref() {
            None => self.bind(bus_id)?,
            Some(AVAILABLE) => {}
            Some(_) => return Err(UsbipError::Busy(bus_id.to_owned())),
        }
        let given = write(&path.join("usbip_sockfd"), &socket.as_raw_fd().to_string());
        let told = given.and_then(|()| self.look(bus_id).ok_or_else(none));
        if told.is_err() {
            let _ = self.give_back(bus_id);
        }
        told
    }

    fn bind(&self, bus_id: &str) -> Result<()> {
        let driver = self.device(bus_id).join("driver/unbind");
        if driver.exists() {
            write(&driver, bus_id)?;
        }
        let bound = write(&self.host().join("match_busid"), &format!("add {bus_id}"))
            .and_then(|()| write(&self.host().join("bind"), bus_id));
        if bound.is_err() {
            let _ = self.give_back(bus_id);
        }
        bound
    }

    /// Cuts a device's data path, and gives it back to the machine's own drivers. Whatever of it is done already is left out.
    ///
    /// # Errors
    /// See [`UsbipError`].
    pub fn give_back(&self, bus_id: &str) -> Result<()> {
        if !is_bus_id(bus_id) {
            return Err(UsbipError::NoDevice(bus_id.to_owned()));
        }
        let path = self.device(bus_id);
        if self.status(bus_id).is_some() {
            // EINVAL: nothing flowed.
            let _ = write(&path.join("usbip_sockfd"), "-1");
            until(FREE, || self.status(bus_id).is_none_or(|status| status == AVAILABLE));
            if self.status(bus_id).is_some() {
                write(&self.host().join("unbind"), bus_id)?;
            }
        }
        let _ = write(&self.host().join("match_busid"), &format!("del {bus_id}"));
        // What is not bound to any driver finds its own.
        if path.exists() && !path.join("driver").exists() {
            let _ = write(&self.host().join("rebind"), bus_id);
            if !path.join("driver").exists() {
                write(&self.sys.join("bus/usb/drivers_probe"), bus_id)?;
            }
        }
        Ok(())
    }

    fn vhci(&self) -> PathBuf {
        self.sys.join("devices/platform/vhci_hcd.0")
    }

    /// Lines of all status files: hub, port, state, and the local name of what is there.
    fn ports(&self) -> Vec<Port> {
        let names =
            std::iter::once("status".to_owned()).chain((1..16).map(|n| format!("status.{n}")));
        let files = names.map_while(|name| fs::read_to_string(self.vhci().join(name)).ok());
        files.flat_map(|text| text.lines().filter_map(port).collect::<Vec<_>>()).collect()
    }

    /// Whether a port has a device.
    #[must_use]
    pub fn is_attached(&self, number: u32) -> bool {
        self.ports().iter().any(|port| port.number == number && port.state != PORT_FREE)
    }

    /// The local name of the device at a port.
    #[must_use]
    pub fn bus_id_of(&self, number: u32) -> Option<String> {
        let port = self
            .ports()
            .into_iter()
            .find(|port| port.number == number && port.state == PORT_USED)?;
        port.bus_id
    }

    /// Whether the device at a port is there and drivers may have it: not if it was enumerated again as something else.
    #[must_use]
    pub fn is_admitted(&self, number: u32, bus_id: &str) -> bool {
        let there = self.bus_id_of(number).as_deref() == Some(bus_id);
        there && line(&self.device(bus_id), "authorized").as_deref() == Some("1")
    }

    /// Attaches a device that comes over a socket, and lets drivers have it if it is the one that was leased. Returns port and
    /// local name.
    ///
    /// # Errors
    /// See [`UsbipError`]; nothing is attached then.
    pub fn import(
        &self,
        exported: Exported,
        wanted: &Identity,
        socket: BorrowedFd<'_>,
    ) -> Result<(u32, String)> {
        if !self.vhci().is_dir() {
            return Err(UsbipError::NoDriver("vhci-hcd"));
        }
        self.prepare();
        let hub = if exported.speed >= 5 { "ss" } else { "hs" };
        let mut failed = UsbipError::NoPort;
        for port in
            self.ports().into_iter().filter(|port| port.hub == hub && port.state == PORT_FREE)
        {
            let Exported { devid, speed } = exported;
            let line = format!("{} {} {devid} {speed}", port.number, socket.as_raw_fd());
            match write(&self.vhci().join("attach"), &line) {
                Ok(()) => {
                    let admitted = self.admit(port.number, wanted);
                    if admitted.is_err() {
                        let _ = self.detach(port.number);
                    }
                    return admitted.map(|bus_id| (port.number, bus_id));
                }
                // Somebody else was quicker.
                Err(UsbipError::File { source, path })
                    if source.kind() == io::ErrorKind::ResourceBusy =>
                {
                    failed = UsbipError::File { source, path };
                }
                Err(error) => return Err(error),
            }
        }
        Err(failed)
    }

    /// What is enumerated at the virtual controller is nobody's until it was looked at: also when it changes later. And its
    /// hubs stay awake: one that had gone to sleep was seen not to notice a device (6.1: "Device attached" by vhci_hcd, and
    /// nothing more for as long as the lease lasted), and there is no power to be saved.
    fn prepare(&self) {
        let Ok(buses) = fs::read_dir(self.vhci()) else { return };
        for bus in buses.filter_map(|entry| Some(entry.ok()?.path())) {
            if bus.file_name().is_some_and(|name| name.to_string_lossy().starts_with("usb")) {
                let _ = write(&bus.join("authorized_default"), "0");
                let _ = write(&bus.join("power/control"), "on");
            }
        }
    }

    fn admit(&self, port: u32, wanted: &Identity) -> Result<String> {
        let mut bus_id = None;
        until(ENUMERATE, || {
            // The kernel makes the file of descriptors a moment after the others.
            let is_whole = |id: &String| {
                let device = self.device(id);
                line(&device, "authorized").is_some() && device.join("descriptors").exists()
            };
            bus_id = self.bus_id_of(port).filter(is_whole);
            bus_id.is_some() || !self.is_attached(port)
        });
        let bus_id = bus_id.ok_or(UsbipError::Silent(port))?;
        let path = self.device(&bus_id);
        let is = |name: &str, wanted: &str| line(&path, name).unwrap_or_default() == wanted;
        for (name, wanted) in [("idVendor", &wanted.vendor), ("idProduct", &wanted.product)] {
            if !is(name, wanted) {
                return Err(UsbipError::Forged(port, format!("{name} is another")));
            }
        }
        let bytes = fs::read(path.join("descriptors")).unwrap_or_default();
        if digest(&bytes) != wanted.descriptors {
            return Err(UsbipError::Forged(port, "its descriptors are others".to_owned()));
        }
        write(&path.join("authorized"), "1")?;
        // Texts are read when it is authorised.
        if !is("serial", &wanted.serial) {
            let _ = write(&path.join("authorized"), "0");
            return Err(UsbipError::Forged(port, "its serial number is another".to_owned()));
        }
        Ok(bus_id)
    }

    /// Detaches what is at a port; nothing is no error.
    ///
    /// # Errors
    /// See [`UsbipError`].
    pub fn detach(&self, port: u32) -> Result<()> {
        if !self.is_attached(port) {
            return Ok(());
        }
        write(&self.vhci().join("detach"), &port.to_string())
    }
}

fn speed(text: &str) -> Option<u32> {
    Some(match text {
        "1.5" => 1,
        "12" => 2,
        "480" => 3,
        "5000" => 5,
        "10000" | "20000" => 6,
        _ => return None,
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Port {
    hub: String,
    number: u32,
    state: String,
    bus_id: Option<String>,
}

/// `hs  0000 006 003 00010002 000003 1-1`; the head is none.
fn port(line: &str) -> Option<Port> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [hub, number, state, _, _, _, bus_id] = words[..] else { return None };
    let bus_id = Some(bus_id.to_owned()).filter(|id| is_bus_id(id) && !id.starts_with('0'));
    Some(Port {
        hub: hub.to_owned(),
        number: number.parse().ok()?,
        state: state.to_owned(),
        bus_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_the_kernel_writes_them() {
        assert_eq!(port("hub port sta spd dev      sockfd local_busid"), None);
        let free = port("hs  0003 004 000 00000000 000000 0-0").unwrap();
        assert_eq!((free.number, free.state.as_str(), free.bus_id), (3, PORT_FREE, None));
        let used = port("ss  0012 006 005 00010002 000003 9-1").unwrap();
        assert_eq!((used.number, used.bus_id.as_deref()), (12, Some("9-1")));
    }

    #[test]
    fn only_names_of_ports_are_written_to_drivers() {
        for good in ["1-1", "2-1.4.3", "10-2"] {
            assert!(is_bus_id(good), "{good}");
        }
        for bad in ["", "usb1", "1-1:1.0", "../1-1", "1-1/..", "1..1", "-1", "1-1\n"] {
            assert!(!is_bus_id(bad), "{bad}");
        }
    }

    #[test]
    fn another_device_in_the_same_port_is_not_given_away() {
        let sys = tempfile::tempdir().unwrap();
        let device = sys.path().join("bus/usb/devices/1-1");
        fs::create_dir_all(&device).unwrap();
        for (name, text) in
            [("bDeviceClass", "00"), ("idVendor", "1d6b"), ("idProduct", "0104"), ("serial", "X")]
        {
            fs::write(device.join(name), text).unwrap();
        }
        fs::write(device.join("descriptors"), [9, 4, 0, 0, 2, 8, 6, 0x50, 0]).unwrap();
        let found = look(&device).unwrap();
        let usbip = Usbip::new(sys.path());
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = std::os::fd::AsFd::as_fd(&socket);
        let wanted = Identity::of(&found);
        let other = Identity { serial: "Y".to_owned(), ..wanted.clone() };
        let refused = usbip.export("1-1", &other, socket, |_, _| None);
        assert!(matches!(refused, Err(UsbipError::Another(_))), "{refused:?}");
        let kept = usbip.export("1-1", &wanted, socket, |_, _| Some("mine".to_owned()));
        assert!(matches!(kept, Err(UsbipError::Withheld(_))), "{kept:?}");
        let none = usbip.export("1-1", &wanted, socket, |_, _| None);
        assert!(matches!(none, Err(UsbipError::NoDriver(_))), "{none:?}");
    }
}
