// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Prometheus is told, at `/metrics` of the control socket.

use daemon_kit::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::core::{Action, Manager, Note};

/// Figures of a manager: all that it knows, and what it did.
#[derive(Debug, Default)]
pub(super) struct Figures {
    devices: Gauge,
    leases: Gauge,
    units: Gauge,
    own_units: Gauge,
    managers: Gauge,
    finders: Gauge,
    forwarded: Gauge,
    waiting: Gauge,
    granted: Counter,
    refused: Counter,
    denied: Counter,
}

impl Figures {
    /// Registers all of them.
    pub fn new(metrics: &mut Metrics) -> Self {
        let figures = Self::default();
        let registry = metrics.registry();
        for (name, help, gauge) in [
            ("devices", "Devices that are known here", &figures.devices),
            ("leases", "Leases that are known here", &figures.leases),
            ("units", "Units that are known here", &figures.units),
            ("own_units", "Units that are with this manager", &figures.own_units),
            ("managers", "Managers that are here, this one counted", &figures.managers),
            ("finders", "Finders of services here", &figures.finders),
            ("forwarded_finders", "Finders that other managers forward", &figures.forwarded),
            ("waiting", "Requests that wait for a device", &figures.waiting),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, counter) in [
            ("granted", "Requests of services here that were granted", &figures.granted),
            ("refused", "Requests of services here that were refused", &figures.refused),
            ("denied", "Requests that policy did not allow", &figures.denied),
        ] {
            registry.register(name, help, counter.clone());
        }
        figures
    }

    /// Notes what is to be done.
    pub fn note(&self, action: &Action) {
        match action {
            Action::Answer(_, Ok(_)) => &self.granted,
            Action::Answer(_, Err(_)) => &self.refused,
            Action::Note(Note::Denied(..)) => &self.denied,
            _ => return,
        }
        .inc();
    }

    /// Counts what there is.
    pub fn look(&self, core: &Manager) {
        let set = |gauge: &Gauge, count: usize| {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        let devices = core.devices();
        let leases = devices.iter().flat_map(|(device, _)| &device.functions);
        set(&self.leases, leases.filter(|function| function.lease.is_some()).count());
        set(&self.devices, devices.len());
        let units = core.known_units();
        set(&self.own_units, units.iter().filter(|unit| unit.manager == core.own()).count());
        set(&self.units, units.len());
        set(&self.managers, core.peers().count() + 1);
        let (finders, forwarded) = core.finder_counts();
        set(&self.finders, finders);
        set(&self.forwarded, forwarded);
        set(&self.waiting, core.queue().len());
    }
}
