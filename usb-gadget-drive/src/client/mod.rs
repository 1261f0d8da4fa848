// SPDX-License-Identifier: MIT OR Apache-2.0
//! The other end of the NBD protocol: a remote drive, whose server may go away and come back. An agent has them for
//! its blade, the management module for shares that lie elsewhere.
//!
//! * core: [`proxy`] (what waits, what is sent again, when to give up), [`replay`] (what the server may have lost)
//! * shell: [`connect`] and [`tls`] (to servers), [`pump`] (the thread around the core)

pub mod connect;
pub mod proxy;
pub mod pump;
pub mod replay;
pub mod tls;
