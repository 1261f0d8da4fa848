// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one composite gadget that a device controller (UDC) shows to its host: drives, a keyboard and a mouse.
//!
//! All of it is there from the first bind: a function or a LUN can only be added while unbound, and then the host
//! loses every drive. So there are as many LUNs as there ever will be, removable and empty, and each is a disk or a
//! CD from the beginning, since the host asks for the kind of device only once, when it enumerates ([`Layout`]).
//!
//! What is presented is read back from configfs after every change; nothing is remembered here. So a program that
//! restarts [adopts](Gadget::open) the gadget it left behind with all its drives. Only the gadget of our own name
//! is ever touched.
//!
//! Life cycle and functions are those of the crate `usb-gadget`; attributes of LUNs are ours ([`lun`]), as it has no
//! way to read them, and its way to eject does nothing (1.3.0 writes no byte).
#![forbid(unsafe_code)]

pub mod hid;
mod identity;
mod layout;
pub mod lun;
mod tree;
mod udc;

pub use identity::Identity;
pub use layout::{Kind, Layout, LayoutError, LunId, MAX_LUNS};
pub use lun::{Insert, LunError, LunState, MAX_CD};
pub use tree::{Gadget, GadgetError};
pub use udc::{Udc, UsbState};
