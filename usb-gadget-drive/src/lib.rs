// SPDX-License-Identifier: MIT OR Apache-2.0
//! One drive for many blades, and many drives for one blade.
//!
//! * formats: `nbd` (the NBD protocol, both ends), `link::message` (what the management module and agents tell each
//!   other), `overlay::format`
//! * core: `arbiter` (who may use which share, and how), `client::proxy` (a remote drive whose server may go away)
//! * shell of the management module: `manager` (carries out what the arbiter decides), `serve` (the NBD server),
//!   `source`, `overlay`, `state` and `disk` (blocks and what must not be forgotten), `link::manager`
//! * shell of a blade: `agent`, `link::agent`
//! * shell of both: `client` (to NBD servers)
//! * the command line: `args`, `cli`, `progress`, `cert`
#![forbid(unsafe_code)]

pub mod agent;
pub mod arbiter;
pub mod args;
pub mod cert;
pub mod cli;
pub mod client;
pub mod config;
pub mod disk;
pub mod fence;
pub mod link;
pub mod manager;
pub mod nbd;
pub mod overlay;
pub mod progress;
pub mod run;
mod seldom;
pub mod serve;
pub mod source;
pub mod state;
