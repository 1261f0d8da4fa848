// SPDX-License-Identifier: MIT OR Apache-2.0
//! A share as a plain file of the simulated disk.

use std::io;

use usb_gadget_drive::disk::File;
use usb_gadget_drive::source::{Abilities, Source, Zeroing};

use crate::disk::SimFile;

pub struct Plain(pub SimFile, pub u64);

impl Source for Plain {
    fn size(&self) -> u64 {
        self.1
    }

    fn abilities(&self) -> Abilities {
        Abilities { write: true, ..Abilities::default() }
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64, fua: bool) -> io::Result<()> {
        self.0.write_at(buf, offset)?;
        if fua { self.0.sync() } else { Ok(()) }
    }

    fn flush(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn trim(&self, _: u64, _: u64, fua: bool) -> io::Result<()> {
        if fua { self.0.sync() } else { Ok(()) }
    }

    fn zero(&self, offset: u64, len: u64, _: Zeroing, fua: bool) -> io::Result<()> {
        for at in (offset..offset + len).step_by(65536) {
            self.0.punch(at, (offset + len - at).min(65536))?;
        }
        if fua { self.0.sync() } else { Ok(()) }
    }
}
