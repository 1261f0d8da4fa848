// SPDX-License-Identifier: MIT OR Apache-2.0
//! The blade's end: presents drives to the blade's host through the gadget of one device controller.
//!
//! This is the data path `kernel`: the kernel's mass-storage function over `/dev/nbdN`, whose socket ends in this
//! process.
//!
//! * core: [`proxy`] (one remote drive: what waits, what is sent again, when to give up), [`replay`] (what the server
//!   may have lost), [`usb`] (when to plug in again)
//! * formats: [`spec`]
//! * shell: [`connect`] (to servers), [`pump`] (the thread around the core), [`attach`] (`/dev/nbdN`), [`drive`] (the
//!   thread of one drive), [`run`]

pub mod args;
pub mod attach;
pub mod config;
pub mod connect;
pub mod drive;
pub mod managed;
pub mod proxy;
pub mod pump;
pub mod replay;
pub mod run;
pub mod spec;
pub mod stop;
pub mod tls;
pub mod usb;
