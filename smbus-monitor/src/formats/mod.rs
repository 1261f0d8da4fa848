// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes and texts of the kernel, of chips and of members, as types. Decoders take anything and never panic.

pub mod pmbus;
pub mod proc;
pub mod records;
pub mod smbios;
