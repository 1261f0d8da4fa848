// SPDX-License-Identifier: MIT OR Apache-2.0
//! Blades that watch themselves and their chassis.
//!
//! * formats: `formats` (files of the kernel, PMBus, what members tell one another), `metric`, `pattern`
//! * core: `core` (values, history, limits, alerts)
//! * shell: `sources` (threads that read), `shell` (the loop, the log on disk, actions, interfaces)
//! * the command line: `args`, `cli`, `report` (what daemon and verbs say to one another), `config`
#![forbid(unsafe_code)]

pub mod args;
pub mod cli;
pub mod config;
pub mod core;
pub mod formats;
pub mod metric;
pub mod pattern;
pub mod report;
pub mod shell;
pub mod sources;
