// SPDX-License-Identifier: MIT OR Apache-2.0
//! Exit codes of all programs and verbs, listed under EXIT STATUS in their man pages.

/// It was done.
pub const OK: u8 = 0;
/// It was not done; the reason is on standard error.
pub const FAILED: u8 = 1;
/// The command line was wrong; nothing was tried.
pub const USAGE: u8 = 2;
/// Busy: nothing was done, the same command may work later. The value is `EX_TEMPFAIL` of
/// `<sysexits.h>`.
pub const BUSY: u8 = 75;
