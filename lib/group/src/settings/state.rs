// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the members have agreed on: a value that each makes of the log alone, the same everywhere.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::change::{
    Change, ChangeError, Expect, MAX_BODY, MAX_BYTES, MAX_KEY, MAX_KEYS, MAX_NAME, MAX_ORDER,
    MAX_ORDER_LIFE, MAX_ORDERS, MAX_RESULT, MAX_SUBJECT, MAX_VALUE, MAX_VOTERS, Order, OrderDone,
    OrderId, OrderResult, Origin, Outcome, Proposal, ProposalId, Refused, Remove, Set,
};
use super::types::{MemberId, Position, Reign, Version};

/// Most overrides that are remembered, each an operator's decision.
pub const MAX_AUDIT: usize = 16;

/// Most proposals by whose names repetitions are known: more than are made while somebody waits for an answer.
pub const MAX_RECENT: usize = 4096;

/// Who may do what. It is asked by the leader before a change is proposed, and by all when it is applied: it must
/// decide from its arguments alone, and the same in adjacent versions.
pub trait Policy: Send + Sync + 'static {
    /// Judges a change.
    ///
    /// # Errors
    /// The reason why it may not be.
    fn judge(&self, who: &Origin, change: &Change, state: &State) -> Result<(), String>;

    /// Whether this member may ever lead, be voted for, or override the majority. A blade whose root is a stranger
    /// may not. Each member asks it of its own roster.
    fn may_lead(&self, _node: MemberId) -> bool {
        true
    }
}

/// A key's value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Item {
    /// It.
    pub value: Vec<u8>,
    /// Since when.
    pub version: Version,
    /// By whom.
    pub who: Origin,
    /// When, in milliseconds of the group's time.
    pub at: u64,
}

/// An order that was given.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Ordered {
    /// It.
    pub order: Order,
    /// By whom.
    pub who: Origin,
    /// Where it stands in the log.
    pub position: Position,
    /// What came of it.
    pub result: Option<OrderResult>,
}

/// That somebody went on without a majority.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Audit {
    /// The reign that began.
    pub reign: Reign,
    /// Who.
    pub who: Origin,
    /// When, in milliseconds of the group's time.
    pub at: u64,
    /// Why, in the operator's words.
    pub why: String,
    /// The last entry that was taken over from the reign before.
    pub base: Position,
    /// Entries taken over though it was not known whether a majority had them.
    pub unconfirmed: u64,
    /// Who votes from now on.
    pub voters: Vec<MemberId>,
    /// Who voted before and no longer does.
    pub left_out: Vec<MemberId>,
}

/// What the members have agreed on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct State {
    keys: BTreeMap<String, Item>,
    bytes: usize,
    orders: BTreeMap<OrderId, Ordered>,
    roster: Option<BTreeSet<MemberId>>,
    voters: BTreeSet<MemberId>,
    audits: Vec<Audit>,
    clock: u64,
    recent: VecDeque<(ProposalId, Position)>,
}

impl State {
    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = (&String, &Item)> {
        self.keys.iter()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Item> {
        self.keys.get(key)
    }

    /// The orders that are remembered.
    pub fn orders(&self) -> impl Iterator<Item = &Ordered> {
        self.orders.values()
    }

    /// One of them.
    #[must_use]
    pub fn order(&self, id: OrderId) -> Option<&Ordered> {
        self.orders.get(&id)
    }

    /// Who is to vote; the engine follows.
    #[must_use]
    pub fn roster(&self) -> &BTreeSet<MemberId> {
        self.roster.as_ref().unwrap_or(&self.voters)
    }

    /// The overrides, the newest last.
    #[must_use]
    pub fn audits(&self) -> &[Audit] {
        &self.audits
    }

    /// The group's time as the log knows it, in milliseconds; it never goes back.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// The engine has other voters from now on.
    pub(super) fn set_voters(&mut self, voters: BTreeSet<MemberId>) {
        self.voters = voters;
    }

    /// Somebody goes on without a majority.
    pub(super) fn begin_reign(&mut self, audit: Audit) {
        self.clock = self.clock.max(audit.at);
        self.voters = audit.voters.iter().copied().collect();
        self.roster = None;
        if self.audits.len() == MAX_AUDIT {
            self.audits.remove(0);
        }
        self.audits.push(audit);
    }

    /// Whether a change could be made now.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(
        &self,
        who: &Origin,
        at: u64,
        change: &Change,
        policy: &dyn Policy,
    ) -> Result<(), Refused> {
        if who.user.len() > MAX_NAME || who.role.len() > MAX_NAME {
            return Err(length("user's name", MAX_NAME));
        }
        policy
            .judge(who, change, self)
            .map_err(|why| Refused::Policy(why.chars().take(MAX_NAME / 4).collect()))?;
        match change {
            Change::Set(Set { key, value, expect }) => self.judge_set(key, value, *expect),
            Change::Remove(Remove { key, expect }) => self.judge_expected(key, *expect),
            Change::Order(order) => self.judge_order(order, at.max(self.clock)),
            Change::OrderDone(OrderDone { id, result }) => {
                let order = self.orders.get(id).ok_or(Refused::NoSuchOrder)?;
                let len = match result {
                    OrderResult::Done(bytes) => bytes.len(),
                    OrderResult::Failed(why) => why.len(),
                    OrderResult::NotBegun(_) => 0,
                };
                match () {
                    () if order.order.to != who.node => Err(Refused::NotYours),
                    () if len > MAX_RESULT => Err(length("result", MAX_RESULT)),
                    () => Ok(()),
                }
            }
            Change::Admit(_) if self.roster().len() >= MAX_VOTERS => {
                Err(full("voters", MAX_VOTERS))
            }
            Change::Admit(_) => Ok(()),
            Change::Dismiss(node) if self.roster().iter().eq([node]) => Err(Refused::LastVoter),
            Change::Dismiss(_) => Ok(()),
        }
    }

    /// [`Self::judge`], for a proposal that may be one made before.
    ///
    /// # Errors
    /// Why it cannot be made.
    pub fn judge_new(
        &self,
        id: ProposalId,
        who: &Origin,
        at: u64,
        change: &Change,
        policy: &dyn Policy,
    ) -> Result<(), Refused> {
        if self.made(id).is_some() { Ok(()) } else { self.judge(who, at, change, policy) }
    }

    fn made(&self, id: ProposalId) -> Option<Position> {
        self.recent.iter().find(|(recent, _)| *recent == id).map(|(_, at)| *at)
    }

    fn judge_expected(&self, key: &str, expect: Expect) -> Result<(), Refused> {
        let found = self.keys.get(key).map(|item| item.version);
        match expect {
            Expect::Any => Ok(()),
            Expect::Absent if found.is_none() => Ok(()),
            Expect::Is(version) if found == Some(version) => Ok(()),
            _ => Err(Refused::Unexpected { found }),
        }
    }

    fn judge_set(&self, key: &str, value: &[u8], expect: Expect) -> Result<(), Refused> {
        if key.is_empty() || key.len() > MAX_KEY {
            return Err(length("key", MAX_KEY));
        }
        if value.len() > MAX_VALUE {
            return Err(length("value", MAX_VALUE));
        }
        self.judge_expected(key, expect)?;
        let before = self.keys.get(key);
        if before.is_none() && self.keys.len() >= MAX_KEYS {
            return Err(full("keys", MAX_KEYS));
        }
        let freed = before.map_or(0, |item| key.len() + item.value.len());
        if self.bytes - freed + key.len() + value.len() > MAX_BYTES {
            return Err(full("bytes", MAX_BYTES));
        }
        Ok(())
    }

    fn judge_order(&self, order: &Order, now: u64) -> Result<(), Refused> {
        if let Some(known) = self.orders.get(&order.id) {
            return if known.order == *order { Ok(()) } else { Err(Refused::IdTaken) };
        }
        if order.what.len() > MAX_ORDER {
            return Err(length("order", MAX_ORDER));
        }
        if order.subject.is_empty() || order.subject.len() > MAX_SUBJECT {
            return Err(length("subject", MAX_SUBJECT));
        }
        if order.deadline <= now {
            return Err(Refused::Expired);
        }
        if order.deadline - now > MAX_ORDER_LIFE {
            return Err(Refused::TooFar);
        }
        if self.orders.len() >= MAX_ORDERS && self.forgettable(now).is_none() {
            return Err(full("orders of the last hour", MAX_ORDERS));
        }
        Ok(())
    }

    /// The order that is to be forgotten first: one whose id is refused from now on, as its deadline has passed.
    fn forgettable(&self, now: u64) -> Option<OrderId> {
        let past = self.orders.values().filter(|known| known.order.deadline <= now);
        let first = past.min_by_key(|known| (known.result.is_none(), known.order.deadline));
        first.map(|known| known.order.id)
    }

    /// Makes a change, or says why not.
    ///
    /// # Errors
    /// The change is of a later version of this program: nothing may be applied from here on.
    pub fn apply(
        &mut self,
        proposal: &Proposal,
        at: Position,
        policy: &dyn Policy,
    ) -> Result<Result<Outcome, Refused>, ChangeError> {
        let Proposal { id, who, at: time, kind, body } = proposal;
        let change = match Change::decode(*kind, body) {
            Ok(change) if body.len() <= MAX_BODY => change,
            Ok(_) | Err(ChangeError::Malformed(_)) => return Ok(Err(Refused::Malformed)),
            Err(unknown) => return Err(unknown),
        };
        if let Some(made) = self.made(*id) {
            return Ok(Ok(Outcome::Changed(made)));
        }
        if let Err(refused) = self.judge(who, *time, &change, policy) {
            return Ok(Err(refused));
        }
        self.clock = self.clock.max(*time);
        let outcome = self.make(change, who, at);
        // Orders have names of their own, and more to say.
        if matches!(outcome, Outcome::Changed(_)) {
            self.recent.truncate(MAX_RECENT - 1);
            self.recent.push_front((*id, at));
        }
        Ok(Ok(outcome))
    }

    fn make(&mut self, change: Change, who: &Origin, at: Position) -> Outcome {
        match change {
            Change::Set(Set { key, value, .. }) => {
                self.drop_key(&key);
                self.bytes += key.len() + value.len();
                let item = Item { value, version: at, who: who.clone(), at: self.clock };
                self.keys.insert(key, item);
            }
            Change::Remove(Remove { key, .. }) => self.drop_key(&key),
            Change::Order(order) => return self.give(order, who, at),
            Change::OrderDone(OrderDone { id, result }) => {
                let known = self.orders.get_mut(&id).expect("it was judged");
                // The first word counts: nobody may be told two things of one order.
                let result = known.result.get_or_insert(result);
                return Outcome::Ordered(known.position, Some(result.clone()));
            }
            Change::Admit(node) => {
                self.roster.get_or_insert_with(|| self.voters.clone()).insert(node);
            }
            Change::Dismiss(node) => {
                self.roster.get_or_insert_with(|| self.voters.clone()).remove(&node);
            }
        }
        Outcome::Changed(at)
    }

    fn give(&mut self, order: Order, who: &Origin, position: Position) -> Outcome {
        if let Some(known) = self.orders.get(&order.id) {
            return Outcome::Ordered(known.position, known.result.clone());
        }
        if self.orders.len() >= MAX_ORDERS
            && let Some(oldest) = self.forgettable(self.clock)
        {
            self.orders.remove(&oldest);
        }
        let ordered = Ordered { order, who: who.clone(), position, result: None };
        self.orders.insert(ordered.order.id, ordered);
        Outcome::Ordered(position, None)
    }

    fn drop_key(&mut self, key: &str) {
        if let Some(item) = self.keys.remove(key) {
            self.bytes -= key.len() + item.value.len();
        }
    }
}

fn length(what: &str, most: usize) -> Refused {
    Refused::Length { what: what.to_owned(), most: most as u64 }
}

fn full(what: &str, most: usize) -> Refused {
    Refused::Full { what: what.to_owned(), most: most as u64 }
}
