// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sets a machine up as a member of a group.
//!
//! [`args`] is the command line, [`key`] what it does with keys: [`key::message`] is what machines tell each
//! other about them, [`key::serve`] answers, [`key::ask`] asks, and the verbs stand on these and on
//! [`secure_link::Store`]. [`status`] asks the programs on this machine how they see the group.
#![forbid(unsafe_code)]

pub mod args;
pub mod key;
pub mod status;
