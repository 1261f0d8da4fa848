// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole bus in simulated worlds: an RMM and four to eight blades in a chain, some with the far end fed, some with a
//! control bus; lines with a speed, that flip bits, lose and repeat bytes, are cut both ways or one, and on which somebody
//! babbles or sends again what was sent long ago; LMCs and an RMM that die and come back. A seed decides everything; time
//! is virtual. How they are run: the crate `seeds`.

#[path = "simulation/bus.rs"]
mod bus;
#[path = "simulation/model.rs"]
mod model;
#[path = "simulation/world.rs"]
mod world;

use world::World;

/// Worlds in which everything happens somewhere.
const ENOUGH: u64 = 300;

#[test]
fn whatever_happens_nothing_goes_astray_and_no_key_is_stuck() {
    let live = |seed, logging| World::run(seed, logging);
    seeds::run(env!("CARGO_PKG_NAME"), ENOUGH, live);
}
