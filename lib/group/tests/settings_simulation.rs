// SPDX-License-Identifier: MIT OR Apache-2.0
//! Five members that agree on settings and carry out orders, in simulated worlds: messages are lost, late, and doubled;
//! members are cut off, killed at any step, and lose their power with what was not synced; disks fill. Time is virtual.
//! The seed decides the faults; the engine draws its own election time-outs, so a world is repeated nearly, not exactly.
//! How they are run: the crate `seeds`.

#[path = "settings_simulation/disk.rs"]
mod disk;
#[path = "settings_simulation/executor.rs"]
mod executor;
#[path = "settings_simulation/net.rs"]
mod net;
#[path = "settings_simulation/world.rs"]
mod world;

use seeds::{Failure, Figures};

/// Worlds in which everything happens somewhere.
const ENOUGH: u64 = 60;
/// Lives of one executor for each world of members; they are so much shorter.
const LIVES: u64 = 20;

fn live(seed: u64, logging: bool) -> Result<Figures, Failure> {
    let mut figures = Figures::new();
    for life in 0..LIVES {
        executor::live(seed.wrapping_mul(LIVES).wrapping_add(life), &mut figures)?;
    }
    world::live(seed, logging, &mut figures)?;
    Ok(figures)
}

#[test]
fn nothing_acknowledged_is_lost_and_each_order_is_carried_out_once() {
    seeds::run(env!("CARGO_PKG_NAME"), ENOUGH, live);
}
