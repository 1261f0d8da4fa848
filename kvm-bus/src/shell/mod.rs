// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines, devices, sockets and clocks around the cores.

pub mod clock;
pub mod console;
pub mod hub;
pub mod line;
pub mod lmc;
pub mod log;
pub mod metrics;
pub mod power;
pub mod rmm;
pub mod stream;
pub mod uinput;
pub mod vcs;
