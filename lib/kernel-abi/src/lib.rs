// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel interfaces that Midplane talks to, behind safe functions.
//!
//! This is the only crate of the workspace with `unsafe`. Each module is one interface and one cargo
//! feature; it keeps the kernel's own names, says which header it follows, and its layouts are
//! compared with the installed header in `tests/headers.rs`.
//!
//! Nothing here decides anything: no queue, no policy, no retry.

#[cfg(feature = "async_fd")]
pub mod async_fd;
#[cfg(feature = "block_device")]
pub mod block_device;
#[cfg(feature = "cuse")]
pub mod cuse;
#[cfg(feature = "heap")]
pub mod heap;
#[cfg(feature = "hid")]
pub mod hid;
#[cfg(feature = "i2c")]
pub mod i2c;
#[cfg(feature = "ipmi_devintf")]
pub mod ipmi_devintf;
#[cfg(feature = "listen_fds")]
pub mod listen_fds;
#[cfg(feature = "nbd_netlink")]
pub mod nbd_netlink;
#[cfg(feature = "peer_groups")]
pub mod peer_groups;
#[cfg(feature = "tty_lines")]
pub mod tty_lines;
