// SPDX-License-Identifier: MIT OR Apache-2.0
//! ipmi-mux: one BMC as many independent, ipmitool-compatible controllers.
//!
//! Three layers, in the order to read them:
//!
//! * formats: [`addr`] and [`devintf`], the kernel's ioctl interface as bytes, [`extension`], what we add
//!   to it; [`command`], what each IPMI command does; [`config`], the file;
//! * core: [`mux`], which owns every decision and touches nothing; [`policy`], which commands a node allows;
//! * shell: [`front`] makes the nodes, [`back`] reaches the BMC, [`hotplug`] hears of its removal,
//!   [`control`] answers questions, [`audit`] writes down who changed what, [`watch`] tells what passes,
//!   [`reserve`] makes nodes for reservations, [`takeover`] moves the kernel's node, and [`run`] is the one
//!   loop that joins them.
//!
//! [`args`] and [`cli`] are the command line.
#![forbid(unsafe_code)]

pub mod addr;
pub mod args;
pub mod audit;
pub mod back;
pub mod cli;
pub mod command;
pub mod config;
pub mod control;
pub mod devintf;
pub mod extension;
pub mod front;
pub mod hotplug;
pub mod mux;
pub mod policy;
pub mod reserve;
pub mod run;
pub mod takeover;
pub mod watch;
