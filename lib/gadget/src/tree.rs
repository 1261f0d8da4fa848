// SPDX-License-Identifier: MIT OR Apache-2.0
//! The gadget as a whole: made, adopted, bound, removed.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use usb_gadget::function::hid::Hid;
use usb_gadget::function::msd::{Lun, Msd};
use usb_gadget::{Class, Config, Id, RegGadget, Strings};

use crate::hid;
use crate::identity::{Identity, inquiry};
use crate::layout::{Kind, Layout, LunId};
use crate::lun::{Attributes, Insert, LunError, LunState};
use crate::udc::Udc;

/// Where gadgets are if configfs is mounted where systemd mounts it; elsewhere it is searched for.
const CONFIGFS: &str = "/sys/kernel/config/usb_gadget";
/// Longest name of a controller, bytes; the kernel's own are about 20.
const MAX_UDC_NAME: usize = 64;
/// What the host is told the device draws, mA: it has a supply of its own.
const MAX_POWER: u16 = 2;

/// Why there is no gadget.
#[derive(Debug, thiserror::Error)]
pub enum GadgetError {
    /// The name is none.
    #[error("{name:?} is no name of a USB device controller")]
    Name {
        /// What was given.
        name: String,
    },
    /// No such controller.
    #[error("{name}: no such USB device controller; there are: {}", if there.is_empty() { "none (is its driver loaded?)".into() } else { there.join(", ") })]
    NoUdc {
        /// What was looked for.
        name: String,
        /// The controllers of this machine.
        there: Vec<String>,
    },
    /// Another gadget has the controller.
    #[error(
        "{udc}: in use by gadget {by}, which is not ours; unbind it (echo > /sys/kernel/config/usb_gadget/{by}/UDC) or choose another controller"
    )]
    UdcInUse {
        /// The controller.
        udc: String,
        /// The gadget, or the driver of one that is not in configfs.
        by: String,
    },
    /// The kernel lacks what is needed.
    #[error(
        "no USB gadgets here; load libcomposite, usb_f_mass_storage and usb_f_hid, and mount configfs: {0}"
    )]
    NoConfigfs(io::Error),
    /// A step failed.
    #[error("gadget {gadget}: {step}: {source}")]
    Step {
        /// The gadget.
        gadget: String,
        /// What was tried.
        step: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// It is not bound though the kernel said so.
    #[error("gadget {gadget}: bound to {found:?} instead of {wanted}")]
    NotBound {
        /// The gadget.
        gadget: String,
        /// The controller.
        wanted: String,
        /// What configfs says.
        found: Option<String>,
    },
}

/// Our gadget on one controller. It stays when this is dropped.
#[derive(Debug)]
pub struct Gadget {
    name: String,
    dir: PathBuf,
    layout: Layout,
    udc: Udc,
    adopted: bool,
}

impl Gadget {
    /// Adopts the gadget that is there with all its drives, or makes it, unbound. One of ours with another layout
    /// is made anew.
    ///
    /// # Errors
    /// [`GadgetError`].
    pub fn open(udc: &str, layout: Layout, identity: &Identity) -> Result<Self, GadgetError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if udc.is_empty()
            || udc.len() > MAX_UDC_NAME
            || udc.starts_with('.')
            || !udc.bytes().all(plain)
        {
            return Err(GadgetError::Name { name: udc.to_owned() });
        }
        let controller = Udc::find(udc)
            .map_err(GadgetError::NoConfigfs)?
            .map_err(|there| GadgetError::NoUdc { name: udc.to_owned(), there })?;
        let name = format!("midplane-{udc}");
        let dir = Path::new(CONFIGFS).join(&name);
        let found = Self { name, dir, layout, udc: controller, adopted: true };
        // The host waits for a successor of an agent that died: no search, no modprobe.
        if found.is_bound() && found.is_whole() {
            return Ok(found);
        }
        let Self { name, udc: controller, .. } = found;
        let mut ours = None;
        for gadget in usb_gadget::registered().map_err(GadgetError::NoConfigfs)? {
            if gadget.name() == name.as_str() {
                ours = Some(gadget);
            } else if gadget.udc().ok().flatten().is_some_and(|bound| bound == udc) {
                let by = gadget.name().to_string_lossy().into_owned();
                return Err(GadgetError::UdcInUse { udc: udc.to_owned(), by });
            }
        }
        let step = |step| {
            move |source| GadgetError::Step { gadget: format!("midplane-{udc}"), step, source }
        };
        if let Some(gadget) = ours {
            let found = Self {
                dir: gadget.path().to_owned(),
                name,
                layout,
                udc: controller,
                adopted: true,
            };
            if found.is_whole() {
                return Ok(found);
            }
            gadget.remove().map_err(step("remove the one of another layout"))?;
            return Self::make(found.name, layout, found.udc, identity).map_err(step("make"));
        }
        Self::make(name, layout, controller, identity).map_err(step("make"))
    }

    fn make(name: String, layout: Layout, udc: Udc, identity: &Identity) -> io::Result<Self> {
        let identity = identity.sanitised();
        let strings = Strings::new(&identity.manufacturer, &identity.name, &identity.serial);
        let mut config = Config::new("drives, keyboard, mouse");
        config.max_power = MAX_POWER;
        config.self_powered = true;
        for function in 0..layout.functions() {
            config.add_function(storage(layout, function));
        }
        if layout.has_input() {
            config.add_function(keyboard());
            config.add_function(mouse());
        }
        let id = Id::new(identity.vendor, identity.product);
        let mut gadget =
            usb_gadget::Gadget::new(Class::INTERFACE_SPECIFIC, id, strings).with_config(config);
        gadget.name = Some(name.clone());
        let mut registered: RegGadget = gadget.register()?;
        registered.detach();
        Ok(Self { dir: registered.path().to_owned(), name, layout, udc, adopted: false })
    }

    /// All functions and LUNs of the layout are there, and none more.
    fn is_whole(&self) -> bool {
        let config = self.dir.join("configs/c.1");
        let there = |name: String| {
            self.dir.join("functions").join(&name).is_dir() && config.join(name).exists()
        };
        let hid = (0..2).all(|n| {
            there(format!("hid.{}-{}", self.name, self.layout.functions() + n))
                == self.layout.has_input()
        });
        let storage =
            (0..self.layout.functions()).all(|f| there(format!("mass_storage.{}-{f}", self.name)));
        let next = |function| self.lun_dir(LunId { function, lun: self.layout.luns() });
        let exact = (0..self.layout.functions()).all(|function| !next(function).exists());
        let kinds = self.layout.all().all(|id| {
            self.attributes(id).state().is_ok_and(|state| Some(state.kind) == self.layout.kind(id))
        });
        hid && storage && exact && kinds
    }

    /// It was there already.
    #[must_use]
    pub fn was_adopted(&self) -> bool {
        self.adopted
    }

    /// The layout.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The controller.
    #[must_use]
    pub fn udc(&self) -> &Udc {
        &self.udc
    }

    /// It is bound to its controller.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.bound_to().is_some_and(|bound| bound == self.udc.name())
    }

    /// Shows it to the host. Nothing happens if it is bound already.
    ///
    /// # Errors
    /// `UdcInUse`, or the step's.
    pub fn bind(&self) -> Result<(), GadgetError> {
        if self.is_bound() {
            return Ok(());
        }
        let wanted = self.udc.name();
        match self.registered()?.bind(Some(self.udc.raw())) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                let by = self.udc.raw().function().ok().flatten();
                let by = by.map_or("unknown".into(), |by| by.to_string_lossy().into_owned());
                return Err(GadgetError::UdcInUse { udc: wanted, by });
            }
            other => other.map_err(self.failed("bind"))?,
        }
        match self.bound_to() {
            Some(bound) if bound == wanted => Ok(()),
            found => Err(GadgetError::NotBound { gadget: self.name.clone(), wanted, found }),
        }
    }

    /// Hides it: for the host it is unplugged, with its media in it.
    ///
    /// # Errors
    /// The step's.
    pub fn unbind(&self) -> Result<(), GadgetError> {
        self.registered()?.bind(None).map_err(self.failed("unbind"))
    }

    /// Unplugs it and plugs it in again, which makes a host look that has given up.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn rebind(&self) -> Result<(), GadgetError> {
        self.unbind()?;
        self.bind()
    }

    /// Unbinds and removes it; nothing of it can be done afterwards.
    ///
    /// # Errors
    /// The step's.
    pub fn remove(&self) -> Result<(), GadgetError> {
        self.registered()?.remove().map_err(self.failed("remove"))
    }

    /// What a LUN presents.
    ///
    /// # Errors
    /// `NoSuchLun`, or what configfs says.
    pub fn lun(&self, id: LunId) -> Result<LunState, LunError> {
        self.checked(id)?.state()
    }

    /// Whether a LUN has no medium; its host can eject it as well as we. Cheaper than all of its state.
    ///
    /// # Errors
    /// As [`lun`](Self::lun).
    pub fn is_empty(&self, id: LunId) -> Result<bool, LunError> {
        self.checked(id)?.is_empty()
    }

    /// Loads a medium into an empty LUN of the `kind` it must be; what is presented then. It is read-only also where
    /// the file cannot be written.
    ///
    /// # Errors
    /// [`LunError`]; nothing is loaded then.
    pub fn insert(&self, id: LunId, kind: Kind, insert: &Insert) -> Result<LunState, LunError> {
        let attributes = self.checked(id)?;
        match self.layout.kind(id) {
            Some(is) if is != kind => return Err(LunError::WrongKind { id, is, wanted: kind }),
            _ => {}
        }
        let size = File::open(&insert.file).and_then(|mut file| file.seek(SeekFrom::End(0)));
        let size = size.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => LunError::NoFile { id, file: insert.file.clone() },
            _ => LunError::Io { id, attribute: "file", source },
        })?;
        attributes.insert(insert, size)
    }

    /// Takes the medium out if the host lets it. An empty LUN is none the worse for it.
    ///
    /// # Errors
    /// `HostHolds`, and what configfs says.
    pub fn eject(&self, id: LunId) -> Result<(), LunError> {
        self.checked(id)?.eject()
    }

    /// Takes the medium out; if the host uses it, it gets errors. What it wrote is flushed before this returns, or
    /// lost if the source does not take it.
    ///
    /// # Errors
    /// What configfs says.
    pub fn force_eject(&self, id: LunId) -> Result<(), LunError> {
        self.checked(id)?.force_eject()
    }

    /// The keyboard's node, major and minor number; reports of [`crate::hid::KEYBOARD_REPORT`] bytes are written to it.
    ///
    /// # Errors
    /// Those of configfs.
    pub fn keyboard(&self) -> io::Result<(u32, u32)> {
        self.hid_node(self.layout.functions())
    }

    /// The mouse's node, likewise.
    ///
    /// # Errors
    /// Those of configfs.
    pub fn mouse(&self) -> io::Result<(u32, u32)> {
        self.hid_node(self.layout.functions() + 1)
    }

    fn hid_node(&self, index: u8) -> io::Result<(u32, u32)> {
        let path = self.dir.join(format!("functions/hid.{}-{index}/dev", self.name));
        let text = std::fs::read_to_string(path)?;
        let numbers = text.trim().split_once(':');
        let numbers = numbers.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        numbers.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no device number"))
        })
    }

    fn registered(&self) -> Result<RegGadget, GadgetError> {
        let all = usb_gadget::registered().map_err(GadgetError::NoConfigfs)?;
        let gone = || self.failed("find")(io::Error::from(io::ErrorKind::NotFound));
        all.into_iter().find(|g| g.name() == self.name.as_str()).ok_or_else(gone)
    }

    fn failed(&self, step: &'static str) -> impl Fn(io::Error) -> GadgetError + '_ {
        move |source| GadgetError::Step { gadget: self.name.clone(), step, source }
    }

    fn bound_to(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.dir.join("UDC")).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn checked(&self, id: LunId) -> Result<Attributes, LunError> {
        self.layout.kind(id).ok_or(LunError::NoSuchLun { id })?;
        Ok(self.attributes(id))
    }

    fn attributes(&self, id: LunId) -> Attributes {
        Attributes::new(id, self.lun_dir(id))
    }

    fn lun_dir(&self, id: LunId) -> PathBuf {
        let function = format!("functions/mass_storage.{}-{}", self.name, id.function);
        self.dir.join(function).join(format!("lun.{}", id.lun))
    }

    /// Its folder in configfs.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

fn storage(layout: Layout, function: u8) -> usb_gadget::function::Handle {
    let mut builder = Msd::builder();
    for number in 0..layout.luns() {
        let kind = layout.kind(LunId { function, lun: number });
        let mut lun = Lun::empty();
        lun.cdrom = kind == Some(Kind::Cd);
        let what = if lun.cdrom { "CD" } else { "Disk" };
        lun.inquiry_string = inquiry(&format!("{what} {function}.{number}"));
        builder.add_lun(lun);
    }
    builder.build().1
}

fn keyboard() -> usb_gadget::function::Handle {
    let mut builder = Hid::builder();
    builder.sub_class = hid::BOOT;
    builder.protocol = hid::KEYBOARD;
    builder.report_len = hid::KEYBOARD_REPORT;
    builder.report_desc = hid::KEYBOARD_DESCRIPTOR.to_vec();
    builder.build().1
}

fn mouse() -> usb_gadget::function::Handle {
    let mut builder = Hid::builder();
    builder.report_len = hid::MOUSE_REPORT;
    builder.report_desc = hid::MOUSE_DESCRIPTOR.to_vec();
    builder.no_out_endpoint = true;
    builder.build().1
}
