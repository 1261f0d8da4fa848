// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the core counts.

use serde::Serialize;

/// Counters since the start, and gauges as of now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Handles open now.
    pub handles: usize,
    /// Requests that wait for their turn now.
    pub queued: usize,
    /// Requests with the BMC now that somebody waits for.
    pub in_flight: usize,
    /// Requests with the BMC now that nobody waits for any more.
    pub abandoned: usize,
    /// Handles that asked for events now.
    pub event_listeners: usize,
    /// Handles opened.
    pub opens: u64,
    /// Opens refused because of too many handles.
    pub opens_refused: u64,
    /// Requests handed to the BMC.
    pub to_bmc: u64,
    /// Requests answered with C3 because their deadline passed.
    pub timeouts: u64,
    /// Answers that came when nobody waited any more.
    pub late_replies: u64,
    /// Requests given up that the BMC never answered.
    pub never_answered: u64,
    /// Requests the back end would not take.
    pub refused_by_back_end: u64,
    /// Events from the BMC.
    pub events: u64,
    /// Events and commands dropped because their handle did not receive.
    pub events_dropped: u64,
    /// Commands of other controllers given to a handle.
    pub commands: u64,
    /// Commands of other controllers that no handle asked for.
    pub commands_unclaimed: u64,
}
