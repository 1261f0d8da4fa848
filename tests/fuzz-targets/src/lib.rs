// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the fuzzers run, as plain functions.
//!
//! `fuzz/` feeds them with what libFuzzer invents and needs its instrumentation; `tests/replay.rs`
//! feeds them with the corpora that are kept there and needs nothing. Each function takes any bytes,
//! panics where a promise of the code under test is broken, and tells what the input reached, so
//! that a corpus which no longer gets anywhere is noticed.
#![forbid(unsafe_code)]

mod config;
mod device_bmc;
mod device_streams;
mod devices;
mod devintf;
mod drive_config;
pub mod drive_disk;
mod drive_link;
mod driver;
mod group;
mod input;
mod kvm;
mod kvm_import;
mod memory;
mod monitor;
mod nbd;
mod records;
mod secure_link;
mod vm_protocol;

pub use self::group::group;
pub use config::config;
pub use device_bmc::device_bmc;
pub use device_streams::device_streams;
pub use devices::devices;
pub use devintf::{COMMANDS, devintf};
pub use drive_config::drive_config;
pub use drive_disk::drive_disk;
pub use drive_link::drive_link;
pub use kvm::{kvm_control, kvm_frame, kvm_hotkey, kvm_telnet};
pub use kvm_import::kvm_import;
pub use monitor::monitor;
pub use nbd::{nbd_options, nbd_requests};
pub use secure_link::{secure_link, true_frames};
pub use vm_protocol::vm_protocol;

/// Names of the places in the code under test that an input got to.
pub type Reached = std::collections::BTreeSet<&'static str>;
