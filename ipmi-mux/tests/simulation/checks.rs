// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether an answer is right, and whether the BMC may be told what it is told.

use ipmi_mux::addr::Addr;
use ipmi_mux::mux::Outgoing;

use super::model::{HEADER, MS, SECOND, Time};
use super::oracle::{Claim, Op, Order, Part, Store, Wish};
use super::world::World;

/// How long a look at the info vouches for the contents, `repositories::CHECKED_FOR`.
const CHECKED_FOR: Time = SECOND;
/// Cancellations until a client is told, whatever the info says: `traffic::MAX_REPLAYS`, and one that
/// may have been before the client asked.
const CANCELLATIONS: usize = 4;

impl World {
    /// Writes down what a client has sent.
    pub fn ordered(&mut self, mut order: Order) {
        let now = self.now;
        let place = self.orders.len();
        let controller = order.controller;
        order.since = self.earliest(&order);
        let oracle = &mut self.oracle;
        if let Op::Sdr(Some(at)) | Op::SelEntry(Some(at)) | Op::Clear(at) | Op::ClearStatus(at) =
            order.op
        {
            order.ordinal = oracle.reservations[at].ordinal;
        }
        match order.op {
            Op::Lease(part, Wish::Take) => {
                let claim = Claim { controller, order: place, from: now, until: Time::MAX };
                oracle.claims.entry(part).or_default().push(claim);
            }
            Op::Lease(part, Wish::GiveBack) => {
                oracle.give_backs.entry((controller, part)).or_default().push((place, false));
                if oracle.firm.get(&part).is_some_and(|(holder, _)| *holder == controller) {
                    oracle.firm.remove(&part);
                }
            }
            _ => {}
        }
        oracle.by_wire.insert((order.sender, order.msgid), place);
        oracle.expected.insert((order.receiver, order.msgid), place);
        *oracle.waiting.entry(order.receiver).or_default() += 1;
        self.orders.push(order);
    }

    pub fn order(
        &self,
        (sender, receiver): (usize, usize),
        (netfn, cmd, data): (u8, u8, Vec<u8>),
        addr: Addr,
        msgid: i64,
        op: Op,
    ) -> Order {
        let (asked, controller) = (self.now, self.clients[sender].controller);
        // IPMI 2.0 wants 5 s; the core knows that erasing and resets take longer.
        let long = matches!((netfn, cmd), (0x0a, 0x47) | (0x06, 0x02));
        let deadline = asked + if long { 60 * SECOND } else { 5 * SECOND };
        let (since, ordinal) = (asked, 0);
        Order {
            sender,
            receiver,
            controller,
            addr,
            msgid,
            netfn,
            cmd,
            data,
            op,
            asked,
            deadline,
            since,
            ordinal,
        }
    }

    /// How old an answer may be: as old as what is kept, or as an identical read that is on its way.
    fn earliest(&self, order: &Order) -> Time {
        let age = match order.op {
            Op::Reading => Time::try_from(self.plan.limits.sensor_age.as_micros()).expect("short"),
            Op::Sdr(_) | Op::Info(Store::Sdr) => CHECKED_FOR,
            Op::Info(Store::Sel) | Op::SelEntry(_) => 0,
            _ => return order.asked,
        };
        let same = |out: &Outgoing| {
            let skip = if matches!(order.op, Op::Sdr(_) | Op::SelEntry(_)) { 2 } else { 0 };
            (out.netfn, out.cmd) == (order.netfn, order.cmd)
                && out.data.get(skip..) == order.data.get(skip..)
        };
        let on_its_way = self.with_back_end.values().filter(|s| same(&s.out)).map(|s| s.at).min();
        let since = order.asked.saturating_sub(age).min(on_its_way.unwrap_or(Time::MAX));
        if order.op == Op::Reading { since.max(self.oracle.changed) } else { since }
    }

    /// Looks at what the BMC has just been made to do.
    pub fn check_executed(
        &mut self,
        out: &Outgoing,
        (order, handed_over): (Option<usize>, Time),
        sel_before: u64,
        answer: &[u8],
    ) {
        let (netfn, cmd, ok) = (out.netfn & 0x3f, out.cmd, answer[0] == 0);
        let now = self.now;
        if (netfn, cmd) == (0x06, 0x30) || (netfn, cmd) == (0x06, 0x31) {
            self.fail("the driver's own message flags are touched".to_owned());
        }
        let controller = order.map(|at| self.orders[at].controller);
        let part = match (netfn, cmd, out.data.first()) {
            (0x06, 0x22 | 0x24, _) => Some(Part::Watchdog),
            (0x00, 0x08, _) => Some(Part::Boot),
            _ => None,
        };
        if let Some((part, (holder, since))) =
            part.and_then(|p| Some((p, *self.oracle.firm.get(&p)?)))
            && Some(holder) != controller
            && handed_over > since
        {
            self.fail(format!("{holder:?} holds {part:?}, and {controller:?} sets it"));
        }
        let Some(at) = order else { return };
        self.oracle.executed.insert(at, now);
        if let Op::Clear(reservation) = self.orders[at].op
            && ok
        {
            let after = self.model.sel.version;
            let versions = &mut self.oracle.reservations[reservation].versions;
            // Where a clear does not cancel the reservation, the next finds nothing to erase.
            let cancels = self.plan.habits.clear_cancels;
            let added_to = |from: u64| (from..sel_before).any(|v| self.model.sel.is_addition(v));
            let good = versions.contains(&sel_before)
                || !cancels && versions.iter().any(|from| !added_to(*from));
            versions.push(after);
            let versions = format!("{versions:?}");
            let first = self.oracle.cleared.insert(at);
            self.demand(first, || format!("order {at} clears the log twice"));
            self.demand(good, || {
                format!("order {at} clears version {sel_before} of the log, reserved {versions}")
            });
        }
    }

    /// An answer that arrived at `arrived` is read.
    pub fn check_answer(&mut self, at: usize, (arrived, was_idle): (Time, Time), data: &[u8]) {
        let order = &self.orders[at];
        let (asked, deadline) = (order.asked, order.deadline);
        let late = arrived > deadline;
        if late {
            let by = (arrived - deadline) / MS;
            return self.fail(format!("the answer to order {at} is {by} ms late: {data:02x?}"));
        }
        let Some(code) = data.first().copied() else {
            return self.fail(format!("an empty answer to order {at}"));
        };
        let faulty = self.faulty;
        let allowed = match (code, &order.op) {
            // Where nothing fails it comes of too much to do.
            (0xc3, _) => faulty || arrived == deadline && was_idle <= asked,
            (0xc0 | 0xff, _) => faulty,
            (0xc5, Op::Sdr(None) | Op::SelEntry(None)) => true,
            (
                0xc5,
                Op::Sdr(Some(res))
                | Op::SelEntry(Some(res))
                | Op::Clear(res)
                | Op::ClearStatus(res),
            ) => {
                let done = self.oracle.cleared.contains(&at);
                !done && self.may_be_cancelled(order, *res, arrived)
            }
            (0xd5, Op::Lease(part, _)) => self.another_holds(order, *part, arrived),
            (0x80, Op::Lease(Part::Watchdog, Wish::Use)) => true,
            (0x81, Op::Lease(Part::Boot, Wish::Take)) => true,
            (0xcb, Op::Sdr(_) | Op::SelEntry(_)) => true,
            (0xc1, Op::Info(_)) => true,
            (0x00, _) => self.is_right_answer(order, arrived, data),
            _ => false,
        };
        self.demand(allowed, || {
            format!("order {at}, asked at {asked}, was answered at {arrived}: {data:02x?}")
        });
        self.learn(at, arrived, data);
    }

    fn is_right_answer(&self, order: &Order, arrived: Time, data: &[u8]) -> bool {
        let rest = &data[1..];
        match order.op {
            Op::Echo => rest == order.data,
            Op::Counter => rest.len() == 4 && !self.oracle.counters.contains_key(rest),
            Op::Reading => {
                let taken = rest.get(1..9).and_then(|t| t.try_into().ok()).map(u64::from_le_bytes);
                rest.first() == order.data.first()
                    && taken.is_some_and(|taken| (order.since..=arrived).contains(&taken))
            }
            Op::DeviceId => rest.len() == 11,
            Op::Info(store) => {
                let model = if store == Store::Sdr { &self.model.sdr } else { &self.model.sel };
                let infos = &model.infos;
                let (first, last) = (model.version_at(order.since), model.version_at(arrived));
                (first..=last).any(|v| infos.get(v as usize).is_some_and(|info| info == data))
            }
            Op::Reserve(_) => rest.len() == 2 && rest != [0, 0],
            Op::Sdr(reservation) => self.is_right_record(order, reservation, arrived, rest),
            Op::SelEntry(_) => rest.len() == 18,
            Op::GetEnables => {
                let set = self.oracle.enables.get(&order.controller);
                rest.len() == 1
                    && set.is_none_or(|(value, asked)| *asked > order.asked || rest == [*value])
            }
            _ => true,
        }
    }

    /// A piece of a record must be of a version that was there, and one with a reservation of the version
    /// that was reserved, as far as a look each [`CHECKED_FOR`] can tell.
    fn is_right_record(
        &self,
        order: &Order,
        reservation: Option<usize>,
        arrived: Time,
        rest: &[u8],
    ) -> bool {
        let &[_, _, id0, id1, offset, count] = &order.data[..] else { return false };
        let id = u16::from_le_bytes([id0, id1]).max(1);
        let whole = HEADER + super::model::record_rest(id);
        let len = usize::from(count.min(whole - offset));
        if rest.len() != 2 + len || offset == 0 && rest[2..4] != id.to_le_bytes() {
            return false;
        }
        let versions: Vec<u8> = rest[2..]
            .iter()
            .zip(offset..)
            .filter(|(_, at)| !matches!(at, 0 | 1 | 4))
            .map(|(version, _)| *version)
            .collect();
        let sdr = &self.model.sdr;
        if !self.plan.habits.info {
            // Without a stamp what is kept is not vouched for.
            return versions.windows(2).all(|two| two[0] == two[1]);
        }
        let (first, last) = (sdr.version_at(order.since), sdr.version_at(arrived));
        let there = |seen: &u8| (first..=last).any(|version| version.to_le_bytes()[0] == *seen);
        let reserved = reservation.and_then(|at| self.oracle.reservations[at].answered);
        let unchanged = offset == 0
            || reserved.is_none_or(|reserved| {
                let until = order.since;
                reserved >= until || !sdr.changed_between(reserved + 1, until.saturating_sub(1))
            });
        versions.iter().all(there) && versions.windows(2).all(|two| two[0] == two[1]) && unchanged
    }

    /// Whether C5 may be the answer: the contents have changed, or may have, or the BMC was reset, or
    /// somebody beside us reserved time and again, or its controller has a newer reservation.
    fn may_be_cancelled(&self, order: &Order, at: usize, arrived: Time) -> bool {
        let reservation = &self.oracle.reservations[at];
        let key = (order.controller, reservation.store);
        let newest = self.oracle.ordinals.get(&key).copied().unwrap_or_default();
        if newest > order.ordinal
            || reservation.controller != order.controller
            || !self.plan.habits.info
        {
            return true;
        }
        let (store, age) = match reservation.store {
            Store::Sdr => (&self.model.sdr, CHECKED_FOR),
            Store::Sel => (&self.model.sel, 0),
        };
        let during = |from: Time| move |at: &&Time| (from..=arrived).contains(*at);
        let from = reservation.asked.saturating_sub(age);
        let outsiders = store.outsiders.iter().filter(during(order.asked)).count();
        store.changes.iter().any(|at| during(from)(&at))
            || self.model.resets.iter().any(|at| during(from)(&at))
            || reservation.store == Store::Sel
                && self.oracle.uncertain.iter().any(|at| during(from)(&at))
            || outsiders >= CANCELLATIONS
    }

    fn another_holds(&self, order: &Order, part: Part, arrived: Time) -> bool {
        let claims = self.oracle.claims.get(&part).into_iter().flatten();
        claims.into_iter().any(|claim| {
            claim.controller != order.controller
                && claim.from <= arrived
                && claim.until >= order.asked
        })
    }

    /// What follows from an answer.
    fn learn(&mut self, at: usize, arrived: Time, data: &[u8]) {
        let Self { orders, oracle, .. } = self;
        let order = &orders[at];
        let (controller, asked, ok) = (order.controller, order.asked, data[0] == 0);
        match order.op {
            Op::Counter if ok => {
                oracle.counters.insert(data[1..].to_vec(), at);
                oracle.change_known(at);
            }
            Op::SetReading if ok => oracle.change_known(at),
            Op::Reserve(reservation) => {
                let reservation = &mut oracle.reservations[reservation];
                if ok && reservation.store == Store::Sel {
                    // It was made at some moment between question and answer.
                    let sel = &self.model.sel;
                    reservation.versions =
                        (sel.version_at(asked)..=sel.version_at(arrived)).collect();
                }
                reservation.answered = ok.then_some(arrived);
            }
            Op::Clear(_) if data[0] == 0xc3 => oracle.uncertain.push(arrived),
            Op::Lease(part, Wish::Take) if ok => {
                let alive = self.clients.iter().any(|c| c.is_open && c.controller == controller);
                if alive && oracle.still_has(part, controller, at) {
                    let other = oracle.firm.insert(part, (controller, arrived));
                    if let Some((other, _)) = other.filter(|(other, _)| *other != controller) {
                        self.fail(format!("{controller:?} and {other:?} have {part:?}"));
                    }
                }
            }
            // It never had it; whether it has after C3 is not known.
            Op::Lease(part, Wish::Take) if data[0] != 0xc3 => {
                let claims = oracle.claims.entry(part).or_default().iter_mut();
                for claim in claims.filter(|c| c.order == at) {
                    claim.until = arrived;
                }
            }
            Op::Lease(part, Wish::GiveBack) => {
                if ok {
                    oracle.end_claims(part, controller, at, arrived);
                }
                let all = oracle.give_backs.entry((controller, part)).or_default().iter_mut();
                all.filter(|(order, _)| *order == at).for_each(|(_, answered)| *answered = true);
            }
            Op::SetEnables(value) if ok => {
                oracle.enables.insert(controller, (value, asked));
            }
            Op::SetEnables(_) => {
                oracle.enables.remove(&controller);
            }
            _ => {}
        }
    }
}
