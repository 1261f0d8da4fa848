// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers on what managers tell one another: a link of the group that ends takes with it what waited to be written, and is made
//! again without a word. Who finds a gap asks to be told all again.

use serde::{Deserialize, Serialize};

use crate::wire::{Bounded, Peer};

/// What is sent: a message with its number, the number that is next, or the wish to be told all again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Numbered {
    /// The first of all that there is to tell.
    First(Box<Peer>),
    /// One that follows.
    Next(u64, Box<Peer>),
    /// Nothing is new; this number would be next.
    Mark(u64),
    /// Something is missing.
    Again,
}

impl Bounded for Numbered {
    fn is_bounded(&self) -> bool {
        match self {
            Self::First(message) | Self::Next(_, message) => message.is_bounded(),
            Self::Mark(_) | Self::Again => true,
        }
    }
}

/// Towards a peer, from when it is told all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outgoing(u64);

impl Outgoing {
    /// Numbers a message.
    pub fn number(&mut self, message: Peer) -> Numbered {
        let (number, message) = (self.0, Box::new(message));
        self.0 += 1;
        if number == 0 { Numbered::First(message) } else { Numbered::Next(number, message) }
    }

    /// For when nothing is new; none before the first message.
    #[must_use]
    pub fn mark(&self) -> Option<Numbered> {
        (self.0 > 0).then_some(Numbered::Mark(self.0))
    }
}

/// From a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Incoming {
    /// Nothing came.
    #[default]
    Nothing,
    /// This number is next.
    Next(u64),
    /// Something is missing, and the peer was asked for all. What follows until it begins again is of no use, and asking for
    /// each of that would be answered by all each time.
    Asked,
}

/// What came of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// It is next.
    Message(Box<Peer>),
    /// Nothing to do.
    Nothing,
    /// Something is missing: the peer is to be asked for all again.
    Gap,
    /// The peer misses something.
    Again,
}

impl Incoming {
    /// Takes what a peer sent.
    pub fn take(&mut self, numbered: Numbered) -> Taken {
        match (numbered, *self) {
            (Numbered::First(message), _) => {
                *self = Self::Next(1);
                Taken::Message(message)
            }
            (Numbered::Next(number, message), Self::Next(next)) if number == next => {
                *self = Self::Next(number + 1);
                Taken::Message(message)
            }
            (Numbered::Mark(number), Self::Next(next)) if number == next => Taken::Nothing,
            (Numbered::Next(..), Self::Asked) => Taken::Nothing,
            // A mark comes now and then: that is when to ask again, should the first time be lost.
            (Numbered::Next(..) | Numbered::Mark(_), _) => {
                *self = Self::Asked;
                Taken::Gap
            }
            (Numbered::Again, _) => Taken::Again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_found_at_the_next_message_or_mark_and_healed_by_the_first() {
        let (mut out, mut into) = (Outgoing::default(), Incoming::default());
        let message = || Peer::Unfind(1);
        assert_eq!(out.mark(), None);
        let all: Vec<Numbered> = (0..4).map(|_| out.number(message())).collect();
        assert_eq!(into.take(all[1].clone()), Taken::Gap, "before the first");
        assert_eq!(into.take(all[0].clone()), Taken::Message(Box::new(message())));
        assert_eq!(into.take(Numbered::Mark(1)), Taken::Nothing);
        assert_eq!(into.take(all[2].clone()), Taken::Gap);
        assert_eq!(into.take(all[3].clone()), Taken::Nothing, "it is asked for already");
        assert_eq!(into.take(Numbered::Mark(4)), Taken::Gap, "the first wish may be lost");
        assert_eq!(
            into.take(Outgoing::default().number(message())),
            Taken::Message(Box::new(message()))
        );
        assert_eq!(into.take(Numbered::Mark(2)), Taken::Gap, "the last was lost");
        assert_eq!(Numbered::decode(&all[3].encode()), Ok(all[3].clone()));
    }
}
