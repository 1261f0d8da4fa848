// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the RMM shows of itself.

use serde::{Deserialize, Serialize};

use super::Daemon;
use crate::core::mux::{Mux, PORTS};
use crate::core::rmm::By;
use crate::shell::hub::SessionStatus;
use crate::shell::lmc::{LineStatus, Received};
use crate::wire::{Errors, Sources};

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// The bus's lines, and the control bus's.
    pub lines: Vec<LineStatus>,
    /// All blades that were heard, by slot.
    pub blades: Vec<BladeStatus>,
    /// Who is coupled.
    pub coupled: Option<String>,
    /// By which way choices are told.
    pub by: By,
    /// Who looks.
    pub sessions: Vec<SessionStatus>,
}

/// A blade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BladeStatus {
    /// Its slot.
    pub slot: u8,
    /// Its name.
    pub name: String,
    /// Whether it is there.
    pub there: bool,
    /// Whether it is coupled.
    pub coupled: bool,
    /// `near` or `far`: by which end of the bus it is reached.
    pub by_end: Option<String>,
    /// How many others are between.
    pub hops: Option<u8>,
    /// The smoothed round trip of what goes first, microseconds.
    pub round_trip_us: Option<u64>,
    /// Messages sent again.
    pub sent_again: u64,
    /// What of it is on the bus.
    pub sources: Sources,
}

impl Daemon {
    pub(super) fn status(&mut self) -> Status {
        let now = self.clock.now();
        let mut blades = vec![];
        for addr in self.rmm.blades() {
            let link = self.rmm.link(addr);
            let place = self.rmm.place(now, addr).filter(|_| link.is_some());
            blades.push(BladeStatus {
                slot: addr.byte(),
                name: self.name(addr),
                there: link.is_some(),
                coupled: self.rmm.coupled() == Some(addr),
                by_end: place.map(|(port, _)| ["near", "far"][port % PORTS].to_owned()),
                hops: place.map(|(_, hops)| hops),
                round_trip_us: link.and_then(|(trip, _)| trip),
                sent_again: link.map_or(0, |(_, again)| again),
                sources: self.rmm.info(addr).map(|info| info.sources.clone()).unwrap_or_default(),
            });
        }
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: now / 1_000_000,
            lines: self.line_status(),
            blades,
            coupled: self.rmm.coupled().map(|addr| self.name(addr)),
            by: self.config.by,
            sessions: self.session_status(),
        }
    }

    /// What Prometheus is told is as old as this.
    pub(super) fn look_at_figures(&mut self) {
        let Status { lines, blades, .. } = self.status();
        self.figures.look(&lines, &blades, &self.hub, self.logs.values());
    }

    fn line_status(&mut self) -> Vec<LineStatus> {
        const NAMES: [&str; PORTS + 1] = ["near", "far", "control"];
        let mut lines = vec![];
        for (number, line) in self.lines.iter().enumerate() {
            let Some(line) = line else { continue };
            let (sent, frames, errors) = if number < PORTS {
                let errors = self.rmm.errors(number);
                let mux = self.rmm.mux();
                (mux.counts(number), mux.received(number), errors)
            } else {
                let counts = |mux: &mut Mux| (mux.counts(0), mux.received(0));
                let (sent, frames) = self.rmm.control_mux().map(counts).unwrap_or_default();
                (sent, frames, Errors::default())
            };
            lines.push(LineStatus {
                name: NAMES[number].to_owned(),
                place: line.place.to_string(),
                baud: line.baud,
                error: line.why.clone(),
                sent,
                received: Received { frames, bytes: line.bytes },
                errors,
            });
        }
        lines
    }

    fn session_status(&self) -> Vec<SessionStatus> {
        let session = |(id, viewer): (&u64, &crate::shell::hub::Viewer)| SessionStatus {
            id: *id,
            what: viewer.what,
            blade: viewer.blade.map(|addr| self.name(addr)),
            who: viewer.who.clone(),
            writes: viewer.writes,
            since: viewer.since,
        };
        self.hub.viewers.iter().map(session).collect()
    }
}
