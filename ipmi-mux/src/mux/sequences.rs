// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reserved sequence numbers. A handle reserves a range of message ids and passes its token on; the
//! handle that attaches with it, a virtual client, gets the answers to messages with these ids, whoever of
//! the same virtual controller sent them.

use nix::errno::Errno;

use super::HandleId;

/// Ranges at once, over all handles.
pub const MAX_RANGES: usize = 4096;
/// Sequence numbers in one range, at most.
pub const MAX_RANGE_LEN: u32 = 1024;
/// Where reserved numbers begin: they fit the `long` of a 32-bit caller, and programs that count
/// their own messages hardly get there.
const FIRST: i64 = 0x4000_0000;
const LAST: i64 = 0x7fff_ffff;

/// What a virtual client attaches with: 128 random bits.
pub type AttachToken = [u8; 16];

/// A reserved range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first message id.
    pub first: i64,
    /// How many.
    pub count: u32,
    /// What to attach with.
    pub token: AttachToken,
    /// The handle that reserved it.
    pub owner: HandleId,
    /// The handle that attached.
    pub client: Option<HandleId>,
}

impl Range {
    fn contains(&self, msgid: i64) -> bool {
        (self.first..self.first + i64::from(self.count)).contains(&msgid)
    }
}

#[derive(Debug)]
pub(super) struct Sequences {
    ranges: Vec<Range>,
    next: i64,
}

impl Default for Sequences {
    fn default() -> Self {
        Self { ranges: vec![], next: FIRST }
    }
}

impl Sequences {
    /// Reserves `count` numbers.
    pub fn reserve(
        &mut self,
        owner: HandleId,
        count: u32,
        token: AttachToken,
    ) -> Result<Range, Errno> {
        if count == 0 || count > MAX_RANGE_LEN {
            return Err(Errno::EINVAL);
        }
        if self.ranges.len() >= MAX_RANGES {
            return Err(Errno::ENOSPC);
        }
        let first = self.free(count);
        self.next = first + i64::from(count);
        let range = Range { first, count, token, owner, client: None };
        self.ranges.push(range);
        Ok(range)
    }

    /// A place for `count` numbers; all ranges together fill a small part of what there is.
    fn free(&self, count: u32) -> i64 {
        let mut first = self.next;
        loop {
            let end = first + i64::from(count);
            if end > LAST {
                first = FIRST;
                continue;
            }
            let taken = |r: &&Range| r.first < end && first < r.first + i64::from(r.count);
            match self.ranges.iter().find(taken) {
                Some(range) => first = range.first + i64::from(range.count),
                None => return first,
            }
        }
    }

    /// A handle becomes the client of a range.
    pub fn attach(&mut self, client: HandleId, token: &AttachToken) -> Result<Range, Errno> {
        // A guess is one in 2^128 whether or not the comparison tells how far it got.
        let range = self.ranges.iter_mut().find(|r| r.token == *token).ok_or(Errno::ENOENT)?;
        if range.client.is_some() || range.owner == client {
            return Err(Errno::EBUSY);
        }
        range.client = Some(client);
        Ok(*range)
    }

    /// The owner gives a range back.
    pub fn release(&mut self, owner: HandleId, first: i64) -> Result<(), Errno> {
        let before = self.ranges.len();
        self.ranges.retain(|r| r.owner != owner || r.first != first);
        if self.ranges.len() == before { Err(Errno::ENOENT) } else { Ok(()) }
    }

    /// A handle is closed: its ranges go, and those it was the client of are free for another.
    pub fn forget(&mut self, id: HandleId) {
        self.ranges.retain(|r| r.owner != id);
        for range in &mut self.ranges {
            if range.client == Some(id) {
                range.client = None;
            }
        }
    }

    /// All ranges.
    pub fn all(&self) -> impl Iterator<Item = &Range> {
        self.ranges.iter()
    }

    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Who gets the answer to a message with this id, if it is a reserved one with a client.
    pub fn route(&self, msgid: i64) -> Option<HandleId> {
        if msgid < FIRST {
            return None;
        }
        self.ranges.iter().find(|r| r.contains(msgid)).and_then(|r| r.client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_overlap_and_wrap_around() {
        let mut sequences = Sequences { next: LAST - 3, ..Sequences::default() };
        let a = sequences.reserve(HandleId(1), 2, [1; 16]).unwrap();
        let b = sequences.reserve(HandleId(1), 8, [2; 16]).unwrap();
        let c = sequences.reserve(HandleId(2), 8, [3; 16]).unwrap();
        assert_eq!((a.first, b.first, c.first), (LAST - 3, FIRST, FIRST + 8));
        sequences.next = FIRST + 3;
        let d = sequences.reserve(HandleId(2), 1, [4; 16]).unwrap();
        assert_eq!(d.first, FIRST + 16);
    }

    #[test]
    fn a_token_attaches_one_client_at_a_time() {
        let mut sequences = Sequences::default();
        let range = sequences.reserve(HandleId(1), 4, [7; 16]).unwrap();
        assert_eq!(sequences.attach(HandleId(1), &[7; 16]), Err(Errno::EBUSY));
        assert_eq!(sequences.attach(HandleId(2), &[8; 16]), Err(Errno::ENOENT));
        sequences.attach(HandleId(2), &[7; 16]).unwrap();
        assert_eq!(sequences.attach(HandleId(3), &[7; 16]), Err(Errno::EBUSY));
        assert_eq!(sequences.route(range.first + 3), Some(HandleId(2)));
        assert_eq!(sequences.route(range.first + 4), None);
        sequences.forget(HandleId(2));
        assert_eq!(sequences.route(range.first), None);
        sequences.attach(HandleId(3), &[7; 16]).unwrap();
        sequences.forget(HandleId(1));
        assert_eq!(sequences.route(range.first), None);
        assert_eq!(sequences.release(HandleId(1), range.first), Err(Errno::ENOENT));
    }

    #[test]
    fn useless_ranges_are_refused() {
        let mut sequences = Sequences::default();
        for count in [0, MAX_RANGE_LEN + 1, u32::MAX] {
            assert_eq!(sequences.reserve(HandleId(1), count, [0; 16]), Err(Errno::EINVAL));
        }
    }
}
