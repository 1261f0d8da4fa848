// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shares, leases, and overlays in simulated worlds: blades that write, flush, pause, and come back late; an operator
//! who hands over, commits, and discards; and a server that is killed or loses its power at any step, on a disk that
//! forgets and tears what was not synced. A seed decides everything; time is virtual.
//! How they are run: the crate `seeds`.

#[path = "simulation/disk.rs"]
mod disk;
#[path = "simulation/life.rs"]
mod life;
#[path = "simulation/model.rs"]
mod model;
#[path = "simulation/plain.rs"]
mod plain;
#[path = "simulation/world.rs"]
mod world;

use world::World;

/// Worlds in which everything happens somewhere.
const ENOUGH: u64 = 300;

#[test]
fn whatever_happens_nothing_acknowledged_is_lost_and_one_writes() {
    let live = |seed, logging| World::run(seed, logging).map(|world| world.counts);
    seeds::run(env!("CARGO_PKG_NAME"), ENOUGH, live);
}
