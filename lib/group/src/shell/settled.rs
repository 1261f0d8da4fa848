// SPDX-License-Identifier: MIT OR Apache-2.0
//! Settings over the group's links: how their messages travel, when a group's first log begins, and who votes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use secure_link::NodeId;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Call, Callee, Group, Nodes};
use crate::core::records::Change as RecordChange;
use crate::report::SettingsReport;
use crate::settings::{
    Change, Health, MemberId, Options, Origin, Policy, Settings, SettingsError, State, Status,
    Transport, Unreachable,
};
use crate::wire::{Channel, Class};

/// The key of the record in which each member tells whether it has a log: `-` if it has none.
pub const LOG: &str = "group.log";

/// A member that does not answer for so long is not waited for.
const LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at who is here, and who votes.
const LOOK: Duration = Duration::from_secs(1);
/// Most questions that are answered at a time.
const MAX_ANSWERS: usize = 32;

struct Links(Group);

impl Transport for Links {
    async fn call(&self, to: NodeId, request: Vec<u8>) -> Result<Vec<u8>, Unreachable> {
        let call = self.0.ask(Callee::Node(to), Channel::Settings, request);
        match timeout(LIMIT, call).await {
            Ok(answer) => answer.map_err(|error| Unreachable(error.to_string())),
            Err(_) => Err(Unreachable("no answer".to_owned())),
        }
    }
}

/// The program's policy, and the list's word on who may lead.
struct Listed {
    policy: Arc<dyn Policy>,
    lead: Arc<RwLock<BTreeSet<MemberId>>>,
}

impl Policy for Listed {
    fn judge(&self, who: &Origin, change: &Change, state: &State) -> Result<(), String> {
        self.policy.judge(who, change, state)
    }

    fn may_lead(&self, node: MemberId) -> bool {
        let lead = self.lead.read().unwrap_or_else(PoisonError::into_inner);
        lead.contains(&node) && self.policy.may_lead(node)
    }
}

/// Opens a member's settings in a folder of their own, and takes part. The first log of a group begins when
/// all members of its list are here and none has one; who comes later is let vote by the leader.
///
/// # Errors
/// See [`SettingsError`].
pub async fn open(
    group: &Group,
    calls: mpsc::Receiver<Call>,
    folder: &Path,
    options: Options,
) -> Result<Settings, SettingsError> {
    let gone = |gone: super::Gone| SettingsError::Unavailable(gone.to_string());
    let nodes = group.nodes().await.map_err(gone)?;
    let lead = Arc::new(RwLock::new(nodes.lead.iter().map(|one| one.1.into()).collect()));
    let policy = Arc::new(Listed { policy: options.policy.clone(), lead: lead.clone() });
    let options = Options { policy, ..options };
    let settings = Settings::open(folder, nodes.own.1, Links(group.clone()), options).await?;
    tokio::spawn(answer_all(settings.clone(), calls));
    tokio::spawn(keep(group.clone(), settings.clone(), lead));
    Ok(settings)
}

async fn answer_all(settings: Settings, mut calls: mpsc::Receiver<Call>) {
    let places = Arc::new(Semaphore::new(MAX_ANSWERS));
    while let Some(call) = calls.recv().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let settings = settings.clone();
        tokio::spawn(async move {
            let answer = settings.answer(call.node, &call.bytes).await;
            call.answer(answer).await;
            drop(place);
        });
    }
}

/// What this member tells of its log.
fn told(status: &Status) -> String {
    match status.last {
        Some(last) => format!("{} {last}", status.reign.number),
        None => "-".to_owned(),
    }
}

async fn keep(group: Group, settings: Settings, lead: Arc<RwLock<BTreeSet<MemberId>>>) {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_told = String::new();
    loop {
        look.tick().await;
        let Ok(nodes) = group.nodes().await else { return };
        {
            let mut lead = lead.write().unwrap_or_else(PoisonError::into_inner);
            *lead = nodes.lead.iter().map(|one| one.1.into()).collect();
        }
        let status = settings.status();
        // Of a log, only that there is one matters to others.
        let has = if status.last.is_some() { "+" } else { "-" };
        if last_told != has {
            let key = LOG.parse().expect("a key");
            let value = has.as_bytes().into();
            let change = RecordChange::Set(key, Class::Static, value);
            if group.change(vec![change]).await.is_ok() {
                has.clone_into(&mut last_told);
            }
        }
        if status.last.is_none() && status.health == Health::Good {
            begin(&group, &settings, &nodes).await;
        } else if status.leader == Some(nodes.own.1.into()) {
            admit(&settings, &status, &nodes).await;
        }
    }
}

/// Begins a group's first log, if all of the list are here and none has one: a machine that was set up anew does not
/// begin another while those with the old log are away.
async fn begin(group: &Group, settings: &Settings, nodes: &Nodes) {
    let members: Vec<_> = nodes.linked.iter().map(|(name, _)| name.clone()).collect();
    let none_has = group.look(move |core, _| {
        members.iter().all(|name| {
            let records = core.records(name).filter(|records| records.current);
            let mut all = records.into_iter().flat_map(crate::core::Records::iter);
            all.any(|record| record.key.as_str() == LOG && *record.value == *b"-")
        })
    });
    let all_here = nodes.linked.len() + 1 == nodes.of;
    if all_here && none_has.await.unwrap_or(false) {
        let all = nodes.linked.iter().map(|linked| linked.1).chain([nodes.own.1]);
        match settings.begin(all).await {
            Ok(()) => tracing::info!(members = nodes.of, "the group's settings begin"),
            Err(error) => tracing::warn!(%error, "the group's settings do not begin"),
        }
    }
}

/// Lets members vote that are in the list and here.
async fn admit(settings: &Settings, status: &Status, nodes: &Nodes) {
    for (name, node) in &nodes.linked {
        if !status.roster.contains(&(*node).into()) {
            match settings.admit(*node, Origin::program(nodes.own.1.into())).await {
                Ok(()) => tracing::info!(member = %name, "it is to vote on settings"),
                Err(error) => tracing::warn!(member = %name, %error, "it is not let vote"),
            }
        }
    }
}

/// What is shown to people.
#[must_use]
pub fn report(status: &Status, nodes: &Nodes) -> SettingsReport {
    let name = |id: &MemberId| {
        let all = nodes.linked.iter().chain([&nodes.own]);
        let found = all.into_iter().find(|(_, node)| MemberId::from(*node) == *id);
        found.map_or_else(|| id.to_string(), |found| found.0.to_string())
    };
    SettingsReport {
        health: match &status.health {
            Health::Good => "good".to_owned(),
            Health::Down(why) | Health::TooOld(why) => why.clone(),
        },
        log: told(status),
        reign: status.reign.to_string(),
        leader: status.leader.as_ref().map(name),
        term: status.term,
        voters: status.voters.iter().map(name).collect(),
        learners: status.learners.iter().map(name).collect(),
        applied: status.applied,
    }
}
