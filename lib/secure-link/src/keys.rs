// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who a member is (its node key), and what admits it (the group key, of which each program has a
//! derived one).

use std::fmt;
use std::io;
use std::str::FromStr;

use x25519_dalek::StaticSecret;

use crate::crypto::{self, Secret};
use crate::hex;
use crate::name::Name;

/// A member's secret X25519 key, made once for each machine and never changed: to have another is to be
/// another member.
#[derive(Clone)]
pub struct NodeKey {
    secret: Secret,
    public: PublicKey,
}

impl NodeKey {
    /// A new one, from the operating system's random numbers.
    ///
    /// # Errors
    /// It has none to give.
    pub fn generate() -> io::Result<Self> {
        Ok(Self::new(Secret::random()?))
    }

    /// The one with these secret bytes.
    #[must_use]
    pub fn new(secret: Secret) -> Self {
        let scalar = StaticSecret::from(*secret.expose());
        let public = PublicKey(x25519_dalek::PublicKey::from(&scalar).to_bytes());
        Self { secret, public }
    }

    /// What others know it by.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The short form of [`Self::public`].
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.public.id()
    }

    /// The secret, for its file.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// A member's public X25519 key (RFC 7748, 32 bytes): what is pinned. 64 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The short form.
    #[must_use]
    pub fn id(&self) -> NodeId {
        let digest = crypto::hash(&[b"midplane node id\0", &self.0]);
        NodeId(std::array::from_fn(|i| digest[i]))
    }
}

/// Names a member: 16 bytes that follow from its public key. 32 hexadecimal digits as text.
///
/// Nobody can make a key for somebody else's id; that two members have the same one by chance will not
/// happen. The order means nothing, but is the same everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 16]);

/// The group's secret. It admits to the group and says nothing of who is admitted; only root has it.
#[derive(Clone)]
pub struct GroupKey {
    secret: Secret,
    id: KeyId,
}

impl GroupKey {
    /// A new one, from the operating system's random numbers.
    ///
    /// # Errors
    /// It has none to give.
    pub fn generate() -> io::Result<Self> {
        Ok(Self::new(Secret::random()?))
    }

    /// The one with these secret bytes.
    #[must_use]
    pub fn new(secret: Secret) -> Self {
        let id = secret.derive("group key id", b"");
        Self { id: KeyId(std::array::from_fn(|i| id.expose()[i])), secret }
    }

    /// Which one it is.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// What one program gets of it. A program that is broken into does not give away the others'.
    #[must_use]
    pub fn program(&self, program: &Name) -> ProgramKey {
        let secret = self.secret.derive("program key", program.as_str().as_bytes());
        ProgramKey { id: self.id, secret }
    }

    /// The secret, for its file and for those who are to have it.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.secret
    }
}

impl fmt::Debug for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The group key's part that one program has.
#[derive(Clone)]
pub struct ProgramKey {
    id: KeyId,
    secret: Secret,
}

impl ProgramKey {
    /// Of the group key with this id, as read from a file.
    #[must_use]
    pub fn new(id: KeyId, secret: Secret) -> Self {
        Self { id, secret }
    }

    /// Which group key it comes from.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The secret, for its file.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The pre-shared key of the handshake.
    pub(crate) fn psk(&self) -> Secret {
        self.secret.derive("handshake", b"")
    }

    /// With which an opening proves that its sender has the group key, before anything is computed for it.
    pub(crate) fn admission(&self) -> Secret {
        self.secret.derive("admission", b"")
    }
}

impl fmt::Debug for ProgramKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgramKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Names a group key without giving it away: 8 bytes that follow from it. 16 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 8]);

/// A text is no id or key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {digits} hexadecimal digits")]
pub struct HexError {
    /// How many it takes.
    pub digits: usize,
}

macro_rules! as_hex {
    ($($type:ident),*) => { $(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&hex::encode(&self.0))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($type))
            }
        }

        impl FromStr for $type {
            type Err = HexError;

            fn from_str(text: &str) -> Result<Self, HexError> {
                let mut bytes = Self(Default::default());
                let digits = bytes.0.len() * 2;
                hex::decode(text, &mut bytes.0).ok_or(HexError { digits })?;
                Ok(bytes)
            }
        }
    )* };
}

as_hex!(PublicKey, NodeId, KeyId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_texts_and_back() {
        let key = NodeKey::new(Secret::new(&[1; 32]));
        let text = key.id().to_string();
        assert_eq!(text.len(), 32);
        assert_eq!(text.parse(), Ok(key.id()));
        assert_eq!(key.public().to_string().parse(), Ok(*key.public()));
        for bad in ["", "0", &text[1..], &format!("{text}0"), &text.replace(&text[..1], "g")] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_public_key_is_that_of_rfc_7748() {
        // Section 6.1, Alice's.
        let mut secret = [0; 32];
        let alice = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";
        hex::decode(alice, &mut secret).unwrap();
        let public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
        assert_eq!(NodeKey::new(Secret::new(&secret)).public().to_string(), public);
    }

    #[test]
    fn programs_have_keys_of_their_own() {
        let group = GroupKey::new(Secret::new(&[2; 32]));
        let one = group.program(&"ipmi-mux".parse().unwrap());
        let two = group.program(&"kvm-bus".parse().unwrap());
        assert_eq!((one.id(), two.id()), (group.id(), group.id()));
        assert_ne!(one.psk().expose(), two.psk().expose());
        assert_ne!(one.psk().expose(), one.admission().expose());
    }

    #[test]
    fn secrets_are_not_shown() {
        let node = NodeKey::new(Secret::new(&[0x5a; 32]));
        let group = GroupKey::new(Secret::new(&[0x5a; 32]));
        let program = group.program(&"a".parse().unwrap());
        let shown = format!("{node:?} {group:?} {program:?} {:#?}", (&node, &group, &program));
        for secret in [node.secret(), program.secret()] {
            assert!(!shown.contains(&hex::encode(secret.expose())[..8]), "{shown}");
        }
        assert!(!shown.contains("90, 90"), "{shown}");
    }
}
