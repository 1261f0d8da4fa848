// SPDX-License-Identifier: MIT OR Apache-2.0
//! How two members come to know each other, as a state machine: frames go in, and out come frames to send
//! and in the end a [`Session`] or the reason why not.
//!
//! ```text
//!  initiator                                                              responder
//!     │ Opening: what it wants, in clear; tag by the group key; e  ──────────►│ tag right? group, program, role, version
//!     │◄── Answer: e, ee, s, es; versions spoken ─────────────────────────────│
//!     │ version the newest common? key revoked, own, or not the one expected? │
//!     │ Proof: s, se, psk; its Hello ────────────────────────────────────────►│ judged by the roster: knows the initiator
//!     │◄── Confirm: consent and its Hello, or why not; sealed ────────────────│
//!     │ judged by the roster: knows the responder                             │
//! ```
//!
//! Neither end has a session before it has seen the other prove both its node key and the group key in
//! this very exchange. `XX` keeps keys from bystanders; `psk3` makes the group key part of all secrets. The
//! tag is not part of Noise: without it whoever reaches the port could have the responder compute, and learn
//! its key.
//!
//! The caller sets the time limits ([`HANDSHAKE_LIMIT`]) and bounds the number at a time ([`crate::gate`]).

mod steps;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crate::crypto::Secret;
use crate::hello::Hello;
use crate::keyring::ProgramKeyring;
use crate::keys::{KeyId, NodeId, NodeKey, PublicKey};
use crate::name::Name;
use crate::noise::Noise;
use crate::opening::{Endpoints, Kind, Opening, Versions, prologue};
use crate::refusal::Refusal;
use crate::roster::{Newcomers, Roster};
use crate::session::{Keys, Session};
use crate::wire::DecodeError;

/// A handshake that takes longer is given up: on a busy service processor four messages and as many
/// computations are done in a tenth.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(3);

/// What this end is in all its handshakes.
#[derive(Debug, Clone)]
pub struct Local {
    /// Who it is.
    pub node: NodeKey,
    /// What admits to its group.
    pub keys: ProgramKeyring,
    /// The group.
    pub group: Name,
    /// The program.
    pub program: Name,
    /// The versions it speaks: [`Versions::SPOKEN`].
    pub versions: Versions,
    /// Its name in the group.
    pub name: Name,
    /// Where it listens, at most [`Hello::MAX_ADDRESSES`].
    pub addresses: Vec<std::net::SocketAddr>,
    /// What the program tells each peer at once, at most [`Hello::MAX_NOTE`] bytes.
    pub note: Vec<u8>,
    /// Whether unknown keys are let in.
    pub newcomers: Newcomers,
}

impl Local {
    /// What it says of itself.
    #[must_use]
    pub fn hello(&self) -> Hello {
        Hello {
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            keys: self.keys.state(),
            note: self.note.clone(),
        }
    }

    /// For [`Roster::judge`] and [`Roster::pin`].
    #[must_use]
    pub fn identity(&self) -> (&PublicKey, &Name) {
        (self.node.public(), &self.name)
    }
}

/// How an initiator opens.
#[derive(Debug, Clone)]
pub struct Dial {
    /// As what it comes.
    pub from: Name,
    /// What it wants to reach.
    pub to: Name,
    /// Whom it wants to reach; anybody with the group key if none.
    pub expect: Option<NodeId>,
    /// The connection's addresses, to be bound. Both ends bind them, or neither does.
    pub endpoints: Option<Endpoints>,
    /// The version to speak: at first the newest.
    pub version: u8,
    /// The group key to use: at first the one that the keyring sends.
    pub key: KeyId,
}

impl Dial {
    /// The first attempt.
    #[must_use]
    pub fn new(local: &Local, from: Name, to: Name) -> Self {
        let (version, key) = (local.versions.newest, local.keys.state().sends);
        Self { from, to, expect: None, endpoints: None, version, key }
    }

    /// What to try after a refusal, on a new connection; none if nothing else will help. A refusal in clear
    /// may be forged, but leads at worst to an older version, which the responder then turns down since the
    /// opening says truly what both speak, or to the other key that is accepted anyway.
    #[must_use]
    pub fn again(&self, local: &Local, refusal: Refusal) -> Option<Self> {
        match refusal {
            Refusal::Version(theirs) => {
                let version = local.versions.common(theirs)?;
                (version < self.version).then(|| Self { version, ..self.clone() })
            }
            Refusal::UnknownKey => {
                let state = local.keys.state();
                let key = state.also.filter(|_| self.key == state.sends)?;
                Some(Self { key, ..self.clone() })
            }
            _ => None,
        }
    }
}

/// What a responder listens as.
#[derive(Debug, Clone)]
pub struct Door {
    /// What it is.
    pub role: Name,
    /// As what others may come.
    pub from: Vec<Name>,
    /// The connection's addresses, to be bound. Both ends bind them, or neither does.
    pub endpoints: Option<Endpoints>,
}

/// Why no session came about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// A frame is none of a handshake.
    #[error("the other end does not speak this protocol")]
    Malformed(#[source] DecodeError),
    /// A frame came that is not due.
    #[error("the other end sent a message out of turn")]
    OutOfTurn,
    /// A message is not from the end that the others are from.
    #[error("a message was forged or changed on the way")]
    Forged,
    /// It is another member than the one expected.
    #[error("it is {found}, not {expected}")]
    OtherMember {
        /// Who was wanted.
        expected: NodeId,
        /// Who answered.
        found: NodeId,
    },
    /// This end refuses.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The other end refuses. In clear unless `proved`: then anybody on the way may have said so.
    #[error("the other end refuses: {refusal}")]
    RefusedThere {
        /// Why.
        refusal: Refusal,
        /// The other end did say so.
        proved: bool,
    },
}

/// What comes of a frame.
#[derive(Debug)]
#[must_use]
pub enum Progress {
    /// Send these bytes, and wait for the next frame.
    Send(Vec<u8>),
    /// The other end is known. Send these bytes, if any; the session begins with the next.
    Done(Vec<u8>, Box<Session>),
    /// There will be no session. Send these bytes, if any, and close.
    Failed(Vec<u8>, HandshakeError),
}

/// One end of a handshake under way.
#[derive(Debug)]
pub struct Handshake {
    local: Arc<Local>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Initiator, waits for the answer.
    Opened { noise: Noise, dial: Dial },
    /// Initiator, waits for consent.
    Proving { keys: Box<Keys>, dial: Dial, key: PublicKey },
    /// Responder, waits for the opening.
    Listening { door: Door, ephemeral: Secret },
    /// Responder, waits for the proof.
    Answered { noise: Noise, opening: Opening },
    /// It is over.
    Over,
}

impl Handshake {
    /// Begins one; returns it and the first bytes to send. `ephemeral` are random bytes that are used for
    /// nothing else.
    ///
    /// # Panics
    /// `dial.key` is not in the keyring.
    #[must_use]
    pub fn initiate(local: Arc<Local>, dial: Dial, ephemeral: Secret) -> (Self, Vec<u8>) {
        let opening = Opening {
            version: dial.version,
            versions: local.versions,
            addresses: dial.endpoints.is_some(),
            key: dial.key,
            group: local.group.clone(),
            program: local.program.clone(),
            from: dial.from.clone(),
            to: dial.to.clone(),
        };
        let clear = opening.encode();
        let prologue = prologue(&clear, dial.endpoints);
        let key = local.keys.find(dial.key).expect("a dial is made with a key of the keyring");
        let mut noise = Noise::new(true, &local.node, ephemeral, &prologue);
        noise.set_key(key);
        let message = noise.write(&[]);
        let tag = key.admission().mac(&[&prologue, &message]);
        let frame = Kind::Opening.frame(&[&clear, &tag, &message]);
        (Self { local, state: State::Opened { noise, dial } }, frame)
    }

    /// Waits for one. `ephemeral` are random bytes that are used for nothing else.
    #[must_use]
    pub fn respond(local: Arc<Local>, door: Door, ephemeral: Secret) -> Self {
        Self { local, state: State::Listening { door, ephemeral } }
    }

    /// What the other end sent, a frame without its length. The roster is as of now.
    pub fn handle(&mut self, frame: &[u8], roster: &Roster) -> Progress {
        let state = std::mem::replace(&mut self.state, State::Over);
        let (kind, body) = match Kind::split(frame) {
            Ok(split) => split,
            Err(error) => return Progress::Failed(vec![], HandshakeError::Malformed(error)),
        };
        let outcome = match (state, kind) {
            (State::Opened { noise, dial }, Kind::Answer) => {
                self.handle_answer(noise, dial, body, roster)
            }
            (State::Proving { keys, dial, key }, Kind::Confirm) => {
                self.handle_confirm(*keys, dial, key, body, roster)
            }
            (State::Listening { door, ephemeral }, Kind::Opening) => {
                self.handle_opening(&door, ephemeral, body)
            }
            (State::Answered { noise, opening }, Kind::Proof) => {
                self.handle_proof(noise, opening, body, roster)
            }
            (State::Opened { .. } | State::Proving { .. }, Kind::Refused) => {
                Err(match Refusal::decode(body) {
                    Ok(refusal) => HandshakeError::RefusedThere { refusal, proved: false },
                    Err(error) => HandshakeError::Malformed(error),
                }
                .into())
            }
            _ => Err(HandshakeError::OutOfTurn.into()),
        };
        outcome.unwrap_or_else(|steps::Failure { say, error }| Progress::Failed(say, error))
    }
}
