// SPDX-License-Identifier: MIT OR Apache-2.0
//! A manager: brokers devices of all units to services of all machines.

pub mod api;
mod control;
pub mod core;
mod metrics;
pub mod order;
mod peers;
pub mod run;
