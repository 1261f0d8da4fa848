// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a member says of its group on its control socket, `GET /v1/group`, the same in all programs. `midplane
//! status` shows it.

use serde::{Deserialize, Serialize};

use crate::core::{Counters, MemberStatus, Standing, Status, Unfit, Why};
use crate::wire::Micros;

/// The group as one program on one machine sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The group.
    pub group: String,
    /// The program.
    pub program: String,
    /// This machine's name.
    pub name: String,
    /// Its node key's id.
    pub node: String,
    /// The group key it sends with, as an id.
    pub key: String,
    /// The other one that it accepts, while the key is being changed.
    pub other_key: Option<String>,
    /// How often the program has started, by its disk.
    pub epoch: u64,
    /// The active manager, as far as can be seen from here.
    pub manager: Option<String>,
    /// Where to send who asks for the manager; none if it is this member, or none has said so.
    pub redirect: Option<String>,
    /// Whether this member can be the manager: `eligible`, or why it is not, or not yet.
    pub standing: String,
    /// Members in the list, this one counted.
    pub of: usize,
    /// Members that are here, this one counted.
    pub sees: usize,
    /// The group's time, in microseconds since 1970.
    pub time_us: i64,
    /// How far it may be off; none as long as there is no reference.
    pub time_error_us: Option<u64>,
    /// The settings' log; none in a program without.
    pub settings: Option<SettingsReport>,
    /// The others, in the order of their addresses.
    pub members: Vec<MemberReport>,
    /// What happened since the program started.
    pub counters: Counters,
}

/// The settings' log as one member sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsReport {
    /// `good`, or why it cannot be used here.
    pub health: String,
    /// Reign and last entry on this member's disk; `-` if it has none.
    pub log: String,
    /// Whose log it is: 0 until somebody overrides the majority.
    pub reign: String,
    /// Who leads, as far as is known here.
    pub leader: Option<String>,
    /// Its term.
    pub term: u64,
    /// Who votes.
    pub voters: Vec<String>,
    /// Who learns before it may vote.
    pub learners: Vec<String>,
    /// The last entry that this member has acted on.
    pub applied: Option<u64>,
}

/// One other member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberReport {
    /// Its name.
    pub name: String,
    /// Its first address.
    pub address: String,
    /// `here`, or why it is not.
    pub state: String,
    /// For how many seconds.
    pub for_s: u64,
    /// Whether there is a link to it.
    pub linked: bool,
    /// Whether it could be the manager.
    pub eligible: bool,
    /// Whether it says to be the manager.
    pub active: bool,
    /// Whom it takes for the manager.
    pub manager: Option<String>,
    /// Whom it sees, as far as it has told.
    pub sees: Vec<String>,
    /// Over which networks it is heard, from 1.
    pub networks: Vec<usize>,
    /// Most microseconds to it and back.
    pub round_trip_us: Option<u64>,
    /// How many records of it are held.
    pub records: usize,
    /// Whether they are as it has them now; else they are what was last known.
    pub current: bool,
}

/// In words.
fn standing((unfit, standing): (Option<Unfit>, Standing), now: Micros) -> String {
    match (unfit, standing) {
        (Some(Unfit::Configured), _) => "not eligible: by its configuration".to_owned(),
        (Some(Unfit::Draining), _) => "not eligible: it is to be taken out of service".to_owned(),
        (Some(Unfit::Failing), _) => "not eligible: its own interface fails".to_owned(),
        (None, Standing::Eligible) => "eligible".to_owned(),
        (None, Standing::Waiting(None)) => "not eligible yet".to_owned(),
        (None, Standing::Waiting(Some(until))) => {
            format!("eligible in {} s", until.saturating_sub(now).div_ceil(1_000_000))
        }
    }
}

/// Of a member whose link is there, and whose beats are not.
const DEAF: &str = "connected, but UDP between the two does not get through";

/// In words.
#[must_use]
pub fn state(away: Option<Why>) -> &'static str {
    match away {
        None => "here",
        Some(Why::NeverMet) => "not met yet",
        Some(Why::Left) => "stopped",
        Some(Why::Refused) => "its program does not run",
        Some(Why::Silent) => "silent",
        Some(Why::Revoked) => "shut out",
        Some(Why::Misbehaved) => "cut off: it broke the protocol",
    }
}

impl MemberReport {
    fn new(member: MemberStatus, now: Micros) -> Self {
        let MemberStatus { name, address, away, since, linked, eligible, active, .. } = member;
        let for_s = now.saturating_sub(since) / 1_000_000;
        Self {
            name: name.to_string(),
            address: address.to_string(),
            state: match away {
                // For a while links outlast the beats.
                Some(Why::Silent | Why::NeverMet) if linked && for_s >= 2 => DEAF,
                _ => state(away),
            }
            .to_owned(),
            for_s,
            linked,
            eligible,
            active,
            manager: member.manager.map(|name| name.to_string()),
            sees: member.sees_whom.iter().map(ToString::to_string).collect(),
            networks: member.networks.iter().map(|network| network + 1).collect(),
            round_trip_us: member.round_trip,
            records: member.records,
            current: member.current,
        }
    }
}

impl Report {
    /// Of what the core says; who this is, the shell adds.
    #[must_use]
    pub fn new(status: Status, redirect: Option<String>, now: Micros) -> Self {
        Self {
            group: String::new(),
            program: String::new(),
            name: status.own.to_string(),
            node: String::new(),
            key: String::new(),
            other_key: None,
            epoch: status.life.epoch,
            manager: status.manager.map(|name| name.to_string()),
            redirect,
            standing: standing(status.standing, now),
            of: status.of,
            sees: status.sees,
            time_us: status.time,
            time_error_us: status.time_error,
            settings: None,
            members: status.members.into_iter().map(|m| MemberReport::new(m, now)).collect(),
            counters: status.counters,
        }
    }
}
