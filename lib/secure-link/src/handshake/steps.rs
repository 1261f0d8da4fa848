// SPDX-License-Identifier: MIT OR Apache-2.0
//! What each message leads to.

use super::{Dial, Door, Handshake, HandshakeError, Progress, State};
use crate::crypto::Secret;
use crate::hello::Hello;
use crate::keys::PublicKey;
use crate::noise::Noise;
use crate::opening::{Kind, LENGTH, Opened, Opening, Versions, prologue};
use crate::refusal::Refusal;
use crate::roster::Roster;
use crate::session::{Keys, Peer, Piece};
use crate::wire::DecodeError;

type Outcome = Result<Progress, Failure>;

/// An error, and what the other end is told of it.
pub(super) struct Failure {
    pub(super) say: Vec<u8>,
    pub(super) error: HandshakeError,
}

impl From<HandshakeError> for Failure {
    fn from(error: HandshakeError) -> Self {
        Self { say: vec![], error }
    }
}

/// Refuses in clear.
fn refuse(refusal: Refusal) -> Failure {
    let say = Kind::Refused.frame(&[&refusal.encode()]);
    Failure { say, error: HandshakeError::Refused(refusal) }
}

fn forged<T>(_: T) -> Failure {
    HandshakeError::Forged.into()
}

fn malformed(error: DecodeError) -> Failure {
    HandshakeError::Malformed(error).into()
}

/// Begins a confirmation that consents; any other value is a [`Refusal`].
const CONSENT: u8 = 0;

impl Handshake {
    pub(super) fn handle_opening(
        &mut self,
        door: &Door,
        ephemeral: Secret,
        body: &[u8],
    ) -> Outcome {
        let local = &self.local;
        let Opened { opening, clear, tag, message } = Opening::decode(body).map_err(malformed)?;
        if opening.group != local.group {
            return Err(refuse(Refusal::OtherGroup));
        }
        if opening.program != local.program {
            return Err(refuse(Refusal::OtherProgram));
        }
        let key = local.keys.find(opening.key).ok_or_else(|| refuse(Refusal::UnknownKey))?;
        let endpoints = door.endpoints.filter(|_| opening.addresses);
        let prologue = prologue(clear, endpoints);
        let bound = opening.addresses == door.endpoints.is_some();
        if !bound || !key.admission().mac_is(&[&prologue, message], &tag) {
            return Err(refuse(Refusal::Changed));
        }
        if opening.to != door.role || !door.from.contains(&opening.from) {
            return Err(refuse(Refusal::Role));
        }
        if local.versions.common(opening.versions) != Some(opening.version) {
            return Err(refuse(Refusal::Version(local.versions)));
        }
        let mut noise = Noise::new(false, &local.node, ephemeral, &prologue);
        noise.set_key(key);
        noise.read(message).map_err(forged)?;
        let answer = noise.write(&[local.versions.oldest, local.versions.newest]);
        self.state = State::Answered { noise, opening };
        Ok(Progress::Send(Kind::Answer.frame(&[&answer])))
    }

    pub(super) fn handle_answer(
        &mut self,
        mut noise: Noise,
        dial: Dial,
        body: &[u8],
        roster: &Roster,
    ) -> Outcome {
        let local = &self.local;
        let payload = noise.read(body).map_err(forged)?;
        let key = noise.remote().ok_or(HandshakeError::Forged)?;
        if let Some(expected) = dial.expect.filter(|expected| *expected != key.id()) {
            return Err(HandshakeError::OtherMember { expected, found: key.id() }.into());
        }
        // Before this end says who it is.
        let judged = roster.judge_key(local.node.public(), &key, local.newcomers);
        judged.map_err(HandshakeError::Refused)?;
        let theirs =
            payload.first_chunk().ok_or(DecodeError::Short).and_then(|v| Versions::decode(*v));
        let theirs = theirs.map_err(malformed)?;
        if local.versions.common(theirs) != Some(dial.version) {
            return Err(HandshakeError::Refused(Refusal::Version(local.versions)).into());
        }
        let proof = noise.write(&local.hello().encode());
        let keys = Keys::new(true, dial.version, &noise.split());
        self.state = State::Proving { keys: Box::new(keys), dial, key };
        Ok(Progress::Send(Kind::Proof.frame(&[&proof])))
    }

    pub(super) fn handle_proof(
        &mut self,
        mut noise: Noise,
        opening: Opening,
        body: &[u8],
        roster: &Roster,
    ) -> Outcome {
        let local = &self.local;
        let payload = noise.read(body).map_err(forged)?;
        let key = noise.remote().ok_or(HandshakeError::Forged)?;
        let mut keys = Keys::new(false, opening.version, &noise.split());
        let hello = Hello::decode(&payload).map_err(malformed)?;
        let is_new = match roster.judge(local.identity(), &key, &hello, local.newcomers) {
            Ok(is_new) => is_new,
            Err(refusal) => {
                let say = confirm(&mut keys, &refusal.encode());
                return Err(Failure { say, error: HandshakeError::Refused(refusal) });
            }
        };
        let consent = [&[CONSENT], &local.hello().encode()[..]].concat();
        let say = confirm(&mut keys, &consent);
        let Opening { version, key: admitted_by, from: role, .. } = opening;
        let peer = Peer { key, role, hello, is_new, admitted_by, version };
        Ok(Progress::Done(say, Box::new(keys.session(false, peer))))
    }

    pub(super) fn handle_confirm(
        &mut self,
        mut keys: Keys,
        dial: Dial,
        key: PublicKey,
        body: &[u8],
        roster: &Roster,
    ) -> Outcome {
        let local = &self.local;
        let mut sealed = body.to_vec();
        let (Piece::Confirm, content) = keys.opener.open(&mut sealed).map_err(forged)? else {
            return Err(HandshakeError::OutOfTurn.into());
        };
        let hello = match content.split_first() {
            Some((&CONSENT, hello)) => Hello::decode(hello).map_err(malformed)?,
            _ => {
                let refusal = Refusal::decode(content).map_err(malformed)?;
                return Err(HandshakeError::RefusedThere { refusal, proved: true }.into());
            }
        };
        let judged = roster.judge(local.identity(), &key, &hello, local.newcomers);
        let is_new = judged.map_err(HandshakeError::Refused)?;
        let Dial { version, key: admitted_by, to: role, .. } = dial;
        let peer = Peer { key, role, hello, is_new, admitted_by, version };
        Ok(Progress::Done(vec![], Box::new(keys.session(true, peer))))
    }
}

fn confirm(keys: &mut Keys, content: &[u8]) -> Vec<u8> {
    let mut sealed = vec![];
    keys.sealer.seal(Piece::Confirm, content, &mut sealed);
    Kind::Confirm.frame(&[&sealed[LENGTH..]])
}
