// SPDX-License-Identifier: MIT OR Apache-2.0
//! One drive for many blades, and many drives for one blade.
//!
//! * formats: `nbd` (the NBD protocol, both ends)
//! * core: `arbiter` (who may use which share, and how)
//! * shell: `source` (where the blocks of a share come from), `serve` (the management module's end), `agent` (the
//!   blade's end)
#![forbid(unsafe_code)]

pub mod source;
