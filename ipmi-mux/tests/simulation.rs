// SPDX-License-Identifier: MIT OR Apache-2.0
//! The core of the daemon in simulated worlds: clients that come, ask, fight, and die, before a BMC that
//! is busy, hangs, loses answers, and is reset. A seed decides everything; time is virtual.
//! How they are run: the crate `seeds`.

#[path = "simulation/back_end.rs"]
mod back_end;
#[path = "simulation/checks.rs"]
mod checks;
#[path = "simulation/clients.rs"]
mod clients;
#[path = "simulation/model.rs"]
mod model;
#[path = "simulation/oracle.rs"]
mod oracle;
#[path = "simulation/phases.rs"]
mod phases;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/scripts.rs"]
mod scripts;
#[path = "simulation/world.rs"]
mod world;

use seeds::{Failure, Figures};
use world::World;

/// Worlds in which everything happens somewhere.
const ENOUGH: u64 = 2000;

#[test]
fn whatever_happens_each_client_has_a_controller_of_its_own() {
    seeds::run(env!("CARGO_PKG_NAME"), ENOUGH, live);
}

fn live(seed: u64, logging: bool) -> Result<Figures, Failure> {
    let world = World::run(seed, logging)?;
    let stats = world.mux.stats();
    let mut figures = Figures::from([
        ("sends", world.orders.len() as u64),
        ("virtual seconds", world.now / model::SECOND),
        ("to the BMC", stats.to_bmc),
        ("time-outs", stats.timeouts),
        ("late answers", stats.late_replies),
        ("never answered", stats.never_answered),
        ("refused by the back end", stats.refused_by_back_end),
        ("from the cache", stats.cache_hits),
        ("shared", stats.shared),
        ("replays", stats.replays),
        ("reservations void", stats.reservations_void),
        ("refused for a lease", stats.lease_refusals),
        ("breaker openings", stats.breaker_openings),
        ("events", stats.events),
    ]);
    if world.mixed_records > 0 {
        // What the look each second at a repository does not catch, and the BMC itself would.
        figures.insert("records with versions mixed", world.mixed_records);
    }
    Ok(figures)
}
