// SPDX-License-Identifier: MIT OR Apache-2.0
//! What touches the world: threads of sources, files, sockets, and the loop that tells the core what happened and carries
//! out what follows.

pub mod actions;
pub mod changes;
pub mod chassis;
pub mod control;
mod heard;
pub mod identity;
pub mod kept;
pub mod links;
pub mod log;
pub mod member;
pub mod monitor;
pub mod orders;
mod overrides;
pub mod power;
pub mod prometheus;
pub mod publish;
pub mod readers;
mod recall;
pub mod redirect;
pub mod run;
mod views;
pub mod webhook;
