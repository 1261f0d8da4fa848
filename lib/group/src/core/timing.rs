// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long things take, in microseconds, and why.

use crate::wire::Micros;

const MS: Micros = 1_000;

/// Between two beats of a member in a small group, and of the first few of a large one.
pub const BEAT: Micros = 100 * MS;
/// Between two beats of the others in a group above [`FEW`]: 64 members at [`BEAT`] would be 630 datagrams a second
/// for each, 1 % of a core.
pub const SLOW_BEAT: Micros = 500 * MS;
/// Members that can all beat fast: below 0.6 % of a core for each.
pub const FEW: usize = 32;
/// The manager and those that would follow it, which beat fast in a large group.
pub const FIRST: usize = 3;

/// Silence until a member is suspected and probed, in halves of its interval: one beat may be lost.
pub const SUSPECT_HALVES: Micros = 5;
/// A network that carried no beat of a member for so many of its intervals is not given a turn: of four networks each has one
/// in four, and one may be lost.
pub const NETWORK_BEATS: Micros = 2 * super::MAX_NETWORKS as Micros;
/// Between two probes of a suspect: a dozen of them, so that it takes more than chance to lose all, and
/// each is answered at once.
pub const PROBE: Micros = 15 * MS;
/// How long a suspect is probed: then it is removed, 430 ms after its last beat. A stall of 300 ms, the
/// worst of a machine under load, is not the end of it.
pub const GRACE: Micros = 180 * MS;

/// A timer that is late by more says that this machine stood still, and that nobody else did.
pub const STALL: Micros = BEAT;

/// How long a member that returns must have been there before it can be the active manager: one that comes
/// and goes does not drag the manager with it.
pub const HOLD_DOWN: Micros = 5_000 * MS;
/// A group without anybody eligible waits so long for those that are missing, and then goes on without.
pub const ALONE: Micros = 1_000 * MS;

/// Who is here for so long counts where the parts of a group compare how large they are: parts that meet are one by then.
pub const SETTLED: Micros = 1_000 * MS;

/// Between two attempts at a link, doubled with each until [`RETRY_MOST`].
pub const RETRY: Micros = 100 * MS;
/// The same while beats of it come or came just now: a program that ends closes its links before its port, which then
/// still takes a connection or two.
pub const RETRY_HERE: Micros = 10 * MS;
/// At most this long between two attempts.
pub const RETRY_MOST: Micros = 2_000 * MS;
/// A connection that says nothing is given up: what takes four messages takes no longer, and the shell's own limit
/// for a handshake lies below.
pub const CONNECT: Micros = 4_000 * MS;
/// So long a link is kept when the beats of its other end have stopped: on machines that are too busy for beats, another
/// handshake for each silence would keep them so.
pub const LINGER: Micros = 1_000 * MS;
/// A link is replaced after this long, with new keys: what is later found in a machine's memory does not open
/// what was said before.
pub const RENEW: Micros = 3_600_000 * MS;
/// Between a version that a beat tells of, and the demand for all records if it has not come.
pub const CATCH_UP: Micros = 2_000 * MS;

/// When a member that beats at this interval is suspected, after its last sign.
#[must_use]
pub const fn suspect_after(interval: Micros) -> Micros {
    interval * SUSPECT_HALVES / 2
}
