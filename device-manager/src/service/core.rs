// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a service decides about the device that it wants. [`Service::handle`] is told what happens and when, and answers with
//! what to do.
//!
//! ```text
//!  device: looking ──► held ──► over; if it is to be kept: pausing ──► looking
//!  held:   new ──► taking ──► used ──(lost: the unit may say why)──► given back
//!                                └──(ended, stopped)──► leaving ──┘
//!  link:   connecting ──► opening ──► good, and renewed ──(ended, silent)──► away ──► connecting
//! ```
//!
//! The link may end and be made again while the device is used. A lease ends at its unit; here it is over no later than
//! there, as its time is counted from when it was asked for. Nothing uses the device any more before it is given back.

mod hold;

#[cfg(test)]
mod tests;

pub use crate::unit::core::{ConnId, Micros};

use crate::record::DeviceId;
use crate::wire::{FromHolder, Grant, ToHolder};
pub use hold::Hold;

/// The unit answers within this time.
pub const ANSWER: Micros = 5_000_000;
/// A unit that is not reached, or whose link ended, is tried again after this pause.
pub const AGAIN: Micros = 300_000;
/// When the data's connection is lost the unit may be about to say why.
pub const WHY: Micros = 500_000;
/// Pauses between attempts: at first, and at most.
pub const PAUSE: (Micros, Micros) = (300_000, 10_000_000);
/// After an attempt that went on for longer, the pauses begin anew.
pub const STEADY: Micros = 10_000_000;

/// What happens.
#[derive(Debug, Clone)]
pub enum Event {
    /// It is the time that [`Service::next`] gave.
    Tick,
    /// A signal: nothing is wanted any more.
    Stop,
    /// Of [`Action::Look`]: somebody else has the device, and this is our place in its queue.
    Waits(DeviceId, u32),
    /// [`Action::Look`] came about.
    Granted(Box<Grant>),
    /// It did not.
    NotLeased {
        /// Why.
        why: String,
        /// Whether it may later.
        later: bool,
    },
    /// [`Action::Connect`] came about.
    Connected(ConnId),
    /// It did not.
    NotConnected(ConnId),
    /// A link to the unit is over.
    LinkEnded(ConnId),
    /// The unit says something.
    Said(ConnId, ToHolder),
    /// Of [`Action::Use`]: the device is there.
    Used,
    /// [`Action::Use`] is over, and nothing of it is left.
    Gone(Gone),
}

/// Why a device is used no more, as far as that is known where it was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// As [`Action::Leave`] said.
    Left,
    /// The unit does not carry it.
    NotCarried(NotHeld),
    /// The unit does not say whether it carries it.
    Silent,
    /// The data's connection is lost.
    Lost,
    /// It cannot be used here, or something here went wrong.
    Failed(String),
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Find a device and have it leased; answered by [`Event::Granted`] or [`Event::NotLeased`], and before by
    /// [`Event::Waits`] if that is so.
    Look,
    /// Connect to the unit of a lease; answered by [`Event::Connected`] or [`Event::NotConnected`].
    Connect(ConnId, Box<Grant>),
    /// Say something to the unit.
    Send(ConnId, FromHolder),
    /// End a link, when all is written.
    Close(ConnId),
    /// Have the device appear; answered by [`Event::Used`], and by [`Event::Gone`] when that is over, whatever the reason.
    Use(Box<Grant>),
    /// Have it disappear; answered by [`Event::Gone`].
    Leave,
    /// Nothing more is done.
    End(Over),
    /// For people.
    Note(Note),
}

/// What happened, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Somebody else has the device, and this is our place in its queue.
    Waits(DeviceId, u32),
    /// It is not held, why, and how long the pause is.
    NotHeld(String, Micros),
}

/// Why a lease is over, or was not taken up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotHeld {
    /// The unit ended it.
    #[error("{0}")]
    Ended(String),
    /// It could not be renewed in time.
    #[error("the unit was not reached for as long as the lease lasts")]
    Expired,
    /// The unit says what it may not.
    #[error("the unit does not answer as it should")]
    Nonsense,
}

/// Why a device is not held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Over {
    /// By [`Event::Stop`].
    #[error("it is given back")]
    Stopped,
    /// There was no lease.
    #[error("{why}")]
    NotLeased {
        /// Why.
        why: String,
        /// Whether there may be one later.
        later: bool,
    },
    /// The lease was not taken up.
    #[error("{0}: {1}")]
    NotHeld(DeviceId, NotHeld),
    /// The device was there, or was about to be.
    #[error("{0}")]
    Lost(String),
}

impl Over {
    /// Whether another attempt may be better.
    fn may_come(&self) -> bool {
        !matches!(self, Self::Stopped | Self::NotLeased { later: false, .. })
    }
}

#[derive(Debug, Clone)]
enum State {
    /// The next attempt is due then.
    Pausing(Micros),
    /// The manager is asked, and may have us wait in the device's queue.
    Looking,
    /// There is a lease.
    Held(Box<Hold>),
    /// [`Action::End`] was said.
    Over,
}

/// A service that wants a device.
#[derive(Debug, Clone)]
pub struct Service {
    /// Whether it comes back to a device that it lost, and waits for one before.
    keep: bool,
    is_stopped: bool,
    state: State,
    /// When this attempt began.
    begun: Micros,
    /// The next pause.
    pause: Micros,
    conns: ConnId,
    out: Vec<Action>,
}

impl Service {
    /// A service at its start, which looks for its device with the first event.
    #[must_use]
    pub fn new(keep: bool, now: Micros) -> Self {
        let state = State::Pausing(now);
        let (pause, out) = (PAUSE.0, vec![]);
        Self { keep, is_stopped: false, state, begun: now, pause, conns: 0, out }
    }

    /// When to be called at the latest.
    #[must_use]
    pub fn next(&self) -> Micros {
        match &self.state {
            State::Pausing(until) => *until,
            State::Held(hold) => hold.due(),
            State::Looking | State::Over => Micros::MAX,
        }
    }

    /// The lease that it has.
    #[must_use]
    pub fn held(&self) -> Option<&Hold> {
        match &self.state {
            State::Held(hold) => Some(hold),
            _ => None,
        }
    }

    /// Takes in what happens.
    #[must_use = "they are to be carried out"]
    pub fn handle(&mut self, now: Micros, event: Event) -> Vec<Action> {
        self.is_stopped |= matches!(event, Event::Stop);
        match (&mut self.state, event) {
            (State::Held(hold), event) => hold.handle(now, event, &mut self.out),
            (State::Pausing(_) | State::Looking, Event::Stop) => self.over(now, Over::Stopped),
            (State::Looking, Event::Waits(device, place)) => {
                self.out.push(Action::Note(Note::Waits(device, place)));
            }
            (State::Looking, Event::Granted(grant)) => {
                let hold = Hold::new(now, *grant, self.conns, &mut self.out);
                self.state = State::Held(Box::new(hold));
            }
            (State::Looking, Event::NotLeased { why, later }) => {
                self.over(now, Over::NotLeased { why, later });
            }
            // It came too late.
            (_, Event::Connected(conn)) => self.out.push(Action::Close(conn)),
            _ => {}
        }
        self.keep(now);
        std::mem::take(&mut self.out)
    }

    /// What the time brings.
    fn keep(&mut self, now: Micros) {
        match &mut self.state {
            State::Pausing(until) if *until <= now => {
                (self.state, self.begun) = (State::Looking, now);
                self.out.push(Action::Look);
            }
            State::Held(hold) => {
                hold.keep(now, &mut self.out);
                if let Some(over) = hold.over() {
                    self.conns = hold.conn();
                    self.over(now, over);
                }
            }
            _ => {}
        }
    }

    /// An attempt is over.
    fn over(&mut self, now: Micros, over: Over) {
        if !self.keep || self.is_stopped || !over.may_come() {
            // Who wants it for ever, and then no more, misses nothing.
            let over = if self.keep && self.is_stopped { Over::Stopped } else { over };
            self.state = State::Over;
            return self.out.push(Action::End(over));
        }
        if now > self.begun + STEADY {
            self.pause = PAUSE.0;
        }
        self.state = State::Pausing(now + self.pause);
        self.out.push(Action::Note(Note::NotHeld(over.to_string(), self.pause)));
        self.pause = (self.pause * 2).min(PAUSE.1);
    }
}
