// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an RMM and an LMC do, without clock, device or socket: told the time and what came, they say what is to be done.

pub mod arq;
pub mod console;
pub mod escape;
pub mod hotkey;
pub mod keys;
pub mod layout;
pub mod link;
pub mod lmc;
pub mod mux;
pub mod queue;
pub mod render;
pub mod rmm;
pub mod screen;
pub mod signs;
pub mod slave;

/// Time since some beginning, microseconds.
pub type Micros = u64;

/// Milliseconds as [`Micros`].
pub(crate) const fn ms(milliseconds: u64) -> Micros {
    milliseconds * 1000
}
