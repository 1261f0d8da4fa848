// SPDX-License-Identifier: MIT OR Apache-2.0
//! A lease at its holder: opened, renewed, used, given back.

use std::collections::VecDeque;

use super::{AGAIN, ANSWER, Action, ConnId, Event, Gone, Micros, NotHeld, Over, WHY};
use crate::wire::{FromHolder, Grant, ToHolder};

/// The way to the unit.
#[derive(Debug, Clone)]
enum Link {
    /// It is tried again then.
    Away(Micros),
    /// It is tried.
    Connecting,
    /// The unit was asked for the lease then.
    Opening(Micros),
    /// The unit holds it for us.
    Good {
        /// When it was asked for longer and has not answered: at most one for each tenth of the lease's time.
        asked: VecDeque<Micros>,
        /// When it is asked next.
        renew_at: Micros,
    },
    /// It has nothing more to say of this lease.
    Closed,
}

/// What becomes of the device.
#[derive(Debug, Clone)]
enum Phase {
    /// The unit has not said yet that it is ours.
    New,
    /// It is about to appear.
    Taking,
    /// It is there.
    Used,
    /// It is not any more: for this reason if the unit gives no other until then.
    Lost(Micros, Over),
    /// It is to disappear.
    Leaving(Over),
    /// The unit was told so, or is as soon as it is reached; not waited for any longer than until then.
    Releasing(Micros, Over),
    Over(Over),
}

/// A lease.
#[derive(Debug, Clone)]
pub struct Hold {
    grant: Grant,
    conn: ConnId,
    link: Link,
    phase: Phase,
    /// A lease that is not renewed for so long ends.
    ttl: Micros,
    /// By our clock: not later than by the unit's.
    expires: Micros,
}

impl Hold {
    /// Takes a lease up; `conn` is the last connection before.
    pub(super) fn new(now: Micros, grant: Grant, conn: ConnId, out: &mut Vec<Action>) -> Self {
        let ttl = millis(grant.ttl_ms);
        let (link, phase) = (Link::Away(now), Phase::New);
        let mut hold = Self { grant, conn, link, phase, ttl, expires: now + ttl };
        hold.connect(out);
        hold
    }

    /// Whether the device may be used now.
    #[must_use]
    pub fn is_used(&self) -> bool {
        matches!(self.phase, Phase::Taking | Phase::Used)
    }

    /// When it is over if it is not renewed.
    #[must_use]
    pub fn expires(&self) -> Micros {
        self.expires
    }

    pub(super) fn conn(&self) -> ConnId {
        self.conn
    }

    /// Why it is over, if it is.
    pub(super) fn over(&self) -> Option<Over> {
        match &self.phase {
            Phase::Over(over) => Some(over.clone()),
            _ => None,
        }
    }

    pub(super) fn due(&self) -> Micros {
        let link = match &self.link {
            Link::Away(until) => *until,
            Link::Opening(asked) => asked + ANSWER,
            Link::Good { renew_at, .. } => *renew_at,
            Link::Connecting => Micros::MAX,
            Link::Closed => return Micros::MAX,
        };
        match &self.phase {
            Phase::Releasing(until, _) => *until,
            Phase::Lost(until, _) => link.min(self.expires).min(*until),
            _ => link.min(self.expires),
        }
    }

    pub(super) fn handle(&mut self, now: Micros, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Stop => self.stop(now, out),
            Event::Connected(conn) => self.connected(now, conn, out),
            Event::NotConnected(conn) | Event::LinkEnded(conn) if conn == self.conn => {
                self.link_ended(now);
            }
            Event::Said(conn, said) if conn == self.conn => self.said(said, out),
            Event::Used if matches!(self.phase, Phase::Taking) => self.phase = Phase::Used,
            Event::Gone(gone) => self.gone(now, gone, out),
            _ => {}
        }
    }

    /// What the time brings.
    pub(super) fn keep(&mut self, now: Micros, out: &mut Vec<Action>) {
        match self.phase.clone() {
            Phase::Releasing(until, over) if until <= now => {
                self.close(out);
                self.phase = Phase::Over(over);
            }
            Phase::Lost(until, over) if until <= now => self.release(now, over, out),
            _ => {}
        }
        // Who gives it back asks for nothing more.
        if matches!(self.phase, Phase::Releasing(..) | Phase::Over(_)) {
            return;
        }
        if !matches!(self.link, Link::Closed) && self.expires <= now {
            return self.end(NotHeld::Expired, out);
        }
        match &mut self.link {
            Link::Away(until) if *until <= now => self.connect(out),
            Link::Opening(asked) if *asked + ANSWER <= now => {
                self.close(out);
                self.link = Link::Away(now + AGAIN);
            }
            Link::Good { asked, renew_at } if *renew_at <= now => {
                asked.push_back(now);
                // Asked again soon if there is no answer.
                *renew_at = now + self.ttl / 10;
                out.push(Action::Send(self.conn, FromHolder::Renew));
            }
            _ => {}
        }
    }

    fn connect(&mut self, out: &mut Vec<Action>) {
        self.conn += 1;
        self.link = Link::Connecting;
        out.push(Action::Connect(self.conn, Box::new(self.grant.clone())));
    }

    fn connected(&mut self, now: Micros, conn: ConnId, out: &mut Vec<Action>) {
        if conn != self.conn || !matches!(self.link, Link::Connecting) {
            // It came too late.
            return out.push(Action::Close(conn));
        }
        let (no, token) = (self.grant.no, self.grant.token.clone());
        out.push(Action::Send(conn, FromHolder::Open { no, token }));
        self.link = Link::Opening(now);
        if let Phase::Releasing(..) = self.phase {
            out.push(Action::Send(conn, FromHolder::Release));
        }
    }

    fn link_ended(&mut self, now: Micros) {
        match &self.phase {
            _ if matches!(self.link, Link::Closed | Link::Away(_)) => {}
            // It is given back, or expires.
            Phase::Releasing(_, over) => self.phase = Phase::Over(over.clone()),
            _ => self.link = Link::Away(now + AGAIN),
        }
    }

    fn said(&mut self, said: ToHolder, out: &mut Vec<Action>) {
        match (&self.phase, said) {
            // It was asked for before.
            (Phase::Releasing(..), ToHolder::Good(_)) => {}
            (Phase::Releasing(_, over), _) => {
                let over = over.clone();
                self.close(out);
                self.phase = Phase::Over(over);
            }
            (_, ToHolder::Good(ttl_ms)) => self.good(millis(ttl_ms), out),
            (_, ToHolder::Ended(why)) => self.end(NotHeld::Ended(why), out),
            (_, ToHolder::Go(_)) => self.end(NotHeld::Nonsense, out),
        }
    }

    /// The unit answers what it was asked first: the lease lasts from then on.
    fn good(&mut self, ttl: Micros, out: &mut Vec<Action>) {
        let (asked, rest) = match &mut self.link {
            Link::Opening(asked) => (*asked, VecDeque::new()),
            Link::Good { asked, .. } => match asked.pop_front() {
                Some(first) => (first, std::mem::take(asked)),
                None => return,
            },
            _ => return,
        };
        (self.ttl, self.expires) = (ttl, asked + ttl);
        self.link = Link::Good { asked: rest, renew_at: asked + ttl / 3 };
        if matches!(self.phase, Phase::New) {
            self.phase = Phase::Taking;
            out.push(Action::Use(Box::new(self.grant.clone())));
        }
    }

    /// The lease is over, and not by us.
    fn end(&mut self, why: NotHeld, out: &mut Vec<Action>) {
        self.close(out);
        let device = self.grant.device.id;
        self.phase = match (self.phase.clone(), why) {
            (Phase::New, why) => Phase::Over(Over::NotHeld(device, why)),
            (Phase::Taking, why) => {
                out.push(Action::Leave);
                Phase::Leaving(Over::NotHeld(device, why))
            }
            (Phase::Used, why) => {
                out.push(Action::Leave);
                Phase::Leaving(Over::Lost(why.to_string()))
            }
            (Phase::Lost(_, Over::NotHeld(..)), why) => Phase::Over(Over::NotHeld(device, why)),
            (Phase::Lost(..), NotHeld::Ended(why)) => Phase::Over(Over::Lost(why)),
            (Phase::Lost(_, over) | Phase::Releasing(_, over) | Phase::Over(over), _) => {
                Phase::Over(over)
            }
            (Phase::Leaving(over), _) => Phase::Leaving(over),
        };
    }

    fn gone(&mut self, now: Micros, gone: Gone, out: &mut Vec<Action>) {
        let device = self.grant.device.id;
        let lost = || Over::Lost("its data connection was lost".to_owned());
        let over = match (&self.phase, gone) {
            (Phase::Leaving(over), _) => over.clone(),
            (Phase::New | Phase::Lost(..) | Phase::Releasing(..) | Phase::Over(_), _) => return,
            (_, Gone::Lost) => return self.phase = Phase::Lost(now + WHY, lost()),
            (_, Gone::Silent) => {
                // The lease's end is told over its own link.
                let why = NotHeld::Ended("the unit does not answer".to_owned());
                return self.phase = Phase::Lost(now + ANSWER, Over::NotHeld(device, why));
            }
            (_, Gone::NotCarried(why)) => Over::NotHeld(device, why),
            (_, Gone::Failed(why)) => Over::Lost(why),
            (_, Gone::Left) => lost(),
        };
        self.release(now, over, out);
    }

    fn stop(&mut self, now: Micros, out: &mut Vec<Action>) {
        match self.phase {
            Phase::New | Phase::Lost(..) => self.release(now, Over::Stopped, out),
            Phase::Taking | Phase::Used => {
                out.push(Action::Leave);
                self.phase = Phase::Leaving(Over::Stopped);
            }
            Phase::Leaving(_) | Phase::Releasing(..) | Phase::Over(_) => {}
        }
    }

    /// Gives it back. A unit that is not reached is tried once more: it may be about to begin anew.
    fn release(&mut self, now: Micros, over: Over, out: &mut Vec<Action>) {
        match &self.link {
            Link::Closed => return self.phase = Phase::Over(over),
            Link::Opening(_) | Link::Good { .. } => {
                out.push(Action::Send(self.conn, FromHolder::Release));
            }
            Link::Away(_) => self.connect(out),
            Link::Connecting => {}
        }
        self.phase = Phase::Releasing(now + ANSWER, over);
    }

    fn close(&mut self, out: &mut Vec<Action>) {
        if let Link::Opening(_) | Link::Good { .. } = self.link {
            out.push(Action::Close(self.conn));
        }
        self.link = Link::Closed;
    }
}

/// Microseconds.
fn millis(ms: u32) -> Micros {
    Micros::from(ms) * 1000
}
