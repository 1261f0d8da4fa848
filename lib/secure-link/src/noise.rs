// SPDX-License-Identifier: MIT OR Apache-2.0
//! `Noise_XXpsk3_25519_ChaChaPoly_SHA256` (Noise, revision 34) by the crate `snow`, with primitives that
//! wipe their keys: `snow` brings its own, which do not.

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use crate::crypto::{Secret, TAG_LEN};
use crate::keys::{NodeKey, ProgramKey, PublicKey};
use crate::opening::MAX_HANDSHAKE_FRAME;

const PATTERN: &str = "Noise_XXpsk3_25519_ChaChaPoly_SHA256";
/// The third message mixes the group key in.
const PSK_AT: usize = 3;

/// The message is not one that the other end sent in this handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// One end of a handshake.
pub(crate) struct Noise(Box<HandshakeState>);

impl Noise {
    /// `ephemeral` are this end's random bytes for this handshake alone.
    pub(crate) fn new(initiator: bool, node: &NodeKey, ephemeral: Secret, prologue: &[u8]) -> Self {
        let params = PATTERN.parse().expect("snow knows the pattern");
        let builder = Builder::with_resolver(params, Box::new(Primitives(ephemeral)))
            .local_private_key(node.secret().expose())
            .and_then(|builder| builder.prologue(prologue));
        let built = builder.and_then(|builder| match initiator {
            true => builder.build_initiator(),
            false => builder.build_responder(),
        });
        Self(Box::new(built.expect("the key and all primitives are there")))
    }

    /// Sets the group key, due before the third message.
    pub(crate) fn set_key(&mut self, key: &ProgramKey) {
        let psk = key.psk();
        self.0.set_psk(PSK_AT, psk.expose()).expect("32 bytes for one of ten places");
    }

    pub(crate) fn write(&mut self, payload: &[u8]) -> Vec<u8> {
        // At most two keys with a tag, and the payload's tag.
        let mut message = vec![0; payload.len() + 2 * (32 + TAG_LEN) + TAG_LEN];
        let written = self.0.write_message(payload, &mut message);
        message.truncate(written.expect("it is this end's turn, and there is room"));
        message
    }

    /// The payload of the other end's message.
    pub(crate) fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, Broken> {
        if message.len() > MAX_HANDSHAKE_FRAME {
            return Err(Broken);
        }
        let mut payload = vec![0; message.len()];
        let len = self.0.read_message(message, &mut payload).map_err(|_| Broken)?;
        payload.truncate(len);
        Ok(payload)
    }

    /// The other end's static key, once its message with it was read.
    pub(crate) fn remote(&self) -> Option<PublicKey> {
        self.0.get_remote_static()?.try_into().ok().map(PublicKey)
    }

    /// The two keys at the end, the initiator's first, and the hash of all that was said.
    pub(crate) fn split(mut self) -> (Secret, Secret, [u8; 32]) {
        let (one, two) = self.0.dangerously_get_raw_split();
        let (one, two) = (Zeroizing::new(one), Zeroizing::new(two));
        let hash = self.0.get_handshake_hash().try_into().expect("SHA-256 has 32 bytes");
        (Secret::new(&one), Secret::new(&two), hash)
    }
}

impl std::fmt::Debug for Noise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Noise(..)")
    }
}

impl Drop for Noise {
    /// The chaining key and the group key lie in the state in clear, and `snow` leaves them in the freed
    /// memory. A fresh state is put in their place.
    fn drop(&mut self) {
        let params = PATTERN.parse().expect("snow knows the pattern");
        let zeros = Secret::new(&[0; 32]);
        let blank = Builder::with_resolver(params, Box::new(Primitives(zeros.clone())))
            .local_private_key(zeros.expose())
            .and_then(Builder::build_initiator);
        if let Ok(blank) = blank {
            *self.0 = blank;
            // Or the compiler may leave out a write that nobody reads.
            std::hint::black_box(&mut *self.0);
        }
    }
}

/// Gives `snow` the primitives of [`crate::crypto`], and as random numbers these 32 bytes once: a
/// handshake takes no more, for one ephemeral key.
struct Primitives(Secret);

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.0.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::<X25519>::default() as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::SHA256).then(|| Box::<Sha256>::default() as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        let wanted = matches!(choice, CipherChoice::ChaChaPoly);
        wanted.then(|| Box::new(ChaChaPoly(Secret::new(&[0; 32]))) as Box<dyn Cipher>)
    }
}

struct Once(Option<Secret>);

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let secret = self.0.take().ok_or(snow::Error::Rng)?;
        if dest.len() != secret.expose().len() {
            return Err(snow::Error::Rng);
        }
        dest.copy_from_slice(secret.expose());
        Ok(())
    }
}

#[derive(Default)]
struct X25519 {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl X25519 {
    fn scalar(&self) -> StaticSecret {
        StaticSecret::from(*self.secret)
    }
}

impl Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        self.secret.copy_from_slice(secret);
        self.public = x25519_dalek::PublicKey::from(&self.scalar()).to_bytes();
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), snow::Error> {
        let mut secret = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *secret)?;
        self.set(&*secret);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        &*self.secret
    }

    /// A point of low order, which would make the result the same for every secret, is refused (RFC 7748,
    /// section 6.1).
    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let public: [u8; 32] = public[..32].try_into().map_err(|_| snow::Error::Dh)?;
        let shared = self.scalar().diffie_hellman(&public.into());
        if !shared.was_contributory() {
            return Err(snow::Error::Dh);
        }
        out[..32].copy_from_slice(shared.as_bytes());
        Ok(())
    }
}

#[derive(Default)]
struct Sha256(sha2::Sha256);

impl Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = sha2::Sha256::default();
    }

    fn input(&mut self, data: &[u8]) {
        sha2::Digest::update(&mut self.0, data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let digest: [u8; 32] = sha2::Digest::finalize_reset(&mut self.0).into();
        out[..32].copy_from_slice(&digest);
    }
}

struct ChaChaPoly(Secret);

impl Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = Secret::new(key);
    }

    fn encrypt(&self, nonce: u64, aad: &[u8], text: &[u8], out: &mut [u8]) -> usize {
        out[..text.len()].copy_from_slice(text);
        let tag = self.0.seal(nonce, aad, &mut out[..text.len()]);
        out[text.len()..][..TAG_LEN].copy_from_slice(&tag);
        text.len() + TAG_LEN
    }

    fn decrypt(
        &self,
        nonce: u64,
        aad: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let mut copy = Zeroizing::new(sealed.to_vec());
        let text = self.0.open(nonce, aad, &mut copy).map_err(|_| snow::Error::Decrypt)?;
        out[..text.len()].copy_from_slice(text);
        Ok(text.len())
    }
}

#[cfg(test)]
pub(crate) mod tests;
