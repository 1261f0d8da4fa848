// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults.

use device_manager::unit::core::Event;

use crate::services::State;
use crate::world::{Due, SECOND, World};

impl World {
    pub fn fault(&mut self) {
        let unit = self.rng.index(self.units.len());
        let manager = self.rng.index(self.managers.len());
        match self.rng.below(14) {
            0 if self.managers[manager].core.is_none() => self.start_manager(manager),
            0 if !self.set_back => {
                self.count("manager killed");
                self.kill_manager(manager);
                if self.rng.permille(600) {
                    self.start_manager(manager);
                }
            }
            1 if self.units[unit].core.is_none() => self.start_unit(unit),
            1 => {
                self.count("unit killed");
                self.kill_unit(unit, false);
                if self.rng.permille(700) {
                    self.start_unit(unit);
                }
            }
            2 if self.units[unit].core.is_some() => {
                self.count("machine restarted");
                self.kill_unit(unit, true);
                if self.set_back && self.rng.permille(500) {
                    self.count("disk set back");
                    let back = self.rng.between(1, 600);
                    self.units[unit].disk = self.units[unit].disk.saturating_sub(back);
                }
                if self.rng.permille(700) {
                    self.start_unit(unit);
                }
            }
            3 | 4 => {
                let up: Vec<u64> = self
                    .links
                    .iter()
                    .filter(|(_, l)| l.up && !l.silent)
                    .map(|(no, _)| *no)
                    .collect();
                if up.is_empty() {
                    return;
                }
                let no = *self.rng.pick(&up);
                if self.rng.permille(500) {
                    self.count("links cut");
                    self.end_link(no);
                } else {
                    self.count("links silent");
                    self.note(|| format!("link {no} is silent"));
                    self.links.get_mut(&no).expect("it is there").silent = true;
                }
            }
            5 => {
                let other = self.rng.index(self.managers.len());
                if other == manager {
                    return;
                }
                let pair = (manager.min(other), manager.max(other));
                if self.parted.remove(&pair) {
                    self.after(self.now, Due::Meet(pair.0, pair.1));
                } else {
                    self.count("managers parted");
                    self.parted.insert(pair);
                    self.after(self.now + 400_000, Due::Part(pair.0, pair.1));
                }
            }
            6 | 7 => self.replug(unit),
            12 => self.change_parts(unit),
            8 => {
                let paths: Vec<_> = self.units[unit].paths.clone().into_iter().collect();
                if paths.is_empty() || self.units[unit].core.is_none() {
                    return;
                }
                let (path, no) = self.rng.pick(&paths).clone();
                self.count("paths lost");
                self.units[unit].paths.remove(&path);
                self.unit(unit, Event::Cut(no));
                self.look_soon(unit);
            }
            11 => {
                let other = self.rng.index(self.managers.len());
                let until = self.now + self.rng.between(SECOND, 5 * SECOND);
                self.count("links between managers lost");
                self.lossy = Some((manager, other, until));
            }
            9 => {
                let at = self.rng.index(self.services.len());
                if let State::Has(_) = self.services[at].state {
                    self.count("services vanished");
                    self.services[at].state = State::Idle;
                }
            }
            10 => {
                let number = self.seen.numbers + 1;
                self.seen.numbers = number;
                let held = self.services.iter_mut().find_map(|service| match &mut service.state {
                    State::Has(held) if held.linked => Some(held),
                    _ => None,
                });
                let Some(held) = held else { return };
                let (unit, old) = (held.unit, std::mem::replace(&mut held.conn, number));
                held.linked = false;
                self.count("links of holders cut");
                self.unit(unit, Event::ConnEnded(old));
            }
            _ => {}
        }
    }

    /// No more faults: everybody is there, and reaches everybody.
    pub fn heal(&mut self) {
        self.note(|| "the storm is over".to_owned());
        for pair in std::mem::take(&mut self.parted) {
            self.after(self.now, Due::Meet(pair.0, pair.1));
        }
        for at in 0..self.managers.len() {
            if self.managers[at].core.is_none() {
                self.start_manager(at);
            }
        }
        for at in 0..self.units.len() {
            if self.units[at].core.is_none() {
                self.start_unit(at);
            }
        }
    }
}
