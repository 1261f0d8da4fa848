// SPDX-License-Identifier: MIT OR Apache-2.0
//! A unit: owns the devices of its machine, and has the last word on them.

mod bmc;
mod carry;
pub mod core;
mod disk;
mod hid;
pub mod inventory;
pub mod run;
mod uevents;
