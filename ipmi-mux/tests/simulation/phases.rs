// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end of a world: all is well again, and everything has to come right.

use super::clients::{self, Kind};
use super::model::{DEFAULT_ENABLES, MS, SECOND, Time};
use super::oracle::Part;
use super::world::World;

/// From the BMC's return to full service.
const RECOVERY: Time = 2 * SECOND;
/// Longest that anything may still be under way: a long deadline, and what the driver keeps after it.
const ALL_OVER: Time = 130 * SECOND;
/// Commands of others between that of a client that comes new and its turn, beside the window.
const TURNS: u64 = 2;

impl World {
    /// The BMC is well again, and after [`RECOVERY`] it serves.
    pub fn recover(&mut self) {
        if !self.is_right() {
            return;
        }
        self.heal();
        if self.waits_in_vain() {
            // Places in the window are taken by what was lost, until its time is over.
            self.run_until(self.now + ALL_OVER);
        }
        self.run_until(self.now + RECOVERY);
        if !self.is_right() {
            return;
        }
        let breaker_open = self.mux.stats().breaker_open;
        self.demand(breaker_open == 0, || {
            "the breaker is open before a BMC that is well".to_owned()
        });
        let client = clients::open_as(self, Kind::Poller);
        let order = clients::echo(self, client);
        self.carry_out();
        self.run_until(self.now + SECOND);
        if self.is_right() {
            let answered = self.oracle.served(order);
            self.demand(answered, || format!("order {order} is not served after the BMC's return"));
        }
    }

    /// Who comes after a pause waits for the window and a few more, however much others have sent.
    pub fn check_fairness(&mut self) {
        let flooders: Vec<usize> = (0..3).map(|_| clients::open_as(self, Kind::Flooder)).collect();
        for flooder in &flooders {
            for _ in 0..60 {
                clients::echo(self, *flooder);
            }
        }
        self.carry_out();
        let until = self.executed + 12;
        while self.executed < until && self.is_right() && self.step() {}
        let polite = clients::open_as(self, Kind::Poller);
        let order = clients::echo(self, polite);
        let before = self.executed;
        self.carry_out();
        while !self.oracle.was_executed(order) && self.is_right() && self.step() {}
        let waited = (self.executed - before).saturating_sub(1);
        let most = self.plan.limits.window as u64 + TURNS;
        self.demand(waited <= most, || format!("order {order} waited for {waited} others"));
        self.run_until(self.now + 10 * SECOND);
    }

    /// Nobody waits for anything any more.
    pub fn check_settled(&mut self) {
        self.run_until(self.now + ALL_OVER);
        for at in 0..self.clients.len() {
            clients::read(self, at, usize::MAX);
        }
        // Scripts may have gone on.
        self.carry_out();
        self.run_until(self.now + ALL_OVER);
        for at in 0..self.clients.len() {
            clients::read(self, at, usize::MAX);
        }
        if !self.is_right() {
            return;
        }
        if let Some(order) = self.oracle.never_answered() {
            self.fail(format!("order {order} is never answered"));
        }
        let missing = self.clients.iter().position(|c| c.is_open && !c.events.is_empty());
        if let Some(client) = missing {
            self.fail(format!("client {client} did not get its events"));
        }
        if self.model.boot_in_progress && !self.oracle.may_hold(Part::Boot) {
            self.fail("the boot options are in progress, and nobody holds them".to_owned());
        }
        let reset = self.model.resets.last().copied().unwrap_or_default();
        for (controller, (value, asked)) in self.oracle.enables.clone() {
            let has = self.model.enables;
            self.demand(asked <= reset || has & value == value, || {
                format!("{controller:?} has set enables {value:02x}, the BMC has {has:02x}")
            });
        }
        let stats = self.mux.stats();
        let busy = stats.queued + stats.in_flight + stats.abandoned + stats.breaker_open;
        self.demand(busy == 0 && self.is_idle(), || format!("it does not come to rest: {stats:?}"));
    }

    /// All clients close: nothing is left, and the BMC is left in peace.
    pub fn end(&mut self) {
        for at in 0..self.clients.len() {
            if self.clients[at].is_open {
                clients::close(self, at);
                self.carry_out();
                let pause = self.rng.below(20 * MS);
                self.run_until(self.now + pause);
            }
        }
        self.run_until(self.now + ALL_OVER);
        let left: Vec<_> =
            self.mux.left_over().into_iter().filter(|(_, count)| *count > 0).collect();
        self.demand(left.is_empty(), || format!("left behind: {left:?}"));
        let due = self.mux.next_timeout();
        self.demand(due.is_none(), || "it still waits for something".to_owned());
        let boot = self.model.boot_in_progress;
        self.demand(!boot, || "the boot options are left in progress".to_owned());
        let enables = self.model.enables;
        self.demand(self.faulty || enables == DEFAULT_ENABLES, || {
            format!("the global enables are left as {enables:02x}")
        });
        let asked = self.requests_to_bmc;
        self.run_until(self.now + ALL_OVER);
        let more = self.requests_to_bmc - asked;
        self.demand(more == 0, || format!("it asks the BMC {more} times for nobody"));
    }
}
