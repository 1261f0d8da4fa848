// SPDX-License-Identifier: MIT OR Apache-2.0
//! The blade's end: presents drives to the blade's host through the gadget of one device controller.
//!
//! This is the data path `kernel`: the kernel's mass-storage function over `/dev/nbdN`, whose socket ends in this
//! process, in a [pump](crate::client::pump).
//!
//! * core: [`usb`] (when to plug in again)
//! * formats: [`spec`]
//! * shell: [`attach`] (`/dev/nbdN`), [`drive`] (the thread of one drive), [`run`]

pub mod args;
pub mod attach;
pub mod config;
pub mod drive;
pub mod managed;
pub mod run;
pub mod spec;
pub mod stop;
pub mod usb;
