// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back end with the BMC behind it, and all that goes wrong there.

use std::cmp::Reverse;

use ipmi_mux::addr::Addr;
use ipmi_mux::mux::{Incoming, Outgoing, Token};
use nix::errno::Errno;

use super::model::{MS, SECOND, Time};
use super::plan::Faults;
use super::world::{Event, OWN, Sent, World};

impl World {
    pub fn hand_over(&mut self, out: Outgoing) {
        let token = out.token;
        self.requests_to_bmc += 1;
        let order = self.oracle.order_of(&out);
        if out.source != OWN && order.is_none() {
            self.fail(format!("nobody sent {out:02x?}"));
        }
        let faults = self.plan.faults;
        let refusal = match self.rng.below(1000) {
            x if x < faults.again => Some(*self.rng.pick(&[Errno::EAGAIN, Errno::EBUSY])),
            x if x < faults.again + faults.refused => Some(Errno::EINVAL),
            _ => None,
        };
        self.note(|_| {
            let (netfn, cmd, data) = (out.netfn, out.cmd, &out.data);
            format!("to BMC {token:?} {order:?} {netfn:02x}/{cmd:02x} {data:02x?} {refusal:?}")
        });
        if let Some(errno) = refusal {
            self.mux.handle_refusal(self.instant(), token, errno);
            return;
        }
        let again = self.on_the_wire.insert(token, (out.clone(), order, self.now)).is_some();
        self.demand(!again, || format!("{token:?} was sent twice"));
        self.with_back_end.insert(token, Sent { at: self.now, out, order });
        let with_back_end = self.with_back_end.len();
        self.demand(with_back_end <= self.plan.limits.window, || {
            format!("{with_back_end} requests are with the BMC")
        });
        self.line.push_back(token);
        self.start_serving();
    }

    fn start_serving(&mut self) {
        if !self.serving && !self.line.is_empty() {
            self.serving = true;
            let (from, to) = self.plan.service;
            let took = self.rng.between(from, to);
            self.after(took + self.hung_until.saturating_sub(self.now), Event::Served);
        }
    }

    /// The BMC carries out the first in its line, if nothing goes wrong.
    pub fn serve(&mut self) {
        if self.hung_until > self.now {
            self.after(self.hung_until - self.now, Event::Served);
            return;
        }
        self.serving = false;
        let Some(token) = self.line.pop_front() else { return };
        let (out, order, at) = self.on_the_wire.remove(&token).expect("it is in the line");
        let Faults { lost, late, twice, busy, timed_out, .. } = self.plan.faults;
        let draw = self.rng.below(1000);
        let is = |from: u64, share: u64| (from..from + share).contains(&draw);
        let (is_busy, is_lost) = (is(0, busy), is(busy, lost));
        let (is_timed_out, is_late) =
            (is(busy + lost, timed_out), is(busy + lost + timed_out, late));
        let not_done = is_busy || (is_lost || is_timed_out) && self.rng.permille(500);
        let mut data = vec![if is_busy { 0xc0 } else { 0xc3 }];
        if !not_done {
            self.executed += u64::from(self.with_back_end.contains_key(&token));
            let before = self.model.sel.version;
            let answer = self.model.execute(self.now, out.netfn, out.cmd, &out.data);
            self.check_executed(&out, (order, at), before, &answer);
            if !is_timed_out {
                data = answer;
            }
        }
        if (out.netfn, out.cmd) == (6, 2) && !not_done && !self.calm {
            self.hung_until = self.now + self.rng.below(3 * SECOND);
        }
        self.note(|_| {
            let fate = match (not_done, is_lost, is_late) {
                (true, ..) => ", not done",
                (_, true, _) => ", answer lost",
                (.., true) => ", answer late",
                _ => "",
            };
            format!("served {token:?}: {data:02x?}{fate}")
        });
        let delay = if is_late { self.plan.delay(&mut self.rng) } else { self.plan.latency };
        let reply = |data| Event::Reply(token, out.addr, (out.netfn | 1, out.cmd), data);
        if !is_lost {
            if self.rng.permille(twice) {
                let soon = self.rng.permille(500);
                let again = if soon { 5 * MS } else { self.plan.delay(&mut self.rng) };
                let again = self.rng.between(delay, delay + again);
                self.after(again, reply(data.clone()));
            }
            self.after(delay, reply(data));
        } else if self.plan.driver && self.rng.permille(900) {
            let gives_up = self.rng.between(2 * SECOND, 20 * SECOND);
            self.after(gives_up, reply(vec![0xc3]));
        }
        self.start_serving();
    }

    /// Something happens by itself.
    pub fn happen(&mut self) {
        if self.calm {
            return;
        }
        let plan = &self.plan;
        let [outsiders, entries, records, events, hang, reset] = [
            plan.outsiders,
            plan.entries_added,
            plan.records_added,
            plan.events,
            plan.faults.hang,
            plan.faults.reset,
        ];
        let now = self.now;
        // What is nobody's share may be seldom, but not never.
        if self.rng.permille(outsiders) {
            self.note(|_| "somebody else reserves".to_owned());
            if self.rng.permille(500) {
                self.model.sdr.reserve_beside(now);
            } else {
                self.model.sel.reserve_beside(now);
            }
        }
        if self.rng.permille(entries) {
            self.note(|_| "an entry is logged".to_owned());
            self.model.sel.add(now);
        }
        if self.rng.permille(records) {
            self.note(|_| "a record is added".to_owned());
            self.model.sdr.add(now);
        }
        if self.rng.permille(events) {
            self.send_event();
        }
        if self.rng.permille(hang) {
            self.hung_until = now + self.rng.between(100 * MS, 20 * SECOND);
            self.note(|w| format!("the BMC hangs until {}", w.hung_until));
        }
        if self.rng.permille(reset) {
            self.note(|_| "the BMC is reset".to_owned());
            self.model.reset(now);
            self.hung_until = now + self.rng.below(5 * SECOND);
        }
        let pause = self.rng.between(1, self.plan.ambient);
        self.after(pause, Event::Ambient);
    }

    fn send_event(&mut self) {
        let number = self.oracle.next_event();
        self.note(|_| format!("event {number}"));
        for client in self.clients.iter_mut().filter(|c| c.is_open && c.listens) {
            client.events.push_back(number);
        }
        let (addr, data) = (Addr::system_interface(0), number.to_le_bytes().to_vec());
        self.mux.handle_event(&Incoming { addr, netfn: 4, cmd: 2, data });
    }

    /// The BMC is well again, and answers what it still has to within half a second.
    pub fn heal(&mut self) {
        self.note(|_| "from now on all is well".to_owned());
        self.calm = true;
        self.plan.faults = Faults::default();
        self.hung_until = self.now;
        let events = std::mem::take(&mut self.events);
        for Reverse((at, number, event)) in events.into_sorted_vec().into_iter().rev() {
            let soon = match event {
                Event::Reply(..) => at.min(self.now + self.rng.below(500 * MS)),
                // It may be that of a BMC that hung.
                Event::Served => at.min(self.now + self.plan.service.1),
                _ => at,
            };
            self.events.push(Reverse((soon, number, event)));
        }
    }

    /// Whether the answer to something with the back end is lost for good.
    pub fn waits_in_vain(&self) -> bool {
        let coming = |token: &Token| {
            let replies = |Reverse((_, _, event)): &Reverse<(Time, u64, Event)>| matches!(event, Event::Reply(of, ..) if of == token);
            self.on_the_wire.contains_key(token) || self.events.iter().any(replies)
        };
        self.with_back_end.keys().any(|token| !coming(token))
    }

    pub fn is_idle(&self) -> bool {
        self.line.is_empty() && self.with_back_end.is_empty()
    }
}
