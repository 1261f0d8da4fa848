// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changing the group key while the group works: accept the new one, send the new one, drop the old one.
//! Each step is taken by all members before any takes the next, so at every moment each can open a
//! connection to each.
//!
//! | step | a member sends | and accepts |
//! |---|---|---|
//! | [`Step::Settled`] | old | |
//! | [`Step::Accepts`] | old | new |
//! | [`Step::Sends`] | new | old |
//! | [`Step::Settled`] | new | |
//!
//! A rotation has no state but the keyrings, where the other key is marked as the next one or the last: whoever has
//! two keys can go on with it, from any member.

use std::collections::BTreeMap;

use crate::hello::KeyState;
use crate::keyring::{Age, Also, Keyring};
use crate::keys::{GroupKey, KeyId, NodeId};

/// What a member is told to do. Doing it again changes nothing.
#[derive(Debug, Clone)]
pub enum Order {
    /// Accept this key too.
    Accept(GroupKey),
    /// Send this key, and accept the other one.
    Send(KeyId),
    /// Accept this key alone, which is sent already.
    Settle(KeyId),
    /// Give up a key that nobody sends yet.
    Abandon(KeyId),
}

/// Why an order is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    /// There are two keys already, and the new one is neither.
    #[error("another change of the group key is under way, from {sends} to {also}; end it first")]
    Another {
        /// Sent.
        sends: KeyId,
        /// Accepted too.
        also: KeyId,
    },
    /// The key is not there.
    #[error("the group key {0} is not known")]
    Unknown(KeyId),
    /// The step before was not taken.
    #[error("the group key {0} is not the one that is sent")]
    NotSent(KeyId),
    /// The key is in use.
    #[error("the group key {0} is sent already; go on with the change")]
    Sent(KeyId),
}

impl Keyring {
    /// Carries out an order; returns whether the keyring is another now, and to be stored before it is
    /// confirmed.
    ///
    /// # Errors
    /// See [`RotationError`]; the keyring is as before.
    pub fn follow(&mut self, order: &Order) -> Result<bool, RotationError> {
        match order {
            Order::Accept(key) if self.find(key.id()).is_some() => Ok(false),
            Order::Accept(key) => match &self.also {
                Some(Also { key: also, .. }) => {
                    Err(RotationError::Another { sends: self.send.id(), also: also.id() })
                }
                None => {
                    self.also = Some(Also { age: Age::Next, key: key.clone() });
                    Ok(true)
                }
            },
            Order::Send(id) if self.send.id() == *id => Ok(false),
            Order::Send(id) => match self.also.take_if(|also| also.key.id() == *id) {
                Some(Also { key, .. }) => {
                    let key = std::mem::replace(&mut self.send, key);
                    self.also = Some(Also { age: Age::Last, key });
                    Ok(true)
                }
                None => Err(RotationError::Unknown(*id)),
            },
            Order::Settle(id) if self.send.id() != *id => Err(RotationError::NotSent(*id)),
            Order::Settle(_) => Ok(self.also.take().is_some()),
            Order::Abandon(id) if self.send.id() == *id => Err(RotationError::Sent(*id)),
            Order::Abandon(id) => {
                let given_up = |also: &mut Also| also.age == Age::Next && also.key.id() == *id;
                Ok(self.also.take_if(given_up).is_some())
            }
        }
    }
}

/// How far a member is on the way to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// It does not have the key.
    Without,
    /// It accepts it.
    Accepts,
    /// It sends it, and accepts the old one.
    Sends,
    /// It has no other.
    Settled,
}

impl Step {
    /// Of a member in this state, on the way to `new`.
    #[must_use]
    pub fn of(state: KeyState, new: KeyId) -> Self {
        match state {
            KeyState { sends, also: None } if sends == new => Self::Settled,
            KeyState { sends, .. } if sends == new => Self::Sends,
            KeyState { also, .. } if also == Some(new) => Self::Accepts,
            KeyState { .. } => Self::Without,
        }
    }
}

/// A change of the group key, as whoever conducts it sees it: what each member has confirmed.
#[derive(Debug, Clone)]
pub struct Rotation {
    new: GroupKey,
    steps: BTreeMap<NodeId, Step>,
}

/// What is to be done next.
#[derive(Debug, Clone)]
#[must_use]
pub enum Next {
    /// Give this order to these members, and to oneself, in any sequence; note what each confirms.
    Give(Order, Vec<NodeId>),
    /// All have the new key alone.
    Done,
}

impl Rotation {
    /// A change to `new` by all `members`, oneself among them, none of which has confirmed anything.
    #[must_use]
    pub fn new(new: GroupKey, members: impl IntoIterator<Item = NodeId>) -> Self {
        let steps = members.into_iter().map(|member| (member, Step::Without)).collect();
        Self { new, steps }
    }

    /// The key it leads to.
    #[must_use]
    pub fn key(&self) -> KeyId {
        self.new.id()
    }

    /// A member has said, in a session or in answer to an order, which keys it has. Nothing but its own
    /// word counts.
    ///
    /// In [`Step::Settled`] on the old key a member is in [`Step::Without`] on the way to the new one.
    pub fn confirmed(&mut self, member: NodeId, state: KeyState) {
        if let Some(step) = self.steps.get_mut(&member) {
            *step = Step::of(state, self.new.id());
        }
    }

    /// How far a member is.
    #[must_use]
    pub fn step(&self, member: NodeId) -> Option<Step> {
        self.steps.get(&member).copied()
    }

    /// The next step of the member, or members, that are furthest behind. Nobody is told to take a step before
    /// all have confirmed the one before.
    pub fn next(&self) -> Next {
        let behind = self.steps.values().min().copied().unwrap_or(Step::Settled);
        let order = match behind {
            Step::Without => Order::Accept(self.new.clone()),
            Step::Accepts => Order::Send(self.new.id()),
            Step::Sends => Order::Settle(self.new.id()),
            Step::Settled => return Next::Done,
        };
        let who = self.steps.iter().filter(|(_, step)| **step == behind).map(|(id, _)| *id);
        Next::Give(order, who.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Secret;
    use crate::rng::Rng;

    fn key(byte: u8) -> GroupKey {
        GroupKey::new(Secret::new(&[byte; 32]))
    }

    fn ring() -> Keyring {
        Keyring::new("g".parse().unwrap(), "n".parse().unwrap(), key(1))
    }

    #[test]
    fn orders_are_taken_in_sequence_and_again_without_effect() {
        let mut ring = ring();
        let new = key(2).id();
        assert_eq!(ring.follow(&Order::Send(new)), Err(RotationError::Unknown(new)));
        assert_eq!(ring.follow(&Order::Settle(new)), Err(RotationError::NotSent(new)));
        for (order, step) in [
            (Order::Accept(key(2)), Step::Accepts),
            (Order::Send(new), Step::Sends),
            (Order::Settle(new), Step::Settled),
        ] {
            for first in [true, false] {
                assert_eq!(ring.follow(&order), Ok(first));
                assert_eq!(Step::of(ring.state(), new), step);
            }
        }
        assert_eq!(Step::of(ring.state(), key(1).id()), Step::Without);
    }

    #[test]
    fn two_changes_at_a_time_are_one_too_many() {
        let mut ring = ring();
        ring.follow(&Order::Accept(key(2))).unwrap();
        let another = RotationError::Another { sends: key(1).id(), also: key(2).id() };
        assert_eq!(ring.follow(&Order::Accept(key(3))), Err(another));
        assert_eq!(ring.follow(&Order::Abandon(key(3).id())), Ok(false));
        assert_eq!(ring.follow(&Order::Abandon(key(2).id())), Ok(true));
        assert_eq!(ring.follow(&Order::Accept(key(3))), Ok(true));
        ring.follow(&Order::Send(key(3).id())).unwrap();
        let sent = RotationError::Sent(key(3).id());
        assert_eq!(ring.follow(&Order::Abandon(key(3).id())), Err(sent));
    }

    /// Members that lose orders and answers, forget what was not stored, and a conductor that is replaced by
    /// another at any time: each can open a connection to each, always, and in the end all have the new key.
    #[test]
    fn nobody_is_locked_out_at_any_moment() {
        let (mut orders, mut lost, mut replaced) = (0, 0, 0);
        for seed in 0..3000 {
            let mut rng = Rng::new(seed);
            let members = 2 + rng.below(7);
            let id = |at: usize| NodeId([u8::try_from(at).unwrap(); 16]);
            let mut rings = vec![ring(); members];
            // Whoever conducts it first asks all; not all answer.
            let begin = |rings: &[Keyring], rng: &mut Rng| {
                let mut rotation = Rotation::new(key(2), (0..members).map(id));
                for (at, ring) in rings.iter().enumerate().filter(|_| !rng.percent(30)) {
                    rotation.confirmed(id(at), ring.state());
                }
                rotation
            };
            let mut rotation = begin(&rings, &mut rng);
            let mut rounds = 0;
            loop {
                rounds += 1;
                assert!(rounds < 5000, "seed {seed}: it does not come to an end");
                let faults = if rounds < 1000 { 30 } else { 0 };
                let Next::Give(order, who) = rotation.next() else { break };
                let at = usize::from(who[rng.below(who.len())].0[0]);
                orders += 1;
                if rng.percent(faults) {
                    lost += 1;
                    continue;
                }
                rings[at].follow(&order).unwrap();
                if rng.percent(faults) {
                    lost += 1;
                } else {
                    rotation.confirmed(id(at), rings[at].state());
                }
                if rng.percent(faults / 3) {
                    // Another member goes on, if it sees that there is something to go on with.
                    if let Some(Also { age, key: also }) = &rings[rng.below(members)].also {
                        assert!(*age == Age::Last || also.id() == key(2).id());
                        rotation = begin(&rings, &mut rng);
                        replaced += 1;
                    }
                }
                for one in &rings {
                    for other in &rings {
                        assert!(
                            other.state().accepts(one.send.id()),
                            "seed {seed}, round {rounds}"
                        );
                    }
                }
            }
            let done = KeyState { sends: key(2).id(), also: None };
            assert!(rings.iter().all(|ring| ring.state() == done), "seed {seed}");
        }
        assert!(orders > 30_000 && lost > 10_000 && replaced > 1000, "{orders} {lost} {replaced}");
    }
}
