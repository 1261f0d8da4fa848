// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every Midplane daemon does the same way, so that an operator learns it once.
//!
//! In the order in which a daemon uses them:
//!
//! * [`config`] reads the TOML file and explains what is wrong in it;
//! * [`logging`] sends events to the journal or the terminal;
//! * [`metrics`] holds the counters and serves them;
//! * [`control`] answers HTTP/JSON on a Unix socket and decides who may read and who may change;
//! * [`tcp`] answers those who may only read, on TCP;
//! * [`glob`] is what `*` and `?` mean wherever an operator writes a pattern;
//! * [`signals`] and [`notify`] are the ties to the terminal and to systemd.
//!
//! The command-line verbs of a program use [`client`] to ask its daemon, [`table`] to print the
//! answer, and [`exit`] for their exit codes.
//!
//! All of it runs on one current-thread Tokio runtime, beside the daemon's own loop.
#![forbid(unsafe_code)]

pub mod client;
pub mod config;
pub mod control;
pub mod exit;
pub mod glob;
mod http;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod signals;
pub mod table;
pub mod tcp;
pub mod utc;
