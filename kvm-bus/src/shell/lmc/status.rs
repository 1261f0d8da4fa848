// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an LMC shows of itself.

use serde::{Deserialize, Serialize};

use super::Daemon;
use crate::core::mux::PORTS;
use crate::core::queue::PortCounts;
use crate::wire::{Errors, Sources};

/// `GET /v1/status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// The blade's slot.
    pub slot: u8,
    /// Its name.
    pub name: String,
    /// The segments, upper first, then those of the control bus.
    pub lines: Vec<LineStatus>,
    /// What of the blade is on the bus.
    pub sources: Sources,
    /// RMMs with a session, in words.
    pub rmms: Vec<String>,
    /// Which of them has the blade.
    pub coupled_by: Option<String>,
}

/// What came by a segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Good frames.
    pub frames: u64,
    /// Bytes, whatever they were.
    pub bytes: u64,
}

/// A segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineStatus {
    /// `up`, `down`, `near`, `far`, `control-up`, `control-down`, `control`.
    pub name: String,
    /// Where it goes.
    pub place: String,
    /// Bits per second, if it is open.
    pub baud: Option<u32>,
    /// Why it is not open.
    pub error: Option<String>,
    /// What was sent.
    pub sent: PortCounts,
    /// What came.
    pub received: Received,
    /// What of it was no frame.
    pub errors: Errors,
}

impl Daemon {
    pub(super) fn publish(&mut self) {
        const NAMES: [&str; 2 * PORTS] = ["up", "down", "control-up", "control-down"];
        let mut lines = vec![];
        for (number, line) in self.lines.iter().enumerate() {
            let Some(line) = line else { continue };
            let port = number % PORTS;
            let bus = number < PORTS;
            let frames =
                if bus { self.lmc.mux().received(port) } else { self.slave.mux().received(port) };
            lines.push(LineStatus {
                name: NAMES[number].to_owned(),
                place: line.place.to_string(),
                baud: line.baud,
                error: line.why.clone(),
                sent: if bus { self.lmc.mux().counts(port) } else { self.slave.mux().counts(port) },
                received: Received { frames, bytes: line.bytes },
                errors: if bus { self.lmc.errors(port) } else { Errors::default() },
            });
        }
        let console = self.settings.is_some() && self.console_error.is_none();
        self.figures.look(&lines, self.lmc.rmms().len(), console);
        let mut status = self.status.lock().expect("no panic holds it");
        status.lines = lines;
        status.sources.clone_from(&self.sources);
        status.rmms = self.lmc.rmms().iter().map(ToString::to_string).collect();
        status.coupled_by = self.lmc.coupled_by().map(|rmm| rmm.to_string());
    }
}
