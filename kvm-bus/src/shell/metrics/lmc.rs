// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures of an LMC.

use daemon_kit::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::{Lines, gauge};
use crate::shell::lmc::LineStatus;

/// Figures of an LMC.
#[derive(Debug)]
pub struct OfLmc {
    lines: Lines,
    sessions: Gauge,
    coupled: Gauge,
    console_up: Gauge,
    selections: Counter,
    /// Bytes that the console has said.
    pub said: Counter,
    /// Bytes that it was told.
    pub told: Counter,
    /// How often it was held at break.
    pub breaks: Counter,
}

impl OfLmc {
    /// Registers all of them.
    #[must_use]
    pub fn new(metrics: &mut Metrics) -> Self {
        let registry = metrics.registry();
        let figures = Self {
            lines: Lines::new(registry),
            sessions: Gauge::default(),
            coupled: Gauge::default(),
            console_up: Gauge::default(),
            selections: Counter::default(),
            said: Counter::default(),
            told: Counter::default(),
            breaks: Counter::default(),
        };
        for (name, help, gauge) in [
            ("sessions", "RMMs with a session", &figures.sessions),
            ("coupled", "Whether the blade is coupled", &figures.coupled),
            ("console_up", "Whether the serial console is open", &figures.console_up),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, counter) in [
            ("selections", "How often the blade was coupled", &figures.selections),
            ("console_bytes", "Bytes that the serial console has said", &figures.said),
            ("console_typed_bytes", "Bytes given to the serial console", &figures.told),
            ("console_breaks", "How often its line was held at break", &figures.breaks),
        ] {
            registry.register(name, help, counter.clone());
        }
        figures
    }

    /// The blade is coupled, or is no more.
    pub fn coupled(&self, coupled: bool) {
        self.coupled.set(coupled.into());
        if coupled {
            self.selections.inc();
        }
    }

    /// Takes what there is.
    pub fn look(&self, lines: &[LineStatus], sessions: usize, console: bool) {
        self.lines.look(lines);
        gauge(&self.sessions, sessions);
        self.console_up.set(console.into());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{has, line};
    use super::*;

    #[test]
    fn an_lmc_tells_what_it_saw() {
        let mut metrics = Metrics::new("kvm-bus-lmc", "1");
        let figures = OfLmc::new(&mut metrics);
        figures.coupled(true);
        figures.coupled(false);
        figures.said.inc_by(5);
        figures.look(&[line()], 2, true);
        has(
            &metrics,
            &[
                "kvm_bus_lmc_frames_received_total{line=\"near\"} 4",
                "kvm_bus_lmc_sessions 2",
                "kvm_bus_lmc_coupled 0",
                "kvm_bus_lmc_selections_total 1",
                "kvm_bus_lmc_console_bytes_total 5",
                "kvm_bus_lmc_console_up 1",
            ],
        );
    }
}
