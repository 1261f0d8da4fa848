// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sealed datagrams of a session, for heartbeats: each opens once at most, in any order within a window.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | the session's version |
//! | 3 | `MPD` |
//! | 8 | [`DatagramId`]: by which the receiver finds the session |
//! | 8 | counter, from 0 |
//! | rest | sealed content, with its tag; the bytes before are authenticated with it |
//!
//! Numbers are big-endian. The key changes with every 65,536th counter and does not lead back.

#[cfg(test)]
mod tests;

use std::fmt;

use crate::crypto::{Secret, TAG_LEN};

/// Most bytes of a datagram: what IPv6 carries everywhere unfragmented (RFC 8200, section 5) without
/// headers of IPv6 and UDP.
pub const MAX_DATAGRAM: usize = 1280 - 40 - 8;
/// Bytes before the content.
const HEADER_LEN: usize = 20;
/// Most bytes of content.
pub const MAX_DATAGRAM_CONTENT: usize = MAX_DATAGRAM - HEADER_LEN - TAG_LEN;
/// How far behind the newest a datagram may come: at 64 a second over two networks with a second
/// between them, with room to spare.
pub const WINDOW: u64 = 1024;

const MARK: [u8; 3] = *b"MPD";
const GENERATION_BITS: u32 = 16;
const WORDS: usize = (WINDOW / 64) as usize;

/// Names one direction of one session, on the wire. Follows from the handshake; tells nothing of who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatagramId(pub [u8; 8]);

impl DatagramId {
    /// Whose a datagram claims to be; none if it is none of ours. The claim is proved by opening it.
    #[must_use]
    pub fn of(datagram: &[u8]) -> Option<Self> {
        let fits = (HEADER_LEN + TAG_LEN..=MAX_DATAGRAM).contains(&datagram.len());
        (fits && datagram[1..4] == MARK).then(|| Self(std::array::from_fn(|i| datagram[4 + i])))
    }
}

/// Why a datagram is not accepted. It is dropped, and nothing else is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// It is none of ours, too long or too short.
    #[error("it is no datagram of this protocol")]
    Malformed,
    /// It is another session's.
    #[error("it belongs to another session")]
    OtherSession,
    /// It is not what the other end sent.
    #[error("it is forged")]
    Forged,
    /// It was here before.
    #[error("it is repeated")]
    Repeated,
    /// It is further behind the newest than [`WINDOW`], or ahead of it by more than a key.
    #[error("it is too old, or too far ahead")]
    OutOfWindow,
}

/// Seals what this end sends.
pub struct DatagramSealer {
    version: u8,
    id: DatagramId,
    key: Secret,
    next: u64,
}

impl DatagramSealer {
    pub(crate) fn new(version: u8, key: Secret) -> Self {
        Self { version, id: id(&key), key: first(&key), next: 0 }
    }

    /// What the receiver finds the session by.
    #[must_use]
    pub fn id(&self) -> DatagramId {
        self.id
    }

    /// A datagram with this content.
    ///
    /// # Panics
    /// `content` has more than [`MAX_DATAGRAM_CONTENT`] bytes.
    pub fn seal(&mut self, content: &[u8]) -> Vec<u8> {
        assert!(content.len() <= MAX_DATAGRAM_CONTENT, "callers keep to MAX_DATAGRAM_CONTENT");
        let counter = self.next;
        self.next = counter.checked_add(1).expect("no session lives for 2^64 datagrams");
        if counter > 0 && generation(counter) != generation(counter - 1) {
            self.key = next(&self.key);
        }
        let mut out = Vec::with_capacity(HEADER_LEN + content.len() + TAG_LEN);
        out.push(self.version);
        out.extend(MARK);
        out.extend(self.id.0);
        out.extend(counter.to_be_bytes());
        out.extend(content);
        let (header, text) = out.split_at_mut(HEADER_LEN);
        let tag = self.key.seal(counter, header, text);
        out.extend(tag);
        out
    }
}

/// Opens what the other end sent.
pub struct DatagramOpener {
    version: u8,
    id: DatagramId,
    /// Of the generation of `newest`, and of the one before while datagrams of that may still come.
    key: Secret,
    previous: Option<Secret>,
    /// One above the highest counter that was opened.
    top: u64,
    /// A bit for each of the last [`WINDOW`] counters, at the place of its remainder.
    seen: [u64; WORDS],
}

impl DatagramOpener {
    pub(crate) fn new(version: u8, key: Secret) -> Self {
        let (id, key) = (id(&key), first(&key));
        Self { version, id, key, previous: None, top: 0, seen: [0; WORDS] }
    }

    /// What the sender's datagrams are found by.
    #[must_use]
    pub fn id(&self) -> DatagramId {
        self.id
    }

    /// Opens a datagram in place and returns its content.
    ///
    /// # Errors
    /// See [`DatagramError`].
    pub fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<&'a mut [u8], DatagramError> {
        let claimed = DatagramId::of(datagram).ok_or(DatagramError::Malformed)?;
        if claimed != self.id || datagram[0] != self.version {
            return Err(DatagramError::OtherSession);
        }
        let (header, sealed) = datagram.split_at_mut(HEADER_LEN);
        let counter = u64::from_be_bytes(std::array::from_fn(|i| header[12 + i]));
        // Before the costly part; nothing is learned from a counter that is not proved.
        self.check(counter)?;

        let now = generation(self.top.saturating_sub(1));
        let of = generation(counter);
        let ahead = (of == now + 1).then(|| next(&self.key));
        let key = match &ahead {
            Some(key) => key,
            None if of == now => &self.key,
            None if of + 1 == now => self.previous.as_ref().ok_or(DatagramError::OutOfWindow)?,
            None => return Err(DatagramError::OutOfWindow),
        };
        let content = key.open(counter, header, sealed).map_err(|_| DatagramError::Forged)?;
        if let Some(key) = ahead {
            self.previous = Some(std::mem::replace(&mut self.key, key));
        }
        self.mark(counter);
        if self.top & ((1 << GENERATION_BITS) - 1) > WINDOW {
            self.previous = None;
        }
        Ok(content)
    }

    fn check(&self, counter: u64) -> Result<(), DatagramError> {
        if counter == u64::MAX || counter.saturating_add(WINDOW) < self.top {
            return Err(DatagramError::OutOfWindow);
        }
        let (word, bit) = place(counter);
        if counter < self.top && self.seen[word] & bit != 0 {
            return Err(DatagramError::Repeated);
        }
        Ok(())
    }

    fn mark(&mut self, counter: u64) {
        if counter >= self.top {
            // The places of the counters between, and of this one, held older ones.
            for passed in self.top.max(counter.saturating_sub(WINDOW - 1))..=counter {
                let (word, bit) = place(passed);
                self.seen[word] &= !bit;
            }
            self.top = counter + 1;
        }
        let (word, bit) = place(counter);
        self.seen[word] |= bit;
    }
}

fn id(key: &Secret) -> DatagramId {
    let id = key.derive("datagram id", b"");
    DatagramId(std::array::from_fn(|i| id.expose()[i]))
}

fn first(key: &Secret) -> Secret {
    key.derive("datagram key", b"")
}

fn next(key: &Secret) -> Secret {
    key.derive("next key", b"")
}

fn generation(counter: u64) -> u64 {
    counter >> GENERATION_BITS
}

fn place(counter: u64) -> (usize, u64) {
    let at = counter % WINDOW;
    (usize::try_from(at / 64).expect("below WORDS"), 1 << (at % 64))
}

impl fmt::Debug for DatagramSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("DatagramSealer");
        shown.field("id", &self.id).field("next", &self.next).finish_non_exhaustive()
    }
}

impl fmt::Debug for DatagramOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("DatagramOpener");
        shown.field("id", &self.id).field("top", &self.top).finish_non_exhaustive()
    }
}
