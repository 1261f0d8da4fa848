// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ioctls that nodes of ipmi-mux have beyond those of the kernel's driver: exclusive commands and
//! reserved sequence numbers. Programs include `ipmi_mux.h`, with which a test compares this. The layouts
//! are the same for callers of 32 bits.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct ipmi_mux_sequence`: a range of message ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sequence {
    /// How many, 1 to 1024.
    pub count: u32,
    /// The first.
    pub first: i32,
    /// What a virtual client attaches with.
    pub token: [u8; 16],
}

/// Numbers of the ioctls.
pub mod ioctl {
    /// `_IOW('i', 0x80, struct ipmi_cmdspec)`
    pub const RESERVE_COMMAND: u32 = 0x4002_6980;
    /// `_IOW('i', 0x81, struct ipmi_cmdspec)`
    pub const RELEASE_COMMAND: u32 = 0x4002_6981;
    /// `_IOWR('i', 0x82, struct ipmi_mux_sequence)`
    pub const RESERVE_SEQUENCE: u32 = 0xc018_6982;
    /// `_IOW('i', 0x83, struct ipmi_mux_sequence)`
    pub const RELEASE_SEQUENCE: u32 = 0x4018_6983;
    /// `_IOWR('i', 0x84, struct ipmi_mux_sequence)`
    pub const ATTACH: u32 = 0xc018_6984;
}
