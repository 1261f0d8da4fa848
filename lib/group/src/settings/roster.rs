// SPDX-License-Identifier: MIT OR Apache-2.0
//! The leader makes the engine's voters those of the agreed roster: a newcomer learns first, and votes when it has caught
//! up. Any leader goes on where another stopped.

use std::collections::BTreeSet;

use openraft::{ChangeMembers, EmptyNode};

use super::PAUSE;
use super::engine::Engine;
use super::types::MemberId;

/// A learner with so few entries to go has caught up.
const CAUGHT_UP: u64 = 64;

/// What the leader does next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Learn(MemberId),
    Vote(BTreeSet<MemberId>),
    Leave(BTreeSet<MemberId>),
}

/// Follows the roster for as long as the engine runs; the caller ends it.
pub async fn follow(engine: Engine) {
    let mut metrics = engine.raft.metrics();
    loop {
        if let Some(step) = next(&engine) {
            tracing::debug!(?step, "the voters are changed");
            let done = match step {
                Step::Learn(node) => {
                    engine.raft.add_learner(node, EmptyNode {}, false).await.map(drop)
                }
                Step::Vote(voters) => engine.raft.change_membership(voters, false).await.map(drop),
                Step::Leave(nodes) => {
                    let leave = ChangeMembers::RemoveNodes(nodes);
                    engine.raft.change_membership(leave, false).await.map(drop)
                }
            };
            if let Err(why) = done {
                tracing::debug!(%why, "the voters are not changed");
            }
        }
        // Metrics change with each heartbeat of a leader; the roster changes with an entry, which they show too.
        let _ = tokio::time::timeout(10 * PAUSE, metrics.changed()).await;
        tokio::time::sleep(PAUSE).await;
    }
}

fn next(engine: &Engine) -> Option<Step> {
    let metrics = engine.raft.metrics().borrow().clone();
    if metrics.current_leader != Some(metrics.id) {
        return None;
    }
    let replication = metrics.replication.as_ref()?;
    let view = engine.view.contents();
    let wanted = view.state.roster();
    let membership = metrics.membership_config.membership();
    let now = membership.get_joint_config().last()?;
    let nodes: BTreeSet<MemberId> = membership.nodes().map(|(id, _)| *id).collect();
    if membership.get_joint_config().len() > 1 {
        return Some(Step::Vote(now.clone()));
    }
    if let Some(node) = wanted.difference(&nodes).next() {
        return Some(Step::Learn(*node));
    }
    let caught_up = |node: &&MemberId| {
        let last = metrics.last_log_index.unwrap_or(0);
        let matched = replication.get(node).and_then(Option::as_ref).map(|id| id.index);
        now.contains(node) || matched.is_some_and(|index| index + CAUGHT_UP >= last)
    };
    let voters: BTreeSet<MemberId> = wanted.iter().filter(caught_up).copied().collect();
    if voters != *now && !voters.is_empty() {
        return Some(Step::Vote(voters));
    }
    let gone: BTreeSet<MemberId> =
        nodes.difference(wanted).filter(|node| !now.contains(node)).copied().collect();
    (!gone.is_empty()).then_some(Step::Leave(gone))
}
