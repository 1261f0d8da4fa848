// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures of an RMM.

use std::collections::BTreeMap;

use daemon_kit::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::{Counts, Gauges, Label, Lines, add, gauge, set};
use crate::attach::What;
use crate::core::rmm::Event;
use crate::shell::hub::Hub;
use crate::shell::lmc::LineStatus;
use crate::shell::log::Log;
use crate::shell::rmm::BladeStatus;

/// Figures of an RMM.
#[derive(Debug)]
pub struct OfRmm {
    lines: Lines,
    up: Gauges,
    coupled: Gauges,
    round_trip: Family<[Label; 1], Gauge<f64, std::sync::atomic::AtomicU64>>,
    sent_again: Counts,
    console_bytes: Counts,
    gaps: Counts,
    lost_bytes: Counts,
    log_bytes: Counts,
    log_errors: Counts,
    viewers: Gauges,
    sessions: Counter,
    selections: Counter,
    refused: Counter,
    /// What the present session of each blade had sent again when it was looked at last.
    again: BTreeMap<u8, u64>,
}

impl OfRmm {
    /// Registers all of them.
    #[must_use]
    pub fn new(metrics: &mut Metrics) -> Self {
        let registry = metrics.registry();
        let figures = Self {
            lines: Lines::new(registry),
            up: Family::default(),
            coupled: Family::default(),
            round_trip: Family::default(),
            sent_again: Family::default(),
            console_bytes: Family::default(),
            gaps: Family::default(),
            lost_bytes: Family::default(),
            log_bytes: Family::default(),
            log_errors: Family::default(),
            viewers: Family::default(),
            sessions: Counter::default(),
            selections: Counter::default(),
            refused: Counter::default(),
            again: BTreeMap::new(),
        };
        for (name, help, family) in [
            ("blade_up", "Whether a blade is there", &figures.up),
            ("blade_coupled", "Whether a blade is coupled", &figures.coupled),
            ("viewers", "Who is at a console or at the screen", &figures.viewers),
        ] {
            registry.register(name, help, family.clone());
        }
        let help = "The smoothed round trip to a blade of what goes first";
        registry.register("round_trip_seconds", help, figures.round_trip.clone());
        add(
            registry,
            &[
                ("sent_again", "Messages to a blade that were sent again", &figures.sent_again),
                ("console_bytes", "Bytes that a console has said", &figures.console_bytes),
                ("console_gaps", "How often some of a console was lost", &figures.gaps),
                ("console_lost_bytes", "How much, where it is known", &figures.lost_bytes),
                ("log_bytes", "Bytes written to a console's log", &figures.log_bytes),
                ("log_errors", "Writes to a console's log that failed", &figures.log_errors),
            ],
        );
        for (name, help, counter) in [
            ("sessions", "Who has ever come to a console or the screen", &figures.sessions),
            ("selections", "How often another blade was coupled, or none", &figures.selections),
            ("selections_refused", "How often a blade was not coupled", &figures.refused),
        ] {
            registry.register(name, help, counter.clone());
        }
        figures
    }

    /// Notes what has happened at a blade of this name.
    pub fn note(&self, event: &Event, name: &str) {
        let of = [("blade", name.to_owned())];
        match event {
            Event::Console { bytes, .. } => {
                self.console_bytes.get_or_create(&of).inc_by(bytes.len() as u64);
            }
            Event::Gap { lost, .. } => {
                self.gaps.get_or_create(&of).inc();
                self.lost_bytes.get_or_create(&of).inc_by(lost.unwrap_or(0));
            }
            Event::Coupled(_) => drop(self.selections.inc()),
            Event::NotCoupled { .. } => drop(self.refused.inc()),
            _ => {}
        }
    }

    /// Takes what there is.
    pub fn look<'a>(
        &mut self,
        lines: &[LineStatus],
        blades: &[BladeStatus],
        hub: &Hub,
        logs: impl Iterator<Item = &'a Log>,
    ) {
        self.lines.look(lines);
        // A blade that has another name now has no state under the one before.
        self.up.clear();
        self.coupled.clear();
        self.round_trip.clear();
        for blade in blades {
            let of = [("blade", blade.name.clone())];
            self.up.get_or_create(&of).set(blade.there.into());
            self.coupled.get_or_create(&of).set(blade.coupled.into());
            if let Some(us) = blade.round_trip_us {
                self.round_trip.get_or_create(&of).set(us as f64 / 1e6);
            }
            // A session begins at none.
            let before = self.again.insert(blade.slot, blade.sent_again).unwrap_or(0);
            let more = blade.sent_again.checked_sub(before).unwrap_or(blade.sent_again);
            self.sent_again.get_or_create(&of).inc_by(more);
            drop(self.console_bytes.get_or_create(&of));
            drop(self.gaps.get_or_create(&of));
        }
        for log in logs {
            let of = [("blade", log.name().to_owned())];
            let (bytes, errors) = log.counts();
            set(&self.log_bytes.get_or_create(&of), bytes);
            set(&self.log_errors.get_or_create(&of), errors);
        }
        for (what, word) in [(What::Console, "console"), (What::Screen, "screen")] {
            let count = hub.viewers.values().filter(|viewer| viewer.what == what).count();
            gauge(&self.viewers.get_or_create(&[("what", word.to_owned())]), count);
        }
        set(&self.sessions, hub.ever());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{has, line};
    use super::*;
    use crate::wire::{Addr, Sources};

    fn blade(name: &str, there: bool, sent_again: u64) -> BladeStatus {
        BladeStatus {
            slot: 3,
            name: name.to_owned(),
            there,
            coupled: false,
            by_end: None,
            hops: None,
            round_trip_us: there.then_some(2500),
            sent_again,
            sources: Sources::default(),
        }
    }

    #[test]
    fn an_rmm_tells_what_it_saw() {
        let mut metrics = Metrics::new("kvm-bus-rmm", "1");
        let mut figures = OfRmm::new(&mut metrics);
        let slot = Addr::blade(3).unwrap();
        let said = Event::Console { blade: slot, at: (1, 0), bytes: vec![0; 7] };
        figures.note(&said, "b3");
        figures.note(&Event::Gap { blade: slot, lost: Some(9) }, "b3");
        figures.note(&Event::Gap { blade: slot, lost: None }, "b3");
        figures.note(&Event::Coupled(Some(slot)), "b3");
        let hub = Hub::default();
        // The second session has sent two again by itself.
        for again in [3, 4, 2] {
            figures.look(&[line()], &[blade("b3", true, again)], &hub, [].into_iter());
        }
        has(
            &metrics,
            &[
                "kvm_bus_rmm_line_up{line=\"near\"} 1",
                "kvm_bus_rmm_frames_sent_total{line=\"near\"} 5",
                "kvm_bus_rmm_bytes_received_total{line=\"near\"} 44",
                "kvm_bus_rmm_frames_refused_total{line=\"near\",why=\"damaged\"} 2",
                "kvm_bus_rmm_blade_up{blade=\"b3\"} 1",
                "kvm_bus_rmm_round_trip_seconds{blade=\"b3\"} 0.0025",
                "kvm_bus_rmm_sent_again_total{blade=\"b3\"} 6",
                "kvm_bus_rmm_console_bytes_total{blade=\"b3\"} 7",
                "kvm_bus_rmm_console_gaps_total{blade=\"b3\"} 2",
                "kvm_bus_rmm_console_lost_bytes_total{blade=\"b3\"} 9",
                "kvm_bus_rmm_viewers{what=\"screen\"} 0",
                "kvm_bus_rmm_selections_total 1",
            ],
        );
        figures.look(&[line()], &[blade("b4", false, 2)], &hub, [].into_iter());
        has(&metrics, &["kvm_bus_rmm_blade_up{blade=\"b4\"} 0"]);
        let text = metrics.encode().unwrap();
        assert!(!text.contains("blade_up{blade=\"b3\"}") && !text.contains("round_trip_seconds{"));
    }
}
