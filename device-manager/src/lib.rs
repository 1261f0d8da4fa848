// SPDX-License-Identifier: MIT OR Apache-2.0
//! Any device of any machine of a group, found by pattern and leased to one user at a time.
//!
//! * Formats: [`record`] (devices, leases, stamps), [`wire`] (what units, managers and holders tell one
//!   another), [`streams`] (several connections over one), [`hid`] (reports), [`pattern`], [`config`].
//! * Cores, without clock, socket or file: [`unit::core`] (who owns devices has the last word on leases),
//!   [`manager::core`] (lists, finders, requests), [`service::core`] (a lease at its holder, coming back), [`policy`],
//!   [`bmc`] (requests of IPMI).
//! * Shells: [`unit::run`], [`manager::run`], [`service::run`], each a process; [`helper`] is the small one that is root.
//!
//! A *unit* has devices and one manager, and leases end only there. A *manager* brokers: it knows devices, answers
//! finders, judges requests by policy, and asks the unit. A *holder* has a lease, and speaks with the unit itself, so
//! that no manager is in the way of data or renewals.
#![forbid(unsafe_code)]

pub mod args;
pub mod bmc;
pub mod cli;
pub mod config;
mod disk;
mod frames;
pub mod helper;
pub mod hid;
mod ktls;
pub mod link;
pub mod manager;
pub mod pattern;
pub mod policy;
pub mod record;
mod serial;
pub mod service;
pub mod streams;
pub mod trust;
pub mod unit;
pub mod wire;
