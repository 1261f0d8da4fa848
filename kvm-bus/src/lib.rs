// SPDX-License-Identifier: MIT OR Apache-2.0
//! Screen, keyboard and console of every blade over one daisy-chained serial bus.
//!
//! * formats: `wire` (frames and messages), `attach` (how programs come to a console), `telnet`
//! * core: `core::lmc` and `core::rmm` (both ends), on `core::mux` (three ports), `core::link` (a session); and what both
//!   ends do with keys, text screens and consoles
//! * shell: `shell::lmc`, `shell::rmm`, and the lines, devices and sockets around them
//! * `ssh`: consoles and screens by SSH, a process for each connection
//! * `import`: configurations of conserver and ser2net, moved over
//! * the command line: `args`, `cli`, `terminal`
#![forbid(unsafe_code)]

pub mod args;
pub mod attach;
pub mod cli;
pub mod config;
pub mod core;
pub mod import;
pub mod shell;
#[cfg(feature = "ssh")]
pub mod ssh;
pub mod telnet;
pub mod terminal;
pub mod wire;
