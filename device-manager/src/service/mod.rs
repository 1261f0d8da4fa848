// SPDX-License-Identifier: MIT OR Apache-2.0
//! A service: finds a device, has it leased, and holds it: over links to its unit, so that no manager is in the way.

pub(crate) mod attach;
pub mod core;
mod find;
pub(crate) mod hid;
pub mod run;
pub(crate) mod socket;
