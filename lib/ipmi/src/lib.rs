// SPDX-License-Identifier: MIT OR Apache-2.0
//! IPMI as bytes: messages, records, and the serial protocol between a virtual machine and its BMC.
//!
//! Nothing here does I/O, keeps time or allocates by a length that it has not checked. Decoders
//! take what a stranger sent and never panic. "IPMI 2.0" in the comments is the *Intelligent
//! Platform Management Interface Specification, second generation, v2.0, revision 1.1*.
//!
//! * [`message`]: network functions, commands and completion codes; requests and responses.
//! * [`names`]: the names of the standard commands.
//! * [`ipmb`]: the framing used inside Send Message and Get Message.
//! * [`vm`]: the protocol that QEMU's `ipmi-bmc-extern` speaks.
//! * [`sdr`], [`sel`], [`fru`]: sensor records, log records and inventory areas.
#![forbid(unsafe_code)]

pub mod fru;
pub mod ipmb;
pub mod message;
pub mod names;
pub mod sdr;
pub mod sel;
pub mod text;
pub mod vm;

pub use message::{Command, CompletionCode, Lun, MAX_MESSAGE_LEN, NetFn, Request, Response};
