// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links between units and managers.

use device_manager::manager::core as manager;
use device_manager::unit::core::{Event, Micros};

use crate::world::{Due, World};

#[derive(Debug, Clone)]
pub struct LinkSide {
    pub unit: usize,
    pub unit_life: u64,
    pub manager: usize,
    pub manager_life: u64,
    pub up: bool,
    /// Nothing arrives, and nobody is told.
    pub silent: bool,
    pub last: [Micros; 2],
}

impl World {
    pub fn dial(&mut self, unit: usize, life: u64, manager: usize) {
        if self.units[unit].life != life || self.units[unit].core.is_none() {
            return;
        }
        let name = self.managers[manager].name.clone();
        if self.managers[manager].core.is_none() {
            return self.unit(unit, Event::NotConnected(name));
        }
        self.next += 1;
        let no = self.next;
        let link = LinkSide {
            unit,
            unit_life: life,
            manager,
            manager_life: self.managers[manager].life,
            up: true,
            silent: false,
            last: [0; 2],
        };
        self.links.insert(no, link);
        let machine = self.units[unit].name.clone();
        self.unit(unit, Event::Connected(name, no));
        self.manager(manager, manager::Event::UnitCame(no, machine));
    }

    pub fn end_link(&mut self, no: u64) {
        let link = self.links.get_mut(&no).expect("it is there");
        link.up = false;
        let silent = link.silent;
        if !silent {
            for due in [Due::LinkEndAtUnit(no), Due::LinkEndAtManager(no)] {
                let at = self.now + self.delay();
                self.after(at, due);
            }
        }
    }

    pub fn over_link(&mut self, no: u64, direction: usize, due: impl FnOnce(u64) -> Due) {
        let delay = self.delay();
        let now = self.now;
        let Some(link) = self.links.get_mut(&no).filter(|link| link.up) else { return };
        link.last[direction] = (now + delay).max(link.last[direction] + 1);
        let at = link.last[direction];
        self.after(at, due(no));
    }
}
