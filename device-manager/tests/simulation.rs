// SPDX-License-Identifier: MIT OR Apache-2.0
//! Units, managers and services in simulated worlds: links that delay, end and go silent, managers and units that are
//! killed, machines that restart with their disks set back, devices that are unplugged and swapped, services that wait, hold,
//! vanish and come back. A seed decides everything; time is virtual. How they are run: the crate `seeds`.

#[path = "simulation/check.rs"]
mod check;
#[path = "simulation/devices.rs"]
mod devices;
#[path = "simulation/faults.rs"]
mod faults;
#[path = "simulation/holders.rs"]
mod holders;
#[path = "simulation/links.rs"]
mod links;
#[path = "simulation/managers.rs"]
mod managers;
#[path = "simulation/services.rs"]
mod services;
#[path = "simulation/units.rs"]
mod units;
#[path = "simulation/world.rs"]
mod world;

use world::World;

/// Worlds in which everything happens somewhere.
const ENOUGH: u64 = 200;

#[test]
fn whatever_happens_a_device_has_one_user_and_everybody_learns_of_it() {
    seeds::run(env!("CARGO_PKG_NAME"), ENOUGH, World::run);
}
