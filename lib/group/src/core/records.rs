// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lists of records: one's own, and copies of the others'. Each list has one writer, its owner, and a copy is
//! never merged with another: it follows its owner's list, version by version.

use std::collections::BTreeMap;

use crate::wire::{Class, GroupTime, Key, Life, MAX_PUSH, MAX_VALUE, Push, Record, Value};

/// Most records of one member: every device on every machine of a large group has found room in less.
pub const MAX_RECORDS: usize = 20_000;
/// Most bytes of one member's keys and values together.
pub const MAX_BYTES: usize = 32 << 20;
/// Removals that are remembered for those who were away. Who has missed more gets the list anew.
pub const MAX_REMOVED: usize = 4096;

/// A change by the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It says this now.
    Set(Key, Class, Value),
    /// It says nothing any more.
    Remove(Key),
}

/// The list would be too large; it stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooMuch {
    /// Of records.
    #[error("a member has at most {MAX_RECORDS} records")]
    Records,
    /// Of bytes in all.
    #[error("a member's records have at most {MAX_BYTES} bytes together")]
    Bytes,
    /// Of one value.
    #[error("the value of {0} has more than {MAX_VALUE} bytes")]
    Value(Key),
}

/// Records by key.
#[derive(Debug, Clone, Default)]
struct List {
    records: BTreeMap<Key, Record>,
    hash: u64,
    bytes: usize,
}

impl List {
    fn put(&mut self, record: Record) -> Option<Record> {
        let old = self.take(&record.key);
        self.hash ^= record.hash();
        self.bytes += size(&record);
        self.records.insert(record.key.clone(), record);
        old
    }

    fn take(&mut self, key: &Key) -> Option<Record> {
        let old = self.records.remove(key)?;
        self.hash ^= old.hash();
        self.bytes -= size(&old);
        Some(old)
    }
}

fn size(record: &Record) -> usize {
    record.key.as_str().len() + record.value.len()
}

/// One's own list.
#[derive(Debug, Clone, Default)]
pub struct Own {
    list: List,
    version: u64,
    /// What was set in each version.
    set: BTreeMap<u64, Key>,
    /// What was removed in each version.
    removed: BTreeMap<u64, Key>,
    /// Removals up to this version are forgotten.
    forgotten: u64,
}

impl Own {
    /// All of it.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.list.records.values()
    }

    /// The version of the last change; 0 before the first.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The exclusive or of [`Record::hash`] over all.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.list.hash
    }

    /// Makes all of these changes, or none. What is already so is no change.
    ///
    /// # Errors
    /// [`TooMuch`].
    pub fn change(&mut self, changes: Vec<Change>, at: GroupTime) -> Result<(), TooMuch> {
        self.fits(&changes)?;
        for change in changes {
            match change {
                Change::Set(key, class, value) => self.set(key, class, value, at),
                Change::Remove(key) => self.remove(key),
            }
        }
        while self.removed.len() > MAX_REMOVED {
            let oldest = self.removed.pop_first();
            self.forgotten = oldest.map_or(self.forgotten, |(version, _)| version);
        }
        Ok(())
    }

    fn fits(&self, changes: &[Change]) -> Result<(), TooMuch> {
        let (mut records, mut bytes) = (self.list.records.len(), self.list.bytes);
        // Too high if a key is changed twice, which callers have no reason to do.
        for change in changes {
            match change {
                Change::Set(key, _, value) if value.len() > MAX_VALUE => {
                    return Err(TooMuch::Value(key.clone()));
                }
                Change::Set(key, _, value) => {
                    let old = self.list.records.get(key);
                    records += usize::from(old.is_none());
                    bytes += key.as_str().len() + value.len();
                    bytes -= old.map_or(0, size).min(bytes);
                }
                Change::Remove(_) => {}
            }
        }
        match () {
            () if records > MAX_RECORDS => Err(TooMuch::Records),
            () if bytes > MAX_BYTES => Err(TooMuch::Bytes),
            () => Ok(()),
        }
    }

    fn set(&mut self, key: Key, class: Class, value: Value, at: GroupTime) {
        let same = |old: &Record| old.class == class && old.value == value;
        if self.list.records.get(&key).is_some_and(same) {
            return;
        }
        self.version += 1;
        self.set.insert(self.version, key.clone());
        let record = Record { key, version: self.version, class, at, value };
        if let Some(old) = self.list.put(record) {
            self.set.remove(&old.version);
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some(old) = self.list.take(&key) {
            self.version += 1;
            self.set.remove(&old.version);
            self.removed.insert(self.version, key);
        }
    }

    /// What follows on version `from`, or the whole list, as much of it as goes into one push; none if
    /// there is nothing newer.
    #[must_use]
    pub fn push(&self, life: Life, from: Option<u64>) -> Option<Push> {
        if from == Some(self.version) {
            return None;
        }
        let known = self.forgotten..=self.version;
        let from = from.filter(|from| known.contains(from)).unwrap_or(0);
        let mut push = Push { life, from, to: self.version, last: true, set: vec![], gone: vec![] };
        let mut weight = 0;
        for (version, key) in self.set.range(from + 1..) {
            let record = &self.list.records[key];
            weight += record.weight();
            if weight > MAX_PUSH && !push.set.is_empty() {
                (push.to, push.last) = (version - 1, false);
                break;
            }
            push.set.push(record.clone());
        }
        if from > 0 {
            let gone = self.removed.range(from + 1..=push.to).map(|(_, key)| key);
            // What was removed and set again is there.
            let gone = gone.filter(|key| !self.list.records.contains_key(*key));
            push.gone.extend(gone.cloned());
        }
        Some(push)
    }
}

/// A push that cannot be right: the link is to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It is of another life than the sender welcomed with.
    #[error("records of another life")]
    Life,
    /// Something is missing before it.
    #[error("records do not follow on those before")]
    Gap,
    /// The list exceeds what a member may have.
    #[error("more records than a member may have")]
    TooMuch,
}

/// A copy of another's list.
#[derive(Debug, Clone)]
pub struct Mirror {
    life: Life,
    version: u64,
    whole: bool,
    list: List,
    /// What is read until the list is whole again.
    before: Option<List>,
}

impl Mirror {
    /// Nothing yet of a life.
    #[must_use]
    pub fn new(life: Life) -> Self {
        Self { life, version: 0, whole: false, list: List::default(), before: None }
    }

    /// Nothing yet of a new life; what was said in the one before is read until the list is whole.
    #[must_use]
    pub fn renewed(self, life: Life) -> Self {
        let before = Some(self.before.unwrap_or(self.list));
        Self { before, ..Self::new(life) }
    }

    fn read(&self) -> &List {
        self.before.as_ref().unwrap_or(&self.list)
    }

    /// All of it.
    pub fn iter(&self) -> impl Iterator<Item = &Record> {
        self.read().records.values()
    }

    /// One of it.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.read().records.get(key)
    }

    /// Of which of the owner's lives it is.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life
    }

    /// The version of the owner's list that it has come to.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// As [`Own::hash`].
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.list.hash
    }

    /// What need not be sent again; none if it is not whole.
    #[must_use]
    pub fn have(&self) -> Option<(Life, u64)> {
        self.whole.then_some((self.life, self.version))
    }

    /// Follows its owner.
    ///
    /// # Errors
    /// [`Wrong`].
    pub fn follow(&mut self, push: Push) -> Result<(), Wrong> {
        if push.life != self.life {
            return Err(Wrong::Life);
        }
        if push.from == 0 {
            let old = std::mem::replace(self, Self::new(self.life));
            *self = old.renewed(push.life);
        } else if push.from != self.version {
            return Err(Wrong::Gap);
        }
        for key in &push.gone {
            self.list.take(key);
        }
        for record in push.set {
            self.list.put(record);
        }
        if self.list.records.len() > MAX_RECORDS || self.list.bytes > MAX_BYTES {
            return Err(Wrong::TooMuch);
        }
        self.version = push.to;
        if push.last {
            (self.whole, self.before) = (true, None);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIFE: Life = Life { epoch: 1, nonce: 2 };

    fn key(n: u8) -> Key {
        format!("sensor {n}").parse().unwrap()
    }

    fn same(own: &Own, mirror: &Mirror) -> bool {
        own.iter().eq(mirror.iter()) && own.hash() == mirror.hash()
    }

    fn catch_up(own: &Own, mirror: &mut Mirror, from: Option<u64>) -> usize {
        let (mut from, mut pushes) = (from, 0);
        while let Some(push) = own.push(LIFE, from) {
            from = Some(push.to);
            mirror.follow(push).unwrap();
            pushes += 1;
        }
        pushes
    }

    proptest! {
        #[test]
        fn a_mirror_that_is_told_now_and_then_becomes_the_list(
            steps in prop::collection::vec((0_u8..20, any::<u8>(), 0_u8..5), 1..300)
        ) {
            let (mut own, mut mirror) = (Own::default(), Mirror::new(LIFE));
            for (at, (number, value, what)) in steps.into_iter().enumerate() {
                let change = match what {
                    0 => Change::Remove(key(number)),
                    _ => Change::Set(key(number), Class::Dynamic, vec![value; 3].into()),
                };
                own.change(vec![change], at as i64).unwrap();
                if what == 1 {
                    let from = mirror.have().map(|have| have.1);
                    catch_up(&own, &mut mirror, from);
                    prop_assert!(same(&own, &mirror));
                }
            }
        }
    }

    #[test]
    fn a_long_list_comes_in_parts_and_is_read_when_it_is_whole() {
        let (mut own, mut mirror) = (Own::default(), Mirror::new(LIFE));
        let set = |n: u8| Change::Set(key(n), Class::Static, vec![n; 40_000].into());
        own.change(vec![set(0)], 0).unwrap();
        assert_eq!(catch_up(&own, &mut mirror, None), 1);
        own.change((1..7).map(set).collect(), 1).unwrap();
        let first = own.push(LIFE, None).unwrap();
        assert_eq!((first.from, first.to, first.last), (0, 1, false));
        mirror.follow(first).unwrap();
        assert_eq!((mirror.have(), mirror.iter().count()), (None, 1));
        assert_eq!(catch_up(&own, &mut mirror, Some(1)), 6);
        assert!(same(&own, &mirror) && mirror.have() == Some((LIFE, 7)));
    }

    #[test]
    fn who_missed_removals_that_are_forgotten_gets_the_list_anew() {
        let (mut own, mut mirror) = (Own::default(), Mirror::new(LIFE));
        own.change(vec![Change::Set(key(0), Class::Static, vec![0].into())], 0).unwrap();
        catch_up(&own, &mut mirror, None);
        own.change(vec![Change::Remove(key(0))], 0).unwrap();
        for n in 0..=MAX_REMOVED as u64 {
            let value = n.to_le_bytes().to_vec().into();
            own.change(vec![Change::Set(key(1), Class::Static, value)], 0).unwrap();
            own.change(vec![Change::Remove(key(1))], 0).unwrap();
        }
        assert_eq!(own.push(LIFE, Some(1)).unwrap().from, 0);
        catch_up(&own, &mut mirror, Some(1));
        assert!(same(&own, &mirror) && mirror.iter().count() == 0);
    }

    #[test]
    fn what_does_not_follow_is_refused() {
        let (mut own, mut mirror) = (Own::default(), Mirror::new(LIFE));
        for n in 0..3 {
            own.change(vec![Change::Set(key(n), Class::Static, vec![n].into())], 0).unwrap();
        }
        let gap = own.push(LIFE, Some(1)).unwrap();
        assert_eq!(mirror.follow(gap), Err(Wrong::Gap));
        let other = own.push(Life { nonce: 3, ..LIFE }, None).unwrap();
        assert_eq!(mirror.follow(other), Err(Wrong::Life));
        assert_eq!(mirror.have(), None);
    }

    #[test]
    fn a_change_that_is_too_much_changes_nothing() {
        let mut own = Own::default();
        let set = |n: usize, len| {
            Change::Set(format!("{n}").parse().unwrap(), Class::Static, vec![0; len].into())
        };
        let large = own.change(vec![set(0, 1), set(1, MAX_VALUE + 1)], 0);
        assert_eq!(large, Err(TooMuch::Value("1".parse().unwrap())));
        let many = own.change((0..=MAX_RECORDS).map(|n| set(n, 1)).collect(), 0);
        assert_eq!(many, Err(TooMuch::Records));
        let heavy = own.change((0..600).map(|n| set(n, MAX_VALUE)).collect(), 0);
        assert_eq!((heavy, own.version()), (Err(TooMuch::Bytes), 0));
    }
}
