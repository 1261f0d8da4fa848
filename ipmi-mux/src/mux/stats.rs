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
    /// Answers kept for other clients now.
    pub cached: usize,
    /// Reservations of SDR repositories and of the SEL that handles have now.
    pub reservations: usize,
    /// Whether the BMC does not answer and commands are refused for that: 0 or 1.
    pub breaker_open: usize,
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
    /// Requests answered from the cache.
    pub cache_hits: u64,
    /// Requests that got the answer of an identical one on its way.
    pub shared: u64,
    /// Requests sent again because somebody beside us had cancelled the reservation.
    pub replays: u64,
    /// Requests answered with C5 because their handle's reservation was void.
    pub reservations_void: u64,
    /// Messages that the policy of their node does not allow, answered with D4.
    pub denied: u64,
    /// Requests refused because the command is reserved for others.
    pub reserved_refusals: u64,
    /// Requests answered with D5 because another handle holds the lease.
    pub lease_refusals: u64,
    /// Requests answered with C3 because the BMC did not answer others before.
    pub breaker_refusals: u64,
    /// How often the BMC stopped answering.
    pub breaker_openings: u64,
    /// Events from the BMC.
    pub events: u64,
    /// Events and commands dropped because their handle did not receive.
    pub events_dropped: u64,
    /// Commands of other controllers given to a handle.
    pub commands: u64,
    /// Commands of other controllers that no handle asked for.
    pub commands_unclaimed: u64,
}
