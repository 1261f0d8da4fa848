// SPDX-License-Identifier: MIT OR Apache-2.0
//! What goes wrong, and for how long.

use group::core::{Event, Unfit};
use group::wire::Micros;
use seeds::Rng;

use crate::network::NETWORKS;
use crate::node::name;
use crate::world::{CALM, World};

/// A fault, or its end.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// A program starts, and its machine if that is off.
    Start(usize),
    /// A program is killed.
    Kill(usize),
    /// A machine loses its power.
    Lose(usize),
    /// An image is made of a machine's disk.
    Image(usize),
    /// A dead machine's disk is set back to the image.
    SetBack(usize),
    /// A machine stands still for so long.
    Stall(usize, Micros),
    /// Machines with their bit set and those without do not reach each other.
    Part(u64),
    /// They do again.
    Heal,
    /// One does not reach another, over this network or all.
    Cut(usize, usize, Option<usize>),
    /// It does again.
    Mend(usize, usize, Option<usize>),
    /// A firewall lets through connections from one to another, and no datagrams.
    Mute(usize, usize),
    /// It lets all through.
    Unmute(usize, usize),
    /// So many of a thousand datagrams are lost.
    Loss(u64),
    /// So many are repeated.
    Twice(u64),
    /// The longest way takes so long.
    Delay(Micros),
    /// The connection between two is reset.
    Reset(usize, usize),
    /// A machine is to be taken out of service, or not.
    Drain(usize, bool),
}

/// Three to eight faults and their ends, all over when it is to be calm.
pub fn plan(rng: &mut Rng, count: usize) -> Vec<(Micros, Fault)> {
    let mut plan = vec![];
    for _ in 0..rng.between(3, 8) {
        let at = rng.between(6_000_000, 40_000_000);
        let short = rng.permille(500);
        let lasts =
            if short { rng.between(50_000, 2_000_000) } else { rng.between(2_000_000, 15_000_000) };
        let end = (at + lasts).min(CALM - 1);
        let (of, other) = (rng.index(count), rng.index(count));
        // The lowest is the manager for most of the time.
        let of = if rng.permille(300) { 0 } else { of };
        let (begin, over) = match rng.below(14) {
            0 | 1 => (Fault::Kill(of), Some(Fault::Start(of))),
            2 => (Fault::Lose(of), Some(Fault::Start(of))),
            3 => {
                plan.push((at / 2, Fault::Image(of)));
                plan.push((at + 1, Fault::SetBack(of)));
                (Fault::Lose(of), Some(Fault::Start(of)))
            }
            4 => (Fault::Stall(of, *rng.pick(&[300_000, 600_000, 10_000_000])), None),
            5 | 6 => (Fault::Part(rng.below(1 << count)), Some(Fault::Heal)),
            7 => {
                let network = (!short).then(|| rng.index(NETWORKS));
                (Fault::Cut(of, other, network), Some(Fault::Mend(of, other, network)))
            }
            8 => (Fault::Loss(*rng.pick(&[20, 50, 400])), Some(Fault::Loss(0))),
            9 => (Fault::Twice(300), Some(Fault::Twice(0))),
            10 => (Fault::Delay(40_000), Some(Fault::Delay(2_000))),
            11 => {
                for more in 0..rng.below(10) {
                    plan.push((at + more * 30_000, Fault::Reset(of, other)));
                }
                (Fault::Reset(of, other), None)
            }
            12 => (Fault::Mute(of, other), Some(Fault::Unmute(of, other))),
            _ => (Fault::Drain(of, true), Some(Fault::Drain(of, false))),
        };
        plan.push((at, begin));
        plan.extend(over.map(|over| (end, over)));
        if rng.permille(200) {
            // It comes and goes.
            for again in 1..5 {
                let at = end + again * 700_000;
                if at + 400_000 < CALM && matches!(begin, Fault::Kill(_) | Fault::Part(_)) {
                    plan.push((at, begin));
                    plan.extend(over.map(|over| (at + 400_000, over)));
                }
            }
        }
    }
    plan
}

pub fn happen(world: &mut World, fault: Fault) -> Result<(), String> {
    let now = world.now;
    world.log(|| format!("{fault:?}"));
    let count = world.nodes.len();
    match fault {
        Fault::Start(of) => {
            let fresh = world.nodes[of].started == 0;
            if world.nodes[of].core.is_none() && !fresh {
                // A machine that was off has another clock.
                if !world.nodes[of].machine {
                    world.nodes[of].boot = world.rng.below(1 << 40) + (1 << 30);
                }
                world.count("restarts");
            }
            return world.start(of);
        }
        Fault::Kill(of) => {
            world.kill(of, true);
            world.count("programs killed");
        }
        Fault::Lose(of) => {
            world.kill(of, false);
            world.count("machines lost");
        }
        Fault::Image(of) => world.nodes[of].image = world.nodes[of].disk,
        Fault::SetBack(of) => {
            if world.nodes[of].core.is_none() {
                world.nodes[of].disk = world.nodes[of].image;
                world.count("disks set back");
            }
        }
        Fault::Stall(of, lasts) => {
            // Whoever stands still already is not woken by that.
            let until = (now + lasts).min(CALM - 1).max(world.nodes[of].stalled);
            world.nodes[of].stalled = until;
            world.nodes[of].woke = until;
            for other in 0..count {
                world.network.spoil(until, of, other);
            }
            world.count("machines stood still");
        }
        Fault::Part(side) => {
            for from in 0..count {
                for to in 0..count {
                    let apart = (side >> from ^ side >> to) & 1 == 1;
                    for network in (0..NETWORKS).filter(|_| apart) {
                        world.network.set(now, from, to, network, false);
                    }
                }
            }
            world.count("partitions");
        }
        Fault::Heal => {
            for from in 0..count {
                for to in 0..count {
                    for network in 0..NETWORKS {
                        if !world.network.open(from, to, network) {
                            world.network.set(now, from, to, network, true);
                        }
                    }
                }
            }
        }
        Fault::Cut(from, to, network) | Fault::Mend(from, to, network) => {
            let open = matches!(fault, Fault::Mend(..));
            for at in (0..NETWORKS).filter(|at| network.is_none_or(|only| only == *at)) {
                if from != to {
                    world.network.set(now, from, to, at, open);
                }
            }
            world.count("paths cut one way");
        }
        Fault::Mute(from, to) | Fault::Unmute(from, to) => {
            let mute = matches!(fault, Fault::Mute(..));
            if from != to {
                world.network.mute(now, from, to, mute);
                world.count("beats stopped by a firewall");
            }
        }
        Fault::Loss(loss) => {
            world.network.loss = loss;
            for from in 0..count {
                for to in 0..count {
                    world.network.spoil(now, from, to);
                }
            }
        }
        Fault::Twice(twice) => world.network.twice = twice,
        Fault::Delay(delay) => world.network.delay = delay,
        Fault::Reset(one, two) => {
            let links = world.network.links.iter();
            let ours = links.filter(|(_, l)| l.ends == [one, two] || l.ends == [two, one]);
            let last = ours.map(|(id, _)| *id).next_back();
            if let Some(id) = last {
                world.count("connections reset");
                for (of, other) in [(one, two), (two, one)] {
                    let Some(link) = world.network.links.get_mut(&id) else { continue };
                    let end = usize::from(link.ends[0] != of);
                    if std::mem::replace(&mut link.open[end], false) {
                        world.tell(of, Event::LinkEnded(name(other), id))?;
                    }
                }
            }
        }
        Fault::Drain(of, is) => return world.tell(of, Event::Unfit(Unfit::Draining, is)),
    }
    Ok(())
}
