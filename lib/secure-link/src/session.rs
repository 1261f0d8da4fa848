// SPDX-License-Identifier: MIT OR Apache-2.0
//! What two members have once they know each other: a stream each way, datagrams each way, and secrets
//! for other uses, all from one handshake and gone with it.
//!
//! A frame of a stream is its length in two bytes and the sealed rest: one byte of [`Piece`], then
//! the content. Frames are numbered by their place, so one that is repeated, left out or moved does not
//! open. A stream's end is sealed too: one that ends without it was cut.

#[cfg(test)]
mod tests;

use std::fmt;

use crate::crypto::{Secret, TAG_LEN};
use crate::datagram::{DatagramOpener, DatagramSealer};
use crate::hello::Hello;
use crate::keys::{KeyId, NodeId, PublicKey};
use crate::name::Name;
use crate::opening::LENGTH;

/// Most bytes of a frame's content.
pub const MAX_CONTENT: usize = u16::MAX as usize - TAG_LEN - 1;
/// Frames under one key; then both ends go on with one derived from it, which does not lead back. So what
/// is in memory tells nothing of more than the last 65,536 frames, at most 4 GiB.
const REKEY_EVERY: u64 = 1 << 16;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// A message's last or only part.
    Last = 0,
    /// A part that others of the same message follow.
    Part = 1,
    /// The end of the stream; without content.
    End = 2,
    /// The responder's part of the handshake.
    Confirm = 3,
}

/// Why a frame of a stream is not accepted. The stream is over then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is not the frame that the other end sent in this place: changed, repeated, left out, or sent by
    /// somebody else.
    #[error("a frame is forged or out of its place")]
    Forged,
    /// It is of no known kind.
    #[error("a frame is of an unknown kind")]
    Unknown,
    /// One before was not accepted, or was the end.
    #[error("the stream is over")]
    Over,
}

/// One direction's key and place.
struct Direction {
    key: Secret,
    next: u64,
}

impl Direction {
    /// The nonce of the next frame, under a key that is new where it is due.
    fn step(&mut self) -> u64 {
        let nonce = self.next;
        if nonce > 0 && nonce.is_multiple_of(REKEY_EVERY) {
            self.key = self.key.derive("next key", b"");
        }
        // At a million frames a second it would take half a million years.
        self.next = nonce.checked_add(1).expect("no stream has 2^64 frames");
        nonce
    }
}

/// Seals the frames that this end sends.
pub struct Sealer(Direction);

impl Sealer {
    /// Appends a frame, its length first, to `out`.
    ///
    /// # Panics
    /// `content` has more than [`MAX_CONTENT`] bytes.
    pub fn seal(&mut self, piece: Piece, content: &[u8], out: &mut Vec<u8>) {
        let len = u16::try_from(content.len() + 1 + TAG_LEN);
        let len = len.expect("callers cut messages into parts of MAX_CONTENT bytes");
        out.reserve(LENGTH + usize::from(len));
        out.extend(len.to_be_bytes());
        let start = out.len();
        out.push(piece as u8);
        out.extend(content);
        let nonce = self.0.step();
        let tag = self.0.key.seal(nonce, &[], &mut out[start..]);
        out.extend(tag);
    }

    /// Appends a message of any length as one or more frames.
    pub fn seal_message(&mut self, message: &[u8], out: &mut Vec<u8>) {
        let mut rest = message;
        while let Some((part, more)) =
            rest.split_at_checked(MAX_CONTENT).filter(|(_, m)| !m.is_empty())
        {
            self.seal(Piece::Part, part, out);
            rest = more;
        }
        self.seal(Piece::Last, rest, out);
    }
}

/// Opens the frames that the other end sent.
pub struct Opener {
    direction: Direction,
    over: bool,
}

impl Opener {
    /// Opens a frame, without its length, in place. After an error, and after [`Piece::End`], there is
    /// no more to open.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open<'a>(&mut self, frame: &'a mut [u8]) -> Result<(Piece, &'a mut [u8]), OpenError> {
        if self.over {
            return Err(OpenError::Over);
        }
        let opened = self.try_open(frame);
        self.over = !matches!(opened, Ok((Piece::Last | Piece::Part | Piece::Confirm, _)));
        opened
    }

    fn try_open<'a>(&mut self, frame: &'a mut [u8]) -> Result<(Piece, &'a mut [u8]), OpenError> {
        let nonce = self.direction.step();
        let opened = self.direction.key.open(nonce, &[], frame).map_err(|_| OpenError::Forged)?;
        let (piece, content) = opened.split_first_mut().ok_or(OpenError::Unknown)?;
        let piece = match *piece {
            0 => Piece::Last,
            1 => Piece::Part,
            2 => Piece::End,
            3 => Piece::Confirm,
            _ => return Err(OpenError::Unknown),
        };
        Ok((piece, content))
    }

    /// Whether the other end has ended its stream, or something was wrong in it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("next", &self.0.next).finish_non_exhaustive()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { direction, over } = self;
        let mut shown = f.debug_struct("Opener");
        shown.field("next", &direction.next).field("over", over).finish_non_exhaustive()
    }
}

/// The other end of a session, proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its node key.
    pub key: PublicKey,
    /// As what it takes part: the role in the opening.
    pub role: Name,
    /// What it says of itself. Its name is pinned to its key, or nobody else's.
    pub hello: Hello,
    /// Its key was not pinned yet: the group key admitted it. The caller pins it, in
    /// [`crate::roster::Roster::pin`], or ends the session.
    pub is_new: bool,
    /// The group key that admitted it. When the keyring does not accept it any more, the session is to be
    /// ended.
    pub admitted_by: KeyId,
    /// The version spoken.
    pub version: u8,
}

impl Peer {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.key.id()
    }
}

/// Two members know each other.
#[derive(Debug)]
pub struct Session {
    /// The other one.
    pub peer: Peer,
    /// Whether this end connected.
    pub initiator: bool,
    /// For the stream from here.
    pub sealer: Sealer,
    /// For the stream to here.
    pub opener: Opener,
    /// For datagrams from here.
    pub datagram_sealer: DatagramSealer,
    /// For datagrams to here.
    pub datagram_opener: DatagramOpener,
    exporter: Secret,
}

impl Session {
    /// A secret of this session for another use, the same at both ends: `label` names the use, `context`
    /// what it is for. Each use and direction needs its own.
    #[must_use]
    pub fn export(&self, label: &str, context: &[u8]) -> Secret {
        self.exporter.derive(label, context)
    }
}

/// All that follows from a handshake, before the other end is known to have the group key.
pub(crate) struct Keys {
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    datagram_sealer: DatagramSealer,
    datagram_opener: DatagramOpener,
    exporter: Secret,
}

impl Keys {
    /// From the keys at the end of a handshake, the initiator's first, and the handshake's hash.
    pub(crate) fn new(initiator: bool, version: u8, split: &(Secret, Secret, [u8; 32])) -> Self {
        let (one, two, hash) = split;
        let root = Secret::extract(hash, [one, two]);
        let of = |label| {
            let (theirs, ours) =
                (root.derive(label, b"responder"), root.derive(label, b"initiator"));
            if initiator { (ours, theirs) } else { (theirs, ours) }
        };
        let direction = |key| Direction { key, next: 0 };
        let (send, receive) = of("stream");
        let (datagrams_out, datagrams_in) = of("datagrams");
        Self {
            sealer: Sealer(direction(send)),
            opener: Opener { direction: direction(receive), over: false },
            datagram_sealer: DatagramSealer::new(version, datagrams_out),
            datagram_opener: DatagramOpener::new(version, datagrams_in),
            exporter: root.derive("exporter", b""),
        }
    }

    pub(crate) fn session(self, initiator: bool, peer: Peer) -> Session {
        let Self { sealer, opener, datagram_sealer, datagram_opener, exporter } = self;
        Session { peer, initiator, sealer, opener, datagram_sealer, datagram_opener, exporter }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}
