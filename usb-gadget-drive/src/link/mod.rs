// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the management module and the agents of blades tell each other beside the blocks: which drives there are to
//! be, and which there are.
//!
//! One connection for each agent, opened by it, in TLS with certificates of the chassis' authority; the agent's names
//! its blade. Both ends send messages as lines of JSON, and something at least every [`ALIVE_EVERY`]; who hears nothing
//! for [`SILENT_FOR`] takes the other for gone. Orders are answered in any order, by number.

pub mod agent;
pub mod export_name;
pub mod lines;
pub mod manager;
pub mod message;

use std::time::Duration;

/// The version of the messages. A change that an older end would misread raises it; the manager turns others away.
pub const PROTOCOL: u32 = 1;
/// A message is sent at least this often.
pub const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// Who is silent for this long is gone.
pub const SILENT_FOR: Duration = Duration::from_secs(5);
/// Bytes of a message, its line's end counted in: a report on 64 drives with long reasons is 32 KiB.
pub const MAX_MESSAGE: usize = 64 << 10;
/// Messages that wait to be sent; who does not read them is cut off.
pub const MAX_WAITING: usize = 64;
