// SPDX-License-Identifier: MIT OR Apache-2.0
//! What members tell each other about keys, as JSON in sealed messages. Fields may be added; what is not known is
//! not looked at.

use std::fmt;

use secure_link::{GroupKey, KeyId, KeyState, Keyring, Order, Roster, Secret};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Most bytes of a message: a roster of 63 members with all their addresses.
pub const MAX_MESSAGE: usize = 64 << 10;

/// What a member is asked, or told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// How are you?
    State,
    /// [`Order::Accept`].
    Accept {
        /// The key's 32 bytes, hexadecimal.
        key: Hidden,
    },
    /// [`Order::Send`].
    Send {
        /// The key's id.
        key: String,
    },
    /// [`Order::Settle`].
    Settle {
        /// The key's id.
        key: String,
    },
    /// [`Order::Abandon`].
    Abandon {
        /// The key's id.
        key: String,
    },
}

/// The answer to every request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The group keys, after the order if it was one.
    pub keys: Keys,
    /// Members it knows, as [`Roster`] writes them.
    pub members: String,
    /// The program's version.
    pub version: String,
    /// Why an order was not carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// [`KeyState`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "KeyTexts", into = "KeyTexts")]
pub struct Keys(pub KeyState);

#[derive(Serialize, Deserialize)]
struct KeyTexts {
    sends: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accepts: Option<String>,
}

impl From<Keys> for KeyTexts {
    fn from(Keys(state): Keys) -> Self {
        Self { sends: state.sends.to_string(), accepts: state.also.map(|id| id.to_string()) }
    }
}

impl TryFrom<KeyTexts> for Keys {
    type Error = secure_link::keys::HexError;

    fn try_from(texts: KeyTexts) -> Result<Self, Self::Error> {
        let also = texts.accepts.map(|id| id.parse()).transpose()?;
        Ok(Self(KeyState { sends: texts.sends.parse()?, also }))
    }
}

/// A secret text: wiped, and not shown.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(Zeroizing<String>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(..)")
    }
}

/// A request makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request's key is no key")]
pub struct BadKey;

impl Request {
    /// The request for an order.
    #[must_use]
    pub fn order(order: &Order) -> Self {
        match order {
            Order::Accept(key) => Self::Accept { key: Hidden(key.secret().to_hex()) },
            Order::Send(id) => Self::Send { key: id.to_string() },
            Order::Settle(id) => Self::Settle { key: id.to_string() },
            Order::Abandon(id) => Self::Abandon { key: id.to_string() },
        }
    }

    /// The order, if it is one.
    ///
    /// # Errors
    /// Its key is none.
    pub fn to_order(&self) -> Result<Option<Order>, BadKey> {
        let id = |text: &String| text.parse::<KeyId>().map_err(|_| BadKey);
        Ok(Some(match self {
            Self::State => return Ok(None),
            Self::Accept { key: Hidden(digits) } => {
                Order::Accept(GroupKey::new(Secret::from_hex(digits).map_err(|_| BadKey)?))
            }
            Self::Send { key } => Order::Send(id(key)?),
            Self::Settle { key } => Order::Settle(id(key)?),
            Self::Abandon { key } => Order::Abandon(id(key)?),
        }))
    }

    /// As a message.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        // With room for the longest, which holds a key: a buffer that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(256));
        serde_json::to_writer(&mut *bytes, self).expect("texts can be written as JSON");
        bytes
    }
}

impl Reply {
    /// Of a machine with these keys and members.
    #[must_use]
    pub fn new(keyring: &Keyring, roster: &Roster, error: Option<String>) -> Self {
        let lines = roster.to_string();
        // Whom it shut out is its own affair.
        let members = lines.split_inclusive('\n').filter(|line| line.starts_with("member "));
        Self {
            keys: Keys(keyring.state()),
            members: members.collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_there_and_back() {
        let key = GroupKey::new(Secret::new(&[0xa5; 32]));
        let id = key.id();
        for order in [Order::Accept(key), Order::Send(id), Order::Settle(id), Order::Abandon(id)] {
            let bytes = Request::order(&order).encode();
            let request: Request = serde_json::from_slice(&bytes).unwrap();
            assert!(!format!("{request:?}").contains("a5a5"));
            let back = request.to_order().unwrap().unwrap();
            assert_eq!(format!("{back:?}"), format!("{order:?}"));
        }
        let state: Request = serde_json::from_str(r#"{"ask":"state","later":1}"#).unwrap();
        assert!(state.to_order().unwrap().is_none());
        let bad: Request = serde_json::from_str(r#"{"ask":"send","key":"xy"}"#).unwrap();
        assert_eq!(bad.to_order().unwrap_err(), BadKey);
    }
}
