// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands in the log: changes, who asked for them, and what became of them.
//!
//! A kind's number and the layout of its body (postcard) never change; something new is a new kind. A member that meets a
//! kind which it does not know is too old for its group, and stops there.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::types::{MemberId, Position, Version};

/// Most keys.
pub const MAX_KEYS: usize = 8192;
/// Most bytes of a key.
pub const MAX_KEY: usize = 128;
/// Most bytes of a value.
pub const MAX_VALUE: usize = 64 << 10;
/// Most bytes of all keys and values: all members hold them in memory, and send them whole to newcomers.
pub const MAX_BYTES: usize = 16 << 20;
/// Most orders that are remembered: those of an hour for each member, many times over.
pub const MAX_ORDERS: usize = 1024;
/// Most bytes of what an order says.
pub const MAX_ORDER: usize = 4 << 10;
/// Most bytes of what came of an order, or why it failed.
pub const MAX_RESULT: usize = 1 << 10;
/// Most bytes of an order's subject.
pub const MAX_SUBJECT: usize = 128;
/// Most milliseconds from now to an order's deadline. Whoever waits longer is to ask again: the world has moved on.
pub const MAX_ORDER_LIFE: u64 = 3_600_000;
/// Most bytes of the name of a user, of a role, and of a reason.
pub const MAX_NAME: usize = 256;
/// Most voters: all members of a group.
pub const MAX_VOTERS: usize = secure_link::roster::MAX_MEMBERS;
/// Most bytes of a change's body: the longest value or order, and what is around it.
pub const MAX_BODY: usize = MAX_VALUE + 1024;

/// Who asked. The member is known by its link; what it says of its user is its own word.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// The member through which it came.
    pub node: MemberId,
    /// Its user there.
    pub user: String,
    /// With what rights.
    pub role: String,
}

impl Origin {
    /// The member's own programs.
    #[must_use]
    pub fn program(node: MemberId) -> Self {
        Self { node, user: String::new(), role: "program".to_owned() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({:?}) at {}", self.user, self.role, self.node)
    }
}

/// Names an order: chosen by the client at random. The same id twice is the same order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct OrderId(pub [u8; 16]);

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Something that one member is to do, once.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Its name.
    pub id: OrderId,
    /// Who is to do it.
    pub to: MemberId,
    /// What it is done to. Orders for one subject are done one after the other, in their order in the log.
    pub subject: String,
    /// What is to be done: a desired state, never a toggle. At most [`MAX_ORDER`] bytes.
    pub what: Vec<u8>,
    /// Not to be begun after this, in milliseconds of the group's time. A client that sends the order again sends
    /// it with the same deadline; so it is never mistaken for a new one, however late.
    pub deadline: u64,
    /// Only if the executor is still in this boot.
    pub expect_boot: Option<[u8; 16]>,
}

/// What came of an order.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum OrderResult {
    /// It is done; what the program says to it, at most [`MAX_RESULT`] bytes.
    Done(Vec<u8>),
    /// It was begun and failed.
    Failed(String),
    /// It was not begun.
    NotBegun(NotBegun),
}

/// Why an order was not begun.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Debug,
    thiserror::Error,
    Serialize,
    Deserialize,
)]
pub enum NotBegun {
    /// Its deadline had passed.
    #[error("it came after its deadline")]
    Expired,
    /// The member was booted since.
    #[error("the member was booted since")]
    OtherBoot,
    /// A newer one for the same subject was seen before.
    #[error("a newer order for the same subject came before it")]
    Stale,
    /// Nobody there executes orders.
    #[error("no program executes orders there")]
    NoProgram,
}

/// What a key must be for a change to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Expect {
    /// Whatever it is.
    Any,
    /// Without a value.
    Absent,
    /// As it was then.
    Is(Version),
}

/// A change of what the members have agreed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A key gets a value.
    Set(Set),
    /// A key loses its value.
    Remove(Remove),
    /// An order is given.
    Order(Order),
    /// The one who was to do it says what came of it.
    OrderDone(OrderDone),
    /// A member is to vote, once it has caught up.
    Admit(MemberId),
    /// A member is to vote no more.
    Dismiss(MemberId),
}

/// See [`Change::Set`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Set {
    /// 1 to [`MAX_KEY`] bytes.
    pub key: String,
    /// At most [`MAX_VALUE`] bytes.
    pub value: Vec<u8>,
    /// What it must have been.
    pub expect: Expect,
}

/// See [`Change::Remove`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Remove {
    /// 1 to [`MAX_KEY`] bytes.
    pub key: String,
    /// What it must have been.
    pub expect: Expect,
}

/// See [`Change::OrderDone`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OrderDone {
    /// Of which order.
    pub id: OrderId,
    /// What came of it.
    pub result: OrderResult,
}

/// Names a proposal, at random: one that is sent again, as its answer was lost, is made once.
pub type ProposalId = [u8; 16];

/// A change as it is proposed and logged.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// Its name.
    pub id: ProposalId,
    /// Who asked.
    pub who: Origin,
    /// When the leader got it, in milliseconds of the group's time.
    pub at: u64,
    /// The kind of the change.
    pub kind: u16,
    /// The change, in its kind's layout.
    pub body: Vec<u8>,
}

/// A change that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChangeError {
    /// It is of a later version of this program.
    #[error(
        "a change of kind {0} is unknown to this version; install the version that the others have"
    )]
    Unknown(u16),
    /// It is none.
    #[error("a change of kind {0} has a malformed body")]
    Malformed(u16),
}

impl Change {
    /// Its kind and body.
    #[must_use]
    pub fn encode(&self) -> (u16, Vec<u8>) {
        match self {
            Self::Set(set) => (1, pack(set)),
            Self::Remove(remove) => (2, pack(remove)),
            Self::Order(order) => (3, pack(order)),
            Self::OrderDone(done) => (4, pack(done)),
            Self::Admit(node) => (5, pack(node)),
            Self::Dismiss(node) => (6, pack(node)),
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// Its kind is unknown, or the body is not of that kind.
    pub fn decode(kind: u16, body: &[u8]) -> Result<Self, ChangeError> {
        let change = match kind {
            1 => unpack(body).map(Self::Set),
            2 => unpack(body).map(Self::Remove),
            3 => unpack(body).map(Self::Order),
            4 => unpack(body).map(Self::OrderDone),
            5 => unpack(body).map(Self::Admit),
            6 => unpack(body).map(Self::Dismiss),
            _ => return Err(ChangeError::Unknown(kind)),
        };
        change.ok_or(ChangeError::Malformed(kind))
    }
}

/// What a change did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// Nothing: the entry was none of ours.
    Nothing,
    /// It was made, there.
    Changed(Version),
    /// The order stands in the log there, from now or from before; and what came of it, if that is known.
    Ordered(Position, Option<OrderResult>),
}

/// Why a change was not made. All members decide alike.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum Refused {
    /// The key is not as expected.
    #[error("the key was changed meanwhile; look at it and try again")]
    Unexpected {
        /// Since when it is as it is, if it has a value.
        found: Option<Version>,
    },
    /// There are as many as there may be.
    #[error("no room: at most {most} {what} are kept")]
    Full {
        /// Of what.
        what: String,
        /// How many.
        most: u64,
    },
    /// Something has more or less bytes than it may.
    #[error("a {what} has 1 to {most} bytes")]
    Length {
        /// What.
        what: String,
        /// How many.
        most: u64,
    },
    /// The policy does not allow it.
    #[error("not allowed: {0}")]
    Policy(String),
    /// Another order has this id.
    #[error("another order has this id; choose ids at random")]
    IdTaken,
    /// The order came after its deadline.
    #[error("the order came after its deadline")]
    Expired,
    /// The deadline is too far away.
    #[error("the order's deadline is more than an hour away")]
    TooFar,
    /// No such order is remembered.
    #[error("no such order is remembered")]
    NoSuchOrder,
    /// Only who is to do an order says what came of it.
    #[error("the order was given to another member")]
    NotYours,
    /// Somebody must vote.
    #[error("it is the only voter")]
    LastVoter,
    /// It makes no sense.
    #[error("the change is malformed")]
    Malformed,
}

/// In postcard's form.
pub(super) fn pack<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("all of it has a form, and memory grows")
}

/// From postcard's form, with nothing left over.
pub(super) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::take_from_bytes(bytes)
        .ok()
        .filter(|(_, rest)| rest.is_empty())
        .map(|(value, _)| value)
}
