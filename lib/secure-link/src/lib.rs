// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links between the members of a group: each knows the other by its node key, which is pinned, and all
//! by the group key, which only admits.
//!
//! * Formats: [`opening`], [`hello`], [`refusal`], the frames in [`session`] and [`datagram`], and the files
//!   of [`keyring`] and [`roster`].
//! * State machines without clock or socket: [`handshake`] makes a [`Session`] of frames; its [`Sealer`],
//!   [`Opener`], [`DatagramSealer`] and [`DatagramOpener`] are of one direction each and can live in
//!   different threads; [`gate`] bounds unfinished handshakes; [`rotation`] changes the group key.
//! * Shell: [`stream`] for tokio, [`blocking`] for threads, [`store`] for files.
//!
//! A program reads its part of the group key and the node key ([`store`]), makes a [`Local`] of them, keeps a
//! [`Roster`], and for each
//! connection runs a [`Handshake`] to the end. A [`Session`]'s [`Peer`] says who it is; a new one is pinned or
//! turned away. What is received from then on is from that member, once, whole and in order; whether it
//! may say so is the program's to judge, by the peer's id.
#![forbid(unsafe_code)]

pub mod blocking;
mod crypto;
pub mod datagram;
pub mod gate;
pub mod handshake;
pub mod hello;
mod hex;
pub mod keyring;
pub mod keys;
mod link;
mod name;
mod noise;
pub mod opening;
mod pieces;
pub mod refusal;
#[cfg(test)]
mod rng;
pub mod roster;
pub mod rotation;
pub mod session;
pub mod store;
#[cfg(feature = "tokio")]
pub mod stream;
pub mod wire;

pub use crypto::Secret;
pub use datagram::{DatagramError, DatagramId, DatagramOpener, DatagramSealer};
pub use gate::Gate;
pub use handshake::{Dial, Door, Handshake, HandshakeError, Local, Progress};
pub use hello::{Hello, KeyState};
pub use keyring::{Age, Also, Keyring, ProgramFile, ProgramKeyring};
pub use keys::{GroupKey, KeyId, NodeId, NodeKey, ProgramKey, PublicKey};
pub use name::{Name, NameError};
pub use opening::{Endpoints, Versions};
pub use refusal::Refusal;
pub use roster::{Member, Newcomers, Roster, Standing};
pub use rotation::{Next, Order, Rotation, Step};
pub use session::{OpenError, Opener, Peer, Piece, Sealer, Session};
pub use store::{Met, Store};
