// SPDX-License-Identifier: MIT OR Apache-2.0
//! The few primitives, each with one way to use it: HKDF and HMAC with SHA-256 (RFC 5869, RFC 2104),
//! ChaCha20-Poly1305 with a counter as nonce (RFC 8439; Noise, revision 34, section 12.3).

use std::fmt;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Tag};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::hex;
use crate::keys::HexError;

/// Bytes that a sealed text is longer than its plain one.
pub const TAG_LEN: usize = 16;

/// 32 secret bytes: wiped when dropped, never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes these bytes. The caller wipes its own copy.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }

    /// From the operating system.
    ///
    /// # Errors
    /// It has no random numbers to give.
    pub fn random() -> std::io::Result<Self> {
        let mut secret = Self([0; 32]);
        getrandom::fill(&mut secret.0).map_err(std::io::Error::other)?;
        Ok(secret)
    }

    /// The bytes, for a file or another library.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        hex::encode(&self.0)
    }

    /// Reads what [`Self::to_hex`] wrote.
    ///
    /// # Errors
    /// It is no such text.
    pub fn from_hex(digits: &str) -> Result<Self, HexError> {
        let mut secret = Self([0; 32]);
        hex::decode(digits, &mut secret.0).ok_or(HexError { digits: 64 })?;
        Ok(secret)
    }

    /// Another secret that follows from this one, `label` and `context`, and does not lead back.
    #[must_use]
    pub fn derive(&self, label: &str, context: &[u8]) -> Self {
        let mut out = Self([0; 32]);
        // The zero separates: no label holds one.
        let info: [&[u8]; 4] = [b"midplane ", label.as_bytes(), &[0], context];
        let prk = Hkdf::<Sha256>::from_prk(&self.0).expect("32 bytes are a PRK of SHA-256");
        prk.expand_multi_info(&info, &mut out.0).expect("32 bytes are less than 255 blocks");
        out
    }

    /// What follows from `parts` under a public salt (HKDF-Extract).
    #[must_use]
    pub(crate) fn extract(salt: &[u8], parts: [&Self; 2]) -> Self {
        let mut joined = [0; 64];
        joined[..32].copy_from_slice(&parts[0].0);
        joined[32..].copy_from_slice(&parts[1].0);
        let (mut prk, _) = Hkdf::<Sha256>::extract(Some(salt), &joined);
        joined.zeroize();
        let secret = Self(prk.into());
        prk.as_mut_slice().zeroize();
        secret
    }

    /// The first 16 bytes of HMAC-SHA-256 over `parts` one after the other.
    #[must_use]
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> [u8; 16] {
        let full: [u8; 32] = self.hmac(parts).finalize().into_bytes().into();
        let mut tag = [0; 16];
        tag.copy_from_slice(&full[..16]);
        tag
    }

    /// Whether `tag` is what [`Self::mac`] gives, in a time that does not depend on it.
    #[must_use]
    pub(crate) fn mac_is(&self, parts: &[&[u8]], tag: &[u8; 16]) -> bool {
        self.hmac(parts).verify_truncated_left(tag).is_ok()
    }

    fn hmac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0)
            .expect("HMAC takes keys of any length");
        parts.iter().for_each(|part| mac.update(part));
        mac
    }

    /// Seals `text` in place; what proves it and `aad` is returned.
    pub(crate) fn seal(&self, nonce: u64, aad: &[u8], text: &mut [u8]) -> [u8; TAG_LEN] {
        let tag =
            self.cipher().encrypt_inout_detached(&nonce_bytes(nonce).into(), aad, text.into());
        tag.expect("no text here is near the 256 GiB that ChaCha20 can do").into()
    }

    /// Opens what [`Self::seal`] has sealed, `text` with the tag behind it, in place; returns the text.
    ///
    /// # Errors
    /// None but that it is not what was sealed. `text` may have been changed then.
    pub(crate) fn open<'a>(
        &self,
        nonce: u64,
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], Forged> {
        let at = sealed.len().checked_sub(TAG_LEN).ok_or(Forged)?;
        let (text, tag) = sealed.split_at_mut(at);
        let tag = Tag::try_from(&*tag).map_err(|_| Forged)?;
        let opened = self.cipher().decrypt_inout_detached(
            &nonce_bytes(nonce).into(),
            aad,
            (&mut *text).into(),
            &tag,
        );
        opened.map_err(|_| Forged)?;
        Ok(text)
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(&self.0.into())
    }
}

/// Four zeros and the counter, least significant byte first, as Noise has it for this cipher.
fn nonce_bytes(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What was to be opened is not what was sealed, or not with this key and place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forged;

/// SHA-256 over `parts` one after the other.
#[must_use]
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_only_unchanged_and_in_its_place() {
        let key = Secret::new(&[7; 32]);
        let mut sealed = b"text".to_vec();
        let tag = key.seal(3, b"aad", &mut sealed);
        sealed.extend_from_slice(&tag);
        assert_eq!(key.open(3, b"aad", &mut sealed.clone()).unwrap(), b"text");
        assert!(key.open(4, b"aad", &mut sealed.clone()).is_err());
        assert!(key.open(3, b"bad", &mut sealed.clone()).is_err());
        assert!(Secret::new(&[8; 32]).open(3, b"aad", &mut sealed.clone()).is_err());
        for bit in 0..sealed.len() * 8 {
            let mut wrong = sealed.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open(3, b"aad", &mut wrong).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(key.open(3, b"aad", &mut sealed[..len].to_vec()).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new(&[0x41; 32])), "Secret(..)");
    }

    #[test]
    fn labels_and_contexts_lead_to_different_secrets() {
        let key = Secret::new(&[7; 32]);
        let all = [("a", &b"b"[..]), ("ab", b""), ("a", b""), ("", b"ab"), ("", b"")];
        let mut derived: Vec<_> = all.iter().map(|(l, c)| *key.derive(l, c).expose()).collect();
        derived.sort_unstable();
        derived.dedup();
        assert_eq!(derived.len(), all.len());
    }
}
