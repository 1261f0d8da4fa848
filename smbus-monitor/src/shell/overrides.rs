// SPDX-License-Identifier: MIT OR Apache-2.0
//! Decisions of operators to go on without a majority, as the log tells them.

use std::collections::BTreeMap;

use daemon_kit::utc::date_time;
use group::settings::{Audit, MemberId};
use secure_link::Name;

use super::links::Links;
use super::monitor::Monitor;
use crate::core::alerts::Kind;
use crate::core::rules::Severity;

/// That somebody went on without a majority stands in every member's log, once.
pub async fn tell(monitor: &Monitor, links: &Links) {
    let audits = links.settings.read(|state| state.audits().to_vec());
    if audits.is_empty() {
        return;
    }
    let Ok(nodes) = links.group.nodes().await else { return };
    let names: BTreeMap<MemberId, Name> =
        nodes.lead.into_iter().map(|(name, id)| (id.into(), name)).collect();
    let mut inner = monitor.lock();
    for audit in audits {
        let (head, rest) = text(&audit, &names);
        if !inner.events.iter().any(|event| event.text.starts_with(&head)) {
            let place = inner.place.clone();
            let severity = Some(Severity::Warning);
            monitor.note(&mut inner, Kind::Group, &place, severity, &format!("{head}{rest}"));
        }
    }
}

/// What is said of an override: by what it is known, and the rest.
fn text(audit: &Audit, names: &BTreeMap<MemberId, Name>) -> (String, String) {
    let name = |id: &MemberId| match names.get(id) {
        Some(name) => name.to_string(),
        None => format!("node {:.8}", id.to_string()),
    };
    let all = |ids: &[MemberId]| {
        let mut names: Vec<String> = ids.iter().map(name).collect();
        names.sort();
        names.join(", ")
    };
    let head = format!("the majority was overridden, reign {}: ", audit.reign);
    let left_out = match audit.left_out.as_slice() {
        [] => String::new(),
        ids => format!("; {} no longer", all(ids)),
    };
    let (at, why) = (date_time(audit.at / 1000), audit.why.escape_debug());
    let (user, voters) = (audit.who.user.escape_debug(), all(&audit.voters));
    let member = name(&audit.who.node);
    (head, format!("by {user} at {member}, {at} UTC, \"{why}\"; {voters} decide{left_out}"))
}

#[cfg(test)]
mod tests {
    use group::settings::{Origin, Position, Reign};

    use super::*;

    #[test]
    fn who_overrode_the_majority_is_told_by_name() {
        let ids = [1, 2, 9].map(|byte| MemberId([byte; 16]));
        let names = [(ids[0], "blade1"), (ids[1], "blade2")];
        let names = names.map(|(id, name)| (id, name.parse().unwrap())).into_iter().collect();
        let who = Origin { user: "uid 0".to_owned(), ..Origin::program(ids[1]) };
        let audit = Audit {
            reign: Reign { number: 1, by: ids[1] },
            who,
            at: 1_700_000_000_000,
            why: "they\nburnt".to_owned(),
            base: Position::default(),
            unconfirmed: 0,
            voters: vec![ids[1], ids[0]],
            left_out: vec![ids[2]],
        };
        let (head, rest) = text(&audit, &names);
        assert_eq!(head, format!("the majority was overridden, reign 1 of {}: ", ids[1]));
        let said = r#"by uid 0 at blade2, 2023-11-14 22:13:20 UTC, "they\nburnt"; blade1, blade2 decide; node 09090909 no longer"#;
        assert_eq!(rest, said);
    }
}
