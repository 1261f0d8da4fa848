// SPDX-License-Identifier: MIT OR Apache-2.0
//! Screen, keyboard and console of every blade over one daisy-chained serial bus.
#![forbid(unsafe_code)]

pub mod core;
pub mod wire;
