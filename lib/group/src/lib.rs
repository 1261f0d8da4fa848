// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the machines of a group know of one another: who is there, what each observes, and which of
//! them is active.
//!
//! * Formats: [`wire`] (what members tell one another), [`list`] (`group.toml`).
//! * Core: [`core`], without clock, socket or file: told what happens and when, it answers with what to do.
//! * Shell: [`shell`] carries that out, over links of `secure-link`.
//!
//! A member is known by its name, which is pinned to its node key. What it may say is said by the link
//! it comes over: records, flags and beats are of the link's other end, and no message names another
//! owner.
#![forbid(unsafe_code)]

pub mod core;
pub mod list;
pub mod report;
pub mod settings;
pub mod shell;
pub mod wire;

pub use secure_link::Name;
