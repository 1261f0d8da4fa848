// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole group in simulated worlds: networks that lose, repeat, delay and are cut, also one way; machines that are
//! killed, lose their power, come back with an old disk, stand still, or have their clocks set; and somebody who sends
//! again what was sent. A seed decides everything; time is virtual, and each world lives for a minute of it.
//! How they are run: the crate `seeds`.

#[path = "simulation/checks.rs"]
mod checks;
#[path = "simulation/faults.rs"]
mod faults;
#[path = "simulation/network.rs"]
mod network;
#[path = "simulation/node.rs"]
mod node;
#[path = "simulation/world.rs"]
mod world;

use world::World;

/// Worlds in which everything happens somewhere.
const ENOUGH: u64 = 200;

#[test]
fn whatever_happens_the_group_is_whole_again() {
    let live = |seed, logging| World::run(seed, logging);
    seeds::run(env!("CARGO_PKG_NAME"), ENOUGH, live);
}
