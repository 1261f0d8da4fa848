// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who has a lease: what it does with it the real core of services says, over a network that delays, ends, swallows and is away.

use device_manager::record::WHOLE;
use device_manager::service::core::{self as service, Action, ConnId, Gone, NotHeld, Over};
use device_manager::unit::core::{self as unit, Micros, Stored};
use device_manager::wire::{FromHolder, Grant, ToHolder};

use crate::services::{Service, State};
use crate::world::{Due, SECOND, STORM, TTL, World};

/// Who reaches a unit again has what it leased again within this time: an answer that was lost, and pauses.
const BACK: Micros = service::ANSWER + 3 * SECOND;

/// What is on its way, over which of its connections where there are several.
#[derive(Debug, Clone)]
pub enum Step {
    /// An attempt to connect is at the unit, of that number at the service.
    Dialled(ConnId),
    /// Something is at the unit.
    Came(u64, FromHolder),
    /// Something is at the service.
    Said(u64, ToHolder),
    /// The service learns that a connection is over.
    Ended(u64),
    /// Its data flow, or do not any more.
    Carried,
    Gone(Gone),
}

#[derive(Debug, Clone)]
pub struct Held {
    pub unit: usize,
    pub grant: Grant,
    /// The connection over which it is renewed, and the one that is to carry data.
    pub conn: u64,
    data: u64,
    /// When the unit was last asked for it.
    pub renewed: Micros,
    pub until: Micros,
    /// Whether the unit was asked for it since it began.
    pub opened: bool,
    /// Whether it has a link over which to renew.
    pub linked: bool,
    pub core: Box<service::Service>,
    /// The link as the service knows it.
    known: Option<ConnId>,
    /// When it asked what the unit has not answered yet, and the last of what it has.
    asked: Vec<Micros>,
    granted: Micros,
    released: bool,
    /// The device is about to appear at the service, or is there.
    uses: bool,
    carried: bool,
    /// Nothing ever comes over its link.
    is_silent: bool,
    /// The network between the two is away until then.
    apart: Micros,
    /// When the unit was last not to be reached.
    disturbed: Micros,
    /// In order for each direction.
    last: [Micros; 2],
}

impl Held {
    /// Whether the service takes the device for its own.
    pub fn is_used(&self) -> bool {
        self.core.held().is_some_and(service::Hold::is_used)
    }
}

impl World {
    pub fn held(&mut self, unit: usize, grant: Grant) -> Held {
        let (conn, data, now) = (self.number(), self.number(), self.now);
        Held {
            unit,
            grant,
            conn,
            data,
            renewed: now,
            until: now + self.rng.between(SECOND, 50 * SECOND),
            opened: false,
            linked: false,
            core: Box::new(service::Service::new(false, now)),
            known: None,
            asked: vec![],
            granted: now,
            released: false,
            uses: false,
            carried: false,
            is_silent: false,
            apart: 0,
            disturbed: now,
            last: [0; 2],
        }
    }

    /// What time brings to who holds a device.
    pub fn hold(&mut self, at: usize) {
        let now = self.now;
        let away = self.now < STORM && self.rng.permille(4);
        let back = (now + self.rng.between(SECOND, 50 * SECOND)).min(STORM);
        let State::Has(held) = &mut self.services[at].state else { return };
        let (unit, no, conn) = (held.unit, held.grant.no, held.conn);
        let is_cut = !held.linked && held.known.is_some();
        if self.units[unit].core.is_none() || is_cut || now < held.apart {
            held.disturbed = now;
        }
        if away && now >= held.apart {
            // Neither end is told before its own timers say so.
            (held.apart, held.linked, held.disturbed) = (back, false, now);
            self.after(now + 4 * SECOND, Due::Holder(at, no, Step::Ended(conn)));
            self.count("networks of holders away");
        } else if is_cut && now >= held.apart {
            self.step(at, no, Step::Ended(conn));
        }
        let State::Has(held) = &self.services[at].state else { return };
        let event = if now > held.until { service::Event::Stop } else { service::Event::Tick };
        self.handle(at, event);
        let State::Has(held) = &self.services[at].state else { return };
        if held.is_used() && now >= held.granted + TTL {
            self.broken = Some(format!("service {at} uses lease {no}, which is over by its clock"));
        }
    }

    /// The service is told something, and does what it says.
    pub fn handle(&mut self, at: usize, event: service::Event) {
        let now = self.now;
        let State::Has(held) = &mut self.services[at].state else { return };
        let actions = held.core.handle(now, event.clone());
        let no = held.grant.no;
        self.note(|| format!("s{at} <- {event:?}"));
        for action in actions {
            self.note(|| format!("    s{at} {action:?}"));
            let delay = self.delay();
            match action {
                Action::Connect(conn, _) => {
                    self.after(now + delay, Due::Holder(at, no, Step::Dialled(conn)));
                }
                Action::Send(_, said) => self.say(at, said),
                Action::Close(_) => self.cut(at),
                Action::Use(grant) => {
                    let State::Has(held) = &mut self.services[at].state else { return };
                    held.uses = true;
                    let data = FromHolder::Data { no, token: grant.token };
                    let step = Step::Came(held.data, data);
                    self.after(now + delay, Due::Holder(at, no, step));
                }
                Action::Leave => {
                    self.after(now + delay, Due::Holder(at, no, Step::Gone(Gone::Left)));
                }
                Action::End(over) => self.over(at, &over),
                Action::Look | Action::Note(_) => {}
            }
        }
    }

    fn say(&mut self, at: usize, said: FromHolder) {
        let (now, delay) = (self.now, self.delay());
        let State::Has(held) = &mut self.services[at].state else { return };
        let (no, conn) = (held.grant.no, held.conn);
        if held.released {
            self.broken = Some(format!("service {at} gave lease {no} back, and says {said:?}"));
            return;
        }
        match said {
            FromHolder::Release if held.uses => {
                self.broken = Some(format!("service {at} gives lease {no} back, and uses it"));
                return;
            }
            FromHolder::Release => held.released = true,
            _ => held.asked.push(now),
        }
        held.last[0] = (now + delay).max(held.last[0] + 1);
        let when = held.last[0];
        self.after(when, Due::Holder(at, no, Step::Came(conn, said)));
    }

    /// The service ends its link: what is on its way does not arrive.
    fn cut(&mut self, at: usize) {
        let number = self.number();
        let State::Has(held) = &mut self.services[at].state else { return };
        let (unit, old) = (held.unit, std::mem::replace(&mut held.conn, number));
        (held.linked, held.known) = (false, None);
        self.unit(unit, unit::Event::ConnEnded(old));
    }

    /// What was on its way arrives, if that lease is still held.
    pub fn step(&mut self, at: usize, no: u64, step: Step) {
        let (now, number) = (self.now, self.number());
        let State::Has(held) = &mut self.services[at].state else { return };
        let unit = held.unit;
        let is_there = now >= held.apart && self.units[unit].core.is_some();
        match step {
            _ if held.grant.no != no => {}
            Step::Dialled(ours) if !is_there => {
                self.handle(at, service::Event::NotConnected(ours));
            }
            Step::Dialled(ours) => {
                (held.conn, held.linked, held.known) = (number, true, Some(ours));
                held.asked.clear();
                // Over some nothing ever comes.
                held.is_silent = now < STORM && self.rng.permille(30);
                if held.is_silent {
                    held.disturbed = now;
                    self.count("links of holders silent");
                }
                self.handle(at, service::Event::Connected(ours));
            }
            Step::Came(conn, said) => {
                let of_link = held.linked && held.conn == conn && !held.is_silent;
                if held.data == conn && !is_there {
                    let why = NotHeld::Ended("the unit is not reached".to_owned());
                    return self.gone(at, Gone::NotCarried(why));
                }
                if !is_there || !(of_link || held.data == conn) {
                    return;
                }
                if of_link {
                    let again = matches!(said, FromHolder::Open { .. }) && held.carried;
                    (held.renewed, held.opened) = (now, true);
                    match said {
                        FromHolder::Renew => self.count("renewals"),
                        FromHolder::Release => self.count("given back"),
                        _ if again => self.count("come again"),
                        _ => {}
                    }
                }
                let name = self.managers[self.services[at].manager].name.clone();
                self.came(unit, conn, &name, said);
            }
            Step::Said(conn, said) => {
                if conn == held.data {
                    if let ToHolder::Ended(why) = said {
                        self.gone(at, Gone::NotCarried(NotHeld::Ended(why)));
                    }
                } else if let Some(ours) = held.known.filter(|_| held.linked && held.conn == conn) {
                    if matches!(said, ToHolder::Good(_)) {
                        held.granted = held.asked.remove(0);
                    }
                    self.handle(at, service::Event::Said(ours, said));
                }
            }
            Step::Ended(conn) => {
                if conn == held.conn {
                    held.linked = false;
                    if let Some(ours) = held.known.take() {
                        self.unit(unit, unit::Event::ConnEnded(conn));
                        self.handle(at, service::Event::LinkEnded(ours));
                    }
                }
            }
            Step::Carried => {
                held.carried = true;
                self.handle(at, service::Event::Used);
            }
            Step::Gone(gone) => self.gone(at, gone),
        }
    }

    fn gone(&mut self, at: usize, gone: Gone) {
        if let State::Has(held) = &mut self.services[at].state {
            held.uses = false;
        }
        self.handle(at, service::Event::Gone(gone));
    }

    /// A service has no lease any more.
    fn over(&mut self, at: usize, over: &Over) {
        let State::Has(held) = &self.services[at].state else { return };
        let expired = NotHeld::Expired.to_string();
        let is_expired = match over {
            Over::NotHeld(_, why) => *why == NotHeld::Expired,
            Over::Lost(why) => *why == expired,
            _ => false,
        };
        if is_expired {
            // Whose unit is back in time keeps what it has.
            if self.now > held.disturbed + BACK {
                self.broken = Some(format!(
                    "service {at} lost lease {}, and the unit was there",
                    held.grant.no
                ));
            }
            self.count("expired at services");
        }
        self.services[at].state = State::Idle;
    }

    pub fn answer_service(&mut self, unit: usize, conn: u64, message: ToHolder) {
        self.on_its_way(unit, conn, |conn| Step::Said(conn, message));
    }

    pub fn hang(&mut self, unit: usize, conn: u64) {
        self.on_its_way(unit, conn, Step::Ended);
    }

    /// Something is on its way to whom a connection is of.
    fn on_its_way(&mut self, unit: usize, conn: u64, step: impl FnOnce(u64) -> Step) {
        let (now, delay) = (self.now, self.delay());
        for (at, service) in self.services.iter_mut().enumerate() {
            if let State::Has(held) = &mut service.state
                && held.unit == unit
                && (held.conn == conn || held.data == conn)
            {
                held.last[1] = (now + delay).max(held.last[1] + 1);
                let (when, no) = (held.last[1], held.grant.no);
                return self.after(when, Due::Holder(at, no, step(conn)));
            }
        }
    }

    /// The unit's program is away: its holders come again when it is back. What the kernel carries, all of a device, goes on, unless
    /// the machine is away too.
    pub fn unit_gone(&mut self, unit: usize) {
        let stored = self.units[unit].stored.clone();
        for at in 0..self.services.len() {
            let (now, delay) = (self.now, self.delay());
            let State::Has(held) = &mut self.services[at].state else { continue };
            if held.unit != unit {
                continue;
            }
            (held.opened, held.linked, held.disturbed) = (false, false, now);
            let (no, is_carried) = (held.grant.no, held.carried);
            let goes_on = |lease: &Stored| lease.info.in_use && lease.function == WHOLE;
            if !stored.leases.iter().any(|lease| lease.info.no == no && goes_on(lease)) {
                let gone = if is_carried { Gone::Lost } else { Gone::Silent };
                self.after(now + delay, Due::Holder(at, no, Step::Gone(gone)));
            }
        }
    }

    pub fn path_gone(&mut self, unit: usize, no: u64) {
        self.of_lease(unit, no, Step::Gone(Gone::Lost));
    }

    pub fn of_lease(&mut self, unit: usize, no: u64, step: Step) {
        let has = |s: &Service| matches!(&s.state, State::Has(held) if (held.unit, held.grant.no) == (unit, no));
        if let Some(at) = self.services.iter().position(has) {
            let when = self.now + self.delay();
            self.after(when, Due::Holder(at, no, step));
        }
    }
}
