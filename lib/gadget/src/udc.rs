// SPDX-License-Identifier: MIT OR Apache-2.0
//! A USB device controller, `/sys/class/udc/NAME`.

use std::io;
use std::path::PathBuf;

pub use usb_gadget::UdcState as UsbState;

/// A controller of this machine.
#[derive(Debug, Clone)]
pub struct Udc(usb_gadget::Udc);

impl Udc {
    /// The controller of that name; if there is none, the names there are.
    pub(crate) fn find(name: &str) -> io::Result<Result<Self, Vec<String>>> {
        let all = usb_gadget::udcs()?;
        let mut names: Vec<_> =
            all.iter().map(|u| u.name().to_string_lossy().into_owned()).collect();
        match all.into_iter().find(|udc| udc.name() == name) {
            Some(udc) => Ok(Ok(Self(udc))),
            None => {
                names.sort();
                Ok(Err(names))
            }
        }
    }

    pub(crate) fn raw(&self) -> &usb_gadget::Udc {
        &self.0
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        self.0.name().to_string_lossy().into_owned()
    }

    /// How far the host has come. Not every controller tells each step.
    ///
    /// # Errors
    /// Those of sysfs.
    pub fn state(&self) -> io::Result<UsbState> {
        self.0.state()
    }

    /// The attribute behind [`Self::state`], which can be polled for `POLLPRI`.
    #[must_use]
    pub fn state_path(&self) -> PathBuf {
        PathBuf::from("/sys/class/udc").join(self.0.name()).join("state")
    }
}
