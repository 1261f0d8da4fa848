// SPDX-License-Identifier: MIT OR Apache-2.0
//! A simulated BMC for tests and demonstrations, behind the VM serial protocol.
//!
//! QEMU's `ipmi-bmc-extern` connects to it, so that a guest's own `ipmi_si` driver and `/dev/ipmi0`
//! work it; `ipmi-mux` can connect too. Reading order:
//!
//! * [`model`]: the controller itself. Told the time and a request, it gives a response; no clock,
//!   no I/O.
//! * [`fault`]: what goes wrong with each reply, on command.
//! * [`journal`]: which commands came and what they changed.
//! * [`engine`]: puts these together and serves one request at a time; still without clock or I/O.
//! * [`control`]: the language of `bmc-sim ctl`.
//! * [`server`] and [`ctl`]: sockets, timers, signals.
#![forbid(unsafe_code)]

pub mod args;
pub mod control;
pub mod ctl;
pub mod engine;
pub mod fault;
pub mod journal;
pub mod model;
pub mod server;
